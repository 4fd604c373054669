"""The curve over SNR that a training shows of its averaged weights; it picks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch.utils.data import Subset

from semsim.evaluation import Stop, evaluate
from semsim.files.disk import log, write_atomic
from semsim.payloads.classes import by_class, some_of
from semsim.tasks.base import Task
from semsim.training.state import State
from semsim.types import AnyLink

COLUMNS = ("snr_db", "user", "metric", "value", "ci_low", "ci_high", "n")
CURVE = "validation.csv"


def validation_rows(state: State, payload: Any) -> list[dict[str, Any]]:
    """Return what the averaged weights reach at this step, a row per SNR."""
    spec, task = state.spec, cast(Task, state.nets["task"])
    judged = payload
    if by_class(payload):
        judged = Subset(payload, some_of(payload, range(len(payload)), spec.val_items, state.seed))
    with state.averaged():
        rows = evaluate(
            cast(AnyLink, state.nets["link"]), judged, snr_db=spec.val_snr_db,
            metrics=[task.metric], task=task,
            stop=Stop(1, min(spec.val_items, len(payload))),
            seed=state.seed,
        )  # fmt: skip
    return [{"step": state.steps, **{k: row[k] for k in COLUMNS if k in row}} for row in rows]


def write_curve(folder: Path, curve: list[dict[str, Any]]) -> None:
    """Write all rows so far into ``validation.csv``."""
    import pandas

    write_atomic(folder / CURVE, pandas.DataFrame(curve).to_csv(index=False))


def curve_so_far(folder: Path, steps: int, *, warn: bool) -> list[dict[str, Any]]:
    """Return the validation rows of the steps behind a checkpoint that does not hold them.

    Args:
        folder: of the training.
        steps: behind the checkpoint.
        warn: say where ``validation.csv`` cannot be read.
    """
    path = folder / CURVE
    if not path.is_file():
        return []
    import pandas

    try:
        rows = pandas.read_csv(path)
        found: list[dict[str, Any]] = rows[rows["step"] <= steps].to_dict("records")
    except (OSError, ValueError, TypeError, KeyError):
        if warn:
            log.warning("%s cannot be read, so it begins anew with the next validation", path)
        return []
    return found
