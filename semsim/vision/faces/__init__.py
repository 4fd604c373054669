"""Face verification behind a link, and how robust it is: BPFA and its baselines, defences.

For evaluation only. The verifiers are small, of four architectures, and trained here on drawn faces
or public research sets; there is no weight of a public recogniser and no third-party service.

    pair ─► probe ─► (perturbed against a surrogate) ─► link ─► (defence) ─► verifier ─► accept or not
                 enrolled face ─► verifier ──────────────────────────────────┘

See :mod:`semsim.vision.faces.attack` for what was found and what is inferred.
"""  # noqa: E501 - the diagram

from __future__ import annotations

from semsim.vision.faces.attack import Attack, Features, chosen_layers, craft
from semsim.vision.faces.defences import defended
from semsim.vision.faces.drawing import draw_face, person, shot
from semsim.vision.faces.metrics import (
    TAR,
    FacePSNR,
    FaceSSIM,
    FalseAcceptance,
    FalseRejection,
    TARRecalibrated,
    TARStrict,
)
from semsim.vision.faces.networks import BODIES, MarginHead, Verifier
from semsim.vision.faces.payload import Faces, everyone
from semsim.vision.faces.task import Verify
from semsim.vision.faces.thresholds import embeddings, impostors, set_thresholds

__all__ = [
    "BODIES", "TAR", "Attack", "FacePSNR", "FaceSSIM", "Faces", "FalseAcceptance",
    "FalseRejection", "Features", "MarginHead", "TARRecalibrated", "TARStrict", "Verifier",
    "Verify", "chosen_layers", "craft", "defended", "draw_face", "embeddings", "everyone",
    "impostors", "person", "set_thresholds", "shot",
]  # fmt: skip
