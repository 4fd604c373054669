"""Results folders with known curves, for tests of what is made of them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semsim.files.disk import seal
from semsim.items import ItemLog
from semsim.results import frame, write_rows

ITEMS = 20
PLAN = {"seed": 0, "batch_size": 8, "max_items": ITEMS}
Curve = Callable[[float, float, int], float]  # SNR in dB, CBR and training to quality


def make_folder(
    folder: Path,
    schemes: dict[str, Curve],
    *,
    snrs: Sequence[float] = (0.0, 5.0, 10.0, 15.0),
    cbrs: Sequence[float] = (1 / 16,),
    trainings: Sequence[int] = (0,),
    noise: float = 0.0,
    plan: dict[str, Any] | None = None,
    sources: int = 100,
    about: dict[str, Any] | None = None,
    metric: str = "psnr",
    **columns: Any,
) -> Path:
    """Write a folder in which each item's metric is a curve plus what the item is worth."""
    swept = ["transmitter"]
    swept += ["transmitter.cbr"] if len(cbrs) > 1 else []
    swept += ["train.seed"] if len(trainings) > 1 else []
    rows = []
    for (name, curve), snr, cbr, seed in itertools.product(schemes.items(), snrs, cbrs, trainings):
        uid = f"{zlib.crc32(f'{name} {snr} {cbr} {seed}'.encode()):08x}"
        rng = np.random.default_rng(zlib.crc32(uid.encode()))
        of_item = np.random.default_rng(0).normal(0, 4, ITEMS)
        values = curve(snr, cbr, seed) + of_item - of_item.mean() + rng.normal(0, noise, ITEMS)
        log = ItemLog(folder, uid, [metric])
        log.add(np.array([np.arange(ITEMS), np.arange(ITEMS) + sources]), values[None])
        log.finish({"plan": {**PLAN, **(plan or {})}, "means": [metric], **(about or {})})
        log.drop()
        half = 2 * values.std() / ITEMS**0.5
        row = {"transmitter": name, "channel": "awgn", "snr_db": snr, "metric": metric, "uid": uid}
        row |= {"value": values.mean(), "ci_low": values.mean() - half, "interval": "items"}
        row |= {"ci_high": values.mean() + half, "n": ITEMS, "cbr": cbr, "power": 1.0, "unit": "dB"}
        row |= {"better": "higher", "transmitter.cbr": f"{cbr:.4g}", "train.seed": seed}
        rows.append(row | columns)
    table = frame(rows).drop(
        columns=[c for c in ("transmitter.cbr", "train.seed") if c not in swept]
    )
    write_rows(folder, table)
    (folder / "provenance.json").write_text(seal({"swept": swept}))
    return folder
