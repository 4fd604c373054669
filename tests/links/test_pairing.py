"""Links of every kind meet the fading and noise of the direct link first, so a sweep pairs them."""

from __future__ import annotations

import pytest
import torch

from channels import Rayleigh
from semsim import Link, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.links.feedback import FeedbackLink
from semsim.links.relay import RelayLink


def sent_over(kind: type[Link], **arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Return h of the first hop or round, and the estimate."""
    link = kind(AnalogTransmitter("1/6"), Rayleigh(), AnalogReceiver("1/6"), **arguments)
    image = torch.rand(3, 3, 16, 16, generator=stream(0, "image"))
    generator = stream(5, "link")
    sent = link.transmit(image, 10.0, generator)
    assert sent.state is not None
    return sent.state.h, sent.estimate


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (RelayLink, {}),
        (RelayLink, {"first_db": 3.0}),
        (FeedbackLink, {"rounds": 1}),
        (FeedbackLink, {"rounds": 3, "feedback_snr_db": 5.0}),
    ],
)
def test_the_first_hop_or_round_is_that_of_the_direct_link(
    kind: type[Link], arguments: dict[str, object]
) -> None:
    direct, _ = sent_over(Link)
    first, _ = sent_over(kind, **arguments)
    assert torch.equal(first, direct)


def test_one_round_of_feedback_is_the_direct_link_but_for_rounding() -> None:
    _, direct = sent_over(Link)
    _, one = sent_over(FeedbackLink, rounds=1)
    assert torch.allclose(one, direct, atol=1e-5)


def test_the_second_hop_is_another_draw() -> None:
    link = RelayLink(AnalogTransmitter("1/6"), Rayleigh(), AnalogReceiver("1/6"))
    air = link.draw(100, torch.full((3,), 0.1), stream(5, "link"))
    assert not torch.equal(air.state.h, air.onward.state.h)
