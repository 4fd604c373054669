"""What semsim keeps on disk: written whole or not at all, sealed by a checksum, one writer at once.

write_atomic, replacing      a crash leaves the old file or the new one
seal, unseal                 a JSON record that carries its checksum
sealed_file, check_seal      a large file with its checksum at the end
write_sums, damaged_files    ``SHA256SUMS`` beside files of other formats (``sha256sum -c``)
locked                       one writer per folder, which also clears what dead ones left
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

SUMS = "SHA256SUMS"
LOCK = ".lock"  #: of a folder, held by its one writer
_SEAL = b"\nsha256:"
_SEALED = re.compile(r'\{"checksum": "([0-9a-f]{32})", (.*)', re.DOTALL)
_NODE = re.sub(r"\W", "", platform.node())[:20]
_CHUNK = 1 << 20
_DAY_S = 86_400.0

log = logging.getLogger("semsim")  #: what a user should know, but nothing that is wrong


def log_all(lines: Sequence[str]) -> None:
    """Log each of some lines."""
    for line in lines:
        log.warning("%s", line)


class Damaged(ValueError):
    """A file or record is not what semsim wrote."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part."""
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write in the place of ``path``, which it takes in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".semsim-{_NODE}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield partial
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename == str(partial):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # where it is gone, or where nothing can be done
            partial.unlink(missing_ok=True)


def seal(record: dict[str, Any], indent: int | None = None) -> str:
    """Return a record as JSON whose first key is the checksum of the rest."""
    body = json.dumps(record, indent=indent)[1:]
    return f'{{"checksum": "{_checksum(body)}", {body}'


def unseal(text: str | bytes) -> dict[str, Any]:
    """Return the record that :func:`seal` made text of; :class:`Damaged` where a bit changed."""
    try:
        found = _SEALED.fullmatch(text.decode() if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise Damaged("it is no text") from error
    if not found:
        raise Damaged("it has no checksum")
    if found[1] != _checksum(found[2]):
        raise Damaged("its checksum does not fit")
    record: dict[str, Any] = json.loads("{" + found[2])
    return record


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:32]


@contextlib.contextmanager
def sealed_file(path: Path) -> Iterator[IO[bytes]]:
    """Like :func:`replacing`; the file ends in its SHA-256, which readers of zip files skip."""
    with replacing(path) as partial, open(partial, "wb") as file:
        writer: Any = _Hashing(file)
        try:
            yield writer
        except RuntimeError as error:  # torch hides why a write failed
            raise writer.failure or error from None
        file.write(_SEAL + writer.digest.hexdigest().encode())


class _Hashing:
    """A file to write to that hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            written = self.file.write(content)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(content)
        return written

    def flush(self) -> None:
        self.file.flush()


def check_seal(path: Path) -> None:
    """Raise :class:`Damaged` where a file is not the one that :func:`sealed_file` wrote."""
    left = path.stat().st_size - len(_SEAL) - 64
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if left or file.read() != _SEAL + digest.hexdigest().encode():
            raise Damaged("its checksum does not fit")


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the SHA-256 of files into ``SHA256SUMS``, those that are there."""
    found = [name for name in names if (folder / name).is_file()]
    lines = [f"{sum_of(folder / name)}  {name}\n" for name in found]
    write_atomic(folder / SUMS, "".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 by file name that ``SHA256SUMS`` holds; empty where there is none."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def damaged_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Return which of these files are there, but not as ``SHA256SUMS`` has them."""
    sums = read_sums(folder)
    there = [name for name in names if (folder / name).is_file()]
    return [name for name in there if sums.get(name) != sum_of(folder / name)]


def sum_of(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return where caches lie: ``$SEMSIM_CACHE``, or ``~/.cache/semsim``.

    A temporary folder for this process where no home can be written to, which is said.
    """
    if named := os.environ.get("SEMSIM_CACHE"):
        folder = Path(named).absolute()
        if why := _unwritable(folder):
            raise OSError(f"SEMSIM_CACHE names {folder}, which cannot be used: {why}; name another")
        return folder
    try:
        home = Path.home()
    except RuntimeError:
        return _temporary_cache("there is no home folder")
    if not home.is_absolute() or home == Path(home.anchor):
        return _temporary_cache(f"HOME is {str(home)!r}")
    folder = home / ".cache" / "semsim"
    why = _unwritable(folder)
    return _temporary_cache(f"{folder} cannot be used: {why}") if why else folder


def _unwritable(folder: Path) -> str:
    """Make a folder; return why it cannot be written to, or nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return str(error.strerror).lower()
    return "" if os.access(folder, os.W_OK) else "it may not be written to"


@functools.cache
def _temporary_cache(why: str) -> Path:
    folder = tempfile.mkdtemp(prefix="semsim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning(
        "%s, so encoded images are kept in %s until this process ends; set SEMSIM_CACHE to a "
        "folder to keep them",
        why, folder,
    )  # fmt: skip
    return Path(folder)


def set_aside(path: Path, why: object, then: str = "it is computed again") -> Path:
    """Rename a damaged file, so that it is out of the way but not lost, and say so."""
    aside, count = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged-{count}")
    os.replace(path, aside)
    log.warning("%s is damaged: %s; kept as %s, and %s", path, why, aside.name, then)
    return aside


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two writers at once would overwrite each other's files."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run or training is writing to {folder}; wait for it, or choose another --out"
        ) from None
    try:
        _remove_orphans(folder)
        yield
    finally:
        lock.release()


def _remove_orphans(folder: Path) -> None:
    """Delete the half-written files of processes that are no more."""
    for path in folder.rglob(".semsim-*.tmp"):
        with contextlib.suppress(OSError):  # its writer may be about to finish
            if _is_dead(path):
                path.unlink()


def _is_dead(path: Path) -> bool:
    """Tell whether nobody writes a file any more; on another machine only age tells."""
    _, node, process, _ = path.name.split("-")
    if node == _NODE and os.name == "posix" and process.isdigit():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
    return time.time() - path.stat().st_mtime > _DAY_S
