"""What one batch of items gives at some SNRs. Nothing is added up, so it can be done anywhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from semsim.batches import Batch, Batches
from semsim.intervals import LEDGER
from semsim.metrics.base import Metric, Outcome
from semsim.nn.modes import in_evaluation
from semsim.phy.power import most_power
from semsim.seeds import stream
from semsim.tasks.base import Task
from semsim.types import AnyLink, Ledger, Transmission

FACTS = 3  #: rows of values before those of the metrics


class Place(NamedTuple):
    """Where values are gathered: an SNR in dB and a user, of which most links have one."""

    snr_db: float
    user: int = 1


@dataclass(frozen=True)
class Part:
    """What one batch gave at one place; it travels between processes.

    Args:
        place: SNR and user.
        index: of the batch.
        values: float64 [FACTS + metrics + notes, B]: of each item whether it is finite, power,
            channel uses; then its metrics and notes.
        notes: names of the notes.
        remarks: what the link says of it in words.
        most: the power that each item may have.
        uses: channel uses over all items, by name.
        source_values: of all items.
        seconds: that it took.
        which: numbers and CRC-32 of the sources, [2, B], where that is asked for.
    """

    place: Place
    index: int
    values: Any
    notes: list[str]
    remarks: dict[str, str]
    most: float
    uses: dict[str, float]
    source_values: int
    seconds: float
    which: Any = None


@dataclass(frozen=True)
class Meter:
    """Sends batches over a link and takes the values of each item.

    Args:
        link: what carries them.
        task: what the estimate is good for.
        metrics: what is taken.
        batches: of the payload.
        seed: of fading and noise.
        device: where items are sent.
    """

    link: AnyLink
    task: Task
    metrics: Sequence[Metric]
    batches: Batches
    seed: int
    device: torch.device

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Keep link and task in evaluation mode, and gradients off, for a while."""
        with in_evaluation(self.link, self.task), torch.inference_mode():
            yield

    def measure(
        self,
        index: int,
        numbers: list[int],
        items: list[Any],
        snrs: Sequence[float],
        *,
        which: bool = False,
    ) -> list[Part]:
        """Send one batch at several SNRs; one transfer to the CPU for all of them.

        Nothing is accumulated, so that it may be done in any order, and in any process.

        Args:
            index: of the batch, which decides its random numbers.
            numbers: of its items.
            items: these.
            snrs: in dB.
            which: also say which items these are.
        """
        batches = self.batches.of_users(numbers, items, which=which)
        start, gathered, facts = time.perf_counter(), list[Tensor](), list[dict[str, Any]]()
        begun = self.task.begin(self.link, [batch.source for batch in batches])
        shared = (time.perf_counter() - start) / len(snrs)
        sent: tuple[Transmission, ...] = ()
        for snr in snrs:
            start = time.perf_counter()
            if not sent or not self.link.ignores_channel:
                generator = stream(self.seed, "link", index, device=self.device)
                sent, outputs = self.task.send(self.link, begun, snr, generator)
                measured = [
                    self._values(Outcome(output, source, b.target, s, b.kept), s)
                    for s, output, source, b in zip(
                        sent, outputs, begun.sources, batches, strict=True
                    )
                ]
            gathered += measured
            own = [self._facts(*one) for one in zip(sent, begun.sources, batches, strict=True)]
            seconds = (time.perf_counter() - start + shared) / self.link.users
            facts += [
                {"place": Place(snr, user), "index": index, "seconds": seconds, **fact}
                for user, fact in enumerate(own, start=1)
            ]
        values = torch.stack(gathered).cpu().numpy()
        return [Part(values=v, **fact) for v, fact in zip(values, facts, strict=True)]

    def _values(self, outcome: Outcome, sent: Transmission) -> Tensor:
        """Return float64 [FACTS + metrics + notes, B], as :class:`Part` says."""
        size = len(outcome.source)
        rows = [
            torch.isfinite(_sum_per_item(outcome.output)),  # cheaper than one by one
            _power(sent.x),
            _spent(sent.ledger, outcome.source),
            *(_per_item(metric(outcome), size, metric.name) for metric in self.metrics),
            *(_per_item(note, size, name) for name, note in sent.notes.items()),
        ]
        return torch.stack([row.double() for row in rows])

    def _facts(self, sent: Transmission, source: Tensor, batch: Batch) -> dict[str, Any]:
        """Return what is told of one user's batch beside its values."""
        uses = {name: float(getattr(sent.ledger, name)) * len(source) for name in LEDGER}
        most = most_power(sent.x.shape[-1], constellation=self.link.constellation)
        return {
            "uses": uses, "source_values": source.numel(), "most": most, "which": batch.which,
            "notes": list(sent.notes), "remarks": self.link.remarks(),
        }  # fmt: skip


def _power(x: Tensor) -> Tensor:
    """Return mean |x|^2 summed over antennas of each item, [B], for x [B, T, N]."""
    reals = torch.view_as_real(x.resolve_conj()).flatten(1)
    return torch.linalg.vecdot(reals, reals) / x.shape[-1]


def _spent(ledger: Ledger, source: Tensor) -> Tensor:
    """Return the channel uses of each item, [B]."""
    if ledger.each is not None:
        return ledger.each.to(source.device)
    return torch.full((len(source),), float(ledger.total), device=source.device)


def _sum_per_item(values: Tensor) -> Tensor:
    """Sum all but the first axis, without a copy in any memory order."""
    return values.sum(dim=tuple(range(1, values.dim()))) if values.dim() > 1 else values


def _per_item(values: Tensor, size: int, name: str) -> Tensor:
    if tuple(values.shape) != (size,):
        raise ValueError(
            f"{name} must be one value per item, shape [{size}], got {list(values.shape)}"
        )
    return values
