"""Who gets which items of a payload.

Every rule but "by_file" is a table of shares, [classes, clients], whose rows add up to 1; the same
table shares out the training items and the validation items, so that a client is tested on classes
like those that it learned from. Items whose class is negative, as -1 of what nobody labelled, have
none: all clients get equal shares of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from semsim.federated.settings import FederatedSpec
from semsim.payloads.classes import labels_of
from semsim.seeds import seed_of, stream

DRAWS = 1000  #: of a Dirichlet partition until every client has its least


class Shard:
    """The items of one client, taken from the whole payload when they are asked for.

    Args:
        payload: of all clients.
        indices: which are this client's.
    """

    def __init__(self, payload: Any, indices: Sequence[int]) -> None:
        self.payload, self.indices = payload, list(indices)
        self.name = getattr(payload, "name", "payload")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        """Return the source and the target of an item."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"the shard has {len(self)} items, asked for number {index}")
        return self.payload[self.indices[index]]

    @property
    def labels(self) -> list[int] | None:
        """The class of each item, where the payload has classes."""
        return labels_of(self.payload, self.indices)


def shares(payload: Any, settings: FederatedSpec, seed: int) -> np.ndarray:
    """Return the share of each class that each client gets, [classes, clients], rows adding to 1.

    Raises:
        ValueError: there are more clients than items, no classes where the rule needs them, or a
            client would get fewer items than ``least``.
    """
    clients, total = settings.clients, len(payload)
    if clients * settings.least > total:
        each = "" if settings.least == 1 else f" of at least {settings.least} items"
        raise ValueError(f"clients: {clients}{each} are more than the payload's {total} items")
    rule = settings.partition
    if rule in ("iid", "by_file"):
        return np.full((1, clients), 1 / clients)
    labels = labels_of(payload)
    if labels is None or max(labels) < 0:
        raise ValueError(
            f"partition: {rule} needs a payload with classes, such as cifar10 or a folder with "
            "classes: true; write partition: iid"
        )
    classes = max(labels) + 1
    if rule == "by_class":
        table = np.zeros((classes, clients))
        for client in range(max(classes, clients)):
            table[client % classes, client % clients] = 1
        return table / table.sum(axis=1, keepdims=True)
    counts = np.bincount([k for k in labels if k >= 0], minlength=classes)
    return _dirichlet(counts, total - int(counts.sum()), settings, seed)


def _dirichlet(
    counts: np.ndarray, unlabelled: int, settings: FederatedSpec, seed: int
) -> np.ndarray:
    key = seed_of(seed, "partition")
    generator = np.random.default_rng(key)
    free = _sizes(np.full(settings.clients, 1 / settings.clients), unlabelled)
    got = free
    for _ in range(DRAWS):
        table = generator.dirichlet([settings.alpha] * settings.clients, size=len(counts))
        each = [_sizes(table[k], int(count)) for k, count in enumerate(counts)]
        got = free + np.sum(each, axis=0)
        if got.min() >= settings.least:
            return table
    poor, fewest = int(got.argmin()), int(got.min())
    total = counts.sum() + unlabelled
    raise ValueError(
        f"alpha: {settings.alpha} leaves client {poor} with {fewest} of {total} items, but "
        f"least is {settings.least}, in {DRAWS} draws; raise alpha, or have fewer clients"
    )


def _sizes(share: np.ndarray, count: int) -> np.ndarray:
    """Return how many of ``count`` items each client gets, rounded so that the sum stays."""
    edges = np.round(np.cumsum(share) * count).astype(int)
    edges[-1] = count
    return np.diff(edges, prepend=0)


def split(
    payload: Any, settings: FederatedSpec, seed: int, table: np.ndarray | None = None
) -> list[list[int]]:
    """Return the items of each client, rising.

    Args:
        payload: what to share out.
        settings: the rule, and how many clients.
        seed: decides which items.
        table: shares to apply, as :func:`shares` returned them for another payload.
    """
    held: list[list[int]] = [[] for _ in range(settings.clients)]
    by_file = settings.partition == "by_file"
    if by_file and (table is None or getattr(payload, "files", None)):
        groups = [_files(payload)]
        if table is None and len(groups[0]) < settings.clients:
            raise ValueError(f"clients: {settings.clients} are more than {len(groups[0])} files")
        table = shares(payload, settings, seed) if table is None else table
    else:
        table = shares(payload, settings, seed) if table is None else table
        table, kinds = _with_all_classes(payload, table)
        groups = [[[i] for i, kind in enumerate(kinds) if kind == k] for k in range(len(table))]
    for kind, units in enumerate(groups):
        order = torch.randperm(len(units), generator=stream(seed, "shards", kind)).tolist()
        sizes = _sizes(table[kind], len(units))
        place = 0
        for client, size in enumerate(sizes.tolist()):
            held[client] += [i for unit in order[place : place + size] for i in units[unit]]
            place += size
    return [sorted(own) for own in held]


def _with_all_classes(payload: Any, table: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return a table of all classes of a payload, and the class of each item."""
    labels = labels_of(payload) if len(table) > 1 else None
    if labels is None:
        return table.mean(axis=0, keepdims=True), [0] * len(payload)
    none = max(len(table), max(labels, default=0) + 1)  # after the last class
    lacking = none - len(table) + (min(labels, default=0) < 0)
    equal = np.full((lacking, table.shape[1]), 1 / table.shape[1])
    return np.concatenate([table, equal]), [none if k < 0 else k for k in labels]


def _files(payload: Any) -> list[list[int]]:
    """Return the items of each file of a folder."""
    files = getattr(payload, "files", None)
    if not files or len(payload) % len(files):
        raise ValueError("partition: by_file needs a payload of files, such as folder; write iid")
    each = len(payload) // len(files)
    return [list(range(first, first + each)) for first in range(0, len(payload), each)]


def histogram(payload: Any, parts: Sequence[Sequence[int]]) -> list[dict[str, int]]:
    """Return how many items of each class each client has, and of none, a row per client."""
    labels = labels_of(payload)
    rows = []
    for client, indices in enumerate(parts):
        row = {"client": client, "items": len(indices)}
        if labels is not None:
            own = np.array([labels[i] for i in indices], dtype=int)
            counts = np.bincount(own[own >= 0], minlength=max(0, max(labels) + 1))
            row |= {f"class_{k}": int(count) for k, count in enumerate(counts)}
            row |= {"unlabelled": int((own < 0).sum())} if min(labels) < 0 else {}
        rows.append(row)
    return rows
