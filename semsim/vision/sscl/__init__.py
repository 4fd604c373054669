"""SSCL: rare sites in aerial tiles, found with few labels and many tiles that nobody labelled.

    tiles ─► two views ─► encoder ─► projector ─► predictor ─► agree (BYOL, SimSiam)
    labelled sites ─► rank unlabelled tiles ─► least similar ones ─► pseudo-negatives ─► part
    labelled tiles ─► classes gather ─► linear head ─► thresholds on validation tiles

Found in the abstract: few labels (under 7 %), rare sites, unlabelled tiles ranked by their
similarity to annotated anchors, pseudo-negative pairs, labelled and unlabelled tiles in one stage;
a balanced accuracy of 79.0 % on its own imagery. Adjacent (the authors' other code): BYOL or
SimSiam as the base, folders of tiles. All forms and numbers of the method are inferred.

Source: Xu, Guo, Zimmer-Dauphinee, Liu, Shi, Asad, Wilkes, VanValkenburgh, Wernke, Huo,
Semi-supervised contrastive learning for remote sensing: identifying ancient urbanization in the
south-central Andes, arXiv 2112.06437, International Journal of Remote Sensing (2023).
"""

from __future__ import annotations

from semsim.metrics.scores import AveragePrecision, BalancedAccuracy, Sensitivity, Specificity
from semsim.vision.sscl.fitting import embeddings, fit_head, purity, set_thresholds
from semsim.vision.sscl.losses import pseudo_negatives
from semsim.vision.sscl.metrics import SensitivityAt, SensitivityRecalibrated
from semsim.vision.sscl.network import Learner, SiteNet
from semsim.vision.sscl.payload import Sites, tensors
from semsim.vision.sscl.task import FindSites
from semsim.vision.sscl.tiles import Region, draw_tile, region

__all__ = [
    "AveragePrecision", "BalancedAccuracy", "FindSites", "Learner", "Region", "Sensitivity",
    "SensitivityAt", "SensitivityRecalibrated", "SiteNet", "Sites", "Specificity", "draw_tile",
    "embeddings", "fit_head", "pseudo_negatives", "purity", "region", "set_thresholds", "tensors",
]  # fmt: skip
