"""The command line: fast help, honest exit codes, files that it names."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import semsim
from semsim.cli import app

ROOT = Path(__file__).parents[1]
TOY = """
name: toy
payload: {kind: toy_parts:ToyPayload}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error]
snr_db: [0, 10]
sweep: {transmitter.mode: [plain, negative]}
"""
PICTURES = """
name: pictures
payload: {kind: synthetic, count: 2, size: 16}
transmitter: {kind: deepjscc, cbr: 1/6, width: 4, depth: 1}
metrics: [psnr]
snr_db: [0, 10]
sweep: {channel: {AWGN: awgn, Fading: {kind: rayleigh}}}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(TOY)


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_answers_within_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "semsim", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "run" in done.stdout
    # of a core, so that a busy machine does not count
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_ctrl_c_ends_with_one_line_while_modules_are_still_imported() -> None:
    code = (
        "import os, signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored behind a shell's &
        "sys.meta_path.insert(0, Impatient())\n"
        "from semsim.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped.\n")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, semsim.cli; print('torch' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split()[0] == "False"


def test_a_reader_that_goes_away_is_no_mistake() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "semsim", "list"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")  # as after SIGPIPE


def test_version_is_printed() -> None:
    assert call("--version").strip() == f"semsim {semsim.__version__}"


def test_list_shows_each_kind_with_a_line_on_it() -> None:
    channels = call("list", "channel")
    assert "rayleigh" in channels
    assert "transmitter" not in channels
    assert "deepjscc" in call("list")


def test_list_is_plain_text_with_a_gap_before_each_line() -> None:
    said = call("list")
    assert "`" not in said
    kinds = [line for line in said.splitlines() if line.startswith(" ")]
    assert all(re.fullmatch(r"  \S+(  +\S.*)?", line) for line in kinds)


def test_a_file_in_the_place_of_the_results_folder_is_named() -> None:
    result = CliRunner().invoke(app, ["run", "toy.yaml", "--out", "toy.yaml"])
    assert result.exit_code == 2
    assert result.stderr == "semsim: --out: toy.yaml is a file; give a folder\n"
    assert Path("toy.yaml").read_text() == TOY


def test_list_of_an_unknown_family_says_which_there_are() -> None:
    result = CliRunner().invoke(app, ["list", "chanel"])
    assert result.exit_code == 2
    assert "no family is called 'chanel'; did you mean 'channel'?" in result.stderr


def test_list_of_a_part_tells_its_keys_in_each_family_that_has_it() -> None:
    said = call("list", "cdl")
    assert said.startswith("channel cdl\n")
    assert "delay_spread_s: RMS delay spread, in s." in said
    assert "    num_tx: 1  # an integer\n" in said
    assert "    model: A  # 'A' or 'B' or 'C' or 'D' or 'E'\n" in said
    assert "    feedback_snr_db: .inf  # a number\n" in call("list", "feedback")  # as YAML has it
    both = call("list", "measured")
    assert "payload measured\n" in both and "channel measured\n" in both
    assert "    path:  # must be given: a word\n" in both
    assert "It has no keys." in call("list", "psnr")


def test_list_of_a_mistyped_part_says_which_was_meant() -> None:
    result = CliRunner().invoke(app, ["list", "rayliegh"])
    assert result.exit_code == 2
    assert "no family is called 'rayliegh'; did you mean 'rayleigh'?" in result.stderr
    assert result.stderr.endswith("or write a kind, such as cdl, for its keys\n")


def test_check_says_what_would_run_and_writes_nothing() -> None:
    said = call("check", "toy.yaml")
    assert "2 link(s) at snr_db 0, 10" in said
    assert "4 channel uses per item (4 payload), CBR 0.5, power 1" in said
    assert [path.name for path in Path().iterdir()] == ["toy.yaml"]


def test_check_builds_each_part_of_a_link_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from semsim import spec

    built, build = list[str](), spec.build

    def counted(part: Any, **given: Any) -> Any:
        built.append(type(part).family)
        return build(part, **given)

    monkeypatch.setattr(spec, "build", counted)
    call("check", "toy.yaml")  # two links
    families = ("payload", "transmitter", "receiver", "channel", "task", "metric")
    assert {family: built.count(family) for family in families} == dict.fromkeys(families, 2)


def test_check_says_where_nothing_is_sent() -> None:
    image = "{kind: synthetic, count: 1, size: 16}"
    text = f"payload: {image}\nchannel: awgn\nmetrics: [psnr]\nsnr_db: 10\ntransmitter: no_link"
    Path("none.yaml").write_text(text)
    assert "0 channel uses per item (no link), CBR 0, power 0" in call("check", "none.yaml")


def test_a_codec_that_nothing_trains_is_told() -> None:
    image = "{kind: synthetic, count: 1, size: 16}"
    text = f"payload: {image}\nchannel: awgn\nmetrics: [psnr]\nsnr_db: 10\ntransmitter: "
    for codec, told in (
        ("{kind: deepjscc, cbr: 1/6, width: 8, depth: 1}", True),
        ("{kind: deepjscc, weights: deepjscc-cifar-1-6}", False),
        ("analog", False),
    ):
        Path("codec.yaml").write_text(text + codec)
        result = CliRunner().invoke(app, ["check", "codec.yaml"])
        assert result.exit_code == 0, result.output
        warning = "semsim: warning: codec: the deepjscc codec is not trained; name weights"
        assert (warning in result.stderr) is told
        assert told or not result.stderr


@pytest.mark.skipif(not find_spec("tensorflow"), reason="needs the extra tensorflow")
def test_a_keras_model_that_may_be_trained_is_not_called_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from semsim.scenario.scenario import Scenario
    from semsim.sweep.preflight import untrained

    monkeypatch.syspath_prepend(ROOT / "tests/codecs")
    values = {"payload": "photos", "channel": "awgn", "metrics": ["psnr"], "snr_db": 10}
    for model, told in (
        ("keras_models:halves", False),
        ("semsim.codecs.keras.models:bourtsoulatze2019", True),
    ):
        codec = {"kind": "keras", "model": model}
        assert bool(untrained(Scenario.parse({**values, "transmitter": codec}))) is told


def test_run_prints_a_table_and_the_files() -> None:
    said = call("run", "toy.yaml")
    assert "transmitter.mode" in said
    assert "10 dB" in said
    for name in ("rows.parquet", "rows.csv", "provenance.json", "scenario.yaml"):
        assert f"results/toy/{name}" in said.replace("\n", "")


def test_run_of_images_leaves_strips_of_pictures() -> None:
    Path("pictures.yaml").write_text(PICTURES)
    assert "Few items: fewer than 10 at some points" in call("run", "pictures.yaml", "--quick")
    folder = Path("results/pictures-quick")
    names = {path.name for path in folder.iterdir() if path.suffix in (".png", ".webp")}
    assert names == {"psnr_over_snr_db.png", "strip_awgn.webp", "strip_fading.webp"}
    assert {"psnr_over_snr_db.svg", "psnr_over_snr_db.pdf"} <= {p.name for p in folder.iterdir()}
    assert len(list(folder.glob("pictures/*/sent.png"))) == 2
    report = (folder / "report.html").read_text()
    assert report.count("data:image/svg+xml;base64,") == 1
    assert report.count("data:image/webp;base64,") == 2
    assert "What was sent and what arrived at each SNR: awgn." in report
    assert "<h3>psnr (dB)</h3>" in report and "transmitter: {kind: deepjscc" in report
    assert "<h1>pictures-quick</h1>" in report and "scenario_sha256" in report
    assert "semsim run --quick scenario.yaml --out pictures-quick" in report
    assert "<th>uids</th>" not in report


def test_plot_draws_again_by_another_column() -> None:
    call("run", "toy.yaml", "--out", "out")
    assert call("plot", "out", "--y", "error", "--by", "transmitter.mode").split() == [
        "out/error_over_snr_db.png"
    ]
    assert "difference_to_plain" in call("plot", "out", "--difference-to", "plain")
    call("plot", "out", "--title", "Toys and errors")
    assert "Toys and errors" in Path("out/error_over_snr_db.svg").read_text()
    result = CliRunner().invoke(app, ["plot", "out", "--y", "psnr"])
    assert result.exit_code == 2
    assert "the rows hold no metric 'psnr'" in result.stderr


def test_plot_without_options_draws_what_the_scenario_says() -> None:
    plots = "plots: [{y: error, by: transmitter.mode, theory: {bound: awgn_capacity}}]\n"
    Path("toy.yaml").write_text(TOY + plots)
    call("run", "toy.yaml", "--out", "out")
    figure = Path("out/error_over_snr_db.png")
    before = figure.read_bytes()
    figure.unlink()
    assert call("plot", "out").split() == [str(figure)]
    assert figure.read_bytes() == before


@pytest.mark.parametrize("command", ["list", "check", "run", "train", "plot", "compare", "table"])
def test_help_explains_each_argument(command: str) -> None:
    words = call(command, "--help").split("Arguments")
    for argument in re.findall(r"\b(FILE|DIR|OTHER|FAMILY)\b", words[0].splitlines()[1]):
        assert re.search(rf"\b{argument}\b", "".join(words[0].splitlines()[2:])), argument


def test_plot_of_a_file_says_what_to_give() -> None:
    result = CliRunner().invoke(app, ["plot", "toy.yaml"])
    assert result.exit_code == 2
    assert result.stderr == "semsim: toy.yaml is a file; give a folder that `semsim run` wrote\n"


def test_plot_of_no_results_says_what_to_give() -> None:
    result = CliRunner().invoke(app, ["plot", "nowhere"])
    assert result.exit_code == 2
    assert "nowhere holds no rows.parquet" in result.stderr


def test_schema_is_json_on_the_screen_or_in_a_file() -> None:
    schema = json.loads(call("schema"))
    assert schema["additionalProperties"] is False
    call("schema", "--out", "schema.json")
    assert json.loads(Path("schema.json").read_text()) == schema


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_scenario_starts_with_what_it_shows_and_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semsim.scenario.scenario import Scenario

    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "Takes" in first
    monkeypatch.chdir(ROOT)
    assert Scenario.load(path).points()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_scenario_passes_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first = path.read_text().splitlines()[0]
    if first.endswith("needs the extra tensorflow.") and not find_spec("tensorflow"):
        pytest.skip("needs the extra tensorflow")
    needed = re.findall(r"needs (data/\S+)\.$", first)
    if not all(Path(folder).exists() for folder in needed):
        pytest.skip(f"needs {needed[0]}")
    assert call("check", str(path)).startswith(f"{path.stem}: ")


def test_labels_are_words_whatever_they_hold() -> None:
    odd = {"=1+1": "plain", "[/b] [red]x": "negative"}
    text = TOY.replace(
        "{transmitter.mode: [plain, negative]}", json.dumps({"transmitter.mode": odd})
    )
    Path("odd.yaml").write_text(text)
    printed = call("run", "odd.yaml")
    assert "[/b] [red]x" in printed and "=1+1" in printed


IDLE = """
name: idle
payload: {kind: synthetic, count: 2, size: 32}
transmitter: {kind: deepjscc, weights: deepjscc-cifar-1-6}
channel: {kind: awgn}
metrics: [psnr]
snr_db: [10]
train: {payload: {kind: synthetic, count: 2, size: 32}, steps: 2}
"""


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_training_that_nothing_takes_part_in_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "idle.yaml").write_text(IDLE)
    result = CliRunner().invoke(app, [command, "idle.yaml"])
    assert result.exit_code == 0
    assert "warning: train has no part in this: transmitter.weights is deepjscc" in result.stderr
    assert "write train: {start: deepjscc-cifar-1-6, ...} and leave" in result.stderr
    trained = CliRunner().invoke(app, ["train", "idle.yaml"])
    assert trained.exit_code == 2
    assert "there is nothing to train; to go on from them write train: {start: " in trained.stderr


