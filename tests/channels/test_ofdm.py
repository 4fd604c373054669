"""TR 38.901 through an OFDM grid against its own tables and Clarke's model."""

from __future__ import annotations

import math

import pytest
import torch

from channels import tr38901
from channels.ofdm import CDL, TDL, GridChannel, UMa, UMi
from semsim.seeds import stream

C = 299_792_458.0


def z_of_mean(values: torch.Tensor, expected: torch.Tensor | float) -> torch.Tensor:
    """Return how many standard errors the mean over the first axis is off."""
    values = values.double()
    error = values.std(dim=0) / math.sqrt(len(values))
    return ((values.mean(dim=0) - expected) / error).abs().max()


@pytest.mark.parametrize("model", ["A", "B", "C", "D", "E"])
def test_the_taps_share_a_power_of_one(model: str) -> None:
    channel = TDL(model, 1e-7)
    taps = tr38901._tdl(channel.profile, channel.grid, "cpu").mean_powers
    assert float(taps.sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", ["A", "C"])
def test_time_forgets_as_clarke_says(model: str) -> None:
    speed, carrier, spacing = 30.0, 3.5e9, 3.75e3
    grid = {"subcarriers": 1, "subcarrier_spacing_hz": spacing}
    channel = TDL(model, 1e-7, speed_mps=speed, carrier_hz=carrier, **grid)
    h = channel.draw(2000, 12, stream(1, "doppler")).h[:, 0, 0]
    lag = torch.arange(1, 12)
    # start at 0 only, so that items are the independent unit
    product = (h[:, lag] * h[:, :1].conj()).real
    seconds = lag.double() * 15 / 14 / spacing
    expected = torch.special.bessel_j0(2 * math.pi * speed / C * carrier * seconds)
    assert expected.min() < -0.3  # the lags reach beyond the first zero
    assert z_of_mean(product, expected) < 5


def test_frequency_forgets_as_the_power_delay_profile_says() -> None:
    channel = TDL("B", 3e-7, subcarriers=32, subcarrier_spacing_hz=60e3)
    block = tr38901._tdl(channel.profile, channel.grid, "cpu")
    h = channel.draw(4000, 32, stream(1, "delay")).h[:, 0, 0]
    product = h * h[:, :1].conj()
    delays, powers = block.delays.double(), block.mean_powers.double()
    offset = torch.arange(32, dtype=torch.float64) * 60e3
    turns = torch.exp(-2j * math.pi * offset[:, None] * delays)
    expected = (powers * turns).sum(dim=1)
    assert z_of_mean(product.real, expected.real) < 5
    assert z_of_mean(product[:, 1:].imag, expected[1:].imag) < 5


@pytest.mark.parametrize("make", [TDL, CDL, UMi, UMa])
def test_a_standing_user_sees_every_ofdm_symbol_alike(make: type[GridChannel]) -> None:
    h = make(subcarriers=6).draw(3, 15, stream(1, "grid")).h
    assert h.shape == (3, 1, 1, 15)
    assert torch.equal(h[..., :6], h[..., 6:12])
    assert torch.equal(h[..., :3], h[..., 12:])
    assert not torch.allclose(h[..., 0], h[..., 5], rtol=1e-3)


def test_a_moving_user_sees_them_change_and_the_same_user_at_rest_does_not() -> None:
    h = UMi(50.0, subcarriers=6).draw(3, 12, stream(1, "grid")).h
    assert not torch.allclose(h[..., :6], h[..., 6:])


@pytest.mark.parametrize("make", [UMi, UMa])
def test_batches_of_any_size_follow_one_another(make: type[GridChannel]) -> None:
    channel = make(subcarriers=4)
    first = channel.draw(5, 4, stream(1, "size")).h
    channel.draw(2, 4, stream(2, "size"))
    assert torch.equal(channel.draw(5, 4, stream(1, "size")).h, first)


def test_neighbouring_antennas_are_alike_in_clusters_and_strangers_in_taps() -> None:
    def correlation(channel: GridChannel) -> float:
        h = channel.draw(2000, 1, stream(1, "array")).h[..., 0]
        return float((h[:, 0, 0] * h[:, 0, 1].conj()).mean().abs())

    assert correlation(TDL(subcarriers=1, num_tx=2)) < 5 / math.sqrt(2000)
    assert correlation(CDL("D", subcarriers=1, num_tx=2)) > 0.8


@pytest.mark.parametrize("delay_spread_s", [1e-7, 1e-9, 1e-5, 3e-7])
@pytest.mark.parametrize("make", [TDL, CDL])
def test_a_block_of_subcarriers_is_as_wide_as_a_correlation_of_0_9(
    make: type[GridChannel], delay_spread_s: float
) -> None:
    state = make("A", delay_spread_s).draw(1, 100, stream(1, "width"))
    widths = [n for n in range(1, 49) if 48 % n == 0]
    alike = state.grid.correlation(torch.arange(48), torch.zeros(1))[:, 0].abs()
    assert state.coherence == max(n for n in widths if n == 1 or alike[n - 1] >= 0.9)


@pytest.mark.parametrize(
    ("channel", "batch"),
    [
        (TDL("E", 3e-7, speed_mps=90.0, subcarriers=8, subcarrier_spacing_hz=120e3), 4000),
        (CDL("B", 3e-7, speed_mps=90.0, subcarriers=8, subcarrier_spacing_hz=120e3), 1500),
        (CDL("D", 3e-7, speed_mps=90.0, subcarriers=8, subcarrier_spacing_hz=120e3), 1500),
        (CDL("A", speed_mps=90.0, subcarriers=8, subcarrier_spacing_hz=15e3, motion="3d"), 1500),
    ],
    ids=["tdl-e", "cdl-b", "cdl-d", "cdl-a-3d"],
)
def test_gains_are_correlated_as_the_statistics_say(channel: GridChannel, batch: int) -> None:
    state = channel.draw(batch, 8 * 20, stream(1, "statistics"))
    h = state.h[:, 0, 0].unflatten(-1, (20, 8))
    product = h[:, ::4] * h[:, :1, :1].conj()  # [batch, lags, subcarriers]
    expected = state.grid.correlation(torch.arange(8), torch.arange(0, 20, 4)).T
    assert z_of_mean(product.real, expected.real) < 5
    assert z_of_mean(product.flatten(1)[:, 1:].imag, expected.flatten()[1:].imag) < 5


@pytest.mark.parametrize("model", ["A", "B", "C"])
def test_the_doppler_spread_of_clusters_is_that_of_their_speed(model: str) -> None:
    channel = CDL(model, speed_mps=30.0, subcarriers=1, subcarrier_spacing_hz=60e3)
    seconds = 1 / channel.grid.symbol_rate_hz
    h = channel.draw(3000, 2, stream(1, "spread")).h[:, 0, 0]
    largest = channel.grid.doppler_hz  # v / lambda
    # |h(t) - h(0)|^2 is (2 pi t spread)^2 on average, to within (2 pi t v / lambda)^2 / 4 of it
    change = (h[:, 1] - h[:, 0]).abs().square() / (2 * math.pi * seconds * largest) ** 2
    taps = tr38901.cdl_taps(channel.profile, channel.grid, "horizontal")
    expected = float((taps.powers.double() * (taps.dopplers_hz / largest).square()).sum() / 2)
    assert z_of_mean(change, expected) < 5
    assert 0.93 < math.sqrt(2 * expected) <= 1  # a ring of waves in the plane of motion has 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "F"}, "model is one of A, B, C, D, E, got 'F'"),
        ({"delay_spread_s": 0.0}, "delay_spread_s is finite and above 0, got 0.0"),
        ({"delay_spread_s": 100.0}, "delay_spread_s is in seconds, at most 0.001, got 100; 100 ns"),
        ({"speed_mps": -1.0}, r"speed_mps lies in \[0, 3000\], got -1.0"),
        ({"carrier_hz": 3.5}, "carrier_hz lies in .* got 3.5"),
        ({"subcarriers": 0}, "subcarriers is a whole number of 1 or more, got 0"),
        ({"subcarrier_spacing_hz": -15e3}, "subcarrier_spacing_hz is finite and above 0"),
        ({"num_rx": 0}, "num_rx is a whole number"),
    ],
)
@pytest.mark.parametrize("make", [TDL, CDL])
def test_a_wrong_argument_is_refused(
    make: type[GridChannel], arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        make(**arguments)
