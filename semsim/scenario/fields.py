"""The fields of a scenario that are no parts: CSI at both ends, SNRs, metrics, figures."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, Field

from semsim import spec
from semsim.evaluation import Stop
from semsim.federated.settings import federated_model
from semsim.mistakes import SpecError
from semsim.plots.folder import Plot
from semsim.scenario import trained


def part_of_kind(family: str, kind: str) -> Any:
    """Return the default of a field: the part of this kind, without arguments."""
    return Field(default_factory=functools.partial(spec.parse, family, kind))


class Ends(BaseModel):
    """What each end knows of the channel."""

    model_config = spec.CLOSED
    rx: spec.nested("csi") = part_of_kind("csi", "perfect")  # type: ignore[valid-type]
    tx: spec.nested("csi") = part_of_kind("csi", "none")  # type: ignore[valid-type]


def parse_ends(value: object) -> BaseModel:
    """Return what each end knows of the channel."""
    if isinstance(value, Mapping) and "kind" in value:
        raise SpecError("kind", f"say at which end: {_ENDS}")
    if isinstance(value, Ends):
        return value
    if not isinstance(value, Mapping):
        raise SpecError("", f"must say what each end knows, such as {_ENDS}, got {value!r}")
    return spec.validate(Ends, value)


_ENDS = "csi: {rx: {kind: perfect}, tx: {kind: none}}"


TRAIN_KEYS = """    payload: what to train on.
        validation: what to validate on.
        seed: of start weights and all draws of the training; the scenario's by default. Swept, it
            gives several trainings of one scheme.
        channel: what to train over, instead of the scenario's channel.
        stages: mappings of what each stage changes, of these keys or of the parts transmitter,
            receiver, channel and task; each begins with the weights of the one before it.
    """  #: of ``train`` beyond TrainSpec
STAGE_PARTS = ("transmitter", "receiver", "channel", "task")  #: that a stage may change
LENGTH = {"steps", "minutes"}  #: keys that say how long to train, of which one counts


@functools.cache
def train_model() -> type[BaseModel]:
    """Return the closed model of ``train``: TrainSpec's fields, and what to train on."""
    from semsim.training.spec import TrainSpec

    own: dict[str, Any] = {
        "payload": (spec.nested("payload"), ...),
        "validation": (spec.nested("payload") | None, None),
        "seed": (Annotated[int, Field(strict=True, ge=0)] | None, None),
        "channel": (spec.nested("channel") | None, None),
        "stages": (tuple[dict[str, Any], ...], ()),
    }
    text = f"{TrainSpec.__doc__}{TRAIN_KEYS}"
    base = spec.settings_model(TrainSpec)
    return pydantic.create_model("train", __base__=base, __doc__=text, **own)


def parse_train(value: object) -> BaseModel:
    """Return how to train; its payload is never that of the evaluation."""
    if isinstance(value, BaseModel):
        return value
    if not isinstance(value, Mapping):
        raise SpecError(
            "", f"must be a mapping such as {{payload: ..., steps: 1000}}, got {value!r}"
        )
    train: Any = spec.validate(train_model(), value)
    train_spec(train)
    if train.minutes is not None and train.model_fields_set >= LENGTH:
        raise SpecError("steps", "does nothing beside minutes; leave one of the two out")
    for number, stage in enumerate(train.stages):
        own = {key: part for key, part in stage.items() if key not in STAGE_PARTS}
        try:
            _check_stage(own, number)
            parse_train({**of_stage(value, own), "stages": ()})
        except SpecError as error:
            raise error.under("stages", number) from error
    return train  # type: ignore[no-any-return]


def _check_stage(own: Mapping[str, Any], number: int) -> None:
    """Refuse what no stage can have of its own, or none but the first."""
    if "stages" in own:
        raise SpecError("stages", "a stage has no stages; write them all in one list")
    if "seed" in own:
        raise SpecError("seed", "all stages draw from one seed; write it beside stages")
    if number and own.get("start") is not None:
        raise SpecError(
            "start", "a later stage begins with the weights of the one before; leave it out"
        )


