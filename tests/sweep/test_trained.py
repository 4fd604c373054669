"""Weights of a scenario's own training: kept, checked, forgotten, and left out where none learn."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from semsim import zoo
from semsim.cli import app
from semsim.mistakes import SpecError
from semsim.results import Journal
from semsim.scenario.fields import train_spec
from semsim.scenario.loading import pick_device
from semsim.scenario.scenario import Scenario
from semsim.sweep import outlook
from semsim.sweep.preflight import preflight, preflight_report
from semsim.sweep.shards import Shard
from semsim.sweep.stages import stages_of
from semsim.sweep.sweep import merge, run
from semsim.sweep.trained import KEPT, own_weights, train_all
from semsim.tasks.reconstruct import Reconstruct

ZOO = "deepjscc-cifar-1-6"
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
    learned, classical = preflight_report(beside(), CPU)[0][1:3]
    assert "nothing to train" in classical and "nothing to train" not in learned
    rows = run(beside(), "out")
    assert len(rows) == 2
    assert "'analog' has no parameters, so it is not trained" in caplog.text
    trained, left = train_all(beside(), Path("out"))
    assert trained.startswith("learned: out/training") and left == "classical: nothing to train"
    assert len(list(Path("out/training").iterdir())) == 1


def test_check_says_how_long_trainings_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "step_seconds", lambda *_: 50.0)
    told = [line for line in preflight_report(beside(), CPU)[0] if "training " in line]
    assert told == [
        "  training learned: about 2.5 min (3 steps of 2 items; an estimate from few items, "
        "without validations)"
    ]
    train = {"payload": PHOTO, "batch_size": 2, "minutes": 4}
    told = preflight_report(scenario(train=train), CPU)[0]
    assert told[-2].endswith(": 4 min as train.minutes says")
    stages = {**VALUES["train"], "stages": [{"minutes": 4}, {"steps": 216}]}
    told = preflight_report(scenario(train=stages), CPU)[0]
    assert "4 min as train.minutes says + about 3 h (216 steps of 2 items" in told[-2]


def test_the_time_of_a_step_leaves_the_parts_as_they_were() -> None:
    """Weights and gradients; the time itself is the machine's."""
    own = scenario(train={**VALUES["train"], "batch_size": 8})
    built = own.build(CPU)
    before = {k: v.clone() for k, v in built.link.state_dict().items()}
    in_training = built.link.training
    settings = dataclasses.replace(train_spec(own.train), start="deepjscc-cifar-1-6", cut=True)
    assert outlook.step_seconds(own, built, settings) > 0
    after = built.link.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert all(p.grad is None for p in built.link.parameters())
    assert built.link.training == in_training
    assert [outlook.words(s) for s in (0.123, 89, 90, 6000, 2e5, 1e8)] == [
        "0.12 s", "89 s", "1.5 min", "1.7 h", "2.3 days", "1157 days",
    ]  # fmt: skip


