"""Get back what was sent."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from channels.checks import check_choice
from semsim.tasks.base import Task

LEAST_MSE = 1e-6  # 60 dB: keeps the logarithm's gradient finite


class Reconstruct(Task):
    """The estimate should equal the source.

    Args:
        loss: ``mse``, or ``log_mse``: the mean over items of the logarithm of each item's MSE,
            which is the mean PSNR up to a factor and so trains for the number that is reported.
    """

    def __init__(self, loss: Literal["mse", "log_mse"] = "mse") -> None:
        super().__init__()
        check_choice("loss", loss, ("mse", "log_mse"))
        self._log = loss == "log_mse"

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the MSE, or the mean log MSE (natural logarithm)."""
        mse = (output - source).square().flatten(1).mean(dim=1)
        return (mse + LEAST_MSE).log().mean() if self._log else mse.mean()
