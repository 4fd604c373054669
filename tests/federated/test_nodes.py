"""What the Flower engine makes of nodes that fail, are missing or play any; Flower is faked."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from semsim.federated.client import Job, Update, own_path, own_weights_of, train_client
from semsim.federated.federation import Federation
from semsim.federated.flower import ANYONE, FlowerEngine, server_app


class _Message:
    def __init__(self, content: Any, dst_node_id: int = 0, message_type: str = "") -> None:
        self.content, self.node, self.type = content, dst_node_id, message_type


class _Grid:
    """Nodes that say who they are, and fail at every job."""

    def __init__(self, clients: list[int]) -> None:
        self.clients = clients

    def get_node_ids(self) -> list[int]:
        return list(range(len(self.clients)))

    def send_and_receive(self, sent: Any, timeout: float | None) -> list[Any]:
        return [self._reply(message) for message in sent]

    def _reply(self, message: _Message) -> Any:
        failed = message.type == "train"
        return SimpleNamespace(
            metadata=SimpleNamespace(src_node_id=message.node),
            content={"node": {"client": self.clients[message.node]}},
            error=SimpleNamespace(code=1, reason="ValueError:\nno such file"),
            has_error=lambda: failed,
        )


@pytest.fixture(autouse=True)
def _flower(monkeypatch: pytest.MonkeyPatch) -> None:
    app: Any = ModuleType("flwr.app")
    app.Message, app.RecordDict, app.ConfigRecord, app.ArrayRecord = _Message, dict, dict, dict
    app.Array = lambda value: value
    app.MessageType = SimpleNamespace(TRAIN="train", QUERY="query")
    monkeypatch.setitem(sys.modules, "flwr", ModuleType("flwr"))
    monkeypatch.setitem(sys.modules, "flwr.app", app)


def test_a_round_in_which_every_client_fails_ends_the_federation(toy: Any, tmp_path: Path) -> None:
    engine = FlowerEngine(_Grid([0, 1, ANYONE]))
    federation = Federation(toy(), tmp_path, engine=engine)
    says = (
        r"none of 3 client\(s\) answered in round 1; one said: client 0: ValueError: no such file"
    )
    with pytest.raises(ValueError, match=says):
        federation.run()
    assert engine.errors[2] == "node 2: ValueError: no such file"
    assert Federation(toy(), tmp_path).server.round == 0  # nothing passes for trained


def test_clients_without_a_node_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = FlowerEngine(_Grid([1]))
    jobs = [Job(client, 0, 1, {"a": torch.zeros(1)}) for client in range(3)]
    with caplog.at_level(logging.WARNING):
        assert not list(engine.updates(jobs)) and not list(engine.updates(jobs))
    assert [r.getMessage() for r in caplog.records] == ["no node plays client(s) 0, 2; they vanish"]


def test_nodes_that_play_any_client_are_refused_where_clients_keep_files(toy: Any) -> None:
    with pytest.raises(ValueError, match="give every node its own"):
        list(FlowerEngine(_Grid([0, ANYONE]), keeps=True).updates([]))


@pytest.mark.parametrize("simulated", [True, False])
def test_only_the_server_of_real_nodes_has_a_secret_for_its_noise(
    simulated: bool, toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class App:
        run: Any

        def main(self) -> Any:
            return lambda run: setattr(self, "run", run)

    made: Any = ModuleType("flwr.serverapp")
    made.ServerApp = App
    monkeypatch.setitem(sys.modules, "flwr.serverapp", made)
    federation = Federation(toy(clip_norm=1.0, noise_multiplier=1.0), tmp_path)
    app, _ = server_app(lambda context: federation, 1, simulated=simulated)
    with pytest.raises(ValueError, match="answered in round 1"):
        app.run(_Grid([0, 1, ANYONE]), None)
    assert (federation.server.secret is None) == simulated


def test_a_late_client_leaves_what_a_later_round_kept(toy: Any, tmp_path: Path) -> None:
    clients = toy(aggregation="none", clients=1, local_steps=1)
    first = Federation(clients, tmp_path).server.weights_for(0, first=True)
    train_client(clients, Job(0, 0, 1, first), tmp_path)
    train_client(clients, Job(0, 1, 1, {}, kept=0), tmp_path)
    train_client(clients, Job(0, 2, 1, {}, kept=1), tmp_path)
    train_client(clients, Job(0, 1, 1, {}, kept=1), tmp_path)  # asked before, answers now
    assert own_weights_of(tmp_path, 0, 2)
    assert not own_path(tmp_path, 0, 0).exists()


def test_steps_are_those_that_were_taken(toy: Any, tmp_path: Path) -> None:
    clients = toy(clients=1, local_steps=4)
    federation = Federation(clients, tmp_path)
    weights = {
        n: torch.full_like(v, torch.nan) for n, v in federation.server.weights_for(0).items()
    }
    update = train_client(clients, Job(0, 2, 4, weights), tmp_path)
    assert update.loss != update.loss and update.steps == 1
    record = federation._record()
    federation.server.take([Update(0, 4, 1, float("nan"))], record)
    assert record["steps"] == {0: 1}


def test_a_round_with_too_few_updates_for_the_rule_is_named(toy: Any, tmp_path: Path) -> None:
    federation = Federation(toy(clients=5, aggregation="krum"), tmp_path)
    record, weights = federation._record(), federation.server.weights_for(0)
    federation.server.take([Update(k, 4, 2, 0.1, weights) for k in range(4)], record)
    assert record["too_few"] == ["all"]
    record = federation._record()
    federation.server.take([Update(k, 4, 2, 0.1, weights) for k in range(5)], record)
    assert record["too_few"] == []
