"""What scores of two classes are worth: recalls, their mean, average precision, at a threshold.

A score above 0 says yes. What is reported is no mean over items, so each item gives its score s and
its class in one number: (1 + s / (1 + |s|)) / 2 where the class is 1, minus that where it is 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semsim.intervals import Moments
from semsim.metrics.base import Metric, Outcome

Array = NDArray[np.float64]
UNSET = 1e9  #: a threshold that nobody set; finite, so that files and averages hold it
LEAST = 1e-15  #: so that neither class is lost at the ends
DRAWS = 400  #: of the bootstrap: its 95 % ends then stray by a tenth of the interval


class ScoreMetric(Metric):
    """A metric of scores and classes; a subclass gives ``of``, and ``column`` of the output.

    Intervals take items for independent. Where they are not, such as tiles of one region or pairs
    of one person, they are too narrow.
    """

    pooled = True
    column = 0  #: which score of the task's output [B, scores]

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return score and class of each item in one number, [B]."""
        output, target = outcome.output, classes_of(outcome.target, self.name)
        if output.dim() != 2 or output.shape[1] <= self.column:
            raise ValueError(
                f"{self.name} reads scores of two classes, got {list(output.shape[1:])} per item; "
                "use a task that gives them, such as sites"
            )
        check_set(output[:, self.column], self.name)
        return signed(output[:, self.column], target.to(output.device))

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the value for scores [..., n] and classes [n]; NaN where they do not say."""
        raise NotImplementedError(f"{type(self).__name__} gives no of(scores, target)")

    def pool(self, values: Array) -> float:
        """Return the value over all items."""
        target = values > 0
        return float(self.of(np.abs(values) - 0.5, target))

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return the ends by a bootstrap that draws anew within each class.

        NaN where all draws agree, as where no item of the other class scores higher: that tells
        nothing of the items that were not seen.
        """
        yes, no = values[values > 0], values[values < 0]
        if len(yes) < 2 or len(no) < 2:
            return np.nan, np.nan
        rng = np.random.default_rng(0)
        drawn = [rng.choice(part, (DRAWS, len(part))) for part in (yes, no)]
        scores = np.abs(np.concatenate(drawn, axis=1)) - 0.5
        target = np.arange(len(values)) < len(yes)
        low, high = np.quantile(self.of(scores, target), (0.025, 0.975))
        return (float(low), float(high)) if low < high else (np.nan, np.nan)


class Sensitivity(ScoreMetric):
    """Share of the items of class 1 that are found."""

    name = "sensitivity"
    which = True

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the recall of one class."""
        return recall(scores, target, self.which)

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return Clopper and Pearson's exact interval."""
        right = (np.abs(values) > 0.5) == self.which
        return _exact(right[(values > 0) == self.which])


class Specificity(Sensitivity):
    """Share of the items of class 0 that are left alone."""

    name = "specificity"
    which = False


class BalancedAccuracy(ScoreMetric):
    """Mean of both recalls: 0.5 for whoever always says the same."""

    name = "balanced_accuracy"

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the mean of both recalls."""
        return (recall(scores, target, True) + recall(scores, target, False)) / 2

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return the ends by the exact ones of both recalls, whose errors are independent.

        low = value - |(reach below of one recall, of the other)| / 2, likewise high

        Source: Zou, Donner, Construction of confidence limits about effect measures: a general
            approach, Statistics in Medicine 27 (2008).
        """
        value, kinds = self.pool(values), (Sensitivity(), Specificity())
        ends = [(kind.pool(values), *kind.pool_interval(values)) for kind in kinds]
        below, above = (math.hypot(*(each[0] - each[end] for each in ends)) / 2 for end in (1, 2))
        return value - below, value + above


class AveragePrecision(ScoreMetric):
    """Mean of the precision at each item of class 1, from the highest score down.

    Items of equal score come in together. It depends on how rare the class is: a guess gets its
    share.
    """

    name = "average_precision"

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the area under precision over recall, in steps."""
        return average_precision(scores, target)


def _exact(right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share of items [n]; NaN for none."""
    if not len(right):
        return np.nan, np.nan
    moments = Moments()
    moments.add(right.astype(np.float64))
    return moments.interval()


