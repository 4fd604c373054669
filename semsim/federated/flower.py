"""The same federation with Flower: a ClientApp that does jobs, an engine that sends them.

    Federation ─► FlowerEngine ─► SuperLink ─► SuperNode: ClientApp ─► train_client ─┐
        ▲                                                                            │
        └──────────────────────── updates ◄──────────────────────────────────────────┘

``simulate`` runs both on this machine with Flower's Ray backend; on real nodes ``flwr run`` starts
the apps of examples/flower. A node says which client it is, ``partition-id`` in its node
configuration; one that says nothing plays any.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsim.federated.client import Clients, Job, Update, train_client
from semsim.federated.federation import OWN, Federation
from semsim.files.disk import log

ANYONE = -1  #: of a node that plays any client
HALF = "|bf16"  #: after the name of a tensor that NumPy has no type for
INSTALL = "write engine: local, or pip install 'semsim-wireless[federated]'"
POLL_S = 0.2  #: between looks at which nodes are there
#: of a simulated client: Flower hands jobs even to a process that died, so Ray revives it, and
#: does again what it was doing; who dies of it twice vanishes
RESOURCES = {"num_cpus": 1.0, "num_gpus": 0.0, "max_restarts": -1, "max_task_retries": 1}
Made = Callable[[Any], tuple[Clients, Path]]


def check_installed() -> None:
    """Raise ValueError where Flower is missing."""
    if importlib.util.find_spec("flwr") is None:
        raise ValueError(f"engine: flower is not installed; {INSTALL}")


def quiet() -> None:
    """Keep Flower from sending statistics about its use, and from all but warnings."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def client_app(made: Made) -> Any:
    """Return a ClientApp.

    Args:
        made: returns the clients and the folder of what they keep for themselves, given Flower's
            context; it is called in the process of the node.
    """
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query()
    def tell(message: Any, context: Any) -> Any:
        number = int(context.node_config.get("partition-id", ANYONE))
        return Message(RecordDict({"node": ConfigRecord({"client": number})}), reply_to=message)

    @app.train()
    def train(message: Any, context: Any) -> Any:
        clients, folder = made(context)
        update = train_client(clients, read_job(message.content), folder)
        return Message(write_update(update), reply_to=message)

    return app


class FlowerEngine:
    """Sends jobs over a Flower grid; a client whose process dies or is late yields no update.

    All updates of a round are in memory before the first is added, so that they are added in the
    order of the clients; the local engine holds one at a time.

    Args:
        grid: of a ServerApp.
        nodes: how many to wait for before the first round.
        timeout_s: seconds after which who has not answered counts as vanished; None waits.
        keeps: clients keep something between rounds, so that each needs a node of its own.
    """

    def __init__(
        self, grid: Any, *, nodes: int = 1, timeout_s: float | None = None, keeps: bool = False
    ) -> None:
        self.grid, self.wanted, self.timeout_s, self.keeps = grid, nodes, timeout_s, keeps
        self.client_of: dict[int, int] = {}  # of each node
        self.errors: list[str] = []  # of the last round
        self.missing: set[int] = set()  # clients without a node, of which was warned

    def updates(self, jobs: Sequence[Job]) -> Iterator[Update]:
        """Yield the updates of a round by the number of the client."""
        from flwr.app import Message, MessageType

        self.errors = []
        self._look()
        of_client = {client: node for node, client in self.client_of.items()}
        anyone = sorted(node for node, client in self.client_of.items() if client == ANYONE)
        sent = []
        for place, job in enumerate(jobs):
            node = of_client.get(job.client, anyone[place % len(anyone)] if anyone else None)
            if node is not None:
                content = write_job(job)
                sent.append(Message(content, dst_node_id=node, message_type=MessageType.TRAIN))
        if not anyone:
            self._warn({job.client for job in jobs} - of_client.keys())
        found = [read_update(reply.content) for reply in self._replies(sent)]
        yield from sorted(found, key=lambda update: update.client)

    def _replies(self, sent: Sequence[Any]) -> list[Any]:
        """Send messages, return the replies that are no errors, and note those that are."""
        replies = self.grid.send_and_receive(sent, timeout=self.timeout_s) if sent else []
        found = []
        for reply in replies:
            if reply.has_error():
                node = reply.metadata.src_node_id
                client = self.client_of.get(node, ANYONE)
                name = f"node {node}" if client == ANYONE else f"client {client}"
                why = " ".join(str(reply.error.reason or f"error {reply.error.code}").split())
                self.errors.append(f"{name}: {why}")
            else:
                found.append(reply)
        return found

    def _warn(self, missing: set[int]) -> None:
        """Say once of each client that no node plays it."""
        if new := sorted(missing - self.missing):
            self.missing |= missing
            log.warning("no node plays client(s) %s; they vanish", ", ".join(map(str, new)))

    def _look(self) -> None:
        """Wait for the first nodes, forget those that left, and ask new ones who they are."""
        from flwr.app import ConfigRecord, Message, MessageType, RecordDict

        nodes = set(self.grid.get_node_ids())
        while not self.client_of and len(nodes) < self.wanted:
            time.sleep(POLL_S)
            nodes = set(self.grid.get_node_ids())
        self.client_of = {n: client for n, client in self.client_of.items() if n in nodes}
        ask = RecordDict({"ask": ConfigRecord({"what": "client"})})
        questions = [
            Message(ask, dst_node_id=node, message_type=MessageType.QUERY)
            for node in sorted(nodes - self.client_of.keys())
        ]
        for reply in self._replies(questions):
            self.client_of[reply.metadata.src_node_id] = int(reply.content["node"]["client"])
        if self.keeps and ANYONE in self.client_of.values():
            raise ValueError(
                "aggregation: fedbn and none, and compression: top_k, keep files with each client, "
                'but a node plays any; give every node its own, --node-config "partition-id=0"'
            )


