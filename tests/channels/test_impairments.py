"""Oscillators and amplifiers against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from channels.base import complex_normal
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.units import db_to_linear
from semsim.seeds import stream


def test_an_offset_turns_by_its_cycles() -> None:
    channel = CarrierOffset(0.125)
    state = channel.draw(2, 9, stream(1, "state"))
    y = channel(torch.ones(2, 1, 9, dtype=torch.complex128), state, None, stream(1, "n"))
    expected = torch.exp(2j * math.pi * torch.arange(9, dtype=torch.float64) / 8)
    torch.testing.assert_close(y, expected.expand(2, 1, 9), rtol=0, atol=1e-6)


def test_hertz_and_cycles_are_two_ways_to_say_it() -> None:
    in_hertz = CarrierOffset(offset_hz=250.0, symbol_rate_hz=1e6)
    assert in_hertz.cycles_per_use == pytest.approx(2.5e-4)


def test_a_long_offset_keeps_its_phase() -> None:
    uses = 1_000_001
    state = CarrierOffset(0.1).draw(1, uses, stream(1, "state"))
    assert abs(state.h[0, 0, 0, -1] - 1) < 1e-5  # 100 000 whole turns


@pytest.mark.parametrize("channel", [CarrierOffset(0.1, antennas=3), PhaseNoise(1e5, antennas=3)])
def test_tracked_rotation_is_in_h(channel: CarrierOffset | PhaseNoise) -> None:
    state = channel.draw(2, 5, stream(1, "state"))
    x = complex_normal((2, 3, 5), stream(1, "x"))
    y = channel(x, state, None, stream(1, "n"))
    torch.testing.assert_close(y, torch.einsum("brtn,btn->brn", state.h, x))
    assert float(state.h.abs().square().mean()) == pytest.approx(1, abs=1e-6)


def test_untracked_rotation_is_not() -> None:
    state = PhaseNoise(1e5, tracked=False).draw(2, 50, stream(1, "state"))
    assert torch.equal(state.h, torch.ones(2, 1, 1, 1, dtype=torch.complex64))
    x = torch.ones(2, 1, 50, dtype=torch.complex64)
    y = PhaseNoise(1e5, tracked=False)(x, state, None, stream(1, "n"))
    torch.testing.assert_close(y, state.stages[0].h[:, 0])
    assert (y.real < 0.9).any()


@pytest.mark.parametrize(
    ("channel", "coherence"),
    [
        (CarrierOffset(0.0), 500),
        (CarrierOffset(-1e-3), 64),  # arccos(0.9) / 2 pi = 0.0718 of a turn
        (CarrierOffset(0.3), 1),
        (PhaseNoise(0.0), 500),
        (PhaseNoise(100.0, 1e6), 256),  # -ln(0.9) / (pi 1e-4) = 335
        (PhaseNoise(1e3, tracked=False), 500),
    ],
)
def test_pilots_are_as_dense_as_the_rotation_asks(
    channel: CarrierOffset | PhaseNoise, coherence: int
) -> None:
    assert channel.draw(1, 500, stream(1, "state")).coherence == coherence


def test_phase_walks_with_the_variance_of_its_linewidth() -> None:
    items, uses, linewidth, rate = 20_000, 11, 50.0, 1e6
    h = PhaseNoise(linewidth, rate).draw(items, uses, stream(1, "walk")).h[:, 0, 0]
    assert (h[:, 0] == 1).all()
    variance = h[:, 1:].angle().double().square().mean(dim=0)
    expected = 2 * math.pi * linewidth / rate * torch.arange(1, uses, dtype=torch.float64)
    assert ((variance / expected - 1) / math.sqrt(2 / items)).abs().max() < 5


@pytest.mark.parametrize("antennas", [1, 4])
@pytest.mark.parametrize("backoff_db", [-3.0, 0.0, 3.0, 10.0])
def test_no_peak_passes_the_amplifier(backoff_db: float, antennas: int) -> None:
    channel = Clipping(backoff_db, antennas)
    x = complex_normal((8, antennas, 1000), stream(1, "x")) / math.sqrt(antennas)
    y = channel(x, channel.draw(8, 1000, stream(1, "s")), None, stream(1, "n"))
    assert y.abs().square().max() <= db_to_linear(backoff_db) * (1 + 1e-5)
    low = x.abs().square() * antennas < db_to_linear(backoff_db)
    torch.testing.assert_close(y[low], math.sqrt(antennas) * x[low])
    torch.testing.assert_close(y.angle(), x.angle(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backoff_db", [-3.0, 0.0, 6.0])
def test_gaussian_symbols_keep_bussgang_s_share(backoff_db: float) -> None:
    channel = Clipping(backoff_db)
    x = complex_normal((1, 1, 200_000), stream(1, "x"))
    y = channel(x, channel.draw(1, 200_000, stream(1, "s")), None, stream(1, "n"))
    difference = (y * x.conj() - channel.bussgang_gain * x.abs().square()).real.flatten().double()
    assert abs(difference.mean()) / (difference.std() / math.sqrt(200_000)) < 5


def test_silence_has_a_gradient() -> None:
    x = torch.zeros(1, 1, 4, dtype=torch.complex64, requires_grad=True)
    channel = Clipping(3.0)
    channel(x, channel.draw(1, 4, stream(1, "s")), None, stream(1, "n")).real.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CarrierOffset(), "a carrier offset is cycles_per_use, or offset_hz with"),
        (lambda: CarrierOffset(0.1, offset_hz=1.0, symbol_rate_hz=1.0), "given twice"),
        (lambda: CarrierOffset(math.inf), "cycles_per_use is a finite number, got inf"),
        (lambda: CarrierOffset(0.1, antennas=0), "antennas is a whole number"),
        (lambda: PhaseNoise(-1.0), "linewidth_hz lies in .* got -1.0"),
        (lambda: PhaseNoise(1.0, 0.0), "symbol_rate_hz is finite and above 0, got 0.0"),
        (lambda: Clipping(math.nan), "backoff_db lies in .* got nan"),
        (lambda: Clipping(3.0, 0), "antennas is a whole number"),
    ],
)
def test_a_wrong_argument_is_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
