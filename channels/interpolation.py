"""From pilots to all elements of a grid: linear estimators and the errors they leave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from channels.dmrs_grid import Layout
from channels.grid import ResourceGrid

Interpolation = Literal["lmmse", "linear"]


@dataclass(frozen=True, eq=False)
class LMMSE:
    """The linear estimate with the least mean squared error.

        h_hat = X (S + n0 I)^-1 y,  error = 1 - diag(X (S + n0 I)^-1 X^H)

    S is the covariance of what the pilots bring, X that of the gain with it. S = U diag(power) U^H
    is taken apart once, so that each item may have its own n0.

    Args:
        axes: U, [P, P]. power: [P].
        cross: X U, [T, E, P].
    """

    axes: Tensor
    power: Tensor
    cross: Tensor

    def __call__(self, y: Tensor, n0: Tensor) -> tuple[Tensor, Tensor]:
        """Return h [B, R, T, windows, E] and its error's variance, mean over T, [B, E].

        Args:
            y: at the pilots, [B, R, windows, P], complex128.
            n0: noise there, [B], linear.
        """
        floor = 1e-12 * self.power.amax()  # without noise, what rounding leaves
        trust = 1 / (self.power + torch.maximum(n0.double(), floor)[:, None])
        z = (y @ self.axes.conj()) * trust[:, None, None]
        h = torch.einsum("tep,brwp->brtwe", self.cross, z)
        known = torch.einsum("tep,bp->bte", self.cross.abs().square(), trust)
        return h, (1 - known.mean(dim=1)).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines between the quotients at the pilots, and the ends held.

    Args:
        weights: [T, E, P].
        bend: variance of the error without noise, mean over T, [E].
        gain: what noise adds per n0, mean over T, [E].
    """

    weights: Tensor
    bend: Tensor
    gain: Tensor

    def __call__(self, y: Tensor, n0: Tensor) -> tuple[Tensor, Tensor]:
        """Return h and its error's variance; arguments as in :meth:`LMMSE.__call__`."""
        h = torch.einsum("tep,brwp->brtwe", self.weights, y)
        return h, self.bend + n0.double()[:, None] * self.gain


@lru_cache(maxsize=64)
def estimator(
    grid: ResourceGrid, layout: Layout, interpolation: Interpolation, device: torch.device
) -> LMMSE | Lines:
    """Return the estimator of a layout for the statistics of a grid."""
    codes = layout.codes
    pairs = codes.T @ codes.conj()  # [P, P], sum over antennas
    signal = pairs * _correlation(grid, layout.pilots, layout.pilots)
    cross = _correlation(grid, layout.elements, layout.pilots) * codes.conj()[:, None]
    if interpolation == "lmmse":
        power, axes = torch.linalg.eigh(signal)
        made = axes, power.clamp_min(0), cross @ axes
        return LMMSE(*(part.to(device) for part in made))
    weights = torch.stack([_lines(layout, antenna) for antenna in range(len(codes))])
    missed = 1 - 2 * (weights * cross.conj()).sum(-1).real
    missed = missed + ((weights @ signal) * weights.conj()).sum(-1).real
    gain = weights.abs().square().sum(-1)
    made = weights, missed.mean(0), gain.mean(0)
    return Lines(*(part.to(device) for part in made))


def _correlation(grid: ResourceGrid, a: Tensor, b: Tensor) -> Tensor:
    """Return E[h(a) h*(b)] for places [n, 2] of subcarrier and symbol, [len(a), len(b)]."""
    apart = a[:, None] - b
    low, high = apart.flatten(0, 1).amin(0), apart.flatten(0, 1).amax(0)
    table = grid.correlation(
        torch.arange(int(low[0]), int(high[0]) + 1), torch.arange(int(low[1]), int(high[1]) + 1)
    )
    place = apart - low
    return table[place[..., 0], place[..., 1]]


def _lines(layout: Layout, antenna: int) -> Tensor:
    """Return the weights [E, P] of linear interpolation for one antenna."""
    code = layout.codes[antenna]
    weights = code.new_zeros(len(layout.elements), len(code))
    heard = code != 0
    if not heard.any():
        return weights
    size = layout.teams.bincount()[layout.teams]
    whole = heard & (size == size[heard].amax())  # a run cut short tells no antennas apart
    _, member = layout.teams[whole].unique(return_inverse=True)
    of_team = torch.nn.functional.one_hot(member).T.double()  # [teams, pilots heard]
    of_team = of_team / of_team.sum(dim=1, keepdim=True)
    place = of_team @ layout.pilots[whole].double()  # [teams, 2], where each team stands
    quotient = of_team / code[whole]
    rows, row = place[:, 1].unique(return_inverse=True)
    in_time = _between(layout.elements[:, 1].double(), rows)
    for number in range(len(rows)):
        of_row = row == number
        order = place[of_row, 0].argsort()
        across = _between(layout.elements[:, 0].double(), place[of_row, 0][order])
        part = across.to(code.dtype) @ quotient[of_row][order]
        weights[:, whole] += in_time[:, number, None] * part
    return weights


def _between(at: Tensor, knots: Tensor) -> Tensor:
    """Return the weights [len(at), knots] of straight lines between sorted knots."""
    if len(knots) == 1:
        return torch.ones(len(at), 1, dtype=torch.float64)
    left = torch.searchsorted(knots, at, right=True).sub(1).clamp(0, len(knots) - 2)
    share = ((at - knots[left]) / (knots[left + 1] - knots[left])).clamp(0, 1)
    weights = torch.zeros(len(at), len(knots), dtype=torch.float64)
    weights.scatter_(1, left[:, None], (1 - share)[:, None])
    return weights.scatter_add_(1, left[:, None] + 1, share[:, None])
