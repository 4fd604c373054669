"""Channels that somebody measured: packets in a row, from an array file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from channels.checks import check_choice, check_count
from semsim.files.incoming import check_regular, check_unfolds, reading, shown
from semsim.payloads.channels import ChannelItems, Records, Target

Split = Literal["all", "train", "test"]
_AXES = "nfrt"
_WORDS = {"n": "packets", "r": "receive antennas", "t": "transmit antennas", "f": "subcarriers"}
HELD_OUT = 4  #: one group in so many is for the test


class MeasuredChannels(ChannelItems):
    """Packets of channel state information in a row, some slots of them in each item.

    Items do not overlap, and none holds packets of two groups, such as two recordings. Packets of
    WiFi receivers have a phase and a timing of their own, at random: with ``align`` each packet is
    turned so that the phase over its subcarriers has no slope and no mean, over all antenna pairs
    together, so that what differs among these is kept.

    Args:
        path: .npz or .npy file.
        array: name of the array of gains: complex, or numbers with a last axis of 2 for real and
            imaginary part; the only one where null.
        axes: its axes in order, of the letters n (packets), f (subcarriers), r (receive antennas)
            and t (transmit antennas); n and f at least.
        slots: T, packets of an item.
        groups: name of an array of whole numbers, [N], one for each recording.
        labels: name of an array of classes, [N]; an item's is that of its first packet.
        split: ``train`` and ``test`` share out whole groups: of those that are long enough every
            fourth is for the test, or the last one of fewer.
        align: take out each packet's phase and its slope.
        target: ``channel``, ``beam``, or ``activity``, which are the labels.
    """

    def __init__(
        self,
        path: str,
        array: str | None = None,
        *,
        axes: str = "nfrt",
        slots: int = 16,
        groups: str | None = None,
        labels: str | None = None,
        split: Split = "all",
        align: bool = True,
        target: Target = "channel",
    ) -> None:
        self._aim(target)
        check_choice("split", split, ("all", "train", "test"))
        check_count("slots", slots, "a sequence of 16 packets has slots: 16")
        if not {"n", "f"} <= set(axes) <= set(_AXES) or len(set(axes)) != len(axes):
            raise ValueError(
                f"axes is n, f and maybe r and t, each once, such as nfrt, got {axes!r}"
            )
        if split != "all" and groups is None:
            raise ValueError(f"split {split!r} shares out groups; name their array in groups")
        if target == "activity" and labels is None:
            raise ValueError("target activity are the labels; name their array in labels")
        self.path, self.name = path, shown(Path(path).stem)
        held = _read(Path(path), [array, groups, labels])
        h = _gains(held[0], axes, shown(path))
        sizes = dict(zip(axes, held[0].shape, strict=False))  # of real arrays the last axis is left
        counts = ", ".join(f"{word} {sizes.get(letter, 1)}" for letter, word in _WORDS.items())
        self.found = f"{shown(path)} has {counts}"  #: what was read, in words
        of = torch.zeros(len(h), dtype=torch.long) if groups is None else _whole(held[1], h, groups)
        starts = _starts(of, slots, split)
        if not starts:
            raise ValueError(
                f"path {shown(path)} holds no {slots} packets in a row of one group for split "
                f"{split}; write fewer slots"
            )
        h = _aligned(h) if align else h
        self._items = torch.stack([h[at : at + slots] for at in starts])
        power = self._items.abs().square().mean(dim=(1, 2, 3), keepdim=True)
        if not bool(power.all()):
            raise ValueError(f"path {shown(path)} holds packets without any power; leave them out")
        self._items = self._items / power.sqrt()
        self._facts = {"gain_db": 10 * power.flatten().log10(), "group": of[starts]}
        if labels is not None:
            self._facts["activity"] = _whole(held[2], h, labels)[starts]

    def __len__(self) -> int:
        return len(self._items)

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with gain, group and, where there are some, class."""
        cut = slice(start, stop)
        return Records(self._items[cut], {k: v[cut] for k, v in self._facts.items()})


