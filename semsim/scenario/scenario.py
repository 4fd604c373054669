"""A scenario: one link written down, or many of them by a sweep. Frozen, closed, hashed."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

import semsim
from channels.sionna_bridge import sionna_version
from semsim import spec
from semsim.evaluation import Row, Stop, evaluate
from semsim.federated.settings import parse_federated
from semsim.files import sources
from semsim.mistakes import IN_SWEEP, SpecError, known, unforeseen
from semsim.plots.folder import check_plot
from semsim.scenario import clients, fields
from semsim.scenario.building import Built, build, weights_of_users
from semsim.scenario.expansion import choices_of, parse_sweep
from semsim.scenario.loading import (
    check_files,
    data_hashes,
    drawn_by_sionna,
    weights_hash,
    weights_of_task,
)
from semsim.scenario.points import CLIENT, Combinations, Points
from semsim.scenario.room import checkable
from semsim.scenario.strict_yaml import located, read_yaml
from semsim.seeds import MAX_SEED

MAX_LINKS = 100_000  #: of one scenario
NOT_LEARNED = {"client", "validate_every"}  #: keys of ``federated`` that change no weight
_NOT_SWEPT = ("name", "sweep", "plots", "metrics", "stop", "device")


def _check_root(path: str) -> None:
    root = path.split(".")[0]
    names = [name for name in Scenario.model_fields if name not in _NOT_SWEPT]
    if root not in names:
        raise SpecError(f"sweep.{path}", f"no such key to sweep; {known(names, root)}")


def _check_size(sweep: Mapping[str, Any]) -> None:
    links = math.prod(map(len, sweep.values()))
    if links > MAX_LINKS:
        sizes = " x ".join(str(len(choices)) for choices in sweep.values())
        raise SpecError(
            "sweep",
            f"stands for {sizes} = {links:,} links, but one scenario holds at most {MAX_LINKS:,}; "
            "split it into several",
        )


def _name_from(stem: str) -> str:
    """Return a file's name as the name of a scenario, other characters replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-") or "scenario"


