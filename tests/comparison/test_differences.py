"""Rows carry paired differences; several trainings become a mean with its own interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from semsim.comparison.differences import (
    add_differences,
    over_trainings,
    paired_items,
    unequal,
)
from semsim.items import read_items
from semsim.mistakes import SpecError
from semsim.plots import printing
from semsim.plots.folder import draw_all
from semsim.results import read_rows
from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run

TOY: dict[str, Any] = {
    "name": "toy",
    "payload": {"kind": "toy_parts:ToyPayload", "items": 20},
    "transmitter": {"kind": "toy_parts:ToyTransmitter"},
    "channel": {"kind": "toy_parts:ToyChannel"},
    "metrics": ["toy_parts:Error", "toy_parts:Negative"],
    "snr_db": [0, 10],
    "batch_size": 8,
    "sweep": {
        "transmitter": {
            "good [a]": {"kind": "toy_parts:ToyTransmitter"},
            "bad": {"kind": "toy_parts:ToyTransmitter", "mode": "negative"},
        }
    },
    "plots": [{"y": "error", "difference_to": "good [a]"}],
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def toy(**changes: Any) -> Scenario:
    return Scenario.parse({**TOY, **changes})


def printed(rows: pd.DataFrame, swept: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    screen = Console(width=200, record=True, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr(printing, "console", lambda: screen)
    printing.print_results(rows, swept)
    return screen.export_text()


def test_rows_and_figure_carry_the_difference_to_the_scheme_that_a_plot_names() -> None:
    rows = run(toy(), "out")
    pd.testing.assert_frame_equal(read_rows("out"), rows)
    reference = rows[rows["transmitter"] == "good [a]"]
    assert reference["diff"].isna().all() and reference["difference_to"].isna().all()
    others = rows[rows["transmitter"] == "bad"]
    assert set(others["difference_to"]) == {"good [a]"}
    for row in others.to_dict("records"):
        same = (reference["snr_db"] == row["snr_db"]) & (reference["metric"] == row["metric"])
        (partner,) = reference[same].to_dict("records")
        a, b = (read_items("out", r["uid"])[row["metric"]] for r in (row, partner))
        assert row["diff"] == pytest.approx((a - b).mean())
        assert row["diff"] == pytest.approx(row["value"] - partner["value"])
        assert row["diff_low"] < row["diff"] < row["diff_high"]
    assert Path("out/error_over_snr_db_difference_to_good__a.png").is_file()
    assert draw_all(Path("out"), ["transmitter"], [TOY["plots"][0]])


def test_who_uses_more_of_the_channel_than_the_reference_is_told() -> None:
    rows = pd.DataFrame({
        "transmitter": ["a", "b", "c", "a", "b", "c"], "snr_db": [0.0] * 3 + [5.0] * 3,
        "cbr": [0.1, 0.1004, 0.12, 0.1, 0.1, 0.13],
    })  # fmt: skip
    told = unequal(rows, ["transmitter"], "transmitter", "a")
    assert told == [
        "c has CBR 0.12 at 0 dB and a 0.1: their difference is not at equal channel uses"
    ]


def test_differences_stay_within_links_that_are_else_equal() -> None:
    sweep = {**TOY["sweep"], "channel.gain": [1.0, 0.5]}
    rows = run(toy(sweep=sweep), "out")
    alone = run(toy(sweep=TOY["sweep"]), "alone")
    pick = (rows["channel.gain"] == 1.0) & rows["diff"].notna()
    np.testing.assert_allclose(rows["diff"][pick], alone["diff"].dropna())
    assert rows["diff"].notna().sum() == 2 * alone["diff"].notna().sum()


def test_links_of_one_user_and_of_several_may_stand_in_one_sweep(tmp_path: Path) -> None:
    rows = pd.DataFrame({
        "link": ["direct", "relay", "pair", "pair"], "user": [np.nan, np.nan, 1.0, 2.0],
        "snr_db": 0.0, "cbr": [0.1, 0.2, 0.1, 0.1], "metric": "ber", "uid": [*"abcd"],
    })  # fmt: skip
    told = unequal(rows, ["link", "user"], "link", "direct")
    assert told == [
        "relay has CBR 0.2 at 0 dB and direct 0.1: their difference is not at equal channel uses"
    ]
    found = add_differences(tmp_path, rows.drop(index=1), ["link", "user"], "link", "direct")
    assert found["diff"].isna().all()  # neither of two users meets who is alone


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ({"difference_to": "goood"}, "difference_to: no scheme is called 'goood'; did you"),
        ({"difference_to": "bad", "by": "channel"}, "by: 'channel' is not swept"),
    ],
)
def test_a_scheme_that_is_not_there_is_told_before_the_run(
    plot: dict[str, str], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        toy(plots=[{"y": "error", **plot}])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 5}, "seed of b is 5, but 0 in a"),
        ({"batch_size": 4}, "batch_size of b is 4, but 8 in a"),
        ({"stop": {"max_items": 12}}, "max_items of b is 12, but 20 in a"),
        ({"payload": {"kind": "toy_parts:ToyPayload", "items": 20, "size": 10}}, "item 0 of b is"),
    ],
)
def test_other_items_or_draws_are_not_paired(change: dict[str, Any], words: str) -> None:
    folders = [("a", toy(plots=[])), ("b", toy(plots=[], **change))]
    points = [(Path(n), run(scenario, n)["uid"].iloc[0]) for n, scenario in folders]
    with pytest.raises(ValueError, match=words):
        paired_items(points, ["error"])


def test_labels_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(run(toy(), "out"), ["transmitter"], monkeypatch)
    assert "good [a]" in text
    assert "error minus that of good [a], paired" in text
    assert "over items" in text


def trainings() -> pd.DataFrame:
    """Return rows of a trained scheme with three trainings and one that nothing trains."""
    rows = []
    for scheme, values in {"learned": (30.0, 31.0, 32.0), "classical": (28.0, 28.0, 28.0)}.items():
        for seed, value in enumerate(values):
            row = {"transmitter": scheme, "train.seed": seed, "snr_db": 5.0, "metric": "psnr"}
            row |= {
                "value": value,
                "ci_low": value - 2,
                "ci_high": value + 2,
                "n": 24,
                "unit": "dB",
            }
            diff = np.nan if scheme == "classical" else value - 28
            row |= {"interval": "items", "cbr": 1 / 16, "difference_to": "classical", "diff": diff}
            rows.append(row | {"diff_low": diff - 1, "diff_high": diff + 1, "channel": "awgn"})
    return pd.DataFrame(rows)


def test_trainings_become_a_mean_with_an_interval_over_them() -> None:
    from scipy import stats

    learned, classical = over_trainings(trainings(), ["transmitter", "train.seed"]).to_dict(
        "records"
    )
    half = stats.t(2).ppf(0.975) / 3**0.5
    assert (learned["value"], learned["interval"], learned["trainings"]) == (31.0, "trainings", 3)
    assert (learned["ci_low"], learned["ci_high"]) == pytest.approx((31 - half, 31 + half))
    assert learned["diff"] == 3.0
    assert (learned["diff_low"], learned["diff_high"]) == pytest.approx((3 - half, 3 + half))
    assert (classical["ci_low"], classical["interval"]) == (26.0, "items")
    assert "train.seed" not in learned


def test_differences_of_what_no_training_changes_are_over_trainings_too() -> None:
    rows = trainings().assign(difference_to="learned")
    rows["diff"] = [np.nan, np.nan, np.nan, -2.0, -3.0, -4.0]
    _, classical = over_trainings(rows, ["transmitter", "train.seed"]).to_dict("records")
    assert (classical["value"], classical["ci_low"], classical["diff"]) == (28.0, 26.0, -3.0)
    assert classical["diff_low"] == pytest.approx(-3 - 4.3027 / 3**0.5, abs=1e-3)


def test_tables_say_over_what_their_intervals_are(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(trainings(), ["transmitter", "train.seed"], monkeypatch)
    assert "interval over 3 trainings, over items where no training changes" in text
    assert "31±2.5" in text


def test_a_scheme_without_partner_has_no_difference() -> None:
    run(toy(plots=[]), "out")
    rows = read_rows("out")
    lacking = rows[~((rows["transmitter"] == "good [a]") & (rows["snr_db"] == 10))]
    got = add_differences("out", lacking, ["transmitter"], "transmitter", "good [a]")
    there = got[got["diff"].notna()]
    assert set(there["snr_db"]) == {0.0} and set(there["transmitter"]) == {"bad"}
