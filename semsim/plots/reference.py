"""Published values to lay beneath measured ones: how they are read, and which belong to a panel."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from semsim.files.incoming import check_regular, reading
from semsim.plots.style import GREY_MARKERS

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = ("system", "payload", "channel", "cbr", "snr_db", "metric", "value")


def published(
    path: str | Path, *, payload: str, metric: str = "psnr", cbrs: Collection[float] = ()
) -> DataFrame:
    """Read published values for a figure; ``benchmarks/published.csv`` holds some.

    Args:
        path: the CSV file, on this machine.
        payload: data set, such as ``kodak``; a row's payload may say more, such as ``kodak24``.
        metric: what was measured.
        cbrs: keep values whose CBR is within 3 % of one of these; all where empty.
    """
    import pandas as pd

    check_regular(Path(path), "a CSV file of this machine")
    with reading(path, "CSV", f"it needs the columns {', '.join(PUBLISHED)}"):
        # as it is: an address would be fetched, and a packed file unfolded
        with Path(path).open(encoding="utf-8") as file:
            table = pd.read_csv(file, comment="#")
        table = table.astype({c: str for c in ("payload", "channel") if c in table})
    missing = [name for name in PUBLISHED if name not in table]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; it needs {', '.join(PUBLISHED)}")
    for name in ("cbr", "snr_db", "value"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        words = table[name][numbers.isna() & table[name].notna()]
        if len(words):
            raise ValueError(
                f"{path} holds {words.iloc[0]!r} in column {name}, which is no number; write it "
                "like 0.0625"
            )
        table[name] = numbers
    keep = table["payload"].map(payload.lower().startswith) & (table["metric"] == metric)
    if len(cbrs):
        keep &= table["cbr"].map(lambda value: any(map(partial(_near, value), cbrs)))
    return table[keep]


def _near(cbr: float, other: float) -> bool:
    """Tell whether two CBRs are the same within 3 %."""
    return abs(cbr - other) < 0.03 * other


def of_panel(reference: DataFrame | None, x: str, rows: DataFrame) -> DataFrame | None:
    """Choose the published values of the panel's metric, payload, CBRs and channels by name."""
    if reference is None:
        return None
    systems = list(dict.fromkeys(reference["system"]))  # one marker per system in all panels
    markers = {system: GREY_MARKERS[i % len(GREY_MARKERS)] for i, system in enumerate(systems)}
    reference = reference.assign(marker=reference["system"].map(markers))
    keep = reference["metric"].isin(rows["metric"]) & reference[x].notna()
    if "channel" in rows:
        keep &= reference["channel"].str.lower().isin({str(c).lower() for c in rows["channel"]})
    if "payload" in rows:
        payloads = {str(payload).lower() for payload in rows["payload"]}
        keep &= reference["payload"].map(lambda name: any(p.startswith(name) for p in payloads))
    if x != "cbr" and "cbr" in rows:
        cbrs = rows["cbr"].unique()
        keep &= reference["cbr"].map(lambda value: any(map(partial(_near, value), cbrs)))
    return reference[keep]
