"""A federated scenario: its rows, its files, a real kill -9, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from semsim import spec, stream
from semsim.cli import app
from semsim.mistakes import SpecError
from semsim.scenario.scenario import Scenario
from semsim.sweep import federation
from semsim.sweep.federation import ScenarioClients
from semsim.sweep.idle import idle
from semsim.sweep.preflight import preflight, quicker
from semsim.sweep.sweep import run
from semsim.sweep.trained import train_all
from semsim.vision import sscl

CPU = torch.device("cpu")
WRITTEN = """
seed: 3
payload: {kind: arrays, path: toy.npz}
transmitter: {kind: deepjscc, cbr: 1/6, width: 4, depth: 1}
channel: awgn
metrics: [psnr]
snr_db: [5]
train:
  payload: {kind: arrays, path: toy.npz}
  batch_size: 2
federated: {clients: 3, rounds: 4, local_steps: 2, partition: dirichlet}
"""
FLSC = {
    "seed": 3,
    "payload": {"kind": "arrays", "path": "toy.npz"},
    "transmitter": {"kind": "flsc", "cbr": "1/192"},
    "receiver": {"kind": "flsc", "classes": 3},
    "channel": "awgn",
    "metrics": ["psnr", "accuracy"],
    "snr_db": [5],
    "train": {
        "payload": {"kind": "arrays", "path": "toy.npz"},
        "validation": {"kind": "arrays", "path": "toy.npz"},
        "val_snr_db": [5],
        "batch_size": 2,
    },
    "federated": {
        "clients": 4,
        "rounds": 2,
        "local_steps": 2,
        "tasks": ["reconstruct", "classify"],
    },
}


@pytest.fixture(autouse=True)
def _beside_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.arange(18) % 3
    noise = torch.randint(80, (18, 32, 32, 3), generator=stream(1, "toy")).numpy()
    images = noise + 80 * labels[:, None, None, None]
    np.savez("toy.npz", x=images.astype(np.uint8), y=labels)


BOTH: dict[str, Any] = {"metrics": ["psnr", "accuracy", "top3"]}


def scenario(**federated: Any) -> Scenario:
    return Scenario.parse({**FLSC, "federated": {**FLSC["federated"], **federated}})


def test_a_run_trains_and_judges_a_link_of_each_task() -> None:
    rows = run(scenario(), "out")
    assert list(zip(rows["client"], rows["metric"], strict=True)) == [
        ("reconstruct", "psnr"),
        ("classify", "accuracy"),
    ]
    (place,) = Path("out/training").iterdir()
    one, other = (load_file(place / f"client-{k}" / "weights.safetensors") for k in (0, 1))
    shared = {n for n in one.keys() & other.keys() if ".translator." not in n}
    assert len(shared) > 50 and all(torch.equal(one[n], other[n]) for n in shared)
    assert {n.split(".")[1] for n in one.keys() ^ other.keys()} == {"fine", "translator"}
    assert pd.read_csv(place / "partition.csv")["items"].sum() == 18
    checks = pd.read_csv(place / "validation.csv")
    assert set(checks["client"]) == {0, 1, 2, 3} and set(checks["round"]) == {2}
    assert len(pd.read_csv(place / "rounds.csv")) == 2
    names = ("bits", "partition", "psnr_over_rounds", "accuracy_per_client")
    assert all((place / f"{name}.png").is_file() for name in names)
    again = run(scenario(), "out")
    assert again["value"].equals(rows["value"])
    assert not (place / "rounds.csv").stat().st_mtime > (place / "SHA256SUMS").stat().st_mtime


def test_each_client_is_judged_by_the_metrics_of_its_task() -> None:
    points = Scenario.parse({**FLSC, **BOTH}).points()
    kinds = [[m.kind for m in p.scenario.of_client().metrics] for p in points]
    assert kinds == [["psnr"], ["accuracy", "top3"]]


def test_rows_tell_clients_apart_where_their_links_differ() -> None:
    alone = scenario(aggregation="none", clients=2)
    labels = ["reconstruct, client 0", "classify, client 1"]
    assert [p.swept["client"] for p in alone.points()] == labels
    hashes = {p.scenario.training_hash() for p in alone.points()}
    assert len(hashes) == 1 and len({p.scenario.uid(5.0) for p in alone.points()}) == 2
    channels = [{"kind": "awgn"}, {"kind": "rayleigh"}, {"kind": "awgn"}, {"kind": "rayleigh"}]
    several = scenario(channels=channels, tasks=["reconstruct"])
    assert [p.scenario.of_client().channel.kind for p in several.points()] == [
        c["kind"] for c in channels
    ]
    assert Scenario.parse(several.to_dict()) == several


def test_a_swept_key_of_the_federation_makes_trainings_of_its_own() -> None:
    swept = Scenario.parse({**FLSC, "sweep": {"federated.aggregation": ["fedavg", "median"]}})
    points = swept.points()
    assert len(points) == 4 and len({p.scenario.training_hash() for p in points}) == 2


#: kill -9 in the third round, after the first of its clients
DEADLY = """
import os, signal
from semsim.cli import app
from semsim.federated.federation import Federation

