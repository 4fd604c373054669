"""Weights that a scenario trains itself: once per training hash, whatever else is swept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from semsim import zoo
from semsim.files import sources
from semsim.files.disk import (
    SUMS,
    damaged_files,
    locked,
    log,
    read_sums,
    set_aside,
    write_sums,
)
from semsim.items import items_path
from semsim.mistakes import SpecError
from semsim.results import Journal
from semsim.scenario.building import Built
from semsim.scenario.fields import train_spec
from semsim.scenario.loading import pick_device
from semsim.scenario.points import Point
from semsim.scenario.scenario import Scenario, hash_of
from semsim.seeds import seed_of
from semsim.sweep.idle import go_on_from
from semsim.sweep.plan import Planned
from semsim.sweep.rehearsal import rehearse
from semsim.sweep.stages import learns, stages_of, training_data

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
        given = points[0].scenario.transmitter.weights
        raise SpecError(
            "transmitter.weights", f"is given, so there is nothing to train; {go_on_from(given)}"
        )
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
        if not has_weights(point.scenario, folder):
            raise SpecError(
                "train",
                f"shards and workers with GPUs of their own share what was trained before, and "
                f"{folder} holds no sound weights of {point.name}; run semsim train FILE first",
            )


def has_weights(scenario: Scenario, folder: Path) -> bool:
    """Tell whether a link can be built without a training."""
    return not scenario.trains() or _is_trained(scenario, folder)


def _is_trained(scenario: Scenario, folder: Path) -> bool:
    """Tell whether a training is finished, or has nothing to train."""
    place = _place(scenario, folder)
    if (place / SUMS).is_file():
        return _is_sound(place)
    return scenario.federated is None and not learns(scenario.build("cpu"))


def _is_sound(place: Path) -> bool:
    """Tell whether a training has left all its files, and none is damaged."""
    names = list(read_sums(place))
    return all((place / n).is_file() for n in names) and not damaged_files(place, names)


def forget_others(
    journal: Journal, points: Sequence[Planned], folder: Path, *, partly: bool = False
) -> set[str]:
    """Count rows of other weights than a training has left as missing; return their uids.

    Rows of versions that did not note the weights count as of others. A training that is gone is
    done again where a row of its links is missing, and then its other rows are measured again.
    They stay where all are there, of the same weights.

    Args:
        journal: of a results folder.
        points: the links of a run.
        folder: the results folder with what was trained.
        partly: whether the journal holds a part of the rows, as that of a shard.
    """
    others, home = set[str](), journal.folder.parent
    found: dict[str, dict[str, str | None]] = {}  # by training and uid, of the rows that are there
    lacking: dict[str, Planned] = {}  # by training, a link with a row that is not there
    for point in points:
        if point.training is None:
            continue
        rows = found.setdefault(point.training, {})
        for uid in point.all_uids():
            if uid in journal and items_path(home, uid).is_file():
                rows[uid] = journal.trained(uid)
            else:
                lacking.setdefault(point.training, point)
    for training, rows in found.items():
        now, theirs = weights_left(folder, training), set(rows.values())
        if not rows or (theirs == {now} and training not in lacking):
            continue
        if not _is_sound(folder / "training" / training):
            now = None  # it may be trained anew
        if now is not None:
            others |= {uid for uid, trained in rows.items() if trained != now}
        elif not partly and (len(theirs) > 1 or _is_done_again(lacking.get(training), folder)):
            others |= rows.keys()
    journal.forget(others)
    return others


def _is_done_again(lacking: Planned | None, folder: Path) -> bool:
    """Tell whether a training that is gone is needed, for a link that lacks a row."""
    return lacking is not None and not has_weights(lacking.scenario, folder)


def weights_left(folder: Path, training: str | None) -> str | None:
    """Return a hash of the weights that a training has left; None where it has left none."""
    sums = {} if training is None else read_sums(folder / "training" / training)
    weights = {n: digest for n, digest in sums.items() if n.endswith(".safetensors")}
    return hash_of(weights) if weights else None


def _place(scenario: Scenario, folder: Path) -> Path:
    return folder / "training" / scenario.training_hash()


def _trains(point: Point) -> bool:
    return point.scenario.trains()


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


def _scheme(scenario: Scenario) -> str:
    return f"the link of transmitter {scenario.transmitter.kind!r}"
