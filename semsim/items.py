"""Values of single items: what paired comparisons need, and moments do not keep.

    items/<uid>.parquet     item, source, one column per metric: a finished SNR point
    journal/<uid>.items     the same as plain float64 while its link runs

``item`` counts from 0 in the order of the payload; the payload's own index is ``item`` modulo its
size. ``source`` is the CRC-32 of what was sent. Equal payload, seed and batches give each item the
same image, fading and noise in all links.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semsim.files.disk import replacing, seal, set_aside, unseal
from semsim.measuring import Place

if TYPE_CHECKING:
    from pandas import DataFrame

WHICH = ("item", "source")  #: columns that say which item a line is about
ROW_GROUP = 65_536  #: items that are in memory at once
CHECKED = 65_536  #: sound files that a process remembers, of about 500 bytes each
ABOUT = b"semsim"  #: key of what the file says about itself
OLD = "holds no values of single items for {what}; run its scenario again with this version"


class ItemLog:
    """Values of the items of one SNR point, appended as they come.

    Args:
        folder: the results folder.
        uid: the point's.
        metrics: their names, in the order of the values.
    """

    def __init__(self, folder: Path, uid: str, metrics: Sequence[str]) -> None:
        self.raw, self.path = folder / "journal" / f"{uid}.items", items_path(folder, uid)
        self.columns = (*WHICH, *metrics)
        self.crc = 0
        self._file: io.BufferedRandom | None = None

    def add(self, which: np.ndarray, values: np.ndarray) -> None:
        """Append a batch: numbers and checksums of the items [2, B], and values [metrics, B]."""
        data = np.vstack([which, values]).T.astype("<f8").tobytes()
        if self._file is None:
            self.raw.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.raw, "w+b")  # noqa: SIM115
        self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)

    def resume(self, count: int, crc: int) -> bool:
        """Go on after ``count`` items; False where the file does not hold them as they were.

        :meth:`drop` it then.
        """
        size = count * 8 * len(self.columns)
        if not self.raw.is_file() or self.raw.stat().st_size < size:
            return False
        for data in _chunks(self.raw, size, ROW_GROUP):
            self.crc = zlib.crc32(data, self.crc)
        if self.crc != crc:
            return False
        self._file = open(self.raw, "r+b")  # noqa: SIM115
        self._file.truncate(size)
        self._file.seek(size)
        return True

    def sync(self) -> None:
        """Bring what was added onto the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the Parquet file, with words about it inside."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.close()
        kinds = [pa.int64() if name in WHICH else pa.float64() for name in self.columns]
        size, width = self.raw.stat().st_size, 8 * len(self.columns)
        inside = {"columns": self.columns, "types": [str(k) for k in kinds], "rows": size // width}
        text = seal({**about, "file": inside}).encode()
        schema = pa.schema(list(zip(self.columns, kinds, strict=True)), metadata={ABOUT: text})
        with (
            replacing(self.path) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as out,
        ):
            for data in _chunks(self.raw, size, ROW_GROUP * width):
                table = np.frombuffer(data, dtype="<f8").reshape(-1, len(self.columns))
                arrays = [pa.array(c, k) for c, k in zip(table.T, kinds, strict=True)]
                out.write_batch(pa.record_batch(arrays, schema=schema))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def drop(self) -> None:
        """Forget what was appended."""
        self.close()
        self.crc = 0
        self.raw.unlink(missing_ok=True)


class LinkItems:
    """Values of the items of one link at several SNRs, while it runs.

    Args:
        folder: the results folder.
        uids: place, an SNR in dB and a user, to the uid of its point.
        metrics: their names.
    """

    def __init__(self, folder: Path, uids: Mapping[Place, str], metrics: Sequence[str]) -> None:
        self.logs = {place: ItemLog(folder, uid, metrics) for place, uid in uids.items()}

    def __call__(self, place: Place, which: np.ndarray, values: np.ndarray) -> None:
        """Take in one batch at one place."""
        self.logs[place].add(which, values)

    def marks(self) -> dict[str, int]:
        """Return a checksum per place of what was added so far."""
        return {key_of(place): log.crc for place, log in self.logs.items()}

    def sync(self) -> None:
        """Bring what was added onto the disk."""
        for log in self.logs.values():
            log.sync()

    def resume(self, counts: Mapping[Place, int], marks: Mapping[str, int]) -> bool:
        """Go on after so many items per place; where a file does not hold them, drop all: False."""
        held = all(log.resume(counts[at], marks[key_of(at)]) for at, log in self.logs.items())
        if not held:
            self.drop()  # places before the damaged one stand behind their old items
        return held

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the Parquet file of each place."""
        for place, log in self.logs.items():
            log.finish({**about, "snr_db": place.snr_db})

    def drop(self) -> None:
        """Forget what was appended."""
        for log in self.logs.values():
            log.drop()

    def close(self) -> None:
        """Let go of the files."""
        for log in self.logs.values():
            log.close()


def key_of(place: Place) -> str:
    """Return a place as the key of a JSON file: "10.0", or "10.0 user 2"."""
    return repr(place.snr_db) + (f" user {place.user}" if place.user > 1 else "")


def items_path(folder: str | Path, uid: str) -> Path:
    """Return where the values of the items of a point lie."""
    return Path(folder) / "items" / f"{uid}.parquet"


def read_items(folder: str | Path, uid: str, columns: Sequence[str] | None = None) -> DataFrame:
    """Return the values of the items of one point: ``item``, ``source``, a column per metric.

    Args:
        folder: the results folder.
        uid: of the point, as in the rows.
        columns: only these.
    """
    import pyarrow.parquet as pq

    path = _existing(folder, uid)
    _described(path)
    with _reading(path):
        table = pq.read_table(
            path, columns=columns and list(columns), page_checksum_verification=True
        )
    return table.to_pandas()


def about_items(folder: str | Path, uid: str) -> dict[str, Any]:
    """Return what the file of a point says about itself: plan, SNR, which metrics are means."""
    return _described(_existing(folder, uid))


def is_damaged(folder: str | Path, uid: str) -> bool:
    """Tell whether the values of the items of a point are there, but not as they were written.

    A process reads a sound file once, until it is replaced or touched in any way.

    Raises:
        OSError: the file cannot be read now, which does not say that it is damaged.
    """
    path = items_path(folder, uid)
    if not path.is_file():
        return False
    facts = path.stat()
    try:
        _check_whole(
            path.resolve(), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
        )
    except ValueError:
        return True
    return False


@functools.lru_cache(maxsize=CHECKED)
def _check_whole(path: Path, *_facts: int) -> None:
    """Read a file from end to end; ValueError where it is damaged, which is not remembered."""
    import pyarrow.parquet as pq

    _described(path)
    with _reading(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for _ in file.iter_batches():  # one group of items in memory
            pass


def set_items_aside(folder: Path, uids: Iterable[str]) -> None:
    """Rename what is damaged of the items of some points, so that it is computed again."""
    for uid in uids:
        if is_damaged(folder, uid):
            set_aside(items_path(folder, uid), "its checksums do not fit")


def _described(path: Path) -> dict[str, Any]:
    """Return what a file says about itself, which must be what it holds."""
    import pyarrow.parquet as pq

    with _reading(path):
        found = pq.read_metadata(path)
        about, schema = unseal(found.metadata[ABOUT]), found.schema.to_arrow_schema()
    types = [str(kind) for kind in schema.types]
    held = {"columns": schema.names, "types": types, "rows": found.num_rows}
    if about.pop("file", None) != held:
        raise _damaged(path)
    return about


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Call a file damaged where its content cannot be read; what the system refuses is raised."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        if getattr(error, "errno", None) is not None:
            raise  # such as EIO or too many open files: the content may be sound
        raise _damaged(path) from error


def _existing(folder: str | Path, uid: str) -> Path:
    path = items_path(folder, uid)
    if not path.is_file():
        raise ValueError(f"{folder} {OLD.format(what=f'the point {uid}')}")
    return path


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged; run its scenario again, which computes it anew")


def _chunks(path: Path, size: int, step: int) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of a file in pieces."""
    with open(path, "rb") as file:
        while size > 0 and (data := file.read(min(step, size))):
            size -= len(data)
            yield data