class Scenario(BaseModel):
    """One link written down, with what is sent, what is measured and at which SNRs.

    The keys of the YAML file are the fields; the keys of a part are its constructor's arguments.
    With ``sweep`` it stands for many links, one for each combination: see :meth:`points`.
    """

    model_config = spec.CLOSED

    name: str = Field(default="scenario", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0
    payload: spec.nested("payload") = None  # type: ignore[valid-type]
    transmitter: Annotated[
        Any, PlainValidator(fields.parse_transmitter), WithJsonSchema({"x-part": "transmitter"})
    ] = None
    receiver: Annotated[
        Any, PlainValidator(fields.parse_receiver), WithJsonSchema({"x-part": "receiver"})
    ] = None
    channel: spec.nested("channel") = None  # type: ignore[valid-type]
    csi: Annotated[Any, PlainValidator(fields.parse_ends)] = Field(default_factory=fields.Ends)
    frontend: spec.nested("frontend") = fields.part_of_kind("frontend", "lmmse")  # type: ignore[valid-type]
    link: Annotated[Any, PlainValidator(fields.parse_link), WithJsonSchema({"x-part": "link"})] = (
        None
    )
    task: spec.nested("task") = fields.part_of_kind("task", "reconstruct")  # type: ignore[valid-type]
    metrics: Annotated[Any, PlainValidator(fields.parse_metrics)] = None
    snr_db: Annotated[Any, PlainValidator(fields.parse_snrs)] = None
    sweep: Annotated[Any, PlainValidator(parse_sweep)] = Field(default_factory=dict)
    stop: Annotated[Any, PlainValidator(fields.parse_stop)] = Field(
        default_factory=functools.partial(fields.parse_stop, {})
    )
    plots: Annotated[Any, PlainValidator(fields.parse_plots)] = ()
    train: Annotated[Any, PlainValidator(fields.parse_train)] = None
    federated: Annotated[Any, PlainValidator(parse_federated)] = None
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 32
    device: str = "auto"
    compile: Annotated[bool, Field(strict=True)] = False

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read and check a YAML file; every mistake is one :class:`SpecError` naming its key."""
        path = Path(path)
        with located(path):
            return cls.parse({"name": _name_from(path.stem), **read_yaml(path)})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Scenario:
        """Check a plain mapping, all points of its sweep included."""
        sources.refresh()
        values = dict(values)
        sweep = values.get("sweep")
        if isinstance(sweep, Mapping) and "snr_db" in sweep:
            if "snr_db" in values:
                raise SpecError("sweep.snr_db", "snr_db is given twice; keep one of the two")
            values["snr_db"] = sweep["snr_db"]
            values["sweep"] = {k: v for k, v in sweep.items() if k != "snr_db"}
        scenario = spec.validate(cls, values)
        for path in scenario.sweep:
            _check_root(path)
        _check_size(scenario.sweep)
        for _ in scenario.points():
            pass
        scenario.check_plots()
        return scenario

    def to_dict(self) -> dict[str, Any]:
        """Return the plain mapping of what was set; :meth:`parse` makes an equal scenario of it."""
        return self.model_dump(mode="json", exclude_unset=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the plain mapping."""
        return spec.validate, (Scenario, self.to_dict())

    def points(self) -> Points:
        """Return one point for each combination of swept values, in the order written.

        Each is built when it is asked for.
        """
        base = {k: v for k, v in self.to_dict().items() if k != "sweep"}
        return Combinations(base, self.sweep, _validated).points()

    def of_client(self, client: int | None = None, *, training: bool = False) -> Scenario:
        """Return the link of one client of a federation as a scenario without one."""
        number = (self.federated.client or 0) if client is None else client
        return spec.validate(Scenario, clients.values_of(self, number, training=training))

    def check_plots(self) -> None:
        """Refuse figures of columns or metrics that the rows will not have."""
        swept = {
            path: [str(label) for label, _ in choices_of(choices)]
            for path, choices in self.sweep.items()
        }
        if self.link is not None or any(path.startswith("link") for path in self.sweep):
            swept["user"] = []
        if self.federated is not None:
            swept[CLIENT] = [label for label, _ in clients.shown_clients(self.federated)]
        parts = [spec.resolve("metric", metric.kind) for metric in self.metrics or ()]
        names: list[Any] = [getattr(part, "name", None) for part in parts]
        for index, plot in enumerate(self.plots):
            try:
                check_plot(plot, swept, [] if None in names else names)
            except SpecError as error:
                raise error.under("plots", index) from error

    def receiver_spec(self) -> BaseModel | None:
        """Return the receiver, with what the transmitter and its weights decide filled in.

        None where none is given and the transmitter has no other half in the table.
        """
        return fields.receiver_of(self.transmitter, self.receiver)

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """All that decides the results of this one link, defaults filled in, but no SNR.

        Kept, so that a file of weights that changes during a run splits no results.
        """
        skip = {"name", "snr_db", "sweep", "plots", "device", "train"}
        content = self.model_dump(mode="json", exclude=skip)
        receiver = self.receiver_spec()
        content["receiver"] = receiver and spec.dump(receiver)
        weights = self.transmitter.weights
        content["weights"] = weights and weights_hash(weights)
        if of_users := weights_of_users(self):
            content["weights_of_users"] = of_users
        if self.trains():
            own = self.training_hash()
            content["weights"] = [content["weights"], own] if weights else own
        if of_task := weights_of_task(self.task):
            content["task_weights"] = of_task
        for key in ("link", "federated"):
            if getattr(self, key) is None:
                del content[key]
        drawn = (self.payload, self.channel, self.link, self.train if self.trains() else None)
        if any(map(drawn_by_sionna, drawn)):
            content["sionna"] = sionna_version()  # in no training's hash, which may be long
        return {**content, "data": data_hashes(content), "version": semsim.__version__}

    @property
    def users(self) -> int:
        """How many users the link has, each with rows of its own."""
        return int(getattr(self.link, "users", 1))

    def uid(self, snr_db: float | None = None, user: int = 1) -> str:
        """Return the hash of the content, at one SNR where given; results are kept under it."""
        of_user = {"user": user} if user > 1 else {}
        return hash_of({**self.content, "snr_db": snr_db, **of_user})

    def uids(self, snr_db: float) -> list[str]:
        """Return the hash at one SNR of each user."""
        return [self.uid(snr_db, user) for user in range(1, self.users + 1)]

    def trains(self) -> bool:
        """Tell whether it trains weights of its own: its link's, or those of its task alone."""
        if self.train is None:
            return False
        return not self.transmitter.weights or self.train.through == "task"

    def training_seed(self) -> int:
        """Return the seed of start weights and of all draws of the training."""
        own = getattr(self.train, "seed", None)
        return self.seed if own is None else int(own)

    def training_hash(self) -> str:
        """Return the hash of all that decides training, the same for points that share it."""
        keys = ("seed", "transmitter", "channel", "csi", "frontend", "task")
        content = self.model_dump(mode="json", include=set(keys))
        if self.link is not None:
            content["link"] = spec.dump(self.link)
        content["seed"] = self.training_seed()
        content["train"] = {} if self.train is None else fields.learned(self.train)
        receiver = self.receiver_spec()
        content["receiver"] = receiver and spec.dump(receiver)
        if of_task := weights_of_task(self.task):
            content["task_weights"] = of_task
        if self.federated is not None:
            content["federated"] = self.federated.model_dump(mode="json", exclude=NOT_LEARNED)
        if self.compile:
            content["compile"] = True
        if self.train is not None and self.train.channel is not None:
            content["channel"] = None  # it decides what is measured, not what is learned
        if of_users := weights_of_users(self):
            content["weights_of_users"] = of_users
        if begun := fields.start_hashes(self.train):
            content["start"] = begun
        return hash_of({**content, "data": data_hashes(content), "version": semsim.__version__})

    def build(self, device: str | torch.device | None = None, weights: Path | None = None) -> Built:
        """Construct the live parts of this one link on a device and load its weights.

        Args:
            device: instead of the scenario's.
            weights: a file to load where the scenario names no weights, because it trains its own.
        """
        return build(self, device, weights)

    def stop_rule(self) -> Stop:
        """Return the live stop rule."""
        return spec.build_settings(Stop, self.stop)

    def check(self, built: Built | None = None, *, items: int = 1) -> list[Row]:
        """Send one item through the link, or some, so that a wrong shape fails now; return rows.

        Of an image beyond a megapixel its centre is sent, and the rows say what the whole costs.
        """
        built = built or self.build()
        try:
            self.stop_rule().check_metrics(built.metrics)
        except ValueError as error:
            raise SpecError("stop.errors", str(error).partition(" ")[2]) from error
        largest = check_files(built.payload, "payload")
        batch = min(self.batch_size, self.stop_rule().max_items or len(built.payload))
        try:
            payload, times = checkable(built, self.snr_db[0], batch, largest)
            rows = evaluate(
                built.link, payload, snr_db=self.snr_db[:1], metrics=built.metrics,
                task=built.task, stop=Stop(1, items), seed=self.seed, batch_size=items,
            )  # fmt: skip
        except SpecError:
            raise
        except Exception as error:
            raise self._blame(error) from error
        rows = [{**row, "seconds": row["seconds"] / row["n"]} for row in rows]
        grown = [key for key in rows[0] if key == "seconds" or key.startswith("uses_")]
        return [{**row, **{key: times * row[key] for key in grown}} for row in rows]

    def _blame(self, error: Exception) -> SpecError:
        """Point at the metric that complains, else say in which code the first item failed."""
        text = " ".join(str(error).split())
        for index, metric in enumerate(self.metrics):
            if text.split(" ")[0].strip(":") == metric.kind:
                return SpecError(f"metrics[{index}]", text)
        if isinstance(error, ValueError):
            return SpecError("", f"the first item does not get through: {text}")
        return SpecError("", f"the first item does not get through: {unforeseen(error)}")


def has_own_parts(content: Any) -> bool:
    """Tell whether a part is a class of the user's, ``module:Class``, anywhere in a scenario."""
    if isinstance(content, dict):
        kind = content.get("kind")
        own = isinstance(kind, str) and ":" in kind
        return own or any(map(has_own_parts, content.values()))
    return isinstance(content, list | tuple) and any(map(has_own_parts, content))


def hash_of(content: Any) -> str:
    """Return the hash of plain values, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _validated(values: dict[str, Any], combination: tuple[tuple[str, Any, Any], ...]) -> Scenario:
    """Return the scenario of one point; errors say at which swept values."""
    try:
        scenario = spec.validate(Scenario, values)
        for key in ("payload", "transmitter", "channel", "metrics", "snr_db"):
            if getattr(scenario, key) is None:
                raise SpecError(key, f"missing; {_EXAMPLES[key]}")
        if scenario.federated is not None and not scenario.trains():
            weights = scenario.transmitter.weights
            why = f"{weights} is trained" if scenario.train else "missing"
            key = "transmitter.weights" if scenario.train else "train"
            raise SpecError(key, f"{why}, so federated has nothing to do; {_FEDERATED}")
        return scenario
    except SpecError as error:
        if not combination:
            raise
        chosen = ", ".join(f"{path} = {label}" for path, label, _ in combination)
        raise SpecError(error.path, f"{error.message} ({IN_SWEEP} {chosen})") from error


_FEDERATED = "leave it out, or write train: {payload: ...} and no transmitter.weights"
_EXAMPLES = {
    "payload": "say what is sent, such as payload: {kind: photos}",
    "transmitter": "say how it is sent, such as transmitter: {kind: deepjscc, cbr: 1/16}",
    "channel": "say over what, such as channel: {kind: awgn}",
    "metrics": "say what is measured, such as metrics: [psnr]",
    "snr_db": "say at which SNRs, such as snr_db: [0, 5, 10]",
}
