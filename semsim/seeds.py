"""Randomness by name: a stream depends on its labels, never on the order of asking."""

from __future__ import annotations

import hashlib

import torch

from channels.streams import seeded

MAX_SEED = 2**63 - 1  #: what a column of Parquet holds


def stream(seed: int, *labels: object, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator that the seed and the labels alone decide.

    ``stream(7, "noise", 3)`` is the same in every process, worker and order of calls.

    Args:
        seed: the scenario's seed.
        labels: anything whose ``repr`` names the use, such as ``"noise", batch_index``.
        device: where the generator draws.
    """
    return seeded(hashlib.sha256(repr((seed, *labels)).encode()).digest(), device)


def seed_of(seed: int, *labels: object) -> int:
    """Return a seed that a seed and the labels alone decide, as in :func:`stream`."""
    return int(torch.randint(2**62, (), generator=stream(seed, *labels)))
