"""Rate and distortion of images, kept on disk, and the search for what fits a budget.

One SQLite file in :func:`semsim.files.disk.cache_folder`: every image that was encoded, by the hash
of its pixels and the codec's settings. Each entry is written whole or not at all and carries a
checksum of all of it, which is compared at each look. A damaged entry is made anew, a damaged file
is set aside, both are told, and the file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semsim.codecs.image_codecs import (
    ImageCodec,
    Pixels,
    mean_squared_error,
)
from semsim.files.disk import cache_folder, log, set_aside

_TABLE = """
    CREATE TABLE IF NOT EXISTS encoded (
        image BLOB, settings TEXT, step INTEGER,
        file_bytes INTEGER, mse REAL, checksum BLOB, stream BLOB,
        PRIMARY KEY (image, settings, step)
    )
"""
#: by SQLite's name of an error: what lies with the machine and not with the file
_NOT_DAMAGE = (
    "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR",
)  # fmt: skip
_COARSE = 16  # the search starts on a grid of this many steps, shared by all budgets
_FILLED = 0.985  # a budget used to this share ends the search: a finer step would gain 0.05 dB


@dataclass(frozen=True)
class Coded:
    """An image at one quality step.

    Args:
        step: quality step of the codec.
        stream: elementary stream.
        file_bytes: size of the whole file.
        mse: mean squared error of the decoded image, 8-bit scale.
    """

    step: int
    stream: bytes
    file_bytes: int
    mse: float


class RateDistortion:
    """Encodes images once and remembers them.

    Args:
        codec: with its settings.
        folder: where the file lies; :func:`cache_folder` where left out.
    """

    def __init__(self, codec: ImageCodec, folder: Path | None = None) -> None:
        self.codec = codec
        self.path = (cache_folder() if folder is None else folder) / "images.sqlite"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._told = False

    def largest_fit(self, image: Pixels, budget_bytes: int) -> Coded | None:
        """Return the image at the largest quality step that fits; None if none does.

        The search ends early once 98.5 % of the budget are used. Sizes are taken to rise with the
        step; where they do not quite, the path of the search, and so its answer, still depends on
        the image and the budget alone, not on what is cached.
        """
        key = image_key(image)

        def cost(step: int) -> int:
            coded = self._get(key, image, step)
            return self.codec.charged(len(coded.stream), coded.file_bytes)

        step = _largest_step(self.codec.steps, cost, budget_bytes)
        return None if step is None else self._get(key, image, step)

    def coded(self, image: Pixels, step: int) -> Coded:
        """Return the image at one quality step, from the cache where it is there and sound."""
        return self._get(image_key(image), image, step)

    def _get(self, key: bytes, image: Pixels, step: int) -> Coded:
        return self._read(key, step) or self._encode(key, image, step)

    def _read(self, key: bytes, step: int) -> Coded | None:
        """Return a sound entry, or None."""
        rows = self._run(
            "SELECT file_bytes, mse, checksum, stream FROM encoded "
            "WHERE image = ? AND settings = ? AND step = ?",
            (key, self.codec.settings, step),
        )
        if not rows:
            return None
        file_bytes, mse, checksum, stream = rows[0]
        try:
            if checksum == self._checksum(key, step, file_bytes, mse, stream):
                return Coded(step, stream, file_bytes, mse)
        except (TypeError, struct.error):  # another type of value than was written
            pass
        if not self._told:
            self._told = True
            log.warning("the image cache %s holds damaged entries; they are made anew", self.path)
        return None

    def _encode(self, key: bytes, image: Pixels, step: int) -> Coded:
        file = self.codec.encode(image, step)
        stream, mse = self.codec.strip(file), mean_squared_error(image, self.codec.decode(file))
        if self.codec.rebuild(stream, step, *image.shape[:2]) != file:
            raise ValueError(
                f"this {self.codec.name} encoder writes files that cannot be rebuilt from their "
                f"stream (step {step}, image of {list(image.shape[:2])}); use headers: file"
            )
        checksum = self._checksum(key, step, len(file), mse, stream)
        row = (key, self.codec.settings, step, len(file), mse, checksum, stream)
        self._run("INSERT OR REPLACE INTO encoded VALUES (?,?,?,?,?,?,?)", row)
        return Coded(step, stream, len(file), mse)

    def _checksum(self, key: bytes, step: int, file_bytes: int, mse: float, stream: bytes) -> bytes:
        facts = struct.pack("<IQd", step, file_bytes, mse)
        settings = self.codec.settings.encode()
        return hashlib.sha256(key + settings + facts + stream).digest()[:16]

    def _run(self, statement: str, values: tuple) -> list[tuple]:
        """Run one statement; begin a new file where it was damaged or deleted meanwhile."""
        for attempt in (1, 2):
            try:
                with self._connection() as connection:
                    return connection.execute(statement, values).fetchall()
            except (sqlite3.Error, MemoryError) as error:
                if attempt == 2 or not self._is_damage(error):
                    raise OSError(
                        f"the image cache {self.path} cannot be used: {error}; delete the file, "
                        "or set SEMSIM_CACHE to another folder"
                    ) from error
                self._close()
                self._put_aside(error)
        return []

    def _is_damage(self, error: Exception) -> bool:
        """Tell what a new file would cure."""
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_READONLY") and name != "SQLITE_READONLY_DBMOVED":
            return os.access(self.path, os.W_OK)
        return name == "SQLITE_IOERR_SHORT_READ" or not name.startswith(_NOT_DAMAGE)

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        if getattr(self._local, "connection", None) is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=120)
            connection.text_factory = bytes  # what is damaged may be no text
            self._local.connection, self._local.file = connection, _identity(self.path)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_TABLE)
        return self._local.connection

    def _close(self) -> None:
        if getattr(self._local, "connection", None) is not None:
            self._local.connection.close()
        self._local.connection = None

    def _put_aside(self, why: Exception) -> None:
        """Set the file aside, unless it is gone or another thread has begun a new one."""
        with self._lock:
            if self.path.is_file() and _identity(self.path) == self._local.file:
                set_aside(self.path, why, then="a new cache begins")
                self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)


def _identity(path: Path) -> int | None:
    return path.stat().st_ino if path.is_file() else None


def image_key(image: Pixels) -> bytes:
    """Return the hash of an image's pixels and shape."""
    return hashlib.sha256(struct.pack("<3I", *image.shape) + image.tobytes()).digest()[:16]


def _largest_step(steps: int, cost: Callable[[int], int], budget: int) -> int | None:
    """Bisect a coarse grid, then close in by interpolating the logarithm of the size."""
    grid = [*range(0, steps - 1, _COARSE), steps - 1]
    first, last = 0, len(grid) - 1
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if cost(grid[middle]) <= budget else (first, middle)
    if first == 0 and cost(grid[0]) > budget:
        return None
    if last == len(grid) - 1 and cost(grid[-1]) <= budget:
        return grid[-1]
    low, high, tries = grid[first], grid[last], 0
    while high - low > 1 and cost(low) < _FILLED * budget:
        guess = _between(low, high, cost, budget) if tries < 4 else (low + high) // 2
        low, high = (guess, high) if cost(guess) <= budget else (low, guess)
        tries += 1
    return low


def _between(low: int, high: int, cost: Callable[[int], int], budget: int) -> int:
    """Guess the last step that fits, taking the size to grow by a constant factor per step."""
    small, large = math.log(cost(low)), math.log(cost(high))
    share = (math.log(budget) - small) / (large - small)
    return min(max(low + math.floor(share * (high - low)), low + 1), high - 1)