@pytest.mark.parametrize(
    ("seen", "told"),
    [("synthetic, count: 3, size: 32", True), ("synthetic, size: 32, seed: 1", False),
     ("photos, crop: 32", False)],
)  # fmt: skip
def test_a_training_on_what_is_measured_is_told(tmp_path: Path, seen: str, told: bool) -> None:
    text = IDLE.replace("deepjscc, weights: deepjscc-cifar-1-6", "deepjscc, cbr: 1/6, width: 4")
    before = "train: {payload: {kind: synthetic, count: 2, size: 32}"
    (tmp_path / "seen.yaml").write_text(text.replace(before, f"train: {{payload: {{kind: {seen}}}"))
    result = CliRunner().invoke(app, ["check", str(tmp_path / "seen.yaml")])
    assert result.exit_code == 0
    words = "warning: train.payload has the items of payload, so rows tell how well they are"
    assert (words in result.stderr) is told


def test_what_no_key_is_to_blame_for_names_the_file(tmp_path: Path) -> None:
    text = IDLE.replace("{kind: awgn}", "{kind: rayleigh}").split("train:")[0]
    (tmp_path / "blind.yaml").write_text(text + "frontend: {kind: svd}\ncsi: {rx: {kind: none}}\n")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "blind.yaml")])
    assert result.exit_code == 2 and result.stderr.rstrip().endswith("blind.yaml)")


