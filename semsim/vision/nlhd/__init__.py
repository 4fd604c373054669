"""NLHD: a low-light photo brightened by a Retinex model of non-local groups of similar pixels.

    V = max(R, G, B) ──► groups of similar pixels ──Haar──┬─ C00 ──► L ──► min(exp, log) ──► L' ─┐
                                                          └─ rest ─► D ──► R = 1 + D / (L + ε) ──┴─► V' = L' R

Found in the paper: pixel groups as in NLH, a separable Haar transform, the lowest coefficient as
illumination and all others as reflectance, the minimum of an exponential and a logarithmic curve,
noise suppression by the local noise level, and non-local saturation reduction. Its parameters and
tables could not be read. Adjacent, from the published code of NLH: grouping and noise estimator.
Inferred: every default of :class:`Enhance` and the rules in whose text this is said.

Source: Hou, Hou, Shi, Wei, Xu, NLHD: a pixel-level non-local Retinex model for low-light image
enhancement (2021); Hou, Xu, Liu, Liu, Liu, Zhu, Shao, NLH: a blind pixel-level non-local method for
real-world image denoising (2020).
"""  # noqa: E501 - the diagram

from __future__ import annotations

from semsim.vision.nlhd.groups import Grouping, Groups, haar_matrix
from semsim.vision.nlhd.metrics import (
    FlatNoise,
    LightnessOrder,
    MatchedPSNR,
    lightness_order,
    matched,
)
from semsim.vision.nlhd.payload import DARKNESS, LOL_FOLDERS, NOISE, LowLight, Split, darken
from semsim.vision.nlhd.retinex import (
    EPSILON,
    Fusion,
    NoiseLevel,
    brighten,
    decompose,
    desaturate,
    noise_level,
    saturation,
)
from semsim.vision.nlhd.task import Colour, Enhance, Reflectance

__all__ = [
    "EPSILON",
    "Colour",
    "DARKNESS",
    "Enhance",
    "FlatNoise",
    "Fusion",
    "Grouping",
    "Groups",
    "LOL_FOLDERS",
    "LightnessOrder",
    "LowLight",
    "MatchedPSNR",
    "NOISE",
    "NoiseLevel",
    "Reflectance",
    "Split",
    "brighten",
    "darken",
    "decompose",
    "desaturate",
    "haar_matrix",
    "lightness_order",
    "matched",
    "noise_level",
    "saturation",
]
