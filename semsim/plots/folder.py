"""Figures and picture strips of a results folder: what is chosen here, ``plots`` draws."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.comparison.differences import TRAINING, add_differences, over_trainings, scheme_column
from semsim.mistakes import SpecError, known, sentence
from semsim.plots.bounds import name_bounds
from semsim.results import COLUMNS, read_rows

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Plot:
    """One figure: a metric over a column of the rows, a line for each value of another column.

    Args:
        x: column along the horizontal axis.
        y: metric, or several side by side, ``[task_psnr, psnr]``; one figure of each where null.
        by: column with one line per value; all swept columns together where null.
        theory: labels to closed forms, see :func:`closed_form`, drawn dashed.
        published: CSV file of published values, such as benchmarks/published.csv, in grey.
        difference_to: value of ``by``, such as a transmitter: beside the metric a panel shows by
            how much the others differ from it on the same items.
        title: words above the figure.
    """

    x: str = "snr_db"
    y: str | tuple[str, ...] | None = None
    by: str | None = None
    theory: dict[str, str | dict[str, Any]] | None = None
    published: str | None = None
    difference_to: str | None = None
    title: str | None = None


def draw(
    folder: Path,
    swept: Sequence[str],
    plot: Plot,
    rows: DataFrame | None = None,
    taken: Sequence[Path] = (),
) -> list[Path]:
    """Draw one figure per metric, or of the metrics that are asked for alone; return the files.

    No line mixes links: what neither ``x`` nor ``by`` tells apart gets panels of its own.

    Args:
        folder: the results folder.
        swept: columns that tell links apart.
        plot: what to show.
        rows: rows to draw instead of those in the folder.
        taken: files of other figures; one that would have such a name gets a number behind it.
    """
    import pandas as pd

    from semsim.plots import drawing as plots
    from semsim.plots.style import DIFFERENCE

    rows = _of_links(read_rows(folder) if rows is None else rows)
    x, y, by, beside, over = plot.x, plot.y, plot.by, "", plot.x
    if plot.difference_to is not None:
        choices = {c: list(rows[c].map(str).unique()) for c in swept if c in rows}
        by = scheme_column(choices, by, plot.difference_to)
        rows = add_differences(folder, rows, swept, by, plot.difference_to)
        beside = f"{DIFFERENCE}{plot.difference_to}"
        over = f"{x}_difference_to_{file_name(plot.difference_to)}"
    if TRAINING not in (x, by):
        rows = over_trainings(rows, swept)
    rows = pd.concat([rows, _as_metric(rows, beside)], ignore_index=True) if beside else rows
    rows = name_bounds(rows)
    panel = "channel" if rows["channel"].nunique() > 1 and "channel" not in (x, by) else None
    apart = _mixed(rows, (x, by, panel), (*swept, "snr_db"))
    if by is None:
        rows, by = rows.assign(scheme=_together(rows, apart)), "scheme"
    elif apart:
        whole = [panel, *apart] if panel else apart
        rows, panel = rows.assign(panel=_together(rows, whole)), "panel"
    if by == "snr_db":
        rows, by = rows.assign(snr=_words(rows, by)), "snr"
    curves = {label: closed_form(form) for label, form in (plot.theory or {}).items()}
    files: list[Path] = []
    for chosen in [y] if y else [m for m in rows["metric"].unique() if DIFFERENCE not in m]:
        metrics = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        reference = plot.published and _reference(plot.published, metrics, rows, x)
        name = re.sub(r"[^\w.+-]", "_", "_and_".join(metrics) + f"_over_{over}.png")
        path = free_file(folder / name, [*taken, *files])
        metrics = tuple(name for m in metrics for name in ((m, m + beside) if beside else (m,)))
        figure = plots.plot_rows(
            rows, x=x, y=metrics, by=by, panel=panel, theory=curves, reference=reference
        )
        plots.write(figure, [path, path.with_suffix(".svg"), path.with_suffix(".pdf")], plot.title)
        files.append(path)
    return files


def _as_metric(rows: DataFrame, beside: str) -> DataFrame:
    """Return the differences of rows as a metric of its own."""
    there = rows[rows["diff"].notna()]
    columns = {"value": "diff", "ci_low": "diff_low", "ci_high": "diff_high"}
    changed = {name: there[column] for name, column in columns.items()}
    if "label" in there:
        changed["label"] = there["label"] + beside
    changed["scale"] = "linear"  # it may be negative
    return there.assign(metric=there["metric"] + beside, **changed)


def _of_links(rows: DataFrame) -> DataFrame:
    """Leave out how well a link without any channel use delivers: perfectly, off every scale."""
    if "judges" not in rows:
        return rows
    trivial = (rows["cbr"] == 0) & (rows["judges"] == "link")
    return rows if trivial.all() else rows[~trivial]


def _reference(path: str, metrics: Sequence[str], rows: DataFrame, x: str) -> DataFrame:
    """Return published values of these metrics, payload and CBRs."""
    import pandas as pd

    from semsim.plots.reference import published

    cbrs = () if x == "cbr" else rows["cbr"].unique()
    found = [
        published(path, payload=str(payload), metric=metric, cbrs=cbrs)
        for metric in metrics
        for payload in rows["payload"].unique()
    ]
    return pd.concat(found).drop_duplicates()


def draw_all(
    folder: Path,
    swept: Sequence[str],
    plots: Sequence[Mapping[str, Any]],
    rows: DataFrame | None = None,
) -> list[Path]:
    """Draw all figures that a scenario asks for, or one per metric; return the files."""
    files: list[Path] = []
    for plot in [Plot(**given) for given in plots] or [Plot()]:
        files += draw(folder, swept, plot, rows, files)
    return files


def check_plot(plot: Any, swept: Mapping[str, Sequence[str]], metrics: Sequence[str]) -> None:
    """Refuse a figure of columns, metrics, closed forms or files that there will not be.

    Args:
        plot: what is asked for, :class:`Plot` or its like.
        swept: columns that the rows will have beside the usual ones, with their labels.
        metrics: names of the metrics in the rows; empty where they are not known yet.
    """
    columns = [*COLUMNS, *swept]
    if plot.difference_to is not None:
        scheme_column(swept, plot.by, plot.difference_to)
    for key in ("x", "by"):
        name = getattr(plot, key)
        if name is not None and name not in columns:
            raise SpecError(key, f"the rows have no column {name!r}; {known(columns, name)}")
    wanted: tuple[str, ...] = (plot.y,) if isinstance(plot.y, str) else plot.y or ()
    if plot.y is not None and not wanted:
        raise SpecError("y", "is empty; name a metric, or several")
    if plot.theory and len(wanted) > 1:
        raise SpecError("theory", "a closed form is of one metric, but y names several")
    for key in ("theory", "published"):
        if getattr(plot, key) and not wanted:
            raise SpecError(key, "is of one metric; name it, such as y: psnr")
    for name in wanted if metrics else ():
        if name not in metrics:
            raise SpecError("y", f"{name!r} is not among the metrics; {known(metrics, name)}")
    _check_theory(plot, wanted)
    if plot.published is not None:
        _check_published(plot, wanted[0])


def _check_theory(plot: Any, wanted: tuple[str, ...]) -> None:
    """Refuse closed forms that cannot be drawn over this axis or beside this metric."""
    if plot.theory and plot.x != "snr_db":
        raise SpecError("theory", f"closed forms are over snr_db, but x is {plot.x!r}")
    for label, form in (plot.theory or {}).items():
        try:
            closed_form(form)([10.0])
        except ValueError as error:
            raise SpecError(f"theory.{label}", str(error)) from error
        except TypeError as error:
            raise SpecError(f"theory.{label}", f"takes numbers, got {form}") from error
        name = form if isinstance(form, str) else str(form["form"])
        if "_ber_" in name and wanted[0] != "ber":
            raise SpecError(
                f"theory.{label}", f"{name} is a bit error rate, but y is {wanted[0]}; write y: ber"
            )


def _check_published(plot: Any, metric: str) -> None:
    """Refuse a file of published values that cannot be read, or says nothing of this axis."""
    from semsim.plots.reference import published

    try:
        table = published(plot.published, payload="", metric=metric)
    except (ValueError, OSError) as error:
        raise SpecError("published", sentence(error)) from error
    if plot.x not in table:
        raise SpecError("published", f"{plot.published} has no column {plot.x!r} for x")


def closed_form(wish: str | Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a closed form of ``semsim.phy.theory`` as a function of many SNRs in dB.

    Args:
        wish: its name, such as ``qam_ber_awgn``, or {form: NAME, ...} with further arguments, such
            as ``{form: qam_ber_rician, k_db: 10, order: 16}``.
    """
    import numpy as np

    from semsim.phy import theory

    forms = {
        name: form
        for name, form in vars(theory).items()
        if inspect.isfunction(form) and "snr_db" in inspect.signature(form).parameters
    }
    arguments = {"form": wish} if isinstance(wish, str) else dict(wish)
    name = arguments.pop("form", None)
    if name not in forms:
        raise ValueError(f"no closed form is called {name!r}; {known(forms, name)}")
    try:
        inspect.signature(forms[name]).bind(snr_db=0.0, **arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}; write {{form: {name}, ...}}") from error
    return lambda snrs: np.array([float(forms[name](snr_db=float(s), **arguments)) for s in snrs])


