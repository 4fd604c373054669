"""Metrics of hidden codes: overlap, corners, bits, messages."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from semsim.metrics.base import Metric, Outcome
from semsim.nn.geometry import quad_iou
from semsim.vision.dbdh.embedders import (
    SIDE,
    Embedding,
    check_embedding,
    make_embedder,
    read_message,
)
from semsim.vision.dbdh.message import BITS
from semsim.vision.dbdh.task import true_corners, whole


def _found(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """Return the corners found and the true ones, [B, 4, 2] each."""
    true, output = true_corners(outcome.target), outcome.output
    if output.dim() != 2 or output.shape[1] != 2 * BITS + 9:
        raise ValueError(
            f"this metric reads what the task localise returns, got {list(output.shape)}; use "
            "task: {kind: dbdh}"
        )
    return output[:, :8].view(-1, 4, 2), true.to(output)


class QuadIoU(Metric):
    """Intersection over union of the region found and the true one."""

    name, label = "iou", "Overlap (IoU)"
    worst = 0.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the overlap, [B], 0 to 1."""
        return quad_iou(*_found(outcome))


class Localised(Metric):
    """Share of photos whose region is found with an overlap of at least 0.9 by default."""

    name = "localised"

    def __init__(self, least: float = 0.9) -> None:
        if not 0 < least <= 1:
            raise ValueError(f"least is an overlap above 0 and up to 1, got {least}")
        self.least = least

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return 1 where it is found, else 0, [B]."""
        return (quad_iou(*_found(outcome)) >= self.least).float()


class VertexError(Metric):
    """Mean distance of the four corners from the true ones, in pixels."""

    name, unit = "vertex_error", "px"
    better = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the distance in pixels, [B]."""
        found, true = _found(outcome)
        return (found - true).norm(dim=-1).mean(dim=1)


class BitAccuracy(Metric):
    """Share of the 30 bits that are read right, before correction, at the corners found."""

    name = "bit_accuracy"
    worst = 0.5

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the share, [B]."""
        _found(outcome)
        return (outcome.output[:, 8 : 8 + BITS] == outcome.target[:, 8:]).float().mean(dim=1)


class MessageSuccess(Metric):
    """Share of messages that pass the code check and are right."""

    name = "message_success"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return 1 for each message that arrived, else 0, [B]."""
        _found(outcome)
        right = (outcome.output[:, 8 + BITS : -1] == outcome.target[:, 8:]).all(dim=1)
        return (right & (outcome.output[:, -1] > 0.5)).float()


class BitAccuracyOracle(Metric):
    """Share of the 30 bits that are read right at the true corners.

    It tells damage of the hidden bits from failure to find them. Behind a sender that localised,
    only the crop is there, and its outline is taken.

    Args:
        embedder, key: as in the payload.
    """

    name = "bit_accuracy_oracle"
    worst = 0.5

    def __init__(self, embedder: Embedding = "pimog", *, key: int = 0) -> None:
        self.method, self._embedding = make_embedder(embedder, key), (embedder, key)

    def check_payload(self, payload: Any) -> None:
        """Raise ValueError where codes are another embedder's, or photos as small as crops."""
        check_embedding(payload, *self._embedding, self.name)
        if getattr(payload, "size", None) == SIDE:
            raise ValueError(
                f"{self.name} takes what has {SIDE} pixels for a sender's crop, and so are the "
                f"payload's photos; write size: {SIDE + 32} or more there"
            )

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the share, [B]."""
        if outcome.transmission is None:
            raise ValueError("bit_accuracy_oracle reads the link's estimate, which is not there")
        estimate, corners = outcome.transmission.estimate, true_corners(outcome.target)
        if estimate.shape[2:] == (SIDE, SIDE):
            corners = whole(estimate)
        bits, _, _ = read_message(self.method.to(estimate.device), estimate, corners)
        return (bits == outcome.target[:, 8:]).float().mean(dim=1)
