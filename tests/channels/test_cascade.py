"""Several channels in a row."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from channels.awgn import AWGN
from channels.base import Channel, complex_normal
from channels.cascade import Cascade
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import TDL
from channels.one_of import OneOf
from channels.waveform import Waveform
from semsim.seeds import stream

LINEAR: list[list[Channel]] = [
    [AWGN(), Rayleigh()],
    [Rayleigh(2, 3), Rayleigh(3, 2, coherence=4)],
    [CarrierOffset(0.01, antennas=2), Rayleigh(2, 4), PhaseNoise(1e3, antennas=4)],
    [Rician(3.0, num_tx=2), Rayleigh(1, 2, coherence=6), Cascade([Rayleigh(2, 2, coherence=4)])],
]


@pytest.mark.parametrize("stages", LINEAR)
def test_h_is_the_product_of_the_stages(stages: list[Channel]) -> None:
    channel = Cascade(stages)
    state = channel.draw(3, 12, stream(1, "state"))
    x = complex_normal((3, channel.num_tx, 12), stream(1, "x"))
    expected = torch.einsum("brtn,btn->brn", state.h.expand(-1, -1, -1, 12), x)
    torch.testing.assert_close(channel(x, state, None, stream(1, "n")), expected)


def test_gains_stay_as_long_as_those_of_every_stage() -> None:
    channel = Cascade([Rayleigh(coherence=6), Rayleigh(coherence=4), AWGN()])
    state = channel.draw(3, 13, stream(1, "state"))
    assert state.coherence == 2  # AWGN and its 13 uses cut nothing
    assert Cascade([AWGN(), Rayleigh()]).draw(1, 13, stream(1, "state")).coherence == 13
    assert torch.equal(state.h[..., :12:2], state.h[..., 1:12:2])


def test_noise_is_added_once() -> None:
    items, uses = 4, 50_000
    channel = Cascade([Rayleigh(1, 2), Rayleigh(2, 1), AWGN()])
    state = channel.draw(items, uses, stream(1, "state"))
    x = torch.zeros(items, 1, uses, dtype=torch.complex64)
    power = channel(x, state, torch.full((items,), 0.25), stream(1, "n")).abs().square().mean()
    assert abs(float(power) / 0.25 - 1) * math.sqrt(items * uses) < 5


def test_one_stage_is_that_stage() -> None:
    x = complex_normal((3, 2, 8), stream(1, "x"))
    n0 = torch.full((3,), 0.1)
    received = []
    for channel in (Rayleigh(2, 2), Cascade([Rayleigh(2, 2)])):
        state = channel.draw(3, 8, stream(1, "state"))
        received.append(channel(x, state, n0, stream(1, "noise")))
    assert torch.equal(*received)


def test_what_interferes_on_the_way_keeps_its_ratio() -> None:
    items = 50_000
    channel = Cascade([Interference(0.0, channel=Rayleigh(1, 2)), Rayleigh(2, 2)])
    state = channel.draw(items, 1, stream(1, "state"))
    y = channel(torch.zeros(items, 1, 1) + 0j, state, None, stream(1, "n"))
    power = y.abs().square().mean(dim=(1, 2)).double()
    assert state.interference == pytest.approx(1)
    assert abs(power.mean() - 1) / (power.std() / math.sqrt(items)) < 5


@pytest.mark.parametrize(
    "stages",
    [
        lambda: [Interference(3.0, channel=TDL("A")), Clipping(3.0)],
        lambda: [Cascade([TDL("A")]), Clipping(3.0)],
        lambda: [Waveform([TDL("A")]), Clipping(3.0)],
        lambda: [Erasure(0.3, channel=Clipping(3.0)), TDL("A")],
        lambda: [OneOf([TDL("A")]), Clipping(3.0)],
    ],
)
def test_hardware_beside_ofdm_is_found_within_stages(stages: Callable[[], list[Channel]]) -> None:
    with pytest.raises(ValueError, match="write kind: waveform instead of cascade"):
        Cascade(stages())


def test_hardware_within_a_waveform_stands_where_it_should() -> None:
    sent_in_time = Waveform([Clipping(3.0), TDL("A")])
    assert Cascade([Erasure(0.3, channel=sent_in_time), AWGN()]).num_rx == 1


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "one stage or more, got none"),
        ([Rayleigh(2, 4), Clipping(3.0)], "stage 1 of a cascade, Rayleigh, has 4 receive antennas"),
        ([AWGN(), AWGN(), Rayleigh(2, 2)], "stage 2 of a cascade, AWGN, has 1 receive antenna"),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages: list[Channel], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cascade(stages)
