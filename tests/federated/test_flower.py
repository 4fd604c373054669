"""The Flower engine: the weights of the local one, and what becomes of a client that is killed."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from semsim.federated import flower
from semsim.federated.client import Job, Update
from semsim.federated.federation import Federation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("flwr") is None, reason="needs the extra federated"),
]


def test_messages_carry_jobs_and_updates_as_they_are() -> None:
    tensors = {
        "a": torch.randn(2, 3),
        "b": torch.randn(4).bfloat16(),
        "c": torch.tensor(3),
        "d": torch.tensor([1, -2], dtype=torch.int8),
    }
    job = Job(2, 5, 7, tensors, 4, "noise")
    read = flower.read_job(flower.write_job(job))
    assert (read.client, read.round, read.steps, read.kept, read.fault) == (2, 5, 7, 4, "noise")
    again = flower.read_update(flower.write_update(Update(1, 9, 3, 0.5, tensors, 0.25)))
    assert (again.client, again.items, again.steps, again.loss) == (1, 9, 3, 0.5)
    for found in (read.weights, again.tensors):
        assert all(
            found[n].dtype == v.dtype and torch.equal(found[n], v) for n, v in tensors.items()
        )


def test_both_engines_agree_after_three_rounds(toy: Any, tmp_path: Path) -> None:
    settings = {"dropout": 0.2, "compression": "bf16"}
    local = Federation(toy(**settings), tmp_path / "local")
    local.run()
    other = Federation(toy(**settings), tmp_path / "flower")
    flower.simulate(other)
    assert other.server.round == 3
    for name, value in local.server.shared.items():
        torch.testing.assert_close(other.server.shared[name], value, rtol=1e-4, atol=1e-5)
    for one, two in zip(local.server.records, other.server.records, strict=True):
        assert one["arrived"] == two["arrived"] and one["bits_up"] == two["bits_up"]


def test_a_killed_client_process_loses_no_round(toy: Any, tmp_path: Path) -> None:
    class Deadly(toy):
        def member(self, client: int) -> Any:
            marker = tmp_path / "killed"
            if os.getpid() != self.home and client == 1 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().member(client)

    clients = Deadly(rounds=2)
    clients.home = os.getpid()
    federation = Federation(clients, tmp_path / "flower")
    flower.simulate(federation)
    assert (tmp_path / "killed").exists() and federation.server.round == 2
    assert [r["vanished"] for r in federation.server.records] == [[], []]  # its job was done again
