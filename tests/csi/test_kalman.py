"""The Kalman filter of a fading channel against the linear MMSE predictor of its own model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from channels.base import complex_normal
from channels.doppler import clarke
from semsim.csi.kalman import FIRM, autoregression_of, kalman, likeliest
from semsim.csi.rivals import jakes
from semsim.seeds import stream


def fading(count: int, slots: int, doppler: float, elements: int = 1) -> Tensor:
    """Return items [count, slots, 1, elements] of Clarke's correlation and power 1."""
    index = torch.arange(slots, dtype=torch.float64)
    covariance = clarke((index[:, None] - index).abs(), doppler)
    root = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(slots)).to(torch.complex128)
    white = complex_normal((slots, count * elements), stream(1, "white"), torch.complex128)
    return (root @ white).view(slots, count, 1, elements).movedim(0, 1)


def seen_through(h: Tensor, n0: float) -> Tensor:
    return h + math.sqrt(n0) * complex_normal(tuple(h.shape), stream(1, "noise"), h.dtype)


def test_a_recursion_of_order_one_is_the_correlation() -> None:
    weights, power = autoregression_of(torch.tensor([[2.0, 1.0]]))
    assert weights.tolist() == [[0.5]] and power.tolist() == [1.5]


@pytest.mark.parametrize("order", [2, 5])
def test_it_is_the_best_linear_prediction_under_its_own_model(order: int) -> None:
    """A second road: the model's covariance at all lags, and one solve over all slots."""
    doppler, n0, slots, horizon = 0.07, 0.1, 9, 3
    h = seen_through(fading(6, slots, doppler), n0)
    power = h.abs().square().mean(dim=(1, 2, 3))
    lags = clarke(torch.arange(order + 1, dtype=torch.float64), doppler)
    lags[0] += FIRM
    weights, _ = autoregression_of(lags[None])
    while len(lags) < slots + horizon:
        lags = torch.cat([lags, (weights[0] * lags.flip(0)[:order]).sum()[None]])
    index = torch.arange(slots + horizon)
    covariance = lags[(index[:, None] - index).abs()]
    told = kalman(h, horizon, torch.full((6,), doppler), torch.full((6,), n0), order=order)
    for item in range(6):
        noise = n0 / (power[item] - n0) * torch.eye(slots)
        solved = torch.linalg.solve(
            covariance[:slots, :slots] + noise, covariance[:slots, slots:]
        ).to(h.dtype)
        expected = h[item, :, 0, 0] @ solved
        torch.testing.assert_close(told[item, :, 0, 0].to(h.dtype), expected, rtol=1e-4, atol=1e-4)


def test_with_all_lags_it_predicts_the_next_slot_as_clarke_s_window_does() -> None:
    h = seen_through(fading(50, 8, 0.1, 4), 0.1)
    power = h.abs().square().mean(dim=(1, 2, 3))
    doppler, n0 = torch.full((50,), 0.1), torch.full((50,), 0.1)
    own = 0.1 / (power - 0.1)  # jakes takes the signal's power for 1
    told = kalman(h, 1, doppler, n0, order=8)
    torch.testing.assert_close(told, jakes(h, 1, doppler, own, order=8), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n0", [0.01, 0.3])
def test_the_likeliest_shift_and_noise_are_about_the_true_ones(n0: float) -> None:
    """512 elements of 16 slots: some hundred times more than the two numbers need."""
    seen = seen_through(fading(8, 16, 0.0833, 512), n0)
    for given in (torch.full((8,), n0), None):
        shift, noise = likeliest(seen, n0=given)
        assert (shift - 0.0833).abs().max() < 0.5 / 48 + 1e-6  # a neighbour in the list at most
        assert ((noise / n0).log().abs() < math.log(1.6)).all()
    known, _ = likeliest(seen, torch.full((8,), 0.02))
    assert known.tolist() == pytest.approx([0.02] * 8)


def test_what_it_finds_out_costs_little() -> None:
    h = fading(40, 20, 0.08, 64)
    seen, truth = seen_through(h[:, :16], 0.1), h[:, 16:]
    known = kalman(seen, 4, torch.full((40,), 0.08), torch.full((40,), 0.1))
    found = kalman(seen, 4)
    error = [(told - truth).abs().square().mean() for told in (known, found)]
    held = (seen[:, -1:] - truth).abs().square().mean()
    assert error[0] < held / 2
    assert error[1] < 1.1 * error[0]


def test_no_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order is at least 1 slot, got 0"):
        kalman(fading(1, 4, 0.1), 1, order=0)
