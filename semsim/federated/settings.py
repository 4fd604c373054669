"""The settings of ``federated:`` in a scenario."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from pydantic import BaseModel

from semsim import spec
from semsim.mistakes import SpecError, check_choices

Aggregation = Literal["fedavg", "fedprox", "fedbn", "median", "trimmed_mean", "krum", "none"]
MEANS = ("fedavg", "fedprox", "fedbn")  #: of these the server keeps a sum and no single update


@dataclass(frozen=True)
class FederatedSpec:
    """Who trains on what, and how the server puts it together; the keys of ``federated:``.

    Args:
        clients: how many.
        rounds: how often the server sends its weights out and gathers them again.
        local_steps: optimiser steps of a client in a round; its optimiser starts anew in each, so
            that a client between rounds is nothing but its data.
        fraction: share of the clients that take part in a round, drawn anew each time.
        partition: who gets which items: "iid", equal shares at random; "dirichlet", of each class
            shares drawn with ``alpha``; "by_class", each class to as few clients as possible;
            "by_file", whole files of a folder. The validation's items are shared out alike; those
            of a class that the training lacks go to all clients in equal shares, as do items
            without a class (-1).
        alpha: of "dirichlet": the smaller, the more each client's classes differ.
        least: items that every client must get; "dirichlet" is drawn again until it does.
        tasks: dealt to the clients in turn: "reconstruct", "classify" or "retrieve".
        snr_db: lowest and highest SNR in training, dealt in turn; that of ``train`` where empty.
        aggregation: "fedavg", the mean by number of items; "fedprox", the same, and clients are
            held near the server's weights; "fedbn", batch norms stay with their clients; "median",
            "trimmed_mean" and "krum", which bear with some false updates; "none", each client
            trains alone. Modules of a task are put together among its clients only; "krum" may so
            take what all share from one client and a task's modules from another, which were not
            trained together.
        mu: strength of "fedprox".
        trim: share of the updates that "trimmed_mean" leaves out at each end: at least one where
            three or more are there, and none where it is 0.
        byzantine: false updates that "krum" bears with in each task, which takes 2 byzantine + 3
            clients. Where drop-outs leave a rule too few, the record names what they were for.
        compression: of what clients send: "none"; "bf16"; "int8", a scale per tensor; "top_k", the
            largest changes, the rest being added to those of the next round.
        top_k: share of the changes that "top_k" sends.
        clip_norm: norm to which the server cuts each client's change, for differential privacy of
            clients; every client then counts alike.
        noise_multiplier: standard deviation of the noise on the sum of changes, over ``clip_norm``.
            Here it hangs on the seed; servers of real nodes, which know the seed, have a secret.
        delta: of (epsilon, delta), which the records state for zero-out adjacency: neighbours are
            two federations of which one has zero in place of a client's change.
        dropout: probability that a client of a round is never heard of again.
        stragglers: probability that a client gets only some of its steps done.
        nan_clients: clients that always send NaN.
        noise_clients: clients that always send noise.
        noise_scale: norm of that noise over the norm of what they learned.
        validate_every: rounds between validations; the last round always has one.
        engine: "local", one client after the other in this process, or "flower", each in a
            process of Flower's simulation, which the extra federated installs.
        timeout_s: with "flower", seconds after which a client that has not answered counts as
            vanished; null waits.
        client: of which client a link is; null for one link of each that differs.
    """

    clients: int = 10
    rounds: int = 20
    local_steps: int = 20
    fraction: float = 1.0
    partition: Literal["iid", "dirichlet", "by_class", "by_file"] = "iid"
    alpha: float = 0.5
    least: int = 1
    tasks: tuple[Literal["reconstruct", "classify", "retrieve"], ...] = ("reconstruct",)
    snr_db: tuple[tuple[float, float], ...] = ()
    aggregation: Aggregation = "fedavg"
    mu: float = 0.01
    trim: float = 0.2
    byzantine: int = 1
    compression: Literal["none", "bf16", "top_k", "int8"] = "none"
    top_k: float = 0.1
    clip_norm: float | None = None
    noise_multiplier: float = 0.0
    delta: float = 1e-5
    dropout: float = 0.0
    stragglers: float = 0.0
    nan_clients: tuple[int, ...] = ()
    noise_clients: tuple[int, ...] = ()
    noise_scale: float = 10.0
    validate_every: int = 5
    engine: Literal["local", "flower"] = "local"
    timeout_s: float | None = None
    client: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("clients", "rounds", "local_steps", "least", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("alpha", "delta", "noise_scale", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("fraction", "top_k"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share in (0, 1], got {getattr(self, name)}")
        if self.delta >= 1:
            raise ValueError(f"delta is a probability below 1, got {self.delta}")
        for name in ("dropout", "stragglers"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim is a share in [0, 0.5), got {self.trim}")
        if not self.mu >= 0:
            raise ValueError(f"mu is at least 0, got {self.mu}")
        if not 0 <= self.byzantine <= self.clients:
            raise ValueError(
                f"byzantine is a number of clients, 0 to {self.clients}, got {self.byzantine}"
            )
        if not self.tasks:
            raise ValueError("tasks is empty; name at least one, such as [reconstruct, classify]")
        if len(self.tasks) > self.clients:
            raise ValueError(
                f"tasks names {len(self.tasks)} for {self.clients} client(s); each needs one"
            )
        self._check_clients()
        self._check_privacy()
        self._check_krum()

    def _check_clients(self) -> None:
        for name in ("nan_clients", "noise_clients"):
            wrong = [k for k in getattr(self, name) if not 0 <= k < self.clients]
            if wrong:
                raise ValueError(f"{name} are numbers from 0 to {self.clients - 1}, got {wrong[0]}")
        if self.client is not None and not 0 <= self.client < self.clients:
            raise ValueError(f"client is a number from 0 to {self.clients - 1}, got {self.client}")
        for low, high in self.snr_db:
            if not -200 <= low <= high <= 200:
                raise ValueError(f"snr_db holds pairs from low to high in dB, got [{low}, {high}]")

    def _check_privacy(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be > 0, got {self.clip_norm}")
        if self.noise_multiplier < 0 or (self.noise_multiplier and self.clip_norm is None):
            raise ValueError(
                "noise_multiplier is at least 0 and needs clip_norm, which bounds what one client "
                f"can change, got {self.noise_multiplier}; write clip_norm: 1.0"
            )
        if self.clip_norm is not None and self.aggregation not in MEANS:
            raise ValueError(
                f"clip_norm is for a mean of changes, got aggregation: {self.aggregation}; write "
                f"one of {', '.join(MEANS)}"
            )

    def _check_krum(self) -> None:
        if self.aggregation != "krum":
            return
        for task in dict.fromkeys(self.tasks):
            count = sum(self.task_of(k) == task for k in range(self.clients))
            if (there := round(count * self.fraction)) < self.needed:
                raise ValueError(
                    f"byzantine: krum bears with {self.byzantine} false of at least {self.needed} "
                    f"updates, but a round has {there} client(s) that {task}; have more clients, "
                    "or write aggregation: median"
                )

    @property
    def needed(self) -> int:
        """How few updates a robust rule may get that bears with any false one."""
        return 2 * self.byzantine + 3 if self.aggregation == "krum" else 3

    def task_of(self, client: int) -> str:
        """Return the task of a client."""
        return self.tasks[client % len(self.tasks)]

    @property
    def keeps_own(self) -> bool:
        """Whether clients keep weights that nobody else has."""
        return self.aggregation in ("fedbn", "none")


KEYS = """    channels: dealt to the clients in turn, in training and in evaluation; the
            scenario's where empty.
    """  #: of ``federated`` beyond FederatedSpec


@functools.cache
def federated_model() -> type[BaseModel]:
    """Return the closed model of ``federated``: FederatedSpec's fields, and the channels."""
    own: dict[str, Any] = {"channels": (tuple[spec.nested("channel"), ...], ())}  # type: ignore[misc]
    base = spec.settings_model(FederatedSpec)
    doc = f"{FederatedSpec.__doc__}{KEYS}"
    return pydantic.create_model("federated", __base__=base, __doc__=doc, **own)