def _read(path: Path, names: list[str | None]) -> list[Any]:
    """Return the arrays of these names; None for no name but the first, which is the only one."""
    check_regular(path, "an .npz or .npy file of gains", "path")
    cure = "write it with numpy.savez, numbers only"
    with reading(path, "an array file", cure, "path"):
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            check_unfolds(path, content.nbytes, "the file")
            found: dict[str, Any] = {"": content}
        else:
            with content:
                wanted = set(names) if names[0] else set(content.files)
                found = {name: content[name] for name in content.files if name in wanted}
                there = content.files
    first = names[0]
    if first is None and len(found) == 1:
        first = next(iter(found))
    chosen = [first, *names[1:]]
    for key, name in zip(("array", "groups", "labels"), chosen, strict=True):
        if (name is None and key == "array") or (name is not None and name not in found):
            known = ", ".join(found if isinstance(content, np.ndarray) else there) or "one array"
            raise ValueError(f"{key} is one of {known} in {shown(path)}, got {name!r}")
    return [None if name is None else found[name] for name in chosen]


def _gains(values: Any, axes: str, path: str) -> Tensor:
    """Return gains as complex64 [N, S, F]."""
    if values.dtype.kind not in "fic":
        raise ValueError(f"path {path} holds {values.dtype}; gains are complex, or real parts")
    if not values.size:
        raise ValueError(f"path {path} holds no packets: {list(values.shape)}; name another array")
    is_complex = values.dtype.kind == "c"
    if values.ndim != len(axes) + (not is_complex) or (not is_complex and values.shape[-1] != 2):
        more = "" if is_complex else " and a last axis of 2"
        raise ValueError(
            f"path {path} holds {values.dtype} {list(values.shape)}, but axes {axes!r} are "
            f"{len(axes)}{more}; write the letters of its axes"
        )
    if is_complex:
        h = torch.from_numpy(values.astype(np.complex64))
    else:
        h = torch.view_as_complex(torch.from_numpy(values.astype(np.float32)).contiguous())
    if not bool(torch.view_as_real(h).isfinite().all()):
        raise ValueError(f"path {path} holds NaN or infinity; leave such packets out")
    order = [axes.index(letter) for letter in "nrtf" if letter in axes]
    h = h.permute(order)
    return h.reshape(len(h), -1, h.shape[-1])


def _whole(values: Any, h: Tensor, name: str) -> Tensor:
    if values.shape != (len(h),) or values.dtype.kind not in "iu":
        raise ValueError(
            f"{name} is whole numbers [{len(h)}], one for each packet, got {values.dtype} "
            f"{list(values.shape)}"
        )
    return torch.from_numpy(values.astype(np.int64))


def _starts(groups: Tensor, slots: int, split: Split) -> list[int]:
    """Return the first packet of each item: slots in a row, of one group of the split."""
    edges = [0, *((groups[1:] != groups[:-1]).nonzero().flatten() + 1).tolist(), len(groups)]
    found: dict[int, list[int]] = {}
    for first, last in itertools.pairwise(edges):
        own = range(first, last - slots + 1, slots)
        found.setdefault(int(groups[first]), []).extend(own)
    named = sorted(group for group, own in found.items() if own)
    test = named[HELD_OUT - 1 :: HELD_OUT] or named[1:][-1:]
    chosen = {"all": named, "test": test, "train": [g for g in named if g not in test]}[split]
    return sorted(start for group in chosen for start in found[group])


def _aligned(h: Tensor) -> Tensor:
    """Take the phase of each packet and its slope over subcarriers out of h [N, S, F]."""
    turn = (h[..., 1:] * h[..., :-1].conj()).sum(dim=(1, 2)).angle()  # per subcarrier
    ramp = turn[:, None, None] * torch.arange(h.shape[2])
    flat = h * torch.polar(torch.ones_like(ramp), -ramp)
    rest = flat.sum(dim=(1, 2)).angle()[:, None, None]
    return flat * torch.polar(torch.ones_like(rest), -rest)
