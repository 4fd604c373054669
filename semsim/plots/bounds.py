"""Which bound a curve is, in the words that figures and tables show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


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


def _short(bound: str) -> str:
    """Return the words without what stands in brackets."""
    return re.sub(r" \([^)]*\)", "", str(bound))