def test_the_time_of_a_step_leaves_running_statistics_as_they_were() -> None:
    """Those of a verifier's batch norm, and the thresholds that it estimates in training."""
    people = {"kind": "faces", "split": "train", "people": 4, "shots": 2, "size": 32}
    task = {"kind": "faces", "verifier": "residual", "trainable": True, "size": 32, "people": 4}
    own = scenario(
        payload={**people, "split": "test"}, transmitter="no_link", metrics=["tar"], task=task,
        train={"payload": people, "through": "task", "steps": 2, "batch_size": 8},
    )  # fmt: skip
    built = own.build(CPU)
    before = copy.deepcopy(built.task.state_dict())
    assert any("running_var" in key for key in before)
    assert outlook.step_seconds(own, built, train_spec(own.train)) > 0
    after = built.task.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_the_time_of_a_step_lies_on_the_line_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def taken(_scenario: Any, _built: Any, spec: Any, *_: Any, **__: Any) -> float:
        counts.append(spec.batch_size)
        return 0.1 + 0.01 * spec.batch_size

    monkeypatch.setattr(outlook, "_least_seconds", taken)
    monkeypatch.setattr(outlook, "_making_seconds", lambda *_: 0.0)
    own = scenario()
    built, settings = own.build(CPU), train_spec(own.train)
    for batch_size, asked in ((1, [1]), (2, [2]), (8, [2, 8]), (64, [2, 8])):
        counts.clear()
        wanted = dataclasses.replace(settings, batch_size=batch_size)
        found = outlook.step_seconds(own, built, wanted)
        assert found == pytest.approx(0.1 + 0.01 * batch_size) and counts == asked
    monkeypatch.setattr(outlook, "SLOW", 0.11)
    counts.clear()
    assert outlook.step_seconds(own, built, dataclasses.replace(settings, batch_size=64)) > 0.7
    assert counts == [2, 4]
    monkeypatch.setattr(outlook, "_making_seconds", lambda *_: 0.5)
    # 4 items are new among those of three steps of 2
    assert outlook.step_seconds(own, built, settings) == pytest.approx(0.12 + 4 / 3 * 0.5)


def test_check_sees_a_loss_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconstruct, "loss", lambda *_: torch.zeros(()))
    with pytest.raises(SpecError, match=r"^train: its loss gives no gradient: .*grad"):
        preflight_report(scenario(), CPU)


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


def test_for_pictures_alone_nothing_is_trained() -> None:
    run(scenario(), "out")
    shutil.rmtree("out/training")
    shutil.rmtree("out/pictures")
    run(scenario(), "out")
    assert not Path("out/training").exists()


def values_of(rows: Any) -> list[float]:
    return rows["value"].tolist()


def measured_anew(small: Scenario) -> list[float]:
    """What the weights in ``out`` reach, measured in a folder without rows."""
    shutil.copytree("out/training", "anew/training")
    return values_of(run(small, "anew"))


@pytest.fixture
def other_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let trainings from now on begin with other weights, as those by the clock end with others."""
    return lambda: monkeypatch.setattr("semsim.sweep.trained.seed_of", lambda *_: 5)


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("train --fresh", {"snr_db": [0, 10]}),
        ("deleted by hand", {"sweep": {"payload.count": [2, 3]}}),
    ],
)
def test_no_rows_of_two_trainings_are_mixed(
    how: str, more: dict[str, Any], other_weights: Callable[[], None]
) -> None:
    before = values_of(run(scenario(), "out"))
    other_weights()
    if how == "train --fresh":
        list(train_all(scenario(), Path("out"), fresh=True))
    else:
        shutil.rmtree("out/training")
    rows = values_of(run(scenario(**more), "out"))
    assert rows == measured_anew(scenario(**more)) and rows[0] != before[0]


def test_rows_stay_whose_training_was_deleted_where_none_is_missing() -> None:
    whole = scenario(snr_db=[0, 10])
    before = values_of(run(whole, "out"))
    shutil.rmtree("out/training")
    assert values_of(run(whole, "out")) == before
    assert values_of(run(scenario(snr_db=[10]), "out")) == before[1:]
    assert not Path("out/training").exists()


def forget_what_was_noted(monkeypatch: pytest.MonkeyPatch, small: Scenario, out: str) -> None:
    """Run as a version did that did not note the weights of rows."""
    finish = Journal.finish
    with monkeypatch.context() as before:
        before.setattr(Journal, "finish", lambda journal, rows, _trained: finish(journal, rows))
        run(small, out)


@pytest.mark.parametrize("gone", [True, False])
def test_rows_of_unknown_weights_are_not_mixed_with_others(
    gone: bool,
    other_weights: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A row is missing, and the training is gone or another one."""
    whole = scenario(snr_db=[0, 10])
    forget_what_was_noted(monkeypatch, scenario(), "out")
    shutil.rmtree("out/training")
    other_weights()
    if not gone:
        list(train_all(whole, Path("out")))
    rows = values_of(run(whole, "out"))
    assert rows == measured_anew(whole)
    assert "1 points were measured with other weights than out holds, or by a vers" in caplog.text


