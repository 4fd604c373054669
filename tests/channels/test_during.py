"""A stretch of a realisation: equal to the item there, at other times too, with all stages."""

from __future__ import annotations

import math

import pytest
import torch

from channels.base import Channel, ChannelState, complex_normal
from channels.blocks import block_means, block_middles, count_blocks, per_use
from channels.cascade import Cascade
from channels.csi import PilotCSI
from channels.doppler import clarke, doppler_hz
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import TDL
from channels.waveform import Waveform
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0}
GRID = MOVING | {"subcarriers": 6}
USES = 36
COMPOSED: dict[str, Channel] = {
    "flat": Rayleigh(2, 2, coherence=5, **MOVING),
    "in time": Rician(3.0, num_tx=2, coherence=5, symbol_rate_hz=1e4, los_angle_deg=0.0, **MOVING),
    "grid": TDL("A", num_tx=2, num_rx=2, **GRID),
    "packets": Erasure(0.5, 4, channel=Rayleigh(2, 2, coherence=3, **MOVING)),
    "interferer": Interference(3.0, channel=TDL("A", **GRID)),
    "cascade": Cascade(
        [
            Interference(3.0, channel=Rayleigh(1, 2)),
            Rayleigh(2, 2, **MOVING),
            PhaseNoise(1e3, antennas=2),
        ]
    ),
    "waveform": Waveform([TDL("A", num_rx=2, **GRID), PhaseNoise(1e3, antennas=2)]),
    "nested": Erasure(
        0.5, 7, channel=Cascade([Clipping(3.0, 2), Rayleigh(2, 2, coherence=4, **MOVING)])
    ),
}


@pytest.fixture(params=COMPOSED)
def state(request: pytest.FixtureRequest) -> ChannelState:
    return COMPOSED[request.param].draw(3, USES, stream(1, "state"))


def h_per_use(state: ChannelState) -> torch.Tensor:
    return state.h.expand(*state.h.shape[:3], state.uses)


@pytest.mark.parametrize("later_s", [0.0, -7e-4, 5e-4])
def test_a_stretch_has_the_gains_of_the_item_there(state: ChannelState, later_s: float) -> None:
    part = state.during(12, 25, later_s=later_s)
    whole = state.during(0, USES, later_s=later_s)
    assert part.uses == 13
    assert torch.equal(h_per_use(part), h_per_use(whole)[..., 12:25])
    covariance = whole.coloured().expand(-1, -1, -1, USES)[..., 12:25]
    assert torch.equal(part.coloured().expand(-1, -1, -1, 13), covariance)
    again = state.during(6, 30).during(6, 19, later_s=later_s)
    assert torch.equal(again.h, part.h)
    assert again.offset == part.offset
    torch.testing.assert_close(state.during(12, 25).during(0, 13, later_s=later_s).h, part.h)


def test_other_times_of_a_stretch_are_asked_for_one_by_one_or_together(state: ChannelState) -> None:
    times = torch.tensor([-1e-3, 0.0, 2e-4], dtype=torch.float64)
    part = state.during(6, 30)
    together = part.gains(times)
    for place, time_s in enumerate(times.tolist()):
        one = part.during(0, 24, later_s=time_s).h
        torch.testing.assert_close(together[:, :, :, place], one, atol=1e-5, rtol=0)


def test_stages_of_a_stretch_make_the_stretch(state: ChannelState) -> None:
    part = state.during(6, 20, later_s=-4e-4)
    if part.join is not None:
        torch.testing.assert_close(part.join(part.stages)[0], part.h)


