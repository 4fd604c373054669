"""The one metric of sites that is not of scores in general: found at a fixed specificity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semsim.metrics.scores import Array, ScoreMetric, Sensitivity, threshold_at
from semsim.vision.sscl.fitting import SPECIFICITY


class SensitivityAt(Sensitivity):
    """Share of sites that are found at a specificity of 0.9, by the threshold of clean tiles."""

    name = "sensitivity_at"
    label = f"Sensitivity at specificity {SPECIFICITY}"
    column = 1


class SensitivityRecalibrated(ScoreMetric):
    """Share of sites that are found at a specificity of 0.9 of what arrives.

    The threshold is set anew at each SNR on the tiles that are measured, as nobody could do in the
    field: a bound.
    """

    name = "sensitivity_recalibrated"
    label = f"Sensitivity, recalibrated to {SPECIFICITY}"

    def of(self, scores: Array, target: NDArray[np.bool_]) -> Array:
        """Return the recall above the threshold that so many negatives pass."""
        flat = scores.reshape(-1, scores.shape[-1])
        found = [(row[target] > threshold_at(row[~target], 1 - SPECIFICITY)).mean() for row in flat]
        return np.asarray(found).reshape(scores.shape[:-1])
