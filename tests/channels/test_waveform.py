"""OFDM in time against the model per resource element and closed forms."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from channels.base import Channel, ChannelState, complex_normal
from channels.cascade import Cascade
from channels.fading import Rayleigh
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.ofdm import CDL, TDL, UMi
from channels.signal import OFDMSignal
from channels.units import linear_to_db
from channels.waveform import Waveform
from semsim.metrics.base import Outcome
from semsim.metrics.signal import PAPR
from semsim.phy.qam import qam_points
from semsim.seeds import stream
from semsim.types import Ledger, Transmission

USES = 10 * 48  # ten OFDM symbols
PATHS = TDL("A", subcarriers=24, delay_spread_s=100e-9, speed_mps=30.0)


def left_over(channel: Channel, batch: int, seed: int = 1) -> tuple[torch.Tensor, ChannelState]:
    """Return what each item receives beside h x, mean power [B], without noise."""
    generator = stream(seed, "waveform")
    state = channel.draw(batch, USES, generator)
    x = complex_normal((batch, channel.num_tx, USES), generator) / math.sqrt(channel.num_tx)
    y = channel(x, state, None, generator)
    wanted = torch.einsum("brtn,btn->brn", state.h.expand(-1, -1, -1, USES), x)
    return (y - wanted).abs().square().mean(dim=(1, 2)), state


@pytest.mark.parametrize(("subcarriers", "uses"), [(48, 480), (48, 100), (7, 20), (1, 3)])
def test_a_signal_in_time_holds_the_symbols_and_their_power(subcarriers: int, uses: int) -> None:
    signal = OFDMSignal(subcarriers, 30e3)
    x = complex_normal((2, 3, uses), stream(1, "x"), torch.complex128)
    samples = signal.modulate(x)
    assert samples.shape == (2, 3, signal.symbols(uses) * signal.length)
    torch.testing.assert_close(signal.demodulate(samples, uses), x)
    body = samples.unflatten(-1, (-1, signal.length))[..., signal.prefix :]
    sent = x.abs().square().sum() / (signal.symbols(uses) * subcarriers)
    torch.testing.assert_close(body.abs().square().mean(dim=(-1, -2)).mean() * 6, sent)


def test_a_still_channel_is_that_of_the_model_per_resource_element() -> None:
    fading = TDL("A", 1e-7, num_tx=2, num_rx=2)
    lost, state = left_over(Waveform([fading]), 64)
    per_element = fading.draw(64, USES, stream(1, "waveform")).h
    torch.testing.assert_close(state.h, per_element, atol=1e-4, rtol=0)
    assert linear_to_db(lost.mean()) < -48  # fractions of a sample, four-fold oversampled


@pytest.mark.parametrize(("speed", "level"), [(30.0, -36.5), (139.0, -23.2)])
def test_motion_disturbs_neighbours_as_clarke_says(speed: float, level: float) -> None:
    channel = Waveform([TDL("A", 1e-7, speed_mps=speed)])
    lost, state = left_over(channel, 800)
    turns = speed * 3.5e9 / 299_792_458 / 30e3  # Doppler over spacing
    closed = (2 * math.pi * turns) ** 2 / 24
    assert state.interference == pytest.approx(closed, rel=0.01)
    assert float(linear_to_db(torch.tensor(closed))) == pytest.approx(level, abs=0.1)
    floor = 1e-5  # of delays by fractions of a sample
    error = float(lost.std() / math.sqrt(len(lost)))
    # subcarriers at the edges have fewer neighbours: up to 8 % less
    assert 0.92 * closed - 4 * error < float(lost.mean()) < closed + floor + 4 * error


def test_late_echoes_disturb_and_are_claimed() -> None:
    fading = TDL("A", 1e-6)
    lost, state = left_over(Waveform([fading]), 800)
    error = float(lost.std() / math.sqrt(len(lost)))
    assert state.interference > 5e-3
    assert 0.7 * state.interference - 4 * error < float(lost.mean())
    assert float(lost.mean()) < state.interference + 4 * error


def test_power_is_kept_between_what_is_wanted_and_what_disturbs() -> None:
    channel = Waveform([TDL("A", 3e-7, speed_mps=139.0)])
    _, state = left_over(channel, 2000)
    gain = state.h.abs().square().mean(dim=(1, 2, 3)).double()
    z = (gain.mean() + state.interference - 1) / (gain.std() / math.sqrt(len(gain)))
    assert abs(float(z)) < 4


@pytest.mark.parametrize("make", [CDL, UMi])
def test_other_models_pass_and_claim_what_disturbs(make: type) -> None:
    channel = Waveform([make(speed_mps=30.0, num_tx=2, num_rx=2)])
    lost, state = left_over(channel, 200)
    ratio = float(lost.mean()) / state.interference
    assert 0.4 < ratio < 1.6  # few users, whose delays and angles differ widely


def test_slow_motion_is_slow() -> None:
    lost, _ = left_over(Waveform([TDL("A", 1e-7, speed_mps=1.0)]), 100)
    assert linear_to_db(lost.mean()) < -48


def test_a_carrier_offset_disturbs_as_the_dirichlet_kernel_says() -> None:
    signal = OFDMSignal(48, 30e3)
    lost, state = left_over(Waveform([CarrierOffset(offset_hz=3000.0)], subcarriers=48), 300)
    apart = np.arange(-47, 48) + 3000 / 30e3
    kernel = np.sin(np.pi * apart) / np.sin(np.pi * apart / signal.fft_size) / signal.fft_size
    at = np.arange(48)
    power = (kernel[at[:, None] - at + 47] ** 2).sum(axis=1) - kernel[47] ** 2
    error = float(lost.std() / math.sqrt(len(lost)))
    assert abs(float(lost.mean()) - power.mean()) < 4 * error
    assert float(state.h.abs().mean()) == pytest.approx(abs(kernel[47]), rel=1e-3)


def test_phase_noise_that_is_tracked_leaves_what_changes_within_a_symbol() -> None:
    noise = {"linewidth_hz": 100.0}
    tracked, _ = left_over(Waveform([PhaseNoise(**noise)], subcarriers=48), 300)
    hidden, _ = left_over(Waveform([PhaseNoise(**noise, tracked=False)], subcarriers=48), 300)
    # variance of a Wiener phase about its mean over a symbol: 2 pi linewidth / spacing / 6
    closed = 2 * math.pi * 100 / 30e3 / 6
    assert float(tracked.mean()) == pytest.approx(closed, rel=0.1)
    assert float(hidden.mean()) > 10 * closed


@pytest.mark.parametrize(
    ("stages", "symbols"),
    [
        ([PhaseNoise(30.0)], 10),  # correlated by 0.9 over 31 symbols of 36 us; 10 are sent
        ([PhaseNoise(100.0)], 8),
        ([PhaseNoise(1e4)], 1),
        ([Clipping(3.0), CarrierOffset(offset_hz=600.0)], 2),  # 120 us, 0.0718 of a turn
        ([CarrierOffset(offset_hz=600.0), PhaseNoise(100.0)], 2),
        ([PhaseNoise(1e4, tracked=False), Clipping(3.0)], 10),
        ([PhaseNoise(0.0)], 10),
    ],
)
def test_pilots_of_hardware_alone_stand_as_densely_as_it_turns(
    stages: list[Channel], symbols: int
) -> None:
    state = Waveform(stages).draw(1, USES, stream(1, "state"))
    assert state.coherence == 48 * symbols
    assert (state.drift == 0) == (symbols == 1 or (state.h == state.h[..., :1]).all())


def test_a_later_moment_asks_for_gains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coherence and correlation stay; looking for them takes a table of all pairs of samples."""
    looks: list[int] = []

    def counted(correlation: object, uses: int, *, step: int) -> int:
        looks.append(uses)
        return step

    monkeypatch.setattr("channels.waveform.steady_uses", counted)
    channel = Waveform([TDL("A", 1e-7, speed_mps=10.0), PhaseNoise(100.0)])
    state = channel.draw(1, USES, stream(1, "state"))
    later = state.during(0, USES, later_s=1e-3)
    assert later.h.shape == state.h.shape and looks == [USES]


