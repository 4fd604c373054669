"""Rows on disk: tidy tables, a journal that survives kill -9, and where the numbers come from."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.evaluation import Row
from semsim.files.disk import (
    SUMS,
    Damaged,
    damaged_files,
    log,
    read_sums,
    replacing,
    seal,
    set_aside,
    unseal,
    write_atomic,
    write_sums,
)
from semsim.files.incoming import reading

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    "scenario", "transmitter", "channel", "payload", "snr_db", "metric", "value", "ci_low",
    "ci_high", "n", "cbr", "power", "seed", "seconds", "unit", "better", "frontend", "csi_rx",
    "csi_tx",
)  # fmt: skip
ROWS = 2_000  #: rows that are in memory one by one, of 3 kB each
FORMULA = ("=", "+", "-", "@", "\t", "\r")
WRITTEN = ("rows.parquet", "rows.csv", "provenance.json", "scenario.yaml")
PACKAGES = ("torch", "sionna-no-rt", "sionna", "numpy", "pillow", "pillow-heif")


class Journal:
    """Finished rows and checkpoints of a results folder.

        journal/rows.jsonl        {"checksum": ..., "uid": ..., "rows": [...]}, a line per SNR
                                  point, with "trained" where its weights are of a training
        journal/<uid>.part.json   what an interrupted link has accumulated so far

    Each point costs the same however many there are. Only places in the file are kept in memory.
    A line that a crash cut short is overwritten by the next one; one whose checksum does not fit
    counts as missing, and :meth:`mend` puts it aside.

    Args:
        folder: the results folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "journal"
        self.path = self.folder / "rows.jsonl"
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._trained: dict[str, str] = {}
        self._damaged: list[tuple[int, int]] = []
        self._is_torn = False
        self._read()

    def clear(self) -> None:
        """Forget everything."""
        for kind in ("*.json", "*.jsonl", "*.items"):
            for path in self.folder.glob(kind):
                path.unlink()
        self._end, self._places, self._trained, self._damaged = 0, {}, {}, []

    def mend(self) -> None:
        """Move damaged lines into a file beside the journal, and say so; nobody else may write."""
        if self._is_torn:
            log.warning("%s ends within a line; its point is computed again", self.path)
        if not self._damaged:
            return
        content, places = self.path.read_bytes()[: self._end], self._damaged
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with open(aside, "ab") as file:
            file.writelines(content[start : start + length] for start, length in places)
        for start, length in reversed(places):
            content = content[:start] + content[start + length :]
        write_atomic(self.path, content)
        log.warning(
            "%s has %d damaged line(s); kept in %s, and their points are computed again",
            self.path, len(places), aside.name,
        )  # fmt: skip
        self._end, self._places, self._trained, self._damaged = 0, {}, {}, []
        self._read()

    def __contains__(self, uid: object) -> bool:
        return uid in self._places

    def finished(self, uid: str) -> list[Row] | None:
        """Return the rows of a finished point; None where it is not finished."""
        if uid not in self._places:
            return None
        start, length = self._places[uid]
        with open(self.path, "rb") as file:
            file.seek(start)
            return unseal(file.read(length)[:-1])["rows"]  # type: ignore[no-any-return]

    def trained(self, uid: str) -> str | None:
        """Return the hash of the trained weights that a point was measured with; None for none."""
        return self._trained.get(uid)

    def forget(self, uids: Iterable[str]) -> int:
        """Count finished points as missing until they are finished anew; return how many."""
        return sum(self._places.pop(uid, None) is not None for uid in uids)

    def finish(self, points: Mapping[str, list[Row]], trained: str | None = None) -> None:
        """Keep the rows of points, by their uid, and what they were measured with, if trained."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = {} if trained is None else {"trained": trained}
        lines = {
            uid: seal({"uid": uid, "rows": rows, **beside}).encode() + b"\n"
            for uid, rows in points.items()
        }
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(b"".join(lines.values()))
            file.flush()
            os.fsync(file.fileno())
        for uid, line in lines.items():
            self._note(uid, (self._end, len(line)), trained)
            self._end += len(line)

    def checkpoint(self, uid: str) -> dict[str, Any]:
        """Return what an interrupted link left behind; empty where there is nothing."""
        path = self.folder / f"{uid}.part.json"
        try:
            return _unsealed(path)
        except Damaged as error:
            set_aside(path, error)
            return {}

    def save_checkpoint(self, uid: str, state: dict[str, Any]) -> None:
        """Keep what a link has accumulated so far."""
        write_atomic(self.folder / f"{uid}.part.json", seal(state))

    def drop_checkpoint(self, uid: str) -> None:
        """Forget what a link had accumulated."""
        (self.folder / f"{uid}.part.json").unlink(missing_ok=True)

    def _read(self) -> None:
        """Note where each point lies; the last line of a point counts."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self._is_torn = True
                    continue
                place = self._end, len(line)
                try:
                    record = unseal(line[:-1])
                    self._note(record["uid"], place, record.get("trained"))
                except Damaged:
                    self._damaged.append(place)
                self._end += len(line)

    def _note(self, uid: str, place: tuple[int, int], trained: str | None) -> None:
        self._places[uid] = place
        if trained is None:
            self._trained.pop(uid, None)
        else:
            self._trained[uid] = sys.intern(trained)  # all points of a training share it


