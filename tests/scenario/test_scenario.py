"""Scenarios are strict, frozen, hashed values; each mistake is one sentence with the key's path."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from typer.testing import CliRunner

from semsim import zoo
from semsim.cli import app
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser
from semsim.files import outside
from semsim.mistakes import SpecError
from semsim.scenario.points import covering
from semsim.scenario.scenario import Scenario
from semsim.scenario.strict_yaml import parse_yaml
from semsim.seeds import stream
from semsim.sweep.sweep import to_yaml

BASE = """
name: toy
payload: {kind: toy_parts:ToyPayload}
transmitter: {kind: toy_parts:ToyTransmitter}
channel: {kind: toy_parts:ToyChannel}
metrics: [toy_parts:Error]
snr_db: [0, 10]
"""


def toy(**changes: Any) -> Scenario:
    return Scenario.parse({**parse_yaml(BASE), **changes})


def changed(old: str, new: str) -> str:
    assert old in BASE
    return BASE.replace(old, new)


NUMBER = "a number (a fraction such as 1/12 will do)"
MISTAKES = {
    "key": (BASE + "chanel: 1", "chanel: no such key; did you mean 'channel'? Known: name, seed,"),
    "duplicate": (BASE + "name: again", "name: appears twice; keep one ("),
    "duplicate line": (BASE + "name: again", "keep one (scenario.yaml, line 8)"),
    "deep duplicate": (BASE + "stop: {ci95: 1, ci95: 2}", "ci95: appears twice"),
    "deep key": (
        changed("ToyTransmitter}", "ToyTransmitter, atention: pfca, pwer: 1}"),
        "transmitter.atention: no such key for kind 'toy_parts:ToyTransmitter'",
    ),
    "close key": (
        changed("ToyTransmitter}", "ToyTransmitter, pwer: 1}"),
        "transmitter.pwer: no such key for kind 'toy_parts:ToyTransmitter'; did you mean 'power'?",
    ),
    "type": (changed("ToyChannel}", "ToyChannel, gain: big}"), "channel.gain: must be a number"),
    "kind": (changed("toy_parts:ToyChannel", "awgm"), "did you mean 'awgn'? Known: awgn, rayleigh"),
    "missing part": (changed("channel: {kind: toy_parts:ToyChannel}", ""), "channel: missing; say"),
    "no kind": (changed("kind: toy_parts:ToyChannel", "num_rx: 2"), "channel: a channel is"),
    "null part": (changed("{kind: toy_parts:ToyChannel}", ""), "channel: a channel is written"),
    "own rule": (
        changed("ToyPayload}", "ToyPayload, items: 0}"),
        "payload.items: must be at least 1, got 0",
    ),
    "no folder": (
        changed("{kind: toy_parts:ToyPayload}", "{kind: folder, path: nowhere}"),
        "payload.path: nowhere is not a folder (looked in ",
    ),
    "dotted key": (
        BASE + "csi.rx: {kind: pilots}",
        "csi.rx: no such key; dotted keys stand in sweep; here write csi: {rx: ...}",
    ),
    "unit": (
        changed("{kind: toy_parts:ToyChannel}", "{kind: rayleigh, speed_mps: 120 km/h}"),
        "will do), got '120 km/h'; write the number alone, in m/s",
    ),
    "whole number": (
        BASE + "batch_size: 1e3",
        "batch_size: must be an integer, got 1000.0; write 1000",
    ),
    "other case": (
        changed("kind: toy_parts:ToyChannel", "kind: AWGN"),
        "channel.kind: no channel is called 'AWGN'; did you mean 'awgn'?",
    ),
    "cbr": (
        changed("{kind: toy_parts:ToyTransmitter}", "{kind: deepjscc, cbr: 1/7}"),
        "transmitter.cbr: 1/7 is not possible with",
    ),
    "odd channel": (
        changed("{kind: toy_parts:ToyChannel}", "{kind: rayleigh, num_tx: 0}"),
        "channel.num_tx: is a whole number of 1 or more, got 0",
    ),
    "k beyond numbers": (
        changed("{kind: toy_parts:ToyChannel}", "{kind: rician, k_db: 4000}"),
        "channel.k_db: lies in [-300, 300], got 4000",
    ),
    "too large": (
        changed("{kind: toy_parts:ToyTransmitter}", "{kind: deepjscc, cbr: 1/6, width: 900000000}"),
        "transmitter: cannot be made: RuntimeError: ",
    ),
    "broken module": (
        changed("toy_parts:ToyChannel", ".toy_parts:ToyChannel"),
        "channel.kind: '.toy_parts:ToyChannel' cannot be imported: TypeError: ",
    ),
    "channel for one": (
        changed("{kind: toy_parts:ToyChannel}", "{kind: rayleigh, coherence: sometimes}"),
        "channel.coherence: must be",
    ),
    "bits of images": (
        changed("toy_parts:Error", "ber"),
        "metrics[0]: ber needs a payload of bits",
    ),
    "unknown metric": (changed("toy_parts:Error", "pnsr"), "metrics[0].kind: no metric is called"),
    "metric twice": (
        changed("[toy_parts:Error]", "[toy_parts:Error, {kind: toy_parts:Error}]"),
        "metrics[1]: names a metric twice",
    ),
    "metrics of one name": (
        changed(
            "[toy_parts:Error]", "[{kind: rate_loss, snr_db: 0}, {kind: rate_loss, snr_db: 30}]"
        ),
        "metrics: 2 metrics are called rate_loss, but rows",
    ),
    "no metrics": (changed("[toy_parts:Error]", "[]"), "metrics: is empty"),
    "snr nan": (changed("[0, 10]", "[0, .nan]"), "snr_db: must be a number in dB"),
    "snr word": (changed("[0, 10]", "high"), "snr_db: must be a number in dB or a list of them"),
    "snr empty": (changed("[0, 10]", "[]"), "snr_db: must be one or more numbers"),
    "snr twice": (changed("[0, 10]", "[1, 1.0]"), "snr_db: names an SNR twice"),
    "snr at two places": (BASE + "sweep: {snr_db: [1]}", "sweep.snr_db: snr_db is given twice"),
    "empty sweep": (BASE + "sweep: {channel.gain: []}", "sweep.channel.gain: is empty"),
    "sweep of a number": (BASE + "sweep: {channel.gain: 1}", "sweep.channel.gain: must be a list"),
    "sweep list": (BASE + "sweep: [1]", "sweep: must map dotted keys to lists"),
    "sweep root": (
        BASE + "sweep: {chanel.gain: [1]}",
        "sweep.chanel.gain: no such key to sweep; did you mean 'channel'?",
    ),
    "sweep leaf": (
        BASE + "sweep: {channel.gian: [1]}",
        "channel.gian: no such key for kind 'toy_parts:ToyChannel'; did you mean 'gain'?",
    ),
    "sweep too deep": (BASE + "sweep: {seed.x: [1]}", "seed: must be an integer, got"),
    "sweep value": (BASE + "sweep: {channel.gain: [1, x]}", "(in the sweep, at channel.gain = x)"),
    "seed": (BASE + "seed: -1", "seed: must be an integer of at least 0, got -1"),
    "seed fraction": (BASE + "seed: 1.5", "seed: must be an integer, got 1.5"),
    "batch size": (BASE + "batch_size: 0", "batch_size: must be an integer of at least 1, got 0"),
    "name": (changed("name: toy", "name: ../toy"), "name: must be a word of letters, digits, dots"),
    "device": (BASE + "device: tpu9", "device: 'tpu9' is not available here; use cpu or auto"),
    "stop items": (
        BASE + "stop: {items: 2}",
        "stop.items: no such key; did you mean 'min_items' or 'max_items'? Known: ",
    ),
    "difference to nothing": (
        BASE + "plots: [{difference_to: toy}]",
        "plots[0].difference_to: nothing is swept, so nothing differs; leave it out (",
    ),
    "stop key": (BASE + "stop: {ci: 1}", "stop.ci: no such key; did you mean 'ci95'?"),
    "stop rule": (BASE + "stop: {ci95: 0}", "stop.ci95: must be > 0"),
    "stop list": (BASE + "stop: [1]", "stop: must be a mapping"),
    "plot": (
        changed("toy_parts:Error", "psnr") + "plots: [{y: snr}]",
        "plots[0].y: 'snr' is not among",
    ),
    "plot column": (
        BASE + "plots: [{y: toy_parts:Error, by: chanel}]",
        "plots[0].by: the rows have no column 'chanel'; did you mean 'channel'?",
    ),
    "plot metric": (BASE + "plots: [{y: eror}]", "plots[0].y: 'eror' is not among the metrics"),
    "closed form": (
        BASE + "plots: [{y: error, theory: {QPSK: qam_ber}}]",
        "plots[0].theory.QPSK: no closed form is called 'qam_ber'; did you mean 'qam_ber_",
    ),
    "closed form without k": (
        BASE + "plots: [{y: error, theory: {QPSK: qam_ber_rician}}]",
        "plots[0].theory.QPSK: qam_ber_rician: missing a required argument: 'k_db'",
    ),
    "no metric to plot": (
        BASE + "plots: [{y: []}]",
        "plots[0].y: is empty; name a metric, or several",
    ),
    "theory of several metrics": (
        BASE + "plots: [{y: [error, negative], theory: {QPSK: qam_ber_awgn}}]",
        "plots[0].theory: a closed form is of one metric, but y names several",
    ),
    "several metrics, one unknown": (
        BASE + "plots: [{y: [error, errror]}]",
        "plots[0].y: 'errror' is not among the metrics; did you mean 'error'",
    ),
    "theory over what": (
        BASE + "plots: [{y: error, x: cbr, theory: {QPSK: qam_ber_awgn}}]",
        "plots[0].theory: closed forms are over snr_db, but x is 'cbr'",
    ),
    "theory of another metric": (
        BASE + "plots: [{y: error, theory: {QPSK: qam_ber_awgn}}]",
        "plots[0].theory.QPSK: qam_ber_awgn is a bit error rate, but y is error; write y: ber",
    ),
    "published": (
        BASE + "plots: [{y: error, published: none.csv}]",
        "plots[0].published: none.csv does not exist; give a CSV file",
    ),
    "train": (BASE + "train: {steps: 3}", "train.payload: missing; it must be a part"),
    "train key": (
        BASE + "train: {payload: toy_parts:ToyPayload, stesp: 3}",
        "train.stesp: no such key; did you mean 'steps'?",
    ),
    "train on nothing": (
        BASE + "train: {payload: {kind: folder, path: nowhere}}",
        "train.payload.path: nowhere is not a folder",
    ),
    "validate on nothing": (
        BASE + "train: {payload: toy_parts:ToyPayload, validation: {kind: arrays, path: no.npz}}",
        "train.validation.path: no.npz does not exist",
    ),
    "train rule": (
        BASE + "train: {payload: toy_parts:ToyPayload, lr: 0}",
        "train.lr: must be a finite number > 0, got 0",
    ),
    "train list too short": (
        BASE + "train: {payload: toy_parts:ToyPayload, snr_peak: [1, 2]}",
        f"train.snr_peak: must be a list: {NUMBER}, {NUMBER}, {NUMBER} or null, got [1, 2]",
    ),
    "train rates": (
        BASE + "train: {payload: toy_parts:ToyPayload, rates: {transmitter: .nan}}",
        f"train.rates: must be a mapping, each {NUMBER} or null, got {{'transmitter': nan}}",
    ),
    "csi": (BASE + "csi: {kind: pilots}", "csi.kind: say at which end: csi: {rx:"),
    "csi key": (BASE + "csi: {rx: {kind: pilots, per_blok: 1}}", "csi.rx.per_blok: no such key"),
    "weights": (
        changed("ToyTransmitter}", "ToyTransmitter, weights: none.safetensors}"),
        "transmitter.weights: no such file: none.safetensors",
    ),
    "unknown weights": (
        changed("ToyTransmitter}", "ToyTransmitter, weights: nothing}"),
        "transmitter.weights: no weights are called 'nothing'",
    ),
    "no other half": (
        changed("ToyTransmitter", "Lonely"),
        "receiver: missing; 'toy_parts:Lonely' has no other half; name both classes alike in one "
        "module, XTransmitter and XReceiver, or write receiver: {kind: ...}",
    ),
    "other half elsewhere": (
        changed("ToyTransmitter", "OtherTransmitter"),
        "transmitter.kind: the module 'toy_parts' has no 'OtherTransmitter'",
    ),
    "nan": (BASE + "receiver: {kind: toy_parts:ToyReceiver, bad: nan}", "holds NaN or infinity"),
    "crash": (
        BASE + "receiver: {kind: toy_parts:ToyReceiver, bad: crash}",
        "does not get through: RuntimeError: size mismatch deep inside (toy_parts.py",
    ),
    "power": (
        changed("ToyTransmitter}", "ToyTransmitter, power: 2}"),
        "ToyTransmitter sends a mean power of 2 at snr_db = 0 in item 0, but each item may have 1",
    ),
    "syntax": (BASE + "stop: {", "line "),
    "tab": (BASE + "\tstop: 1", "not valid YAML"),
    "list": ("- a\n- b\n", "must be a mapping with keys such as name, payload and channel, got"),
    "empty": ("", "must be a mapping with keys such as name, payload and channel, got nothing"),
    "tag": (BASE + "stop: !!python/object:os.system x", "not valid YAML"),
    "date": (changed("name: toy", "name: 2024-01-01"), "name: 2024-01-01 is read as date"),
    "number as key": (BASE + "1: x", "keys are words, got 1"),
    "bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{n}: &{n} [{', '.join(['*' + p] * 10)}]\n"
            for p, n in zip("abcdef", "bcdefg", strict=True)
        ),
        "unfolds to more than 100,000 values; use no aliases",
    ),
    "circle": ("a: &a [*a]\n", "line 1: *a stands within itself"),
    "merged over and over": (
        "a: &a {x: 1, y: 2}\n"
        + "".join(
            f"{n}: &{n} {{<<: [{', '.join(['*' + p] * 10)}]}}\n"
            for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "unfolds to more than 100,000 values; use no aliases",
    ),
    "nested": ("a: " + "[" * 500_000, "nests deeper than 50"),
    "beyond 64 bits": (BASE + "seed: 9223372036854775808", "seed: 9223372036854775808 is beyond"),
    "exponent": (
        changed("{kind: toy_parts:ToyTransmitter}", '{kind: separate, cbr: "1e99999999"}'),
        "transmitter.cbr: must be a positive number or a fraction such as '1/16', got '1e99999999'",
    ),
    "exponent of a learned codec": (
        changed("{kind: toy_parts:ToyTransmitter}", '{kind: deepjscc, cbr: "1e99999999"}'),
        "transmitter.cbr: must be a positive number or a fraction such as '1/16', got '1e99999999'",
    ),
    "six uses for a value": (
        changed("{kind: toy_parts:ToyTransmitter}", "{kind: separate, cbr: 6}"),
        "transmitter.cbr: is channel uses per source value, at most 4, got 6.0; one use for six",
    ),
    "a million links": (
        BASE + f"sweep: {{seed: {list(range(1000))}, batch_size: {list(range(1, 1002))}}}",
        "sweep: stands for 1000 x 1001 = 1,001,000 links, but one scenario holds at most 100,000",
    ),
    "swept twice": (
        BASE + "sweep: {channel.gain: [1, 2, 1]}",
        "sweep.channel.gain: names '1' twice; leave one out",
    ),
    "list as kind in a sweep": (
        BASE + "sweep: {transmitter: {a: {kind: [x], weights: swin-cifar-1-6}}}",
        "transmitter: a transmitter is written {kind: NAME, ...}",
    ),
    "more at least than at most": (
        BASE + "stop: {min_items: 9, max_items: 3}",
        "stop.min_items: must be at most max_items, 3, got 9 (scenario.yaml, line",
    ),
    "line of a key": (BASE + "\n\ncsi:\n  rx: {kind: pilots, per_blok: 1}", "line 11)"),
    "line of a swept key": (
        BASE + "sweep:\n  channel.gain: [1, no]",
        "channel.gain: must be a number (a fraction such as 1/12 will do), got 'no' (in the sweep, "
        "at channel.gain = no) (scenario.yaml, line",
    ),
    "line of a swept part": (
        BASE + "sweep:\n  channel: [awgn, {kind: rayleigh, coherence: fast}]",
        "(in the sweep, at channel = rayleigh) (scenario.yaml, line 9)",
    ),
    "csi as a word": (BASE + "csi: pilots", "csi: must say what each end knows, such as csi: {rx:"),
    "plots as a word": (
        BASE + "plots: error",
        "plots: must be a list such as plots: [{y: psnr, by: transmitter}], got 'error'",
    ),
    "plot as a word": (BASE + "plots: [error]", "plots[0]: must be a mapping as in plots: [{y:"),
    "no space after the colon": (
        changed("{kind: toy_parts:ToyChannel}", "{kind:awgn}"),
        "got {'kind:awgn': None}; a space is missing after the colon. Known kinds: awgn",
    ),
    "dot for a colon": (
        changed("toy_parts:ToyChannel", "toy_parts.ToyChannel"),
        "A class of yours is written toy_parts:ToyChannel.",
    ),
    "name with a space": (
        changed("name: toy", "name: my toy"), "that starts with a letter or a digit, got 'my toy'"
    ),
    "no class": (
        changed("toy_parts:ToyChannel", "toy_parts:partial_channel"),
        "channel.kind: 'toy_parts:partial_channel' is a partial, but a kind names a class",
    ),
    "another family": (
        changed("toy_parts:ToyChannel", "subprocess:Popen"),
        "channel.kind: 'subprocess:Popen' is no channel: it has no method draw",
    ),
    "type checking only": (
        changed("toy_parts:ToyChannel", "toy_parts:HintedChannel"),
        "channel.kind: HintedChannel is annotated with a name that is not there at run time (name "
        "'Decimal' is not defined); import it outside `if TYPE_CHECKING`",
    ),
    "no antennas": (
        changed("toy_parts:ToyChannel", "toy_parts:NoAntennas"),
        "channel: NoAntennas has no integer num_tx, the number of its antennas; set self.num_tx",
    ),
}  # fmt: skip


def test_a_choice_of_a_sweep_may_bring_its_receiver() -> None:
    lonely, own = "toy_parts:Lonely", {"kind": "toy_parts:ToyReceiver"}
    choices = {
        "both": {"transmitter": {"kind": lonely}, "receiver": own},
        "known": {"kind": "toy_parts:ToyTransmitter"},
    }
    sweep = {"transmitter": choices, "transmitter.power": [1.0, 1.005]}
    points = list(toy(sweep=sweep).points())
    kinds = [(p.scenario.transmitter.kind, p.scenario.receiver is None) for p in points]
    assert kinds == [(lonely, False)] * 2 + [("toy_parts:ToyTransmitter", True)] * 2
    assert points[1].scenario.transmitter.power == 1.005
    alone = toy(transmitter={"kind": lonely}, receiver=own, name="toy")
    assert points[0].scenario.uid(0.0) == alone.uid(0.0)
    assert points[0].name == "both | 1.0"
    with pytest.raises(SpecError, match=r"sweep\.receiver: is swept, but a choice of transmitter"):
        toy(sweep={"receiver": [own], "transmitter": choices})


CODEC = {"payload": "photos", "channel": "awgn", "metrics": ["psnr"], "snr_db": [10]}


def test_a_file_of_weights_brings_what_it_was_trained_with(tmp_path: Path) -> None:
    sizes = {"cbr": "1/16", "stride": 16, "patch": 8, "width": 8, "depth": 1}
    path = tmp_path / "own.safetensors"
    zoo.export(path, DeepJSCCTransmitter(**sizes), DeepJSCCReceiver(**sizes))

    def of(**written: Any) -> Scenario:
        codec = {"kind": "deepjscc", "weights": str(path), **written}
        return Scenario.parse({**CODEC, "transmitter": codec})

    short, whole = of(), of(**sizes)
    assert short.transmitter.model_dump() == whole.transmitter.model_dump()
    assert short.uid(10.0) == whole.uid(10.0)
    assert whole.transmitter.model_dump(mode="json", exclude_unset=True) == {
        "kind": "deepjscc", "weights": str(path), **sizes,
    }  # fmt: skip
    assert of(stride=16).transmitter.width == 8  # which has no cbr of 1/6, the default
    short.build("cpu")
    with pytest.raises(SpecError, match=r"weights '/.*own.safetensors' were trained for width 8"):
        of(width=16).build("cpu")
    with pytest.raises(SpecError, match="are of another kind of transmitter: theirs takes"):
        of(kind="swin_jscc").build("cpu")


def test_a_file_of_a_wrapped_receiver_brings_that_too(tmp_path: Path) -> None:
    sizes = {"cbr": "1/6", "width": 8, "depth": 1}
    path = tmp_path / "own.safetensors"
    denoiser = LatentDenoiser(DeepJSCCReceiver(**sizes), width=4, depth=3, max_steps=2, delta=0.5)
    zoo.export(path, DeepJSCCTransmitter(**sizes), denoiser)
    codec = {"kind": "deepjscc", "weights": str(path)}
    short = Scenario.parse({**CODEC, "transmitter": codec})
    short.build("cpu")
    own = {"kind": "latent_denoiser", "width": 4, "depth": 3, "max_steps": 2}
    whole = Scenario.parse({**CODEC, "transmitter": {**codec, **sizes}, "receiver": own})
    found = whole.receiver_spec()
    assert found.model_fields_set == {*own, "codec"}  # the hash is that of before
    assert (short.receiver_spec().max_steps, short.receiver_spec().delta) == (2, 0.5)


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(
    mistake: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    Path("scenario.yaml").write_text(text)
    result = CliRunner().invoke(app, [command, "scenario.yaml"])
    assert result.exit_code == 2, result.output
    assert expected in result.stderr
    assert result.stderr.startswith("semsim: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("toy2.yaml", "no such file: toy2.yaml; did you mean toy.yaml?"),
        ("folder", "folder is a folder; give a scenario file"),
        ("binary.yaml", "binary.yaml cannot be read: it is not UTF-8 text"),
        ("big.yaml", "big.yaml is larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(BASE)
    Path("folder").mkdir()
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    Path("big.yaml").write_text("#" * (1 << 21))
    result = CliRunner().invoke(app, ["check", name])
    assert result.exit_code == 2
    assert expected in result.stderr


@given(
    st.integers(0, 2**40),
    st.lists(st.floats(-30, 50), min_size=1, max_size=4, unique=True),
    st.floats(0.01, 10),
    st.sampled_from([None, {"channel.gain": [1, 2]}, {"seed": [1, 2], "payload.items": [3]}]),
)
@settings(max_examples=40, deadline=None)
def test_a_scenario_survives_yaml_and_back(
    seed: int, snrs: list[float], gain: float, sweep: dict[str, Any] | None
) -> None:
    channel = {"kind": "toy_parts:ToyChannel", "gain": gain}
    scenario = toy(seed=seed, snr_db=snrs, channel=channel, **({"sweep": sweep} if sweep else {}))
    again = Scenario.parse(parse_yaml(to_yaml(scenario)))
    assert again == scenario
    assert [p.scenario.uid() for p in again.points()] == [
        p.scenario.uid() for p in scenario.points()
    ]


def test_a_training_may_say_that_it_is_not_validated() -> None:
    text = BASE + "train: {payload: toy_parts:ToyPayload, validation: null}"
    assert Scenario.parse(parse_yaml(text)).train.validation is None


def test_a_scenario_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        toy().seed = 3  # type: ignore[misc]


def test_points_are_the_product_of_what_is_swept() -> None:
    sweep = {"channel.gain": [1, 2], "transmitter.mode": ["plain", "negative"]}
    points = toy(sweep=sweep).points()
    assert [p.swept for p in points] == [
        {"channel.gain": gain, "transmitter.mode": mode}
        for gain in (1, 2)
        for mode in ("plain", "negative")
    ]
    assert [p.scenario.channel.gain for p in points] == [1, 1, 2, 2]
    assert len({p.scenario.uid() for p in points}) == 4


def test_a_whole_part_is_swept_by_labels_and_below_them() -> None:
    halves = {"soft": {"kind": "toy_parts:ToyChannel", "gain": 0.5}, "hard": "toy_parts:ToyChannel"}
    points = toy(sweep={"channel.gain": [3], "channel": halves}).points()
    assert [p.swept["channel"] for p in points] == ["soft", "hard"]
    assert [p.scenario.channel.gain for p in points] == [3, 3]


def test_a_part_that_is_swept_need_not_be_given_beside() -> None:
    values = parse_yaml(BASE)
    channel = values.pop("channel")
    assert len(Scenario.parse({**values, "sweep": {"channel": [channel]}}).points()) == 1


def test_parts_of_one_kind_in_a_list_are_told_apart_by_their_keys() -> None:
    kind = "toy_parts:ToyChannel"
    points = toy(sweep={"channel": [{"kind": kind, "gain": 1}, {"kind": kind, "gain": 2}]}).points()
    assert [p.swept["channel"] for p in points] == [f"{kind} gain=1", f"{kind} gain=2"]


def test_mappings_without_a_kind_are_told_apart_by_their_keys() -> None:
    points = toy(sweep={"csi": [{"rx": "perfect"}, {"rx": "pilots"}]}).points()
    assert [p.swept["csi"] for p in points] == ["rx=perfect", "rx=pilots"]


def test_infinity_stays_what_it_is() -> None:
    (point,) = toy(channel={"kind": "rician", "k_db": float("inf")}).points()
    assert point.scenario.channel.k_db == float("inf")


def test_snrs_may_stand_in_the_sweep() -> None:
    values = parse_yaml(BASE)
    del values["snr_db"]
    assert Scenario.parse({**values, "sweep": {"snr_db": [3, 4]}}).snr_db == (3, 4)


def test_the_uid_depends_on_what_decides_the_results_and_on_nothing_else() -> None:
    uid = toy().uid(0.0)
    assert toy(name="other", device="cpu", plots=[{"y": "error"}]).uid(0.0) == uid
    assert toy(payload={"kind": "toy_parts:ToyPayload", "items": 40}).uid(0.0) == uid  # the default
    assert toy(snr_db=[0.0]).uid(0.0) == uid
    assert toy().uid(10.0) != uid
    assert toy(seed=1).uid(0.0) != uid
    assert toy(batch_size=7).uid(0.0) != uid
    assert toy(stop={"ci95": 0.1}).uid(0.0) != uid
    assert toy(frontend="zf").uid(0.0) != uid


def test_the_uid_depends_on_the_weights_of_the_task(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    uids = set()
    for content in (torch.zeros(1), torch.ones(1)):
        save_file({"a": content}, path)
        scenario = toy(task={"kind": "classify", "weights": str(path)})
        uids |= {scenario.uid(0.0), scenario.training_hash()}
    assert len(uids) == 4


@pytest.mark.parametrize(
    "part",
    [
        {"csi": {"tx": {"kind": "predicted", "delay_s": 5e-4, "by": "wirelessgpt", "model": "w"}}},
        {"csi": {"rx": {"kind": "learned", "of": "perfect", "model": "w"}}},
        {"transmitter": {"kind": "deepjscc", "csi_weights": "w"}},
    ],
)
def test_the_uid_depends_on_shipped_weights_that_any_part_names(
    part: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semsim.zoo.WEIGHTS", tmp_path)
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    Path("w").mkdir()  # a folder of that name is not what the name means
    uids = set()
    for shipped in ("one", "another"):
        card = {"sha256": shipped, "classes": {}, "spec": {}}
        (tmp_path / "w.json").write_text(json.dumps(card))
        scenario = toy(**part)
        uids |= {scenario.uid(0.0), scenario.training_hash()}
    assert len(uids) == 4


def test_the_training_hash_is_shared_by_points_that_only_evaluate_apart() -> None:
    trained = toy().training_hash()
    assert toy(snr_db=[3], metrics=["psnr"], stop={"ci95": 1}).training_hash() == trained
    assert toy(payload={"kind": "toy_parts:ToyPayload", "items": 7}).training_hash() == trained
    changed = {"kind": "toy_parts:ToyTransmitter", "mode": "negative"}
    assert toy(transmitter=changed).training_hash() != trained


def test_the_receiver_takes_the_transmitters_arguments_of_the_same_name() -> None:
    values = {**parse_yaml(BASE), "transmitter": {"kind": "deepjscc", "cbr": "1/12", "width": 32}}
    receiver = Scenario.parse(values).receiver_spec()
    assert receiver is not None
    assert (receiver.kind, receiver.width) == ("deepjscc", 32)  # type: ignore[attr-defined]
    assert "weights" not in type(receiver).model_fields


def test_a_receiver_of_the_same_kind_keeps_its_own_arguments_and_takes_the_rest() -> None:
    values = {
        **parse_yaml(BASE),
        "transmitter": {"kind": "deepjscc", "cbr": "1/12", "width": 32},
        "receiver": {"kind": "deepjscc", "width": 64},
    }
    receiver: Any = Scenario.parse(values).receiver_spec()
    assert (receiver.width, receiver.cbr) == (64, "1/12")


def test_shipped_weights_bring_their_arguments_along() -> None:
    from semsim import zoo
    from semsim.tables import TRANSMITTERS

    kinds = {path: kind for kind, path in TRANSMITTERS.items()}
    for name in zoo.names():
        card = zoo.card(name)
        if "transmitter" not in card["spec"]:
            continue
        kind = kinds[card["classes"]["transmitter"]]
        scenario = toy(transmitter={"kind": kind, "weights": name})
        trained = card["spec"]["transmitter"]
        as_spec = type(scenario.transmitter).model_validate({"kind": kind, **trained})
        assert scenario.transmitter.model_dump(exclude={"weights"}) == as_spec.model_dump(
            exclude={"weights"}
        )
        other = toy(transmitter={"kind": kind, "weights": name, "cbr": "1/8"})
        with pytest.raises(SpecError, match=r"transmitter\.weights: weights .* were trained for"):
            other.build()


def test_a_scenario_that_was_never_checked_still_names_the_key() -> None:
    with pytest.raises(SpecError, match="metrics: missing; say what is measured"):
        Scenario.parse({k: v for k, v in parse_yaml(BASE).items() if k != "metrics"})


def test_results_belong_to_the_data_they_were_made_from(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "a.png")
    values = {
        "payload": {"kind": "folder", "path": str(folder)},
        "transmitter": {"kind": "analog", "cbr": "1/2"},
        "channel": "awgn",
        "metrics": ["psnr"],
        "snr_db": [10],
    }
    before = Scenario.parse(values).uid(10.0)
    assert Scenario.parse(values).uid(10.0) == before
    Image.new("RGB", (16, 16), "blue").save(folder / "b.png")
    assert Scenario.parse(values).uid(10.0) != before


def test_weights_of_a_classifier_are_no_transmitter() -> None:
    transmitter = {"kind": "deepjscc", "weights": "resnet-cifar10"}
    with pytest.raises(SpecError, match=r"transmitter\.weights: 'resnet-cifar10' are not those"):
        Scenario.parse({"transmitter": transmitter, "channel": "awgn"})


def test_results_belong_to_the_source_of_outside_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "lab_of_this_test.py"
    module.write_text("from channels import AWGN\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "payload": {"kind": "bits", "count": 2, "length": 8},
        "transmitter": {"kind": "uncoded", "bits_per_symbol": 2},
        "channel": {"kind": "lab_of_this_test:AWGN"},
        "metrics": ["ber"],
        "snr_db": [10],
    }
    before = Scenario.parse(values).uid(10.0)
    module.write_text("from channels import AWGN  # now another\n")
    assert Scenario.parse(values).uid(10.0) != before


@pytest.mark.parametrize(
    ("transmitter", "receiver", "said"),
    [
        ("swin_jscc", None, "belong to kind deepjscc, not to 'swin_jscc'"),
        ("deepjscc", {"kind": "latent_denoiser"}, "hold no latent_denoiser"),
    ],
)
def test_weights_of_another_kind_are_told_apart(
    transmitter: str, receiver: dict | None, said: str
) -> None:
    values = {
        "payload": {"kind": "photos", "crop": 64},
        "transmitter": {"kind": transmitter, "weights": "deepjscc-cifar-1-6"},
        "channel": {"kind": "awgn"},
        "metrics": ["psnr"],
        "snr_db": [10],
    }
    with pytest.raises(SpecError, match=said):
        Scenario.parse({**values, "receiver": receiver} if receiver else values).build(
            torch.device("cpu")
        )


def test_a_closed_reading_refuses_code_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("open('ran', 'w').close()\n")
    channel = {"kind": "awgn"}
    inside = {"kind": "bits", "length": 64}, {"kind": "uncoded"}
    for place, value in (
        ("channel", "mine:Channel"),
        ("channel", {"kind": "cascade", "stages": [{"kind": "mine:Channel"}]}),
        ("sweep", {"channel": ["awgn", "mine:Channel"]}),
        ("metrics", ["ber", "mine:Metric"]),
        ("transmitter", {"kind": "keras", "model": "mine:make"}),
    ):
        values = {"payload": inside[0], "transmitter": inside[1], "channel": channel}
        values |= {"metrics": ["ber"], "snr_db": 0, place: value}
        Path("scenario.yaml").write_text(json.dumps(values))
        result = CliRunner().invoke(app, ["check", "scenario.yaml", "--closed"])
        assert result.exit_code == 2
        assert "--closed refuses" in result.stderr or "TensorFlow" in result.stderr
        assert not Path("ran").exists()


def test_a_model_names_no_function_of_the_system() -> None:
    with pytest.raises(ValueError, match="neither a Module nor a function that its module defines"):
        outside.function("os:system", torch.nn.Module)


def test_the_name_of_a_file_becomes_the_name_of_its_scenario(tmp_path: Path) -> None:
    path = tmp_path / "my scénario (2).yaml"
    path.write_text(BASE.replace("name: toy\n", ""))
    assert Scenario.load(path).name == "my-sc-nario-2-"


@pytest.mark.parametrize("precision", ["32", 32])
def test_a_word_of_digits_may_stand_without_quotes(precision: object) -> None:
    train = {"payload": "toy_parts:ToyPayload", "steps": 1, "precision": precision}
    assert toy(train=train).train.precision == "32"
    with pytest.raises(SpecError, match=r"precision: must be '32' or 'bf16', got 64"):
        toy(train={**train, "precision": 64})


def test_of_many_links_each_swept_value_is_tried() -> None:
    sweep = {"channel.gain": [*range(1, 31)], "payload.items": [5, 6, 7], "seed": [1, 2]}
    points = toy(sweep=sweep).points()
    tried = covering(points)
    assert len(points) == 180 and len(tried) <= 35
    for path, values in sweep.items():
        assert {point.swept[path] for point in tried} == set(values)
    many = toy(sweep={"seed": [*range(1000)]}).points()
    assert len(covering(many)) == 64


def test_feedback_at_the_lowest_snr_has_a_price() -> None:
    link = toy(
        channel={"kind": "rayleigh"}, csi={"tx": {"kind": "feedback"}}, snr_db=-200
    ).build("cpu").link  # fmt: skip
    source = torch.rand(2, 8)
    sent = link.transmit(source, -200.0, stream(0, "low"))
    assert 0 < sent.ledger.feedback < math.inf


@pytest.mark.parametrize("kind", ["separate", "hybrid", "bound", "no_link"])
def test_a_transmitter_that_brings_both_ends_takes_no_receiver(kind: str) -> None:
    written = {
        "payload": "photos", "transmitter": {"kind": kind}, "receiver": {"kind": kind},
        "channel": "awgn", "metrics": ["psnr"], "snr_db": [10],
    }  # fmt: skip
    with pytest.raises(SpecError, match=f"receiver.kind: .*{kind}' brings both ends; leave rec"):
        Scenario.parse(written)
