"""What every channel keeps. A row of ``channels.tables`` is enough to be held to it: FAMILY and SNR
name what is tested beside or instead of the plain one."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from channels.awgn import AWGN
from channels.base import Channel
from channels.cascade import Cascade
from channels.dataset import Measured
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.impulsive import Impulsive
from channels.interference import Interference
from channels.ofdm import CDL, TDL, UMa, UMi
from channels.tables import CHANNELS, example
from channels.units import linear_to_db, snr_db_to_n0
from channels.waveform import Waveform
from semsim import spec
from semsim.seeds import stream

Maker = Callable[[Path], Channel]

FAMILY: dict[str, Maker] = {
    "awgn": lambda _: AWGN(),
    "rayleigh": lambda _: Rayleigh(),
    "rayleigh-symbol": lambda _: Rayleigh(coherence="symbol"),
    "rayleigh-4x4-correlated": lambda _: Rayleigh(
        4, 4, coherence=5, tx_correlation=0.7, rx_correlation=0.3
    ),
    "rayleigh-8x2": lambda _: Rayleigh(8, 2),
    "rician": lambda _: Rician(6.0),
    "rician-2x3": lambda _: Rician(3.0, num_tx=2, num_rx=3, coherence=4),
    "tdl-a": lambda _: TDL("A", subcarriers=6, speed_mps=30.0, num_tx=2, num_rx=2),
    "tdl-e": lambda _: TDL("E", subcarriers=6),
    "cdl-c": lambda _: CDL("C", subcarriers=6, speed_mps=3.0, num_tx=2, num_rx=2),
    "umi": lambda _: UMi(subcarriers=6, num_rx=2),
    "uma": lambda _: UMa(3.0, subcarriers=6),
    "erasure": lambda _: Erasure(0.3, 4),
    "erasure-rayleigh": lambda _: Erasure(0.3, 4, channel=Rayleigh(2, 2)),
    "interference": lambda _: Interference(10.0, channel=Rayleigh(2, 2)),
    "impulsive-2x2": lambda _: Impulsive(0.3, -5.0, 4, channel=Rayleigh(2, 2)),
    "offset": lambda _: CarrierOffset(0.01, antennas=2),
    "offset-untracked": lambda _: CarrierOffset(0.01, tracked=False),
    "phase-noise": lambda _: PhaseNoise(1e3, 1e6),
    "clipping": lambda _: Clipping(3.0, 2),
    "cascade": lambda _: Cascade([Clipping(3.0, 2), Rayleigh(2, 3), PhaseNoise(1e3, antennas=3)]),
    "measured": lambda path: Measured(path),
    "waveform": lambda _: Waveform(
        [Clipping(3.0, 2), TDL("A", subcarriers=6, speed_mps=30.0, num_tx=2, num_rx=2)]
    ),
    "waveform-oscillators": lambda _: Waveform(
        [CarrierOffset(offset_hz=300.0), PhaseNoise(100.0)], subcarriers=6
    ),
}


def plain(makers: Iterable[Maker], path: Path) -> dict[str, Maker]:
    """Return makers of the kinds of the table that none of ``makers`` makes."""
    made = {type(make(path)) for make in makers}
    rest = [kind for kind in CHANNELS if spec.resolve("channel", kind) not in made]
    return {kind: lambda _, kind=kind: example(kind) for kind in rest}


def some_gains(path: Path) -> Path:
    draw = np.random.default_rng(1)
    gains = draw.normal(size=(2000, 2, 2, 8, 2)) * draw.uniform(0.7, 1.3, (2000, 1, 1, 1, 1))
    np.save(path / "gains.npy", gains)
    return path / "gains.npy"


with TemporaryDirectory() as _folder:
    FAMILY |= plain(FAMILY.values(), some_gains(Path(_folder)))


@pytest.fixture(scope="session")
def measured_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return some_gains(tmp_path_factory.mktemp("measured"))


@pytest.fixture(params=FAMILY)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def channel(name: str, measured_file: Path) -> Channel:
    return FAMILY[name](measured_file)


def test_a_use_is_the_same_however_long_the_item_is(name: str, channel: Channel) -> None:
    if name.startswith("waveform"):
        pytest.skip("a last OFDM symbol that is filled further is another signal in time")
    short, long = 19, 100
    x, n0 = symbols(channel, 5, long), torch.full((5,), 0.1)
    heard = []
    for uses in (short, long):
        state = channel.draw(5, uses, stream(1, "draw"))
        h = state.h.expand(*state.h.shape[:-1], uses)[..., :short]
        y = channel(x[..., :uses], state, n0, stream(1, "noise"))[..., :short]
        heard.append((h, y))
    for of_short, of_long in zip(*heard, strict=True):
        torch.testing.assert_close(of_short, of_long, rtol=1e-4, atol=1e-5)


def symbols(
    channel: Channel, batch: int, uses: int, dtype: torch.dtype = torch.complex64
) -> torch.Tensor:
    """Total power 1 over the transmit antennas."""
    x = torch.randn(batch, channel.num_tx, uses, dtype=dtype, generator=stream(1, "x"))
    return x / math.sqrt(channel.num_tx)


def send(channel: Channel, x: torch.Tensor, seed: int = 1, n0: float | None = 0.1) -> torch.Tensor:
    generator = stream(seed, "channel")
    state = channel.draw(len(x), x.shape[-1], generator)
    noise = None if n0 is None else torch.full((len(x),), n0, dtype=x.real.dtype)
    return channel(x, state, noise, generator)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_y_has_the_receiver_s_shape_and_the_type_of_x(channel: Channel, dtype: torch.dtype) -> None:
    x = symbols(channel, 3, 20, dtype)
    state = channel.draw(3, 20, stream(1, "state"))
    y = channel(x, state, torch.full((3,), 0.1), stream(1, "noise"))
    assert y.shape == (3, channel.num_rx, 20)
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert state.h.shape[:3] == (3, channel.num_rx, channel.num_tx)
    assert state.h.shape[3] in (1, 20)
    assert state.h.dtype == torch.complex64
    assert 1 <= state.coherence <= 20


def test_one_generator_repeats_and_another_differs(channel: Channel) -> None:
    x = symbols(channel, 2, 12)
    assert torch.equal(send(channel, x, seed=1), send(channel, x, seed=1))
    assert not torch.equal(send(channel, x, seed=1), send(channel, x, seed=2))


def test_an_item_does_not_reach_its_neighbours(channel: Channel) -> None:
    x = symbols(channel, 3, 12)
    other = x.clone()
    other[0] *= -3
    before, after = send(channel, x), send(channel, other)
    assert torch.equal(before[1:], after[1:])
    n0 = torch.tensor([0.1, 0.2, 0.3])
    state = channel.draw(3, 12, stream(1, "state"))
    before = channel(x, state, n0, stream(1, "noise"))
    after = channel(x, state, n0 * torch.tensor([5.0, 1.0, 1.0]), stream(1, "noise"))
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


def test_without_n0_there_is_no_noise(name: str, channel: Channel) -> None:
    if name.startswith(("interference", "impulsive")):
        pytest.skip("what comes from others is still there")
    x = symbols(channel, 3, 20)
    state = channel.draw(3, 20, stream(1, "state"))
    y = channel(x, state, None, stream(1, "noise"))
    assert torch.equal(y, channel(x, state, None, stream(2, "noise")))
    if getattr(channel, "only_gain", True):
        expected = torch.einsum("brtn,btn->brn", state.h.expand(-1, -1, -1, 20), x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_h_stays_for_as_long_as_it_says(name: str, channel: Channel) -> None:
    state = channel.draw(2, 24, stream(1, "state"))
    if state.h.shape[-1] == 1 or state.drift or state.symbol_uses > 1:
        return  # over an OFDM grid or under an oscillator the gain stays nearly, not exactly
    for start in range(0, 24, state.coherence):
        block = state.h[..., start : start + state.coherence]
        assert torch.equal(block, block[..., :1].expand_as(block))


def test_nothing_enters_a_state_dict(channel: Channel) -> None:
    send(channel, symbols(channel, 2, 12))
    assert isinstance(channel, torch.nn.Module)
    assert channel.state_dict() == {}
    assert list(channel.parameters()) == []


def test_a_copy_does_what_the_channel_does(channel: Channel) -> None:
    x = symbols(channel, 2, 12)
    y = send(channel, x)
    copies = (copy.deepcopy(channel), pickle.loads(pickle.dumps(channel)), channel.to("cpu"))
    for twin in copies:
        assert torch.equal(send(twin, x), y)
    channel.double().float()
    assert torch.equal(send(channel, x), y)


def test_gradients_reach_x_and_n0(channel: Channel) -> None:
    x = symbols(channel, 2, 4, torch.complex128).requires_grad_()
    n0 = torch.tensor([0.1, 1.0], dtype=torch.float64, requires_grad=True)
    state = channel.draw(2, 4, stream(1, "state"))

    def run(x: torch.Tensor, n0: torch.Tensor) -> torch.Tensor:
        return channel(x, state, n0, stream(1, "noise"))

    assert torch.autograd.gradcheck(run, (x, n0))


def test_a_draw_under_inference_still_trains_later(channel: Channel) -> None:
    with torch.inference_mode():
        send(channel, symbols(channel, 2, 12))
    x = symbols(channel, 2, 12).requires_grad_()
    send(channel, x).abs().square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_wrong_x_n0_or_generator_is_refused(channel: Channel) -> None:
    x = symbols(channel, 2, 12)
    state = channel.draw(2, 12, stream(1, "state"))
    for wrong in (x.real, x[0], x.repeat(1, 2, 1)):
        with pytest.raises(ValueError, match="channel"):
            channel(wrong, state, None, stream(1, "noise"))
    with pytest.raises(ValueError, match=r"shape \[2\]"):
        channel(x, state, torch.tensor(0.1), stream(1, "noise"))
    with pytest.raises(ValueError, match=r"torch\.Generator"):
        channel(x, state, torch.full((2,), 0.1), None)
    with pytest.raises(ValueError, match="uses is a whole number"):
        channel.draw(2, 0, stream(1, "state"))


def test_a_constructor_says_its_types(channel: Channel) -> None:
    hints = typing.get_type_hints(type(channel).__init__)
    assert typing.Any not in hints.values()


def test_a_stretch_of_an_item_meets_what_the_item_meets_there(name: str, channel: Channel) -> None:
    x = symbols(channel, 3, 60)
    state = channel.draw(3, 60, stream(1, "state"))
    part = state.during(12, 48)
    assert part.uses == 36
    assert torch.equal(
        part.h.expand(*part.h.shape[:3], 36), state.h.expand(*state.h.shape[:3], 60)[..., 12:48]
    )
    if state.covariance is not None:
        mine = state.covariance.expand(*state.covariance.shape[:3], 60)[..., 12:48]
        assert torch.equal(part.covariance.expand(*part.covariance.shape[:3], 36), mine)
    if isinstance(channel, Impulsive | Interference | Waveform):
        return  # draws in passing, or echoes from before
    y = channel(x, state, None, stream(1, "noise"))[..., 12:48]
    heard = channel(x[..., 12:48], part, None, stream(1, "noise"))
    torch.testing.assert_close(heard, y, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_is_kept(channel: Channel) -> None:
    x = symbols(channel, 2, 12).cuda()
    generator = stream(1, "channel", device="cuda")
    state = channel.draw(2, 12, generator)
    y = channel(x, state, torch.full((2,), 0.1, device="cuda"), generator)
    assert state.h.is_cuda
    assert y.is_cuda


@dataclass(frozen=True)
class Budget:
    """How to measure a channel's SNR to 0.0125 dB: which one, how many uses, draws per batch.

    ``quick`` is the same channel with gains that cost less, where the noise is measured.
    """

    make: Maker
    uses: int
    draws: dict[int, int]
    quick: Maker | None = None


# 100 GHz at 3 km/s: each ray has a Doppler shift of its own, so that a draw averages over rays
_FAST = {
    "subcarriers": 16,
    "subcarrier_spacing_hz": 1e6,
    "carrier_hz": 1e11,
    "speed_mps": 3000.0,
    "num_tx": 2,
    "num_rx": 2,
}
_STILL = _FAST | {"speed_mps": 0.0}
MOST = 4000  # draws of a channel that nobody tuned; fewer where its power is sooner known
_ONE = {1: 1, 7: 1, 64: 1}
_SOME = {1: 400, 7: 60, 64: 7}
_MORE = {1: 600, 7: 86, 64: 10}

# fading averages out over antennas, uses, time and bandwidth, so that few draws say enough
SNR: dict[str, Budget] = {
    "awgn": Budget(lambda _: AWGN(), 8, _ONE),
    "rayleigh": Budget(lambda _: Rayleigh(coherence="symbol"), 8000, {1: 50, 7: 7, 64: 1}),
    "rayleigh-block": Budget(lambda _: Rayleigh(8, 8), 4, {1: 6000, 7: 900, 64: 100}),
    "rayleigh-correlated": Budget(
        lambda _: Rayleigh(4, 4, coherence=2, tx_correlation=0.5, rx_correlation=0.3), 256, _SOME
    ),
    "rician": Budget(lambda _: Rician(6.0, num_rx=2, coherence=2), 4000, {1: 60, 7: 9, 64: 1}),
    "rician-block": Budget(lambda _: Rician(10.0, num_rx=8), 4, {1: 6000, 7: 900, 64: 100}),
    "tdl-a": Budget(
        lambda _: TDL("A", 1e-6, **_FAST), 4096, _SOME, lambda _: TDL("A", 1e-6, **_STILL)
    ),
    "tdl-d": Budget(
        lambda _: TDL("D", 1e-6, **_FAST), 4096, _SOME, lambda _: TDL("D", 1e-6, **_STILL)
    ),
    "cdl-c": Budget(
        lambda _: CDL("C", 1e-6, **_FAST), 4096, _MORE, lambda _: CDL("C", 1e-6, **_STILL)
    ),
    "cdl-e": Budget(
        lambda _: CDL("E", 1e-6, **_FAST), 4096, _SOME, lambda _: CDL("E", 1e-6, **_STILL)
    ),
    "umi": Budget(lambda _: UMi(**_FAST), 4096, _MORE, lambda _: UMi(**_STILL)),
    "uma": Budget(lambda _: UMa(**_FAST), 4096, _MORE, lambda _: UMa(**_STILL)),
    "erasure": Budget(
        lambda _: Erasure(0.2, 8, channel=Rayleigh(coherence="symbol")),
        10000,
        {1: 50, 7: 7, 64: 1},
    ),
    "interference": Budget(
        lambda _: Interference(5.0, channel=Rayleigh(coherence="symbol")),
        8000,
        {1: 50, 7: 7, 64: 1},
    ),
    "offset": Budget(lambda _: CarrierOffset(0.01, antennas=2), 8, _ONE),
    "phase-noise": Budget(lambda _: PhaseNoise(1e3, 1e6), 8, _ONE),
    "clipping": Budget(lambda _: Clipping(3.0, 2), 8, _ONE),
    "cascade": Budget(
        lambda _: Cascade(
            [Clipping(3.0, 2), Rayleigh(2, 4, coherence=2), PhaseNoise(1e3, antennas=4)]
        ),
        400,
        _SOME,
    ),
    "waveform": Budget(
        lambda _: Waveform([CarrierOffset(offset_hz=1.0, antennas=2)], subcarriers=16), 64, _ONE
    ),
    "measured": Budget(lambda path: Measured(path), 8, {1: 30000, 7: 4300, 64: 470}),
}
_COSTLY = {"cdl-c", "cdl-e", "umi", "uma"}
with TemporaryDirectory() as _folder:
    _rest = plain([budget.make for budget in SNR.values()], some_gains(Path(_folder)))
    SNR |= {name: Budget(make, 64, {64: MOST}) for name, make in _rest.items()}
_POINTS = [
    pytest.param(name, batch, marks=pytest.mark.slow if name in _COSTLY else ())
    for name, budget in SNR.items()
    for batch in budget.draws
]


def gain_power(channel: Channel, budget: Budget, batch: int) -> tuple[float, float]:
    """Return E|h[r, t]|^2, over what arrives, and its standard error; items are independent."""
    generator = stream(3, "gain", batch)
    sums: list[torch.Tensor] = []
    counts: list[torch.Tensor] = []
    for number in range(budget.draws[batch]):
        if budget.draws[batch] == MOST and number in (16, 64, 256, 1024) and known(sums, counts):
            break
        h = channel.draw(batch, budget.uses, generator).h
        power = h.abs().square().double().mean(dim=(1, 2))
        sums.append(power.sum(dim=1))
        counts.append((power > 0).sum(dim=1))
    return ratio(sums, counts)


def ratio(sums: list[torch.Tensor], counts: list[torch.Tensor]) -> tuple[float, float]:
    total, count = torch.cat(sums), torch.cat(counts).double()
    mean = float(total.sum() / count.sum())
    spread = (total - mean * count).square().sum().sqrt() / count.sum()
    return mean, float(spread)


def known(sums: list[torch.Tensor], counts: list[torch.Tensor]) -> bool:
    mean, spread = ratio(sums, counts)
    return spread / mean < 0.002  # 0.009 dB


def noise_ratio(channel: Channel, batch: int, samples: int = 400_000) -> tuple[float, float]:
    """Return measured over nominal noise power, each item at an SNR of its own, and its error."""
    uses = samples // (batch * channel.num_rx)
    n0 = snr_db_to_n0(torch.linspace(-5, 20, batch))
    ratios: list[torch.Tensor] = []
    for draw in itertools.count():
        x = symbols(channel, batch, uses)
        state = channel.draw(batch, uses, stream(4, "state", batch, draw))
        noisy = channel(x, state, n0, stream(4, "noise", batch, draw))
        clean = channel(x, state, None, stream(4, "noise", batch, draw))
        noise = (noisy - clean).abs().square().double() / n0[:, None, None]
        ratios.append(noise[noise > 0])
        seen = sum(len(ratio) for ratio in ratios)
        if seen >= 0.75 * samples:
            return float(torch.cat(ratios).mean()), 1 / math.sqrt(seen)
    raise AssertionError("unreachable")


@pytest.mark.parametrize(("snr_name", "batch"), _POINTS)
def test_snr_is_what_it_says(snr_name: str, batch: int, measured_file: Path) -> None:
    budget = SNR[snr_name]
    channel = budget.make(measured_file)
    gain, gain_error = gain_power(channel, budget, batch)
    noise, noise_error = noise_ratio((budget.quick or budget.make)(measured_file), batch)
    db = 10 / math.log(10)
    assert db * math.hypot(gain_error / gain, noise_error) < 0.0125  # 0.05 dB is four of these
    assert abs(linear_to_db(gain / noise)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("make", [Rayleigh, lambda: Rician(6.0)], ids=["rayleigh", "rician"])
def test_block_fading_of_one_item_at_a_time_keeps_the_snr(make: Callable[[], Channel]) -> None:
    channel = make()
    gain, error = gain_power(channel, Budget(lambda _: channel, 4, {1: 120_000}), 1)
    assert 10 / math.log(10) * error / gain < 0.0126
    assert abs(linear_to_db(gain)) < 0.05
