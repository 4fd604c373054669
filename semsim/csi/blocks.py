"""The transformer inside WirelessGPT: pre-norm blocks over the tokens of a channel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim.csi.patches import PatchGrid

FEW = 256  #: tokens, up to which attention on a CPU is two products


class Attention(nn.Module):
    """Softmax attention with several heads, q, k and v by one product.

    Args:
        width: d.
        heads: that share it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, across: bool = False) -> Tensor:
        """Return [..., P, d] of x [..., P, d], where tokens see those of the same leading axes.

        Args:
            x: tokens.
            allowed: who may see whom, bool, broadcast to [groups, 1, n, n], n of a group.
            across: let tokens see those along the axis before P instead, of [..., T, P, d].
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        axis = -4 if across else -3  # only here are groups moved together
        parts = [part.movedim(axis, -2) for part in qkv.unbind(-3)]  # [..., heads, n, e]
        q, k, v = (part.flatten(0, -4) for part in parts)
        few = x.device.type == "cpu" and q.shape[-2] <= FEW
        mix = in_steps if few else F.scaled_dot_product_attention
        mixed = mix(q, k, v, attn_mask=allowed).view(parts[0].shape)
        return self.out(mixed.movedim(-2, axis).flatten(-2))  # type: ignore[no-any-return]


def in_steps(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v as PyTorch's function does, [B, heads, P, d].

    On a CPU and for few tokens two batched products are faster: 3.5 times in bf16 at 80 tokens.
    """
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # of few tokens they are fewer than q
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(dim=-1) @ v


class Block(nn.Module):
    """Attention and a network of each token, both after a norm and beside a shortcut.

    Args:
        width: d.
        heads: of the attention.
    """

    low_memory_norms: ClassVar = {"norm1": ("attention.qkv",), "norm2": ("rise",)}

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.bend = nn.GELU()

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, across: bool = False) -> Tensor:
        """Return tokens like x [..., P, d]; allowed and across as for :class:`Attention`."""
        x = x + self.attention(self.norm1(x), allowed, across=across)
        return x + self.fall(self.bend(self.rise(self.norm2(x))))  # type: ignore[no-any-return]


def along(x: Tensor, block: Block, grid: PatchGrid, axis: str, allowed: Tensor | None) -> Tensor:
    """Let the tokens of one position see each other over time, or those of one time over the rest.

    Args:
        x: [B, P, d], all tokens of the grid.
        block: what they pass.
        grid: of the patches.
        axis: ``time`` or ``place``.
        allowed: who may see whom, bool [1 or B, 1, P, P]; None where all may.
    """
    own = None if allowed is None else _own(allowed, grid, axis, len(x))
    mixed: Tensor = block(x.unflatten(1, (grid.time, -1)), own, across=axis == "time")
    return mixed.flatten(1, 2)


def _own(allowed: Tensor, grid: PatchGrid, axis: str, batch: int) -> Tensor:
    """Return who may see whom within each group, [B · groups, 1, size, size]."""
    places = grid.space * grid.frequency
    full = allowed[:, 0].view(len(allowed), grid.time, places, grid.time, places)
    full = full.expand(batch, -1, -1, -1, -1)
    groups = full.diagonal(dim1=2, dim2=4) if axis == "time" else full.diagonal(dim1=1, dim2=3)
    return groups.movedim(-1, 1).flatten(0, 1).unsqueeze(1)


def positions(grid: PatchGrid, width: int, *, with_time: bool, device: torch.device) -> Tensor:
    """Return codes of where patches stand, [P, width]: sines of time, space and frequency each.

    A third of the width is for each; with_time says whether time has any.
    """
    third = width // 6 * 2
    codes = torch.zeros(*grid, width, device=device)
    for axis, size in enumerate(grid):
        if axis == 0 and not with_time:
            continue
        rates = 100.0 ** (-torch.arange(third // 2, device=device) / (third // 2))
        angles = torch.arange(size, device=device)[:, None] * rates
        code = torch.cat([angles.sin(), angles.cos()], dim=1)
        shape = [1, 1, 1, third]
        shape[axis] = size
        codes[..., axis * third : (axis + 1) * third] += code.view(shape)
    return codes.flatten(0, 2)
