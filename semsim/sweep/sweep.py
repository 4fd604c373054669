"""Run a scenario: all its links, all their SNRs, resumable, into a results folder."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semsim import spec
from semsim.evaluation import Evaluation, Row
from semsim.files import sources
from semsim.files.disk import locked, log, seal, write_atomic
from semsim.intervals import Tally
from semsim.items import LinkItems, items_path, key_of
from semsim.mistakes import SpecError
from semsim.plots.report import write_report
from semsim.results import Journal, frame, provenance, read_provenance, write_rows
from semsim.scenario.loading import data_read_once, pick_device, weights_hash
from semsim.scenario.scenario import Built, Point, Scenario
from semsim.sweep.outputs import (
    apart,
    captions,
    collect,
    figures,
    keep_pictures,
    labels,
    lost_pictures,
    pictured,
    with_differences,
)
from semsim.sweep.preflight import preflight, quicker
from semsim.sweep.trained import forget, own_weights

if TYPE_CHECKING:
    from pandas import DataFrame

CHECKPOINT_S = 5.0  #: seconds between checkpoints within a link
ROWS_S = 10.0  #: seconds between writings of all rows, at least


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


@data_read_once()
def run(
    scenario: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    quick: bool = False,
    fresh: bool = False,
    device: str | None = None,
    listener: Listener | None = None,
) -> DataFrame:
    """Evaluate a scenario and return its rows; a point already in the results is not run again.

    Args:
        scenario: a scenario, or the path of its file.
        out: results folder; ``results/<name>`` by default.
        quick: only a few items at the first and last SNR, to see whether all works; kept apart
            under ``<name>-quick``.
        fresh: forget earlier results in the folder, and what this scenario trained there.
        device: instead of the scenario's.
        listener: called after every batch.
    """
    text = None if isinstance(scenario, Scenario) else Path(scenario)
    if not isinstance(scenario, Scenario):
        scenario = Scenario.load(scenario)
    source = to_yaml(scenario) if text is None else text.read_text()
    if quick:
        scenario = quicker(scenario)
    folder = results_folder(scenario, out)
    where = pick_device(device or scenario.device)
    sources.refresh()
    points = scenario.points()
    earlier = Journal(folder)
    preflight([p for p in points if fresh or _pending(p, folder, earlier)], where)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        journal = Journal(folder)
        journal.mend()
        shown = frozenset(pictured(points))
        work = _Work(folder, journal, where, listener, len(points), shown)
        if fresh:
            work.journal.clear()
            forget(points, folder)
        _write_header(folder, scenario, points, source, where)
        rows = _run_points(work, scenario, points)
    write_report(
        rows,
        folder / "report.html",
        title=scenario.name,
        figures=captions(figures(folder, scenario, points, rows), rows),
        provenance=read_provenance(folder),
        scenario=source,
    )
    return rows


def _run_points(work: _Work, scenario: Scenario, points: list[Point]) -> DataFrame:
    """Run what is missing, link after link, and return all rows.

    The rows are written now and then, at a twentieth of the time at most, and in the end.
    """
    due = time.monotonic() + ROWS_S
    try:
        for index, point in enumerate(points):
            _run_point(work, point, index)
            if time.monotonic() > due:
                start = time.monotonic()
                write_rows(work.folder, frame(collect(points, work.journal)))
                due = time.monotonic() + max(ROWS_S, 20 * (time.monotonic() - start))
    except BaseException:
        rows = frame(collect(points, work.journal))
        if len(rows):
            write_rows(work.folder, rows)
        raise
    rows = with_differences(work.folder, scenario, points, frame(collect(points, work.journal)))
    write_rows(work.folder, rows)
    return rows


@dataclass(frozen=True)
class _Work:
    """What all links of a run share."""

    folder: Path
    journal: Journal
    device: torch.device
    listener: Listener | None
    count: int
    pictured: frozenset[int]


def results_folder(scenario: Scenario, out: str | Path | None = None) -> Path:
    """Return where results go."""
    folder = Path(out) if out is not None else Path("results") / scenario.name
    if folder.is_file():
        raise SpecError("", f"--out: {folder} is a file; give a folder")
    return folder


def to_yaml(scenario: Scenario) -> str:
    """Return a scenario as YAML text."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(scenario.to_dict(), text)
    return text.getvalue()


def _pending(point: Point, folder: Path, journal: Journal) -> list[float]:
    """Return the SNRs of a link that lack rows or the values of their items."""

    def is_done(uid: str) -> bool:
        return uid in journal and items_path(folder, uid).is_file()

    scenario = point.scenario
    return [s for s in scenario.snr_db if not all(map(is_done, scenario.uids(s)))]


