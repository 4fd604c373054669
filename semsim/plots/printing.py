"""Results on a terminal: one table per metric, a line per link, a column per SNR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from semsim.comparison.differences import TRAINING, over_trainings
from semsim.intervals import FEW, interval_note, with_reach
from semsim.plots.bounds import cbr_of, first_links, name_bounds

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console
    from rich.table import Table

    from semsim.comparison.compare import Comparison

VALUE = ("value", "ci_low", "ci_high")
DIFF = ("diff", "diff_low", "diff_high")
POINT = ("snr_db", "cbr", "n", "a", "b", *DIFF, "gain", "gain_low", "gain_high")
DELTA = ("delta", "unit", "over", "value", "low", "high", "n")
DELTA_WORDS = {
    "difference": "Bjontegaard, mean difference",
    "snr gain": "Bjontegaard, mean SNR gain at equal quality",
    "channel uses": "Bjontegaard, channel uses at equal quality",
}


def console() -> Console:
    """Return where tables go; labels are shown as they are, without markup."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    return Console(width=width, markup=False, emoji=False, highlight=False)


def new_table(title: str, columns: Sequence[str], narrow: Sequence[str] = ()) -> Table:
    """Return an empty table; columns in ``narrow`` are never wrapped."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (*columns, *narrow):
        table.add_column(name, no_wrap=name in narrow)
    return table


def print_results(rows: DataFrame, swept: Sequence[str]) -> None:
    """Print values per metric and, where there are any, paired differences beneath."""
    out = console()
    rows = name_bounds(over_trainings(rows, swept))
    columns = [c for c in swept if c in rows and c != TRAINING] or ["transmitter"]
    for metric, of_metric in rows.groupby("metric", sort=False):
        unit = of_metric["unit"].iloc[0]
        title = f"{metric} ({unit})" if unit else str(metric)
        out.print(_pivot(of_metric, columns, title, VALUE))
        if "diff" in of_metric and of_metric["diff"].notna().any():
            differing = of_metric[of_metric["diff"].notna()]
            to = differing["difference_to"].iloc[0]
            out.print(_pivot(differing, columns, f"{title} minus that of {to}, paired", DIFF))
    out.print(interval_note(over(rows)))
    if "few_items" in rows and rows["few_items"].fillna(False).any():
        out.print(f"Few items: fewer than {FEW} at some points, so intervals are wide.")


def over(rows: DataFrame) -> str:
    """Say over what the intervals are: items, trainings, or both in different rows."""
    if "interval" not in rows or not (rows["interval"] == "trainings").any():
        return "items"
    count = int(rows["trainings"].max())
    mixed = (rows["interval"] == "items").any()
    return f"{count} trainings" + (
        ", over items where no training changes the link" if mixed else ""
    )


def _pivot(rows: DataFrame, columns: list[str], title: str, names: Sequence[str]) -> Table:
    snrs = sorted(rows["snr_db"].unique())
    table = new_table(title, columns, ["CBR", *(f"{snr:g} dB" for snr in snrs)])
    links, table.caption = first_links(rows, columns)
    for key, link in links:
        cells = [_cell(link[link["snr_db"] == snr], names) for snr in snrs]
        table.add_row(*map(str, key), cbr_of(link), *cells)
    return table


def _cell(row: DataFrame, names: Sequence[str]) -> str:
    if row.empty:
        return ""
    return with_reach(*(float(row[name].iloc[0]) for name in names), signed=names is DIFF)


def print_comparison(found: Comparison) -> None:
    """Print what sets two schemes apart: per SNR, and on average over a range."""
    out = console()
    unit = f" ({found.unit})" if found.unit else ""
    title = f"{found.metric}{unit}: {found.a} against {found.b}; {found.better} is better"
    if found.points:
        conditions = [c for c in found.points[0] if c not in POINT]
        names = ["SNR", found.a, found.b, "difference", "95 % interval", "SNR gain", found.over]
        table = new_table(title, conditions, names)
        for p in found.points:
            gain = with_reach(p["gain"], p["gain_low"], p["gain_high"], signed=True)
            table.add_row(
                *(str(p[c]) for c in conditions), f"{p['snr_db']:g} dB", f"{p['a']:.4g}",
                f"{p['b']:.4g}", "" if isnan(p["diff"]) else f"{p['diff']:+.4g}",
                "" if isnan(p["diff_low"]) else f"{p['diff_low']:+.3g} to {p['diff_high']:+.3g}",
                "" if isnan(p["gain"]) else f"{gain} dB", str(p["n"]),
            )  # fmt: skip
        out.print(table)
    if found.left_out:
        out.print(
            f"{found.left_out} points at unequal channel uses are not compared one by one, but as "
            "curves over channel uses:"
        )
    for d in found.deltas:
        where = ", ".join(f"{c} {d[c]}" for c in d if c not in DELTA)
        out.print(f"{DELTA_WORDS[d['delta']]}{f' at {where}' if where else ''}: {_delta(d)}")


def print_comparisons(found: Sequence[Comparison]) -> None:
    """Print one comparison after another, and once what the words mean."""
    for comparison in found:
        print_comparison(comparison)
    console().print(
        "Differences are paired: both schemes met the same items. SNR gain: how much less SNR the "
        "first needs for the quality that the second has there."
    )


def _delta(d: dict[str, Any]) -> str:
    if isnan(d["value"]):
        return "none; the curves have no quality in common"
    interval = "" if isnan(d["low"]) else f" ({d['low']:+.3g} to {d['high']:+.3g})"
    return f"{d['value']:+.4g} {d['unit']}".rstrip() + f"{interval}, over {d['over']}"
