"""A small U-Net that is told the noise step."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS, EMBEDDED = 8, 128


class ResidualBlock(nn.Module):
    """Two normalised convolutions and a sum; a noise step shifts what lies between them.

    x ─┬─► GN ─► SiLU ─► 3 x 3 ─► + step ─► GN ─► SiLU ─► 3 x 3 ─► +
       └─► 1 x 1 where the channels change ─────────────────────────┘
    """

    def __init__(self, before: int, after: int, embedded: int = 0) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.GroupNorm(GROUPS, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.leave = nn.Sequential(
            nn.GroupNorm(GROUPS, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1)
        )
        self.step = nn.Linear(embedded, after) if embedded else None
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Return features [B, after, H, W]."""
        y = self.enter(x)
        if self.step is not None and embedded is not None:
            y = y + self.step(embedded)[:, :, None, None]
        return self.skip(x) + self.leave(y)


class Attention(nn.Module):
    """Every place looks at all others; added to what came in."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(GROUPS, width), heads
        self.mixed, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, width, H, W]."""
        batch, width, height, across = x.shape
        parts = self.mixed(self.norm(x)).view(batch, 3, self.heads, -1, height * across).mT
        seen = F.scaled_dot_product_attention(*parts.unbind(dim=1))
        return x + self.out(seen.mT.reshape(batch, width, height, across))


class UNet(nn.Module):
    """Features in, features of the same size out, for a noise step; a fresh one gives zeros.

    Args:
        before, after: channels in and out.
        widths: channels at each scale, each half as large; attention on all but the first.
    """

    def __init__(self, before: int, after: int, widths: tuple[int, ...] = (48, 96, 144)) -> None:
        super().__init__()
        if not widths or any(width % GROUPS for width in widths):
            raise ValueError(f"widths are multiples of {GROUPS}, got {list(widths)}")
        first, last = widths[0], widths[-1]
        self.embed = nn.Sequential(
            nn.Linear(first, EMBEDDED), nn.SiLU(), nn.Linear(EMBEDDED, EMBEDDED), nn.SiLU()
        )
        self.stem = nn.Conv2d(before, first, 3, padding=1)
        self.falls = nn.ModuleList(ResidualBlock(w, w, EMBEDDED) for w in widths)
        self.looks = nn.ModuleList(Attention(w) if w != first else nn.Identity() for w in widths)
        self.halves = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.middle = ResidualBlock(last, last, EMBEDDED)
        self.rises = nn.ModuleList(ResidualBlock(2 * w, w, EMBEDDED) for w in reversed(widths))
        self.doubles = nn.ModuleList(
            nn.Conv2d(b, a, 3, padding=1) for a, b in reversed([*itertools.pairwise(widths)])
        )
        end = nn.Conv2d(first, after, 3, padding=1)
        for weights in end.parameters():
            nn.init.zeros_(weights)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, first), nn.SiLU(), end)

    def forward(self, x: Tensor, step: Tensor | int) -> Tensor:
        """Return features [B, after, H, W] of [B, before, H, W] at a noise step, [B] or one."""
        return self.up(*self.down(x, step))

    def down(self, x: Tensor, step: Tensor | int) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the middle, what skips over it, and the step as features."""
        embedded = self.embed(waves(step, self.stem.out_channels, x))
        x, skips = self.stem(x), []
        for level, (fall, look) in enumerate(zip(self.falls, self.looks, strict=True)):
            x = look(fall(x, embedded))
            skips.append(x)
            if level < len(self.halves):
                x = self.halves[level](x)
        return self.middle(x, embedded), skips, embedded

    def up(self, x: Tensor, skips: list[Tensor], embedded: Tensor) -> Tensor:
        """Return what comes out for the middle."""
        for level, rise in enumerate(self.rises):
            x = rise(torch.cat([x, skips[-1 - level]], dim=1), embedded)
            if level < len(self.doubles):
                x = self.doubles[level](F.interpolate(x, scale_factor=2.0))
        return self.out(x)


def waves(step: Tensor | int, width: int, like: Tensor) -> Tensor:
    """Return steps as sines and cosines of falling frequency, [B, width]."""
    if isinstance(step, int):
        step = torch.full((len(like),), step, device=like.device)
    half = width // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10_000) / half))
    angles = step[:, None].to(like.dtype) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
