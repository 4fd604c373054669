"""What a client of a federated scenario has of its own: its task's parts, its channel, metrics."""

from __future__ import annotations

from typing import Any

from semsim import spec
from semsim.federated.settings import federated_spec, roles
from semsim.mistakes import SpecError

#: word in ``federated.tasks`` to the kind of task beside a codec that translates for it
TASKS = {"reconstruct": "reconstruct", "classify": "recognise", "retrieve": "retrieve"}


def shown_clients(federated: Any) -> list[tuple[str, int]]:
    """Return (label, client) for each client that a run shows; none where one is chosen."""
    return [] if federated is None or federated.client is not None else roles(federated)


def values_of(scenario: Any, client: int, *, training: bool = False) -> dict[str, Any]:
    """Return the plain mapping of one client's link, which is no federation any more.

    Args:
        scenario: with ``federated``.
        client: its number.
        training: with the channel that it is trained over, where ``train`` names another.
    """
    federated, values = scenario.federated, scenario.to_dict()
    for key in ("federated", "sweep", "plots"):
        values.pop(key, None)
    task = federated_spec(federated).task_of(client)
    own = train_channel(values)
    if federated.channels:
        values["channel"] = spec.dump(federated.channels[client % len(federated.channels)])
    elif training and own is not None:
        values["channel"] = own
    if "task" in type(scenario.transmitter).model_fields:
        _translated(scenario, values, task)
    elif task != "reconstruct":
        _judged(scenario, values, task)
    elif scenario.task.kind == "reconstruct" and len(set(federated.tasks)) > 1:
        values["metrics"] = [m for m in values["metrics"] if not _is_of_classes(m)]
    if not values["metrics"]:
        raise SpecError("metrics", f"none judges the clients that {task}; add {_usual(task)}")
    return values


def train_channel(values: dict[str, Any]) -> Any:
    """Take the channel of the training out of a mapping, and return it."""
    train = values.get("train")
    if not train:
        return None
    values["train"] = {k: v for k, v in train.items() if k != "channel"}
    return train.get("channel")


def _usual(task: str) -> str:
    return "psnr" if task == "reconstruct" else "accuracy"


def _translated(scenario: Any, values: dict[str, Any], task: str) -> None:
    """Set the task of both ends of a codec that translates for it."""
    receiver = scenario.receiver_spec()
    values["transmitter"] = {**_mapping(values["transmitter"]), "task": task}
    values["receiver"] = {**_mapping(values.get("receiver") or receiver.kind), "task": task}
    kind = TASKS[task]
    if scenario.task.kind != kind:
        values["task"] = {"kind": kind}
    if kind == "retrieve":
        sizes = {"classes": receiver.classes, "embedding": receiver.embedding}
        values["task"] = {**_mapping(values["task"]), **sizes}
    is_label = task != "reconstruct"
    values["metrics"] = [m for m in values["metrics"] if _is_of_classes(m) == is_label]


def _judged(scenario: Any, values: dict[str, Any], task: str) -> None:
    """Let a network judge the images of a codec that knows no tasks."""
    if task != "classify":
        raise SpecError(
            "federated.tasks",
            f"{scenario.transmitter.kind!r} knows no task {task!r}; use kind: flsc",
        )
    if scenario.task.kind != "classify":
        values["task"] = {"kind": "classify", "weights": None, "trainable": True}


def _mapping(part: Any) -> dict[str, Any]:
    return {"kind": part} if isinstance(part, str) else dict(part)


def _is_of_classes(metric: Any) -> bool:
    part = spec.resolve("metric", _mapping(metric)["kind"])
    return bool(getattr(part, "of_classes", False))
