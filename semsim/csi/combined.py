"""Several predictors of a channel as one: each weighs as much as its latest forecasts deserve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Predictor(Protocol):
    """Tells the next slots, [B, horizon or more, S, F], of a history h [B, T, S, F]."""

    def __call__(self, h: Tensor, /) -> Tensor: ...


def combined(h: Tensor, horizon: int, predictors: Sequence[Predictor]) -> Tensor:
    """Return the next slots as the weighted mean of what several predictors tell.

        e_p = sum of |told_p(h_1 ... h_{T - horizon}) - h_{T - horizon + 1 ... T}|^2
        weight of p  ∝  e_p^-2

    Each predictor also foretells the last ``horizon`` slots from those before, which were seen: so
    each item finds out which of them suits its own motion and noise. Errors of different kinds
    partly cancel in the mean. What was seen is noisy, so the e_p hold its noise too, which draws
    the weights together; and a predictor that is fitted to the item has ``horizon`` slots less to
    be fitted to. Where few elements tell of an item, weights are as uncertain as the e_p.

    Args:
        h: complex, [B, T, S, F]; predictors must take T - horizon slots too.
        horizon: slots to come.
        predictors: two or more.

    Returns:
        complex, [B, horizon, S, F].

    Source: Bates, Granger, The combination of forecasts, Operational Research Quarterly 20(4),
        1969, where weights go with e_p^-1. The square is ours, so that a predictor that errs far
        less than the others is not held back by them; it was chosen on other users than are tested.
    """
    seen, last = h[:, :-horizon], h[:, -horizon:]
    errors = torch.stack(
        [(tell(seen)[:, :horizon] - last).abs().square().flatten(1).sum(dim=1).double()
         for tell in predictors],
        dim=1,
    )  # fmt: skip
    least = errors.amin(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    weights = (errors / least).clamp_min(1) ** -2  # [B, P]; alike where nothing was received
    weights = weights / weights.sum(dim=1, keepdim=True)
    told = torch.stack([tell(h)[:, :horizon] for tell in predictors], dim=1)
    return (weights[:, :, None, None, None].to(told.real.dtype) * told).sum(dim=1)
