"""Weights of a scenario's own training: kept, checked, forgotten, and left out where none learn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from semsim.cli import app
from semsim.mistakes import SpecError
from semsim.scenario.loading import pick_device
from semsim.scenario.scenario import Scenario
from semsim.sweep.preflight import preflight, preflight_report
from semsim.sweep.sweep import run
from semsim.sweep.trained import KEPT, own_weights, train_all

LEARNED = {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1}
PHOTO = {"kind": "synthetic", "count": 4, "size": 16}
CPU = pick_device("cpu")
VALUES = {
    "name": "small",
    "payload": {**PHOTO, "count": 2},
    "transmitter": LEARNED,
    "channel": "awgn",
    "metrics": ["psnr"],
    "snr_db": [0],
    "train": {"payload": PHOTO, "steps": 3, "batch_size": 2},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scenario(**changes: Any) -> Scenario:
    return Scenario.parse({**VALUES, **changes})


def beside() -> Scenario:
    """A link that learns beside one that has nothing to learn."""
    analog = {"kind": "analog", "cbr": "1/6"}
    return scenario(sweep={"transmitter": {"learned": LEARNED, "classical": analog}})


def test_a_link_without_parameters_is_not_trained_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learned, classical = preflight_report(beside(), CPU)[1:3]
    assert "nothing to train" in classical and "nothing to train" not in learned
    rows = run(beside(), "out")
    assert len(rows) == 2
    assert "'analog' has no parameters, so it is not trained" in caplog.text
    trained, left = train_all(beside(), Path("out"))
    assert trained.startswith("learned: out/training") and left == "classical: nothing to train"
    assert len(list(Path("out/training").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 32}, r"^train\.crop: 32 is larger than an image of \[3, 16, 16\]; write at most"),
        ({"lr": float("inf")}, r"^train\.lr: must be a finite number > 0, got inf"),
        ({"snr_db": float("inf")}, r"^train\.snr_db: must lie between -200 and 200 dB, got inf"),
        ({"payload": {"kind": "toy_parts:ToyPayload"}}, "^train"),
        ({"validation": {"kind": "toy_parts:ToyPayload"}}, "^train"),
    ],
)
def test_check_sees_what_training_would_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        preflight(scenario(train={**VALUES["train"], **changes}).points(), CPU)


def test_every_damaged_file_of_a_training_is_named_and_written_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = scenario()
    weights = own_weights(small, Path("out"), CPU)
    assert weights is not None
    place, draw = weights.parent, random.Random(1)
    names = [name for name in KEPT if (place / name).is_file()]
    sound = {name: (place / name).read_bytes() for name in names}
    assert names == ["weights.safetensors", "weights.json"]
    for name in [*names, *names, *names, "checkpoint.pt"]:
        changed = bytearray((place / name).read_bytes())
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        (place / name).write_bytes(changed)
        if name == "checkpoint.pt":  # only then does anybody need it
            (place / "weights.safetensors").unlink()
        caplog.clear()
        assert own_weights(small, Path("out"), CPU) == weights
        assert f"{name} is damaged" in caplog.text
        assert (place / "weights.safetensors").read_bytes() == sound["weights.safetensors"]


def test_fresh_trains_again_and_without_it_nothing_is_trained_twice() -> None:
    run(scenario(), "out")
    (weights,) = Path("out/training").glob("*/weights.safetensors")
    before = weights.stat().st_ino, weights.stat().st_mtime_ns
    list(train_all(scenario(), Path("out")))
    run(scenario(), "out")
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == before
    run(scenario(), "out", fresh=True)
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) != before


def test_weights_damaged_behind_their_card_are_refused() -> None:
    weights = own_weights(scenario(), Path("out"), CPU)
    assert weights is not None
    named = scenario(transmitter={**LEARNED, "weights": str(weights)})
    content = bytearray(weights.read_bytes())
    content[-3] ^= 4
    weights.write_bytes(content)
    with pytest.raises(SpecError, match="damaged: SHA-256"):
        named.build("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_training_keeps_its_state_and_exits_as_shells_say(
    command: str, number: int, code: int
) -> None:
    Path("small.yaml").write_text(
        "payload: {kind: synthetic, count: 2, size: 16}\n"
        "transmitter: {kind: deepjscc, cbr: 1/6, width: 4, depth: 1}\n"
        "channel: awgn\nmetrics: [psnr]\nsnr_db: [0]\n"
        "train: {payload: {kind: synthetic, count: 4, size: 16}, steps: 1000000, save_every: 5}\n"
    )
    program = "import sys; from semsim.cli import app; app(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, command, "small.yaml", "--out", "out"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(Path("out").rglob("checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    assert "Stopped. What is done is kept in out; the same command goes on." in said
    assert "Traceback" not in said
    (checkpoint,) = Path("out").rglob("checkpoint.pt")
    assert not checkpoint.with_name("weights.safetensors").exists()


def test_a_full_disk_during_a_training_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("small.yaml").write_text(
        "payload: {kind: synthetic, count: 2, size: 16}\n"
        "transmitter: {kind: deepjscc, cbr: 1/6, width: 4, depth: 1}\n"
        "channel: awgn\nmetrics: [psnr]\nsnr_db: [0]\n"
        "train: {payload: {kind: synthetic, count: 4, size: 16}, steps: 8, save_every: 2}\n"
    )
    real = open

    def full(path: Any, mode: str = "r") -> Any:
        return real("/dev/full" if ".tmp" in str(path) else path, mode)

    with monkeypatch.context() as patch:
        patch.setattr("semsim.files.disk.open", full, raising=False)
        told = CliRunner().invoke(app, ["train", "small.yaml", "--out", "out"])
    assert told.exit_code == 2
    assert "the disk is full at out/training" in told.output
    assert "Traceback" not in told.output
    again = CliRunner().invoke(app, ["train", "small.yaml", "--out", "out"])
    assert again.exit_code == 0, again.output
