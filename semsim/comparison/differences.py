"""Rows with paired differences to one scheme, and means over several trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsim import spec
from semsim.comparison.paired import Array, Estimate, difference, mean_of
from semsim.intervals import interval_of_mean
from semsim.items import WHICH, about_items, read_items
from semsim.mistakes import SpecError, known

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SAME = 0.01  #: CBRs and powers that differ by more of their value are not compared
TRAINING = "train.seed"  #: swept, it gives several trainings of one scheme
DIFFERENCE = ("difference_to", "diff", "diff_low", "diff_high")  #: columns
PLAN = {
    "seed": "so its items meet other fading and noise; run both with the same seed",
    "batch_size": "so its items are sent in other batches and meet other draws; use the same",
    "max_items": "so its last batch is another one; give both the same stop.max_items",
}  #: what must agree, and why


def add_differences(
    folder: str | Path, rows: DataFrame, swept: Sequence[str], by: str, to: object
) -> DataFrame:
    """Return rows with the paired difference of each scheme to one of them, all else equal.

    Args:
        folder: the results folder.
        rows: its rows.
        swept: columns that tell links apart.
        by: the column that tells schemes apart.
        to: the scheme in it to compare with; its own rows and those without partner have no
            difference.
    """
    is_reference = rows[by].map(str) == str(to)
    if not is_reference.any():
        raise ValueError(f"no {by} is called {str(to)!r}; {known(rows[by].map(str).unique(), to)}")
    keys = _conditions(rows, swept, by)
    partner = dict(zip(keys[is_reference], rows["uid"][is_reference], strict=True))
    found: dict[tuple[str, str], Estimate] = {}
    for key, of_point in rows[~is_reference].groupby(keys[~is_reference], sort=False):
        for uid, point in of_point.groupby("uid", sort=False):
            if key in partner:
                places = (Path(folder), str(uid)), (Path(folder), partner[key])
                for metric, estimate in paired_differences(*places, point["metric"]).items():
                    found[str(uid), metric] = estimate
    got = [
        None if reference else found.get((uid, metric))
        for uid, metric, reference in zip(rows["uid"], rows["metric"], is_reference, strict=True)
    ]
    columns: dict[str, Any] = {"difference_to": [str(to) if e else None for e in got]}
    for column, name in zip(DIFFERENCE[1:], ("value", "low", "high"), strict=True):
        columns[column] = [getattr(e, name) if e else np.nan for e in got]
    return rows.assign(**columns)


def unequal(rows: DataFrame, swept: Sequence[str], by: str, to: object) -> list[str]:
    """Return a sentence on each scheme that costs other channel uses than the one called ``to``."""
    keys = _conditions(rows, swept, by)
    is_reference = rows[by].map(str) == str(to)
    there = keys.map(dict(zip(keys[is_reference], rows["cbr"][is_reference], strict=True)))
    apart = (rows["cbr"] - there).abs() > SAME * np.maximum(rows["cbr"], there)
    firsts = rows[apart].assign(there=there[apart]).drop_duplicates(by)
    return [
        f"{row[by]} has CBR {row['cbr']:.4g} at {row['snr_db']:g} dB and {to} {row['there']:.4g}: "
        "their difference is not at equal channel uses"
        for _, row in firsts.iterrows()
    ]


def _conditions(rows: DataFrame, swept: Sequence[str], by: str) -> Series[str]:
    """Return one word per row for all that is swept beside ``by``, also where some rows lack it."""
    same = [c for c in dict.fromkeys((*swept, "snr_db")) if c in rows and c != by]
    return rows[same].map(str).agg("\n".join, axis=1)


def paired_differences(
    a: tuple[Path, str], b: tuple[Path, str], metrics: Sequence[str]
) -> dict[str, Estimate]:
    """Return by how much each metric of one point exceeds that of another on the same items.

    Args:
        a, b: folder and uid of a point.
        metrics: their names.
    """
    names = list(dict.fromkeys(metrics))
    values, combine = paired_items([a, b], names)
    return {
        name: difference(values[0][name].to_numpy(), values[1][name].to_numpy(), combine[name])
        for name in names
    }


def paired_items(
    points: Sequence[tuple[Path, str]], metrics: Sequence[str]
) -> tuple[list[DataFrame], dict[str, Callable[[float], float] | None]]:
    """Return the values of the items that all points share, and how each metric combines them.

    Args:
        points: folder and uid of each.
        metrics: names of columns.

    Raises:
        ValueError: their items or draws are not the same.
    """
    abouts = [about_items(*point) for point in points]
    for (folder, _), about in zip(points[1:], abouts[1:], strict=True):
        _check_plan(abouts[0]["plan"], about["plan"], points[0][0], folder)
    tables = [read_items(*point, columns=[*WHICH, *metrics]).set_index("item") for point in points]
    shared = tables[0].index
    for table in tables[1:]:
        shared = shared.intersection(table.index, sort=True)
    tables = [table.loc[shared] for table in tables]
    for (folder, _), table in zip(points, tables, strict=True):
        other = (table["source"] != tables[0]["source"]).to_numpy()
        if other.any():
            raise ValueError(
                f"item {shared[other][0]} of {folder} is another one than in {points[0][0]}, so "
                "nothing can be paired; run both with the same payload"
            )
    return tables, {name: _combine(name, abouts[0]["means"]) for name in metrics}


def _check_plan(a: Mapping[str, Any], b: Mapping[str, Any], at: Path, here: Path) -> None:
    for key, why in PLAN.items():
        if a[key] != b[key]:
            where = "" if at == here else f" of {here}"
            raise ValueError(
                f"{key}{where} is {b[key]}, but {a[key]}{'' if at == here else f' in {at}'}, {why}"
            )


def _combine(metric: str, means: Sequence[str]) -> Callable[[float], float] | None:
    if metric in means:
        return None
    if metric not in spec.FAMILIES["metric"]:
        raise ValueError(f"{metric} is no mean over items, so its items cannot be paired")
    built: Any = spec.build(spec.parse("metric", metric))
    if not built.of_items:
        raise ValueError(f"{metric} is no mean over items, so its items cannot be paired")
    combine: Callable[[float], float] = built.combine
    return combine


def scheme_column(choices: Mapping[str, Sequence[str]], by: str | None, to: str) -> str:
    """Return the swept column in which schemes differ from the one called ``to``.

    Args:
        choices: swept columns with their labels.
        by: the column, where it is said.
        to: one of its labels.
    """
    if not any(choices.values()):
        raise SpecError("difference_to", "nothing is swept, so nothing differs; leave it out")
    if by is not None and by not in choices:
        raise SpecError("by", f"{by!r} is not swept, so nothing differs; {known(choices, by)}")
    searched = [by] if by else list(choices)
    for column in searched:
        if to in choices[column]:
            return column
    labels = [label for column in searched for label in choices[column]]
    raise SpecError("difference_to", f"no scheme is called {to!r}; {known(labels, to)}")


def has_trainings(rows: DataFrame) -> bool:
    """Tell whether rows come from several trainings of the same scheme."""
    return TRAINING in rows and rows[TRAINING].nunique() > 1


def over_trainings(rows: DataFrame, swept: Sequence[str]) -> DataFrame:
    """Return means over ``train.seed``, with intervals over trainings; other rows as they are.

    ``interval`` says over what a row's interval is. A scheme that no training changes keeps the
    interval over its items.
    """
    if not has_trainings(rows):
        return rows
    import pandas as pd

    same = [c for c in dict.fromkeys((*swept, "snr_db", "metric")) if c in rows and c != TRAINING]
    groups = rows.groupby(same, sort=False, dropna=False)
    return pd.DataFrame([_mean(group) for _, group in groups]).drop(columns=TRAINING)


def _mean(group: DataFrame) -> Series[Any]:
    """Return one row for several trainings."""
    row = group.iloc[0].copy()
    values = group["value"].to_numpy(dtype=np.float64)
    row["trainings"] = len(group)
    if not (values == values[0]).all():
        low, high = interval_of_mean(values)
        row["value"], row["ci_low"], row["ci_high"] = values.mean(), float(low), float(high)
        row["interval"] = "trainings"
    if "diff" in group and group["diff"].nunique() > 1 and group["diff"].notna().all():
        estimate = mean_of(_floats(group["diff"]))
        row["diff"], row["diff_low"], row["diff_high"] = (
            estimate.value,
            estimate.low,
            estimate.high,
        )
    return row


def _floats(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)
