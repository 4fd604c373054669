"""Faster convolutions compute what PyTorch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semsim.nn.fast_conv import Depthwise, Pointwise
from semsim.seeds import stream


def features(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=stream(1, "features", shape), dtype=torch.float64)


@pytest.mark.parametrize("width", [2, 6, 7, 11])
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_a_depthwise_convolution_and_its_gradients_are_those_of_torch(
    kernel: int, width: int
) -> None:
    plain = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4).double()
    fast = Depthwise(4, kernel).double()
    fast.load_state_dict(plain.state_dict())
    x = features(2, 4, 9, width).requires_grad_()
    with torch.no_grad():
        assert torch.allclose(fast(x), plain(x))
    for got, want in zip(gradients(fast, x), gradients(plain, x), strict=True):
        assert torch.allclose(got, want)


def test_under_autocast_a_depthwise_convolution_is_trained_in_half_precision() -> None:
    plain, fast = nn.Conv2d(4, 4, 7, padding=3, groups=4), Depthwise(4, 7)
    fast.load_state_dict(plain.state_dict())
    x = features(2, 4, 9, 8).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        got = gradients(fast, x)
    assert {gradient.dtype for gradient in got} == {torch.float32}
    # 288 products of parts rounded to 8 bits: 2^-9 of each, and the sum again, of at most the norms
    for here, there in zip(got, gradients(plain, x), strict=True):
        assert float((here - there).norm()) < 2**-6 * float(there.norm())


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_pointwise_convolution_is_that_of_torch(memory: torch.memory_format) -> None:
    plain, fast = nn.Conv2d(5, 3, 1).double(), Pointwise(5, 3).double()
    fast.load_state_dict(plain.state_dict())
    x = features(2, 5, 4, 6).contiguous(memory_format=memory).requires_grad_()
    assert torch.allclose(fast(x), plain(x))
    for got, want in zip(gradients(fast, x), gradients(plain, x), strict=True):
        assert torch.allclose(got, want)


def gradients(layer: nn.Conv2d, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    assert layer.bias is not None
    return torch.autograd.grad(layer(x).square().sum(), [x, layer.weight, layer.bias])
