"""Thresholds of a verifier: from clean impostor pairs of people that nobody trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from semsim.metrics.scores import threshold_at
from semsim.nn.modes import in_evaluation
from semsim.payloads.images import to_float
from semsim.vision.faces.networks import RATES, Verifier
from semsim.vision.faces.payload import Faces, everyone

BATCH = 256


@torch.no_grad()
def embeddings(network: Verifier, pixels: Tensor) -> Tensor:
    """Return embeddings [N, width] of faces, uint8 [N, 3, H, W]; the network in evaluation."""
    device = next(network.parameters()).device
    with in_evaluation(network):
        return torch.cat([network(to_float(part).to(device)) for part in pixels.split(BATCH)])


def impostors(network: Verifier, faces: Faces) -> Tensor:
    """Return the cosines of all pairs of different people of a split, [pairs]."""
    pixels, who = everyone(faces)
    found = embeddings(network, pixels)
    return (found @ found.T)[(who[:, None] != who).triu(1).to(found.device)]


def set_thresholds(network: Verifier, faces: Faces) -> None:
    """Set the thresholds at ``RATES`` on the impostor pairs of a split."""
    cosines = impostors(network, faces)
    if len(cosines) < 1 / min(RATES):
        raise ValueError(
            f"validation has too few people: {len(cosines)} impostor pairs say nothing of one in "
            f"{round(1 / min(RATES))}; take more people or shots"
        )
    scores = cosines.cpu().double().numpy()
    network.threshold.copy_(torch.tensor([threshold_at(scores, rate) for rate in RATES]))
