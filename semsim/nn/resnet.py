"""A small residual network for classes of small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim.nn.attention import attention

MEAN = (0.491, 0.482, 0.447)  # of CIFAR-10's training images, per colour
SPREAD = (0.247, 0.243, 0.262)  # standard deviation likewise


class BasicBlock(nn.Module):
    """Two normalised convolutions and a sum; attention on the branch, before the addition.

    x ─┬─► 3 x 3 / stride ─► BN ─► ReLU ─► 3 x 3 ─► BN ─► attention ─► + ─► ReLU
       └─► 1 x 1 / stride where the shape changes ────────────────────┘
    """

    def __init__(self, before: int, after: int, stride: int, attention_kind: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            attention(attention_kind, after),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.skip = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, after, H / stride, W / stride]."""
        return torch.relu(self.skip(x) + self.branch(x))


class ResNet(nn.Module):
    """Images to class scores.

        image ─► 3 x 3 / 2 ─► blocks at widths[0] ─► / 2, widths[1] ─► ... ─► mean ─► dense

    The stem halves height and width, which makes it four times cheaper than the usual CIFAR ResNet.

    Args:
        classes: how many classes.
        widths: channels at each scale; all but the first begin by halving height and width.
        blocks: blocks per scale.
        attention_kind: see :mod:`semsim.nn.attention`.

    Source: after He, Zhang, Ren, Sun, Deep Residual Learning, CVPR 2016.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        classes: int = 10,
        *,
        widths: tuple[int, ...] = (48, 96, 192),
        blocks: int = 1,
        attention_kind: str = "none",
    ) -> None:
        super().__init__()
        self.spec = {"classes": classes, "widths": list(widths), "blocks": blocks,
                     "attention_kind": attention_kind}  # fmt: skip
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        before = widths[0]
        for index, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if index and not block else 1
                layers.append(BasicBlock(before, width, stride, attention_kind))
                before = width
        self.body = nn.Sequential(*layers)
        self.score = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return scores [B, classes] for images [B, 3, H, W] in [0, 1]."""
        x = self.body(self.stem((image - self.mean) / self.spread))
        return self.score(x.mean(dim=(2, 3)))
