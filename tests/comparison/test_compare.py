"""Comparisons find known gains, pair items over folders, and refuse what is not comparable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_folder import make_folder
from typer.testing import CliRunner

from semsim.cli import app
from semsim.comparison.compare import Comparison, compare, pairs, schemes
from semsim.files.disk import seal
from semsim.plots.printing import print_comparison


def curve(shift: float = 0.0, gain: float = 0.0) -> Any:
    """Return a PSNR that saturates over the SNR and grows with the logarithm of the CBR."""
    return lambda snr, cbr, seed: (
        25 + 8 * math.tanh((snr + shift) / 12) + 5 * math.log10(16 * cbr * 10**gain)
    )


def only(folder: Path, other: Path | None = None, **names: str | None) -> Comparison:
    a, b = schemes(folder), None if other is None else schemes(other)
    (pair,) = pairs(a, b, names.get("scheme"), names.get("to"))
    return compare(*pair)


def delta(found: Comparison, kind: str) -> dict[str, Any]:
    (line,) = [d for d in found.deltas if d["delta"] == kind]
    return line


def test_a_scheme_that_is_one_db_ahead_gains_one_db(tmp_path: Path) -> None:
    pair = {"old": curve(), "new": curve(shift=1.0)}
    make_folder(tmp_path, pair, snrs=[float(snr) for snr in range(16)])
    found = only(tmp_path, to="old")
    assert delta(found, "snr gain")["value"] == pytest.approx(1, abs=1e-3)  # between the points
    for point in found.points:
        assert point["diff"] == pytest.approx(point["a"] - point["b"])
        assert point["diff_high"] - point["diff_low"] < 1e-6  # what items share has cancelled
    inner = [p["gain"] for p in found.points if p["gain"] == p["gain"]]
    assert inner == pytest.approx([1] * 15)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_point_without_noise_has_a_difference_and_lies_on_no_curve(tmp_path: Path) -> None:
    snrs = [*map(float, range(16))]
    for folder, more in (("a", []), ("b", [math.inf])):
        make_folder(tmp_path / folder, {"old": curve(), "new": curve(1.0)}, snrs=[*snrs, *more])
    plain, found = (only(tmp_path / folder, to="old") for folder in "ab")
    assert found.deltas == plain.deltas
    assert [p["gain"] for p in found.points[1:-1]] == [p["gain"] for p in plain.points[1:]]
    assert found.points[-1]["diff"] == pytest.approx(0) and math.isnan(found.points[-1]["gain"])


def test_the_same_holds_over_two_folders_whatever_their_names(tmp_path: Path) -> None:
    a = make_folder(tmp_path / "a", {"new": curve(shift=1.0)})
    b = make_folder(tmp_path / "b", {"old": curve()})
    assert delta(only(a, b), "snr gain")["value"] == pytest.approx(1, abs=0.05)
    assert delta(only(b, a), "snr gain")["value"] == pytest.approx(-1, abs=0.05)


def test_a_setting_is_the_same_whether_it_is_written_1_or_1_0(tmp_path: Path) -> None:
    swept = ["transmitter", "transmitter.cbr", "link.first_db"]
    for folder, first_db in (("a", 3), ("b", 3.0)):
        columns = {"link.first_db": first_db}
        make_folder(tmp_path / folder, {"one": curve()}, cbrs=[1 / 16, 1 / 8], **columns)
        (tmp_path / folder / "provenance.json").write_text(seal({"swept": swept}))
    found = only(tmp_path / "a", tmp_path / "b")
    assert [p["diff"] for p in found.points] == pytest.approx([0] * 8)
    over_uses = [d["value"] for d in found.deltas if d["delta"] == "channel uses"]
    assert over_uses == pytest.approx([0] * 4)


def test_items_that_differ_give_intervals_that_hold_the_truth(tmp_path: Path) -> None:
    make_folder(tmp_path, {"old": curve(), "new": curve(shift=1.0)}, noise=0.3)
    found = only(tmp_path, to="old")
    line = delta(found, "snr gain")
    assert line["low"] < 1 < line["high"]
    assert 0.01 < line["high"] - line["low"] < 1.5
    assert line["n"] == 20


def test_half_the_channel_uses_at_equal_quality_are_minus_fifty_percent(tmp_path: Path) -> None:
    pair = {"old": curve(), "new": curve(gain=math.log10(2))}
    make_folder(tmp_path, pair, cbrs=(1 / 48, 1 / 24, 1 / 12, 1 / 6), snrs=(5.0,))
    found = only(tmp_path, to="old")
    assert delta(found, "channel uses")["value"] == pytest.approx(-50, abs=0.01)
    by_uses = [d for d in found.deltas if d["delta"] == "difference" and "CBR" in d["over"]]
    assert by_uses[0]["value"] == pytest.approx(5 * math.log10(2), abs=1e-6)


def test_curves_over_channel_uses_need_no_equal_points(tmp_path: Path) -> None:
    pair = {"old": curve(), "new": curve(gain=math.log10(2))}
    make_folder(tmp_path / "a", {"old": pair["old"]}, cbrs=(1 / 48, 1 / 24, 1 / 12), snrs=(5.0,))
    cbrs = (1 / 48, 1.1 / 24, 1.1 / 24, 1 / 12)  # two that are one after rounding
    make_folder(tmp_path / "b", {"new": pair["new"]}, cbrs=cbrs, snrs=(5.0,))
    found = only(tmp_path / "b", tmp_path / "a")
    assert delta(found, "channel uses")["value"] == pytest.approx(-50, abs=0.01)


def test_curves_over_channel_uses_take_one_of_several_trainings(tmp_path: Path) -> None:
    pair = {"old": curve(), "new": curve(gain=math.log10(2))}
    make_folder(tmp_path, pair, cbrs=(1 / 48, 1 / 24, 1 / 12), snrs=(5.0,), trainings=(1, 2))
    a = schemes(tmp_path)
    with pytest.raises(ValueError, match=r"take one training; --where train\.seed=VALUE"):
        compare(a["new"], a["old"])
    one = schemes(tmp_path, where=["train.seed=1"])
    found = compare(one["new"], one["old"])
    assert delta(found, "channel uses")["value"] == pytest.approx(-50, abs=0.01)


def test_curves_of_error_rates_differ_in_channel_uses_and_not_in_decades(tmp_path: Path) -> None:
    rate = lambda gain: lambda snr, cbr, seed: 1 / (1 + 100 * cbr * gain)  # noqa: E731
    pair = {"old": rate(1.0), "new": rate(2.0)}
    make_folder(tmp_path, pair, cbrs=(1 / 24, 1 / 12, 1 / 6), metric="bler", better="lower")
    assert {d["delta"] for d in only(tmp_path, to="old").deltas} == {"snr gain", "channel uses"}


def test_trainings_give_intervals_over_trainings(tmp_path: Path) -> None:
    shifts = {1: 0.5, 2: 1.0, 3: 1.5}
    learned = lambda snr, cbr, seed: curve()(snr, cbr, 0) + shifts[seed]  # noqa: E731
    make_folder(tmp_path, {"old": curve(), "new": learned}, trainings=(1, 2, 3))
    found = only(tmp_path, to="old")
    assert (found.points[0]["n"], found.over) == (3, "trainings")
    assert found.points[0]["diff"] == pytest.approx(1)
    assert found.points[0]["diff_high"] == pytest.approx(1 + 4.3027 * 0.5 / 3**0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": {"seed": 7}}, "seed of .* is 7, but 0 in .* run both with the same seed"),
        ({"plan": {"batch_size": 4}}, "batch_size of .* is 4, but 8 in"),
        ({"sources": 101}, "item 0 of .* is another one than in .* the same payload"),
        ({"cbrs": (1 / 12,)}, "channel uses per source value 0.0625 against 0.08333"),
        ({"power": 0.5}, "power 1 against 0.5"),
        ({"channel": "rayleigh"}, "the channel is awgn in .* and rayleigh in"),
        ({"snrs": (1.0, 6.0)}, "share no SNR"),
    ],
)
def test_what_is_not_comparable_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    a = make_folder(tmp_path / "a", {"x": curve()})
    b = make_folder(tmp_path / "b", {"x": curve()}, **change)
    with pytest.raises(ValueError, match=words):
        only(a, b)


def test_a_swept_channel_setting_hides_no_other_channel(tmp_path: Path) -> None:
    a = make_folder(tmp_path / "a", {"1": curve(), "2": curve()}, channel="rayleigh")
    b = make_folder(tmp_path / "b", {"1": curve(), "2": curve()}, channel="rician")
    first, second = (schemes(s)["1"]._replace(by="channel.num_rx") for s in (a, b))
    with pytest.raises(ValueError, match=r"the channel is rayleigh in .* and rician in"):
        compare(first, second)


def test_channels_of_one_kind_and_other_settings_are_refused(tmp_path: Path) -> None:
    kept = {"kind": "rayleigh", "num_rx": 1}
    a = make_folder(tmp_path / "a", {"x": curve()}, about={"channel": kept})
    b = make_folder(tmp_path / "b", {"x": curve()}, about={"channel": {**kept, "num_rx": 4}})
    with pytest.raises(ValueError, match=r"channel\.num_rx is 1 in .* and 4 in .* same channel"):
        only(a, b)
    first, second = (schemes(s)["x"]._replace(by="channel.num_rx") for s in (a, b))
    assert compare(first, second).points  # that is what they are compared by


def test_schemes_of_two_folders_meet_by_name_or_as_told(tmp_path: Path) -> None:
    a = schemes(make_folder(tmp_path / "a", {"x": curve(), "y": curve()}))
    b = schemes(make_folder(tmp_path / "b", {"y": curve(), "z": curve()}))
    assert [(p.label, q.label) for p, q in pairs(a, b, None, None)] == [("y", "y")]
    assert [(p.label, q.label) for p, q in pairs(a, b, "x", "z")] == [("x", "z")]
    with pytest.raises(ValueError, match="choose a scheme with --to NAME"):
        pairs(a, b, "x", None)
    with pytest.raises(ValueError, match="no scheme is called 'w'"):
        pairs(a, b, "w", None)
    with pytest.raises(ValueError, match="say with which scheme to compare: --to NAME"):
        pairs(a, None, None, None)


def semsim(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_the_command_prints_and_writes_numbers(tmp_path: Path) -> None:
    make_folder(tmp_path, {"old [b]": curve(), "new": curve(shift=1.0)}, noise=0.1)
    result = semsim("compare", tmp_path, "--to", "old [b]", "--csv", tmp_path / "c.csv")
    assert result.exit_code == 0, result.stderr
    assert "new against old [b]; higher is better" in result.stdout
    assert "mean SNR gain at equal quality: +1" in result.stdout.replace("+0.99", "+1")
    table = pd.read_csv(tmp_path / "c.csv")
    assert {"scheme", "to", "diff", "diff_low", "diff_high", "gain", "delta"} <= set(table)


@pytest.mark.parametrize("command", [["compare", "--to", "old"], ["table"], ["plot"]])
def test_a_folder_that_does_not_say_what_was_swept_is_refused(
    tmp_path: Path, command: list[str]
) -> None:
    make_folder(tmp_path, {"old": curve(), "new": curve(shift=1.0)}, cbrs=(1 / 16, 1 / 8))
    (tmp_path / "provenance.json").unlink()  # then each CBR would be paired with both
    result = CliRunner().invoke(app, [command[0], str(tmp_path), *command[1:]])
    assert result.exit_code == 2 and "copy the whole folder, or run" in result.stderr


def test_a_folder_of_an_older_version_gets_a_sentence(tmp_path: Path) -> None:
    make_folder(tmp_path, {"old": curve(), "new": curve()})
    for path in (tmp_path / "items").iterdir():
        path.unlink()
    result = semsim("compare", tmp_path, "--to", "old")
    assert result.exit_code == 2
    assert "holds no values of single items" in result.stderr
    assert "run its scenario again" in result.stderr
    assert semsim("compare", tmp_path / "nowhere").exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "odl"], "no scheme is called 'odl'; did you mean 'old'?"),
        (["--to", "old", "--metric", "ssim"], "holds no metric 'ssim'"),
        (["--to", "old", "--fit", "spline"], "--fit 'spline' is not one of pchip, cubic"),
        (["--to", "old", "--where", "chanel=awgn"], "no column 'chanel'; did you mean 'channel'?"),
        (["--to", "old", "--where", "channel=x"], "no channel is 'x'; known: awgn"),
        (["--to", "old", "--by", "kind"], "no column 'kind'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    make_folder(tmp_path, {"old": curve(), "new": curve()})
    result = semsim("compare", tmp_path, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_value_of_another_column_is_told_with_its_column(tmp_path: Path) -> None:
    make_folder(tmp_path, {"old": curve(), "new": curve()}, cbrs=(1 / 16, 1 / 8))
    result = semsim("compare", tmp_path, "--to", "0.125")
    words = "no scheme is called '0.125'; it is a value of another column: --by transmitter.cbr"
    assert words in result.stderr


def test_what_is_not_known_is_left_empty(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("diff", "diff_low", "diff_high", "gain", "gain_low", "gain_high")
    nothing = dict.fromkeys(names, math.nan)
    point = {"snr_db": 5.0, "cbr": 0.1, "n": 3, "a": 1.0, "b": 2.0, **nothing}
    print_comparison(Comparison("A", "B", "psnr", "dB", "higher", points=[point]))
    told = capsys.readouterr().out
    assert "5 dB" in told and "nan" not in told