def _run_point(work: _Work, point: Point, index: int) -> None:
    """Evaluate the SNRs of one link that are still missing, and keep their rows."""
    journal, scenario, listener = work.journal, point.scenario, work.listener
    pending = _pending(point, work.folder, journal)
    shown = index in work.pictured
    if not pending and not (shown and lost_pictures(work.folder, point)):
        return
    weights = own_weights(scenario, work.folder, work.device, progress=listener is not None)
    built, uid = scenario.build(work.device, weights), scenario.uid()
    if not pending:
        keep_pictures(work.folder, point, built, scenario.snr_db)
        return
    evaluation = _evaluation(scenario, built, pending)
    uids = {place: scenario.uid(*place) for place in evaluation.points}
    items = LinkItems(work.folder, uids, [metric.name for metric in built.metrics])
    _resume(evaluation, items, journal.checkpoint(uid))
    evaluation.keep = items
    progress = Progress(point.name, work.count, index, evaluation)
    keeper = _Keeper(journal, uid, items, progress, listener)
    try:
        evaluation.run(keeper)
    except (KeyboardInterrupt, RuntimeError, MemoryError) as error:
        keeper.save()
        if isinstance(error, MemoryError) or "memory" in str(error):
            few = f"batches of {scenario.batch_size} items do not fit into memory; use smaller ones"
            raise SpecError("batch_size", few) from error
        raise
    except ValueError:
        journal.drop_checkpoint(uid)
        items.drop()
        raise
    keeper.save()  # pictures take time too
    if shown:
        keep_pictures(work.folder, point, built, pending)
    items.finish(_about(evaluation, scenario.payload))
    _keep(journal, point, built, evaluation)
    journal.drop_checkpoint(uid)
    items.drop()


def _resume(evaluation: Evaluation, items: LinkItems, saved: dict[str, Any]) -> None:
    """Go on from a checkpoint, where there is one of these SNRs and its items are still there."""
    states, keys = saved.get("points", {}), {key_of(place): place for place in evaluation.points}
    if set(states) != set(keys):
        return
    points = {place: Tally.from_dict(states[key]) for key, place in keys.items()}
    counts = {place: tally.power.n for place, tally in points.items()}
    if not items.resume(counts, saved["items"]):
        log.warning("items of an interrupted link are missing or damaged; it starts anew")
    else:
        evaluation.points = points


def _about(evaluation: Evaluation, payload: Any) -> dict[str, Any]:
    """Return what decides which items meet which draws, and which metrics are plain means."""
    means = [m.name for m in evaluation.metrics if all(m.combine(v) == v for v in (0.25, 0.75))]
    plan = {name: getattr(evaluation, name) for name in ("seed", "batch_size", "max_items")}
    return {"plan": plan, "payload": spec.dump(payload), "means": means}


def _keep(journal: Journal, point: Point, built: Built, evaluation: Evaluation) -> None:
    """Write the rows of one link to the journal, a line for each SNR."""
    rows, own = evaluation.rows(), labels(point)
    own["payload"] = point.swept.get("payload", getattr(built.payload, "name", own["payload"]))
    kept: dict[str, list[Row]] = {}
    for row in rows:
        uid = point.scenario.uid(row["snr_db"], row.get("user", 1))
        kept.setdefault(uid, []).append({**row, "uid": uid, **own})
    journal.finish(kept)


def _evaluation(scenario: Scenario, built: Built, snrs: list[float]) -> Evaluation:
    return Evaluation(
        built.link,
        built.payload,
        snr_db=snrs,
        metrics=built.metrics,
        task=built.task,
        stop=scenario.stop_rule(),
        seed=scenario.seed,
        batch_size=scenario.batch_size,
        device=built.device,
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
    ) -> None:
        self.journal, self.uid, self.items = journal, uid, items
        self.progress, self.listener = progress, listener
        self.state: dict[str, Any] = {}
        self.saved_at = time.monotonic()

    def __call__(self, evaluation: Evaluation) -> None:
        # an interrupt may fall between two SNRs of a batch: only whole batches may be saved
        points = {key_of(place): tally.as_dict() for place, tally in evaluation.points.items()}
        self.state = {"points": points, "items": self.items.marks()}
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


def _write_header(
    folder: Path, scenario: Scenario, points: list[Point], source: str, device: torch.device
) -> None:
    """Write the scenario's text and the provenance of what follows."""
    uids = [uid for p in points for snr in p.scenario.snr_db for uid in p.scenario.uids(snr)]
    names = {point.scenario.transmitter.weights for point in points} - {None}
    weights = {name: weights_hash(name) for name in sorted(names)}
    shown = {
        "swept": apart(scenario, points),
        "plots": [plot.model_dump() for plot in scenario.plots],
    }
    record = {**provenance(source, uids, weights, str(device)), **shown}
    write_atomic(folder / "scenario.yaml", source)
    write_atomic(folder / "provenance.json", seal(record, indent=2))
