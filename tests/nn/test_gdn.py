"""GDN is its formula, and convolutions of either padding are what their rule says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from semsim import stream
from semsim.nn.gdn import GDN
from semsim.nn.same import SameConvTranspose2d, down, up


def filled(channels: int, *, inverse: bool) -> tuple[GDN, torch.Tensor, torch.Tensor]:
    generator = stream(1, "gdn", channels)
    beta = 0.5 + torch.rand(channels, generator=generator)
    gamma = torch.rand(channels, channels, generator=generator)
    module = GDN(channels, inverse=inverse)
    module.set(beta, gamma)
    return module, beta, gamma


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_the_formula_of_its_paper(inverse: bool) -> None:
    module, beta, gamma = filled(5, inverse=inverse)
    x = torch.randn(2, 5, 3, 4, generator=stream(2, "x"))
    energy = beta[None, :, None, None] + torch.einsum("ij,bjhw->bihw", gamma, x.square())
    expected = x * energy.sqrt() if inverse else x / energy.sqrt()
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-6)


def test_gdn_bounds_its_output_and_starts_near_the_identity() -> None:
    x = 1e4 * torch.randn(1, 4, 8, 8, generator=stream(3, "x"))
    assert GDN(4)(x).abs().max() < 0.1**-0.5  # |x_i| / sqrt(0.1 x_i^2)
    small = 1e-3 * x / x.abs().max()
    torch.testing.assert_close(GDN(4)(small), small, rtol=1e-5, atol=0)


def test_gdn_has_the_gradient_of_its_formula() -> None:
    module = GDN(3).double()
    x = torch.randn(1, 3, 2, 2, generator=stream(4, "x"), dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in module.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in module.parameters())

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        GDN(2).set(torch.ones(2), -torch.eye(2))


@pytest.mark.parametrize("padding", ["symmetric", "keras"])
@pytest.mark.parametrize("size", [5, 9])
def test_a_stride_of_two_halves_and_doubles_any_even_side(size: int, padding: str) -> None:
    x = torch.randn(1, 2, 8, 12, generator=stream(5, "x"))
    y = down(2, 3, size, 2, padding)(x)
    assert y.shape == (1, 3, 4, 6)
    assert up(3, 2, size, 2, padding)(y).shape == x.shape


@pytest.mark.parametrize("padding", ["symmetric", "keras"])
def test_the_transposed_convolution_is_the_adjoint(padding: str) -> None:
    one, other = down(2, 3, 5, 2, padding), up(3, 2, 5, 2, padding)
    with torch.no_grad():
        other.weight.copy_(one.weight)
        one.bias.zero_(), other.bias.zero_()
    x = torch.randn(1, 2, 8, 8, generator=stream(6, "x"))
    y = torch.randn(1, 3, 4, 4, generator=stream(6, "y"))
    torch.testing.assert_close((one(x) * y).sum(), (x * other(y)).sum(), rtol=1e-4, atol=1e-5)


def test_the_padding_of_keras_begins_one_pixel_later() -> None:
    layer = down(1, 1, 5, 2, "keras")
    x = torch.randn(1, 1, 8, 8, generator=stream(7, "x"))
    shifted = F.conv2d(F.pad(x, (1, 2, 1, 2)), layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(layer(x), shifted)


def test_a_kernel_below_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="at least the stride"):
        SameConvTranspose2d(1, 1, 1, 2)
