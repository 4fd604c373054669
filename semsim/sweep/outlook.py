"""How long trainings will take, as ``check`` tells it: an estimate from two items."""

from __future__ import annotations

import dataclasses
import time

import torch

from semsim.federated.settings import federated_spec
from semsim.mistakes import SpecError, unforeseen
from semsim.scenario.building import Built
from semsim.scenario.fields import train_spec
from semsim.scenario.scenario import Scenario
from semsim.sweep.trained import stages_of, training_data
from semsim.training.spec import TrainSpec

FEW = 2  #: items that are measured, as a rehearsal has them


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
            f"about {words(found)} ({' + '.join(counts)}; an estimate from {FEW} items, without "
            "validations; larger batches may take less)"
        )
    return f"  training {name}: {' + '.join(parts)}"


def step_seconds(scenario: Scenario, built: Built, spec: TrainSpec) -> float:
    """Return the seconds of a step, as few items take them to the gradient, times its share."""
    from semsim.training.learner import Batches, step_loss
    from semsim.training.state import State, frozen

    count = min(spec.batch_size, FEW)
    few = dataclasses.replace(spec, batch_size=count, processes=1, start=None, cut=False)
    batches = Batches(training_data(scenario)[0], few, scenario.seed)
    taken = []
    with torch.random.fork_rng(), frozen(built.link, built.task, few.rates or {}):
        state = State(built.link, built.task, few, scenario.seed)
        state.nets.train()
        weights = [p for p in state.nets.parameters() if p.requires_grad]
        for step in range(2):  # the first also pays for caches
            start = time.perf_counter()
            source, target = (part.to(built.device) for part in batches.batch(step))
            try:
                loss = step_loss(state, source, target, step)
                torch.autograd.grad(loss, weights, allow_unused=True)
            except Exception as error:
                text = f"its loss gives no gradient: {unforeseen(error)}"
                raise SpecError("train", text) from error
            loss.item()  # waits for the device
            taken.append(time.perf_counter() - start)
        state.nets.eval()
    return taken[-1] * spec.batch_size / count / spec.processes


def words(seconds: float) -> str:
    """Return a duration in words, to about two digits."""
    count, unit = seconds, "s"
    for size, longer in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            count, unit = seconds / size, longer
            break
    return f"{count:.2g} {unit}" if count < 10 else f"{count:.0f} {unit}"
