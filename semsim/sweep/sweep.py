"""Run a scenario: all its links, all their SNRs, resumable, into a results folder."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semsim.files import sources
from semsim.files.disk import locked, log, seal, write_atomic
from semsim.items import is_damaged, set_items_aside
from semsim.mistakes import SpecError
from semsim.plots.report import write_report
from semsim.results import Journal, frame, provenance, read_provenance, write_rows
from semsim.scenario.loading import data_read_once, pick_device, weights_hash
from semsim.scenario.points import Points
from semsim.scenario.scenario import Scenario
from semsim.sweep.outputs import apart, captions, collect, figures, pictured, with_differences
from semsim.sweep.plan import Plan, Planned
from semsim.sweep.points import Listener, Work, pending_snrs
from semsim.sweep.preflight import preflight, quicker
from semsim.sweep.shards import Shard, merge_shards, shard_records
from semsim.sweep.trained import check_trained, forget, forget_others
from semsim.sweep.workers import Engine, made, run_links

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS_S = 10.0  #: seconds between writings of all rows, at least
#: keys of the provenance that are not of the machine which measured
OF_SCENARIO = ("scenario_sha256", "weights_sha256", "uids", "swept", "plots", "shards")


@data_read_once()
def run(
    scenario: Scenario | str | Path,
    out: str | Path | None = None,
    *,
    quick: bool = False,
    fresh: bool = False,
    device: str | None = None,
    listener: Listener | None = None,
    engine: Callable[[], Engine] | None = None,
    shard: Shard | None = None,
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
        engine: makes workers that share the batches of all links, such as
            ``partial(Processes, 2)`` of :mod:`semsim.sweep.workers`; none by default.
        shard: measure only this part, into a folder of its own; see :func:`merge`.
    """
    scenario, source = _read(scenario)
    if quick:
        if shard is not None:
            raise SpecError("", "--quick is a trial of the whole sweep; leave --shard out")
        scenario = quicker(scenario)
    folder = results_folder(scenario, out)
    asked = device or scenario.device
    where = _device_here(asked, engine)
    sources.refresh()
    points, trainings = scenario.points(), folder
    if shard is not None:
        points, folder = shard.of(points), shard.folder(folder)
    if shard is not None or (asked.startswith("cuda") and where.type != "cuda"):
        check_trained(points, trainings)  # shards do not train, nor a head without the GPU
    plan = Plan(points)
    missing, damaged = (points, set[str]()) if fresh else _unfinished(plan, folder, trainings)
    with made(engine, missing, asked) as workers:
        preflight(missing, where)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            journal = Journal(folder)
            journal.mend()
            set_items_aside(folder, damaged)
            shown = frozenset(pictured(plan) if shard is None else [])
            work = Work(folder, trainings, journal, where, asked, listener, len(plan), shown)
            if fresh:
                work.journal.clear()
                if shard is None:
                    forget(points, folder)
            else:
                _tell(forget_others(journal, plan, trainings), trainings)
            there = str(where) if workers is None else workers.device(asked)
            _write_header(folder, scenario, plan, source, there, measures=len(missing) > 0)
            rows = _run_points(work, plan, workers)
            if shard is None:
                rows = with_differences(folder, scenario, plan, rows)
            write_rows(folder, rows)
    if shard is None:
        _report(folder, scenario, plan, rows, source)
    return rows


def _report(folder: Path, scenario: Scenario, plan: Plan, rows: DataFrame, source: str) -> None:
    """Draw the figures and write the report around them."""
    compared = [plot.difference_to for plot in scenario.plots if plot.difference_to is not None]
    write_report(
        rows,
        folder / "report.html",
        title=scenario.name,
        figures=captions(figures(folder, scenario, plan, rows), rows, compared),
        provenance=read_provenance(folder),
        scenario=source,
    )


