"""Channels on disk, in shards: written by several processes, resumed, read without loading all.

    FOLDER/card.json          what they are, and who made them
    FOLDER/h-00000.npy        float16 [N, T, 2, S, F]
    FOLDER/facts-00000.npz    what is known of them, and the SHA-256 of the shard's channels

A shard is done when its facts are there. Where nothing is left to draw, no file is touched, so that
trainings on the data stay those on the data.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import semsim
from channels.sionna_bridge import sionna_version
from semsim.files.disk import locked, sum_of, write_atomic
from semsim.files.incoming import check_regular, reading, shown
from semsim.payloads.channels import ChannelItems, Records, Target, joined, parts
from semsim.payloads.images import window

CARD = "card.json"
SHARD = 2048  #: items of a shard
_TOLD = 256  # items drawn at once


class ChannelFiles(ChannelItems):
    """Channels in files of the command "semsim channels".

    Args:
        path: the folder.
        start: first item to take; negative counts from the end.
        count: how many to take; null takes all that follow.
        target: ``channel``, or a class: ``los``, ``beam``, or ``activity`` where the data has it.
    """

    def __init__(
        self,
        path: str,
        *,
        start: int = 0,
        count: int | None = None,
        target: Target = "channel",
    ) -> None:
        self._aim(target)
        self.path, self.name = Path(path), shown(Path(path).name)
        self.card = _read_card(self.path)
        self._shard, self._size = int(self.card["shard"]), int(self.card["count"])
        chosen = window(self._size, start, count, path)
        self._first, self._count = chosen.start, len(chosen)
        self._open: dict[int, tuple[Any, dict[str, torch.Tensor]]] = {}

    def __len__(self) -> int:
        return self._count

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with what the writer knew of them."""
        found, at, end = [], self._first + start, self._first + stop
        while at < end:
            number, place = divmod(at, self._shard)
            h, facts = self._opened(number)
            upto = min(place + end - at, self._shard)
            values = torch.from_numpy(h[place:upto].astype(np.float32))
            found.append(Records(joined(values), {k: v[place:upto] for k, v in facts.items()}))
            at += upto - place
        facts = {k: torch.cat([r.facts[k] for r in found]) for k in found[0].facts}
        return Records(torch.cat([r.h for r in found]), facts)

    def check_files(self) -> None:
        """Open every shard that items come from; ValueError names the first that will not do."""
        if self.card.get("complete") is False:
            raise ValueError(
                f"path {shown(self.path)} is a data set that was not finished; write the rest with "
                "semsim channels, as its first part"
            )
        for number in range(
            self._first // self._shard, -(-(self._first + self._count) // self._shard)
        ):
            self._opened(number)

    def _opened(self, number: int) -> tuple[Any, dict[str, torch.Tensor]]:
        if number not in self._open:
            path = self.path / f"h-{number:05d}.npy"
            cure = "write it again with semsim channels"
            with reading(path, "a shard of channels", cure, "path"):
                h = np.load(path, mmap_mode="r", allow_pickle=False)
                with np.load(_facts(self.path, number), allow_pickle=False) as file:
                    names = [name for name in file.files if name != "sha256"]
                    facts = {name: torch.from_numpy(file[name]) for name in names}
                items = min(self._shard, self._size - number * self._shard)
                if list(h.shape) != [items, *self.card["item"]] or h.dtype != np.float16:
                    raise ValueError(f"holds {h.dtype} {list(h.shape)}, not what the card says")
                if wrong := [name for name, fact in facts.items() if len(fact) != items]:
                    raise ValueError(f"has {len(facts[wrong[0]])} {wrong[0]} for {items} channels")
            self._open[number] = h, facts
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the open files."""
        return {**vars(self), "_open": {}}


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    check_regular(path, "a folder that semsim channels wrote", "path")
    with reading(path, "the card of a data set", "write it with semsim channels", "path"):
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or not {"shard", "count", "item"} <= card.keys():
            raise ValueError("it says no shard, count and item")
        for key in ("shard", "count"):
            if type(card[key]) is not int or card[key] < 1:
                raise ValueError(f"{key} is an integer of at least 1, got {card[key]!r}")
    return dict(card)


def _facts(folder: Path, number: int) -> Path:
    return folder / f"facts-{number:05d}.npz"


def write_channels(
    make: Callable[[], ChannelItems],
    spec: Mapping[str, Any],
    folder: Path,
    *,
    processes: int = 1,
    shard: int = SHARD,
) -> Iterator[str]:
    """Write all items of a payload in shards, those that are not there yet; yield a line on each.

    Where all are there, nothing is written: its card still says who made them.

    Args:
        make: returns the payload, in each process anew.
        spec: what the payload was made of; goes on the card, and a folder of another is refused.
        folder: where to.
        processes: how many draw at once.
        shard: items in each.
    """
    payload = make()
    card = _card(payload, spec, shard)
    with locked(folder):
        there = _check_same(folder, card)
        numbers = [n for n in range(-(-len(payload) // shard)) if not _sound(folder, n)]
        if there.get("complete") and not numbers:
            return
        write_atomic(folder / CARD, json.dumps({**card, "complete": False}, indent=2) + "\n")
        work = partial(_write_shard, make, folder, shard)
        if processes == 1:
            done: Iterator[int] = map(
                partial(_write_shard, lambda: payload, folder, shard), numbers
            )
            yield from (f"shard {n}" for n in done)
        elif numbers:
            with multiprocessing.get_context("spawn").Pool(processes, _quiet) as pool:
                yield from (f"shard {n}" for n in pool.imap_unordered(work, numbers))
        write_atomic(folder / CARD, json.dumps({**card, "complete": True}, indent=2) + "\n")


def _quiet() -> None:
    torch.set_num_threads(1)


def _card(payload: ChannelItems, spec: Mapping[str, Any], shard: int) -> dict[str, Any]:
    made = {"payload": dict(spec), "shard": shard, "count": len(payload)}
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    t, s, f = payload.records(0, 1).h.shape[1:]
    versions = {
        "semsim": semsim.__version__, "torch": str(torch.__version__), "sionna": sionna_version()
    }  # fmt: skip
    return {**made, "item": [t, 2, s, f], "dtype": "float16", "hash": digest, "versions": versions}


def _check_same(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card that is there, if any; refuse to go on in a folder of other data."""
    if not (folder / CARD).is_file():
        return {}
    there = _read_card(folder)
    if there.get("hash") != card["hash"]:
        raise ValueError(
            f"{folder} holds other channels, of hash {there.get('hash')}; choose another "
            "--out, or delete it"
        )
    return there


