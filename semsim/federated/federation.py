"""Rounds: the server sends, clients train, the server puts together, until all are done.

    ┌─► weights ─► clients of the round ─► updates ─► rule ─► record, file ─┐
    └───────────────────────────────────────────────────────────────────────┘

Who takes part, what becomes of them and all that they draw depend on the seed, the round and the
client's number alone, so that a federation that was killed and goes on has the digits of one that
was not. Engines agree up to rounding: processes with other numbers of threads add in another order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semsim.federated.client import Clients, Job, Update, nets_of, own_weights_of, train_client
from semsim.federated.fates import cohort, fate
from semsim.federated.server import Server

OWN = "clients"  #: folder of what clients keep for themselves


@dataclass(frozen=True)
class Standing:
    """How far a federation is, for whoever shows it.

    Args:
        round, rounds: finished ones, and all.
        client: that is at work, or None between rounds.
        done, asked: clients of this round that have answered, and all of them.
        loss: mean of the latest round or client.
    """

    round: int
    rounds: int
    client: int | None
    done: int
    asked: int
    loss: float


class Engine(Protocol):
    """Who carries jobs to clients and updates back.

    Attributes:
        errors: what those said in the last round that failed and so yielded no update.
    """

    errors: list[str]

    def updates(self, jobs: Sequence[Job]) -> Iterator[Update]:
        """Yield the updates of a round by the number of the client; who vanishes yields none."""
        ...


class LocalEngine:
    """One client after the other, in this process."""

    def __init__(self, clients: Clients, folder: Path) -> None:
        self.clients, self.folder = clients, folder
        self.errors: list[str] = []  # a client that fails ends the federation

    def updates(self, jobs: Sequence[Job]) -> Iterator[Update]:
        """Yield the updates of a round."""
        for job in jobs:
            yield train_client(self.clients, job, self.folder)


class Federation:
    """A federated training, a round at a time.

    Args:
        clients: who train.
        folder: where the server's file lies, and what clients keep for themselves.
        engine: who carries jobs; the local engine by default.
        validate: returns rows for the validation of the current weights, given the federation.
        listener: is told how far it is.
    """

    def __init__(
        self,
        clients: Clients,
        folder: Path,
        *,
        engine: Engine | None = None,
        validate: Callable[[Federation], list[dict[str, Any]]] | None = None,
        listener: Callable[[Standing], None] | None = None,
    ) -> None:
        self.clients, self.folder, self.settings = clients, folder, clients.settings
        self.engine = engine or LocalEngine(clients, folder / OWN)
        self.validate, self.listener = validate, listener
        self.server = Server(clients)
        folder.mkdir(parents=True, exist_ok=True)
        self.server.resume(folder)

    def run(self, rounds: int | None = None) -> None:
        """Do so many rounds, or all that are left."""
        until = self.settings.rounds
        if rounds is not None:
            until = min(until, self.server.round + rounds)
        while self.server.round < until:
            self.one_round()

    def one_round(self) -> None:
        """Do one round, keep its record, and write the server's file."""
        server, begun = self.server, time.perf_counter()
        record = self._record()
        fates = {
            client: fate(self.settings, self.clients.seed, server.round, client)
            for client in record["cohort"]
        }
        there = {client: f for client, f in fates.items() if not f.vanishes}
        record["vanished"] = [client for client in fates if client not in there]
        record["steps"] = {client: f.steps for client, f in there.items()}
        jobs = server.jobs(there)
        record["bits_down"] = server.bits_down(server.jobs(fates))
        server.take(self._heard(jobs), record)
        lost = {job.client for job in jobs} - {*record["arrived"], *record["refused"]}
        record["vanished"] = sorted([*record["vanished"], *lost])
        record["errors"] = list(self.engine.errors)
        if jobs and len(lost) == len(jobs):
            self._all_lost(record)
        server.round += 1
        record["seconds"] = time.perf_counter() - begun
        server.records.append(record)
        if self.validate and self._is_time():
            rows = self.validate(self)
            server.validations += [{"round": server.round, **row} for row in rows]
        server.save(self.folder)
        self._tell(None, 0, 0, _mean(record["loss"].values()))

    def _all_lost(self, record: dict[str, Any]) -> None:
        """Raise ValueError: a round that nobody answered would pass for one that taught nothing."""
        said = f"; one said: {record['errors'][0]}" if record["errors"] else ""
        raise ValueError(
            f"none of {len(record['steps'])} client(s) answered in round {record['round']}{said}; "
            "what was done before is kept: look at the nodes, and run the same again"
        )

    def _record(self) -> dict[str, Any]:
        number = self.server.round
        return {
            "round": number + 1, "cohort": cohort(self.settings, self.clients.seed, number),
            "arrived": [], "vanished": [], "steps": {}, "refused": {}, "suspects": [],
            "chosen": {}, "bits_up": 0, "bits_down": 0, "loss": {}, "client_seconds": 0.0,
        }  # fmt: skip

    def _is_time(self) -> bool:
        number, settings = self.server.round, self.settings
        return number == settings.rounds or number % settings.validate_every == 0

    def _heard(self, jobs: Sequence[Job]) -> Iterator[Update]:
        for done, update in enumerate(self.engine.updates(jobs), start=1):
            self._tell(update.client, done, len(jobs), update.loss)
            yield update

    def _tell(self, client: int | None, done: int, asked: int, loss: float) -> None:
        if self.listener:
            number, rounds = self.server.round, self.settings.rounds
            self.listener(Standing(number, rounds, client, done, asked, loss))

    def load(self, client: int) -> Any:
        """Return a client's live parts with the weights that it has now."""
        member, server = self.clients.member(client), self.server
        kept = server.kept.get(client)
        own = own_weights_of(self.folder / OWN, client, kept)
        weights = server.weights_for(client, first=kept is None) | own
        nets = nets_of(member)
        nets.load_state_dict(nets.state_dict() | weights)
        return member


def _mean(values: Iterable[float]) -> float:
    finite = [v for v in values if v == v]
    return sum(finite) / len(finite) if finite else float("nan")
