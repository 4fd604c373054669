"""A sweep in shards that know nothing of each other, such as the jobs of a Slurm array.

    FOLDER/shards/3-of-40/     what shard 3 of 40 has measured, a results folder of its own
    FOLDER/                    all of it, once it is merged

A shard takes every fortieth of the SNR points, in the order of the scenario.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semsim.files.disk import Damaged, locked, replacing, seal, set_aside, unseal, write_atomic
from semsim.items import is_damaged, items_path, set_items_aside
from semsim.mistakes import SpecError
from semsim.results import Journal, read_provenance
from semsim.scenario.points import Point, Points
from semsim.sweep.plan import Planned
from semsim.sweep.trained import forget_others

RECORDS = "shards.json"  #: beside the journal: what made the rows that came from shards


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a sweep, counted from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text such as ``3/40``."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.count:
            raise SpecError(
                "", f"--shard is NUMBER/COUNT with 1 <= NUMBER <= COUNT, such as 3/40, got {text!r}"
            )
        return shard

    def folder(self, whole: Path) -> Path:
        """Return where it writes, below the folder of the whole sweep."""
        return whole / "shards" / f"{self.number}-of-{self.count}"

    def of(self, points: Sequence[Point]) -> Points:
        """Return its points, links with the SNRs that are its own."""
        found, place = list[tuple[int, slice]](), 0
        for index, point in enumerate(points):
            count = len(point.scenario.snr_db)
            first = (self.number - 1 - place) % self.count
            if first < count:
                found.append((index, slice(first, None, self.count)))
            place += count

        def cut(key: tuple[int, slice]) -> Point:
            point = points[key[0]]
            own = point.scenario.snr_db[key[1]]
            return Point(point.scenario.model_copy(update={"snr_db": own}), point.swept)

        return Points(cut, found)


def merge_shards(points: Sequence[Planned], folder: Path) -> int:
    """Take what the shards below a folder have measured into it; return how many points that were.

    Raises:
        SpecError: some points are in no shard; nothing is taken then.
    """
    places = sorted(path for path in (folder / "shards").glob("*-of-*") if path.is_dir())
    if not places:
        raise SpecError("", f"{folder} has no shards; run them first: semsim run FILE --shard 1/2")
    with locked(folder):
        journal, shards = Journal(folder), {place: Journal(place) for place in places}
        others = set[str]()
        for held in (journal, *shards.values()):
            others |= forget_others(held, points, folder, partly=True)
        found: dict[str, Path] = {}
        missing: dict[str, str] = {}
        for uid, name in _named(points):
            if _holds(journal, folder, uid):
                continue
            holder = next((p for p in places if _holds(shards[p], p, uid)), None)
            if holder is None:
                missing[uid] = name
            else:
                found[uid] = holder
        if missing:
            raise _missing(missing, others, folder, places)
        taken = {place.name: _record(place) for place in places if place in found.values()}
        if taken:  # before the rows, so that a merge that is stopped leaves none without it
            records = seal({**shard_records(folder), **taken})
            write_atomic(folder / "journal" / RECORDS, records)
        set_items_aside(folder, found)
        for uid, place in found.items():
            target = items_path(folder, uid)
            with replacing(target) as partial:
                shutil.copyfile(items_path(place, uid), partial)
            held = shards[place]
            journal.finish({uid: held.finished(uid) or []}, held.trained(uid))
    return len(found)


def shard_records(folder: Path) -> dict[str, Any]:
    """Return what made the rows of each shard that was merged into a folder, by its name."""
    path = folder / "journal" / RECORDS
    try:
        return unseal(path.read_bytes())
    except FileNotFoundError:
        return {}
    except Damaged as error:
        set_aside(path, str(error), then="shards that are merged again are noted again")
        return {}


def _record(place: Path) -> dict[str, Any]:
    return {k: v for k, v in read_provenance(place).items() if k not in ("uids", "swept", "plots")}


def _holds(journal: Journal, place: Path, uid: str) -> bool:
    return uid in journal and items_path(place, uid).is_file() and not is_damaged(place, uid)


def _named(points: Sequence[Planned]) -> Iterator[tuple[str, str]]:
    """Yield the uid of every point, and what to call it."""
    return (
        (uid, f"{point.name} at {snr:g} dB")
        for point in points
        for snr in point.snr_db
        for uid in point.uids(snr)
    )


def _missing(
    missing: dict[str, str], others: set[str], folder: Path, places: list[Path]
) -> SpecError:
    """Return what says that points are in no shard, and why those are not that were measured."""
    first, count = next(iter(missing.values())), len(others & missing.keys())
    which, whose = "", ", or whose items are damaged"
    if count:
        which = (
            f", of which {count} were measured with other weights than {folder} holds, or by a "
            "version that did not note them"
        )
        whose = ", whose items are damaged, or that measured with such weights"
    return SpecError(
        "", f"{len(missing)} points are in no shard below {folder}, such as {first}{which}; run "
        f"the shards that were stopped{whose}, again (there are {_names(places)})"
    )  # fmt: skip


def _names(places: list[Path]) -> str:
    shown = [place.name for place in places[:6]]
    return ", ".join([*shown, "..."] if len(places) > 6 else shown)
