"""What a metric is, and the table of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol

from torch import Tensor

from semsim.types import Transmission

METRICS = {
    "psnr": "semsim.metrics.image:PSNR",
    "psnr_mse": "semsim.metrics.image:PSNROfMeanMSE",
    "ssim": "semsim.metrics.image:SSIM",
    "ms_ssim": "semsim.metrics.image:MSSSIM",
    "ms_ssim_db": "semsim.metrics.image:MSSSIMdB",
    "ber": "semsim.metrics.signal:BER",
    "bler": "semsim.metrics.signal:BLER",
    "evm": "semsim.metrics.signal:EVM",
    "papr": "semsim.metrics.signal:PAPR",
    "accuracy": "semsim.metrics.decision:Accuracy",
}


@dataclass(frozen=True)
class Outcome:
    """All that a metric may look at, for one batch.

    Args:
        output: what the task made of the estimate, [B, ...].
        source: what was sent, [B, ...].
        target: what the task aims at: classes [B], or the source.
        transmission: the link's intermediates, where they are known.
    """

    output: Tensor
    source: Tensor
    target: Tensor
    transmission: Transmission | None = None


class Metric(Protocol):
    """A number per item, and how the mean of these numbers is reported.

    ``better`` speaks of the reported value. ``combine`` is monotone, so it also maps the ends of an
    interval; where it falls, the ends change places.
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


def metric(name: str) -> Metric:
    """Return the metric of this name; ``module:Class`` names one from outside."""
    where = METRICS.get(name, name)
    if ":" not in where:
        raise ValueError(f"metric {name!r} is not known; there are {', '.join(METRICS)}")
    module, _, cls = where.partition(":")
    return getattr(import_module(module), cls)()
