"""The hierarchical vision transformer of FLSC: an image to coarse and to fine semantics.

Source: Xie, Wu, Shi, Ng, Zhang, Communication-efficient framework for distributed image semantic
    wireless transmission, IEEE Internet of Things Journal (2023). Found in what the authors left of
    their code: overlapping patches, a learned temperature, a depth-wise convolution in the MLP, no
    spatial reduction in effect, four scales, a last width of 512. Inferred: the other widths and
    heads of "published", which are those of PVT v2 (Wang and others, 2022). Ours: "tiny".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDE, FINE_STRIDE = 32, 8  #: pixels per token of the coarse and of the fine semantics


@dataclass(frozen=True)
class Sizes:
    """The sizes of one preset.

    Args:
        widths: channels of a token at the scales of 4, 8, 16 and 32 pixels.
        heads, mlp_ratios, depths: of the blocks at each scale.
        up: widths of the image translator at 16, 8 and 4 pixels.
        hidden: width within the translator of classes.
        norm: of the image translator by default.
    """

    widths: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    depths: tuple[int, ...]
    up: tuple[int, int, int]
    hidden: int
    norm: str


PRESETS = {
    "tiny": Sizes(
        (32, 64, 128, 256), (1, 2, 4, 8), (4, 4, 4, 4), (1, 1, 1, 1), (128, 64, 32), 128, "group"
    ),
    "published": Sizes(
        (64, 128, 320, 512), (1, 2, 5, 8), (8, 8, 4, 4), (2, 2, 6, 2), (512, 256, 96), 256, "batch"
    ),
}


class Attention(nn.Module):
    """Every token attends to every other, as sharply as a learned temperature says."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), (width // heads) ** -0.5).log())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens like x [B, N, C]."""
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in parts.unbind(2))
        scaled = q * self.log_scale.exp().to(q.dtype)
        mixed = nn.functional.scaled_dot_product_attention(scaled, k, v, scale=1.0)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a convolutional two-layer network, each added to its input.

    x ─┬─► LN ─► attention ─► + ─┬─► LN ─► dense ─► depth-wise 3 x 3 ─► GELU ─► dense ─► + ─►
       └─────────────────────────┘└──────────────────────────────────────────────────────┘
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        hidden = mlp_ratio * width
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.enter = nn.LayerNorm(width), nn.Linear(width, hidden)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return a grid of tokens like x [B, H, W, C]."""
        tokens = x.flatten(1, 2)
        x = x + self.attention(self.norm1(tokens)).view_as(x)
        hidden = self.enter(self.norm2(x)).permute(0, 3, 1, 2)
        hidden = nn.functional.gelu(self.local(hidden)).permute(0, 2, 3, 1)
        return x + self.leave(hidden)


class Scale(nn.Module):
    """One scale: overlapping patches, blocks, a norm."""

    def __init__(self, before: int, after: int, patch: int, stride: int, sizes: Sizes) -> None:
        super().__init__()
        at = sizes.widths.index(after)
        self.patches = nn.Conv2d(before, after, patch, stride=stride, padding=patch // 2)
        self.enter, self.leave = nn.LayerNorm(after), nn.LayerNorm(after)
        self.blocks = nn.Sequential(
            *(Block(after, sizes.heads[at], sizes.mlp_ratios[at]) for _ in range(sizes.depths[at]))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, H / stride, W / stride] of x [B, before, H, W]."""
        tokens = self.enter(self.patches(x).permute(0, 2, 3, 1))
        return self.leave(self.blocks(tokens)).permute(0, 3, 1, 2)


class Extractor(nn.Module):
    """Image to semantics.

    image ─► scale 4 ─► scale 8 ─┬─► scale 16 ─► scale 32 ─► coarse
                                 └─► fine
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        before = (3, *sizes.widths[:-1])
        kernels = ((7, 4), (3, 2), (3, 2), (3, 2))
        self.scales = nn.ModuleList(
            Scale(b, after, *kernel, sizes)
            for b, after, kernel in zip(before, sizes.widths, kernels, strict=True)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return coarse [B, C4, H / 32, W / 32] and fine [B, C2, H / 8, W / 8].

        Args:
            image: [B, 3, H, W] in [0, 1]; both sides multiples of 32.
        """
        x = 4 * (image - 0.5)  # about unit variance
        fine = x
        for number, scale in enumerate(self.scales):
            x = scale(x)
            fine = x if number == 1 else fine
        return x, fine