def write_tensors(tensors: Mapping[str, Tensor]) -> Any:
    """Return tensors as Flower's record; those of bf16 as whole numbers of 16 bits."""
    from flwr.app import Array, ArrayRecord

    arrays = {}
    for name, value in tensors.items():
        is_half = value.dtype == torch.bfloat16
        plain = value.view(torch.int16) if is_half else value
        arrays[name + HALF if is_half else name] = Array(plain.contiguous().numpy())
    return ArrayRecord(arrays)


def read_tensors(record: Any) -> dict[str, Tensor]:
    """Return the tensors that :func:`write_tensors` wrote."""
    found = {}
    for name, array in record.items():
        value = torch.from_numpy(array.numpy().copy())
        if name.endswith(HALF):
            name, value = name.removesuffix(HALF), value.view(torch.bfloat16)
        found[name] = value
    return found


def write_job(job: Job) -> Any:
    """Return a job as the content of a message."""
    from flwr.app import ConfigRecord, RecordDict

    told: dict[str, Any] = {"client": job.client, "round": job.round, "steps": job.steps}
    told |= {"kept": ANYONE if job.kept is None else job.kept, "fault": job.fault or ""}
    return RecordDict({"weights": write_tensors(job.weights), "job": ConfigRecord(told)})


def read_job(content: Any) -> Job:
    """Return the job that :func:`write_job` wrote."""
    told = content["job"]
    kept = None if told["kept"] == ANYONE else int(told["kept"])
    return Job(
        int(told["client"]), int(told["round"]), int(told["steps"]),
        read_tensors(content["weights"]), kept, str(told["fault"]) or None,
    )  # fmt: skip


def write_update(update: Update) -> Any:
    """Return an update as the content of a message."""
    from flwr.app import ConfigRecord, RecordDict

    told = {name: getattr(update, name) for name in ("client", "items", "steps", "loss", "seconds")}
    return RecordDict({"tensors": write_tensors(update.tensors), "update": ConfigRecord(told)})


def read_update(content: Any) -> Update:
    """Return the update that :func:`write_update` wrote."""
    told = content["update"]
    return Update(
        int(told["client"]), int(told["items"]), int(told["steps"]), float(told["loss"]),
        read_tensors(content["tensors"]), float(told["seconds"]),
    )  # fmt: skip


class _Fixed:
    """Gives every node the same clients; a class, so that it pickles."""

    def __init__(self, clients: Clients, folder: Path) -> None:
        self.clients, self.folder = clients, folder.absolute()

    def __call__(self, context: Any) -> tuple[Clients, Path]:
        return self.clients, self.folder


def server_app(
    federation_of: Callable[[Any], Federation], nodes: int, *, simulated: bool = False
) -> tuple[Any, list[Any]]:
    """Return a ServerApp that runs a federation, and a list that gets what stopped it.

    Args:
        federation_of: returns the federation, given Flower's context.
        nodes: how many to wait for.
        simulated: all nodes are of this machine, so that the noise of privacy may hang on the seed,
            which they know; else it hangs on a secret of the server.
    """
    from flwr.serverapp import ServerApp

    app, failed = ServerApp(), list[BaseException]()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        federation = federation_of(context)
        timeout_s, keeps = federation.settings.timeout_s, federation.server.keeps
        federation.engine = FlowerEngine(grid, nodes=nodes, timeout_s=timeout_s, keeps=keeps)
        try:
            if not simulated:
                federation.server.keep_secret()
            federation.run()
        except BaseException as error:
            failed.append(error)  # Flower's thread may swallow it
            raise

    return app, failed


def simulate(federation: Federation) -> None:
    """Run a federation with Flower's simulation on this machine, a virtual node per client."""
    check_installed()
    settings = federation.settings
    if federation.server.round >= settings.rounds:
        return
    quiet()
    from flwr.simulation import run_simulation

    server, failed = server_app(lambda context: federation, settings.clients, simulated=True)
    try:
        run_simulation(
            server_app=server,
            client_app=client_app(_Fixed(federation.clients, federation.folder / OWN)),
            num_supernodes=settings.clients,
            backend_config={"client_resources": RESOURCES},
        )
    except RuntimeError as error:
        if not failed:
            raise ValueError(
                f"engine: flower's simulation stopped ({error.__cause__ or error}); what was done "
                "is kept: run the same again, or write engine: local"
            ) from error
    if failed:
        raise failed[0]