@pytest.mark.parametrize("start", [0, 3, 5, 7, 12])
@pytest.mark.parametrize("length", [1, 2, 5, 9])
@pytest.mark.parametrize("antennas", [1, 3])
def test_a_block_may_be_cut_at_both_ends(start: int, length: int, antennas: int) -> None:
    channel = Rayleigh(antennas, 2, coherence=5)
    whole = channel.draw(2, 21, stream(1, "state"))
    part = whole.during(start, start + length)
    x = complex_normal((2, antennas, 21), stream(1, "x"))
    there = slice(start, start + length)
    y = channel(x[..., there], part, None, stream(1, "n"))
    torch.testing.assert_close(y, channel(x, whole, None, stream(1, "n"))[..., there])
    touched = len({use // 5 for use in range(start, start + length)})
    assert count_blocks(part, length) == touched
    assert PilotCSI(4).overhead(part, length, antennas).pilot_uses == 4 * touched
    for summary in (block_means, block_middles):
        torch.testing.assert_close(per_use(summary(part), part), part.h)


def test_an_item_in_time_goes_on_where_it_ends() -> None:
    channel = Rayleigh(coherence=5, symbol_rate_hz=1e4, **MOVING)
    state = channel.draw(3, 40, stream(1, "state"))
    later = state.during(0, 30, later_s=10 / 1e4)
    torch.testing.assert_close(later.h, state.h[..., 10:], atol=1e-5, rtol=0)


def test_the_future_is_as_far_from_now_as_the_past() -> None:
    state = Rayleigh(**MOVING).draw(20_000, 1, stream(1, "state"))
    rho = float(clarke(torch.tensor(8e-4, dtype=torch.float64), doppler_hz(30.0, 3.5e9)))
    now, then = state.h.flatten(), state.during(0, 1, later_s=8e-4).h.flatten()
    product = (then * now.conj()).real.double()
    assert abs(product.mean() - rho) < 5 * product.std() / math.sqrt(20_000)


def test_a_waveform_of_another_time_goes_over_the_paths_of_that_time() -> None:
    channel = Waveform([TDL("A", 1e-7, **MOVING)])
    state = channel.draw(4, 480, stream(1, "state"))
    x = complex_normal((4, 1, 480), stream(1, "x"))
    for other in (state.earlier(2e-3), state.during(96, 480, later_s=1e-3)):
        symbols = x[..., : other.uses]
        y = channel(symbols, other, None, stream(1, "n"))
        lost = (y - other.h[:, 0] * symbols).abs().square().mean()
        assert lost < 2 * state.interference  # what motion makes; the paths of now would lose all


def test_a_waveform_s_stretch_arrives_as_in_the_item() -> None:
    channel = Waveform([PhaseNoise(1e3), TDL("A", 1e-7, **MOVING)])
    state = channel.draw(4, 480, stream(1, "state"))
    x = complex_normal((4, 1, 480), stream(1, "x"))
    y = channel(x, state, None, stream(1, "n"))[..., 96:300]
    part = channel(x[..., 96:300], state.during(96, 300), None, stream(1, "n"))
    # of its first symbol only echoes within the prefix are missing, of its last the other carriers
    torch.testing.assert_close(part[..., :192], y[..., :192], atol=0.03, rtol=0)


def test_interference_ages_with_what_it_passes() -> None:
    channel = Cascade([Interference(3.0, channel=Rayleigh(1, 2)), Rayleigh(2, 2, **MOVING)])
    then = channel.draw(3, 1, stream(1, "state")).earlier(1e-3)
    g = then.stages[0].stages[1].h[..., 0]
    arrives = then.stages[1].h[..., 0] @ g / math.sqrt(2)
    expected = (arrives @ arrives.mH).to(torch.complex128)
    torch.testing.assert_close(then.covariance[..., 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "stop", "says"),
    [
        (0, 37, "within the 36 uses that were drawn, .* got start=0, stop=37; draw more uses"),
        (-6, 6, "got start=-6"),
        (6, 6, "0 <= start < stop"),
        (4, 12, "start a multiple of 6, got start=4"),
    ],
)
def test_a_stretch_that_was_not_drawn_is_refused(start: int, stop: int, says: str) -> None:
    for name in ("grid", "interferer", "waveform"):
        state = COMPOSED[name].draw(1, USES, stream(1, "state"))
        with pytest.raises(ValueError, match=says):
            state.during(start, stop)
