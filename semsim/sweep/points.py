"""One link of a sweep while it runs: its evaluation, its checkpoints, its rows in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from semsim import spec
from semsim.evaluation import Evaluation, Row
from semsim.files.disk import log
from semsim.intervals import Tally
from semsim.items import LinkItems, items_path, key_of
from semsim.measuring import Part
from semsim.mistakes import SpecError
from semsim.results import Journal
from semsim.scenario.building import Built
from semsim.scenario.scenario import Scenario
from semsim.sweep.outputs import keep_pictures, lost_pictures, set_pictures_aside
from semsim.sweep.plan import Planned
from semsim.sweep.trained import has_weights, own_weights, weights_left

CHECKPOINT_S = 5.0  #: seconds between checkpoints within a link


@dataclass(frozen=True)
class Progress:
    """How far a run is, for whoever draws it.

    Args:
        label: the link at work.
        points, done: links in all, and finished ones.
        evaluation: the link's state.
    """

    label: str
    points: int
    done: int
    evaluation: Evaluation

    @property
    def items(self) -> int:
        """Items sent so far, over all SNRs of the link."""
        return sum(self.evaluation.items(snr) for snr in self.evaluation.snr_db)

    @property
    def total(self) -> int:
        """Items to be sent at most."""
        return self.evaluation.max_items * len(self.evaluation.snr_db)


Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class Work:
    """What all links of a run share."""

    folder: Path
    trainings: Path  #: the results folder with what was trained
    journal: Journal
    device: torch.device  #: where this process sends
    asked: str  #: the device that the run asks for, which other workers may have
    listener: Listener | None
    count: int
    pictured: frozenset[int]


def pending_snrs(point: Planned, folder: Path, journal: Journal) -> list[float]:
    """Return the SNRs of a link that lack rows or the values of their items."""

    def is_done(uid: str) -> bool:
        return uid in journal and items_path(folder, uid).is_file()

    return [s for s in point.snr_db if not all(map(is_done, point.uids(s)))]


class PointRun:
    """One link while its missing SNRs are measured, in this process or in others.

    Args:
        work: what all links of the run share.
        point: the link.
        index: of the link.
        pending: its SNRs that are missing; none where only pictures are.
    """

    def __init__(self, work: Work, point: Planned, index: int, pending: list[float]) -> None:
        self.work, self.point, self.pending = work, point, pending
        self.scenario, self.shown = point.scenario, index in work.pictured
        told = work.listener is not None
        self.weights = own_weights(self.scenario, work.trainings, work.device, progress=told)
        self.trained = weights_left(work.trainings, point.training)
        self.built, self.uid = self.scenario.build(work.device, self.weights), point.uid
        if not pending:
            return
        self.evaluation = evaluation = evaluation_of(self.scenario, self.built, pending)
        uids = {at: point.uids(at.snr_db)[at.user - 1] for at in evaluation.points}
        self.items = LinkItems(work.folder, uids, [metric.name for metric in self.built.metrics])
        saved = work.journal.checkpoint(self.uid)
        _resume(evaluation, self.items, saved if saved.get("trained") == self.trained else {})
        evaluation.keep = self.items
        progress = Progress(point.name, work.count, index, evaluation)
        self.keeper = _Keeper(
            work.journal, self.uid, self.items, progress, work.listener, self.trained
        )

    def run(self) -> None:
        """Measure and finish in this process."""
        if not self.pending:
            self.finish()
            return
        try:
            self.evaluation.run(self.keeper)
        except (KeyboardInterrupt, RuntimeError, MemoryError, ValueError) as error:
            self.failed(error)
        self.finish()

    def take(self, index: int, parts: list[Part]) -> None:
        """Add a batch that was measured elsewhere."""
        self.evaluation.add(index, parts)
        self.keeper(self.evaluation)

    def end(self) -> None:
        """Finish after the last such batch."""
        try:
            self.evaluation.check_power()
        except ValueError as error:
            self.failed(error)
        self.finish()

    def failed(self, error: BaseException) -> NoReturn:
        """Keep what can be kept, or forget what is wrong, and raise."""
        if isinstance(error, KeyboardInterrupt | RuntimeError | MemoryError):
            self.keeper.save()
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and "memory" in str(error)
        ):
            batch = self.scenario.batch_size
            few = f"batches of {batch} items do not fit into memory; use smaller ones"
            raise SpecError("batch_size", few) from error
        if isinstance(error, ValueError):
            self.work.journal.drop_checkpoint(self.uid)
            self.items.drop()
        raise error

    def finish(self) -> None:
        """Keep pictures, items and rows of a link whose SNRs are all measured."""
        work, journal = self.work, self.work.journal
        if not self.pending:
            keep_pictures(work.folder, self.point, self.built, self.point.snr_db)
            return
        self.keeper.save()  # pictures take time too
        if self.shown:
            keep_pictures(work.folder, self.point, self.built, self.pending)
        self.items.finish(_about(self.evaluation, self.scenario))
        journal.finish(_rows(self.point, self.built, self.evaluation), self.trained)
        journal.drop_checkpoint(self.uid)
        self.items.drop()


def point_run(work: Work, point: Planned, index: int) -> PointRun | None:
    """Return the run of a link; None where nothing of it is missing.

    For pictures alone nothing is trained again.
    """
    pending = pending_snrs(point, work.folder, work.journal)
    lost = index in work.pictured and lost_pictures(work.folder, point)
    again = bool(pending) or (lost and has_weights(point.scenario, work.trainings))
    if lost:
        set_pictures_aside(work.folder, point, again=again)
    return PointRun(work, point, index, pending) if again else None


def _resume(evaluation: Evaluation, items: LinkItems, saved: dict[str, Any]) -> None:
    """Go on from a checkpoint, where there is one of these SNRs and its items are still there."""
    states, keys = saved.get("points", {}), {key_of(place): place for place in evaluation.points}
    if set(states) != set(keys) or not all("spent" in state for state in states.values()):
        return  # of other SNRs, or of a version that kept less
    points = {place: Tally.from_dict(states[key]) for key, place in keys.items()}
    counts = {place: tally.power.n for place, tally in points.items()}
    if not items.resume(counts, saved["items"]):
        log.warning("items of an interrupted link are missing or damaged; it starts anew")
    else:
        evaluation.points = points


def _about(evaluation: Evaluation, scenario: Scenario) -> dict[str, Any]:
    """Return what decides which items meet which draws, and which metrics are plain means."""
    means = [
        m.name
        for m in evaluation.metrics
        if m.of_items and all(m.combine(v) == v for v in (0.25, 0.75))
    ]
    plan = {name: getattr(evaluation, name) for name in ("seed", "batch_size", "max_items")}
    parts = {name: spec.dump(getattr(scenario, name)) for name in ("payload", "channel")}
    return {"plan": plan, **parts, "means": means}


def _rows(point: Planned, built: Built, evaluation: Evaluation) -> dict[str, list[Row]]:
    """Return the rows of one link by their uid, of which each SNR has one."""
    rows, own = evaluation.rows(), point.labels
    own["payload"] = point.swept.get("payload", getattr(built.payload, "name", own["payload"]))
    kept: dict[str, list[Row]] = {}
    for row in rows:
        uid = point.uids(row["snr_db"])[row.get("user", 1) - 1]
        kept.setdefault(uid, []).append({**row, "uid": uid, **own})
    return kept


def evaluation_of(scenario: Scenario, built: Built, snrs: list[float]) -> Evaluation:
    """Return the evaluation of a built link at some of its SNRs."""
    return Evaluation(
        built.link,
        built.payload,
        snr_db=snrs,
        metrics=built.metrics,
        task=built.task,
        stop=scenario.stop_rule(),
        seed=scenario.seed,
        batch_size=scenario.batch_size,
    )


class _Keeper:
    """Called after every batch: remembers the state, saves it now and then, tells the listener."""

    def __init__(
        self,
        journal: Journal,
        uid: str,
        items: LinkItems,
        progress: Progress,
        listener: Listener | None,
        trained: str | None,
    ) -> None:
        self.journal, self.uid, self.items = journal, uid, items
        self.progress, self.listener, self.trained = progress, listener, trained
        self.state: dict[str, Any] = {}
        self.saved_at = time.monotonic()

    def __call__(self, evaluation: Evaluation) -> None:
        # an interrupt may fall between two SNRs of a batch: only whole batches may be saved
        points = {key_of(place): tally.as_dict() for place, tally in evaluation.points.items()}
        self.state = {"points": points, "items": self.items.marks(), "trained": self.trained}
        if time.monotonic() - self.saved_at > CHECKPOINT_S:
            self.save()
        if self.listener:
            self.listener(self.progress)

    def save(self) -> None:
        """Write the state after the last whole batch."""
        if self.state:
            self.items.sync()
            self.journal.save_checkpoint(self.uid, self.state)
            self.saved_at = time.monotonic()
