"""Before a run: build every link, send one item through each, say what would run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from semsim.evaluation import Row, Stop
from semsim.mistakes import SpecError
from semsim.payloads.classes import by_class, labels_of
from semsim.scenario.building import Built
from semsim.scenario.expansion import choices_of
from semsim.scenario.loading import weights_of_task
from semsim.scenario.points import Point, covering
from semsim.scenario.room import is_large
from semsim.scenario.scenario import Scenario, has_own_parts
from semsim.sweep.gains import unusual_gains
from semsim.sweep.idle import idle, remembered
from semsim.sweep.outlook import training_line
from semsim.sweep.rehearsal import rehearse
from semsim.sweep.stages import learns
from semsim.tasks.base import Task
from semsim.types import AnyLink

QUICK_ITEMS, QUICK_MINUTES = 4, 0.01
#: settings of a trial
QUICK: dict[str, dict[str, int]] = {
    "train": {"steps": 4}, "federated": {"rounds": 2, "local_steps": 2},
}  # fmt: skip


def quicker(scenario: Scenario) -> Scenario:
    """Return the scenario with few items, two SNRs and few training steps, under another name."""
    values = scenario.to_dict()
    snrs = scenario.points()[0].scenario.snr_db
    ends = sorted({snrs[0], snrs[-1]})
    for key in QUICK.keys() & values.keys():
        values[key] = _quick(values[key], key)
    if scenario.sweep:
        values["sweep"] = {path: _quick_choices(path, c) for path, c in scenario.sweep.items()}
    if "train.minutes" in scenario.sweep:
        values["train"].pop("steps")
    few = {"min_items": 1, "max_items": min(QUICK_ITEMS, scenario.stop.max_items or QUICK_ITEMS)}
    return Scenario.parse({**values, "name": f"{scenario.name}-quick", "snr_db": ends, "stop": few})


def _quick(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return settings of a training, or a federation, of few steps; its stages have few, too."""
    short = {k: v for k, v in values.items() if k != "minutes"} | QUICK[key]
    if stages := short.get("stages"):
        short["stages"] = [_quick(stage, key) for stage in stages]
    return short


def _quick_choices(path: str, choices: Any) -> Any:
    """Return the choices of a sweep, those of how long to train as short as a trial."""
    key, _, name = path.partition(".")
    if path in QUICK:
        return {label: value and _quick(value, key) for label, value in choices_of(choices)}
    if path == "train.stages":
        staged = {label: {"stages": value} for label, value in choices_of(choices)}
        return {label: _quick(value, key)["stages"] for label, value in staged.items()}
    least = {"minutes": QUICK_MINUTES, **QUICK.get(key, {})}.get(name)
    if key not in QUICK or least is None:
        return choices
    labels = [label for label, _ in choices_of(choices)]  # which figures may name
    return {label: place * least for place, label in enumerate(labels, start=1)}


class Tried(NamedTuple):
    """A link that one item went through."""

    point: Point
    built: Built
    rows: list[Row]


def tried(points: Sequence[Point], device: torch.device) -> Iterator[Tried]:
    """Build links one after the other, send one item through each, and rehearse trainings once."""
    seen = set()
    for point in covering(points):
        scenario = point.scenario
        try:
            built = scenario.build(device)
            _refuse_training_only(built.link)
            _refuse_untrained(scenario, built.task)
            rows = scenario.check(built)
            if scenario.trains() and scenario.training_hash() not in seen:
                seen.add(scenario.training_hash())
                if rehearse(scenario, built) and built.task.trainable:
                    rows = scenario.check(built)  # as the training leaves its task
        except SpecError as error:
            raise point.blamed(error) from error
        yield Tried(point, built, rows)


def _refuse_training_only(link: AnyLink) -> None:
    """Refuse a link with a part over which nothing may be measured."""
    if any(getattr(part, "only_training", False) for part in link.modules()):
        raise SpecError(
            "channel",
            "one_of is to train over: rows over it would depend on batch_size; write it at "
            "train.channel, and here one channel, or several under sweep",
        )


def _refuse_untrained(scenario: Scenario, task: Task) -> None:
    """Refuse to measure a task that learns, but has no weights and is not trained."""
    part: Any = scenario.task
    named = hasattr(part, "weights")
    given = part.weights if named else weights_of_task(part)
    if scenario.trains() or not task.trainable or given is not None:
        return
    why = f"nothing trains {part.kind!r} here, so its numbers would be those of a random network"
    train = "train: {payload: ..., steps: ...}"
    if scenario.train is not None:
        train = "through: task in train, or leave transmitter.weights out"
    if named:
        raise SpecError("task.weights", f"are not given, and {why}; name some, or write {train}")
    raise SpecError("task", f"{why}; write {train}")


def preflight(points: Sequence[Point], device: torch.device) -> None:
    """Raise SpecError where a link cannot run, before anything is written."""
    for _ in tried(points, device):
        pass


