"""What a task is, and how it uses a link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from semsim.hop import charged, n0_of, uses_at_capacity
from semsim.types import AnyLink, Ledger, Transmission, each_user, turns_of


class Prepared(NamedTuple):
    """What goes into the link, and what the other end of the task is told beside it.

    That arrives without errors and is charged, as side information of a codec is.
    """

    source: Tensor  #: [B, ...]
    side_info: Tensor | None  #: [B, ...]
    bits: float | Tensor  #: that it takes: of each item alike, or [B]


@dataclass(frozen=True)
class Begun:
    """One batch of each user before the channel.

    Args:
        sources: what goes into the link, [B, ...] of each user.
        told: side information of the task, [B, ...] of each user, or None.
        bits: of it per item, mean over items.
        link: what the link begins with; None where it is not asked.
    """

    sources: list[Tensor]
    told: list[Tensor | None]
    bits: list[float]
    link: Any = None


class Task(nn.Module):
    """Says what the received thing is good for.

        source ─► prepare ─► link ─► estimate ─► forward ─► output
                     └───────── side information ───┘

    ``loss`` judges the output in training; metrics judge it in evaluation. The plain task hands
    on what it gets at both ends.
    """

    metric: str = "psnr"  #: what a validation measures
    network: nn.Module  #: of a task that has one, as :meth:`use` takes it
    trainable: bool = False  #: whether it is trained, together with the link
    restores: bool = False  #: True where it mends what arrives, so of clean items learns nothing

    def prepare(self, source: Tensor) -> Tensor | Prepared:
        """Return what the sender sends for the payload's source, [B, ...]; the source itself."""
        return source

    def forward(self, estimate: Tensor) -> Tensor:
        """Return what the task makes of the estimate, [B, ...].

        Where ``prepare`` told something, it comes as ``side_info``.
        """
        return estimate

    def begin(self, link: AnyLink, sources: Sequence[Tensor], *, once: bool = True) -> Begun:
        """Return a batch of each user as it is before the channel.

        Args:
            link: what carries it.
            sources: the payload's, [B, ...] of each user.
            once: let the link do now what several transmissions of this batch share.
        """
        given = [self._prepared(source) for source in sources]
        sent, told, bits = (list(part) for part in zip(*given, strict=True))
        return Begun(sent, told, bits, link.begin(_of_link(link, sent)) if once else None)

    def send(
        self, link: AnyLink, begun: Begun, snr_db: float | Tensor, generator: torch.Generator
    ) -> tuple[tuple[Transmission, ...], list[Tensor]]:
        """Return the transmission and the output of each user."""
        source = _of_link(link, begun.sources)
        sent = list(each_user(link.transmit(source, snr_db, generator, begun.link)))
        for user, bits in enumerate(begun.bits):
            if bits and not link.ignores_channel:
                n0 = n0_of(snr_db, begun.sources[user])
                uses = _uses(bits, n0, link.hops_db, sent[user])
                ledger = sent[user].ledger + Ledger(0.0, side_info=uses)
                sent[user] = replace(sent[user], ledger=ledger)
        pairs = zip(sent, begun.told, strict=True)
        return tuple(sent), [self._output(own.estimate, told) for own, told in pairs]

    def _prepared(self, source: Tensor) -> Prepared:
        given = self.prepare(source)
        if isinstance(given, Tensor):
            return Prepared(given, None, 0.0)
        if given.side_info is None:
            return given._replace(bits=0.0)
        return given._replace(bits=charged(given.side_info, given.bits, type(self).__name__))

    def _output(self, estimate: Tensor, told: Tensor | None) -> Tensor:
        output: Tensor = self(estimate) if told is None else self(estimate, side_info=told)
        return output

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the training loss, a scalar.

        Args:
            output: what ``forward`` returned, [B, ...].
            source: what was sent, [B, ...].
            target: the payload's: classes [B], a reference [B, ...], or the source.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss and cannot be trained on")

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a training of the task alone, a scalar: what nothing has sent.

        Args:
            source: the payload's, [B, ...].
            target: as for ``loss``.
            progress: share of the training that is done, 0 to 1.
            generator: of what the loss draws, such as noise.

        Raises:
            ValueError: the task restores, and source and target are equal as a training begins.
        """
        if self.restores and not progress:
            self._check_spoiled(source, target)
        given = self._prepared(source)
        return self.loss(self._output(given.source, given.side_info), source, target)

    def _check_spoiled(self, source: Tensor, target: Tensor) -> None:
        """Refuse items that leave a task which restores its source nothing to learn."""
        alike = (source.shape, source.dtype) == (target.shape, target.dtype)
        if alike and torch.equal(source, target):
            raise ValueError(
                "through: task trains on items that nothing sent, and in these source and target "
                f"are equal, which leaves {type(self).__name__} no error to learn from; leave "
                "through out, or name a payload whose source is spoiled, such as pilot_estimates"
            )

    def picture(self, estimate: Tensor, output: Tensor, target: Tensor) -> Tensor:
        """Return what a picture strip shows, [B, 3, H, W]: the output where that is an image.

        Args:
            estimate: what arrived, [B, ...].
            output: what ``forward`` made of it, [B, ...].
            target: the payload's, to be shown beside it where that helps.
        """
        return output if output.shape == estimate.shape else estimate

    def check_start(self) -> None:
        """Raise ValueError where a training must not begin with the weights that the task has.

        It is asked of a training that begins with no others; the message begins with an argument.
        """

    def after_step(self) -> None:
        """Run after each optimiser step; nothing by default."""

    def after_training(self, payload: Any, validation: Any) -> None:
        """Set what is set after a training, such as thresholds; nothing by default.

        Args:
            payload: what was trained on; of a federation the validation, for a server sees no more.
            validation: what such things are set on; None where there is none.
        """

    def check_payload(self, payload: Any) -> None:
        """Raise ValueError where the task makes no sense of this payload."""

    @classmethod
    def weights_named(cls, **arguments: Any) -> str | None:
        """Return the weights that a task of these arguments loads, by name or file."""
        return arguments.get("weights")

    def use(
        self, network: nn.Module, weights: str | None, *, trainable: bool, asked: bool = True
    ) -> None:
        """Take a network, load its weights, and freeze it unless it is to be trained.

        Args:
            network: becomes ``self.network``.
            weights: name of shipped weights or a .safetensors file; None for a fresh network.
            trainable: also train the network, together with the link.
            asked: False where the task does without it, which may then be a fresh one.
        """
        from semsim import zoo

        if weights is None and not trainable and asked:
            raise ValueError(
                "weights are not given; name some, or train a fresh network with trainable: true"
            )
        self.network, self.trainable = network, trainable
        if weights is not None:
            zoo.load_parts(weights, {"network": network})
        network.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if "network" in self._modules:
            self.network.train(mode and self.trainable)
        return self


def check_classes(kind: str, scores: Tensor, target: Tensor) -> None:
    """Raise ValueError where targets are no classes, or not those that scores [B, classes] have."""
    if target.dim() != 1 or target.is_floating_point():
        raise ValueError(
            f"{kind} needs a payload with classes, such as cifar10 or a folder with classes: true; "
            f"this one's target is {target.dtype} {list(target.shape)}"
        )
    least, largest = (int(end) for end in target.aminmax()) if len(target) else (0, 0)
    if least < 0:
        raise ValueError(
            f"{kind} counts classes from 0, and the payload has class {least}; leave out items "
            "whose class is not known"
        )
    if largest >= scores.shape[1]:
        raise ValueError(
            f"{kind} has {scores.shape[1]} classes and the payload class {largest}; write "
            f"classes: {largest + 1} or more"
        )


def _uses(bits: float, n0: Tensor, hops_db: Sequence[float], sent: Transmission) -> float:
    """Return the channel uses that bits take over all hops; n0 [B] is that of snr_db."""
    first, last = turns_of(sent)[0].state, sent.state
    states = [first, last] if len(hops_db) > 1 else [last]
    return sum(
        uses_at_capacity(bits, n0 * 10 ** (-db / 10), state)
        for db, state in zip(hops_db, states, strict=True)
    )


def _of_link(link: AnyLink, sources: list[Tensor]) -> Any:
    return sources if link.users > 1 else sources[0]
