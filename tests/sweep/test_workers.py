"""A sweep in several processes: the same digits, whoever dies, and one sentence for mistakes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semsim.cli import app
from semsim.files.disk import locked
from semsim.items import read_items
from semsim.measuring import Part
from semsim.results import read_rows
from semsim.sweep.sweep import run
from semsim.sweep.workers import Job, Processes, measure

TESTS = Path(__file__).parents[1]
OWN = """
from toy_parts import Error

class Unreadable(ValueError):
    def __init__(self, one, two):
        super().__init__("no good")

class Bad(Error):
    def __call__(self, outcome):
        if len(outcome.source) > 1:  # not where one item is tried before
            raise Unreadable(1, 2)
        return super().__call__(outcome)
"""
TOY = """
name: toy
seed: 3
payload: {kind: toy_parts:ToyPayload, mixed: true}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error]
snr_db: [0, 10]
batch_size: 8
sweep: {transmitter.mode: [plain, negative]}
"""
RUN = """
import sys
from functools import partial
from semsim.sweep.sweep import run
from semsim.sweep.workers import Processes
if __name__ == "__main__":
    run("toy.yaml", "out", engine=partial(Processes, 2))
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


def same(one: str, other: str) -> bool:
    """Tell whether two folders hold the same rows, but for the time they took, and items."""
    first, second = (read_rows(folder).drop(columns="seconds") for folder in (one, other))
    uids = set(first["uid"])
    items = all(read_items(one, uid).equals(read_items(other, uid)) for uid in uids)  # type: ignore[arg-type]
    return first.equals(second) and items


class Backwards:
    """Measures in this process, and gives back the latest batch first."""

    workers = 4

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[list[Part]], Job]] = []
        self.measured, self.ended_at_once = 0, False

    def submit(self, job: Job) -> Future[list[Part]]:
        self.waiting.append((future := _Lazy(self), job))
        return future

    def work(self) -> None:
        for future, job in self.waiting[::-1]:
            self.measured += 1
            future.set_result(measure(job))
        self.waiting.clear()

    def device(self, name: str) -> str:
        return "cpu"

    def lost(self, error: BaseException) -> bool:
        return False

    def close(self, *, at_once: bool) -> None:
        self.ended_at_once = at_once


class _Lazy(Future):  # type: ignore[type-arg]
    def __init__(self, engine: Backwards) -> None:
        super().__init__()
        self.engine = engine


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backwards]:
    import semsim.sweep.workers as workers

    engine, plain = Backwards(), workers.wait

    def wait(flying: Any, **how: Any) -> Any:
        engine.work()
        return plain(flying, **how)

    monkeypatch.setattr(workers, "wait", wait)
    yield engine


@pytest.mark.parametrize("stop", ["{max_items: 70}", "{min_items: 8, max_items: 400, ci95: 0.01}"])
def test_batches_in_any_order_give_the_same_digits(backwards: Backwards, stop: str) -> None:
    Path("toy.yaml").write_text(f"{TOY}stop: {stop}\n")
    run("toy.yaml", "one")
    run("toy.yaml", "many", engine=lambda: backwards)
    assert same("one", "many")
    assert backwards.measured >= len(read_rows("many"))


def test_users_that_share_a_channel_give_the_same_digits(backwards: Backwards) -> None:
    Path("users.yaml").write_text("""
payload: {kind: synthetic, count: 6, size: 16}
transmitter: {kind: deepjscc, cbr: 1/6, width: 4, depth: 1}
channel: {kind: rayleigh, num_tx: 2, num_rx: 2}
link: {kind: multiple_access, users: 2}
metrics: [psnr]
snr_db: [5, 15]
batch_size: 2
""")
    run("users.yaml", "one")
    run("users.yaml", "many", engine=lambda: backwards)
    assert same("one", "many")
    assert set(read_rows("many")["user"]) == {1, 2}


def test_what_a_link_says_of_itself_comes_back_from_workers(backwards: Backwards) -> None:
    Path("bound.yaml").write_text("""
payload: {kind: synthetic, count: 2, size: 16}
transmitter: {kind: bound, cbr: 1/2, codec: webp}
channel: awgn
metrics: [psnr]
snr_db: 5
""")
    run("bound.yaml", "one")
    run("bound.yaml", "many", engine=lambda: backwards)
    assert same("one", "many")
    assert set(read_rows("many")["bound"]) == {"capacity (the same in every draw)"}


def test_a_mistake_in_a_worker_is_told_as_here(backwards: Backwards) -> None:
    Path("toy.yaml").write_text(TOY.replace("mixed: true}", "mixed: true, items: 40, bad_at: 20}"))
    with pytest.raises(ValueError, match="item 20 of the payload holds NaN"):
        run("toy.yaml", "many", engine=lambda: backwards)
    assert not list(Path("many/journal").glob("*.part.json"))


@pytest.mark.slow
def test_workers_that_die_again_and_again_change_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    run("toy.yaml", "one")
    monkeypatch.setenv("TOY_KILL_AT", "6")  # of what one process measures
    run("toy.yaml", "many", engine=partial(Processes, 2))
    assert same("one", "many")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ps"), reason="needs the command ps")
def test_ctrl_c_and_kill_leave_no_worker_and_go_on_to_the_same_digits() -> None:
    text = TOY.replace("ToyTransmitter}", "ToyTransmitter, pause_s: 0.3}")
    Path("toy.yaml").write_text(text)
    Path("go.py").write_text(RUN)
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "go.py"], env=environment, start_new_session=True,
            stderr=subprocess.DEVNULL, preexec_fn=_hear_ctrl_c,
        )  # fmt: skip
        _wait_for(lambda: any(Path("out/journal").glob("*.items")))
        process.send_signal(number)
        process.wait(timeout=60)
        _wait_for(partial(_is_gone, process.pid))
    run("toy.yaml", "out", engine=partial(Processes, 2))
    run("toy.yaml", "one")
    assert same("one", "out")


def test_jobs_are_counted() -> None:
    with pytest.raises(ValueError, match="jobs"):
        Processes(0)


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_gone(session: int) -> bool:
    """Tell whether no process of a session runs any more."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True, check=False
    )
    return all(line.startswith("Z") for line in found.stdout.split())


def _wait_for(happens: Any) -> None:
    end = time.monotonic() + 100
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_exception_that_cannot_travel_is_told_by_type_and_text() -> None:
    Path("own.py").write_text(OWN)
    sys.path.insert(0, str(Path.cwd()))
    Path("toy.yaml").write_text(TOY.replace("toy_parts:Error", "own:Bad"))
    try:
        with pytest.raises(ValueError, match=r"Unreadable: no good \(own.py:\d+, in __call__\)"):
            run("toy.yaml", "many", engine=partial(Processes, 1))
    finally:
        sys.path.remove(str(Path.cwd()))


def test_a_second_run_into_a_folder_is_told_and_writes_nothing(backwards: Backwards) -> None:
    with locked(Path("out")):
        told = CliRunner().invoke(app, ["run", "toy.yaml", "--out", "out"])
        with pytest.raises(ValueError, match="writing to out"):
            run("toy.yaml", "out", engine=lambda: backwards)
    assert told.exit_code == 2 and "another run or training is writing to out" in told.stderr
    assert backwards.ended_at_once
    assert [path.name for path in Path("out").iterdir()] == [".lock"]
