"""Before a training: a few items through each of its stages, so that what it refuses fails now."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from channels.one_of import OneOf
from semsim.evaluation import Stop, evaluate
from semsim.files.disk import log_all
from semsim.mistakes import SpecError, blame_argument, root_of, sentence, unforeseen
from semsim.scenario.building import Built
from semsim.scenario.fields import train_spec
from semsim.scenario.scenario import Scenario
from semsim.sweep.stages import learns, stages_of, training_data
from semsim.types import AnyLink


def rehearse(scenario: Scenario, built: Built) -> bool:
    """Send two training items as far as the loss, and one of the validation through the link.

    What the training would refuse fails now. False where there is nothing to train.
    """
    if scenario.federated is not None:
        from semsim.sweep.federation import rehearse_federation

        return rehearse_federation(scenario, built)
    for number, stage in enumerate(stages_of(scenario)):
        try:
            own = built if stage is scenario else stage.build(built.device)
            if number == 0:
                check_start(stage, own)
            if not rehearse_stage(stage, own):
                return False
            rehearse_end(stage, built, functools.partial(training_data, stage))
        except SpecError as error:
            train: Any = scenario.train
            path = error.path.removeprefix("train").lstrip(".")
            if train.stages and (not path or root_of(path) in train.stages[number]):
                blamed = SpecError(path, error.message, error.where)
                raise blamed.under("train", "stages", number) from error
            if train.channel is not None and error.path.startswith("channel"):
                raise error.under("train") from error
            raise
    return True


def check_start(scenario: Scenario, built: Built) -> None:
    """Let the task refuse to begin with its own weights, where the training names no others."""
    if getattr(scenario.train, "start", None):
        return
    try:
        built.task.check_start()
    except ValueError as error:
        names = type(scenario.task).model_fields  # type: ignore[union-attr]
        raise blame_argument(names, sentence(error)).under("task") from error


def rehearse_end(scenario: Scenario, built: Built, given: Callable[[], tuple[Any, Any]]) -> None:
    """Let the task set what it sets after a training, so that what is lacking shows now.

    Args:
        scenario: of the training.
        built: its task is told.
        given: returns payload and validation; asked only where the task is trained, for it may read
            all files once more.
    """
    if not built.task.trainable:
        return
    try:
        built.task.after_training(*given())
    except ValueError as error:
        names = type(scenario.train).model_fields
        raise blame_argument(names, sentence(error)).under("train") from error


def rehearse_stage(scenario: Scenario, built: Built) -> bool:
    """Send the first items through one stage; False where there is nothing to train."""
    from semsim.training.fabric import check_log
    from semsim.training.learner import Batches, step_loss
    from semsim.training.state import State, frozen

    payload, validation = training_data(scenario)
    if not learns(built):
        return False
    settings = train_spec(scenario.train)
    few = dataclasses.replace(settings, batch_size=min(settings.batch_size, 2))
    try:
        check_log(settings.log)
        with (
            torch.no_grad(),
            torch.random.fork_rng(),
            frozen(built.link, built.task, few.rates or {}),
        ):
            source, target = Batches(payload, few, scenario.seed).batch(0)
            state = State(built.link, built.task, few, scenario.seed)
            log_all(state.remarks)
            for _ in _each_channel(built.link):
                step_loss(state, source.to(built.device), target.to(built.device), 0)
        if validation is not None:
            evaluate(
                built.link, validation, snr_db=settings.val_snr_db[:1], task=built.task,
                metrics=[built.task.metric], stop=Stop(1, 1),
            )  # fmt: skip
    except ValueError as error:
        names = type(scenario.train).model_fields
        raise blame_argument(names, sentence(error)).under("train") from error
    except Exception as error:
        text = f"its first items do not get through: {unforeseen(error)}"
        raise SpecError("train", text) from error
    return True


def _each_channel(link: AnyLink) -> Iterator[None]:
    """Stand at each channel that a step of a training may meet."""
    several = [part for part in link.modules() if isinstance(part, OneOf)]
    if not several:
        yield
    for part in several:
        yield from part.in_turn()
