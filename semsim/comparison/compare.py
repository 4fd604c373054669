"""Two schemes on the same items: paired differences, SNR gains, Bjontegaard deltas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from semsim.comparison.bjontegaard import Fit
from semsim.comparison.curves import RATES, Curves, pooled, quality_of, same_uses, uses_deltas
from semsim.comparison.differences import TRAINING, has_trainings, paired_items
from semsim.comparison.paired import Estimate
from semsim.files.disk import write_atomic
from semsim.items import about_items
from semsim.mistakes import known
from semsim.results import no_formulas, read_rows, read_swept

if TYPE_CHECKING:
    from pandas import DataFrame

CBR = "transmitter.cbr"  #: swept, it gives curves over channel uses


class Scheme(NamedTuple):
    """One scheme of a results folder, by one metric.

    Args:
        folder: the results folder.
        label: what it is called there.
        rows: its rows of the metric.
        by: the column that tells schemes apart.
        conditions: swept columns beside the one that tells schemes apart.
    """

    folder: Path
    label: str
    rows: DataFrame
    by: str
    conditions: tuple[str, ...]


@dataclass
class Comparison:
    """What sets scheme A apart from B, all as A over B; positive gains: A needs less.

    Args:
        a, b: names of the schemes.
        metric, unit, better: the metric, and whether a higher or lower value is better.
        over: what intervals are over: items, or trainings where there are several.
        points: one row per condition and SNR: values, ``diff``, ``gain`` in dB, with intervals.
        deltas: one row per condition and kind of delta, with ``value``, ``low``, ``high``.
        left_out: points at unequal channel uses, where curves over channel uses are compared.
    """

    a: str
    b: str
    metric: str
    unit: str
    better: str
    over: str = "items"
    points: list[dict[str, Any]] = field(default_factory=list)
    deltas: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0


def schemes(
    folder: str | Path, metric: str | None = None, by: str | None = None, where: Sequence[str] = ()
) -> dict[str, Scheme]:
    """Return the schemes of a results folder by label.

    Args:
        folder: the results folder.
        metric: whose rows; the first by default.
        by: column that tells schemes apart; the transmitter, or the only swept one, by default.
        where: "column=value", to keep only such rows.
    """
    rows, swept = chosen_rows(folder, metric, where)
    by = by or scheme_column_of(rows, swept)
    if by not in rows:
        raise ValueError(f"the rows have no column {by!r}; {known(rows, by)}")
    conditions = tuple(c for c in swept if c in rows and c != by)
    return {
        str(label): Scheme(Path(folder), str(label), of_scheme, by, conditions)
        for label, of_scheme in rows.groupby(by, sort=False)
    }


def chosen_rows(
    folder: str | Path, metric: str | None, where: Sequence[str]
) -> tuple[DataFrame, list[str]]:
    """Return the rows of a folder with one metric and these values, and the swept columns."""
    rows = read_rows(folder)
    if "uid" not in rows:
        raise ValueError(f"{folder} was written by an older version; run its scenario again")
    metrics = list(rows["metric"].unique())
    metric = metric or metrics[0]
    if metric not in metrics:
        raise ValueError(f"{folder} holds no metric {metric!r}; {known(metrics, metric)}")
    rows = rows[rows["metric"] == metric]
    for wish in where:
        column, _, value = wish.partition("=")
        if column not in rows:
            raise ValueError(f"the rows have no column {column!r}; {known(rows, column)}")
        values = rows[column].map(_word)
        if value not in set(values):
            raise ValueError(f"no {column} is {value!r}; {known(values.unique(), value)}")
        rows = rows[values == value]
    return rows, read_swept(folder)


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def scheme_column_of(rows: DataFrame, swept: Sequence[str]) -> str:
    """Return the column that tells schemes apart where nobody says which."""
    free = [c for c in swept if c in rows and c not in (TRAINING, CBR)]
    free = [c for c in free if rows[c].nunique() > 1]
    return "transmitter" if "transmitter" in free or len(free) != 1 else free[0]


def pairs(
    a: dict[str, Scheme], b: dict[str, Scheme] | None, scheme: str | None, to: str | None
) -> list[tuple[Scheme, Scheme]]:
    """Return which schemes are compared.

    Args:
        a: the schemes of one folder.
        b: those of another; None to compare schemes of the same folder.
        scheme: label of the first scheme.
        to: label of the scheme it is compared with.
    """
    others = a if b is None else b
    for label, there in ((scheme, a), (to, others)):
        if label is not None and label not in there:
            raise ValueError(f"no scheme is called {label!r}; {_elsewhere(there, label)}")
    if b is None:
        if to is None:
            raise ValueError(f"say with which scheme to compare: --to NAME; {known(a, '')}")
        return [(s, a[to]) for label, s in a.items() if label != to and scheme in (None, label)]
    if scheme is None and to is None and len(a) > 1 and len(b) > 1:
        same = [label for label in a if label in b]
        if not same:
            raise ValueError(
                "the folders share no scheme; choose with --scheme NAME and --to NAME, of "
                f"{', '.join(a)} and {', '.join(b)}"
            )
        return [(a[label], b[label]) for label in same]
    first, second = _only(a, scheme, "--scheme"), _only(b, to, "--to")
    return [(first, second)]


def _elsewhere(there: dict[str, Scheme], label: str) -> str:
    """Point to the only swept column with this value, or else to the schemes."""
    named = {c for s in there.values() for c in s.conditions if label in set(s.rows[c].map(_word))}
    return (
        f"it is a value of another column: --by {named.pop()}"
        if len(named) == 1
        else known(there, label)
    )


def _only(there: dict[str, Scheme], label: str | None, option: str) -> Scheme:
    if label is None and len(there) > 1:
        raise ValueError(f"choose a scheme with {option} NAME; {known(there, '')}")
    return there[label] if label is not None else next(iter(there.values()))


def compare(a: Scheme, b: Scheme, fit: Fit = "pchip") -> Comparison:
    """Compare two schemes on the items that both have sent.

    Args:
        a, b: the schemes.
        fit: how curves go through their points, see :mod:`semsim.comparison.bjontegaard`.

    Raises:
        ValueError: they are not comparable: other images, draws, CBR, power or channel.
    """
    row = a.rows.iloc[0]
    first, second = (s.label if a.label != b.label else f"{s.label} ({s.folder})" for s in (a, b))
    found = Comparison(first, second, row["metric"], row["unit"] or "", row["better"])
    _check_conditions(a, b)
    over_uses = CBR in a.conditions and CBR in b.conditions
    for condition, points in _matched(a, b):
        matched = points[same_uses(points)] if over_uses else points
        found.left_out += len(points) - len(matched)
        if points.empty:
            continue
        _check_channels(a, b, *points.iloc[0][["uid_a", "uid_b"]])
        if matched.empty:
            continue
        _over_snr(found, condition, matched, (a.folder, b.folder), fit)
    if over_uses:
        _over_uses(found, a, b, fit)
    if not found.points and not found.deltas:
        raise ValueError(f"{first} and {second} share no SNR under equal conditions")
    return found


def _check_conditions(a: Scheme, b: Scheme) -> None:
    for one, other in ((a, b), (b, a)):
        for column in set(one.conditions) - set(other.conditions) - {TRAINING}:
            if one.rows[column].nunique() > 1:
                raise ValueError(
                    f"{one.folder} sweeps {column} and {other.folder} does not; choose one value "
                    f"with --where {column}=VALUE"
                )
    channels = [sorted(set(s.rows["channel"])) for s in (a, b)]
    if "channel" not in a.conditions and channels[0] != channels[1]:
        raise ValueError(
            f"the channel is {', '.join(channels[0])} in {a.folder} and {', '.join(channels[1])} "
            f"in {b.folder}; compare schemes over the same channel"
        )


def _check_channels(a: Scheme, b: Scheme, uid_a: str, uid_b: str) -> None:
    """Refuse other settings of the channel in two folders, but what tells their schemes apart."""
    if a.folder == b.folder or "channel" in (a.by, b.by):
        return
    first, second = (about_items(s.folder, u).get("channel") for s, u in ((a, uid_a), (b, uid_b)))
    if first is None or second is None:  # an older version kept none
        return
    chosen = {s.by.removeprefix("channel.") for s in (a, b)}
    apart = [k for k in {**first, **second} if first.get(k) != second.get(k) and k not in chosen]
    if apart:
        key = "kind" if "kind" in apart else apart[0]
        raise ValueError(
            f"channel.{key} is {first.get(key)} in {a.folder} and {second.get(key)} in "
            f"{b.folder}; compare schemes over the same channel"
        )


def _shared(a: Scheme, b: Scheme) -> list[str]:
    return [c for c in a.conditions if c in b.conditions and c != TRAINING]


def _matched(a: Scheme, b: Scheme) -> list[tuple[dict[str, Any], DataFrame]]:
    """Return for each shared condition a table of SNR, and the rows of both sides beside it."""
    same = _shared(a, b)
    on = ["snr_db", *same]
    if TRAINING in a.conditions and TRAINING in b.conditions:
        on.append(TRAINING)
    left, right = (_worded(s, same) for s in (a, b))
    both = left.merge(right, on=on, suffixes=("_a", "_b")).sort_values("snr_db")
    if not same:
        return [({}, both)]
    groups = both.groupby(same, sort=False)
    return [(dict(zip(same, key, strict=True)), table) for key, table in groups]


def _worded(scheme: Scheme, columns: Sequence[str]) -> DataFrame:
    """Return its rows with words in these columns, the same for 1 as for 1.0."""
    return scheme.rows.assign(**{c: scheme.rows[c].map(_same_word) for c in columns})


def _same_word(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _over_snr(
    found: Comparison,
    condition: dict[str, Any],
    matched: DataFrame,
    folders: tuple[Path, Path],
    fit: Fit,
) -> None:
    """Add the points and deltas of one condition."""
    runs = [Curves.read(folders, rows, found.metric) for rows in _by_training(matched)]
    estimates = [run.snr_deltas(found.better, fit) for run in runs]
    found.over = "trainings" if len(runs) > 1 else found.over
    for k, row in enumerate(runs[0].rows):
        diff = pooled([run.differences[k] for run in runs])
        gain = pooled([e[2 + k] for e in estimates])
        found.points.append(
            {
                **condition, "snr_db": row["snr_db"], "cbr": row["cbr_a"], "n": diff.n,
                "a": np.mean([run.values[0][k] for run in runs]),
                "b": np.mean([run.values[1][k] for run in runs]),
                "diff": diff.value, "diff_low": diff.low, "diff_high": diff.high,
                "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high,
            }
        )  # fmt: skip
    x = runs[0].x[np.isfinite(runs[0].x)]
    span = f"{x[0]:g} to {x[-1]:g} dB" if len(x) else ""
    kinds = [("difference", found.unit), ("snr gain", "dB")]
    for k, (kind, unit) in enumerate(kinds if len(x) > 1 else []):
        if found.metric in RATES and kind == "difference":
            continue
        found.deltas.append(_delta(condition, kind, unit, span, pooled([e[k] for e in estimates])))


def _over_uses(found: Comparison, a: Scheme, b: Scheme, fit: Fit) -> None:
    """Add deltas along the channel uses at each SNR, where CBRs were swept."""
    same = [c for c in _shared(a, b) if c != CBR]
    apart = ["snr_db", *same]
    left, right = (dict(list(_worded(s, same).groupby(apart, sort=False))) for s in (a, b))
    for key, of_a in left.items():
        of_b = right.get(key)
        if of_b is None or min(of_a["cbr"].nunique(), of_b["cbr"].nunique()) < 2:
            continue
        if has_trainings(of_a) or has_trainings(of_b):
            raise ValueError(f"deltas in channel uses take one training; --where {TRAINING}=VALUE")
        sides = [t.drop_duplicates("cbr").sort_values("cbr") for t in (of_a, of_b)]
        points = [(s.folder, u) for s, t in zip((a, b), sides, strict=True) for u in t["uid"]]
        tables, combine = paired_items(points, [found.metric])
        values = np.array([table[found.metric].to_numpy() for table in tables])
        split, q = len(sides[0]), quality_of(found.metric, found.better, combine[found.metric])
        x_a, x_b = (np.log10(t["cbr"].to_numpy(dtype=np.float64)) for t in sides)
        estimates = uses_deltas(values, split, (x_a, x_b), q, fit)
        low, high = max(x_a[0], x_b[0]), min(x_a[-1], x_b[-1])
        span = f"CBR {10**low:.4g} to {10**high:.4g}"
        condition = dict(zip(apart, key, strict=True))
        sign = -1.0 if found.better == "lower" else 1.0
        if found.metric not in RATES:  # whose quality is a logarithm
            found.deltas.append(
                _delta(condition, "difference", found.unit, span, _times(estimates[0], sign))
            )
        found.deltas.append(_delta(condition, "channel uses", "%", span, estimates[1]))


def _delta(
    condition: dict[str, Any], kind: str, unit: str, over: str, estimate: Estimate
) -> dict[str, Any]:
    ends = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
    return {**condition, "delta": kind, "unit": unit, "over": over, **ends}


def _times(estimate: Estimate, sign: float) -> Estimate:
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return Estimate(sign * estimate.value, low, high, estimate.n)


def _by_training(matched: DataFrame) -> list[DataFrame]:
    """Return a table for each training; a scheme without trainings meets each of the other's."""
    columns = [c for c in (TRAINING, f"{TRAINING}_a", f"{TRAINING}_b") if c in matched]
    if not columns:
        return [matched]
    return [table for _, table in matched.groupby(columns, sort=False)]


def to_csv(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the numbers per SNR of comparisons, and their deltas beneath, as one table."""
    import pandas as pd

    lines = [
        {"scheme": c.a, "to": c.b, "metric": c.metric, **line}
        for c in comparisons
        for line in (*c.points, *c.deltas)
    ]
    write_atomic(path, no_formulas(pd.DataFrame(lines)).to_csv(index=False))
