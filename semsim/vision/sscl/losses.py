"""Terms of the loss: two views agree, anchors and pseudo-negatives part, classes gather."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Choice = Literal["bottom", "random", "top"]
TEMPERATURE = 0.1  #: of supervised pairs, as in SupCon


def agreement(predicted: Tensor, aim: Tensor) -> Tensor:
    """Return 2 - 2 cos of predictions and what they aim at, the mean over the batch, a scalar."""
    return (2 - 2 * F.cosine_similarity(predicted, aim, dim=1)).mean()


def pseudo_negatives(
    anchors: Tensor,
    candidates: Tensor,
    share: float,
    choice: Choice = "bottom",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return which candidates each anchor takes for negatives, indices [A, k].

    Sites are rare, so a tile at random is a negative with probability 1 - prevalence; the least
    similar ones are safer still. ``random`` and ``top`` are controls, the latter on the wrong side.

    Args:
        anchors: unit norm, [A, D].
        candidates: unit norm, [N, D].
        share: of candidates; k is its whole part, at least 1.
        choice: which end of the ranking.
        generator: of ``random``.
    """
    count = max(1, int(share * len(candidates)))
    if choice == "random":
        keys = torch.rand(len(anchors), len(candidates), generator=generator, device=anchors.device)
    else:
        keys = anchors @ candidates.T
    return keys.topk(count, dim=1, largest=choice == "top").indices


def parting(predicted: Tensor, candidates: Tensor, chosen: Tensor, margin: float) -> Tensor:
    """Return the mean of max(0, cos - margin) over anchors and their pseudo-negatives.

    Args:
        predicted: what the predictor makes of the anchors, [A, D].
        candidates: [N, D], unit norm, without gradient.
        chosen: of :func:`pseudo_negatives`, [A, k].
        margin: cosine below which a pair is far enough apart.
    """
    cosine = F.normalize(predicted, dim=1) @ candidates.T
    return (cosine.gather(1, chosen) - margin).clamp(min=0).mean()


def parting_infonce(
    predicted: Tensor, aims: Tensor, candidates: Tensor, chosen: Tensor, negatives: Tensor
) -> Tensor:
    """Return InfoNCE of each anchor with its other view, against pseudo-negatives and negatives.

    Args:
        predicted: [A, D].
        aims: the anchors' other views, [A, D], unit norm.
        candidates, chosen: as in :func:`parting`.
        negatives: labelled ones, [M, D], unit norm.
    """
    own = F.normalize(predicted, dim=1)
    against = (own @ candidates.T).gather(1, chosen)
    logits = torch.cat([(own * aims).sum(dim=1, keepdim=True), against, own @ negatives.T], dim=1)
    return F.cross_entropy(logits / TEMPERATURE, logits.new_zeros(len(own), dtype=torch.long))


def supervised_pairs(embeddings: Tensor, target: Tensor) -> Tensor:
    """Return SupCon: embeddings of one class attract each other and repel the other's.

    Args:
        embeddings: [M, D].
        target: classes, [M].

    Source: Khosla and others, Supervised contrastive learning (2020).
    """
    unit = F.normalize(embeddings, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logits = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    same = (target[:, None] == target) & ~itself
    per_item = -log_share.masked_fill(~same, 0).sum(dim=1) / same.sum(dim=1).clamp(min=1)
    return per_item[same.any(dim=1)].mean() if bool(same.any()) else unit.sum() * 0


def balanced_cross_entropy(score: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of scores [M], both classes with the same weight, in nats."""
    yes = target == 1
    each = F.binary_cross_entropy_with_logits(score, yes.to(score.dtype), reduction="none")
    parts = [each[own].mean() for own in (yes, ~yes) if bool(own.any())]
    return torch.stack(parts).mean() if parts else score.sum() * 0
