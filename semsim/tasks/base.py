"""What a task is."""

from __future__ import annotations

from torch import Tensor, nn


class Task(nn.Module):
    """Says what the received thing is good for.

    The link's estimate goes through ``forward``; ``loss`` judges the output in training; metrics
    judge it in evaluation. The plain task hands the estimate on.
    """

    def forward(self, estimate: Tensor) -> Tensor:
        """Return what the task makes of the estimate, [B, ...]."""
        return estimate

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the training loss, a scalar.

        Args:
            output: what ``forward`` returned, [B, ...].
            source: what was sent, [B, ...].
            target: classes [B], or the source.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss and cannot be trained on")

    def after_step(self) -> None:
        """Run after each optimiser step; nothing by default."""