def parse_federated(value: object) -> BaseModel | None:
    """Return who trains on what, checked."""
    if value is None or isinstance(value, BaseModel):
        return value
    if not isinstance(value, Mapping):
        example = "{clients: 10, rounds: 20, partition: iid}"
        raise SpecError("", f"must be a mapping such as {example}, got {value!r}")
    parsed = spec.validate(federated_model(), value)
    federated_spec(parsed)
    return parsed


def federated_spec(parsed: Any) -> FederatedSpec:
    """Return the live settings."""
    return spec.build_settings(FederatedSpec, parsed)  # type: ignore[no-any-return]


def roles(parsed: Any) -> list[tuple[str, int]]:
    """Return (label, client) for each client whose link differs from those before it.

    Clients of the same task and channel share all weights unless they keep some of their own.
    """
    settings, found = federated_spec(parsed), dict[tuple[Any, ...], tuple[str, int]]()
    for client in range(settings.clients):
        key = task, place, _ = _link_of(settings, len(parsed.channels), client)
        label = task
        if settings.keeps_own:
            label += f", client {client}"
        elif len(parsed.channels) > 1:
            label += f", channel {place + 1}"
        found.setdefault(key, (label, client))
    return list(found.values())


def role_of(parsed: Any, client: int) -> int:
    """Return the client of :func:`roles` whose link a client has."""
    settings, channels = federated_spec(parsed), len(parsed.channels)
    mine = _link_of(settings, channels, client)
    return next(k for k in range(client + 1) if _link_of(settings, channels, k) == mine)


def _link_of(settings: FederatedSpec, channels: int, client: int) -> tuple[str, int, int]:
    """Return what tells a client's link from others: task, number of the channel, own weights."""
    own = client if settings.keeps_own else 0
    return settings.task_of(client), client % max(1, channels), own
