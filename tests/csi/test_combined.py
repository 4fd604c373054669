"""Predictors combined: weights by the closed form, and better than each where errors differ."""

from __future__ import annotations

import torch
from torch import Tensor

from semsim.csi.combined import Predictor, combined
from semsim.csi.kalman import kalman
from semsim.csi.predicted import PredictedCSI
from semsim.csi.rivals import hold, own_autoregression
from semsim.seeds import stream

HORIZON = 2


def noise(*shape: int, of: str) -> Tensor:
    return torch.randn(shape, generator=stream(1, of), dtype=torch.complex64)


def off_by(error: Tensor) -> Predictor:
    """Tell zeros and, item by item, an error."""
    return lambda h: error[:, None, None, None] * torch.ones(len(h), HORIZON, *h.shape[2:])


def test_weights_are_the_inverse_squares_of_the_powers_of_the_errors() -> None:
    """Over zeros a forecast is its own error: e = c^2 each, so weights go with c^-4."""
    h = torch.zeros(3, 8, 4, 4, dtype=torch.complex64)
    first, second = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 1.0, 1.0])
    told = combined(h, HORIZON, [off_by(first), off_by(second)])
    expected = (first**-3 + second**-3) / (first**-4 + second**-4)
    torch.testing.assert_close(told[:, 0, 0, 0].real, expected)
    assert told.shape == (3, HORIZON, 4, 4)


def test_a_predictor_without_error_rules_and_of_nothing_received_nothing_is_to_come() -> None:
    h = torch.zeros(2, 8, 4, 4, dtype=torch.complex64)
    wrong, right = off_by(torch.ones(2)), off_by(torch.zeros(2))
    assert not combined(h, HORIZON, [wrong, right]).any()
    told = combined(h, HORIZON, [lambda x: hold(x, HORIZON), lambda x: kalman(x, HORIZON)])
    assert not told.any()


def test_each_item_has_weights_of_its_own() -> None:
    h = noise(4, 12, 2, 3, of="h")
    ways = [lambda x: hold(x, HORIZON), lambda x: own_autoregression(x, HORIZON, 4)]
    together = combined(h, HORIZON, ways)
    alone = torch.cat([combined(part, HORIZON, ways) for part in h.split(1)])
    torch.testing.assert_close(together, alone)


def test_two_forecasts_with_errors_of_their_own_are_better_in_the_mean() -> None:
    """Independent errors of equal power: half of it is left, and a little for wrong weights."""
    h = noise(200, 12, 4, 8, of="h")

    def blurred(name: str) -> Predictor:
        return lambda seen: (
            h[:, seen.shape[1] :][:, :HORIZON]
            + noise(200, HORIZON, 4, 8, of=f"{name}{seen.shape[1]}")
        )

    # both are asked twice: for the last slots that are known, and for those that are to come
    known = h[:, :-HORIZON]
    told = combined(known, HORIZON, [blurred("a"), blurred("b")])
    left = (told - h[:, -HORIZON:]).abs().square().mean()
    assert 0.5 < left < 0.55  # of 64 errors each: weights are off by 0.09, which costs 0.016


def test_combined_follows_the_better_of_its_two() -> None:
    """Jakes' spectrum, clean: the recursion errs 14 times as much as the filter, in power.

    So it weighs less than a hundredth, and errors add up to at most (0.99 + 0.01 14^0.5)^2 = 1.06.
    """
    lags = torch.arange(20)[:, None] - torch.arange(20)[None]
    correlation = torch.special.bessel_j0(2 * torch.pi * 0.06 * lags.abs().double())
    root = torch.linalg.cholesky(correlation + 1e-5 * torch.eye(20).double())
    white = torch.randn(64, 20, 16, generator=stream(2, "h"), dtype=torch.complex128)
    h = (root.to(white.dtype) @ white).unflatten(2, (4, 4)).to(torch.complex64)
    ways = PredictedCSI(1e-3, "combined")
    both = ways._predicted(h[:, :18])[:, 1]
    alone = {"kalman": ways._by_kalman(h[:, :18])[:, 1], "ar": ways._by_ar(h[:, :18])[:, 1]}
    left = {
        name: float((told - h[:, 19]).abs().square().mean())
        for name, told in {**alone, "both": both}.items()
    }
    assert 10 * left["kalman"] < left["ar"]
    assert left["both"] < 1.06 * left["kalman"]
