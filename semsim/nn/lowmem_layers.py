"""Activations and norms that keep little for the backward pass and change nothing in the forward.

    GELU     keeps its input                      ReGELU2  keeps two bits per element
    norm     keeps its input                      MS-norm  keeps its output, which the dense
                                                           layer behind it keeps anyway

"Found" and "inferred" in the docstrings tell what the source states from what was chosen here.

Source: Yang, Shi, Wang, Zhen, Shi, Xu, Reducing Fine-Tuning Memory Overhead by Approximate and
Memory-Sharing Backpropagation, ICML 2024 (arXiv 2406.16282).
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = Literal["gelu", "gelu_tanh", "silu"]
CHUNK = 1 << 16  #: elements, a multiple of 4, that stay in a CPU's cache


@dataclass(frozen=True)
class Fit:
    """A piecewise linear stand-in for an activation: h(x) = sum_i a_i max(x - c_i, 0).

    Fitted in L2 to the activation itself, not to its derivative, under sum a = 1 and sum a c = 0,
    so that it follows the activation at both ends (found).

    Args:
        a: changes of slope.
        c: where the slope changes, ascending.
    """

    a: tuple[float, float, float]
    c: tuple[float, float, float]

    @property
    def slopes(self) -> tuple[float, float, float, float]:
        """The slope for each two-bit code [x > c1] + [x > c2] + [x > c3]."""
        return (0.0, self.a[0], self.a[0] + self.a[1], 1.0)


REGELU2 = Fit(
    a=(-0.04922261145617846, 1.0979632065417297, -0.048740595085551286),
    c=(-3.1858810036855245, -0.001178821281161997, 3.190832613414926),
)  #: found
RESILU2 = Fit(
    a=(-0.04060357190528599, 1.080925428529668, -0.040321856624382146),
    c=(-6.3050461001646445, -0.0008684942046214787, 6.325815242089708),
)  #: found


def fused(x: Tensor) -> ModuleType | None:
    """Return the Triton kernels where x is on a GPU, Triton is installed, and x is not fp64."""
    if not x.is_cuda or x.dtype == torch.float64 or not _has_triton():
        return None
    from semsim.nn import lowmem_triton

    return lowmem_triton


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def at_least_fp32(x: Tensor) -> Tensor:
    """Return x in fp32, or in fp64 where it is."""
    return x if x.dtype == torch.float64 else x.float()


def pack(x: Tensor, fit: Fit) -> Tensor:
    """Return the codes of x, four to a byte: element i in bits 2 (i mod 4) of byte i // 4.

    Comparisons are strict and at least in fp32, so a tie and nan fall to the lower code (found).
    """
    if (kernels := fused(x)) is not None:
        return kernels.pack(x, fit.c)
    flat = x.reshape(-1)
    packed = torch.empty(-(-flat.numel() // 4), dtype=torch.uint8, device=x.device)
    whole = 4 * max(packed.numel(), 1)
    step = min(CHUNK, whole) if x.device.type == "cpu" else whole
    codes = torch.zeros(step, dtype=torch.uint8, device=x.device)
    # compared into floats: torch has a fast loop for that, and none into bytes
    total, above = torch.empty(2, step, dtype=at_least_fp32(flat[:0]).dtype, device=x.device)
    for start in range(0, flat.numel(), step):
        part = at_least_fp32(flat[start : start + step])
        length = part.numel()
        torch.gt(part, fit.c[0], out=total[:length])
        for c in fit.c[1:]:
            total[:length] += torch.gt(part, c, out=above[:length])
        codes[:length], codes[length:] = total[:length], 0
        _merge_fours(codes, out=packed[start // 4 : -(-(start + length) // 4)])
    return packed


def _merge_fours(codes: Tensor, out: Tensor) -> None:
    """Write every four codes, a byte each, into one byte of ``out``; as many as fit in there."""
    fours = codes.view(torch.int32)
    pairs = fours | fours >> 6
    out.copy_((pairs | pairs >> 12).view(torch.uint8)[::4][: out.numel()])


def times_slopes(gradient: Tensor, codes: Tensor, fit: Fit) -> Tensor:
    """Return the gradient times the slope that each element's code stands for."""
    if (kernels := fused(gradient)) is not None:
        return kernels.times_slopes(gradient, codes, fit.slopes)
    table = _slopes_of_bytes(fit, at_least_fp32(gradient[:0]).dtype, gradient.device)
    slopes = table.index_select(0, codes.int()).view(-1)[: gradient.numel()]
    return slopes.view(gradient.shape).mul_(gradient).to(gradient.dtype)


