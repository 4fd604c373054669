"""The Kalman filter of a channel that fades as Jakes says: what a moving user's past foretells."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.doppler import clarke

FIRM = 1e-6  #: added to the correlation at lag 0, or long recursions have no numbers left
SHIFTS = 48  #: Doppler shifts that are tried, up to half a turn per slot
NOISES = (1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  #: noise over signal, likewise


def kalman(
    h: Tensor,
    horizon: int,
    doppler: Tensor | None = None,
    n0: Tensor | None = None,
    *,
    order: int = 16,
) -> Tensor:
    """Return the next slots as a Kalman filter with Jakes' Doppler tells them.

        h_t = a_1 h_{t-1} + ... + a_p h_{t-p} + w_t,    y_t = h_t + noise

    The a are those whose process has the correlation J0(2 pi doppler lag) at lags 0 to p. Each
    element is filtered by itself, from the stationary state over all slots that were seen.

    Args:
        h: y, [B, T, S, F].
        horizon: slots to come.
        doppler: largest Doppler shift in turns per slot, [B]; None takes the likeliest one of each
            item, see :func:`likeliest`.
        n0: power of the noise on h, [B]; None takes the likeliest one.
        order: p.

    Source: Baddour, Beaulieu, Autoregressive modeling for fading channel simulation, IEEE Trans.
        Wireless Commun. 4(4), 2005.
    """
    if order < 1:
        raise ValueError(f"order is at least 1 slot, got {order}")
    if doppler is None or n0 is None:
        turns, noise = likeliest(h, doppler, n0)
    else:
        turns, noise = doppler.double().to(h.device), _over_signal(h, n0)
    step, driven, spread = _recursion(turns, order)
    y = h.movedim(1, -1).flatten(1, 2).to(torch.complex128)  # [B, S F, T]
    state = y.new_zeros(*y.shape[:2], order)
    for slot in range(y.shape[2]):
        if slot:
            state = state @ step.mT.to(state.dtype)
            spread = step @ spread @ step.mT + driven
        gain = spread[:, :, 0] / (spread[:, :1, 0] + noise[:, None])  # [B, p]
        state = state + (y[:, :, slot] - state[:, :, 0])[..., None] * gain[:, None]
        spread = spread - gain[:, :, None] * spread[:, :1]
    told = []
    for _ in range(horizon):
        state = state @ step.mT.to(state.dtype)
        told.append(state[:, :, 0])
    return torch.stack(told, dim=1).unflatten(2, h.shape[2:]).to(torch.complex64)


def likeliest(
    h: Tensor, doppler: Tensor | None = None, n0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return each item's likeliest Doppler shift in turns per slot, and its noise over its signal.

    For independent Gaussian elements with Clarke's correlation over the slots and whatever power
    fits best. Both are sought in lists: 48 shifts up to half a turn, 9 noises from -60 to 5 dB.

    Args:
        h: as seen, [B, T, S, F].
        doppler: where it is known, [B].
        n0: power of the noise where it is known, [B].

    Returns:
        shift and noise, [B] both, float64.
    """
    batch, slots = h.shape[:2]
    x = h.flatten(2).to(torch.complex128)
    seen = (x @ x.mH).real / x.shape[2]  # what fits it is real
    listed = torch.arange(1, SHIFTS + 1, dtype=torch.float64, device=h.device) / (2 * SHIFTS)
    shifts = listed.expand(batch, -1) if doppler is None else doppler[:, None].to(listed)
    noises = torch.tensor(NOISES).to(listed).expand(batch, -1)
    if n0 is not None:
        noises = _over_signal(h, n0)[:, None]
    costs, tried = [], []
    for shift in shifts.unbind(1):
        own = _toeplitz(clarke(torch.arange(slots).to(listed), shift[:, None]))
        for noise in noises.unbind(1):
            costs.append(_unlikeliness(seen, own, noise))
            tried.append(torch.stack([shift, noise]))
    best = torch.stack(costs).argmin(dim=0)
    told = torch.stack(tried)[best, :, torch.arange(batch, device=h.device)]
    return told[:, 0], told[:, 1]


def autoregression_of(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """Return the recursion whose process has a correlation, by the equations of Yule and Walker.

    Args:
        correlation: at lags 0 to p, real [B, p + 1].

    Returns:
        weights of the last p values, latest first, [B, p], and the power of what drives it, [B].
    """
    wanted = correlation[:, 1:]
    weights = torch.linalg.solve(_toeplitz(correlation[:, :-1]), wanted[..., None])[..., 0]
    return weights, correlation[:, 0] - (weights * wanted).sum(dim=1)


def _unlikeliness(seen: Tensor, own: Tensor, noise: Tensor) -> Tensor:
    """Return minus twice the log-likelihood per element, [B], at the power that fits best."""
    slots = seen.shape[1]
    eye = torch.eye(slots, dtype=seen.dtype, device=seen.device)
    root = torch.linalg.cholesky(own + (FIRM + noise)[:, None, None] * eye)
    fit = torch.cholesky_solve(seen, root).diagonal(dim1=1, dim2=2).mean(dim=1)
    return slots * fit.log() + 2 * root.diagonal(dim1=1, dim2=2).log().sum(dim=1)


def _over_signal(h: Tensor, n0: Tensor) -> Tensor:
    """Return noise over signal of each item, [B], from what both are together."""
    power = h.abs().square().mean(dim=(1, 2, 3)).double()
    known = n0.double().to(h.device)
    return known / (power - known).clamp(min=FIRM * power)


def _toeplitz(correlation: Tensor) -> Tensor:
    index = torch.arange(correlation.shape[1], device=correlation.device)
    return correlation[:, (index[:, None] - index).abs()]


def _recursion(turns: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a step, what drives it, and the stationary covariance, [B, p, p] each, float64."""
    correlation = clarke(torch.arange(order + 1).to(turns), turns[:, None])
    correlation[:, 0] += FIRM
    weights, power = autoregression_of(correlation)
    step = weights.new_zeros(len(turns), order, order)
    step[:, 0] = weights
    step[:, 1:, :-1] = torch.eye(order - 1).to(step)
    driven = torch.zeros_like(step)
    driven[:, 0, 0] = power
    return step, driven, _toeplitz(correlation[:, :-1])
