"""Files that come in: what each must be before anybody reads it, and one sentence where it fails.

A reader of somebody else's format may raise anything: Pillow alone raises a dozen types. What
comes in is therefore read within :func:`reading`, and sizes are looked at first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLD = 50  # weights and volumes hardly shrink when packed; what unfolds further is no such file
ALWAYS_FITS = 64 << 20  # bytes that any machine has to spare


@contextmanager
def reading(path: str | Path, what: str, cure: str, key: str = "") -> Iterator[None]:
    """Raise one ValueError for whatever a reader raises: the file, what it should hold, the cure.

    Args:
        path: the file.
        what: what it is read as, such as "an image".
        cure: what to do, such as "replace or remove the file".
        key: the argument that names the file, which the sentence then begins with.
    """
    try:
        yield
    except PermissionError as error:
        raise ValueError(
            f"{key} {shown(path)} may not be read; change its permissions, or leave it out".lstrip()
        ) from error
    except Exception as error:
        raise ValueError(
            f"{key} {shown(path)} cannot be read as {what} ({reason(error)}); {cure}".lstrip()
        ) from error


def reason(error: Exception) -> str:
    """Return what went wrong in a reader, on one line of at most 300 letters."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_regular(path: Path, what: str, key: str = "") -> None:
    """Raise ValueError unless a path is a plain file: a pipe or a device may never end.

    Arguments as in :func:`reading`.
    """
    if path.is_file():
        return
    found = "is no plain file" if path.exists() else "does not exist"
    raise ValueError(f"{key} {shown(path)} {found}; give {what}".lstrip())


def check_unfolds(path: Path, unfolded: int, what: str) -> None:
    """Raise ValueError where a small file asks for far more memory than its size explains.

    Args:
        path: the file.
        unfolded: bytes that its content takes in memory, as its headers say.
        what: what it is.
    """
    size = path.stat().st_size
    if unfolded > max(FOLD * size, ALWAYS_FITS):
        raise ValueError(
            f"{what} {shown(path)} has {size:,} bytes and would unfold to {unfolded:,}; more than "
            f"{FOLD} times its size is refused. Get the file from its source again"
        )
    check_memory(unfolded, f"{what} {shown(path)}")


def check_memory(needed: int, what: str) -> None:
    """Raise ValueError where something needs more memory than is free now."""
    free = free_bytes()
    if needed > max(free, ALWAYS_FITS):
        raise ValueError(
            f"{what} takes {needed / 1e9:.1f} GB in memory, and {free / 1e9:.1f} GB are free; "
            "use a smaller one, or a machine with more memory"
        )


def free_bytes() -> int:
    """Return the memory that a process can still get, in bytes; 2^62 where the system won't say."""
    return min(_free_of_machine(), _free_of_group())


def _free_of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def _free_of_group(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what a container has left of its limit; what is kept of files counts as free."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(facts["file"]), 0)
    except (ValueError, KeyError, OSError):  # no group, or "max", which is no limit
        return 1 << 62


def shown(path: str | Path) -> str:
    """Return a path for a message or a row: bytes that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")
