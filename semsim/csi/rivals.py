"""Classical estimation and prediction of channels, to be beaten in the same table.

All take H [B, T, S, F], complex. Predictors return the next slots, estimators the slots they saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from channels.doppler import clarke


def hold(h: Tensor, horizon: int) -> Tensor:
    """Return the last slot, for each of the next ones, [B, horizon, S, F]."""
    return h[:, -1:].expand(-1, horizon, -1, -1)


@dataclass(frozen=True, eq=False)
class Autoregression:
    """Each next slot as a weighted sum of the last slots of the same element.

    Args:
        weights: [order, horizon], complex128.
    """

    weights: Tensor

    @classmethod
    def fit(
        cls, seen: Tensor, future: Tensor, order: int, *, ridge: float = 1e-4
    ) -> Autoregression:
        """Return the least-squares weights over all elements of all items.

        Args:
            seen: [B, T, S, F], with the noise that there will be.
            future: the true slots after it, [B, horizon, S, F].
            order: slots that are looked at.
            ridge: added to the correlation's diagonal, relative to its mean.
        """
        if not 1 <= order <= seen.shape[1]:
            raise ValueError(f"order is 1 to the {seen.shape[1]} slots that are seen, got {order}")
        x = seen[:, -order:].movedim(1, -1).flatten(0, -2).to(torch.complex128)
        y = future.movedim(1, -1).flatten(0, -2).to(torch.complex128)
        gram = x.mH @ x
        mean = gram.diagonal().real.mean()
        gram = gram + ridge * mean * torch.eye(order, dtype=gram.dtype, device=gram.device)
        return cls(torch.linalg.solve(gram, x.mH @ y))

    def __call__(self, h: Tensor) -> Tensor:
        """Return the next slots, [B, horizon, S, F], complex64."""
        seen = h[:, -len(self.weights) :].movedim(1, -1).to(torch.complex128)
        return (seen @ self.weights.to(h.device)).movedim(-1, 1).to(torch.complex64)


def own_autoregression(h: Tensor, horizon: int, order: int, *, ridge: float = 1e-3) -> Tensor:
    """Return the next slots by weights fitted to each item alone, to what followed what in it.

    All elements of an item share the weights, and each slot to come has weights of its own, so
    that no error is fed back.

    Args:
        h: [B, T, S, F]; T at least order + horizon.
        horizon: slots to come.
        order: slots that are looked at.
        ridge: added to the correlation's diagonal, relative to the power.
    """
    batch, moments = h.shape[:2]
    if not 1 <= order <= moments - horizon:
        raise ValueError(
            f"order is at most the slots seen less those to come, {moments} - {horizon}, got "
            f"{order}"
        )
    flat = h.flatten(2).to(torch.complex128).movedim(1, -1)  # [B, S F, T]
    windows = flat.unfold(-1, order, 1)  # [B, S F, T - order + 1, order]
    eye = torch.eye(order, dtype=flat.dtype, device=h.device)
    told = []
    for ahead in range(1, horizon + 1):
        x = windows[:, :, : moments - order - ahead + 1].flatten(1, 2)
        y = flat[:, :, order + ahead - 1 :].flatten(1, 2)
        gram = x.mH @ x
        power = gram.diagonal(dim1=1, dim2=2).real.mean(dim=1).clamp(min=1e-30)
        firm = gram + (ridge * power)[:, None, None] * eye
        weights = torch.linalg.solve(firm, x.mH @ y[..., None])
        told.append((windows[:, :, -1] @ weights)[..., 0])
    return torch.stack(told, dim=1).view(batch, horizon, *h.shape[2:]).to(torch.complex64)


def jakes(h: Tensor, horizon: int, doppler: Tensor, n0: Tensor, order: int = 16) -> Tensor:
    """Return the linear MMSE prediction where all waves come from all sides: Clarke's correlation.

    What a Kalman filter with Jakes' spectrum comes to at most over as many slots, the last
    ``order``.

    Args:
        h: [B, T, S, F], of mean power 1.
        horizon: slots to come.
        doppler: largest Doppler shift in turns per slot, [B], known exactly.
        n0: power of the noise on h, [B].
        order: slots that are looked at.
    """
    index = torch.arange(order + horizon, device=h.device, dtype=torch.float64)
    lag = (index[:, None] - index[None, :]).abs()
    r = torch.stack([clarke(lag, float(d)) for d in doppler])  # [B, order + horizon, ...]
    noise = (n0.double() + 1e-6)[:, None, None] * torch.eye(order, device=h.device)
    weights = torch.linalg.solve(r[:, :order, :order] + noise, r[:, :order, order:])
    seen = h[:, -order:].movedim(1, -1).flatten(1, -2).to(torch.complex128)
    told = seen @ weights.to(torch.complex128)
    return told.unflatten(1, h.shape[2:]).movedim(-1, 1).to(torch.complex64)


@dataclass(frozen=True, eq=False)
class LinearMMSE:
    """The linear MMSE estimate of slots seen through noise, over antennas and subcarriers.

    Args:
        covariance: of the values of so many slots together, [n S F, n S F], complex128.
        slots: n that are estimated together.
    """

    covariance: Tensor
    slots: int = 1

    @classmethod
    def fit(cls, h: Tensor, slots: int = 1) -> LinearMMSE:
        """Return it with the sample covariance of clean channels h [B, T, S, F].

        Args:
            h: of whose T all groups of slots are taken that do not overlap.
            slots: that are estimated together.
        """
        x = _grouped(h, slots).flatten(0, 1)
        return cls(x.mT @ x.conj() / len(x), slots)

    def __call__(self, seen: Tensor, n0: Tensor) -> Tensor:
        """Return estimates [B, T, S, F] of an observation with noise n0 [B]."""
        values, vectors = (part.to(seen.device) for part in self._eigen)
        turned = _grouped(seen, self.slots) @ vectors.conj()  # V^H x, as rows
        kept = values / (values + n0.double()[:, None, None])
        return ((turned * kept) @ vectors.mT).view(seen.shape).to(torch.complex64)

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), vectors


def _grouped(h: Tensor, slots: int) -> Tensor:
    """Return h [B, T, S, F] as groups of slots, [B, T / slots, slots S F], complex128."""
    if slots < 1 or h.shape[1] % slots:
        raise ValueError(f"slots divides the {h.shape[1]} slots of h, got {slots}")
    return h.unflatten(1, (-1, slots)).flatten(2).to(torch.complex128)