def test_rows_stay_of_a_link_that_has_nothing_to_train() -> None:
    sent: list[str] = []
    run(beside(), "out")
    shutil.rmtree("out/training")
    more = beside().model_copy(update={"snr_db": [0, 10]})
    run(more, "out", listener=lambda now: sent.append(f"{now.label} {now.evaluation.snr_db}"))
    assert {*sent} == {"learned [0.0, 10.0]", "classical [10.0]"}


def test_a_merge_says_that_shards_did_not_note_their_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = scenario(snr_db=[0, 10])
    list(train_all(small, Path("out")))
    run(small, "out", shard=Shard(1, 2))
    forget_what_was_noted(monkeypatch, scenario(snr_db=[10]), "out/shards/2-of-2")
    with pytest.raises(SpecError, match=r"such as small at 10 dB, of which 1 were measured wi"):
        merge(small, "out")
    run(small, "out", shard=Shard(2, 2))
    assert len(merge(small, "out")) == 2


def test_a_damaged_picture_that_no_weights_can_take_again_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(scenario(), "out")
    shutil.rmtree("out/training")
    (picture,) = Path("out/pictures").glob("*/0.png")
    picture.write_bytes(picture.read_bytes()[:-9])
    for told in ("0.png.damaged, and the weights that would show it again are gone", ""):
        caplog.clear()
        run(scenario(), "out")
        assert told in caplog.text if told else "0.png" not in caplog.text
        assert "taken again" not in caplog.text


def test_an_interrupted_link_does_not_go_on_with_other_weights(
    other_weights: Callable[[], None],
) -> None:
    small = scenario(batch_size=1)

    def stop(_progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small, "out", listener=stop)
    assert list(Path("out/journal").glob("*.part.json"))
    other_weights()
    list(train_all(small, Path("out"), fresh=True))
    assert values_of(run(small, "out")) == measured_anew(small)


def test_a_merge_takes_no_rows_of_other_weights(other_weights: Callable[[], None]) -> None:
    small = scenario(snr_db=[0, 10])
    list(train_all(small, Path("out")))
    run(small, "out", shard=Shard(1, 2))
    other_weights()
    list(train_all(small, Path("out"), fresh=True))
    run(small, "out", shard=Shard(2, 2))
    with pytest.raises(SpecError, match="1 points are in no shard"):
        merge(small, "out")
    run(small, "out", shard=Shard(1, 2))
    assert values_of(merge(small, "out")) == measured_anew(small)


