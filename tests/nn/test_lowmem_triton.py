"""The fused kernels against plain torch: on a GPU where there is one, else by Triton's interpreter.

The interpreter truncates where it should round to bf16, hence a tolerance of one unit there.
"""

from __future__ import annotations

import os
import shutil
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from semsim import stream
from semsim.nn import lowmem_layers
from semsim.nn.lowmem_layers import REGELU2, MSLayerNorm, MSRMSNorm, ReGELU2, ReSiLU2

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILER = next(filter(None, [os.environ.get("CC"), *map(shutil.which, ("gcc", "clang"))]), None)
NEEDS = "needs a C compiler, with which Triton builds what starts a kernel on a GPU"


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if DEVICE == "cuda" and COMPILER is None:
        pytest.skip(NEEDS)
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when Triton is first imported
    pytest.importorskip("triton", reason="needs Triton, which comes with torch for GPUs")
    from semsim.nn import lowmem_triton

    return lowmem_triton


def values(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 4.0) -> Tensor:
    noise = torch.randn(shape, generator=stream(1, "values", shape))
    return (scale * noise).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 4, 1001, 4099])
def test_codes_and_gradients_are_the_same_numbers(
    kernels: ModuleType, count: int, dtype: torch.dtype
) -> None:
    x, upstream = values(count, dtype=dtype), values(count, dtype=dtype, scale=1.0)
    x[0] = REGELU2.c[1]  # a tie, once rounded to fp32
    codes = kernels.pack(x.to(DEVICE), REGELU2.c).cpu()
    assert torch.equal(codes, lowmem_layers.pack(x, REGELU2))
    got = kernels.times_slopes(upstream.to(DEVICE), codes.to(DEVICE), REGELU2.slopes).cpu()
    expected = lowmem_layers.times_slopes(upstream, codes, REGELU2)
    rounding = torch.finfo(dtype).eps if dtype == torch.bfloat16 and DEVICE == "cpu" else 0
    torch.testing.assert_close(got, expected, rtol=rounding, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_norms_agree_up_to_the_order_of_their_sums(
    kernels: ModuleType, centred: bool, shifted: bool, dtype: torch.dtype
) -> None:
    x, upstream = values(3, 5, 48), values(3, 5, 48, dtype=dtype, scale=1.0)
    shift = values(48, scale=1.0) if shifted else None
    on = [t if t is None else t.to(DEVICE) for t in (x, shift, upstream)]
    y, r = lowmem_layers.normalise(x, shift, 1e-5, centred, dtype)
    got_y, got_r = kernels.normalise(on[0], on[1], 1e-5, centred, dtype)
    assert (got_y.dtype, got_r.dtype) == (dtype, torch.float32)
    rounding = torch.finfo(dtype).eps  # sums of 48 terms err by less than 48 times that of fp32
    torch.testing.assert_close(got_y.cpu(), y, rtol=rounding, atol=48 * 2**-24)
    torch.testing.assert_close(got_r.cpu(), r, rtol=48 * 2**-24, atol=0)
    back = kernels.normalise_backward(on[2], y.to(DEVICE), r.to(DEVICE), on[1], centred)
    expected = lowmem_layers.normalise_backward(upstream, y, r, shift, centred)
    torch.testing.assert_close(back.cpu(), expected, rtol=1e-5, atol=48 * 2**-24)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.skipif(COMPILER is None, reason=NEEDS)
@pytest.mark.parametrize("module", [ReGELU2(), ReSiLU2(), MSLayerNorm(64), MSRMSNorm(64)])
def test_modules_take_the_fused_path_on_a_gpu_and_agree_with_the_cpu(module: nn.Module) -> None:
    x, upstream = values(6, 64).requires_grad_(), values(6, 64, scale=1.0)
    there = x.detach().cuda().requires_grad_()
    torch.testing.assert_close(module.cuda()(there).cpu(), module.cpu()(x), rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(module(x), x, upstream)
    (got,) = torch.autograd.grad(module.cuda()(there), there, upstream.cuda())
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-5, atol=1e-5)
    assert lowmem_layers.fused(there) is not None