def test_clipping_acts_on_peaks_in_time() -> None:
    channel = Waveform([Clipping(3.0)], subcarriers=48)
    generator = stream(1, "clip")
    points = qam_points(2)[torch.randint(4, (400, USES), generator=generator)][:, None]
    y = channel(points, channel.draw(400, USES, generator), None, generator)
    assert torch.equal(Clipping(3.0)(points, channel.draw(400, USES, generator), None, generator),
                       points)  # fmt: skip
    gain = (y * points.conj()).mean(dim=(1, 2)).real
    error = float(gain.std() / math.sqrt(len(gain)))
    # an OFDM signal is nearly Gaussian: Bussgang's gain to within 1 %
    assert abs(float(gain.mean()) - Clipping(3.0).bussgang_gain) < 0.01 + 4 * error


def test_the_papr_over_ofdm_is_that_of_the_signal_in_time() -> None:
    generator = stream(1, "papr")
    x = qam_points(2)[torch.randint(4, (4000, 48), generator=generator)][:, None]
    shown = []
    for channel in (TDL("A"), Waveform([Clipping(3.0)], subcarriers=48)):
        state = channel.draw(4000, 48, generator)
        sent = Transmission(x, x, Ledger(48), state=state)
        shown.append(PAPR()(Outcome(x, x, x, sent)))
    torch.testing.assert_close(shown[0], shown[1])
    time = np.linspace(0, 1, 64 * 48, endpoint=False)  # a second road: a fine grid of times
    waves = np.exp(2j * np.pi * np.outer(np.arange(48) - 24, time))
    power = np.abs(x[:500, 0].numpy() @ waves) ** 2 / 48
    expected = float((10 * np.log10(power.max(axis=1))).mean())
    assert float(shown[0].mean()) == pytest.approx(expected, abs=0.12)
    assert expected == pytest.approx(7.2, abs=0.15)


