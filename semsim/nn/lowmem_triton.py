"""The passes of :mod:`semsim.nn.lowmem_layers` as fused Triton kernels, for tensors on a GPU.

One kernel reads what a pass needs once and writes its result once. Codes and slopes are the same
numbers as in plain torch; norms differ by the order of their sums. The activations themselves stay
torch's own kernels, so the forward pass remains theirs bit for bit. None of them takes fp64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES = 1024  # codes of so many bytes per program


@triton.jit
def _pack(
    x: tl.tensor, packed: tl.tensor, count: int, c1: float, c2: float, c3: float,
    block: tl.constexpr,
) -> None:  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    in_byte = tl.arange(0, 4)
    element = place[:, None] * 4 + in_byte[None, :]
    value = tl.load(x + element, mask=element < count, other=0.0).to(tl.float32)
    code = (value > c1).to(tl.int32) + (value > c2).to(tl.int32) + (value > c3).to(tl.int32)
    code = tl.where(element < count, code, 0) << (2 * in_byte[None, :])
    tl.store(packed + place, tl.sum(code, axis=1).to(tl.uint8), mask=place * 4 < count)


@triton.jit
def _times_slopes(
    g: tl.tensor, packed: tl.tensor, out: tl.tensor, count: int, s1: float, s2: float,
    block: tl.constexpr,
) -> None:  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    in_byte = tl.arange(0, 4)
    element = place[:, None] * 4 + in_byte[None, :]
    fours = tl.load(packed + place, mask=place * 4 < count, other=0).to(tl.int32)
    code = (fours[:, None] >> (2 * in_byte[None, :])) & 3
    slope = tl.where(code == 3, 1.0, tl.where(code == 2, s2, tl.where(code == 1, s1, 0.0)))
    gradient = tl.load(g + element, mask=element < count, other=0.0).to(tl.float32)
    tl.store(out + element, (gradient * slope).to(out.dtype.element_ty), mask=element < count)


@triton.jit
def _normalise(
    x: tl.tensor, shift: tl.tensor, y: tl.tensor, r: tl.tensor, width: int, eps: float,
    centred: tl.constexpr, shifted: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if centred:
        value = tl.where(inside, value - tl.sum(value, axis=0) / width, 0.0)
    scale = 1 / tl.sqrt(tl.sum(value * value, axis=0) / width + eps)
    value = value * scale
    if shifted:
        value += tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, value.to(y.dtype.element_ty), mask=inside)
    tl.store(r + row, scale)


@triton.jit
def _normalise_backward(
    g: tl.tensor, y: tl.tensor, r: tl.tensor, shift: tl.tensor, out: tl.tensor, width: int,
    centred: tl.constexpr, shifted: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = column < width
    gradient = tl.load(g + row * width + column, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(y + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if shifted:
        value -= tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    back = gradient - value * (tl.sum(gradient * value, axis=0) / width)
    if centred:
        back -= tl.sum(gradient, axis=0) / width
    tl.store(out + row * width + column, back * tl.load(r + row), mask=inside)


def pack(x: Tensor, cuts: tuple[float, float, float]) -> Tensor:
    """See :func:`semsim.nn.lowmem_layers.pack`."""
    x = x.contiguous()
    packed = torch.empty(-(-x.numel() // 4), dtype=torch.uint8, device=x.device)
    if packed.numel():
        _pack[(triton.cdiv(packed.numel(), BYTES),)](x, packed, x.numel(), *cuts, BYTES)
    return packed


def times_slopes(gradient: Tensor, codes: Tensor, slopes: tuple[float, ...]) -> Tensor:
    """See :func:`semsim.nn.lowmem_layers.times_slopes`; ``slopes`` are those of the codes."""
    gradient = gradient.contiguous()
    out = torch.empty_like(gradient)
    if codes.numel():
        grid = (triton.cdiv(codes.numel(), BYTES),)
        _times_slopes[grid](gradient, codes, out, out.numel(), *slopes[1:3], BYTES)
    return out


def normalise(
    x: Tensor, shift: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See :func:`semsim.nn.lowmem_layers.normalise`."""
    x, width = x.contiguous(), x.shape[-1]
    y = torch.empty_like(x, dtype=dtype)
    r = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    if r.numel():
        block = triton.next_power_of_2(width)
        own = x if shift is None else shift
        _normalise[(r.numel(),)](x, own, y, r, width, eps, centred, shift is not None, block)
    return y, r


def normalise_backward(
    gradient: Tensor, y: Tensor, r: Tensor, shift: Tensor | None, centred: bool
) -> Tensor:
    """See :func:`semsim.nn.lowmem_layers.normalise_backward`."""
    gradient, width = gradient.contiguous(), y.shape[-1]
    out = torch.empty_like(gradient, dtype=torch.float32)
    if r.numel():
        block = triton.next_power_of_2(width)
        own = y if shift is None else shift
        _normalise_backward[(r.numel(),)](
            gradient, y, r, own, out, width, centred, shift is not None, block
        )
    return out
