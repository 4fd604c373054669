"""Rows to figures. Knows rows and pictures, nothing of links.

Schemes differ in colour and marker; bounds and theory are dashed, published values grey.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semsim.mistakes import known
from semsim.plots.curves import (
    draw_curve,
    draw_faint,
    draw_published,
    draw_theory,
    is_numeric,
    lay_words,
    tell_apart,
)
from semsim.plots.pictures import strip
from semsim.plots.reference import of_panel, published
from semsim.plots.style import (
    COLUMN,
    DIFFERENCE,
    PAGE,
    WORDS,
    is_bound,
    looks,
    plain,
    save,
    style,
    word_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["plot_rows", "published", "strip", "write"]

LINES = 24  #: schemes of a figure that are told apart, at most


def plot_rows(
    rows: DataFrame,
    path: str | Path | Sequence[str | Path] | None = None,
    *,
    x: str = "snr_db",
    y: str | Sequence[str] = "psnr",
    by: str = "transmitter",
    panel: str | None = "channel",
    reference: DataFrame | None = None,
    theory: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Figure:
    """Draw one metric of many rows, with 95 % intervals: a colour per scheme, a panel per channel.

    Args:
        rows: results as ``semsim.results`` reads them.
        path: file to write, or several; the suffix decides the format (.png, .pdf, .svg).
        x: column along the horizontal axis.
        y: metric along the vertical axis; logarithmic where its rows say so. Several are drawn
            side by side, with a row of panels for each value of ``panel``.
        by: column that tells schemes apart.
        panel: column with one panel per value, or None for a single panel. A value that names a
            bound, such as "no link", gets none of its own but lies dashed in all the others.
        reference: published values to lay beneath in grey, as :func:`published` chooses them; a
            panel shows those of its payload and CBRs whose channel has the name of its own, such as
            ``AWGN``.
        theory: curves to lay beneath, dashed: name to a function of x.

    Raises:
        ValueError: the rows have no such column or metric.
    """
    metrics = (y,) if isinstance(y, str) else tuple(y)
    rows = _finite(rows)
    chosen = {metric: _choose(rows, x, metric, by, panel) for metric in metrics}
    shown = rows[rows["metric"].isin(metrics)]  # a metric may lack a scheme, such as no link
    names, bounds = _panels(shown, panel)
    every_look = looks(list(dict.fromkeys(shown[by])))
    named, rest = every_look[:LINES], [label for label, *_ in every_look[LINES:]]
    with style():
        figure, axes = _figure(len(names), len(metrics))
        for ax, (name, metric) in zip(axes, itertools.product(names, metrics), strict=True):
            every = chosen[metric]
            lay_words(ax, shown, x)
            here = every[every[panel] == name] if panel else every
            draw_faint(ax, here[here[by].isin(rest)], x, by)
            for number, look in enumerate(named):
                draw_curve(ax, here[here[by] == look[0]], x, plain(look[0]), look[1:], number)
                for bound in bounds:
                    there = every[(every[panel] == bound) & (every[by] == look[0])]
                    dashed = (look[1], "", (4.0, 2.0))
                    draw_curve(ax, there, x, plain(f"{look[0]}, {bound}"), dashed, number)
            tell_apart(ax)
            draw_theory(ax, theory or {}, here[x])
            draw_published(ax, of_panel(reference, x, here), x)
            ax.set_xlabel(WORDS.get(x, plain(x)))
            if panel and (metric == metrics[0] or len(names) > 1):
                ax.set_title(plain(name), loc="left")
            if x != "cbr" and (cbr := _cbr(here)):
                ax.set_title(cbr, loc="right", fontsize=6.5, color="#555555")
            _say_what_lacks(ax, every, here, by)
            if len(metrics) > 1 or _is_left(ax):
                ax.set_ylabel(_metric_label(every, metric))
        for number, metric in enumerate(metrics):
            _scale(axes[number :: len(metrics)], x, metric, chosen[metric])
        _legend(figure, axes)
        cut = f"; {LINES} of {len(every_look)} schemes are named" if rest else ""
        note = _footnote(shown, x, [by, panel] if panel else [by])
        figure.supxlabel(note + cut, fontsize=6.5, color="#555555")
    write(figure, path)
    return figure


def write(
    figure: Figure, path: str | Path | Sequence[str | Path] | None, title: str | None = None
) -> None:
    """Write a figure of :func:`plot_rows`, below a title where one is given.

    Args:
        figure: what to write.
        path: as for :func:`plot_rows`.
        title: to stand above all, broken where the figure ends.
    """
    from matplotlib.font_manager import FontProperties

    with style():
        if title:
            text = plain(textwrap.fill(title, int(figure.get_figwidth() * 14)))
            figure.legends[0].set_title(text, prop=FontProperties(size=8, weight="bold"))
            lines = text.count("\n") + 1
            figure.set_figheight(figure.get_figheight() + 0.16 * lines)
        for written in (path,) if isinstance(path, str | Path) else path or ():
            save(figure, written)


def _choose(rows: DataFrame, x: str, y: str, by: str, panel: str | None) -> DataFrame:
    for column in (x, by, panel):
        if column is not None and column not in rows:
            raise ValueError(f"the rows have no column {column!r}; {known(rows, column)}")
    chosen = rows[rows["metric"] == y]
    if chosen.empty:
        there = ", ".join(sorted(set(rows["metric"]))) or "none"
        raise ValueError(f"the rows hold no metric {y!r}; there are {there}")
    return chosen


def _finite(rows: DataFrame) -> DataFrame:
    """Return rows with NaN in the place of infinity, which no axis holds."""
    import numpy as np

    there = [name for name in ("value", "ci_low", "ci_high") if name in rows]
    return rows.assign(**rows[there].replace([np.inf, -np.inf], np.nan))


def _panels(rows: DataFrame, panel: str | None) -> tuple[list[Any], list[Any]]:
    """Return the panels, and the bounds: what would be a panel of bounds lies in all others."""
    names = list(dict.fromkeys(rows[panel])) if panel else [""]
    bounds = [name for name in names if is_bound(name)]
    others = [name for name in names if name not in bounds]
    return (others, bounds) if others else (names, [])


def _metric_label(rows: DataFrame, y: str) -> str:
    word, units = word_of(rows, y), [u for u in rows.get("unit", []) if isinstance(u, str) and u]
    return plain(f"{word} ({units[0]})" if units else word)


def _scale(axes: Sequence[Axes], x: str, y: str, rows: DataFrame) -> None:
    """Put ticks at the points that were measured; error rates on a logarithmic axis.

    There, a point without any error and an interval down to zero reach the lower edge.
    """
    from matplotlib.ticker import MaxNLocator

    places = sorted(set(rows[x])) if x == "snr_db" else []
    for ax in axes:
        if ax.get_shared_y_axes().joined(ax, axes[0]) and not _is_left(ax):
            ax.tick_params(axis="y", which="both", length=0)
        if DIFFERENCE in y:
            ax.axhline(0, color="#444444", linewidth=0.8, zorder=1.5)
        if 0 < len(places) <= 9:
            ax.set_xticks(places, [f"{place:g}" for place in places])
        if "log" in set(rows.get("scale", ())) and (rows["value"] > 0).any():
            ax.set_yscale("log", nonpositive="clip")
            ax.set_ylim(bottom=rows["value"][rows["value"] > 0].min() / 3)
        else:
            ax.yaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10]))
            ax.set_ylim(*_reach(axes, rows))


def _reach(axes: Sequence[Axes], rows: DataFrame) -> tuple[float, float]:
    """Return where an axis begins and ends: values rule it, intervals may reach beyond."""
    import numpy as np

    drawn = [np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.lines]
    values = np.concatenate(drawn)
    if np.isnan(values).all():  # such as a recall where no item is of its class
        return 0.0, 1.0
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.2 * (high - low) or 1.05 * max(float((rows["ci_high"] - rows["ci_low"]).max()), 1e-6)
    bottom = max(float(np.nanmin([rows["ci_low"].min(), low])), low - room)
    top = min(float(np.nanmax([rows["ci_high"].max(), high])), high + room)
    margin = 0.04 * (top - bottom) or 0.5
    return bottom - margin, top + margin


def _is_left(ax: Axes) -> bool:
    place = ax.get_subplotspec()
    return place is not None and place.is_first_col()


def _footnote(rows: DataFrame, x: str, apart: list[str]) -> str:
    """Say what makes the comparison fair: interval, items and channel uses."""
    is_line = is_numeric(rows, x) and rows.groupby(apart)[x].nunique().max() > 1
    shown = "bands" if is_line else "bars"
    notes = [f"{shown}: 95 % intervals{_over(rows)}"]
    if "n" in rows:
        low, high = int(rows["n"].min()), int(rows["n"].max())
        notes.append(
            f"{low} items per point" if low == high else f"{low} to {high} items per point"
        )
        if "few_items" in rows and rows["few_items"].any():
            notes.append("few items")
    return "; ".join(notes)


def _cbr(rows: DataFrame) -> str:
    """Return the CBR of a panel, or the lowest and the highest."""
    if "cbr" not in rows or rows.empty:
        return ""
    cbr = rows["cbr"][rows["cbr"] > 0] if (rows["cbr"] > 0).any() else rows["cbr"]
    low, high = cbr.min(), cbr.max()
    return f"CBR {_fraction(low)}" if high <= low * 1.005 else f"CBR {low:.3g} to {high:.3g}"


def _say_what_lacks(ax: Axes, every: DataFrame, here: DataFrame, by: str) -> None:
    """Name the schemes that other panels have and this one has not."""
    there = set(here[by])
    lacking = [str(label) for label in dict.fromkeys(every[by]) if label not in there]
    if lacking and len(lacking) <= 4:
        words = plain("not run here: " + ", ".join(lacking))
        ax.text(0.02, 0.02, words, transform=ax.transAxes, fontsize=6, color="#555555")


def _over(rows: DataFrame) -> str:
    """Say where intervals are over trainings and not over items."""
    if "interval" not in rows or not (rows["interval"] == "trainings").any():
        return ""
    return f" over {int(rows['trainings'].max())} trainings"


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(64)
    return str(near) if value and abs(float(near) / value - 1) < 0.005 else f"{value:.3g}"


def _figure(panels: int, metrics: int) -> tuple[Figure, list[Axes]]:
    """Return axes row by row: panels in up to three columns, or a column for each metric."""
    from matplotlib.figure import Figure

    columns = metrics if metrics > 1 else min(panels, 3)
    rows = -(-panels * metrics // columns)
    size = (COLUMN * 1.25 if columns == 1 else PAGE, 0.6 + 2.25 * rows)
    figure = Figure(figsize=size, layout="constrained")
    shared: Literal["col", "all"] = "col" if metrics > 1 else "all"
    grid = figure.subplots(rows, columns, sharey=shared, squeeze=False)
    axes = list(grid.flat)
    for ax in axes[panels * metrics :]:
        ax.remove()
    return figure, axes[: panels * metrics]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend for all panels above them."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, getattr(handle, "lines", [handle])[0])
    entries = dict(sorted(entries.items(), key=lambda entry: -entry[1].get_zorder()))
    width = figure.get_figwidth()
    longest = max(len(label) for label in entries)
    columns = max(1, min(len(entries), int(width * 15 / (longest + 6))))
    figure.set_figheight(figure.get_figheight() + 0.155 * -(-len(entries) // columns))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper center",
        ncols=columns,
        frameon=False,
    )
