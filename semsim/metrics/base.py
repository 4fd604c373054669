"""What a metric is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from semsim.types import Transmission


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


class Metric(Protocol):
    """A number per item, and how the mean of these numbers is reported.

    ``better`` speaks of the reported value. ``combine`` is monotone, so it also maps the ends of an
    interval; where it falls, the ends change places. It may declare ``worst``, the value of an item
    that failed altogether (0.5 for ber): intervals of few items then allow for failures that were
    not seen.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return values [B]; ValueError where the metric makes no sense of this outcome."""
        ...

    def combine(self, mean: float) -> float:
        """Return the reported value for the mean over items."""
        ...
