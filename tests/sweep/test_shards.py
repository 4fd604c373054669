"""Shards of a sweep: merged they are the whole, and mistakes leave nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semsim.cli import app
from semsim.items import read_items
from semsim.mistakes import SpecError
from semsim.results import read_provenance, read_rows
from semsim.scenario.scenario import Scenario
from semsim.sweep import outputs
from semsim.sweep.shards import Shard
from semsim.sweep.sweep import merge, run

TOY = """
name: toy
seed: 3
payload: {kind: toy_parts:ToyPayload}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error]
snr_db: [0, 5, 10]
batch_size: 8
sweep: {transmitter.mode: [plain, negative]}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


def test_merged_shards_are_the_whole_run() -> None:
    run("toy.yaml", "one")
    for number in (3, 1, 4, 2):
        run("toy.yaml", "out", shard=Shard(number, 4))
    merge("toy.yaml", "out")
    first, second = (read_rows(folder).drop(columns="seconds") for folder in ("one", "out"))
    assert first.equals(second)
    for uid in first["uid"]:
        assert read_items("one", uid).equals(read_items("out", uid))
    assert Path("out/report.html").is_file()
    run("toy.yaml", "out")
    shards = read_provenance("out")["shards"]
    assert list(shards) == ["1-of-4", "2-of-4", "3-of-4", "4-of-4"]
    own = read_provenance("out/shards/2-of-4")
    assert shards["2-of-4"] == {k: own[k] for k in shards["2-of-4"]} and "device" in own
    run("toy.yaml", "out", fresh=True)
    assert "shards" not in read_provenance("out")


def test_shards_share_all_points_evenly() -> None:
    points = Scenario.load("toy.yaml").points()
    parts = [Shard(number, 4).of(points) for number in range(1, 5)]
    taken = [(p.name, snr) for part in parts for p in part for snr in p.scenario.snr_db]
    assert sorted(taken) == sorted((p.name, snr) for p in points for snr in p.scenario.snr_db)
    assert [sum(len(p.scenario.snr_db) for p in part) for part in parts] == [2, 2, 1, 1]


def test_a_shard_without_points_is_no_mistake() -> None:
    for number in range(1, 8):
        result = CliRunner().invoke(app, ["run", "toy.yaml", "--shard", f"{number}/7"])
        assert result.exit_code == 0, result.output
    assert "semsim merge toy.yaml" in result.output
    merged = CliRunner().invoke(app, ["merge", "toy.yaml"])
    assert merged.exit_code == 0, merged.output
    assert len(read_rows("results/toy")) == 6


@pytest.mark.parametrize("text", ["41/40", "0/4", "3", "a/b", "3/0"])
def test_a_shard_that_is_none_is_told(text: str) -> None:
    result = CliRunner().invoke(app, ["run", "toy.yaml", "--shard", text])
    assert result.exit_code == 2
    assert "--shard is NUMBER/COUNT" in result.stderr
    assert not Path("results").exists()


def test_missing_shards_are_told_and_nothing_is_gathered() -> None:
    run("toy.yaml", "out", shard=Shard(1, 2))
    with pytest.raises(SpecError, match="3 points are in no shard below out, such as plain at 5"):
        merge("toy.yaml", "out")
    assert not Path("out/rows.parquet").exists() and not Path("out/journal").exists()
    with pytest.raises(SpecError, match="has no shards; run them first"):
        merge("toy.yaml", "elsewhere")


def test_a_merged_sweep_has_the_pictures_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "draw_all", lambda *_: [])  # strips are drawn
    values = {
        "payload": {"kind": "synthetic", "count": 2, "size": 16},
        "transmitter": {"kind": "analog", "cbr": "1/3"},
        "channel": "awgn",
        "metrics": ["psnr"],
        "snr_db": [0, 10],
    }
    scenario = Scenario.parse(values)

    def pictures(folder: str) -> dict[str, bytes]:
        files = Path(folder).glob("pictures/*/*")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    run(scenario, "one")
    for number in (1, 2):
        run(scenario, "out", shard=Shard(number, 2))
    merge(scenario, "out")
    assert len(pictures("one")) == 4 and pictures("out") == pictures("one")
    assert Path("out/strip.webp").read_bytes() == Path("one/strip.webp").read_bytes()
    shutil.rmtree("out/pictures")
    run(scenario, "out")
    assert pictures("out") == pictures("one")
    more = Scenario.parse({**values, "snr_db": [0, 5, 10]})
    run(more, "out", shard=Shard(1, 1))
    merge(more, "out")
    assert len(pictures("out")) == 5  # also those of an SNR that came later


def test_links_without_pictures_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run("toy.yaml", "out")
    monkeypatch.setattr(Scenario, "build", lambda *_: pytest.fail("built again"))
    run("toy.yaml", "out")


def test_damaged_items_are_not_merged() -> None:
    for number in (1, 2):
        run("toy.yaml", "out", shard=Shard(number, 2))
    path = next(Path("out/shards/2-of-2/items").glob("*.parquet"))
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(SpecError, match=r"1 points are in no shard .* run .* damaged, again"):
        merge("toy.yaml", "out")
    run("toy.yaml", "out", shard=Shard(2, 2))
    assert path.read_bytes() == sound
    merge("toy.yaml", "out")


def test_shards_train_nothing() -> None:
    Path("toy.yaml").write_text(
        """
payload: {kind: synthetic, count: 2, size: 16}
channel: awgn
metrics: [psnr]
snr_db: [0]
sweep: {transmitter: {learned: LEARNED, classical: {kind: analog, cbr: 1/6}}}
train: {payload: {kind: synthetic, count: 4, size: 16}, steps: 2, batch_size: 2}
""".replace("LEARNED", "{kind: deepjscc, cbr: 1/6, width: 4, depth: 1}")
    )
    with pytest.raises(SpecError, match="run semsim train FILE first"):
        run("toy.yaml", "out", shard=Shard(1, 2))
    assert CliRunner().invoke(app, ["train", "toy.yaml", "--out", "out"]).exit_code == 0
    for number in (1, 2):
        run("toy.yaml", "out", shard=Shard(number, 2))
    assert len(merge("toy.yaml", "out")) == 2
    (weights,) = Path("out/training").glob("*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(SpecError, match="holds no sound weights"):
        run("toy.yaml", "out", shard=Shard(1, 2))


@pytest.mark.parametrize(
    "options, told",
    [
        (["--jobs", "0"], "--jobs is the number of processes"),
        (["--on", "ray", "--jobs", "0"], "--jobs is the number of processes"),
        (["--on", "slurm"], "--on 'slurm' is not one of here, ray"),
        (["--gpus", "1"], "add --on ray"),
        (["--address", "auto"], "add --on ray"),
        (["--quick", "--shard", "1/2"], "leave --shard out"),
    ],
)
def test_options_that_do_not_fit_are_told(options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["run", "toy.yaml", *options])
    assert result.exit_code == 2 and told in result.stderr
    assert not Path("results").exists()
