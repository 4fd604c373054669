"""Runs survive kill -9 and Ctrl-C with the same digits, in any order, and keep what is done."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from semsim.items import about_items, items_path, read_items
from semsim.mistakes import SpecError
from semsim.results import COLUMNS, read_provenance, read_rows
from semsim.scenario.scenario import Scenario
from semsim.scenario.strict_yaml import parse_yaml
from semsim.sweep.outputs import captions
from semsim.sweep.preflight import quicker
from semsim.sweep.stages import stages_of
from semsim.sweep.sweep import results_folder, run
from semsim.sweep.trained import train_all

TOY = """
name: toy
seed: 3
payload: {kind: toy_parts:ToyPayload, mixed: true}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error, toy_parts:Negative]
snr_db: [0, 10]
batch_size: 8
sweep: {transmitter.mode: [plain, negative]}
"""
GOLDEN = Path(__file__).parents[1] / "golden" / "toy.csv"
RUN = (
    "import semsim.sweep.points as p, semsim.sweep.sweep as s, sys; "
    "p.CHECKPOINT_S = 0; s.run(sys.argv[1], 'out')"
)
COUNT = "; import toy_parts; print(toy_parts.Error.seen)"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


def toy(**changes: Any) -> Scenario:
    return Scenario.parse({**parse_yaml(TOY), **changes})


def digits(folder: str | Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return all rows but for the time they took, under what they are."""
    rows = read_rows(folder).drop(columns="seconds").to_dict("records")
    return {(r["transmitter.mode"], r["snr_db"], r["metric"]): r for r in rows}


