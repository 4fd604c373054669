"""A federated scenario: its clients as live parts, its training, the weights that a run then loads.

training/<hash>/federation.pt          the server's file, from which a killed training goes on
training/<hash>/clients/               what clients keep for themselves
training/<hash>/client-<n>/            weights of each client whose link differs from the others
training/<hash>/rounds.csv ...         records, validations, partition, and figures of them
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch

from semsim import zoo
from semsim.evaluation import Stop, evaluate
from semsim.federated.client import Member
from semsim.federated.federation import Federation
from semsim.federated.figures import write_records
from semsim.federated.flower import check_installed, simulate
from semsim.federated.partition import Shard, histogram, shares, split
from semsim.federated.screen import RoundScreen
from semsim.federated.server import Server
from semsim.federated.settings import federated_spec, role_of, roles
from semsim.files.disk import SUMS, damaged_files, log, set_aside, write_sums
from semsim.mistakes import SpecError, blame_argument, sentence
from semsim.payloads.classes import labels_of, some_of
from semsim.scenario.building import Built, build_learner
from semsim.scenario.fields import train_spec
from semsim.scenario.scenario import Scenario
from semsim.seeds import seed_of
from semsim.sweep.rehearsal import check_start, rehearse_end, rehearse_stage
from semsim.sweep.stages import training_data

FIXED = {"minutes": None, "processes": 1, "stages": (), "through": "link", "start": None}


class ScenarioClients:
    """The clients of a scenario; it pickles as the scenario, and each process reads the data once.

    Args:
        scenario: with ``train`` and ``federated``; its client does not matter.
        device: where clients train.
    """

    def __init__(self, scenario: Scenario, device: str = "cpu") -> None:
        self.scenario, self.device = scenario, torch.device(device)
        self.settings = federated_spec(scenario.federated)
        self.seed = scenario.training_seed()
        self._scenarios: dict[tuple[str, int], Scenario] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return ScenarioClients, (self.scenario, str(self.device))

    @functools.cached_property
    def data(self) -> tuple[Any, Any]:
        """What is trained on, and what is validated on or None."""
        return training_data(self.scenario)

    @functools.cached_property
    def parts(self) -> list[list[int]]:
        """The items of each client."""
        return split(self.data[0], self.settings, self.seed)

    @functools.cached_property
    def validation_parts(self) -> list[list[int]]:
        """The items of the validation that each client is tested on."""
        payload, validation = self.data
        if validation is None:
            return []
        table = shares(payload, self.settings, self.seed)
        return split(validation, self.settings, self.seed, table)

    def of_client(self, client: int) -> Scenario:
        """Return the scenario that a client trains; the same object for clients alike."""
        key = self.settings.task_of(client), client % max(1, len(self.scenario.federated.channels))
        if key not in self._scenarios:
            self._scenarios[key] = self.scenario.of_client(client, training=True)
        return self._scenarios[key]

    def member(self, client: int) -> Member:
        """Return the parts of a client, with the start weights of the scenario's seed."""
        scenario = self.of_client(client)
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(self.seed, "start"))
            link, task = build_learner(scenario)
        seed = seed_of(self.seed, "client", client)
        return Member(
            link.to(self.device), task.to(self.device), Shard(self.data[0], self.parts[client]),
            self.train_spec(client), seed, self.device,
        )  # fmt: skip

    def train_spec(self, client: int) -> Any:
        """Return how a client trains."""
        own = self.settings.snr_db
        plain = train_spec(self.scenario.train)
        snr_db = own[client % len(own)] if own else plain.snr_db
        steps = self.settings.rounds * self.settings.local_steps
        return dataclasses.replace(plain, steps=steps, ema=0.0, snr_db=snr_db)

    def validate(self, federation: Federation) -> list[dict[str, Any]]:
        """Return a row per client and SNR, of the task's metric on the client's own items."""
        rows = []
        for client, indices in enumerate(self.validation_parts):
            if not indices:
                continue
            member = federation.load(client)
            task: Any = member.task
            judged = some_of(self.data[1], indices, member.spec.val_items, self.seed)
            found = evaluate(
                member.link, Shard(self.data[1], judged), snr_db=member.spec.val_snr_db,
                metrics=[task.metric], task=task, seed=self.seed, stop=Stop(1, len(judged)),
            )  # fmt: skip
            name = self.settings.task_of(client)
            keys = ("snr_db", "metric", "value", "n", "better")
            rows += [{"client": client, "task": name, **{k: r[k] for k in keys}} for r in found]
        return rows


