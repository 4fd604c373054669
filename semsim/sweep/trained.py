"""Weights that a scenario trains itself: once per training hash, whatever else is swept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from channels.one_of import OneOf
from semsim import spec, zoo
from semsim.evaluation import Stop, evaluate
from semsim.files import sources
from semsim.files.disk import (
    SUMS,
    damaged_files,
    locked,
    log,
    log_all,
    read_sums,
    set_aside,
    write_sums,
)
from semsim.mistakes import SpecError, blame_argument, root_of, sentence, unforeseen
from semsim.scenario.building import Built
from semsim.scenario.fields import STAGE_PARTS, of_stage, train_spec
from semsim.scenario.loading import check_files, pick_device
from semsim.scenario.points import Point
from semsim.scenario.scenario import Scenario
from semsim.seeds import seed_of
from semsim.types import AnyLink

#: what a training leaves for a run to load
KEPT = (zoo.OF_LINK, "weights.json", zoo.OF_TASK, str(Path(zoo.OF_TASK).with_suffix(".json")))


def train_all(
    scenario: Scenario,
    folder: Path,
    device: str | None = None,
    *,
    fresh: bool = False,
    progress: bool = False,
) -> Iterator[str]:
    """Train every link of a scenario that trains; yield a line on each.

    Args:
        scenario: with ``train``.
        folder: the results folder; each training has its own below ``training``.
        device: instead of the scenario's.
        fresh: forget these trainings first, as far as they have come.
        progress: say on the screen that each begins and how far it is.
    """
    if scenario.train is None:
        raise SpecError("train", "missing; say what to train on: train: {payload: ..., steps: ...}")
    where = pick_device(device or scenario.device)
    done: set[Path] = set()
    sources.refresh()
    points = scenario.points()
    if all(p.scenario.transmitter.weights for p in points) and not any(map(_trains, points)):
        raise SpecError("transmitter.weights", "is given, so there is nothing to train")
    with locked(folder):
        if fresh:
            forget(points, folder)
        _rehearse_all(points, folder, where)
        for point in points:
            weights = own_weights(point.scenario, folder, where, progress=progress)
            if weights is None:
                named = point.scenario.transmitter.weights
                yield f"{point.name}: " + (f"has weights, {named}" if named else "nothing to train")
            elif weights not in done:
                done.add(weights)
                yield f"{point.name}: {weights}"


def _rehearse_all(points: Sequence[Point], folder: Path, device: torch.device) -> None:
    """Send some items through each training that is not finished, before the first begins."""
    seen = set[str]()
    for point in points:
        own = point.scenario
        if not own.trains() or own.training_hash() in seen:
            continue
        seen.add(own.training_hash())
        try:
            if not _is_trained(own, folder):
                rehearse(own, own.build(device))
        except SpecError as error:
            raise point.blamed(error) from error


def forget(points: Sequence[Point], folder: Path) -> None:
    """Delete the trainings of these links, finished or not."""
    for point in points:
        if point.scenario.trains() and (place := _place(point.scenario, folder)).is_dir():
            shutil.rmtree(place)


def check_trained(points: Sequence[Point], folder: Path) -> None:
    """Raise SpecError where a link needs a training that the folder does not hold finished."""
    for point in points:
        if point.scenario.trains() and not _is_trained(point.scenario, folder):
            raise SpecError(
                "train",
                f"shards and workers with GPUs of their own share what was trained before, and "
                f"{folder} holds no sound weights of {point.name}; run semsim train FILE first",
            )


def _is_trained(scenario: Scenario, folder: Path) -> bool:
    """Tell whether a training is finished, or has nothing to train."""
    place = _place(scenario, folder)
    if (place / SUMS).is_file():
        names = list(read_sums(place))
        return all((place / n).is_file() for n in names) and not damaged_files(place, names)
    return scenario.federated is None and not learns(scenario.build("cpu"))


def _place(scenario: Scenario, folder: Path) -> Path:
    return folder / "training" / scenario.training_hash()


def _trains(point: Point) -> bool:
    return point.scenario.trains()


def stages_of(scenario: Scenario) -> list[Scenario]:
    """Return a scenario for each stage of a training, with what the stage changes in its place."""
    values = scenario.to_dict()
    train = values["train"]
    changes: list[dict[str, Any]] = train.pop("stages", None) or []
    found = []
    if channel := train.pop("channel", None):
        values["channel"] = channel
        changes = changes or [{}]
    if not changes:
        return [scenario]
    for number, change in enumerate(changes):
        own = {key: value for key, value in change.items() if key not in STAGE_PARTS}
        parts = {key: value for key, value in change.items() if key in STAGE_PARTS}
        try:
            merged = {key: _merged(values.get(key), part) for key, part in parts.items()}
            found.append(Scenario.parse({**values, **merged, "train": of_stage(train, own)}))
        except SpecError as error:
            raise error.under("train", "stages", number) from error
    return found


def _merged(part: Any, change: Any) -> Any:
    """Return a part with some arguments changed; another kind replaces it."""
    before = {"kind": part} if isinstance(part, str) else part or {}
    kind = before.get("kind")
    if not isinstance(change, Mapping) or change.get("kind", kind) != kind:
        return change
    return {**before, **change}


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

    Damaged files are set aside and written again, from the training's checkpoint where that is
    sound. None where the scenario trains nothing, names finished weights, or has no parameters.
    """
    if not scenario.trains():
        return None
    place = _place(scenario, folder)
    if scenario.federated is not None:
        from semsim.sweep.federation import federated_weights

        return federated_weights(scenario, place, device, progress=progress)
    if _finished(place):
        return place / zoo.OF_LINK
    seed, stages = scenario.training_seed(), stages_of(scenario)
    begun: tuple[str, ...] = ()
    for number, stage in enumerate(stages, start=1):
        last = number == len(stages)
        built = _fresh(stage, seed, device)
        if not learns(built):
            log.warning("%s has no parameters, so it is not trained", _scheme(scenario))
            return None
        settings = train_spec(stage.train)
        part = scenario.task if settings.through == "task" else scenario.transmitter
        name = part.kind if len(stages) == 1 else f"stage {number}/{len(stages)}"
        settings = dataclasses.replace(settings, start=begun or settings.start)
        where = place if last else place / f"stage-{number}"
        draws = seed if number == 1 else seed_of(seed, "stage", number)  # or it saw the same again
        _fit(stage, built, settings, where, draws, f"training {name}" if progress else False)
        kept = (where / zoo.OF_LINK, where / zoo.OF_TASK)
        begun = tuple(str(file) for file in kept if file.is_file() and zoo.tensors(str(file)))
    write_sums(place, KEPT)
    return place / zoo.OF_LINK


