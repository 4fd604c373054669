"""Heads: what reads the vectors of an encoder, and the observation beside them."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_count
from semsim.csi.blocks import Block
from semsim.csi.patches import grid_of

LEAK = 0.1  #: slope of a residual block's ReLU below zero


class PatchHead(nn.Module):
    """What to add to each patch, by a linear layer, after blocks of a transformer where asked.

    Args:
        seen: values of a patch that come in.
        values: of a patch.
        blocks: before the last layer, which starts at zero.
    """

    def __init__(self, seen: int, values: int, blocks: int) -> None:
        super().__init__()
        width = 4 * math.ceil(seen / 4) if blocks else seen
        self.widen = nn.Linear(seen, width) if width != seen else nn.Identity()
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(blocks))
        self.linear = nn.Linear(width, values)
        nn.init.zeros_(self.linear.weight), nn.init.zeros_(self.linear.bias)

    def forward(self, seen: Tensor) -> Tensor:
        """Return [B, P, values] for [B, P, seen]."""
        x = self.widen(seen)
        for block in self.blocks:
            x = block(x)
        return self.linear(x)  # type: ignore[no-any-return]


class ClassHead(nn.Module):
    """Logits of classes, by a linear layer behind a norm, or by two.

    Args:
        seen: values that come in.
        classes: how many.
        hidden: width between two layers; 0 for one.
    """

    def __init__(self, seen: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(seen)
        self.rise = nn.Sequential(nn.Linear(seen, hidden), nn.GELU()) if hidden else nn.Identity()
        self.linear = nn.Linear(hidden or seen, classes)

    def forward(self, seen: Tensor) -> Tensor:
        """Return [B, classes] for [B, seen]."""
        return self.linear(self.rise(self.norm(seen)))  # type: ignore[no-any-return]


class ResCNN(nn.Module):
    """What to add to a channel, by residual convolutions over slots and subcarriers.

        patches ─► put back in their places, [n S, T, F] ─► 1 x 1 ─► 4 residual blocks ─► 3 x 3 ─► + H

    The values of a patch, of raw and z alike, are shared out over its elements, n to each; all
    antenna pairs are channels of the convolutions, which look 9 slots and subcarriers far. The last
    one starts at zero.

    Args:
        seen: values of a patch that come in.
        pairs: antenna pairs S.
        patch: slots, antenna pairs and subcarriers of a patch.
        width: channels of the convolutions.
        depth: residual blocks.

    The head that notes on WirelessGPT list as ResCNN, whose sizes are not published; these are of
    our specification.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        seen: int,
        pairs: int,
        patch: tuple[int, int, int],
        *,
        width: int = 64,
        depth: int = 4,
    ) -> None:
        super().__init__()
        check_count("pairs", pairs, "a base station of 4 x 4 antennas has 16")
        self.pairs, self.patch = pairs, patch
        self.each = -(-seen // math.prod(patch))
        self.enter = nn.Conv2d(self.each * pairs, width, 1)
        self.blocks = nn.ModuleList(_Residual(width) for _ in range(depth))
        self.linear = nn.Conv2d(width, 2 * pairs, 3, padding=1)  # so named that Muon leaves it out
        nn.init.zeros_(self.linear.weight), nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, seen: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Return [B, T, 2, S, F], of patches [B, P, seen] of channels of shape T, S, F."""
        if shape[1] != self.pairs:
            raise ValueError(
                f"this head estimates {self.pairs} antenna pairs, got channels of {shape[1]}; "
                f"train one with pairs: {shape[1]}"
            )
        x = self.enter(self._in_place(seen, shape))
        for block in self.blocks:
            x = block(x)
        return self.linear(x).float().unflatten(1, (2, self.pairs)).movedim(3, 1)  # type: ignore[no-any-return]

    def _in_place(self, seen: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Return values of patches [B, P, seen] at their elements, [B, n S, T, F]."""
        t, s, f = self.patch
        nt, ns, nf = grid_of(shape, self.patch)
        over = self.each * t * s * f - seen.shape[-1]
        x = F.pad(seen, (0, over)).reshape(len(seen), nt, ns, nf, self.each, t, s, f)
        x = x.permute(0, 4, 2, 6, 1, 5, 3, 7).reshape(len(seen), self.each, ns * s, nt * t, nf * f)
        return x[:, :, : shape[1], : shape[0], : shape[2]].flatten(1, 2)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(F.leaky_relu(self.first(x), LEAK))
        return x + added
