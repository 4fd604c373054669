"""Before a run: build every link, send one item through each, say what would run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from semsim import spec
from semsim.evaluation import Row
from semsim.mistakes import SpecError
from semsim.scenario.building import Built
from semsim.scenario.expansion import choices_of
from semsim.scenario.points import Point
from semsim.scenario.room import is_large
from semsim.scenario.scenario import Scenario, has_own_parts
from semsim.sweep.outlook import training_line
from semsim.sweep.trained import learns, rehearse
from semsim.types import AnyLink

QUICK_ITEMS, QUICK_MINUTES = 4, 0.01
#: settings of a trial
QUICK: dict[str, dict[str, int]] = {
    "train": {"steps": 4}, "federated": {"rounds": 2, "local_steps": 2},
}  # fmt: skip
CUT = ("count", "crop", "resize", "shrink", "patches")  #: what makes no other images of a payload
MOST_CHECKED = 64  #: links of a sweep that are tried before it runs


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
    few = [(place + 1) * least for place in range(len(choices))]
    return dict(zip(choices, few, strict=True)) if isinstance(choices, Mapping) else few


def covering(points: Sequence[Point]) -> Sequence[Point]:
    """Return the links of a sweep to try before it runs: all of them where they are few.

    Of many, those that meet each swept value at least once, or MOST_CHECKED of these spread evenly.
    """
    if len(points) <= MOST_CHECKED:
        return points
    seen: set[tuple[str, str]] = set()
    chosen = []
    for index, point in enumerate(points):
        values = {(path, str(label)) for path, label in point.swept.items()}
        if values - seen:
            seen |= values
            chosen.append(index)
    step = max(len(chosen) / MOST_CHECKED, 1)
    return [points[chosen[int(i * step)]] for i in range(min(len(chosen), MOST_CHECKED))]


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
            rows = scenario.check(built)
            if scenario.trains() and scenario.training_hash() not in seen:
                seen.add(scenario.training_hash())
                if rehearse(scenario, built) and built.task.trainable:
                    rows = scenario.check(built)  # as the training leaves its task
        except SpecError as error:
            raise point.blamed(error) from error
        yield Tried(point, built, rows)


def idle(scenario: Scenario) -> list[str]:
    """Return a sentence on each thing written that no link of a sweep has a use for.

    Of an option it is no mistake: a sweep over a rule may write the options of all its rules.
    """
    scenarios = [point.scenario for point in covering(scenario.points())]
    lines = idle_training(scenario)
    for (place, name), (words, has_use) in USES.items():
        parts = ((getattr(own, place), own) for own in scenarios)
        written = [own for part, own in parts if part and name in part.model_fields_set]
        if written and not any(map(has_use, written)):
            lines.append(f"{place}.{name} does nothing here: it is for {words}")
    return lines


def _rule(key: str, value: str) -> tuple[str, Callable[[Any], bool]]:
    return f"{key}: {value}", lambda own: getattr(own.federated, key) == value


def _several(antennas: str) -> tuple[str, Callable[[Any], bool]]:
    return f"a {antennas} above 1", lambda own: getattr(own.channel, antennas, 2) > 1


_VALIDATED = "a training with a validation", lambda own: own.train.validation is not None
_SENT = (
    "a training through the link",
    lambda own: bool(own.train.stages) or own.train.through == "link",
)
_ALONE = "a training without federated", lambda own: own.federated is None
_STOPPED = (
    "a min_items, 100 where left out, below max_items",
    lambda own: own.stop.max_items is None or own.stop.min_items < own.stop.max_items,
)
_DRAWN = "drawn items, without path", lambda own: getattr(own.payload, "path", None) is None
_AGAIN = "a harq: chase or ir", lambda own: getattr(own.transmitter, "harq", None) != "none"
#: of an option at its place, what it is for, and whether a link has a use for it
USES: dict[tuple[str, str], tuple[str, Callable[[Any], bool]]] = {
    ("federated", "alpha"): _rule("partition", "dirichlet"),
    ("federated", "mu"): _rule("aggregation", "fedprox"),
    ("federated", "trim"): _rule("aggregation", "trimmed_mean"),
    ("federated", "byzantine"): _rule("aggregation", "krum"),
    ("federated", "top_k"): _rule("compression", "top_k"),
    ("federated", "timeout_s"): _rule("engine", "flower"),
    ("federated", "delta"): ("clip_norm", lambda own: own.federated.clip_norm is not None),
    ("federated", "noise_scale"): ("noise_clients", lambda own: bool(own.federated.noise_clients)),
    ("train", "val_every"): (
        "a training with a validation and without federated",
        lambda own: own.train.validation is not None and own.federated is None,
    ),
    ("train", "val_snr_db"): _VALIDATED,
    ("train", "val_items"): _VALIDATED,
    **{("train", name): _ALONE for name in ("steps", "ema", "save_every", "log")},
    ("train", "snr_db"): _SENT,
    ("train", "snr_peak"): _SENT,
    ("train", "channel"): _SENT,
    **{
        ("payload", name): _DRAWN
        for name in ("contrast", "regions", "told_regions", "people", "shots")
    },
    ("transmitter", "rounds"): _AGAIN,
    ("transmitter", "round_fading"): _AGAIN,
    ("channel", "tx_correlation"): _several("num_tx"),
    ("channel", "rx_correlation"): _several("num_rx"),
    ("stop", "ci95"): _STOPPED,
    ("stop", "errors"): _STOPPED,
}


def idle_training(scenario: Scenario) -> list[str]:
    """Return a sentence on a training that no link of a sweep takes part in: all bring weights."""
    points = scenario.points()
    first = points[0].scenario
    if first.train is None or any(point.scenario.trains() for point in points):
        return []
    return [
        f"train has no part in this: transmitter.weights is {first.transmitter.weights}; to go on "
        f"from them write train: {{start: {first.transmitter.weights}, ...}} and leave "
        "transmitter.weights out"
    ]


def remembered(scenario: Scenario) -> list[str]:
    """Return a sentence where the items that are measured are those that are trained on."""
    for point in covering(scenario.points()):
        own = point.scenario
        if own.train is None or not own.trains():
            continue
        measured, seen = (
            {key: value for key, value in spec.dump(part).items() if key not in CUT}
            for part in (own.payload, own.train.payload)  # type: ignore[attr-defined]
        )
        if measured == seen:
            return [
                "train.payload has the items of payload, so rows tell how well they are "
                "remembered; write another kind, split, seed or path in one of them"
            ]
    return []


def _refuse_training_only(link: AnyLink) -> None:
    """Refuse a link with a part over which nothing may be measured."""
    if any(getattr(part, "only_training", False) for part in link.modules()):
        raise SpecError(
            "channel",
            "one_of is to train over: rows over it would depend on batch_size; write it at "
            "train.channel, and here one channel, or several under sweep",
        )


def preflight(points: Sequence[Point], device: torch.device) -> None:
    """Raise SpecError where a link cannot run, before anything is written."""
    for _ in tried(points, device):
        pass


def untrained(scenario: Scenario) -> list[str]:
    """Return a sentence on each link whose codec could have weights, but has none and trains none.

    Nothing is wrong with such a link, but its networks are random, and only its numbers tell. And
    one on a training in which no link takes part, or that sees what is measured.
    """
    lines, known = [*idle(scenario), *remembered(scenario)], dict[str, bool]()
    for point in covering(scenario.points()):
        codec = f"{point.scenario.transmitter!r} {point.scenario.receiver_spec()!r}"
        if _could_have_weights(point) and codec not in known:
            known[codec] = _is_random(point.scenario.build("cpu").link)
        if known.get(codec) and _could_have_weights(point):
            lines.append(_is_untrained(point))
    return lines


def _could_have_weights(point: Point) -> bool:
    return not (point.scenario.transmitter.weights or point.scenario.trains())


def _is_untrained(point: Point) -> str:
    return (
        f"{point.name}: the {point.scenario.transmitter.kind} codec is not trained; name weights "
        "(see semsim list weights) or add train, or its networks stay random"
    )


def _is_random(link: AnyLink) -> bool:
    """Tell whether a link has an end with parameters that came with no weights of its own."""
    return any(
        end.spec is not None and not end.brings_weights and any(True for _ in end.parameters())
        for end in link.ends().values()
    )


def preflight_report(scenario: Scenario, device: torch.device) -> tuple[list[str], list[str]]:
    """Return what a run would do, link by link, and warnings, after sending items through each."""
    points, seconds, lines = scenario.points(), 0.0, list[str]()
    warnings = [*idle(scenario), *remembered(scenario)]
    trainings: dict[str, str] = {}
    for point, built, _ in tried(points, device):
        own_parts = has_own_parts(point.scenario.content)  # which may forget the batch
        # the item that was tried also paid for imports and caches
        row = point.scenario.check(built, items=2 if own_parts else 1)[0]
        items = point.scenario.stop_rule().max_items or len(built.payload)
        seconds += row["seconds"] * items * len(point.scenario.snr_db)
        lines.append(_line(point, built, row, items))
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
    return [head, *lines, *trainings.values(), tail], warnings


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
