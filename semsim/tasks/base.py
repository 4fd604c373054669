"""What a task is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Task(nn.Module):
    """Says what the received thing is good for.

        source ─► prepare ─► link ─► estimate ─► forward ─► output

    ``loss`` judges the output in training; metrics judge it in evaluation. The plain task hands
    on what it gets at both ends.
    """

    def prepare(self, source: Tensor) -> Tensor:
        """Return what the sender sends for the payload's source, [B, ...]; the source itself."""
        return source

    def forward(self, estimate: Tensor) -> Tensor:
        """Return what the task makes of the estimate, [B, ...]."""
        return estimate

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the training loss, a scalar.

        Args:
            output: what ``forward`` returned, [B, ...].
            source: what was sent, [B, ...].
            target: the payload's: classes [B], a reference [B, ...], or the source.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss and cannot be trained on")

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a training of the task alone, a scalar: what nothing has sent.

        Args:
            source: the payload's, [B, ...].
            target: as for ``loss``.
            progress: share of the training that is done, 0 to 1.
            generator: of what the loss draws, such as noise.
        """
        return self.loss(self(self.prepare(source)), source, target)

    def picture(self, estimate: Tensor, output: Tensor) -> Tensor:
        """Return what a picture strip shows, [B, 3, H, W]: the output where that is an image."""
        return output if output.shape == estimate.shape else estimate

    def after_step(self) -> None:
        """Run after each optimiser step; nothing by default."""
