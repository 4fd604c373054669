"""TR 38.901 through an OFDM grid against its own tables and Clarke's model."""

from __future__ import annotations

import math

import pytest
import torch

from channels import sionna_bridge
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
    taps = sionna_bridge._tdl(channel.profile, channel.grid, "cpu").mean_powers
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
    block = sionna_bridge._tdl(channel.profile, channel.grid, "cpu")
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


@pytest.mark.parametrize(
    ("delay_spread_s", "coherence"), [(1e-7, 6), (1e-9, 48), (1e-5, 1), (3e-7, 2)]
)
def test_pilots_are_as_dense_as_the_delay_spread_asks(
    delay_spread_s: float, coherence: int
) -> None:
    # 1 / (50 delay spread) of 30 kHz subcarriers, a divisor of 48
    state = TDL("A", delay_spread_s).draw(1, 100, stream(1, "pilots"))
    assert state.coherence == coherence


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "F"}, "model is one of A, B, C, D, E, got 'F'"),
        ({"delay_spread_s": 0.0}, "delay_spread_s is finite and above 0, got 0.0"),
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
