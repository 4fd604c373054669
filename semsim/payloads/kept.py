"""What a payload made once and is asked for again: kept in memory, and never sent away."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from torch import Tensor


class InBlocks:
    """Items that are drawn many at a time: the last blocks are kept. A subclass gives ``_drawn``.

    A copy in another process draws its own.
    """

    blocks_kept = 8

    def _drawn(self, number: int) -> Any:
        raise NotImplementedError

    @functools.cached_property
    def _block(self) -> Callable[[int], Any]:
        return functools.lru_cache(self.blocks_kept)(self._drawn)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_block"}


def written(*files: Path | None) -> tuple[int, ...]:
    """Return when files were written, part of the key of what is read of them; 0 for none."""
    return tuple(f.stat().st_mtime_ns if f is not None and f.is_file() else 0 for f in files)


class Kept:
    """Tensors by all that decides them, up to so many bytes; what comes later is made each time.

    A module holds one for all its payloads, because a sweep makes the same payload once per link.

    Args:
        room: in bytes.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._content: dict[Hashable, tuple[Tensor, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        taken = sum(tensor.nbytes for made in self._content.values() for tensor in made)
        return {"room": self.room + taken, "_content": {}}

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what lies under a key, or make it, and keep it where there is room."""
        if key not in self._content:
            made = make()
            size = sum(tensor.nbytes for tensor in made)
            if size > self.room:
                return made
            self.room -= size
            self._content[key] = made
        return self._content[key]
