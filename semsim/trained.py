"""Weights that a scenario trains itself: once per training hash, whatever else is swept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from semsim import spec
from semsim.fields import train_spec
from semsim.loading import check_files, pick_device
from semsim.mistakes import SpecError
from semsim.scenario import Scenario
from semsim.seeds import stream


def train_all(
    scenario: Scenario, folder: Path, device: str | None = None, *, progress: bool = False
) -> Iterator[str]:
    """Train every link of a scenario that trains; yield a line on each.

    Args:
        scenario: with ``train``.
        folder: the results folder; each training has its own below ``training``.
        device: instead of the scenario's.
        progress: show a bar.
    """
    if scenario.train is None:
        raise SpecError("train", "missing; say what to train on: train: {payload: ..., steps: ...}")
    where = pick_device(device or scenario.device)
    done: set[Path] = set()
    for point in scenario.points():
        if point.scenario.transmitter.weights:
            raise SpecError("transmitter.weights", "is given, so there is nothing to train")
        weights = own_weights(point.scenario, folder, where, progress=progress)
        if weights is not None and weights not in done:
            done.add(weights)
            yield f"{point.name}: {weights}"


def trains(scenario: Scenario) -> bool:
    """Tell whether a link trains weights of its own instead of loading finished ones."""
    return scenario.train is not None and not scenario.transmitter.weights


def training_data(scenario: Scenario) -> tuple[Any, Any]:
    """Return what a scenario with ``train`` trains on and what it validates on, or None."""
    made: dict[str, Any] = {"payload": None, "validation": None}
    for key in made:
        part = getattr(scenario.train, key)
        try:
            made[key] = part and spec.build(part)
            check_files(made[key], "")
        except SpecError as error:
            raise error.under("train", key) from error
    return made["payload"], made["validation"]


def own_weights(
    scenario: Scenario, folder: Path, device: torch.device, *, progress: bool = False
) -> Path | None:
    """Return the weights that one link trains itself, training now what is not there yet.

    None where the scenario trains nothing or names finished weights.
    """
    if not trains(scenario):
        return None
    place = folder / "training" / scenario.training_hash()
    weights = place / "weights.safetensors"
    if weights.is_file():
        return weights
    from semsim.training import train

    with torch.random.fork_rng():  # so that start weights are the scenario's, not the process's
        torch.manual_seed(int(torch.randint(2**62, (), generator=stream(scenario.seed, "start"))))
        built = scenario.build(device)
    payload, validation = training_data(scenario)
    result = train(
        built.link,
        payload,
        built.task,
        train_spec(scenario.train),
        folder=place,
        seed=scenario.seed,
        validation=validation,
        device=device,
        progress=progress,
    )
    return result.weights
