"""How long trainings will take, as ``check`` tells it: an estimate from few items."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from semsim.federated.settings import federated_spec
from semsim.mistakes import SpecError, unforeseen
from semsim.scenario.building import Built
from semsim.scenario.fields import train_spec
from semsim.scenario.scenario import Scenario
from semsim.sweep.stages import stages_of, training_data
from semsim.training.spec import TrainSpec
from semsim.training.state import frozen

FEW, SOME = 2, 32  #: items of the first step that is measured, and at most of the second
TRIES = 4  #: of each step at most
SLOW = 0.5  #: seconds that the second step may take, and after which there are no more tries


def training_line(name: str, scenario: Scenario, built: Built) -> str:
    """Return what is to be said of how long a link trains.

    Args:
        name: of the link.
        scenario: with ``train``, already rehearsed.
        built: its parts.
    """
    given, found, counts = 0.0, 0.0, list[str]()
    for stage in stages_of(scenario):
        spec = train_spec(stage.train)
        if spec.minutes is not None:
            given += 60 * spec.minutes
            continue
        steps = spec.steps
        if scenario.federated is not None:
            settings = federated_spec(scenario.federated)
            taking_part = max(1, round(settings.clients * settings.fraction))
            steps = settings.rounds * settings.local_steps * taking_part
        own = built if stage is scenario else stage.build(built.device)
        found += steps * step_seconds(stage, own, spec)
        counts.append(f"{steps} steps of {spec.batch_size} items")
    parts = [f"{words(given)} as train.minutes says"] if given else []
    if counts:
        parts.append(
            f"about {words(found)} ({' + '.join(counts)}; an estimate from few items, without "
            "validations)"
        )
    return f"  training {name}: {' + '.join(parts)}"


def step_seconds(scenario: Scenario, built: Built, spec: TrainSpec) -> float:
    """Return the seconds of a step, up to its gradient; the parts stay as they were.

    A step of few items and one of some more are measured, and what lies beyond is on their line.
    What it takes to make an item is added for those that the training meets for the first time.
    """
    nets = nn.ModuleDict({"link": built.link, "task": built.task})
    few = dataclasses.replace(spec, processes=1, start=None, cut=False)
    data = training_data(scenario)[0]
    with torch.random.fork_rng(), kept(nets), frozen(built.link, built.task, few.rates or {}):
        least = min(spec.batch_size, FEW)
        own = dataclasses.replace(few, batch_size=least)
        first = _least_seconds(scenario, built, own, data, at_least=2)  # one fills caches
        most = min(spec.batch_size, SOME, max(2 * FEW, int(FEW * SLOW / max(first, 1e-3))))
        new = min(1.0, len(data) / (spec.steps * spec.batch_size))
        made = new * spec.batch_size * _making_seconds(own, data, scenario.seed)
        if most == least:
            return (first + made) / spec.processes
        second = _least_seconds(scenario, built, dataclasses.replace(few, batch_size=most), data)
    each = max(0.0, second - first) / (most - least)
    return (second + each * (spec.batch_size - most) + made) / spec.processes


def _making_seconds(spec: TrainSpec, data: Any, seed: int) -> float:
    """Return by how much longer an item takes when it is asked for the first time."""
    from semsim.training.learner import Batches

    batches, taken = Batches(data, spec, seed), list[float]()
    for step in (0, 1, 1):  # the first also pays for imports
        start = time.process_time()
        batches.batch(step)
        taken.append(time.process_time() - start)
    return max(0.0, taken[1] - taken[2]) / spec.batch_size


def _least_seconds(
    scenario: Scenario, built: Built, spec: TrainSpec, data: Any, at_least: int = 1
) -> float:
    """Return the least seconds of some steps: what else runs on the machine only adds to them."""
    from semsim.training.learner import Batches, step_loss
    from semsim.training.state import State

    alone = built.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    batches = Batches(data, spec, scenario.seed)
    state = State(built.link, built.task, spec, scenario.seed)
    state.nets.train()
    weights = [p for p in state.nets.parameters() if p.requires_grad]
    batches.batch(0)  # the items are made
    taken: list[float] = []
    while len(taken) < at_least or (len(taken) < TRIES and sum(taken) < SLOW):
        start = clock()
        source, target = (part.to(built.device) for part in batches.batch(0))
        try:
            loss = step_loss(state, source, target, len(taken))
            torch.autograd.grad(loss, weights, allow_unused=True)
        except Exception as error:
            text = f"its loss gives no gradient: {unforeseen(error)}"
            raise SpecError("train", text) from error
        loss.item()  # waits for the device
        taken.append(clock() - start)
    return min(taken)


@contextlib.contextmanager
def kept(nets: nn.Module) -> Iterator[None]:
    """Give networks back as they are: running statistics too, and whether they are in training."""
    before = copy.deepcopy(nets.state_dict())
    training = {module: module.training for module in nets.modules()}
    try:
        yield
    finally:
        nets.load_state_dict(before)
        for module, flag in training.items():
            module.training = flag


def words(seconds: float) -> str:
    """Return a duration in words, to about two digits."""
    count, unit = seconds, "s"
    for size, longer in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            count, unit = seconds / size, longer
            break
    return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
