"""Links of a sweep: built when they are asked for, and of each only a little is kept."""

from __future__ import annotations

import gc
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from semsim.measuring import Part
from semsim.scenario.scenario import Scenario
from semsim.sweep import sweep
from semsim.sweep.plan import Plan
from semsim.sweep.shards import Shard
from semsim.sweep.workers import Job, measure

#: kB that a run may keep of a link of one SNR and one metric: three hashes of 65 bytes, labels and
#: places in the journal of 0.4, a row of 30 columns of 8 bytes, and as much again for tables that
#: grow by doubling. Its scenario alone would take 10.
KEPT_KB = 2.0


def empty(links: int) -> Scenario:
    """Return a sweep of so many links that cost next to nothing."""
    return Scenario.parse({
        "payload": {"kind": "toy_parts:ToyPayload", "items": 1},
        "transmitter": "toy_parts:ToyTransmitter", "receiver": "toy_parts:ToyReceiver",
        "channel": "toy_parts:ToyChannel", "metrics": ["toy_parts:Error"], "snr_db": [5],
        "sweep": {"channel.gain": [1 + k / 1000 for k in range(links)]},
    })  # fmt: skip


class AtOnce:
    """Measures in this process, when it is asked to."""

    workers = 2

    def submit(self, job: Job) -> Future[list[Part]]:
        future: Future[list[Part]] = Future()
        future.set_result(measure(job))
        return future

    def device(self, name: str) -> str:
        return "cpu"

    def lost(self, error: BaseException) -> bool:
        return False

    def close(self, *, at_once: bool) -> None:
        pass


def in_small_blocks() -> int:
    """Return the bytes of all blocks, but for Python's table of words, which doubles at times."""
    if not tracemalloc.is_tracing():
        return 0
    gc.collect()
    traces = tracemalloc.take_snapshot().traces
    return sum(trace.size for trace in traces if trace.size < 2**19)


@pytest.mark.parametrize("engine", [None, AtOnce])
def test_a_run_keeps_little_of_each_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    held: list[int] = []
    monkeypatch.setattr(sweep, "preflight", lambda *_: None)
    monkeypatch.setattr(sweep, "figures", lambda *_: [])
    # the last thing of a run, with plan, journal and rows all there
    monkeypatch.setattr(sweep, "write_report", lambda *_, **__: held.append(in_small_blocks()))
    sweep.run(empty(5), tmp_path / "warm", engine=engine)  # imports, which are slow when traced
    tracemalloc.start()
    try:
        for links in (10, 70):
            scenario, start = empty(links), in_small_blocks()
            sweep.run(scenario, tmp_path / str(links), engine=engine)
            held[-1] -= start
    finally:
        tracemalloc.stop()
    assert (held[2] - held[1]) / 60 < KEPT_KB * 1024


def test_links_are_built_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    points = empty(50).points()
    plan = Plan(points)
    point = plan[-1]
    assert "scenario" not in vars(point)
    assert point.scenario is point.scenario and point.scenario is not points[-1].scenario
    assert point.name == "1.049" and point.labels["channel"] == "toy_parts:ToyChannel"
    assert [p.uid for p in plan] == [p.scenario.uid() for p in points]
    assert list(point.uids(5.0)) == point.scenario.uids(5.0) == list(point.all_uids())
    assert [p.name for p in plan[1:3]] == ["1.001", "1.002"]
    assert len(points[10:20]) == 10 and points[10:20][0].name == "1.01"


def test_hashes_are_those_of_when_the_run_began(tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    save_file({"w": torch.zeros(1)}, weights)
    codec = {"kind": "deepjscc", "cbr": "1/6", "weights": str(weights)}
    scenario = Scenario.parse({
        "payload": "photos", "transmitter": codec, "channel": "awgn", "metrics": ["psnr"],
        "snr_db": [5],
    })  # fmt: skip
    plan = Plan(scenario.points())
    (before,) = plan[0].uids(5.0)
    save_file({"w": torch.ones(1)}, weights)
    assert plan[0].uids(5.0) == (before,) != tuple(plan[0].scenario.uids(5.0))


def test_the_last_swept_key_changes_fastest() -> None:
    sweep = {"snr_db": [0, 5], "channel.gain": [1, 2], "seed": [3, 4, 5]}
    values = empty(1).to_dict()
    points = Scenario.parse({**{k: v for k, v in values.items() if k != "snr_db"}, "sweep": sweep})
    names = [point.name for point in points.points()]
    assert names == ["1 | 3", "1 | 4", "1 | 5", "2 | 3", "2 | 4", "2 | 5"]
    cut = Shard(2, 3).of(points.points())
    assert [(p.name, list(p.scenario.snr_db)) for p in cut] == [
        ("1 | 3", [5.0]), ("1 | 5", [0.0]), ("2 | 3", [5.0]), ("2 | 5", [0.0])
    ]  # fmt: skip
