"""Classes of a payload's items, and which items stand for all where classes come one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from semsim.seeds import stream


def labels_of(payload: Any, indices: Sequence[int] | None = None) -> list[int] | None:
    """Return the classes of items, all by default; None where the payload has no classes."""
    labels = getattr(payload, "labels", None)
    if labels is None:
        return None
    places = range(len(payload)) if indices is None else indices
    return [int(labels[i]) for i in places]


def by_class(payload: Any) -> bool:
    """Tell whether all items of a class come before those of the next, as in a sorted folder."""
    labels = labels_of(payload) or []
    return len(set(labels)) > 1 and all(a <= b for a, b in itertools.pairwise(labels))


def some_of(payload: Any, indices: Sequence[int], count: int, seed: int) -> list[int]:
    """Return so many of these items to judge by: the first, or any where classes come one by one.

    Args:
        payload: whose order decides.
        indices: of its items, rising.
        count: how many; all where it is more.
        seed: decides which, where they are drawn.
    """
    if count >= len(indices) or not by_class(payload):
        return list(indices[:count])
    order = torch.randperm(len(indices), generator=stream(seed, "judged", len(indices)))
    return sorted(indices[i] for i in order[:count].tolist())