def tell(self, client, done, asked, loss):
    if self.server.round == 2 and done == 1:
        os.kill(os.getpid(), signal.SIGKILL)

Federation._tell = tell
app()
"""


@pytest.mark.slow
def test_kill_9_within_a_round_leaves_the_same_digits() -> None:
    Path("toy.yaml").write_text(WRITTEN)
    scenario = Scenario.load("toy.yaml")
    list(train_all(scenario, Path("whole"), "cpu"))
    command = [sys.executable, "-c", DEADLY, "train", "toy.yaml", "--out", "killed"]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(Path("killed").rglob("federation.old.pt"))
    assert not list(Path("killed").rglob("weights.safetensors"))
    list(train_all(scenario, Path("killed"), "cpu"))
    one, other = (
        load_file(next(Path(folder).rglob("client-0/weights.safetensors")))
        for folder in ("whole", "killed")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    ("federated", "says"),
    [
        ({"clients": 30}, "federated.clients: 30 are more than the payload's 18 items"),
        ({"alpha": 0}, "federated.alpha: must be > 0, got 0"),
        ({"partition": "dirichlet", "alpha": 1e-4, "least": 4}, "federated.alpha: 0.0001 leaves"),
        ({"aggregation": "fedbn"}, "federated.aggregation: fedbn keeps batch norms"),
        ({"partition": "by_file"}, "federated.partition: by_file needs a payload of files"),
        ({"dropout": 1.5}, "federated.dropout: is a probability, got 1.5"),
        ({"nan_clients": [9]}, "federated.nan_clients: are numbers from 0 to 3, got 9"),
        (
            {"noise_multiplier": 1.0},
            "federated.noise_multiplier: is at least 0",
        ),
        (
            {"clip_norm": 1.0, "aggregation": "krum"},
            "federated.clip_norm: is for a mean",
        ),
        (
            {"aggregation": "krum", "tasks": ["reconstruct"]},
            "federated.byzantine: krum bears with 1 false of at least 5 updates",
        ),
        ({"tasks": ["guess"]}, "federated.tasks"),
        ({"round": 3}, "did you mean 'rounds'?"),
        ({"clients": 1}, "federated.tasks: names 2 for 1 client"),
    ],
)
def test_what_cannot_be_met_is_told_at_its_key(federated: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as told:
        preflight(scenario(**federated).points(), CPU)
    assert says in str(told.value) and "\n" not in str(told.value)


def test_any_client_can_be_shown() -> None:
    one = {"clients": 3, "rounds": 1, "local_steps": 1, "tasks": ["reconstruct"]}
    values = {**FLSC, "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1}}
    values |= {"receiver": None, "metrics": ["psnr"]}
    values["train"] = {k: v for k, v in FLSC["train"].items() if not k.startswith("val")}
    rows = [
        run(Scenario.parse({**values, "federated": {**one, "client": k}}), "out") for k in (0, 2)
    ]
    assert rows[0]["value"].equals(rows[1]["value"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"payload": {"kind": "synthetic", "count": 8}, "metrics": ["psnr", "accuracy"]},
            "needs a payload with classes",
        ),
        ({"metrics": ["psnr"]}, "metrics: none judges the clients that classify; add accuracy"),
        (
            {"receiver": {"kind": "flsc", "classes": 2}},
            "receiver.classes: 2 are fewer than the payload's 3",
        ),
        ({"transmitter": {"kind": "deepjscc", "cbr": "1/6"}, "receiver": None}, ""),
    ],
)
def test_parts_that_do_not_go_together_are_told(changes: dict[str, Any], says: str) -> None:
    values = {**FLSC, **changes}
    if not says:  # a codec without translators: a network judges its images
        assert [p.scenario.of_client().task.kind for p in Scenario.parse(values).points()] == [
            "reconstruct",
            "classify",
        ]
        parted = [
            p.scenario.of_client().metrics for p in Scenario.parse({**values, **BOTH}).points()
        ]
        assert [m.kind for m in parted[0]] == ["psnr"]  # no client is judged by classes in vain
        values["federated"] = {**FLSC["federated"], "tasks": ["retrieve"]}
        says = "federated.tasks: 'deepjscc' knows no task 'retrieve'"
    with pytest.raises(SpecError) as told:
        preflight(Scenario.parse(values).points(), CPU)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "train: missing, so federated has nothing to do; leave it out"),
        ({"train": FLSC["train"], "weights": "a.safetensors"}, "transmitter.weights: a.safe"),
    ],
)
def test_a_federation_that_would_train_nothing_is_refused(
    changes: dict[str, Any], says: str
) -> None:
    values = {k: v for k, v in FLSC.items() if k != "train"} | changes
    Path("a.safetensors").touch()
    values["transmitter"] = {**FLSC["transmitter"], "weights": values.pop("weights", None)}
    with pytest.raises(SpecError) as told:
        Scenario.parse(values)
    assert str(told.value).startswith(says)


def test_a_task_without_labels_ends_in_one_sentence_and_code_2() -> None:
    text = WRITTEN.replace("kind: arrays, path: toy.npz", "kind: synthetic, count: 8")
    Path("toy.yaml").write_text(text)
    result = CliRunner().invoke(app, ["train", "toy.yaml"])
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "federated.partition: dirichlet needs a payload with classes" in result.stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"nan_clients": [0, 1, 2]},
            "in 2 of 2 rounds no update was used; in round 1 client 0: it",
        ),
        ({"dropout": 1.0}, "in 2 of 2 rounds no update was used; in round 1 all clients vanished"),
    ],
)
def test_rounds_that_taught_nothing_are_told(changes: dict, why: str) -> None:
    text = WRITTEN.replace("rounds: 4, local_steps: 2", "rounds: 2, local_steps: 1")
    Path("toy.yaml").write_text(text)
    scenario = Scenario.load("toy.yaml")
    own = {**scenario.to_dict()["federated"], **changes}
    Path("toy.yaml").write_text(text.partition("federated:")[0] + f"federated: {json.dumps(own)}")
    result = CliRunner().invoke(app, ["train", "toy.yaml"])
    assert result.exit_code == 0 and f"semsim: {why}" in result.stderr


def test_a_client_with_less_than_its_least_is_named() -> None:
    few = {**FLSC["federated"], "clients": 2, "partition": "by_class", "least": 8}
    with pytest.raises(SpecError, match=r"federated.least: client 1 gets 6 items, fewer than 8"):
        preflight(Scenario.parse({**FLSC, "federated": few}).points(), CPU)


def test_options_that_no_link_has_a_use_for_are_named() -> None:
    assert idle(Scenario.parse(FLSC)) == []
    rules = {"alpha": 0.1, "mu": 1.0, "timeout_s": 3, "delta": 1e-6, "noise_scale": 2.0}
    values = {
        **FLSC,
        "train": {k: v for k, v in FLSC["train"].items() if k != "validation"} | {"ema": 0.9},
        "federated": {**FLSC["federated"], **rules},
        "stop": {"max_items": 5, "ci95": 0.1},
    }
    assert idle(Scenario.parse(values)) == [
        "federated.alpha does nothing here: it is for partition: dirichlet",
        "federated.mu does nothing here: it is for aggregation: fedprox",
        "federated.timeout_s does nothing here: it is for engine: flower",
        "federated.delta does nothing here: it is for clip_norm",
        "federated.noise_scale does nothing here: it is for noise_clients",
        "train.val_snr_db does nothing here: it is for a training with a validation",
        "train.ema does nothing here: it is for a training without federated",
        "stop.ci95 does nothing here: it is for a min_items, 100 where left out, below max_items",
    ]
    swept = {"federated.aggregation": ["fedavg", "fedprox"], "federated.noise_clients": [[0]]}
    left = idle(Scenario.parse({**values, "sweep": swept, "stop": {"max_items": 500, "ci95": 0.1}}))
    assert [line.split(" ")[0] for line in left] == [
        "federated.alpha", "federated.timeout_s", "federated.delta", "train.val_snr_db",
        "train.ema",
    ]  # fmt: skip


SITES: dict[str, Any] = {
    "seed": 1,
    "payload": {"kind": "sites", "count": 20, "size": 32},
    "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1},
    "channel": "awgn",
    "task": {"kind": "sites", "weights": None, "trainable": True, "end_to_end": True},
    "metrics": ["balanced_accuracy", "sensitivity_at"],
    "snr_db": [10],
    "train": {
        "payload": {"kind": "sites", "split": "labelled", "count": 20, "size": 32},
        "validation": {"kind": "sites", "split": "val", "count": 30, "size": 32},
        "val_items": 2,
        "batch_size": 8,
    },
    "federated": {"clients": 2, "rounds": 1, "local_steps": 1},
}


def test_a_federation_sets_what_a_task_sets_after_a_training() -> None:
    scenario = Scenario.parse(SITES)
    assert len(list(train_all(scenario, Path("out")))) == 1
    (place,) = Path("out/training").iterdir()
    task = sscl.FindSites(weights=str(place / "client-0" / "task.safetensors"))
    kept = task.network.offset.clone()
    sscl.set_thresholds(task.network, spec.build(scenario.train.validation))  # type: ignore[union-attr]
    assert kept.any() and torch.equal(kept, task.network.offset)


def test_what_a_federation_s_task_lacks_in_the_end_is_told_before() -> None:
    for validation, says in (
        (None, "sensitivity_at needs a threshold of the task"),
        ({**SITES["train"]["validation"], "split": "test"}, "train.validation: sets thresholds"),
    ):
        own = {k: v for k, v in SITES["train"].items() if k not in ("validation", "val_items")}
        own |= {"validation": validation} if validation else {}
        with pytest.raises(SpecError, match=says):
            preflight(Scenario.parse({**SITES, "train": own}).points(), CPU)


def test_items_without_a_class_are_shared_out_and_counted() -> None:
    with np.load("toy.npz") as toy:
        np.savez("some.npz", x=toy["x"], y=np.where(toy["y"] == 0, -1, toy["y"]))
    text = WRITTEN.replace("toy.npz", "some.npz")
    Path("toy.yaml").write_text(text.replace("rounds: 4, local_steps: 2", "rounds: 1"))
    result = CliRunner().invoke(app, ["train", "toy.yaml", "--out", "out"])
    assert result.exit_code == 0, result.output
    (place,) = Path("out/training").iterdir()
    table = pd.read_csv(place / "partition.csv")
    assert [table[n].sum() for n in ("class_0", "class_1", "unlabelled")] == [0, 6, 6]
    told = {"payload": {"kind": "arrays", "path": "some.npz"}}
    values = {**FLSC, **told, "train": {**told, "batch_size": 2}}
    with pytest.raises(SpecError, match=r"federated.tasks: classify needs a class .* 6 of the"):
        preflight(Scenario.parse(values).points(), CPU)


def test_a_stop_within_the_first_classes_is_told_by_check() -> None:
    with np.load("toy.npz") as toy:
        order = np.argsort(toy["y"], kind="stable")
        np.savez("rows.npz", x=toy["x"][order], y=toy["y"][order])
    one = WRITTEN.partition("train:")[0] + "stop: {max_items: 7}\n"
    for name, warned in (("rows", True), ("toy", False)):
        Path("toy.yaml").write_text(one.replace("toy.npz", f"{name}.npz"))
        result = CliRunner().invoke(app, ["check", "toy.yaml"])
        assert result.exit_code == 0
        says = "stop may end after 7 of 18 items, which come class by class"
        assert (f"{says}, so that these are of 2 of 3 classes" in result.stderr) == warned


def test_clients_are_validated_on_all_their_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load("toy.npz") as toy:
        order = np.argsort(toy["y"], kind="stable")
        np.savez("rows.npz", x=toy["x"][order], y=toy["y"][order])
    train = {**FLSC["train"], "validation": {"kind": "arrays", "path": "rows.npz"}, "val_items": 4}
    own = {"clients": 2, "rounds": 1, "local_steps": 1, "tasks": ["classify"]}
    clients = ScenarioClients(
        Scenario.parse({**FLSC, "metrics": ["accuracy"], "train": train, "federated": own})
    )
    judged: list[list[int]] = []
    monkeypatch.setattr(
        federation, "evaluate", lambda link, payload, **_: judged.append(payload.labels) or []
    )
    clients.validate(SimpleNamespace(load=clients.member))  # type: ignore[arg-type]
    assert [len(labels) for labels in judged] == [4, 4]  # of 9
    assert set(judged[0]) == set(judged[1]) == {0, 1, 2}  # the first 4 would be of 2


def test_quick_federates_little_whatever_is_swept() -> None:
    swept = {"federated.rounds": [50, 60], "federated.local_steps": [9]}
    points = quicker(Scenario.parse({**FLSC, "sweep": swept})).points()
    found = {(p.scenario.federated.rounds, p.scenario.federated.local_steps) for p in points}
    assert found == {(2, 2), (4, 2)}


def test_settings_of_one_training_are_refused() -> None:
    values = {**FLSC, "train": {**FLSC["train"], "minutes": 3}}
    with pytest.raises(SpecError, match=r"train.minutes: has no place in a federated training"):
        preflight(Scenario.parse(values).points(), CPU)
