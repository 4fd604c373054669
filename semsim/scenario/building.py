"""A scenario as live parts."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from semsim import spec, zoo
from semsim.link import Link
from semsim.metrics.base import check_names
from semsim.mistakes import SpecError, blame_argument, sentence
from semsim.scenario import fields
from semsim.scenario.loading import compile_ends, load_weights, pick_device, weights_hash
from semsim.tasks.base import Task
from semsim.types import AnyLink, Transmitter

if TYPE_CHECKING:
    from semsim.scenario.scenario import Scenario


@dataclass(frozen=True)
class Built:
    """The live parts of one link."""

    link: AnyLink
    payload: Any
    task: Task
    metrics: list[Any]
    device: torch.device


def build(
    scenario: Scenario, device: str | torch.device | None = None, weights: Path | None = None
) -> Built:
    """Construct the live parts of this one link on a device and load its weights.

    Args:
        device: instead of the scenario's.
        weights: a file to load where the scenario names no weights, because it trains its own.
    """
    if scenario.federated is not None:
        return scenario.of_client().build(device, weights)
    link, task = build_learner(scenario, weights)
    device = torch.device(pick_device(scenario.device) if device is None else device)
    metrics = [_construct_part(m, f"metrics[{i}]") for i, m in enumerate(scenario.metrics)]
    try:
        check_names(metrics)
    except ValueError as error:
        raise SpecError("metrics", sentence(error)) from error
    payload = _construct(scenario, "payload")
    return Built(link.to(device), payload, task.to(device), metrics, device)


def build_learner(scenario: Scenario, weights: Path | None = None) -> tuple[AnyLink, Task]:
    """Construct what can be trained, the link and its task, as :func:`build` does."""
    make = functools.partial(_construct, scenario)
    transmitter, channel = make("transmitter"), make("channel")
    receiver_spec = scenario.receiver_spec()
    receiver = None if receiver_spec is None else _construct_part(receiver_spec, "receiver")
    ends = {
        f"csi_{end}": _construct_part(getattr(scenario.csi, end), f"csi.{end}")
        for end in ("rx", "tx")
    }
    ends |= {"transmitter": transmitter, "channel": channel, "receiver": receiver}
    ends["frontend"] = make("frontend")
    link = _link(scenario, ends)
    if scenario.transmitter.weights or weights:
        load_weights(scenario.transmitter.weights or str(weights), link.parts())
    if scenario.compile:
        compile_ends(link)
    task = make("task")
    if weights and (of_task := weights.with_name(zoo.OF_TASK)).is_file():
        zoo.load_parts(of_task, dict(task.named_children()))
    return link, task


def _link(scenario: Scenario, ends: dict[str, Any]) -> AnyLink:
    """Return the link of these ends: the one written, the codec's own, or the plain one."""
    transmitter = ends["transmitter"]
    own: Any = (isinstance(transmitter, Transmitter) and transmitter.link_class) or Link
    if ends["receiver"] is None and own is Link:
        kind = scenario.transmitter.kind
        cure = fields.HALVES if ":" in kind else "write receiver: {kind: ...}"
        raise SpecError("receiver", f"missing; {kind!r} has no other half; {cure}")
    try:
        if scenario.link is None:
            return own(**ends)  # type: ignore[no-any-return]
        others = getattr(scenario.link, "transmitters", ())
        if others:
            ends["receivers"] = [_receiver_of(*own) for own in enumerate(others)]
        link: Link = spec.build(scenario.link, **ends)
        for place, other in enumerate(others):
            if other.weights:
                with _weights_of(place):
                    load_weights(other.weights, link.parts(place + 1))  # type: ignore[call-arg]
        return link
    except SpecError as error:
        raise error.under("link") from error
    except (ValueError, TypeError) as error:
        raise blame_argument(ends, sentence(error)) from error


def weights_of_users(scenario: Scenario) -> list[str | None]:
    """Return the hash of the weights of each user from the second on, where any has some."""
    found = []
    for place, other in enumerate(getattr(scenario.link, "transmitters", ())):
        with _weights_of(place, "link"):
            found.append(other.weights and weights_hash(other.weights))
    return found if any(found) else []


def _construct(scenario: Scenario, key: str) -> Any:
    return _construct_part(getattr(scenario, key), key)


def _construct_part(part: BaseModel, path: str) -> Any:
    try:
        return spec.build(part)
    except SpecError as error:
        raise error.under(path) from error


def _receiver_of(place: int, transmitter: Any) -> Any:
    """Return the live other half of the codec of a user from the second on."""
    other = fields.receiver_of(transmitter, None)
    if other is None:
        path = f"transmitters[{place}]"
        raise SpecError(
            path, f"{transmitter.kind!r} has no receiver in the table; use a codec such as deepjscc"
        )
    return spec.build(other)


@contextlib.contextmanager
def _weights_of(place: int, *above: str) -> Iterator[None]:
    """Tell a mistake in weights at the user whose they are."""
    try:
        yield
    except SpecError as error:
        path = ".".join([*above, f"transmitters[{place}]", "weights"])
        raise SpecError(path, error.message) from error