def frame(rows: Iterable[Row]) -> DataFrame:
    """Return rows as a table: the standard columns first, swept values and the rest after them."""
    import pandas as pd

    rows, parts = iter(rows), list[pd.DataFrame]()
    while part := list(islice(rows, ROWS)):  # as a table rows take a tenth of the memory
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True).infer_objects() if parts else pd.DataFrame()
    first = [name for name in COLUMNS if name in table]
    table = table[[*first, *(name for name in table if name not in first)]]
    for name in filter(lambda name: pd.api.types.is_object_dtype(table[name]), table):
        if table[name].dropna().map(type).nunique() > 1:
            table[name] = table[name].map(str, na_action="ignore")  # Parquet wants one type
    return table


def write_rows(folder: Path, table: DataFrame) -> None:
    """Write ``rows.parquet`` and ``rows.csv``, and the sums of what the folder holds."""
    with replacing(folder / "rows.parquet") as partial:
        table.to_parquet(partial, index=False)
    with replacing(folder / "rows.csv") as partial:
        no_formulas(table).to_csv(partial, index=False)
    write_sums(folder, WRITTEN)


def no_formulas(table: DataFrame) -> DataFrame:
    """Put an apostrophe before text that a spreadsheet would take for a formula and run."""
    words = table.select_dtypes(exclude="number")
    safe = words.map(lambda v: f"'{v}" if isinstance(v, str) and v[:1] in FORMULA else v)
    return table.assign(**safe)


def read_rows(folder: str | Path) -> DataFrame:
    """Return the rows that ``semsim run`` wrote into a folder: those of its latest scenario."""
    import pandas as pd

    path = Path(folder) / "rows.parquet"
    if not path.is_file():
        raise ValueError(f"{folder} holds no rows.parquet; give a folder that `semsim run` wrote")
    if path.name in read_sums(path.parent) and damaged_files(path.parent, [path.name]):
        raise ValueError(
            f"{path} is not the file whose sum is in {SUMS}: it is damaged, or a run was killed as "
            f"it wrote. Run the scenario again; delete {SUMS} if you changed the rows yourself"
        )
    with reading(path, "Parquet", "run the scenario again, which writes it anew"):
        return pd.read_parquet(path)


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """Return where the rows of a results folder come from; empty where nothing says so."""
    path = Path(folder) / "provenance.json"
    if Path(folder).is_file():
        raise ValueError(f"{folder} is a file; give a folder that `semsim run` wrote")
    try:
        return _unsealed(path)
    except Damaged as error:
        raise ValueError(
            f"{path} is damaged: {error}; run the scenario again, which writes it anew"
        ) from error


def read_swept(folder: str | Path) -> list[str]:
    """Return the columns that tell the links of a results folder apart."""
    record = read_provenance(folder)
    if not record:
        raise ValueError(
            f"{folder} holds no provenance.json, which says what tells its links apart; copy the "
            "whole folder, or run its scenario again"
        )
    return list(record.get("swept", []))


def provenance(text: str, uids: list[str], weights: dict[str, str], device: str) -> dict[str, Any]:
    """Return where numbers come from: versions, hashes, machine, command and time."""
    import torch

    import semsim

    return {
        "semsim": semsim.__version__,
        "git": _git_commit(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "scenario_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "weights_sha256": weights,
        "device": device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})",
        "cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "command": " ".join(["semsim", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "uids": uids,
    }


def _git_commit() -> str | None:
    """Return the commit of semsim's own source tree, "-dirty" where it was changed, or None."""
    here = Path(__file__).parents[1]
    if not (here / ".git").exists():
        return None  # installed: a repository further up is the user's and not semsim's
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _unsealed(path: Path) -> dict[str, Any]:
    """Return the record in a sealed file; empty where there is no file."""
    try:
        return unseal(path.read_bytes())
    except FileNotFoundError:
        return {}