def _sound(folder: Path, number: int) -> bool:
    """Tell whether a shard is there as it was written."""
    path = _facts(folder, number)
    try:
        with reading(path, "facts of channels", ""), np.load(path, allow_pickle=False) as file:
            facts = dict(file)  # all of them, since each has a checksum of its own
            return bool(sum_of(folder / f"h-{number:05d}.npy") == str(facts["sha256"]))
    except ValueError:
        return False


def _write_shard(make: Callable[[], ChannelItems], folder: Path, shard: int, number: int) -> int:
    payload = make()
    first, last = number * shard, min((number + 1) * shard, len(payload))
    pieces = [payload.records(at, min(at + _TOLD, last)) for at in range(first, last, _TOLD)]
    names = pieces[0].facts
    facts = {name: torch.cat([p.facts[name] for p in pieces]).numpy() for name in names}
    values = torch.cat([parts(p.h).half() for p in pieces])
    if not bool(values.isfinite().all()):
        raise ValueError(f"shard {number} of the channels holds NaN or infinity")
    content = _bytes(np.save, values.numpy())
    write_atomic(folder / f"h-{number:05d}.npy", content)
    digest = hashlib.sha256(content).hexdigest()
    write_atomic(_facts(folder, number), _bytes(np.savez, sha256=digest, **facts))
    return number


def _bytes(save: Callable[..., None], *values: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *values, **named)
    return buffer.getvalue()
