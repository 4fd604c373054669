"""Metrics of verification: who is let in, at thresholds of clean pairs or of what arrives."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semsim.metrics.base import Metric, Outcome
from semsim.metrics.scores import Array, RecallAtRate, Sensitivity, recall


class TAR(Sensitivity):
    """Share of genuine pairs that are accepted, at 1 % false acceptance of clean impostors.

    Its interval, like that of the other rates, takes pairs for independent. Pairs of the same
    person are alike, so it is too narrow where there are many pairs of few people.
    """

    name, label = "tar", "TAR at FAR 1 %"


class TARStrict(Sensitivity):
    """Share of genuine pairs that are accepted, at 0.1 % false acceptance of clean impostors."""

    name, label = "tar_strict", "TAR at FAR 0.1 %"
    column = 1


class FalseAcceptance(Sensitivity):
    """Share of impostor pairs that are accepted: the success of an impersonation."""

    name, label = "false_acceptance", "False acceptance"
    better: Literal["higher", "lower"] = "lower"
    which = False

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return what is left of the recall of impostors."""
        return 1 - recall(scores, target, False)

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return the exact interval."""
        low, high = super().pool_interval(values)
        return 1 - high, 1 - low


class FalseRejection(Sensitivity):
    """Share of genuine pairs that are rejected: the success of a dodging."""

    name, label = "false_rejection", "False rejection"
    better: Literal["higher", "lower"] = "lower"

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return what is left of the recall of genuine pairs."""
        return 1 - recall(scores, target, True)

    def pool_interval(self, values: Array) -> tuple[float, float]:
        """Return the exact interval."""
        low, high = super().pool_interval(values)
        return 1 - high, 1 - low


class TARRecalibrated(RecallAtRate):
    """Share of genuine pairs that are accepted at 1 % false acceptance of what arrives: a bound."""

    name, label = "tar_recalibrated", "TAR at FAR 1 %, recalibrated"
    column = 2  # the cosine itself, which needs no threshold
    share = 0.01


class _Fact(Metric):
    """What the sender's attack did to the face, as the link's notes say."""

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the fact of each item, [B]."""
        notes = {} if outcome.transmission is None else outcome.transmission.notes
        if self.name not in notes:
            raise ValueError(f"{self.name} needs a task that perturbs faces: verify with an attack")
        return notes[self.name]


class FacePSNR(_Fact):
    """PSNR of the perturbed face against the face, before it is sent."""

    name, label, unit = "face_psnr", "PSNR of the perturbed face", "dB"


class FaceSSIM(_Fact):
    """SSIM of the perturbed face against the face, before it is sent."""

    name, label = "face_ssim", "SSIM of the perturbed face"