def _mixed(rows: DataFrame, fixed: Sequence[str | None], columns: Sequence[str]) -> list[str]:
    """Return those of ``columns`` that differ among rows which agree in the fixed ones."""
    groups = rows.groupby([c for c in ("metric", *fixed) if c in rows], dropna=False)
    free = [c for c in columns if c in rows and c not in fixed]
    return [c for c in free if groups[c].nunique(dropna=False).max() > 1]


def _together(rows: DataFrame, columns: Sequence[str]) -> Any:
    """Return one label per row out of several columns; the transmitter where there are none."""
    if not columns:
        return rows["transmitter"]
    words = [_words(rows, column) for column in columns]
    joined = words[0]
    for word in words[1:]:
        joined = joined + ", " + word
    return joined


def _words(rows: DataFrame, column: str) -> Any:
    if column == "snr_db":
        return rows[column].map("{:g} dB".format)
    values = rows[column].map(str)
    return values if column in ("transmitter", "channel") else f"{column.split('.')[-1]} " + values


def file_name(label: str) -> str:
    """Return a label as part of a file's name: letters and digits of it, not too many."""
    return "".join(c if c.isalnum() else "_" for c in label.lower()).strip("_")[:60]


def free_file(path: Path, taken: Sequence[Path]) -> Path:
    """Return this file, or the first one with a number behind its name that is not taken."""
    free, count = path, 1
    while free in taken:
        count += 1
        free = path.with_name(f"{path.stem}_{count}{path.suffix}")
    return free