def _slopes_of_bytes(fit: Fit, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the four slopes in each of the 256 bytes, [256, 4]."""
    codes = torch.arange(256)[:, None] >> torch.tensor([0, 2, 4, 6]) & 3
    return torch.tensor(fit.slopes, dtype=dtype)[codes].to(device)


def activate(x: Tensor, kind: Activation) -> Tensor:
    """Return GELU (exact or by tanh) or SiLU of x, by torch's own kernel."""
    if kind == "silu":
        return nn.functional.silu(x)
    return nn.functional.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class _Approximate(torch.autograd.Function):
    """The activation forward, the slope of its stand-in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: Activation) -> Tensor:
        ctx.fit = RESILU2 if kind == "silu" else REGELU2
        ctx.save_for_backward(pack(x, ctx.fit))
        return activate(x, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        return times_slopes(gradient, codes, ctx.fit), None


def approximate(x: Tensor, kind: Activation) -> Tensor:
    """Return the activation of x; its gradient is that of the piecewise linear stand-in."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Approximate.apply(x, kind)
    return activate(x, kind)


class ReGELU2(nn.Module):
    """GELU that keeps two bits per element: 1/16 of fp32, 1/8 of bf16.

    The gradient is that of ``REGELU2`` and so differs from GELU's by up to 0.13 where |x| is near
    1; it can be taken once, not twice.

    Args:
        tanh: GELU by the tanh formula, as torch has it; the slopes are the same (inferred).
    """

    def __init__(self, tanh: bool = False) -> None:
        super().__init__()
        self.tanh = tanh

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of x, bit for bit."""
        return approximate(x, "gelu_tanh" if self.tanh else "gelu")


class ReSiLU2(nn.Module):
    """SiLU that keeps two bits per element; like :class:`ReGELU2`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return SiLU of x, bit for bit."""
        return approximate(x, "silu")


class _Normalise(torch.autograd.Function):
    """y = (x - mean) r + shift, or x r + shift; keeps y and r and neither x nor the mean.

    x̂ = y - shift,   dx = r (g - mean(g) - x̂ mean(g x̂)),   without mean(g) for RMS
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shift: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y, r = normalise(x, shift, eps, centred, dtype)
        ctx.save_for_backward(y, r, shift)
        ctx.centred, ctx.dtype = centred, x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        y, r, shift = ctx.saved_tensors
        along = normalise_backward(gradient, y, r, shift, ctx.centred).to(ctx.dtype)
        of_shift = None
        if shift is not None and ctx.needs_input_grad[1]:
            of_shift = gradient.to(r.dtype).flatten(0, -2).sum(dim=0).to(shift.dtype)
        return along, of_shift, None, None, None


def normalise(
    x: Tensor, shift: Tensor | None, eps: float, centred: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return y like x in ``dtype``, and r [..., 1] in at least fp32, normalised along the end."""
    if (kernels := fused(x)) is not None:
        return kernels.normalise(x, shift, eps, centred, dtype)
    wide = at_least_fp32(x)
    if centred:
        y, _, r = torch.native_layer_norm(wide, x.shape[-1:], None, None, eps)
    else:
        r = (wide.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
        y = wide * r
    return (y if shift is None else y + shift).to(dtype), r


def normalise_backward(
    gradient: Tensor, y: Tensor, r: Tensor, shift: Tensor | None, centred: bool
) -> Tensor:
    """Return the gradient along x, in the type of r."""
    if (kernels := fused(y)) is not None:
        return kernels.normalise_backward(gradient, y, r, shift, centred)
    g, y = gradient.to(r.dtype), y.to(r.dtype)
    if shift is not None:
        y = y - shift
    if not centred:
        return r * (g - y * (g * y).mean(dim=-1, keepdim=True))
    # torch's own kernel for an input of mean 0 and deviation 1, which y is
    none, one = torch.zeros_like(r), torch.ones_like(r)
    mask = [True, False, False]
    back, _, _ = torch.ops.aten.native_layer_norm_backward(
        g.contiguous(), y, y.shape[-1:], none, one, None, None, mask
    )
    return back.mul_(r)


def dtype_of_next_dense(x: Tensor) -> torch.dtype:
    """Return the type in which a dense layer takes x: autocast's, where that is on.

    A norm that hands out fp32 under autocast is cast by the dense layer, which then keeps the cast
    copy, and nothing is shared (that it is so was measured; why is inferred).
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


class MSLayerNorm(nn.Module):
    """LayerNorm without scale and offset, which keeps its output instead of its input.

    It saves memory only before dense layers with trainable weights, which keep that output anyway.

    Args:
        width: length of the last axis.
        eps: added to the variance.
        shift: whether a vector is added to the output; for dense layers without bias, which cannot
            take over the norm's (inferred).
    """

    centred = True
    like: Tensor  # no elements; the type and device of the weights around

    def __init__(self, width: int, eps: float = 1e-5, *, shift: bool = False) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.shift = nn.Parameter(torch.zeros(width)) if shift else None
        self.register_buffer("like", torch.empty(0), persistent=False)
        #: eps of the norm that this one stands in for, and whether that had scale and offset
        self.replaces: tuple[float | None, bool, bool] = (eps, True, self.centred)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., width] normalised, in the type that the next dense layer takes."""
        if x.shape[-1] != self.width:
            raise ValueError(f"this norm takes [..., {self.width}], got {list(x.shape)}")
        return _Normalise.apply(x, self.shift, self.eps, self.centred, dtype_of_next_dense(x))

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.width}, eps={self.eps}, shift={self.shift is not None}"


class MSRMSNorm(MSLayerNorm):
    """RMSNorm without scale, which keeps its output instead of its input."""

    centred = False
