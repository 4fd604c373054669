"""The metrics of sites that are not of scores in general: found at a fixed specificity."""

from __future__ import annotations

from semsim.metrics.scores import RecallAtRate, Sensitivity
from semsim.vision.sscl.fitting import SPECIFICITY


class SensitivityAt(Sensitivity):
    """Share of sites that are found at a specificity of 0.9, by the threshold of clean tiles."""

    name = "sensitivity_at"
    label = f"Sensitivity at specificity {SPECIFICITY}"
    column = 1


class SensitivityRecalibrated(RecallAtRate):
    """Share of sites that are found at a specificity of 0.9 of what arrives: a bound."""

    name = "sensitivity_recalibrated"
    label = f"Sensitivity, recalibrated to {SPECIFICITY}"
    share = 1 - SPECIFICITY