def federated_weights(
    scenario: Scenario, place: Path, device: torch.device, *, progress: bool = False
) -> Path:
    """Return the weights of the scenario's client, training now what is not there yet.

    Args:
        scenario: of one client.
        place: the training's folder.
        device: where to train.
        progress: say on the screen how far it is.
    """
    shown = roles(scenario.federated.model_copy(update={"client": None}))
    names = [
        f"client-{client}/{name}" for _, client in shown for name in (zoo.OF_LINK, zoo.OF_TASK)
    ]
    role = role_of(scenario.federated, scenario.federated.client or 0)
    wanted = place / f"client-{role}" / zoo.OF_LINK
    if _finished(place, names) and wanted.is_file():
        return wanted
    clients = ScenarioClients(scenario, str(device))
    check(clients)
    screen = RoundScreen(progress, place)
    federation = Federation(clients, place, validate=clients.validate, listener=screen)
    screen.begin(federation.server.round)
    if clients.settings.engine == "flower":
        simulate(federation)
    else:
        federation.run()
    for _, client in shown:
        _export(federation, client, place / f"client-{client}")
    server = federation.server
    _tell_idle(server.records)
    write_records(
        place, server.records, server.validations, histogram(clients.data[0], clients.parts)
    )
    write_sums(place, names)
    return wanted


def _tell_idle(records: list[dict[str, Any]]) -> None:
    """Say in how many rounds nothing was learned, and why in the first of them."""
    if idle := [record for record in records if not record["arrived"]]:
        refused = [f"client {k}: {why}" for k, why in idle[0]["refused"].items()]
        log.warning(
            "in %d of %d rounds no update was used; in round %d %s",
            len(idle), len(records), idle[0]["round"],
            refused[0] if refused else "all clients vanished",
        )  # fmt: skip


def _finished(place: Path, names: list[str]) -> bool:
    """Tell whether a federation left all its files sound; set damaged ones aside."""
    if not (place / SUMS).is_file():
        return False
    damaged = damaged_files(place, names)
    for name in damaged:
        set_aside(place / name, "its SHA-256 is another", then="it is written again")
    if damaged:
        (place / SUMS).unlink()
    return not damaged


def _export(federation: Federation, client: int, folder: Path) -> None:
    """Write the weights of a client's link, and of its task where that was trained too."""
    member, settings = federation.load(client), federation.settings
    facts = {
        "rounds": federation.server.round, "client": client, "task": settings.task_of(client),
        "aggregation": settings.aggregation,
    }  # fmt: skip
    if any(p.requires_grad for p in member.task.parameters()):
        validation = federation.clients.data[1]  # type: ignore[attr-defined]
        member.task.eval()
        member.task.after_training(validation, validation)  # type: ignore[operator]
        zoo.export_parts(folder / zoo.OF_TASK, dict(member.task.named_children()), facts)
    if not member.link.parts():
        raise SpecError("train", "the link has an end that is no nn.Module to keep")
    zoo.export_parts(folder / zoo.OF_LINK, member.link.parts(), facts)


def rehearse_federation(scenario: Scenario, built: Built) -> bool:
    """Share the items out, and send the first of each task through its link as far as the loss."""
    clients = ScenarioClients(scenario, str(built.device))
    check(clients)
    for client in range(len(clients.settings.tasks)):
        own = clients.of_client(client)
        parts = own.build(built.device)
        check_start(own, parts)
        if not rehearse_stage(own, parts):
            return False
    validation = clients.data[1]
    rehearse_end(scenario, built, lambda: (validation, validation))
    return True


def check(clients: ScenarioClients) -> None:
    """Refuse what cannot be shared out, judged or put together; the mistake is told at its key."""
    scenario = clients.scenario
    for name, usual in FIXED.items():
        given = getattr(scenario.train, name)
        if given != usual:
            why = f"has no place in a federated training, got {given!r}; leave it out"
            raise SpecError(f"train.{name}", why)
    try:
        poor = [k for k, items in enumerate(clients.parts) if not items]
        if poor:
            raise ValueError(
                f"client {poor[0]} gets no items; have fewer clients, or partition: iid"
            )
        for client, task in enumerate(clients.settings.tasks):
            if task != "reconstruct":
                _check_labels(clients.of_client(client), task, labels_of(clients.data[0]))
        least = clients.settings.least
        if few := [k for k, items in enumerate(clients.parts) if len(items) < least]:
            count = len(clients.parts[few[0]])
            raise ValueError(
                f"least: client {few[0]} gets {count} items, fewer than {least}; lower least, or "
                "write partition: iid"
            )
        if clients.settings.engine == "flower":
            check_installed()
        Server(clients)
    except SpecError:
        raise
    except ValueError as error:
        names = type(scenario.federated).model_fields
        raise blame_argument(names, sentence(error)).under("federated") from error


def _check_labels(scenario: Scenario, task: str, labels: list[int] | None) -> None:
    """Refuse a payload without classes, or with more of them than the receiver tells apart."""
    if labels is None:
        raise ValueError(
            f"tasks: {task} needs a payload with classes, such as cifar10 or a folder with "
            "classes: true; name another payload, or tasks: [reconstruct]"
        )
    if unlabelled := sum(label < 0 for label in labels):
        raise ValueError(
            f"tasks: {task} needs a class for every item, but {unlabelled} of the payload's "
            f"{len(labels)} have a negative one; name another payload, or tasks: [reconstruct]"
        )
    receiver = scenario.receiver_spec()
    told = getattr(receiver, "classes", getattr(scenario.task, "classes", None))
    if told is not None and max(labels) >= told:
        most = max(labels) + 1
        raise SpecError(
            "receiver.classes", f"{told} are fewer than the payload's {most}; write classes: {most}"
        )
