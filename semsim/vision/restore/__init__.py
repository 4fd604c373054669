"""AdvRestore: faces restored by a latent diffusion model, and how verifiers stand its features.

    degraded face ─► (link) ─► encoder ─► DDIM on latents ─► decoder ─► face
                                                  ▲
                        perturbed there against a verifier of one's own

For evaluation only, as :mod:`semsim.vision.faces` is: the verifiers are small and trained here.
Found: the idea (abstract); inferred: networks, sizes, losses, budgets, degradation. No figure of
the paper was readable, so none is repeated.

Source: Zhou, Ling, Shi, Chen, Li, Improving visual quality and transferability of adversarial
attacks on face recognition simultaneously with adversarial restoration, arXiv 2309.01582 (2024).
"""

from __future__ import annotations

from semsim.vision.restore.attack import RestoreAttack, craft_restored
from semsim.vision.restore.degrade import Degradation, blurred
from semsim.vision.restore.networks import Autoencoder, Restorer, ladder
from semsim.vision.restore.payload import DegradedFaces
from semsim.vision.restore.task import Restore
from semsim.vision.restore.unet import UNet

__all__ = [
    "Autoencoder", "DegradedFaces", "Degradation", "Restore", "RestoreAttack", "Restorer", "UNet",
    "blurred", "craft_restored", "ladder",
]  # fmt: skip