@pytest.mark.parametrize(
    "change", [{"val_every": 2}, {"val_snr_db": [3]}, {"val_items": 2}, {"save_every": 1}]
)
@pytest.mark.parametrize("staged", [False, True])
def test_a_setting_that_changes_no_weight_begins_no_other_training(
    change: dict[str, Any], staged: bool
) -> None:
    def trained(**own: Any) -> str:
        train = {**VALUES["train"], "validation": {**PHOTO, "seed": 9}}
        stages = {"stages": [own, {"steps": 2}]} if staged else own
        return scenario(train={**train, **stages}).training_hash()

    assert trained(**change) == trained() != trained(lr=0.5)


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
    process = subprocess.Popen(
        [sys.executable, "-m", "semsim", command, "small.yaml", "--out", "out"],
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


def test_each_stage_begins_with_the_weights_of_the_one_before() -> None:
    stages = [{"steps": 2}, {"steps": 1, "lr": 1e-9, "ema": 0, "channel": {"kind": "rayleigh"}}]
    weights = own_weights(scenario(train={**VALUES["train"], "stages": stages}), Path("out"), CPU)
    assert weights is not None
    first = weights.parent / "stage-1" / "weights.safetensors"
    before, after = zoo.tensors(str(first)), zoo.tensors(str(weights))
    # one step of Adam moves each weight by the rate at most, far below the rounding of most
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["steps"] == 1 and card["before"][0]["steps"] == 2
    drawn = [stage["training"]["seed"] for stage in (card["before"][0], card)]
    assert drawn[0] == scenario().training_seed() != drawn[1]  # else it saw the same batches again


def test_stages_go_on_wherever_their_folder_lies() -> None:
    staged = scenario(train={**VALUES["train"], "stages": [{"steps": 2}, {"steps": 1}]})
    weights = own_weights(staged, Path("out"), CPU)
    assert weights is not None
    learned = weights.read_bytes()
    for folder in (Path("out").absolute(), Path("moved")):
        (weights.parent / "SHA256SUMS").unlink()
        Path("out").rename(folder)
        weights = own_weights(staged, folder, CPU)
        assert weights is not None and weights.read_bytes() == learned


def test_a_stage_is_as_long_as_it_says() -> None:
    train = {"payload": PHOTO, "minutes": 9, "stages": [{"steps": 2}, {}, {"minutes": 1}]}
    settings = [train_spec(stage.train) for stage in stages_of(scenario(train=train))]
    assert [(s.minutes, s.minutes or s.steps) for s in settings] == [(None, 2), (9, 9), (1, 1)]


def test_a_stage_may_change_an_argument_of_a_part() -> None:
    denoiser = {"kind": "latent_denoiser", "width": 8, "depth": 3, "max_steps": 1}
    stages = [{"receiver": {"stage": stage}, "steps": 1} for stage in (1, 2)]
    small = scenario(receiver=denoiser, train={**VALUES["train"], "stages": stages})
    one, two = stages_of(small)
    assert (one.receiver.stage, two.receiver.stage) == (1, 2)
    assert one.receiver.width == 8 and one.train.steps == 1
    weights = own_weights(small, Path("out"), CPU)
    assert weights is not None
    codec = {k: v for k, v in zoo.tensors(str(weights)).items() if k.startswith("receiver.codec")}
    begun = zoo.tensors(str(weights.parent / "stage-1" / "weights.safetensors"))
    assert codec and all(torch.equal(begun[key], value) for key, value in codec.items())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"stages": [{"stpes": 3}]}, r"^train\.stages\[0\]\.stpes: no such key"),
        ({"stages": [{}, {"lr": -1}]}, r"^train\.stages\[1\]\.lr: must be a finite number > 0"),
        ({"stages": [{"stages": []}]}, r"^train\.stages\[0\]\.stages: a stage has no stages"),
        ({"minutes": 5}, r"^train\.steps: does nothing beside minutes; leave one of the two out"),
        ({"stages": [{}, {"minutes": 1, "steps": 1}]}, r"^train\.stages\[1\]\.steps: does nothing"),
        ({"stages": [{"seed": 3}]}, r"^train\.stages\[0\]\.seed: all stages draw from one seed"),
        (
            {"stages": [{}, {"start": ZOO}]},
            r"^train\.stages\[1\]\.start: a later stage begins with",
        ),
        ({"stages": [{"payload": {**PHOTO, "count": 0}}]}, r"^train\.stages\[0\]\.payload\.count"),
        (
            {"payload": {**PHOTO, "count": 0}, "stages": [{}]},
            r"^train\.payload\.count: is at least 1",
        ),
        ({"stages": [{}, {"crop": 99}]}, r"^train\.stages\[1\]\.crop: 99 is larger than an image"),
        ({"start": "swin-cifar"}, r"^train\.start: no weights are called 'swin-cifar'"),
        ({"start": "none.pt"}, r"^train\.start: no such file: none\.pt"),
        ({"start": "resnet-cifar10"}, r"^train\.start: 'resnet-cifar10' has no tensor whose name"),
        (
            {"channel": {"kind": "rayleigh", "num_tx": 2}},
            r"^train: frontend lmmse separates at most",
        ),
        (
            {"channel": {"kind": "one_of", "channels": [{"kind": "awgn"}], "weights": [-1]}},
            r"^train\.channel\.weights: lies in",
        ),
        ({"rates": {"transmiter": 0}}, r"^train.rates: no parameter.* did you mean 'transmitter'"),
        (
            {"through": "task"},
            r"^train\.through: task trains a task alone, but this one has nothing",
        ),
        ({"steps": None}, r"^train\.steps: must be an integer, got None; write steps: 20000, or"),
    ],
)
def test_mistakes_in_a_training_are_told_at_their_key(train: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        preflight(scenario(train={**VALUES["train"], **train}).points(), CPU)


def test_a_training_by_itself_is_rehearsed_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Or a validation of the wrong kind would show at its first turn, hours later."""
    train = {**VALUES["train"], "validation": {"kind": "bits"}}
    wrong = scenario(train=train, sweep={"transmitter.width": [4, 8]})
    with pytest.raises(SpecError, match=r"^train: deepjscc carries .* at transmitter.width = 4\)"):
        list(train_all(wrong, Path("out"), progress=True))
    assert "training deepjscc" not in capsys.readouterr().err


def test_a_folder_is_no_checkpoint_to_start_from() -> None:
    Path("d.pt").mkdir()
    with pytest.raises(SpecError, match=r"^train\.start: .*d\.pt cannot be used: is a directory"):
        preflight(scenario(train={**VALUES["train"], "start": "d.pt"}).points(), CPU)


def test_a_channel_that_is_rarely_drawn_is_tried_before_the_training() -> None:
    channels = [{"kind": "awgn"}, {"kind": "carrier_offset", "offset_hz": 100}]
    rarely = {"kind": "one_of", "channels": channels, "weights": [1e9, 1]}
    with pytest.raises(SpecError, match=r"^train: a carrier offset .* needs symbol_rate_hz"):
        preflight(scenario(train={**VALUES["train"], "channel": rarely}).points(), CPU)
    never = {**rarely, "weights": [1, 0]}
    preflight(scenario(train={**VALUES["train"], "channel": never}).points(), CPU)


def test_channels_to_measure_over_share_a_training_over_another() -> None:
    channels = {"channel": {"awgn": "awgn", "fading": {"kind": "rayleigh"}}}
    small = scenario(train={**VALUES["train"], "channel": "mixed"}, sweep=channels)
    rows = run(small, "out")
    assert rows["value"].nunique() == 2
    assert len(list(Path("out/training").glob("*/weights.safetensors"))) == 1
    apart = scenario(sweep=channels)
    assert len({point.scenario.training_hash() for point in apart.points()}) == 2


def test_a_task_learns_alone_behind_a_link_with_weights() -> None:
    rng = np.random.default_rng(1)
    np.savez("a.npz", x=rng.integers(0, 256, (8, 32, 32, 3), np.uint8), y=np.arange(8))
    data = {"kind": "arrays", "path": "a.npz"}
    small = scenario(
        payload=data, metrics=["accuracy"], transmitter={"kind": "deepjscc", "weights": ZOO},
        task={"kind": "classify", "weights": None, "trainable": True},
        train={"payload": data, "through": "task", "steps": 2, "batch_size": 4},
    )  # fmt: skip
    rows = run(small, "out")
    (folder,) = [path for path in Path("out/training").iterdir() if path.is_dir()]
    ends, shipped = zoo.tensors(str(folder / "weights.safetensors")), zoo.tensors(ZOO)
    assert all(torch.equal(ends[key], shipped[key]) for key in ends)
    learned = zoo.tensors(str(folder / "task.safetensors"))
    assert any(key.startswith("network.") for key in learned)
    longer = {**small.to_dict()["train"], "steps": 3}
    assert scenario(**{**small.to_dict(), "train": longer}).uid() != small.uid()
    assert list(rows["metric"]) == ["accuracy"]
