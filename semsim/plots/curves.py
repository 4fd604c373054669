"""What lies within one panel: curves with their intervals, theory, published values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from semsim.plots.style import MARKERS, Dashes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

MOST_LETTERS = 40  #: of all words along an axis, before they are turned


def draw_curve(
    ax: Axes, rows: DataFrame, x: str, label: str, look: tuple[str, str, Dashes], number: int
) -> None:
    """Draw a scheme: a line with a band for its intervals, or markers with bars, side by side.

    No line joins words, between which there is nothing.
    """
    if rows.empty:
        return
    rows = rows.iloc[_places(ax, rows, x).argsort(kind="stable")]
    colour, marker, dashes = look
    low, high = rows["ci_low"].clip(upper=rows["value"]), rows["ci_high"].clip(lower=rows["value"])
    style: dict[str, Any] = {
        "label": label, "color": colour, "marker": marker,
        "linestyle": (0, dashes) if dashes else "-",
        "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 2 if dashes else 3,
    }  # fmt: skip
    if is_numeric(rows, x) and len(rows) > 1:
        ax.plot(rows[x], rows["value"], **style)
        if not dashes:  # a bound's band would grey the schemes beneath it
            ax.fill_between(rows[x], low, high, color=colour, alpha=0.1, linewidth=0, zorder=1.2)
        return
    along = rows[x] if is_numeric(rows, x) else rows[x].map(str)
    style["linestyle"] = "none"
    if dashes:
        short = {"marker": "_", "markersize": 14, "markeredgecolor": colour, "markeredgewidth": 1.3}
        ax.plot(along, rows["value"], **{**style, **short})
        return
    from matplotlib.transforms import ScaledTranslation

    is_exact = is_numeric(rows, x) and x != "snr_db"  # along which schemes may differ by a little
    aside = ScaledTranslation(
        0 if is_exact else (number % 7 - 3) * 3 / 72, 0, ax.figure.dpi_scale_trans
    )
    errors = [rows["value"] - low, high - rows["value"]]
    ax.errorbar(
        along, rows["value"], yerr=errors,
        elinewidth=0.8, capsize=2, transform=ax.transData + aside, **style,
    )  # fmt: skip
    if is_numeric(rows, x):
        ax.update_datalim([(rows[x].iloc[0], rows["value"].iloc[0])])  # which what is moved has not
        ax.autoscale_view()


def draw_faint(ax: Axes, rows: DataFrame, x: str, by: str) -> None:
    """Draw more schemes than can be told apart as thin lines, or strokes, without names."""
    import numpy as np

    style: dict[str, Any] = {"color": "#cccccc", "linewidth": 0.5, "zorder": 1}
    if rows.empty:
        return
    if not is_numeric(rows, x):
        style |= {"linestyle": "none", "marker": "_"}
        ax.plot([*rows[x].map(str)], [*rows["value"]], **style)
        return
    schemes = rows[by].factorize()[0]
    order = np.lexsort((rows[x], schemes))
    ends = np.flatnonzero(np.diff(schemes[order], append=-1)) + 1
    along, value = (rows[name].to_numpy(float)[order] for name in (x, "value"))
    ax.plot(np.insert(along, ends, np.nan), np.insert(value, ends, np.nan), **style)


def draw_theory(ax: Axes, curves: Mapping[str, Callable[[Any], Any]], x: Any) -> None:
    """Draw functions of x, dashed, from the least of its values to the largest."""
    import numpy as np

    x = x[np.isfinite(x)] if curves else x[:0]  # a link may be without noise
    if x.empty:
        return
    grid = np.linspace(x.min(), x.max(), 200)
    for number, (label, curve) in enumerate(curves.items()):
        style = [(4, 2), (1, 1.5), (6, 2, 1, 2)][number % 3]
        ax.plot(
            grid, curve(grid), color="#444444", linestyle=(0, style), label=plain(label), zorder=1.5
        )


def draw_published(ax: Axes, values: DataFrame | None, x: str) -> None:
    """Draw published values as grey markers."""
    if values is None:
        return
    for system, rows in values.groupby("system", sort=False):
        ax.plot(
            rows[x],
            rows["value"],
            linestyle="none",
            marker=rows["marker"].iloc[0],
            markerfacecolor="none",
            color="#808080",
            markeredgewidth=0.9,
            label=plain(f"{system} (published)"),
            zorder=1,
        )


def tell_apart(ax: Axes) -> None:
    """Dash a curve that runs within 1 % of the panel's height of an earlier one, so both show."""
    import numpy as np

    curves = [line for line in ax.lines if line.get_marker() in tuple(MARKERS)]  # not caps of bars
    values = [np.asarray(line.get_ydata(), dtype=float) for line in curves]
    if not values:
        return
    height = max(v.max() for v in values) - min(v.min() for v in values)
    for later, line in enumerate(curves):
        for before in values[:later]:
            alike = before.shape == values[later].shape
            if alike and height and np.abs(before - values[later]).max() < 0.01 * height:
                if line.get_linestyle() != "None":
                    line.set_linestyle((0, (3, 3)))
                line.set_markersize(line.get_markersize() + 2)
                line.set_markerfacecolor("none")
                line.set_markeredgecolor(line.get_color())
                break


def lay_words(ax: Axes, rows: DataFrame, x: str) -> None:
    """Give each word along the axis its place, in the order of the rows, the same in all panels."""
    if is_numeric(rows, x):
        return
    words = list(dict.fromkeys(rows[x].map(str)))
    ax.xaxis.update_units(words)
    ax.set_xticks(range(len(words)), [plain(word) for word in words])
    if sum(map(len, words)) > MOST_LETTERS:
        ax.tick_params("x", labelrotation=20)
    ax.set_xlim(-0.5, len(words) - 0.5)


def _places(ax: Axes, rows: DataFrame, x: str) -> Any:
    """Return where rows lie along the axis, as an array: the number itself, or the word's place."""
    import numpy as np

    return np.asarray(rows[x] if is_numeric(rows, x) else ax.convert_xunits(rows[x].map(str)))


def is_numeric(rows: DataFrame, x: str) -> bool:
    """Tell whether a column holds numbers, not words."""
    from pandas.api.types import is_numeric_dtype

    return bool(is_numeric_dtype(rows[x]))
