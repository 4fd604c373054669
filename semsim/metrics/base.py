"""What a metric is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semsim.types import Transmission

Pair = Literal["link", "task"]  #: what a metric judges


@dataclass(frozen=True)
class Outcome:
    """All that a metric may look at, for one batch.

    Args:
        output: what the task made of the estimate, [B, ...].
        source: what was sent, [B, ...]: the payload's source as the task prepared it.
        target: what the task aims at, as the payload says: classes [B], a reference [B, ...], or
            the payload's source.
        transmission: the link's intermediates, where they are known.
        kept: what metrics computed of the source alone and share, also with the same batch at
            other SNRs.
    """

    output: Tensor
    source: Tensor
    target: Tensor
    transmission: Transmission | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)


class Metric:
    """A number per item, and how the mean of these numbers is reported.

    A metric of your own gives ``name`` and ``__call__``; the rest has defaults. What it declares
    goes into the rows, from which figures and tables take it.
    """

    name: str  #: of the column and in a scenario
    label: str = ""  #: what figures call it; the name in words where empty
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"  #: which reported value
    scale: Literal["linear", "log"] = "linear"  #: of its axis
    #: ``link``: what arrives against what was sent, which is perfect where there is no link;
    #: ``task``: what the task makes of it
    judges: Pair = "task"
    #: value of an item that failed altogether (0.5 for ber), where there is one: intervals of few
    #: items then allow for failures that were not seen
    worst: float | None = None
    #: True where the report is no mean over items: :meth:`pool` then sees what all items gave
    pooled: bool = False
    #: True where the report is the mean over items, none below 0, per mean uses of an item
    per_use: bool = False
    #: True where it takes scores of classes, which clients give that classify or retrieve
    of_classes: bool = False

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return values [B]; ValueError where the metric makes no sense of this outcome."""
        raise NotImplementedError(f"{type(self).__name__} gives no __call__(outcome)")

    def combine(self, mean: float) -> float:
        """Return the reported value for the mean over items: the mean itself by default.

        It is monotone, so that it also maps the ends of an interval; where it falls, the ends
        change places.
        """
        return mean

    @property
    def of_items(self) -> bool:
        """Tell whether the report rests on a mean over items alone, so that items can be paired."""
        return not self.pooled and not self.per_use

    def pool(self, values: NDArray[np.float64]) -> float:
        """Return the reported value of a pooled metric for the values of all items, [n].

        NaN where these items do not say, such as a recall without any item of the class.
        """
        raise NotImplementedError(f"{type(self).__name__} is pooled and gives no pool(values)")

    def pool_interval(self, values: NDArray[np.float64]) -> tuple[float, float]:
        """Return the ends of the 95 % interval of :meth:`pool`; NaN where it is not known."""
        return math.nan, math.nan

    def check_payload(self, payload: Any) -> None:
        """Raise ValueError where the metric makes no sense of this payload."""

    @property
    def words(self) -> str:
        """What figures call it."""
        short = len(self.name) <= 4  # taken for an abbreviation
        return self.label or (self.name.upper() if short else self.name.replace("_", " "))


def check_names(metrics: Sequence[Any]) -> None:
    """Raise ValueError where two metrics have one name, by which rows and kept items know them."""
    names = [getattr(metric, "name", None) for metric in metrics]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} metrics are called {name}, but rows, figures and kept items "
                "tell metrics apart by name; keep one, and measure the other in a scenario of its "
                "own"
            )