def classes_of(target: Tensor, name: str) -> Tensor:
    """Return classes 0 and 1, [B]; ValueError where a payload has others or none."""
    if target.dim() != 1 or target.is_floating_point() or not bool(((target >> 1) == 0).all()):
        raise ValueError(
            f"{name} needs a payload of two classes, 0 and 1; this one's target is {target.dtype} "
            f"{list(target.shape)}"
        )
    return target


class RecallAtRate(ScoreMetric):
    """Share of class 1 that is found where so many of class 0 pass, of those that are measured.

    The threshold is set anew at each SNR on the items measured, as nobody could do in the field: a
    bound. A subclass gives ``share``.
    """

    share: float  #: of class 0 that may pass

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the recall above the threshold that a share of class 0 passes."""
        if target.all() or not target.any():
            return np.full(scores.shape[:-1], np.nan)
        flat = scores.reshape(-1, scores.shape[-1])
        found = [self._found(row, target).mean() for row in flat]
        return np.asarray(found).reshape(scores.shape[:-1])

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return the bootstrap's ends, at least as wide as the exact ones of a known threshold.

        NaN for fewer than two items of class 0, which set no threshold to speak of.
        """
        target = values > 0
        if (~target).sum() < 2:
            return np.nan, np.nan
        ends = super().pool_interval(values), _exact(self._found(np.abs(values) - 0.5, target))
        return float(np.fmin(ends[0][0], ends[1][0])), float(np.fmax(ends[0][1], ends[1][1]))

    def _found(self, scores: Array, target: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which items of class 1 lie above the threshold, for scores and classes [n]."""
        return scores[target] > threshold_at(scores[~target], self.share)


def check_set(scores: Tensor, name: str) -> None:
    """Raise ValueError where scores [B] are less a threshold that nobody set."""
    if bool((scores < -UNSET / 2).any()):
        raise ValueError(
            f"{name} needs a threshold of the task, which is set after its training on "
            "train.validation; write validation: {kind: ..., split: val} there and train"
        )


def check_held_out(validation: Any) -> None:
    """Raise ValueError where thresholds would be set on what is trained on or measured."""
    split = getattr(validation, "split", "val")
    if split != "val":
        raise ValueError(
            f"validation sets thresholds, so it is neither trained on nor measured, got split: "
            f"{split}; write split: val in it"
        )


def signed(scores: Tensor, target: Tensor) -> Tensor:
    """Return score and class in one number, float64 [B]."""
    scores = scores.double()  # a sigmoid would make one of all scores beyond 35
    share = ((1 + scores / (1 + scores.abs())) / 2).clamp(LEAST, 1 - LEAST)
    return torch.where(target.bool(), share, -share)


def recall(scores: Array, target: NDArray[np.bool_], which: bool) -> Array:
    """Return the share of the items of a class whose score has its sign, [...]."""
    own = scores[..., target == which]
    if not own.shape[-1]:
        return np.full(scores.shape[:-1], np.nan)
    return np.asarray(((own > 0) == which).mean(axis=-1))


def average_precision(scores: Array, target: NDArray[np.bool_]) -> Array:
    """Return the average precision of scores [..., n] for classes [n]."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=-1)
    hits = target[order]
    found, seen = hits.cumsum(axis=-1), np.arange(1, scores.shape[-1] + 1)
    # of equal scores the last one counts for all
    ends = np.append(
        ranked[..., 1:] != ranked[..., :-1], np.ones((*scores.shape[:-1], 1), bool), -1
    )
    precision = np.where(ends, found / seen, -1.0)
    later = np.where(ends, np.arange(scores.shape[-1]), scores.shape[-1])
    last = np.minimum.accumulate(later[..., ::-1], axis=-1)[..., ::-1]
    at = np.take_along_axis(precision, last, axis=-1)
    total = hits.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (at * hits).sum(axis=-1) / np.maximum(total, 1), np.nan)


def threshold_at(scores: Array, share: float) -> float:
    """Return the threshold that at most this share of scores [n] lies above.

    Args:
        scores: of items that should be refused.
        share: false acceptances, 0 to 1.
    """
    ranked = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    allowed = int(np.floor(share * len(ranked) + 1e-9))
    if allowed >= len(ranked):
        return -np.inf
    return float(ranked[allowed])
