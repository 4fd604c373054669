"""What figures and tables show of many links: how many at most, and which bound a curve is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

LINKS = 200  #: of a table, at most; more help nobody


def name_bounds(rows: DataFrame) -> DataFrame:
    """Return rows whose bounds say in ``transmitter`` which they are, from the column ``bound``.

    One name for all rows of a scheme where they agree; a channel that is the same in every draw
    agrees with any.
    """
    if "bound" not in rows or "transmitter" not in rows:
        return rows
    rows = rows.reset_index(drop=True)
    words = rows["bound"].map(_short, na_action="ignore")
    labels = rows["transmitter"].copy()
    for scheme, said in words.groupby(rows["transmitter"], sort=False):
        names = said.dropna()
        telling = [name for name in names.unique() if not re.match(r"capacity($|,)", name)]
        if len(telling) == 1:
            labels[said.index] = f"{scheme}: {telling[0]}"
        elif telling:
            labels[names.index] = [f"{scheme}: {name}" for name in names]
    return rows.assign(transmitter=labels)


def cbr_of(link: DataFrame) -> str:
    """Return the CBR of a link, or the lowest and the highest, as where hybrid ARQ stops early."""
    low, high = link["cbr"].min(), link["cbr"].max()
    return f"{link['cbr'].mean():.4g}" if high <= low * 1.005 else f"{low:.4g} to {high:.4g}"


def first_links(rows: DataFrame, columns: list[str]) -> tuple[list[tuple[Any, DataFrame]], str]:
    """Return the rows of each link, of LINKS at most, and a sentence where that is not all.

    Args:
        rows: of one metric.
        columns: that tell links apart.
    """
    groups = rows.groupby(columns, sort=False, dropna=False)
    first = rows[groups.ngroup() < LINKS].groupby(columns, sort=False, dropna=False)
    cut = f"The first {LINKS} of {groups.ngroups} links." if groups.ngroups > LINKS else ""
    return list(first), cut


def _short(bound: str) -> str:
    """Return the words without what stands in brackets."""
    return re.sub(r" \([^)]*\)", "", str(bound))