def of_stage(train: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage: its own beside the training's, but one length."""
    idle = LENGTH if own.keys() & LENGTH else ()
    return {**{k: v for k, v in train.items() if k not in idle}, **own}


def learned(train: Any) -> dict[str, Any]:
    """Return the settings of a training that its weights depend on, those of its stages too.

    Others are at their defaults, and the seed is none of them.
    """
    from semsim.training.spec import OF_NO_WEIGHT, TrainSpec

    usual = {key: getattr(TrainSpec, key) for key in OF_NO_WEIGHT}
    own = {**train.model_dump(mode="json", exclude={"seed"}), **usual}
    stages = [{k: v for k, v in s.items() if k not in OF_NO_WEIGHT} for s in own["stages"]]
    return {**own, "stages": stages}


def start_hashes(train: Any) -> dict[str, str]:
    """Return the hash of all weights that a training begins with, those of its stages too."""
    from semsim.scenario.loading import start_hash

    stages = [] if train is None else [train.start, *(s.get("start") for s in train.stages)]
    named = [[start] if isinstance(start, str) else start or () for start in stages]
    return {name: start_hash(name) for names in named for name in names}


def train_spec(train: Any) -> Any:
    """Return the live TrainSpec."""
    from semsim.training.spec import TrainSpec

    return spec.build_settings(TrainSpec, train)


SETTINGS: dict[str, Callable[[], type[BaseModel]]] = {
    "stop": lambda: spec.settings_model(Stop),
    "train": train_model,
    "federated": federated_model,
    "plots": lambda: spec.settings_model(Plot),
}  #: keys that hold a value object without kinds


def parse_plots(value: object) -> tuple[BaseModel, ...]:
    """Return which figures to draw."""
    if not isinstance(value, list | tuple):
        raise SpecError("", f"must be a list such as {_PLOTS}, got {value!r}")
    plots = []
    for index, item in enumerate(value):
        try:
            plots.append(_plot(item))
        except SpecError as error:
            raise error.under(index) from error
    return tuple(plots)


_PLOTS = "plots: [{y: psnr, by: transmitter}]"


def _plot(value: object) -> BaseModel:
    model = spec.settings_model(Plot)
    if not isinstance(value, Mapping | model):
        raise SpecError("", f"must be a mapping as in {_PLOTS}, got {value!r}")
    return value if isinstance(value, model) else spec.validate(model, value)


def parse_transmitter(value: object) -> BaseModel:
    """Return the transmitter; weights bring along the arguments that they were trained with."""
    weights = value.get("weights") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(weights, str):
        return spec.parse("transmitter", value)
    from semsim import zoo

    if weights not in zoo.names():
        return trained.completed("transmitter", value, trained.specs_of(weights).get("transmitter"))
    card = zoo.card(weights)
    specs = card["spec"]
    if "transmitter" not in specs:
        raise SpecError("weights", f"{weights!r} are not those of a transmitter and its receiver")
    rows = spec.FAMILIES["transmitter"].items()
    theirs = [kind for kind, row in rows if row == card["classes"]["transmitter"]]
    kind = value.get("kind")
    if isinstance(kind, str) and kind in spec.FAMILIES["transmitter"] and kind not in theirs:
        named = f"kind {theirs[0]}" if theirs else card["classes"]["transmitter"]
        raise SpecError("weights", f"{weights!r} belong to {named}, not to {kind!r}")
    return spec.parse("transmitter", {**zoo.arguments(specs["transmitter"]), **value})


def parse_receiver(value: object) -> BaseModel | None:
    """Return the receiver; a transmitter that brings both ends has none in the table."""
    kind = value.get("kind") if isinstance(value, Mapping) else value
    transmitters, receivers = spec.FAMILIES["transmitter"], spec.FAMILIES["receiver"]
    if isinstance(kind, str) and kind in transmitters and kind not in receivers:
        raise SpecError("kind", f"transmitter {kind!r} brings both ends; leave receiver out")
    return None if value is None else spec.parse("receiver", value)


def parse_link(value: object) -> BaseModel | None:
    """Return the link where it is more than transmitter, channel and receiver in a row."""
    if isinstance(value, Mapping) and isinstance(value.get("transmitters"), list):
        value = {**value, "transmitters": _codecs(value["transmitters"])}
    link = None if value is None else spec.parse("link", value)
    return None if link is None or link.kind == "direct" else link  # type: ignore[attr-defined]


def _codecs(values: list[object]) -> list[BaseModel]:
    found = []
    for index, value in enumerate(values):
        try:
            found.append(parse_transmitter(value))
        except SpecError as error:
            raise error.under("transmitters", index) from error
    return found


def receiver_of(transmitter: Any, receiver: Any) -> BaseModel | None:
    """Return the receiver of a transmitter, as far as written.

    Of the transmitter's kind it takes over arguments of the same name, but for those that its
    class says are ``without_effect`` beside what is written. One that wraps another, its
    ``codec``, wraps the transmitter's other half where it names none; weights of such a stage bring
    along the stage and its sizes.
    """
    from semsim import zoo

    weights = transmitter.weights
    theirs = trained.specs_of(weights).get("receiver", {}) if weights else {}
    whole = weights in zoo.names() or receiver is None
    if receiver is None and "kind" in theirs:
        receiver = spec.parse("receiver", theirs["kind"])
    if receiver is None or "codec" not in type(receiver).model_fields:
        return _other_half(transmitter, receiver)
    own_keys = type(receiver).model_fields.keys() - {"codec", "kind"}
    if weights in zoo.names() and theirs.get("kind") != receiver.kind:
        raise SpecError(
            "transmitter.weights",
            f"{weights!r} hold no {receiver.kind}; name weights that do, or train the link",
        )
    own = receiver.model_dump(mode="json", exclude_unset=True)
    own["codec"] = own.get("codec") or _other_half(transmitter, None)
    if whole:
        sizes = {k: v for k, v in theirs.items() if k in own_keys}
        return spec.validate(type(receiver), {**sizes, **own})
    return trained.completed("receiver", {"kind": receiver.kind, **own}, theirs)


HALVES = (
    "name both classes alike in one module, XTransmitter and XReceiver, or write receiver: {kind: "
    "...}, within a sweep transmitter: {LABEL: {transmitter: ..., receiver: ...}}"
)  #: how a transmitter of a user's own gets its receiver


def _other_half(transmitter: Any, receiver: Any) -> BaseModel | None:
    half = transmitter.kind.replace("Transmitter", "Receiver")
    kind = half if receiver is None else receiver.kind
    if kind != half:
        return receiver
    is_outside = ":" in kind and kind != transmitter.kind
    if kind not in spec.FAMILIES["receiver"] and not is_outside:
        return receiver
    try:
        model = spec.model_of("receiver", kind)
    except SpecError as error:
        message = f"missing, and no other half of {transmitter.kind!r} found: {error}; {HALVES}"
        raise SpecError("receiver", message) from error
    inherited = transmitter.model_dump(mode="json")
    own = {} if receiver is None else receiver.model_dump(mode="json", exclude_unset=True)
    without_effect = getattr(spec.resolve("receiver", kind), "without_effect", None)
    idle = without_effect(**own) if without_effect else ()
    names = model.model_fields.keys() - {"kind", *idle}
    shared = {k: v for k, v in inherited.items() if k in names}
    return spec.validate(model, {**shared, **own, "kind": kind})


_SNRS = "such as [0, 5, 10]"


def parse_snrs(value: object) -> tuple[float, ...]:
    """Return SNRs in dB, from one number or a list."""
    values = value if isinstance(value, list | tuple) else [value]
    try:
        snrs = tuple(spec.to_number(v) for v in values)
    except ValueError:
        raise SpecError(
            "", f"must be a number in dB or a list of them, {_SNRS}, got {value!r}"
        ) from None
    if not snrs or any(abs(snr) > 200 and snr != math.inf for snr in snrs):
        rule = "must be one or more numbers between -200 and 200 dB, or .inf for no noise"
        raise SpecError("", f"{rule}, got {value!r}")
    if len(set(snrs)) < len(snrs):
        raise SpecError("", f"names an SNR twice: {value!r}")
    return snrs


def parse_stop(value: object) -> BaseModel:
    """Return the stop rule; a minimum that was written may not exceed the maximum."""
    stop: Any = spec.parse_settings(Stop, value)
    both = {"min_items", "max_items"} <= stop.model_fields_set
    if both and stop.max_items is not None and stop.min_items > stop.max_items:
        raise SpecError(
            "min_items", f"must be at most max_items, {stop.max_items}, got {stop.min_items}"
        )
    return stop


def parse_metrics(value: object) -> tuple[BaseModel, ...]:
    """Return the metrics, from names or mappings."""
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise SpecError("", "is empty; name at least one metric, such as [psnr]")
    parsed = []
    for index, item in enumerate(values):
        try:
            parsed.append(spec.parse("metric", item))
        except SpecError as error:
            raise error.under(index) from error
        if parsed[-1] in parsed[:-1]:
            raise SpecError("", f"names a metric twice: {item!r}").under(index)
    return tuple(parsed)
