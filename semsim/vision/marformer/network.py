"""The network: attention between channels and a wide feed-forward part, in a U."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim.nn.conv import start_at_zero
from semsim.nn.denoise import PositionNorm
from semsim.nn.fast_conv import Depthwise, Pointwise
from semsim.payloads.images import check_counts


class DRSA(nn.Module):
    """Dimension-reduced self-attention: between channels, so its matrix ignores the image's size.

        x ─► 1x1 ─► 3x3 depth-wise ─► Q, K, V [h, d/h, HW]     d = C / reduction
        A = softmax(τ_h · Q Kᵀ / (|Q| |K|)) [h, d/h, d/h],  A V ─► 1x1 ─► C

    Cost O(HW · d² / h). Reduction 1 gives the attention of Restormer.

    Args:
        channels: C.
        heads: h.
        reduction: r.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        inner = channels // reduction
        if inner * reduction != channels or inner % heads:
            raise ValueError(
                f"{channels} channels do not go into {heads} heads after a reduction by "
                f"{reduction}; choose a width divisible by both"
            )
        self.heads = heads
        self.qkv = Pointwise(channels, 3 * inner)
        self.local = nn.Conv2d(3 * inner, 3 * inner, 3, padding=1, groups=3 * inner)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = Pointwise(inner, channels)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q, K and V, [B, h, HW, d/h] each."""
        y = self.local(self.qkv(x)).permute(0, 2, 3, 1)
        q, k, v = y.reshape(len(y), -1, 3, self.heads, y.shape[-1] // (3 * self.heads)).permute(
            2, 0, 3, 1, 4
        )
        return q, k, v

    def matrix(self, q: Tensor, k: Tensor) -> Tensor:
        """Return the attention between channels, [B, h, d/h, d/h], rows sum to 1."""
        # dividing the small product equals normalising the large Q and K along the pixels
        squares = q.square().sum(dim=2).unsqueeze(-1) * k.square().sum(dim=2).unsqueeze(-2)
        cosine = (q.transpose(2, 3) @ k) * squares.clamp(min=1e-12).rsqrt()
        return (self.temperature * cosine).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        q, k, v = self.split(x)
        y = v @ self.matrix(q, k).transpose(2, 3)  # [B, h, HW, d/h]
        y = y.transpose(1, 2).reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return self.out(y)


class P2FFN(nn.Module):
    """Patch-wise perceptive feed-forward: 1x1 to 2C, k x k depth-wise, GELU, 1x1 back to C."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.first = Pointwise(channels, 2 * channels)
        self.wide = Depthwise(2 * channels, kernel)
        self.second = Pointwise(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        return self.second(F.gelu(self.wide(self.first(x))))


class MARBlock(nn.Module):
    """x + DRSA(LN x), then the same with P2FFN; LN over the channels of each pixel."""

    def __init__(self, channels: int, heads: int, reduction: int, kernel: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = PositionNorm(channels), PositionNorm(channels)
        self.attention = DRSA(channels, heads, reduction)
        self.feed = P2FFN(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        x = x + self.attention(self.norm_attention(x))
        return x + self.feed(self.norm_feed(x))


class MARformer(nn.Module):
    """Corrupted slice in, the slice without metal artefacts out.

        slice ─┬─► 3x3 ─► [N₁ blocks] ─► ↓2 [N₂] ─► ↓2 [N₃] ─► ↓2 [N₄] ─► ↑2 [N₃] ─► ↑2 [N₂] ─► ↑2 [N₁] ─► 3x3 ─► + ─►
               └──────────────────────────────────────────────────────────────────────────────────────────────────┘

    Each ↑2 also takes the features of its own level on the way down. The last convolution starts at
    zero, so a fresh network is the identity. Any height and width: padded to a multiple of 8.

    Args:
        width: C, features at full resolution; twice as many at each level below.
        depths: blocks at each level and in the bottleneck.
        reduction: r of DRSA.
        kernel: side of P2FFN's convolution, odd.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        width: int = 16,
        *,
        depths: Sequence[int] = (1, 1, 2, 2),
        reduction: int = 2,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        check_counts(width=width, reduction=reduction, kernel=kernel)
        if len(depths) != 4 or min(depths) < 0:
            raise ValueError(f"depths are four numbers of blocks, got {list(depths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel is odd, got {kernel}; write {kernel - 1} or {kernel + 1}")
        self.spec = {
            "width": width, "depths": list(depths), "reduction": reduction, "kernel": kernel,
        }  # fmt: skip

        def blocks(level: int) -> nn.Sequential:
            made = (
                MARBlock(width << level, 1 << level, reduction, kernel)
                for _ in range(depths[level])
            )
            return nn.Sequential(*made)

        levels = range(3)
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(blocks(level) for level in levels)
        self.bottleneck = blocks(3)
        self.up = nn.ModuleList(blocks(level) for level in levels)
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c // 2, 3, padding=1), nn.PixelUnshuffle(2))
            for c in (width << level for level in levels)
        )
        self.grow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * c, 4 * c, 3, padding=1), nn.PixelShuffle(2))
            for c in (width << level for level in levels)
        )
        self.merge = nn.ModuleList(Pointwise(2 * c, c) for c in (width << k for k in levels))
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        start_at_zero(self.head)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Return slices [B, 1, H, W] without artefacts, of slices in [0, 1]; not clipped."""
        height, width = image.shape[-2:]
        x = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
        x, kept = self.stem(x.contiguous(memory_format=torch.channels_last)), []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            kept.append(blocks(x))
            x = shrink(kept[-1])
        x = self.bottleneck(x)
        for level in (2, 1, 0):
            x = torch.cat([self.grow[level](x), kept[level]], dim=1)
            x = self.up[level](self.merge[level](x))
        return image + self.head(x)[..., :height, :width]


#: arguments of the two sizes; inferred, the paper's own are not known
SIZES: dict[str, dict[str, Any]] = {
    "T": {"width": 16, "depths": (1, 1, 2, 2)},
    "L": {"width": 32, "depths": (2, 3, 3, 4)},
}
