"""How the embedder ``pimog`` learns to hide bits and to read what a camera made of them.

In a scenario: ``task: {kind: "semsim.vision.dbdh.learning:LearnToHide"}``, trained alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim.nn.geometry import rectify, square
from semsim.seeds import stream
from semsim.tasks.base import Task
from semsim.vision.dbdh.camera import draw_box, print_noise, screen_noise, uniform
from semsim.vision.dbdh.embedders import SIDE, Pimog, embed
from semsim.vision.dbdh.message import BITS

SHIFT = 2.0  #: pixels by which corners are off at most, in each direction
FALLING = 0.6  #: share of the training in which the residual becomes as weak as in the end
VISIBLE_WEIGHT = 0.02  #: of what is seen, once half of the training is done


class LearnToHide(Task):
    """An embedder and its decoder, which read what cameras made of upright regions.

    Covers go in; what comes out are covers with a mark in the middle, so that ``psnr`` says how
    visible it is. How many bits are read says ``python benchmarks/dbdh.py``.

    Args:
        strengths: rms of the residual on the scale 0 to 255, at first and in the end.
        side: least and largest side of the region, as a share of the cover's.
    """

    metric = "psnr"
    network: Pimog

    def __init__(
        self,
        strengths: tuple[float, float] = (24.0, 4.0),
        side: tuple[float, float] = (0.3, 0.6),
    ) -> None:
        super().__init__()
        if not 64 >= strengths[0] >= strengths[1] > 0:
            raise ValueError(
                f"strengths are [at first, in the end], 64 at most, falling and above 0, got "
                f"{list(strengths)}"
            )
        self.strengths, self.side = strengths, side
        # channels_last: convolutions of few channels run faster so
        network = Pimog(None).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.use(network, None, trainable=True)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return covers [B, 3, H, W] with bits hidden in the middle, at the last strength."""
        height = estimate.shape[2]
        half = height // 2
        box = (height - half) // 2 + square(half, estimate).expand(len(estimate), -1, -1)
        bits = torch.randint(2, (len(estimate), BITS), generator=stream(0, "bits")).float()
        return embed(self.network, estimate, box, bits.to(estimate.device), self.strengths[1])

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the cross entropy of the bits, and what is seen of the mark where it is flat."""
        first, last = self.strengths
        strength = max(last, first * (last / first) ** (progress / FALLING))
        box = draw_box(len(source), source.shape[2], self.side, generator)
        region = rectify(source, box, SIDE).contiguous(memory_format=torch.channels_last)
        device = generator.device
        bits = torch.randint(2, (len(source), BITS), generator=generator, device=device).float()
        residual = self.network.residual(region, bits)
        seen = shot((region + strength / 255 * residual).clamp(0, 1), generator)
        loss = nn.functional.binary_cross_entropy_with_logits(self.network.read(seen), bits)
        return loss + VISIBLE_WEIGHT * min(1, 2 * progress) * visible(residual, region)


def shot(container: Tensor, generator: torch.Generator) -> Tensor:
    """Return what a camera makes of upright regions [B, 3, 64, 64]: of prints, or of a screen."""
    corners = square(SIDE, container).expand(len(container), -1, -1)
    off = uniform(generator, -SHIFT, SHIFT, *corners.shape)
    on_screen = uniform(generator, 0, 1) < 0.5
    noise = screen_noise if on_screen else print_noise
    return noise(rectify(container, corners + off, SIDE), generator)


def visible(residual: Tensor, region: Tensor) -> Tensor:
    """Return the mean power of residuals, a scalar; errors weigh less where the region changes."""
    grey = region.mean(dim=1, keepdim=True)
    fine = grey - nn.functional.avg_pool2d(grey, 5, 1, 2)
    weight = 1 / (nn.functional.avg_pool2d(fine.square(), 5, 1, 2).sqrt() * 255 + 4)
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return (residual.square() * weight).mean()
