"""Packets that are lost whole."""

from __future__ import annotations

import math

import pytest
import torch

from channels.erasure import Erasure
from channels.fading import Rayleigh
from semsim.seeds import stream


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_packets_are_lost_as_often_as_the_rate_says(rate: float) -> None:
    packets = 50_000
    h = Erasure(rate, 4).draw(100, 2000, stream(1, "loss", rate)).h[..., ::4]
    lost = int((h == 0).sum())
    assert abs(lost - packets * rate) <= 5 * math.sqrt(packets * rate * (1 - rate))


def test_a_lost_packet_is_silent_and_the_rest_is_untouched() -> None:
    channel = Erasure(0.4, 5, channel=Rayleigh(2, 2))
    x = torch.randn(6, 2, 23, dtype=torch.complex64, generator=stream(1, "x"))
    n0 = torch.full((6,), 0.3)
    state = channel.draw(6, 23, stream(1, "state"))
    y = channel(x, state, n0, stream(1, "noise"))
    lost = (state.h == 0).all(dim=(1, 2))[:, None].expand_as(y)
    assert lost.any()
    assert not lost.all()
    assert torch.equal(lost[..., 0:20:5], lost[..., 4:20:5])  # whole packets
    assert y[lost].abs().max() == 0
    beneath = channel.channel(x, state.stages[0], n0, stream(1, "noise"))
    assert torch.equal(y[~lost], beneath[~lost])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 1.5}, r"rate lies in \[0, 1\], got 1.5"),
        ({"rate": math.nan}, r"rate lies in \[0, 1\], got nan"),
        ({"rate": 0.1, "packet_uses": 0}, "packet_uses is a whole number of 1 or more, got 0"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Erasure(**arguments)
