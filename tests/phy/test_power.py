"""The power constraint holds for every item, whatever comes in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import complex_normal
from semsim.phy.power import unit_power
from semsim.seeds import stream

parts = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(parts, parts), min_size=1, max_size=40))
def test_any_item_that_is_not_zero_gets_unit_power(pairs: list[tuple[float, float]]) -> None:
    x = torch.tensor([[complex(*pair) for pair in pairs]], dtype=torch.complex64)
    power = unit_power(x).abs().double().square().mean(dim=1)
    # each of n symbols carries a few roundings of 6e-8, the sum of squares as many again
    torch.testing.assert_close(power, (x != 0).any(dim=1).double(), rtol=1e-5, atol=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(parts, min_size=1, max_size=40))
def test_real_latents_get_a_unit_mean_square(values: list[float]) -> None:
    x = torch.tensor([values])
    power = unit_power(x).double().square().mean(dim=1)
    torch.testing.assert_close(power, (x != 0).any(dim=1).double(), rtol=1e-5, atol=0)


def test_power_is_summed_over_the_antennas_of_a_use() -> None:
    x = 7 * complex_normal((3, 4, 50), stream(1, "power"))
    power = unit_power(x).abs().square().sum(dim=1).mean(dim=-1)
    torch.testing.assert_close(power, torch.ones(3))


def test_items_do_not_share_power() -> None:
    x = complex_normal((2, 1, 20), stream(2, "power"))
    together = unit_power(torch.cat([x, 100 * x]))
    torch.testing.assert_close(together[2:], together[:2])
    torch.testing.assert_close(unit_power(x[:1]), together[:1])


def test_a_zero_item_stays_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(2, 1, 5, dtype=torch.complex64)
    x[1] = 1j
    x.requires_grad_()
    out = unit_power(x)
    out.real.sum().backward()
    assert out[0].abs().max() == 0
    assert torch.isfinite(x.grad.abs()).all()


def test_gradient_is_that_of_the_formula() -> None:
    x = complex_normal((2, 2, 3), stream(3, "power"), torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(unit_power, (x,))
    assert torch.autograd.gradcheck(unit_power, (x.detach().real.clone().requires_grad_(),))


def test_a_conjugated_view_is_scaled_like_its_values() -> None:
    x = complex_normal((2, 1, 8), stream(4, "power"))
    torch.testing.assert_close(unit_power(x.conj()), unit_power(x).conj().resolve_conj())


def test_a_missing_batch_axis_is_explained() -> None:
    with pytest.raises(ValueError, match=r"x\.unsqueeze\(0\)"):
        unit_power(torch.ones(4, dtype=torch.complex64))
