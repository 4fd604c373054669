"""MARformer: metal artefact reduction of dental CT slices; ``semsim.ct`` makes the artefacts.

    phantom or CT slice ─┬─► polychromatic scan with metal ─► sinogram ─► FBP ─► corrupted slice ─► MARformer
                         └─► the same scan without metal ───────────────► FBP ─► clean slice (target)

Slices are attenuation μ divided by 0.5 cm⁻¹ and clipped to [0, 1].

Found: the task, the image domain, the U-shape with three levels and a bottleneck, a residual
output, DRSA (attention between channels of a reduced tensor) before P2FFN (a feed-forward part with
a large kernel). Adjacent: re-sampling by pixel shuffle and the form of the attention (Restormer);
the physics of the simulator and its settings (ADN). Inferred: widths, depths, kernel sizes, the
phantom, the training. The paper's own figures, 25.72 dB before and 43.11 dB after (size L), belong to
its own data and are not repeated here.

Source: Shi, Xu, Shen, MARformer: An Efficient Metal Artifact Reduction Transformer for Dental CBCT
Images, arXiv 2311.09590.
"""  # noqa: E501 - the diagram

from __future__ import annotations

from semsim.vision.marformer.network import DRSA, P2FFN, SIZES, MARBlock, MARformer
from semsim.vision.marformer.payload import DENTAL, IMPLANTS, KEEP_BYTES, MetalSlices
from semsim.vision.marformer.task import CHARBONNIER_EPS, ReduceMetal

__all__ = [
    "CHARBONNIER_EPS",
    "DENTAL",
    "DRSA",
    "IMPLANTS",
    "KEEP_BYTES",
    "MARBlock",
    "MARformer",
    "MetalSlices",
    "P2FFN",
    "ReduceMetal",
    "SIZES",
]