def items(folder: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Return the values of all items of a folder, by point."""
    uids = sorted(set(read_rows(folder)["uid"]))
    return {uid: read_items(folder, uid).to_dict("records") for uid in uids}


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", code, "toy.yaml"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120,
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip


def _hear_ctrl_c() -> None:
    """Undo what a shell does to jobs in the background: they ignore Ctrl-C, and so do children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_run_leaves_rows_provenance_and_the_scenario() -> None:
    rows = run("toy.yaml", "out")
    assert len(rows) == 2 * 2 * 2
    assert set(COLUMNS) <= set(rows)
    fair = rows[["frontend", "csi_rx", "csi_tx"]].drop_duplicates().values.tolist()
    assert fair == [["lmmse", "perfect", "none"]]
    files = {path.name for path in Path("out").iterdir()}
    expected = {"rows.parquet", "rows.csv", "provenance.json", "scenario.yaml", "journal"}
    assert files >= expected | {"error_over_snr_db.png", "negative_over_snr_db.png"}
    assert Path("out/scenario.yaml").read_text() == TOY
    assert not list(Path("out").rglob("*.tmp")) + list(Path("out").rglob("*.part.json"))


def test_a_second_run_computes_nothing_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run("toy.yaml", "out")
    before = Path("out/rows.csv").read_text()
    monkeypatch.setattr("toy_parts.ToyTransmitter.forward", lambda *_: pytest.fail("sent again"))
    run("toy.yaml", "out")
    assert Path("out/rows.csv").read_text() == before


@pytest.mark.parametrize("kill_at", ["9", "20"])  # within the first link, and within the second
def test_a_run_killed_in_the_middle_goes_on_to_the_same_digits(kill_at: str) -> None:
    run("toy.yaml", "whole")
    killed = in_a_process(RUN, TOY_KILL_AT=kill_at)
    assert killed.returncode == -9
    assert list(Path("out/journal").glob("*.part.json"))
    resumed = in_a_process(RUN + COUNT, TOY_KILL_AT="1000000")
    assert resumed.returncode == 0, resumed.stderr
    whole = 2 + 2 * 10 * 2  # two links: one trial item each, then ten batches at two SNRs
    assert int(resumed.stdout) < whole - int(kill_at) + 8
    assert digits("out") == digits("whole")
    assert items("out") == items("whole")


def test_items_that_a_crash_lost_are_computed_again() -> None:
    run("toy.yaml", "whole")
    assert in_a_process(RUN, TOY_KILL_AT="20").returncode == -9
    for path in Path("out/journal").glob("*.items"):
        path.write_bytes(path.read_bytes()[:-1])
    run("toy.yaml", "out")
    assert digits("out") == digits("whole")
    assert items("out") == items("whole")


def test_items_that_were_deleted_are_computed_again() -> None:
    run("toy.yaml", "out")
    whole = items("out")
    items_path("out", next(iter(whole))).unlink()
    run("toy.yaml", "out")
    assert items("out") == whole


def test_rows_are_means_of_the_items_that_are_kept() -> None:
    rows = run("toy.yaml", "out")
    for row in rows.to_dict("records"):
        kept = read_items("out", row["uid"])
        assert sorted(kept["item"]) == list(range(40))
        assert kept[row["metric"]].mean() == pytest.approx(row["value"], rel=1e-12)
    about = about_items("out", rows["uid"].iloc[0])
    assert about["plan"] == {"batch_size": 8, "max_items": 40, "seed": 3}
    assert about["means"] == ["error", "negative"]
    assert not list(Path("out/journal").glob("*.items"))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on() -> None:
    code = "import sys; from semsim.cli import app; app(['run', 'toy.yaml', '--out', 'out'])"
    stopped = in_a_process(code, TOY_KILL_AT="9", TOY_SIGNAL="2")
    assert stopped.returncode == 130
    assert "What is done is kept in out; the same command goes on." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert list(Path("out/journal").glob("*.part.json"))
    run("toy.yaml", "out")
    run("toy.yaml", "whole")
    assert digits("out") == digits("whole")


def test_the_order_of_points_and_snrs_changes_no_digit() -> None:
    run(toy(), "forth")
    backwards = {"transmitter.mode": ["negative", "plain"]}
    run(toy(sweep=backwards, snr_db=[10, 5, 0]), "back")
    forth, back = digits("forth"), digits("back")
    assert {key: back[key] for key in forth} == forth


def test_a_point_added_later_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run(toy(), "out")
    first = digits("out")
    seen: list[str] = []
    more = toy(snr_db=[0, 5, 10])
    run(more, "out", listener=lambda p: seen.append(str(p.evaluation.snr_db)))
    assert set(seen) == {"[5.0]"}
    both = digits("out")
    assert {key: both[key] for key in first} == first
    assert len(both) == 12


def test_a_changed_scenario_keeps_the_rows_of_the_old_one_aside() -> None:
    run(toy(), "out")
    run(toy(seed=4), "out")
    assert set(read_rows("out")["seed"]) == {4}
    assert set(run(toy(), "out", listener=pytest.fail)["seed"]) == {3}


def test_fresh_forgets() -> None:
    run(toy(), "out")
    run(toy(seed=4), "out", fresh=True)
    assert set(read_rows("out")["seed"]) == {4}


def test_a_new_label_renames_without_running() -> None:
    part = {"kind": "toy_parts:ToyTransmitter"}
    run(toy(sweep={"transmitter": {"old": part}}), "out")
    rows = run(toy(sweep={"transmitter": {"new": part}}), "out", listener=pytest.fail)
    assert set(rows["transmitter"]) == {"new"}


def test_quick_runs_little_and_says_so() -> None:
    rows = run("toy.yaml", quick=True)
    assert set(rows["scenario"]) == {"toy-quick"}
    assert set(rows["n"]) == {4}
    assert results_folder(toy()) == Path("results/toy")
    assert Path("results/toy-quick/rows.csv").is_file()


def test_a_link_that_fails_its_trial_stops_the_run_before_anything_is_written() -> None:
    bad = {"receiver": {"kind": "toy_parts:ToyReceiver"}, "sweep": {"receiver.bad": ["no", "nan"]}}
    with pytest.raises(SpecError, match=r"in the sweep, at receiver\.bad = nan"):
        run(toy(**bad), "out")
    assert not Path("out").exists()


def test_a_batch_beyond_the_memory_names_the_key_and_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(toy(), "whole")

    def full(self: object, y: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(y) > 4 and Path("out/journal/rows.jsonl").is_file():
            raise torch.OutOfMemoryError("out of memory")
        return torch.view_as_real(y[:, 0]).flatten(1)

    with monkeypatch.context() as patch:
        patch.setattr("toy_parts.ToyReceiver.forward", full)
        with pytest.raises(SpecError, match="batch_size: batches of 8 items do not fit"):
            run(toy(), "out")
    run(toy(), "out")
    assert digits("out") == digits("whole")


def test_two_runs_at_once_do_not_share_a_folder() -> None:
    def again(progress: object) -> None:
        with pytest.raises(ValueError, match="another run or training is writing to out"):
            run(toy(), "out")

    run(toy(snr_db=[0], sweep={}), "out", listener=again)


def test_a_tiny_sweep_gives_the_digits_it_always_gave() -> None:
    """Rewrite with SEMSIM_WRITE_GOLDEN=1, and say in the commit why the numbers changed."""
    rows = run("toy.yaml", "out")
    columns = ["transmitter.mode", "snr_db", "metric", "value", "ci_low", "ci_high", "n"]
    if os.environ.get("SEMSIM_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        rows[columns].to_csv(GOLDEN, index=False)
    with GOLDEN.open() as file:
        golden = list(csv.DictReader(file))
    for row, kept in zip(rows.to_dict("records"), golden, strict=True):
        for name in columns[:3]:
            assert str(row[name]) == kept[name]
        for name in columns[3:]:  # another CPU may round float32 differently
            assert row[name] == pytest.approx(float(kept[name]), rel=1e-5, abs=1e-7)


def test_weights_that_change_during_a_run_split_no_results(monkeypatch: pytest.MonkeyPatch) -> None:
    changing = iter(range(1000))
    monkeypatch.setattr("semsim.scenario.scenario.weights_hash", lambda name: str(next(changing)))
    monkeypatch.setattr("semsim.sweep.sweep.weights_hash", lambda name: "0")
    monkeypatch.setattr("semsim.scenario.building.load_weights", lambda *_: None)
    part = {"kind": "toy_parts:ToyTransmitter", "weights": "toy.safetensors"}
    assert len(run(toy(transmitter=part), "out")) == 2 * 2 * 2


def test_quick_also_trains_little() -> None:
    train = {"payload": {"kind": "synthetic"}, "minutes": 60}
    few = quicker(toy(train=train)).train
    assert (few.steps, few.minutes) == (4, None)


@pytest.mark.parametrize(
    ("sweep", "lengths"),
    [
        ({"train.steps": [900, 5000]}, [(4, None), (8, None)]),
        ({"train.minutes": {"short": 3, "long": 600}}, [(20_000, 0.01), (20_000, 0.02)]),
        ({"train": {"a": {"steps": 900}, "b": {"minutes": 90}}}, [(4, None), (4, None)]),
        ({"train.stages": [[{"steps": 900}, {"minutes": 90}], [{}]]}, [(4, None)] * 3),
    ],
)
def test_quick_trains_little_whatever_is_swept(sweep: dict, lengths: list) -> None:
    payload = {"payload": {"kind": "synthetic"}}
    if "train" in sweep:
        sweep = {"train": {label: {**payload, **own} for label, own in sweep["train"].items()}}
    points = quicker(toy(train=payload, sweep=sweep)).points()
    stages = [stage.train for point in points for stage in stages_of(point.scenario)]
    assert [(train.steps, train.minutes) for train in stages] == lengths


def test_quick_calls_what_is_swept_as_the_scenario_does() -> None:
    plots, sweep = [{"y": "error", "difference_to": "10"}], {"train.steps": [10, 20]}
    swept = toy(train={"payload": {"kind": "synthetic"}}, sweep=sweep, plots=plots)
    points = quicker(swept).points()
    assert [p.swept for p in points] == [{"train.steps": 10}, {"train.steps": 20}]
    assert [p.scenario.train.steps for p in points] == [4, 8]


def test_provenance_is_of_the_run_that_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    run(toy(), "out")
    first = read_provenance("out")
    monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    plots = [{"y": "error"}]
    run(toy(plots=plots), "out")
    again = read_provenance("out")
    assert again["plots"] and not first["plots"]  # what is shown is of today
    made = ("threads", "time", "command", "device")
    assert [again[key] for key in made] == [first[key] for key in made]
    run(toy(snr_db=[0, 10, 20], plots=plots), "out")
    assert read_provenance("out")["threads"] == 99


@pytest.mark.slow
def test_a_scenario_that_trains_does_so_once_for_all_points_that_share_it() -> None:
    values = {
        "payload": {"kind": "synthetic", "count": 3, "size": 16},
        "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1},
        "channel": "awgn",
        "metrics": ["psnr"],
        "sweep": {"payload.count": [2, 3]},
        "train": {"payload": {"kind": "synthetic", "count": 4, "size": 16}, "steps": 2},
    }
    rows = run(toy(**values), "out")
    assert len(rows) == 2 * 2
    (weights,) = Path("out/training").glob("*/weights.safetensors")
    (line,) = train_all(toy(**values), Path("out"))
    assert line.endswith(str(weights))
    finished = {**values["transmitter"], "weights": str(weights)}
    again = run(toy(**{**values, "transmitter": finished}), "named")
    assert list(again["value"]) == list(rows["value"])


TRAINED = {
    "payload": {"kind": "synthetic", "count": 3, "size": 16},
    "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1},
    "channel": "awgn",
    "metrics": ["psnr"],
    "train": {"payload": {"kind": "synthetic", "count": 4, "size": 16}, "steps": 2},
}


def test_the_seed_of_the_training_decides_the_training_alone() -> None:
    scenario = toy(**TRAINED, sweep={"train.seed": [3, 4]})
    same, other = (point.scenario for point in scenario.points())
    plain = toy(**TRAINED, sweep={})
    assert same.training_hash() == plain.training_hash() != other.training_hash()
    assert same.uid() == plain.uid() != other.uid()
    assert {**same.content, "weights": 0} == {**other.content, "weights": 0}
    elsewhere = toy(**{**TRAINED, "train": {**TRAINED["train"], "seed": 3}}, sweep={}, seed=9)
    assert elsewhere.training_hash() == plain.training_hash()


@pytest.mark.slow
def test_several_trainings_differ_and_meet_the_same_draws() -> None:
    rows = run(toy(**TRAINED, sweep={"train.seed": [3, 4]}), "out")
    plain = run(toy(**TRAINED, sweep={}), "plain")
    of_seed = dict(list(rows.groupby("train.seed")))
    assert list(of_seed[3]["value"]) == list(plain["value"])
    assert list(of_seed[4]["value"]) != list(plain["value"])
    weights = {p.read_bytes() for p in Path("out/training").glob("*/weights.safetensors")}
    assert len(weights) == 2
    named = [str(p) for p in sorted(Path("out/training").glob("*/weights.safetensors"))]
    part = {**TRAINED["transmitter"], "weights": named[0]}
    values = {k: v for k, v in TRAINED.items() if k not in ("train", "transmitter")}
    again = run(toy(**values, transmitter=part, sweep={}), "named")
    assert list(again["value"]) in [list(part["value"]) for part in of_seed.values()]


KILL_AT_WRITE = """
import os, sys
sync, seen = os.fsync, 0
def kill(number):
    global seen
    seen += 1
    if seen == int(os.environ["KILL_AT_WRITE"]):
        if hasattr(number, "fileno"): number = number.fileno()
        os.ftruncate(number, max(0, os.fstat(number).st_size - 7))  # what is written is torn
        os.kill(os.getpid(), 9)
    sync(number)
os.fsync = kill
"""


@pytest.mark.parametrize("write", ["3", "7", "9", "12", "20"])
def test_a_run_killed_as_it_writes_goes_on_to_the_same_digits(write: str) -> None:
    run("toy.yaml", "whole")
    killed = in_a_process(KILL_AT_WRITE + RUN, KILL_AT_WRITE=write)
    assert killed.returncode == -9, killed.stderr
    run("toy.yaml", "out")
    assert digits("out") == digits("whole")
    assert items("out") == items("whole")


def test_twice_the_links_cost_twice_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read from and written to the journal, tables written, and pictures looked for."""
    from semsim.results import Journal
    from semsim.sweep import sweep

    counts: dict[str, int] = {}

    def counted(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return inner(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    counted(Journal, "finished")
    counted(Journal, "finish")
    counted(sweep, "write_rows")
    monkeypatch.setattr(sweep, "figures", lambda *arguments: [])
    seen = []
    for links in (20, 40):
        counts.clear()
        gains = [1 + k / 100 for k in range(links)]
        run(toy(sweep={"channel.gain": gains}, snr_db=[0], stop={"max_items": 2}), f"out{links}")
        seen.append(dict(counts))
    assert seen[0] == {"finished": 20, "finish": 20, "write_rows": 1}
    assert seen[1] == {"finished": 40, "finish": 40, "write_rows": 1}


def test_links_that_share_a_folder_look_through_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from semsim.scenario import loading

    (tmp_path / "photos").mkdir()
    for k in range(3):
        Image.new("RGB", (16, 16), (k, k, k)).save(tmp_path / "photos" / f"{k}.png")
    looks: list[Path] = []
    look = loading._folder_hash
    monkeypatch.setattr(loading, "_folder_hash", lambda path: looks.append(path) or look(path))
    values = {"payload": {"kind": "folder", "path": str(tmp_path / "photos")}, "channel": "awgn"}
    values |= {"metrics": ["psnr"], "transmitter": {"kind": "analog", "cbr": "1/6"}}
    scenario = toy(**values, sweep={"transmitter.cbr": ["1/6", "1/12", "1/24"]})
    run(scenario, "out")
    assert len(looks) == 1
    run(scenario, "out")
    assert len(looks) <= 2


def test_a_report_s_captions_say_what_its_figures_do() -> None:
    rows = pd.DataFrame({"metric": ["psnr"] * 2, "label": ["PSNR"] * 2, "n": [20, 20]})
    files = [Path(f"psnr_over_{end}.png") for end in ("snr_db_2", "cbr_difference_to_hevc___ldpc")]
    plain, beside = captions(files, rows, ["HEVC + LDPC"]).values()
    assert plain == "PSNR over SNR (dB); 95 % intervals over 20 items per point."
    assert "source value), and differences to HEVC + LDPC; 95 %" in beside
    third = Path("psnr_over_snr_db_difference_to_1_3.png")
    again = third.with_stem(third.stem + "_2")
    found = captions([third, again], rows, ["1/3"])
    assert all("differences to 1/3; 95 %" in found[path] for path in (third, again))
    trained = rows.assign(**{"train.seed": [1, 2]})
    assert captions(files[:1], trained, [])[files[0]] == "PSNR over SNR (dB); 95 % intervals."
