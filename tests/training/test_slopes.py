"""What autograd calls the slope of a codec's loss is its slope."""

from __future__ import annotations

import pytest
import torch

from channels import AWGN
from semsim import Link, stream
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.tasks.reconstruct import Reconstruct

SWIN = {"widths": (32,), "depths": (1,), "decoder_depths": (1,), "window": 4}
CODECS = {
    "deepjscc": (DeepJSCCTransmitter, DeepJSCCReceiver, {"width": 16, "depth": 1}),
    "deepjscc, convnext": (
        DeepJSCCTransmitter,
        DeepJSCCReceiver,
        {"width": 16, "depth": 1, "block": "convnext"},
    ),
    "swin_jscc": (SwinTransmitter, SwinReceiver, SWIN),
    "swin_jscc, linear path": (SwinTransmitter, SwinReceiver, {**SWIN, "linear": 0}),
}
STEP = 1e-3


@pytest.mark.parametrize("name", CODECS)
def test_the_gradient_is_the_slope_along_it(name: str) -> None:
    """Central differences along the gradient of each end; rounding leaves 1e-3 of it."""
    torch.manual_seed(0)
    sender, receiver, arguments = CODECS[name]
    ends = sender("1/6", **arguments), receiver("1/6", **arguments)
    link, source = Link(ends[0], AWGN(), ends[1]), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for where, part in link.named_modules():
            if isinstance(part, torch.nn.Linear):  # at the start gates hardly move, paths are zero
                part.weight.mul_(16 if ".snr." in where else 1).add_(0.05)

    def loss() -> torch.Tensor:
        estimate = link(source, 10.0, stream(1, "noise"))
        return Reconstruct("log_mse").loss(estimate, source, source)

    for end in ends:
        parameters = [p for p in end.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
        moved = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        size = torch.stack([g.norm() for _, g in moved]).norm()
        ways = [(p, g / size) for p, g in moved]
        at = []
        with torch.no_grad():
            for step in (STEP, -2 * STEP):
                for p, way in ways:
                    p.add_(way, alpha=step)
                at.append(float(loss()))
            for p, way in ways:
                p.add_(way, alpha=STEP)
        assert (at[0] - at[1]) / (2 * STEP) == pytest.approx(float(size), rel=0.02)
