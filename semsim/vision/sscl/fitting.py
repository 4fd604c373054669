"""After the training: the linear stage on frozen embeddings, and thresholds on validation tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from semsim.metrics.scores import Array, average_precision, threshold_at
from semsim.nn.modes import in_evaluation
from semsim.payloads.images import to_float
from semsim.vision.sscl.losses import balanced_cross_entropy, pseudo_negatives
from semsim.vision.sscl.network import SiteNet
from semsim.vision.sscl.payload import Sites, tensors

SPECIFICITY = 0.9  #: of the second threshold
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  #: of the head's weights, tried on validation tiles
BATCH = 256


@torch.no_grad()
def embeddings(network: SiteNet, pixels: Tensor) -> Tensor:
    """Return embeddings [N, width] of tiles [N, 3, H, W], uint8 or in [0, 1]; in evaluation."""
    device = next(network.parameters()).device
    float_ = (p if p.is_floating_point() else to_float(p) for p in pixels.split(BATCH))
    with in_evaluation(network):
        return torch.cat([network.embed(part.to(device)) for part in float_])


def fit_head(network: SiteNet, labelled: Any, validation: Any) -> None:
    """Train the linear head on frozen embeddings, and set both thresholds.

    Labelled tiles are seen in all four turns, both classes with the same weight. Of several decays
    that one is taken that has the best average precision on the validation tiles.

    Args:
        network: encoder and head; the encoder stays as it is.
        labelled, validation: payloads, of whose tiles those with a told class are taken.
    """
    pixels, target = told_tiles(labelled)
    turned = torch.cat([pixels.rot90(quarter, (2, 3)) for quarter in range(4)])
    x, y = embeddings(network, turned), target.repeat(4)
    held, truth = told_tiles(validation)
    away = embeddings(network, held)
    best = -1.0
    for decay in DECAYS:
        weight, bias = logistic(x, y.to(x.device), decay)
        worth = float(average_precision(as_array(away @ weight + bias), truth.numpy() == 1))
        if worth > best:
            best = worth
            with torch.no_grad():
                network.head.weight.copy_(weight[None]), network.head.bias.copy_(bias)
    set_thresholds(network, validation)


def logistic(x: Tensor, target: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Return weight [D] and bias [1] of the balanced logistic regression of x [N, D].

    Args:
        x: features.
        target: classes, [N].
        decay: factor on the squared weight, halved.
    """
    x = x.detach().double()
    weight, bias = (torch.zeros(n, dtype=x.dtype, device=x.device) for n in (x.shape[1], 1))
    weight.requires_grad_(), bias.requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = balanced_cross_entropy(x @ weight + bias, target)
        value = value + decay / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return weight.detach().float(), bias.detach().float()


@torch.no_grad()
def set_thresholds(network: SiteNet, validation: Any) -> None:
    """Set both thresholds on validation tiles: best balanced accuracy, and ``SPECIFICITY``."""
    pixels, truth = told_tiles(validation)
    scores = as_array(network.head(embeddings(network, pixels))[:, 0])
    yes = truth.numpy() == 1
    found = (best_threshold(scores, yes), threshold_at(scores[~yes], 1 - SPECIFICITY))
    network.offset.copy_(torch.tensor(found))


def told_tiles(payload: Any) -> tuple[Tensor, Tensor]:
    """Return the tiles of a payload whose class is told, each once, and their classes [N]."""
    if isinstance(payload, Sites):
        first: dict[Any, int] = {}
        for index, tile in enumerate(payload.tiles):
            if tile.told:
                first.setdefault(tile.key, index)
        chosen = list(first.values())
        pixels, target = tensors(payload, chosen) if chosen else (torch.empty(0), torch.empty(0))
    else:
        items = [(x, int(y)) for x, y in (payload[i] for i in range(len(payload))) if int(y) >= 0]
        pixels = torch.stack([x for x, _ in items]) if items else torch.empty(0)
        target = torch.tensor([y for _, y in items])
    if not bool((target == 1).any()) or not bool((target == 0).any()):
        raise ValueError(
            "validation, and what is trained on, hold labelled tiles of both classes, got "
            f"{len(target)} labelled of {len(payload)}; take more, such as count: 500"
        )
    return pixels, target


def best_threshold(scores: Array, yes: NDArray[np.bool_]) -> float:
    """Return the threshold of the best balanced accuracy; of equally good ones the middle.

    Args:
        scores: [N].
        yes: which are of class 1, bool [N].
    """
    ranked = np.unique(scores)
    cuts = np.concatenate([[ranked[0] - 1], (ranked[1:] + ranked[:-1]) / 2])
    of_class = (np.sort(scores[own]) for own in (yes, ~yes))
    missed, left = (np.searchsorted(own, cuts, "right") / len(own) for own in of_class)
    worth = 1 - missed + left
    good = cuts[worth >= worth.max() - 1e-12]
    return float(good[len(good) // 2])


def as_array(x: Tensor) -> Array:
    """Return a tensor as float64."""
    return x.detach().cpu().double().numpy()


def purity(
    network: SiteNet, anchors: Tensor, unlabelled: Sites, rho: float, choice: str = "bottom"
) -> float:
    """Return the share of pseudo-negatives without a site, by the hidden truth: for reports alone.

    Args:
        network: whose embeddings are ranked.
        anchors: labelled tiles with a site, uint8 [A, 3, H, W].
        unlabelled: tiles to choose from.
        rho: share of them that each anchor takes.
        choice: ``bottom``, ``random`` or ``top``.
    """
    pixels, truth = tensors(unlabelled)
    own, others = (F.normalize(embeddings(network, p), dim=1) for p in (anchors, pixels))
    generator = torch.Generator(own.device).manual_seed(0)
    chosen = pseudo_negatives(own, others, rho, choice, generator)  # type: ignore[arg-type]
    return float((truth.to(chosen.device)[chosen] == 0).float().mean())
