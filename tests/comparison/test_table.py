"""Tables: the best is bold, and so is what the paired items do not tell apart from it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from results_folder import make_folder
from typer.testing import CliRunner

from semsim.cli import app
from semsim.comparison.compare import compare, pairs, schemes, to_csv
from semsim.comparison.table import ablation, text_of


def level(value: float) -> Any:
    return lambda snr, cbr, seed: value + snr + (seed - 1) * 0.01


def bold(folder: Path, **more: Any) -> dict[str, list[bool]]:
    cells, _ = ablation(folder, "transmitter", "snr_db", metric=None, **more)
    return {label: [cell.bold for cell in line.values()] for label, line in cells.items()}


def test_paired_items_tell_apart_what_intervals_do_not(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20), "b": level(20.5)}, snrs=(0.0, 5.0), noise=0.05)
    cells, caption = ablation(tmp_path, "transmitter", "snr_db", metric="psnr")
    assert cells["a"]["0"].high > cells["b"]["0"].low  # intervals overlap
    assert bold(tmp_path) == {"a": [False, False], "b": [True, True]}
    assert "paired difference to it may be zero" in caption


def test_what_is_not_told_apart_is_bold_too(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20), "b": level(20.02), "c": level(15)}, noise=1.0)
    shown = bold(tmp_path)
    assert all(shown["a"]) and all(shown["b"]) and not any(shown["c"])


def test_what_is_not_known_is_never_the_best(tmp_path: Path) -> None:
    nothing = lambda snr, cbr, seed: float("nan")  # noqa: E731
    make_folder(tmp_path, {"a": nothing, "b": level(20), "c": level(30)}, noise=0.1)
    shown = bold(tmp_path)
    assert all(shown["c"]) and not any((*shown["a"], *shown["b"]))


def test_a_metric_that_is_better_low_has_its_lowest_bold(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20), "b": level(30)}, noise=0.1, better="lower")
    assert all(bold(tmp_path)["a"]) and not any(bold(tmp_path)["b"])


def test_means_over_trainings_say_so(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20), "b": level(30)}, trainings=(0, 1, 2), noise=0.1)
    cells, caption = ablation(tmp_path, "transmitter", "snr_db", metric=None)
    assert "95 % intervals over 3 trainings" in caption
    assert cells["b"]["0"].bold and not cells["a"]["0"].bold
    assert cells["b"]["0"].value == pytest.approx(30, abs=0.1)


def test_trainings_are_paired_by_their_seed(tmp_path: Path) -> None:
    """Seeds move both schemes by far more than what sets them apart."""
    make_folder(
        tmp_path,
        {
            "a": lambda snr, cbr, seed: 20 + 2.0 * seed,
            "b": lambda snr, cbr, seed: 20.5 + 2.0 * seed + 0.01 * (-1) ** seed,
            "c": lambda snr, cbr, seed: 20.5 + 2.0 * seed,
        },
        trainings=(0, 1, 2, 3),
    )
    cells, caption = ablation(tmp_path, "transmitter", "snr_db", metric=None)
    assert {label: line["0"].bold for label, line in cells.items()} == {
        "a": False, "b": True, "c": True,
    }  # fmt: skip
    assert cells["a"]["0"].high > cells["b"]["0"].low
    assert "paired difference to it may be zero" in caption


def test_a_cell_of_several_links_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20)}, cbrs=(1 / 12, 1 / 6))
    with pytest.raises(ValueError, match=r"differ in transmitter\.cbr .* choose one with --where"):
        ablation(tmp_path, "transmitter", "snr_db", metric=None)
    cells, _ = ablation(
        tmp_path, "transmitter", "snr_db", metric=None, where=["transmitter.cbr=0.1667"]
    )
    assert list(cells["a"]) == ["0", "5", "10", "15"]


def test_formats_escape_and_agree(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a_b & 10 %": level(20), "x|y": level(30)}, snrs=(5.0,), noise=0.1)
    cells, caption = ablation(tmp_path, "transmitter", "snr_db", metric=None)
    corner = ("transmitter", "snr_db")
    latex = text_of(cells, caption, "latex", corner)
    assert r"a\_b \& 10 \% & $25.0 \pm " in latex
    assert r"x|y & $\mathbf{35.0} \pm " in latex
    assert latex.count(r"\\") == 3 and r"\begin{tabular}{lr}" in latex
    markdown = text_of(cells, caption, "markdown", corner)
    assert r"| x\|y | **35.0** ± " in markdown
    rows = list(csv.DictReader(io.StringIO(text_of(cells, caption, "csv", corner))))
    assert [(r["transmitter"], r["snr_db"], r["best"]) for r in rows] == [
        ("a_b & 10 %", "5", "False"),
        ("x|y", "5", "True"),
    ]
    assert float(rows[0]["value"]) == pytest.approx(25, abs=0.2)


def test_labels_break_no_table_and_run_in_no_spreadsheet(tmp_path: Path) -> None:
    make_folder(tmp_path, {"two\nlines": level(20), "=1+1": level(30)}, snrs=(0.0,), noise=0.1)
    cells, caption = ablation(tmp_path, "transmitter", "snr_db", metric=None)
    assert "| two lines |" in text_of(cells, caption, "markdown", ("transmitter", "snr_db"))
    text = text_of(cells, caption, "csv", ("transmitter", "snr_db"))
    assert [line["transmitter"] for line in csv.DictReader(io.StringIO(text))][1] == "'=1+1"
    to_csv([compare(*pairs(schemes(tmp_path), None, None, "=1+1")[0])], tmp_path / "a.csv")
    assert "'=1+1" in (tmp_path / "a.csv").read_text()


def test_the_command_prints_a_table_or_a_sentence(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": level(20), "b": level(30)})
    runner = CliRunner()
    good = runner.invoke(app, ["table", str(tmp_path), "--format", "latex", "--metric", "psnr"])
    assert good.exit_code == 0 and r"\toprule" in good.stdout
    bad = runner.invoke(app, ["table", str(tmp_path), "--format", "word"])
    assert bad.exit_code == 2 and "--format 'word' is not one of latex" in bad.stderr
    bad = runner.invoke(app, ["table", str(tmp_path), "--rows", "scheme"])
    assert bad.exit_code == 2 and "no column 'scheme'" in bad.stderr
