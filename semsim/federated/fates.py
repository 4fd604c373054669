"""What becomes of each client in a round: drawn by its number and the round's, never by order."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semsim.federated.settings import FederatedSpec
from semsim.seeds import stream


@dataclass(frozen=True)
class Fate:
    """One client in one round.

    Args:
        steps: that it gets done.
        vanishes: whether it is never heard of again.
        fault: "nan", "noise" or None.
    """

    steps: int
    vanishes: bool = False
    fault: str | None = None


def cohort(settings: FederatedSpec, seed: int, number: int) -> list[int]:
    """Return who takes part in a round, rising; at least one."""
    count = max(1, round(settings.fraction * settings.clients))
    order = torch.randperm(settings.clients, generator=stream(seed, "cohort", number))
    return sorted(order[:count].tolist())


def fate(settings: FederatedSpec, seed: int, number: int, client: int) -> Fate:
    """Return what becomes of a client in a round."""
    lost, late = torch.rand(2, generator=stream(seed, "fate", number, client)).tolist()
    steps = settings.local_steps
    if late < settings.stragglers and steps > 1:
        generator = stream(seed, "late", number, client)
        steps = 1 + int(torch.randint(steps - 1, (), generator=generator))
    fault = "nan" if client in settings.nan_clients else None
    fault = "noise" if client in settings.noise_clients else fault
    return Fate(steps, lost < settings.dropout, fault)
