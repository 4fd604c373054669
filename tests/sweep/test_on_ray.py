"""A sweep on a Ray cluster: the same digits, also when a node goes away; needs Ray."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semsim.cli import app
from semsim.mistakes import SpecError
from semsim.results import read_rows
from semsim.sweep.on_ray import OnRay
from semsim.sweep.sweep import run

TOY = """
name: toy
payload: {kind: toy_parts:ToyPayload, items: 80}
transmitter: {kind: toy_parts:ToyTransmitter, pause_s: 0.05}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error]
snr_db: [0, 10]
batch_size: 4
sweep: {transmitter.mode: [plain, negative]}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each on this machine."""
    pytest.importorskip("ray", reason="needs the extra cluster")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_gives_the_same_digits(cluster: Any) -> None:
    node, gone = cluster.add_node(num_cpus=1), []

    def take_away() -> None:
        end = time.monotonic() + 60
        while not any(Path("ray/journal").glob("*.items")) and time.monotonic() < end:
            time.sleep(0.05)
        cluster.remove_node(node)
        gone.append(Path("ray/rows.parquet").exists())

    thread = threading.Thread(target=take_away)
    thread.start()
    run("toy.yaml", "ray", engine=partial(OnRay, 2, address=cluster.address))
    thread.join()
    assert gone == [False]  # the run was not at its end
    run("toy.yaml", "one")
    first, second = (read_rows(folder).drop(columns="seconds") for folder in ("one", "ray"))
    assert first.equals(second)


@pytest.mark.slow
def test_a_mistake_in_a_worker_and_gpus_that_are_not_there_are_told(cluster: Any) -> None:
    with pytest.raises(SpecError, match="99 asks for more than the cluster's"):
        run("toy.yaml", "ray", engine=partial(OnRay, address=cluster.address, gpus=99))
    Path("toy.yaml").write_text(TOY.replace("items: 80", "items: 80, bad_at: 20"))
    with pytest.raises(ValueError, match="item 20 of the payload holds NaN"):
        run("toy.yaml", "bad", engine=partial(OnRay, 2, address=cluster.address))


def test_an_address_at_which_nobody_listens_is_told() -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    with pytest.raises(SpecError, match="no Ray cluster answers"):
        run("toy.yaml", "ray", engine=partial(OnRay, address="127.0.0.1:1"))


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(app, ["run", "toy.yaml", "--on", "ray"])
    assert result.exit_code == 2
    assert "--on ray needs Ray; install the extra" in result.stderr
    assert "Traceback" not in result.output
