"""Figures and tables say which bound a curve is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from semsim.codecs.limits import NAMES
from semsim.plots.bounds import cbr_of, name_bounds
from semsim.sweep.sweep import run


def rows(kinds: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"channel": c, "transmitter": "HEVC", "bound": NAMES[k]} for c, k in kinds.items()]
        + [{"channel": c, "transmitter": "learned", "bound": None} for c in kinds]
    )


def test_one_name_where_the_channels_agree() -> None:
    named = name_bounds(rows({"awgn": "constant", "rayleigh": "one"}))
    assert set(named["transmitter"]) == {"HEVC: one rate for all draws", "learned"}


def test_a_name_for_each_where_they_do_not() -> None:
    named = name_bounds(rows({"awgn": "constant", "block": "one", "symbol": "ergodic"}))
    assert list(named["transmitter"][:3]) == [
        "HEVC: capacity",
        "HEVC: one rate for all draws",
        "HEVC: ergodic capacity",
    ]
    alone = name_bounds(rows({"awgn": "constant"}))
    assert list(alone["transmitter"]) == ["HEVC", "learned"]
    assert name_bounds(alone.drop(columns="bound")).equals(alone.drop(columns="bound"))


def test_rows_of_a_run_say_which_bound(tmp_path: Path) -> None:
    from semsim.scenario.scenario import Scenario

    scenario = Scenario.parse(
        {
            "payload": {"kind": "photos", "crop": 32},
            "channel": {"kind": "rayleigh"},
            "metrics": ["psnr"],
            "snr_db": [5],
            "sweep": {
                "transmitter": {
                    "JPEG": {"kind": "bound", "cbr": "1/3", "codec": "jpeg"},
                    "short": {"kind": "bound", "cbr": "1/3", "codec": "jpeg", "code": "shell"},
                    "analog": {"kind": "analog", "cbr": "1/3"},
                }
            },
        }
    )
    table = run(scenario, tmp_path / "out")
    said = dict(zip(table["transmitter"], table["bound"], strict=True))
    assert said["JPEG"] == "one rate for all draws (outage-optimal)"
    assert said["short"].endswith("(outage-optimal), normal approximation (shell codes)")
    assert pd.isna(said["analog"])
    text = (tmp_path / "out" / "report.html").read_text()
    assert "JPEG: one rate for all draws" in text
    assert "short: one rate for all draws, normal approximation" in text


def test_a_cbr_that_depends_on_the_snr_is_shown_as_a_range() -> None:
    spent = pd.DataFrame({"cbr": [0.0933, 0.1483, 0.155]})  # hybrid ARQ at three SNRs
    assert cbr_of(spent) == "0.0933 to 0.155"
    assert cbr_of(spent.assign(cbr=1 / 6)) == "0.1667"