def _device_here(asked: str, engine: Callable[[], Engine] | None) -> torch.device:
    """Return where this process sends; the CPU where only workers may have the GPU asked for."""
    try:
        return pick_device(asked)
    except SpecError:
        elsewhere = getattr(getattr(engine, "func", engine), "elsewhere", False)
        if not elsewhere or not asked.startswith("cuda"):
            raise
        return torch.device("cpu")  # the workers say whether they have it


def _read(scenario: Scenario | str | Path) -> tuple[Scenario, str]:
    """Return a scenario and its text as YAML."""
    if isinstance(scenario, Scenario):
        return scenario, to_yaml(scenario)
    return Scenario.load(scenario), Path(scenario).read_text()


def merge(scenario: Scenario | str | Path, out: str | Path | None = None) -> DataFrame:
    """Gather what the shards of a sweep have measured, and return all rows.

    Figures and pictures are then made as in any other run.

    Args:
        scenario: as the shards had it.
        out: the folder that they had.

    Raises:
        SpecError: points are missing; nothing is gathered then.
    """
    whole = scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)
    with data_read_once():
        sources.refresh()
        merge_shards(Plan(whole.points()), results_folder(whole, out))
    return run(scenario, out)


def _unfinished(plan: Plan, folder: Path, trainings: Path) -> tuple[Points, set[str]]:
    """Return the links that lack something, and the SNRs whose items are damaged."""
    journal, points = Journal(folder), plan.points
    kept = (uid for point in plan for uid in point.all_uids() if uid in journal)
    damaged = {uid for uid in kept if is_damaged(folder, uid)}
    journal.forget(damaged)
    forget_others(journal, plan, trainings)
    lacking = [n for n, point in enumerate(plan) if pending_snrs(point, folder, journal)]
    return Points(points.__getitem__, lacking), damaged


def _tell(others: set[str], trainings: Path) -> None:
    """Say that points are measured again, since their weights are others, or not known."""
    if others:
        log.warning(
            "%d points were measured with other weights than %s holds, or by a version that did "
            "not note them; they are measured again",
            len(others), trainings,
        )  # fmt: skip


def _run_points(work: Work, plan: Sequence[Planned], engine: Engine | None) -> DataFrame:
    """Run what is missing, link after link, and return all rows.

    The rows are written now and then, at a twentieth of the time at most, and in the end.
    """
    due = time.monotonic() + ROWS_S
    try:
        for _ in run_links(work, plan, engine):
            if time.monotonic() > due:
                start = time.monotonic()
                write_rows(work.folder, frame(collect(plan, work.journal)))
                due = time.monotonic() + max(ROWS_S, 20 * (time.monotonic() - start))
    except BaseException:
        rows = frame(collect(plan, work.journal))
        if len(rows):
            write_rows(work.folder, rows)
        raise
    return frame(collect(plan, work.journal))


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


def _write_header(
    folder: Path, scenario: Scenario, plan: Plan, source: str, device: str, *, measures: bool
) -> None:
    """Write the scenario's text and the provenance of what follows.

    Where nothing is measured, machine, command and time stay those of the rows.
    """
    uids = [uid for point in plan for uid in point.all_uids()]
    weights = {name: weights_hash(name) for name in sorted(plan.weights)}
    shown = {
        "swept": apart(scenario, plan),
        "plots": [plot.model_dump() for plot in scenario.plots],
    }
    record = {**provenance(source, uids, weights, device), **shown}
    if shards := shard_records(folder):
        record["shards"] = shards
    before = {} if measures else _provenance_before(folder)
    of_machine = {k: v for k, v in (before or record).items() if k not in OF_SCENARIO}
    record = {**of_machine, **{k: v for k, v in record.items() if k in OF_SCENARIO}}
    write_atomic(folder / "scenario.yaml", source)
    write_atomic(folder / "provenance.json", seal(record, indent=2))


def _provenance_before(folder: Path) -> dict[str, Any]:
    """Return what made the rows of a folder; empty where nothing sound says so."""
    try:
        return read_provenance(folder)
    except ValueError:  # it is written anew
        return {}
