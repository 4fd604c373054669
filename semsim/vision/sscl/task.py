"""The task: tell which tiles hold a site, from a picture that arrives or from its embedding."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from channels.checks import check_choice, check_span
from semsim import zoo
from semsim.metrics.scores import UNSET, check_held_out
from semsim.tasks.base import Task
from semsim.vision.sscl.fitting import fit_head, set_thresholds
from semsim.vision.sscl.losses import (
    Choice,
    agreement,
    balanced_cross_entropy,
    parting,
    parting_infonce,
    pseudo_negatives,
    supervised_pairs,
)
from semsim.vision.sscl.network import Base, Learner, SiteNet, unit_rms
from semsim.vision.sscl.views import by_radio, view


class FindSites(Task):
    """Say whether a tile holds a site; trained with few labels and the knowledge that sites are rare.

        at: receiver   tile ─► link ─► encoder ─► head ─► score
        at: sender     tile ─► encoder ─► link ─► head ─► score     with transmitter: values

    The output is [B, 2], scores less the threshold of the best balanced accuracy and less that of a
    fixed specificity. Both are set after a training on the clean tiles of ``train.validation``
    (see ``semsim.vision.sscl.fitting``), where without ``end_to_end`` the head is fitted as well;
    without a validation the first is 0, and metrics that need the second refuse.

    A training of the task alone (``train: {through: task}``, payload split ``train``) minimises

        ssl · L_ssl + sup · L_sup + pn · L_pn + L_head

    over a batch of unlabelled and labelled tiles: two views of a tile agree (BYOL or SimSiam),
    classes gather (SupCon), and labelled sites part from their pseudo-negatives, those unlabelled
    tiles that resemble them least. L_head trains the linear head on embeddings, which it does not
    change unless ``end_to_end``. Found in the abstract: ranking by similarity to annotated anchors,
    pseudo-negative pairs, one stage. All forms and numbers are inferred.

    Args:
        at: where the encoder works.
        weights: name of shipped weights or a .safetensors file; None starts a fresh network.
        trainable: train the network.
        preset: size of the encoder.
        repeats: how often the sender sends the embedding, so that it costs what a picture costs.
        base: of L_ssl.
        ssl, sup, pn: weights of the terms; ``ssl: 0, sup: 0, pn: 0, end_to_end: true`` is plain
            supervised learning.
        rho: share of the unlabelled tiles in batch and queue that are pseudo-negatives.
        choice: ``bottom`` of the ranking; ``random`` and ``top`` are controls.
        pairs: form of L_pn: ``margin``, max(0, cos - margin), or ``infonce``.
        margin: of L_pn.
        anchors: labelled ``sites``, or ``both`` classes.
        queue: embeddings of unlabelled tiles that are kept for the ranking.
        warmup: share of the training before L_pn begins, when ranks mean nothing yet.
        end_to_end: let L_head change the encoder.
        channel_db: least and largest SNR in dB of noise on embeddings, as one more augmentation;
            none where None.

    Source: Xu, Guo, Zimmer-Dauphinee, Liu, Shi, Asad, Wilkes, VanValkenburgh, Wernke, Huo,
        Semi-supervised contrastive learning for remote sensing, arXiv 2112.06437 (2023).
    """  # noqa: E501 - the first line

    metric = "balanced_accuracy"
    network: SiteNet

    def __init__(
        self,
        at: Literal["sender", "receiver"] = "receiver",
        *,
        weights: str | None = "sites-sscl",
        trainable: bool = False,
        preset: Literal["tiny", "resnet18"] = "tiny",
        repeats: int = 1,
        base: Base = "byol",
        ssl: float = 1.0,
        sup: float = 1.0,
        pn: float = 1.0,
        rho: float = 0.25,
        choice: Choice = "bottom",
        pairs: Literal["margin", "infonce"] = "margin",
        margin: float = 0.0,
        anchors: Literal["sites", "both"] = "sites",
        queue: int = 4096,
        warmup: float = 0.1,
        end_to_end: bool = False,
        channel_db: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        check_choice("at", at, ("sender", "receiver"))
        check_choice("base", base, ("byol", "simsiam"))
        check_choice("choice", choice, ("bottom", "random", "top"))
        check_choice("pairs", pairs, ("margin", "infonce"))
        check_choice("anchors", anchors, ("sites", "both"))
        _check_numbers(repeats=repeats, queue=queue)
        if repeats > 1 and at == "receiver":
            raise ValueError(f"repeats {repeats} is of an embedding, which at: sender sends")
        _check_terms(ssl, sup, pn, rho, margin, warmup)
        self.at, self.repeats, self.terms = at, repeats, {"ssl": ssl, "sup": sup, "pn": pn}
        self.rho, self.choice, self.pairs, self.margin = rho, choice, pairs, margin
        self.anchors, self.warmup, self.end_to_end = anchors, warmup, end_to_end
        if channel_db is not None:
            check_span("channel_db", channel_db)
        self.channel_db = channel_db
        network = SiteNet(preset)
        if weights is not None:
            zoo.load_parts(weights, {"network": network}, among_others=True)
        self.use(network, None, trainable=trainable, asked=weights is None)
        self.learner: Learner | None = None
        if trainable and any(self.terms.values()):
            self.learner = Learner(network, base, queue=queue)
        self._progress = 0.0

    def prepare(self, source: Tensor) -> Tensor:
        """Return what is sent: the tile, or its embedding, [B, repeats, width]."""
        if self.at == "receiver":
            return source
        return self.network.embed(source)[:, None].expand(-1, self.repeats, -1)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return scores [B, 2] of tiles or embeddings; above 0 there is a site."""
        if self.at == "receiver":
            return self.network(estimate)
        return self.network.score(unit_rms(estimate.mean(dim=1)))

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of labelled tiles, both classes with the same weight."""
        known = _told(target) >= 0
        return balanced_cross_entropy(output[known, 0], target[known])

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of tiles whose class is 1, 0 or, where it is not told, -1."""
        self._progress, target = progress, _told(target)
        known = target >= 0
        if self.learner is None:
            if int(known.sum()) < 2:  # of one, batch norm makes zeros
                return self.network.head.weight.sum() * 0
            score = self.network.head(self._embed(view(source[known], generator), generator))
            return balanced_cross_entropy(score[:, 0], target[known])
        self.learner.ran.fill_(1)
        images = torch.cat([view(source, generator), view(source, generator)])
        embedded = self._embed(images, generator)
        projected = self.learner.projector(embedded)
        predicted = self.learner.predictor(projected)
        aims = self.learner.aims(self.network, images, projected)
        half = len(source)
        loss = self.terms["ssl"] * agreement(predicted, aims.roll(half, 0))  # of the other view
        if self.terms["sup"] and bool(known.any()):
            both = known.repeat(2)
            pairs = supervised_pairs(projected[both], target.repeat(2)[both])
            loss = loss + self.terms["sup"] * pairs
        if self.terms["pn"] and progress >= self.warmup:
            views = _Views(predicted[:half], aims[:half], aims[half:], target)
            loss = loss + self.terms["pn"] * self._parting(views, self.learner.kept(), generator)
        self.learner.keep(aims[half:][~known])
        seen = embedded[:half][known]
        score = self.network.head(seen if self.end_to_end else seen.detach())
        return loss + balanced_cross_entropy(score[:, 0], target[known])

    def _parting(self, views: _Views, kept: Tensor, generator: torch.Generator) -> Tensor:
        """Return L_pn of a batch, whose unlabelled tiles come before those of the queue."""
        predicted, aims, others, target = views
        anchor = target == 1 if self.anchors == "sites" else target >= 0
        candidates = torch.cat([others[target < 0], kept])
        if not bool(anchor.any()) or not len(candidates):
            return predicted.sum() * 0
        chosen = pseudo_negatives(aims[anchor], candidates, self.rho, self.choice, generator)
        if self.pairs == "margin":
            return parting(predicted[anchor], candidates, chosen, self.margin)
        own, negatives = others[anchor], others[target == 0]
        return parting_infonce(predicted[anchor], own, candidates, chosen, negatives)

    def _embed(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Return embeddings, after a channel where that is an augmentation."""
        embedded = self.network.embed(views)
        return (
            embedded if self.channel_db is None else by_radio(embedded, self.channel_db, generator)
        )

    def after_step(self) -> None:
        """Let the target network follow."""
        if self.learner is not None:
            self.learner.follow(self.network, self._progress)

    @torch.no_grad()
    def after_training(self, payload: Any, validation: Any) -> None:
        """Fit the head on the labelled tiles unless it is learned, and set both thresholds."""
        if not self.trainable:
            return
        own = self.learner is not None and bool(self.learner.ran)  # else it learned by a link
        if validation is None:
            self.network.offset.copy_(self.network.offset.new_tensor([0.0, UNSET]))
            return
        check_held_out(validation)
        if own and not self.end_to_end:
            fit_head(self.network, payload, validation)
        else:
            set_thresholds(self.network, validation)


class _Views(NamedTuple):
    """One batch after the networks: predictions and aims of the first views, aims of the second."""

    predicted: Tensor
    aims: Tensor
    others: Tensor
    target: Tensor


def _told(target: Tensor) -> Tensor:
    if target.dim() != 1 or target.is_floating_point():
        raise ValueError(
            "sites needs a payload of classes 0 and 1, and -1 where nobody said, such as sites; "
            f"this one's target is {target.dtype} {list(target.shape)}"
        )
    return target


def _check_numbers(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is at least 1, got {value}")


def _check_terms(
    ssl: float, sup: float, pn: float, rho: float, margin: float, warmup: float
) -> None:
    if not all(0 <= weight < math.inf for weight in (ssl, sup, pn)):
        raise ValueError(f"ssl, sup and pn are weights of at least 0, got {[ssl, sup, pn]}")
    if not 0 < rho <= 1:
        raise ValueError(f"rho is a share above 0 and up to 1, got {rho}")
    if not -1 <= margin < 1:
        raise ValueError(f"margin is a cosine from -1 to below 1, got {margin}")
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup is a share of the training from 0 to 1, got {warmup}")