def untrained(scenario: Scenario) -> list[str]:
    """Return a sentence on each link whose codec could have weights, but has none and trains none.

    Nothing is wrong with such a link, but its networks are random, and only its numbers tell. And
    one on a training in which no link takes part, or that sees what is measured, and on channels
    of a user's own with another gain.
    """
    lines, known = [*idle(scenario), *remembered(scenario)], dict[str, bool]()
    odd = dict[str, None]()
    for point in covering(scenario.points()):
        if has_own_parts(point.scenario.content.get("channel")):
            odd |= dict.fromkeys(unusual_gains(point.scenario.build("cpu").link))
        codec = f"{point.scenario.transmitter!r} {point.scenario.receiver_spec()!r}"
        if _could_have_weights(point) and codec not in known:
            known[codec] = _is_random(point.scenario.build("cpu").link)
        if known.get(codec) and _could_have_weights(point):
            lines.append(_is_untrained(point))
    return [*lines, *odd]


def _could_have_weights(point: Point) -> bool:
    return not (point.scenario.transmitter.weights or point.scenario.trains())


def _is_untrained(point: Point) -> str:
    kind = point.scenario.transmitter.kind
    return (
        f"{point.name}: the {kind} codec is not trained; name weights (see semsim list weights) or "
        "add train, or its networks stay random"
        + ("; a class that loads its own says brings_weights = True" if ":" in kind else "")
    )


def _is_random(link: AnyLink) -> bool:
    """Tell whether a link has an end that can learn and came with no weights of its own."""
    return any(
        not end.brings_weights and parameter.requires_grad
        for end in link.ends().values()
        for parameter in end.parameters()
    )


def preflight_report(scenario: Scenario, device: torch.device) -> tuple[list[str], list[str]]:
    """Return what a run would do, link by link, and warnings, after sending items through each."""
    points, seconds, lines = scenario.points(), 0.0, list[str]()
    warnings = [*idle(scenario), *remembered(scenario)]
    trainings: dict[str, str] = {}
    read, odd, cut = dict[str, None](), dict[str, None](), dict[str, None]()  # each sentence once
    for point, built, _ in tried(points, device):
        own_parts = has_own_parts(point.scenario.content)  # which may forget the batch
        # the item that was tried also paid for imports and caches
        row = point.scenario.check(built, items=2 if own_parts else 1)[0]
        items = point.scenario.stop_rule().max_items or len(built.payload)
        seconds += row["seconds"] * items * len(point.scenario.snr_db)
        lines.append(_line(point, built, row, items))
        read |= dict.fromkeys(_read(built))
        odd |= dict.fromkeys(unusual_gains(built.link))
        cut |= dict.fromkeys(_cut(point.scenario.stop_rule(), built.payload))
        if _could_have_weights(point) and _is_random(built.link):
            warnings.append(_is_untrained(point))
        own = point.scenario
        if own.trains() and learns(built) and own.training_hash() not in trainings:
            trainings[own.training_hash()] = training_line(point.name, own, built)
    snrs = ", ".join(f"{snr:g}" for snr in points[0].scenario.snr_db)
    if len(lines) < len(points):
        seconds *= len(points) / len(lines)
        lines.append(
            f"  ... {len(lines)} of {len(points)} links were tried, the others as they run"
        )
    head = f"{scenario.name}: {len(points)} link(s) at snr_db {snrs} on {device}"
    tail = f"  item by item this would take {seconds:.0f} s; batches may be faster"
    return [head, *lines, *read, *trainings.values(), tail], [*warnings, *odd, *cut]


def _read(built: Built) -> list[str]:
    """Return what was found in files whose axes only their author knows, a line each."""
    parts = {"payload": [built.payload], "channel": built.link.modules()}
    return [
        f"  {name}: {part.found}"
        for name, several in parts.items()
        for part in several
        if isinstance(getattr(part, "found", None), str)
    ]


def _cut(stop: Stop, payload: Any) -> list[str]:
    """Return a sentence where a stop rule sees some classes alone, as they come one by one."""
    total = len(payload)
    goal = stop.min_items if stop.ci95 is not None or stop.errors is not None else total
    seen = min(goal, stop.max_items or total)
    if seen >= total or not by_class(payload):
        return []
    labels = labels_of(payload) or []
    some, every = len(set(labels[:seen])), len(set(labels))
    if some == every:
        return []
    return [
        f"stop may end after {seen} of {total} items, which come class by class, so that these are "
        f"of {some} of {every} classes; leave stop out, or name a payload of fewer items"
    ]


def _line(point: Point, built: Built, row: Row, items: int) -> str:
    """Return what is to be said of one link."""
    uses = {n[5:]: row[n] for n in row if n.startswith("uses_") and row[n]}
    ledger = " + ".join(f"{value:g} {name}" for name, value in uses.items()) or "no link"
    aside = point.scenario.trains() and not learns(built)
    return (
        f"  {point.name}: {sum(uses.values()):g} channel uses per item ({ledger}), "
        f"CBR {row['cbr']:.4g}, power {row['power']:.4g}, at most {items} items per SNR"
        + (", nothing to train" if aside else "")
        + (", tried on the centre of a large image" if is_large(built.payload) else "")
    )
