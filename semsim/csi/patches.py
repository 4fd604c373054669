"""A channel as a sequence of patches, and which of them are hidden.

H [B, T, S, F] ─► patches of t x s x f ─► [B, P, 2 t s f], time first, then space, then frequency
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Hiding = Literal["random", "time", "frequency", "space"]


SPAN = 252  #: OFDM symbols that an encoder in a link sees at once, 18 slots of 14
WHOLE = 28  #: symbols of two slots, which are seven patches of 4


class PatchGrid(NamedTuple):
    """How many patches there are along time, space and frequency."""

    time: int
    space: int
    frequency: int

    @property
    def total(self) -> int:
        """P, all of them."""
        return math.prod(self)


def spans(symbols: int) -> list[int]:
    """Return the sizes of the parts that an encoder sees of so many symbols, as equal as may be.

    Of what is more than one part all but the last are whole slots and patches.
    """
    parts = -(-symbols // SPAN)
    size = -(-symbols // (parts * WHOLE)) * WHOLE if parts > 1 else symbols
    return [min(size, symbols - at) for at in range(0, symbols, size)]


def grid_of(shape: tuple[int, int, int], patch: tuple[int, int, int]) -> PatchGrid:
    """Return the grid of patches that covers T x S x F."""
    return PatchGrid(*(-(-n // p) for n, p in zip(shape, patch, strict=True)))


def patchify(h: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Return the patches [B, P, 2 t s f], float32, of h [B, T, S, F], complex.

    Where a side is no multiple of its patch, what is missing is zero.
    """
    t, s, f = patch
    nt, ns, nf = grid_of(tuple(h.shape[1:]), patch)  # type: ignore[arg-type]
    over = [n * p - size for n, p, size in zip((nt, ns, nf), patch, h.shape[1:], strict=True)]
    x = torch.view_as_real(h.resolve_conj())
    if any(over):
        x = F.pad(x, (0, 0, 0, over[2], 0, over[1], 0, over[0]))
    x = x.reshape(len(h), nt, t, ns, s, nf, f, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(len(h), nt * ns * nf, 2 * t * s * f)


def unpatchify(patches: Tensor, shape: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Return h [B, T, S, F], complex, of the patches that :func:`patchify` made of it."""
    t, s, f = patch
    nt, ns, nf = grid_of(shape, patch)
    x = patches.float().reshape(len(patches), nt, ns, nf, 2, t, s, f)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(len(patches), nt * t, ns * s, nf * f, 2)
    kept = x[:, : shape[0], : shape[1], : shape[2]]
    return torch.view_as_complex(kept.contiguous())


def inside(
    shape: tuple[int, int, int], patch: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Return where patches hold values and no padding, float [P, 2 t s f] of zeros and ones."""
    ones = torch.ones(1, *shape, dtype=torch.complex64, device=device)
    real = patchify(torch.complex(ones.real, ones.real), patch)
    return real[0]


def hide(
    grid: PatchGrid,
    batch: int,
    generator: torch.Generator,
    *,
    kind: Hiding | None = None,
    share: float = 0.5,
) -> Tensor:
    """Return which patches are hidden, bool [B, P], as many in each item.

    Args:
        grid: of the patches.
        batch: B.
        generator: decides what is left to chance; on its device.
        kind: ``random`` patches of each item; the last ``time``; the upper ``frequency``; or
            ``space``, pairs of antennas; one of the four by chance where None.
        share: of ``random`` patches that are hidden. Of the rest, a half; of time 20 to 50 %.
    """
    kinds = get_args(Hiding)
    if kind is None:
        kind = kinds[int(torch.randint(4, (), generator=generator, device=generator.device))]
    if kind == "random":
        order = torch.rand(batch, grid.total, generator=generator, device=generator.device)
        count = min(max(1, round(share * grid.total)), grid.total - 1)
        return order.argsort(dim=1).argsort(dim=1) < count
    flags = torch.zeros(batch, *grid, dtype=torch.bool, device=generator.device)
    axis = {"time": 1, "space": 2, "frequency": 3}[kind]
    size = flags.shape[axis]
    if size == 1:  # nothing would be left to tell from
        return hide(grid, batch, generator, kind="random", share=share)
    return _hide_along(flags, axis, generator).flatten(1)


def _hide_along(flags: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    """Hide the end of an axis, or, of antennas, a random half in each item."""
    size, device = flags.shape[axis], generator.device
    if axis == 2:
        order = torch.rand(len(flags), size, generator=generator, device=device)
        chosen = order.argsort(dim=1).argsort(dim=1) < size // 2
        return flags | chosen[:, None, :, None]
    count = size // 2
    if axis == 1:
        least = max(1, round(0.2 * size))
        most = max(least, size // 2)
        count = int(torch.randint(least, most + 1, (), generator=generator, device=device))
    places = torch.arange(size, device=device) >= size - count
    shape = [1, 1, 1, 1]
    shape[axis] = size
    return flags | places.view(shape)
