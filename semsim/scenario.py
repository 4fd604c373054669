"""A scenario: one link written down, or many of them by a sweep. Frozen, closed, hashed."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from torch import nn

import semsim
from semsim import spec
from semsim.evaluation import Row, Stop, evaluate
from semsim.link import Link
from semsim.spec import SpecError, known
from semsim.strict_yaml import read_yaml

_CLOSED = ConfigDict(extra="forbid", frozen=True)
_NOT_SWEPT = ("name", "sweep", "plots", "metrics", "stop", "device")


def _part(family: str, kind: str) -> Any:
    return Field(default_factory=functools.partial(spec.parse, family, kind))


class Ends(BaseModel):
    """What each end knows of the channel."""

    model_config = _CLOSED
    rx: spec.nested("csi") = _part("csi", "perfect")  # type: ignore[valid-type]
    tx: spec.nested("csi") = _part("csi", "none")  # type: ignore[valid-type]


class Plot(BaseModel):
    """One figure: a metric over a column of the rows, a line for each value of another column."""

    model_config = _CLOSED
    x: str = "snr_db"
    y: str
    by: str | None = None
    theory: dict[str, str] = Field(default_factory=dict)


def _parse_ends(value: object) -> BaseModel:
    if isinstance(value, Mapping) and "kind" in value:
        raise SpecError("kind", "say at which end: csi: {rx: {kind: ...}, tx: {kind: ...}}")
    return value if isinstance(value, Ends) else spec.validate(Ends, value)


def _parse_train(value: object) -> Any:
    return spec.parse_settings(_train_spec(), value)


def _train_spec() -> type:
    from semsim.training import TrainSpec

    return TrainSpec


SETTINGS: dict[str, Callable[[], type]] = {
    "stop": lambda: Stop,
    "train": _train_spec,
    "plots": lambda: Plot,
}  #: keys that hold a value object without kinds


def _parse_plot(value: object) -> BaseModel:
    return value if isinstance(value, Plot) else spec.validate(Plot, value)


def _parse_snrs(value: object) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    try:
        snrs = tuple(spec.to_number(v) for v in values)
    except ValueError:
        raise SpecError("", f"must be a number in dB or a list of them, got {value!r}") from None
    if not snrs or any(abs(snr) > 200 for snr in snrs):
        raise SpecError("", f"must be one or more numbers between -200 and 200 dB, got {value!r}")
    if len(set(snrs)) < len(snrs):
        raise SpecError("", f"names an SNR twice: {value!r}")
    return snrs


def _parse_metrics(value: object) -> tuple[BaseModel, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise SpecError("", "is empty; name at least one metric, such as [psnr]")
    parsed = []
    for index, item in enumerate(values):
        try:
            parsed.append(spec.parse("metric", item))
        except SpecError as error:
            raise error.under(index) from error
    return tuple(parsed)


def _parse_sweep(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError("", "must map dotted keys to lists, such as {channel.num_rx: [1, 2]}")
    for path, choices in value.items():
        if not isinstance(choices, list | tuple | Mapping):
            raise SpecError(path, f"must be a list, or a mapping of labels, got {choices!r}")
        if not choices:
            raise SpecError(path, "is empty; give at least one value, or leave the key out")
        _check_root(path)
    return dict(value)


def _check_root(path: str) -> None:
    root = path.split(".")[0]
    names = [name for name in Scenario.model_fields if name not in _NOT_SWEPT]
    if root not in names:
        raise SpecError(path, f"no such key to sweep; {known(names, root)}")


class Scenario(BaseModel):
    """One link written down, with what is sent, what is measured and at which SNRs.

    The keys of the YAML file are the fields; ``docs`` of each part are its constructor's. With
    ``sweep`` it stands for many links, one for each combination: see :meth:`points`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str = Field(default="scenario", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Annotated[int, Field(strict=True, ge=0)] = 0
    payload: spec.nested("payload") = None  # type: ignore[valid-type]
    transmitter: spec.nested("transmitter") = None  # type: ignore[valid-type]
    receiver: spec.nested("receiver") = None  # type: ignore[valid-type]
    channel: spec.nested("channel") = None  # type: ignore[valid-type]
    csi: Annotated[Any, PlainValidator(_parse_ends)] = Field(default_factory=Ends)
    frontend: spec.nested("frontend") = _part("frontend", "lmmse")  # type: ignore[valid-type]
    task: spec.nested("task") = _part("task", "reconstruct")  # type: ignore[valid-type]
    metrics: Annotated[Any, PlainValidator(_parse_metrics)] = None
    snr_db: Annotated[Any, PlainValidator(_parse_snrs)] = None
    sweep: Annotated[Any, PlainValidator(_parse_sweep)] = Field(default_factory=dict)
    stop: spec.settings(Stop) = Field(  # type: ignore[valid-type]
        default_factory=functools.partial(spec.parse_settings, Stop, {})
    )
    plots: tuple[Annotated[Any, PlainValidator(_parse_plot)], ...] = ()
    train: Annotated[Any, PlainValidator(_parse_train)] = None
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 32
    device: str = "auto"

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read and check a YAML file; every mistake is one :class:`SpecError` naming its key."""
        path = Path(path)
        return cls.parse({"name": path.stem, **read_yaml(path)})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Scenario:
        """Check a plain mapping, all points of its sweep included."""
        values = dict(values)
        sweep = values.get("sweep")
        if isinstance(sweep, Mapping) and "snr_db" in sweep:
            if "snr_db" in values:
                raise SpecError("sweep.snr_db", "snr_db is given twice; keep one of the two")
            values["snr_db"] = sweep["snr_db"]
            values["sweep"] = {k: v for k, v in sweep.items() if k != "snr_db"}
        scenario = spec.validate(cls, values)
        scenario.points()
        return scenario

    def to_dict(self) -> dict[str, Any]:
        """Return the plain mapping of what was set; :meth:`parse` makes an equal scenario of it."""
        return self.model_dump(mode="json", exclude_unset=True)

    def points(self) -> list[Point]:
        """Return one point for each combination of swept values, in the order written."""
        base = {k: v for k, v in self.to_dict().items() if k != "sweep"}
        axes = [
            [(path, label, value) for label, value in _choices(choices)]
            for path, choices in self.sweep.items()
        ]
        points = []
        for combination in itertools.product(*axes):
            values = json.loads(json.dumps(base))
            for path, _, value in sorted(combination, key=lambda choice: choice[0].count(".")):
                _set(values, path, value)
            points.append(Point(_validated(values, combination), dict(c[:2] for c in combination)))
        return points

    def receiver_spec(self) -> BaseModel | None:
        """Return the receiver: as given, else the transmitter's other half with its arguments."""
        if self.receiver is not None:
            return self.receiver
        kind = self.transmitter.kind.replace("Transmitter", "Receiver")
        is_outside = ":" in kind
        if kind not in spec.FAMILIES["receiver"] and not is_outside:
            return None
        try:
            model = spec.model_of("receiver", kind)
        except SpecError as error:
            message = f"missing, and no other half of {self.transmitter.kind!r} found: {error}"
            raise SpecError("receiver", message) from error
        given = self.transmitter.model_dump(mode="json")
        shared = {k: v for k, v in given.items() if k in model.model_fields and k != "kind"}
        return spec.validate(model, {"kind": kind, **shared})

    def content(self) -> dict[str, Any]:
        """Return all that decides the results of this one link, defaults filled in, but no SNR."""
        skip = {"name", "snr_db", "sweep", "plots", "device", "train"}
        content = self.model_dump(mode="json", exclude=skip)
        receiver = self.receiver_spec()
        content["receiver"] = receiver and spec.dump(receiver)
        weights = self.transmitter.weights
        content["weights"] = weights and weights_hash(weights)
        if self.train is not None and not weights:
            content["weights"] = self.training_hash()
        return {**content, "version": semsim.__version__}

    def uid(self, snr_db: float | None = None) -> str:
        """Return the hash of the content, at one SNR where given; results are kept under it."""
        return _hash({**self.content(), "snr_db": snr_db})

    def training_hash(self) -> str:
        """Return the hash of all that decides training, the same for points that share it."""
        keys = ("seed", "transmitter", "receiver", "channel", "csi", "frontend", "task", "train")
        content = self.model_dump(mode="json", include=set(keys))
        return _hash({**content, "version": semsim.__version__})

    def build(self, device: str | torch.device | None = None) -> Built:
        """Construct the live parts of this one link on a device and load its weights."""
        make = functools.partial(_construct, self)
        transmitter, channel = make("transmitter"), make("channel")
        receiver_spec = self.receiver_spec()
        receiver = None if receiver_spec is None else _construct_part(receiver_spec, "receiver")
        ends = {
            f"csi_{end}": _construct_part(getattr(self.csi, end), f"csi.{end}")
            for end in ("rx", "tx")
        }
        link_class = getattr(type(transmitter), "link_class", Link)
        if receiver is None and link_class is Link:
            raise SpecError("receiver", f"missing; {self.transmitter.kind!r} has no other half")
        link = link_class(transmitter, channel, receiver, frontend=make("frontend"), **ends)
        if self.transmitter.weights:
            _load_weights(self.transmitter.weights, transmitter, receiver)
        device = pick_device(self.device) if device is None else device
        metrics = [_construct_part(m, f"metrics[{i}]") for i, m in enumerate(self.metrics)]
        return Built(link.to(device), make("payload"), make("task").to(device), metrics)

    def stop_rule(self) -> Stop:
        """Return the live stop rule."""
        return spec.build_settings(Stop, self.stop)

    def check(self, built: Built | None = None) -> list[Row]:
        """Send one item through the link, so that a wrong shape fails now; return its rows."""
        built = built or self.build()
        try:
            return evaluate(
                built.link, built.payload, snr_db=self.snr_db[:1], metrics=built.metrics,
                task=built.task, stop=Stop(1, 1), seed=self.seed, batch_size=1,
            )  # fmt: skip
        except SpecError:
            raise
        except Exception as error:
            raise self._blame(error) from error

    def _blame(self, error: Exception) -> SpecError:
        """Point at the metric that complains, else say in which code the first item failed."""
        text = " ".join(str(error).split())
        for index, metric in enumerate(self.metrics):
            if text.split(" ")[0].strip(":") == metric.kind:
                return SpecError(f"metrics[{index}]", text)
        if isinstance(error, ValueError):
            return SpecError("", f"the first item does not get through: {text}")
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"
        return SpecError(
            "", f"the first item does not get through: {type(error).__name__}: {text} ({where})"
        )


@dataclass(frozen=True)
class Point:
    """One combination of swept values: a scenario without sweep, and labels of what was chosen."""

    scenario: Scenario
    swept: dict[str, Any]


@dataclass(frozen=True)
class Built:
    """The live parts of one link."""

    link: nn.Module
    payload: Any
    task: nn.Module
    metrics: list[Any]


def pick_device(name: str) -> torch.device:
    """Return the device of this name; ``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError):
        raise SpecError("device", f"{name!r} is not available here; use cpu or auto") from None


def weights_hash(name: str) -> str:
    """Return the SHA-256 of shipped weights by name, or of a .safetensors file."""
    from semsim import zoo

    path = Path(name)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise SpecError("transmitter.weights", f"no such file: {name}")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if name not in zoo.names():
        hint = known(zoo.names(), name)
        raise SpecError("transmitter.weights", f"no weights are called {name!r}; {hint}")
    return str(zoo.card(name)["sha256"])


def _load_weights(name: str, transmitter: nn.Module, receiver: nn.Module | None) -> None:
    from semsim import zoo

    weights_hash(name)
    try:
        zoo.load(name, transmitter, receiver)
    except (ValueError, OSError) as error:
        raise SpecError("transmitter.weights", " ".join(str(error).split())) from error


def _construct(scenario: Scenario, key: str) -> Any:
    return _construct_part(getattr(scenario, key), key)


def _construct_part(part: BaseModel, path: str) -> Any:
    try:
        return spec.build(part)
    except SpecError as error:
        raise error.under(path) from error


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _choices(choices: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (label, value); a part is labelled by its kind, and by its keys where kinds repeat."""
    if isinstance(choices, Mapping):
        yield from choices.items()
        return
    kinds = [c.get("kind") if isinstance(c, Mapping) else c for c in choices]
    for choice, kind in zip(choices, kinds, strict=True):
        if isinstance(choice, Mapping) and kinds.count(kind) > 1:
            rest = " ".join(f"{k}={v}" for k, v in choice.items() if k != "kind")
            yield f"{kind} {rest}".strip(), choice
        else:
            yield (kind if isinstance(kind, str | int | float) else json.dumps(kind)), choice


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted key; a part written as just its kind becomes a mapping."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        child = values.get(key)
        if isinstance(child, str):
            child = {"kind": child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            parent = ".".join(parents[: depth + 1])
            raise SpecError(f"sweep.{path}", f"{parent} is {child!r} and has no keys below it")
        values[key] = child
        values = child
    values[last] = value


def _validated(values: dict[str, Any], combination: tuple[tuple[str, Any, Any], ...]) -> Scenario:
    """Return the scenario of one point; errors say at which swept values."""
    try:
        scenario = spec.validate(Scenario, values)
        for key in ("payload", "transmitter", "channel", "metrics", "snr_db"):
            if getattr(scenario, key) is None:
                raise SpecError(key, f"missing; {_EXAMPLES[key]}")
        return scenario
    except SpecError as error:
        if not combination:
            raise
        chosen = ", ".join(f"{path} = {label}" for path, label, _ in combination)
        raise SpecError(error.path, f"{error.message} (in the sweep, at {chosen})") from error


_EXAMPLES = {
    "payload": "say what is sent, such as payload: {kind: photos}",
    "transmitter": "say how it is sent, such as transmitter: {kind: deepjscc, cbr: 1/16}",
    "channel": "say over what, such as channel: {kind: awgn}",
    "metrics": "say what is measured, such as metrics: [psnr]",
    "snr_db": "say at which SNRs, such as snr_db: [0, 5, 10]",
}