def _fresh(scenario: Scenario, seed: int, device: torch.device) -> Built:
    """Return the parts of a link with the start weights of the scenario, not of the process."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "start"))
        return scenario.build(device)


def _fit(
    scenario: Scenario, built: Built, settings: Any, place: Path, seed: int, name: str | bool
) -> None:
    """Train one stage into its folder."""
    from semsim.training.loop import train

    payload, validation = training_data(scenario)
    result = train(
        built.link, payload, built.task, settings, folder=place, seed=seed, validation=validation,
        progress=name,
    )  # fmt: skip
    if result.weights is None:
        raise SpecError("train", f"{_scheme(scenario)} has an end that is no nn.Module to keep")


def _finished(place: Path) -> bool:
    """Tell whether a training left all its files sound; set damaged ones aside."""
    if not (place / SUMS).is_file():  # it was stopped, if only before the last file
        return False
    damaged = damaged_files(place, KEPT)
    for name in damaged:
        set_aside(place / name, "its SHA-256 is another", then="it is written again")
    if damaged or not (place / zoo.OF_LINK).is_file():
        (place / SUMS).unlink()
        return False
    return True


def learns(built: Built) -> bool:
    """Tell whether a link or its task has parameters to train."""
    parts = (built.link, built.task)
    return any(p.requires_grad for part in parts for p in part.parameters())


def _scheme(scenario: Scenario) -> str:
    return f"the link of transmitter {scenario.transmitter.kind!r}"


def rehearse(scenario: Scenario, built: Built) -> bool:
    """Send two training items as far as the loss, and one of the validation through the link.

    What the training would refuse fails now. False where there is nothing to train.
    """
    if scenario.federated is not None:
        from semsim.sweep.federation import rehearse_federation

        return rehearse_federation(scenario, built.device)
    for number, stage in enumerate(stages_of(scenario)):
        try:
            if not rehearse_stage(stage, built if stage is scenario else stage.build(built.device)):
                return False
            _rehearse_end(stage, built)
        except SpecError as error:
            train: Any = scenario.train
            path = error.path.removeprefix("train").lstrip(".")
            if train.stages and (not path or root_of(path) in train.stages[number]):
                own = SpecError(path, error.message, error.where)
                raise own.under("train", "stages", number) from error
            if train.channel is not None and error.path.startswith("channel"):
                raise error.under("train") from error
            raise
    return True


def _rehearse_end(scenario: Scenario, built: Built) -> None:
    """Let the task set what it sets after a training, so that what is lacking shows now."""
    if not built.task.trainable:
        return  # spares reading all files once more
    try:
        built.task.after_training(*training_data(scenario))
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