def test_a_warning_is_told_once_and_without_source_code() -> None:
    late = "{kind: tdl, delay_spread_s: 5.0e-6, subcarriers: 12}"
    Path("late.yaml").write_text(
        f"payload: {{kind: bits, count: 4}}\ntransmitter: {{kind: uncoded}}\nchannel: {late}\n"
        "metrics: [ber]\nsnr_db: [10]\nstop: {max_items: 2}\n"
    )
    command = [sys.executable, "-m", "semsim", "run", "late.yaml", "--jobs", "2"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert told.count("after the cyclic prefix") == told.count("semsim: warning: ") == 1, told
    assert "UserWarning" not in told


def test_what_fits_of_a_start_is_told_once_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = "{kind: deepjscc, cbr: 1/6, width: 16, depth: 1}"
    begun = IDLE.replace("{kind: deepjscc, weights: deepjscc-cifar-1-6}", own)
    assert own in begun
    text = begun.replace(
        "steps: 2", "batch_size: 2, steps: 2, start: deepjscc-cifar-1-6, cut: true"
    )
    (tmp_path / "begun.yaml").write_text(text)
    for command in ("check", "run", "train"):
        result = CliRunner().invoke(app, [command, "begun.yaml"])
        assert result.exit_code == 0, result.output
        told = result.stderr.count("tensors of deepjscc-cifar-1-6 fit")
        assert told == (0 if command == "train" else 1)  # what a run has trained is there
