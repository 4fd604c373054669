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
import torch
from typer.testing import CliRunner

from semsim.cli import app
from semsim.mistakes import SpecError
from semsim.results import read_provenance, read_rows
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


class OnGPUs(OnRay):
    """Workers that reserve GPUs, on a cluster that has none."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.gpus = 0.5


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
    with pytest.raises(SpecError, match=r"--gpus 0\.5 reserves GPUs, but the device is 'cpu'"):
        run("toy.yaml", "ray", device="cpu", engine=partial(OnGPUs, 1, address=cluster.address))
    assert not Path("ray").exists()
    Path("toy.yaml").write_text(TOY.replace("items: 80", "items: 80, bad_at: 20"))
    with pytest.raises(ValueError, match="item 20 of the payload holds NaN"):
        run("toy.yaml", "bad", engine=partial(OnRay, 2, address=cluster.address))


def test_a_head_without_gpu_sends_to_workers_that_have_one() -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    workers = OnGPUs.__new__(OnGPUs)
    workers.gpus = 0.5
    assert workers.device("cuda") == "cuda"
    workers.gpus = 0.0
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="'cuda' is not available here"):
            workers.device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_gpus_of_ray_give_the_rows_of_a_gpu_here() -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    run("toy.yaml", "one", device="cuda")
    run("toy.yaml", "ray", device="cuda", engine=partial(OnRay, 2, gpus=0.5))
    first, second = (read_rows(folder).drop(columns="seconds") for folder in ("one", "ray"))
    assert first.equals(second)
    assert read_provenance("ray")["device"] == "cuda"


@pytest.mark.parametrize(
    "options, told",
    [
        (["--address", "127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"),
        (["--address", "ray://127.0.0.1:1"], "no Ray cluster answers at 'ray://127.0.0.1:1'"),
        (["--gpus", "-1"], "--gpus is a number, 0 or more, got -1"),
        (["--gpus", "nan"], "--gpus is a number, 0 or more, got nan"),
    ],
)
def test_what_no_cluster_can_do_is_told_and_nothing_is_written(
    options: list[str], told: str
) -> None:
    pytest.importorskip("ray", reason="needs the extra cluster")
    result = CliRunner().invoke(app, ["run", "toy.yaml", "--on", "ray", *options])
    assert result.exit_code == 2 and told in result.stderr
    assert not Path("results").exists()


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = CliRunner().invoke(app, ["run", "toy.yaml", "--on", "ray"])
    assert result.exit_code == 2
    assert "--on ray needs Ray; install the extra" in result.stderr
    assert "Traceback" not in result.output