def test_its_past_is_that_of_the_same_paths() -> None:
    channel = Waveform([TDL("A", 1e-7, speed_mps=30.0)])
    state = channel.draw(400, 48, stream(1, "past"))
    before = state.earlier(5e-4)
    seconds = 5e-4 * 30 * 3.5e9 / 299_792_458
    memory = float(torch.special.bessel_j0(torch.tensor(2 * math.pi * seconds)))
    product = (before.h * state.h.conj()).real.mean(dim=(1, 2, 3)).double()
    z = (product.mean() - memory) / (product.std() / math.sqrt(len(product)))
    assert abs(float(z)) < 4
    assert torch.equal(state.earlier(0.0).h, state.h)


@pytest.mark.parametrize(
    "stages",
    [
        [PATHS],
        [PhaseNoise(1e3), PATHS],
        [PATHS, PhaseNoise(1e3)],
        [CarrierOffset(1e-4), PhaseNoise(1e3), PATHS, Clipping(3.0)],
    ],
    ids=["paths", "noise first", "noise last", "four stages"],
)
def test_more_symbols_leave_the_first_ones_as_they_were(stages: list[Channel]) -> None:
    channel, edge = Waveform(stages), 2 * PATHS.grid.subcarriers
    x = complex_normal((3, 1, 2 * edge), stream(5, "x"), torch.complex64)
    found = []
    for uses in (edge, 2 * edge):
        state = channel.draw(3, uses, stream(5, "draw"))
        sent, n0 = x[..., :uses], torch.full((3,), 0.1)
        clean = channel(sent, state, None, stream(5, "noise"))
        noise = channel(sent, state, n0, stream(5, "noise")) - clean
        found.append((state.h[..., :edge], noise[..., :edge]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)  # single precision


def test_hardware_leaves_the_fading_as_it_is() -> None:
    alone = Waveform([PATHS]).draw(3, USES, stream(6, "draw"))
    behind = Waveform([Clipping(3.0), PhaseNoise(1e3, tracked=False), PATHS])
    beside = behind.draw(3, USES, stream(6, "draw"))
    torch.testing.assert_close(beside.h, alone.h, rtol=0, atol=1e-6)


def test_gradients_are_those_of_finite_differences() -> None:
    stages: list[Channel] = [Clipping(0.0), TDL("A", subcarriers=3, speed_mps=30.0)]
    channel = Waveform(stages)
    state = channel.draw(1, 6, stream(1, "gradient"))
    x = complex_normal((1, 1, 6), stream(1, "x"), torch.complex128).requires_grad_()

    def sent(x: torch.Tensor) -> torch.Tensor:
        return channel(x, state, None, stream(1, "noise"))

    assert torch.autograd.gradcheck(sent, (x,), atol=1e-4)


def test_what_a_model_per_element_leaves_out_is_told() -> None:
    with pytest.warns(UserWarning, match=r"9.4 % of the power of this TDL arrives after the"):
        TDL("A", 1e-6).draw(1, 4, stream(1, "late"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TDL("A", 1e-7).draw(1, 4, stream(1, "late"))
        Waveform([TDL("A", 1e-6)]).draw(1, 4, stream(1, "late"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Waveform([]), "one or more, got none"),
        (
            lambda: Waveform([Rayleigh()]),
            "on samples .clipping, .* use a cascade",
        ),
        (lambda: Waveform([Clipping(3.0, 2), TDL("A")]), "has 2 receive antennas, but the next"),
        (
            lambda: Waveform([TDL("A"), TDL("B", subcarriers=12)]),
            "share one OFDM grid, got 12 subcarriers of 30000 Hz beside 48",
        ),
        (lambda: Waveform([TDL("A")], subcarriers=12), "share one OFDM grid"),
        (lambda: Cascade([Clipping(3.0), TDL("A")]), "write kind: waveform instead of cascade"),
        (lambda: CarrierOffset(offset_hz=3.0).cycles_per_use, "needs symbol_rate_hz"),
    ],
)
def test_what_makes_no_signal_is_refused(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]
