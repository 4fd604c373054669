"""Which rows go into which figure, and what lies beneath them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from semsim.mistakes import SpecError
from semsim.phy import theory
from semsim.plots.folder import Plot, check_plot, closed_form, draw, draw_all
from semsim.scenario.scenario import Scenario
from semsim.sweep.strips import draw_strips, save_picture, shown_links, shown_snrs
from semsim.sweep.sweep import run

SWEPT = ("channel", "csi.rx", "transmitter.cbr")


def rows() -> pd.DataFrame:
    """Return the rows of a sweep over channel, CSI and CBR at two SNRs."""
    table = []
    for channel, csi, cbr, snr in itertools.product(
        ("AWGN", "Rayleigh"), ("perfect", "pilots"), (1 / 12, 1 / 6), (0.0, 10.0)
    ):
        row = {"transmitter": "deepjscc", "channel": channel, "csi.rx": csi}
        row |= {"transmitter.cbr": f"1/{1 / cbr:g}", "cbr": cbr, "snr_db": snr, "payload": "kodak"}
        table.append(row | {"metric": "psnr", "value": 30.0, "ci_low": 29.0, "ci_high": 31.0})
    return pd.DataFrame(table)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect what would be drawn."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("semsim.plots.drawing.write", lambda *_figure: None)
    monkeypatch.setattr(
        "semsim.plots.drawing.plot_rows",
        lambda rows, **how: calls.append({"rows": rows, **how}),
    )
    return calls


@pytest.mark.parametrize("by", [None, "transmitter", "csi.rx", "channel"])
@pytest.mark.parametrize("x", ["snr_db", "cbr", "csi.rx"])
def test_no_line_mixes_links(
    x: str, by: str | None, drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    if x == by:
        pytest.skip("one column cannot be both")
    draw(tmp_path, SWEPT, Plot(x=x, by=by), rows())
    (how,) = drawn
    lines = how["rows"].groupby([c for c in (how["panel"], how["by"], x) if c])
    assert lines.size().max() == 1


def test_panels_say_what_they_hold(drawn: list[dict[str, Any]], tmp_path: Path) -> None:
    draw(tmp_path, SWEPT, Plot(x="cbr", by="channel"), rows())
    draw(tmp_path, SWEPT, Plot(x="cbr"), rows())
    assert set(drawn[0]["rows"]["panel"]) == {
        f"rx {csi}, {snr} dB" for csi in ("perfect", "pilots") for snr in (0, 10)
    }
    assert set(drawn[1]["rows"]["scheme"]) == set(drawn[0]["rows"]["panel"])
    assert drawn[1]["panel"] == "channel"


def test_lines_by_snr_carry_their_unit(drawn: list[dict[str, Any]], tmp_path: Path) -> None:
    draw(tmp_path, SWEPT, Plot(x="cbr", by="snr_db"), rows())
    assert set(drawn[0]["rows"][drawn[0]["by"]]) == {"0 dB", "10 dB"}


def test_a_figure_has_the_title_that_it_is_given(tmp_path: Path) -> None:
    (file,) = draw(tmp_path, SWEPT, Plot(y="psnr", title="Kodak, costs $5"), rows())
    assert "Kodak, costs $5" in file.with_suffix(".svg").read_text()


def test_several_metrics_make_one_figure(drawn: list[dict[str, Any]], tmp_path: Path) -> None:
    both = pd.concat([rows(), rows().assign(metric="task_psnr")])
    files = draw(tmp_path, SWEPT, Plot(y=["task_psnr", "psnr"]), both)
    assert [file.name for file in files] == ["task_psnr_and_psnr_over_snr_db.png"]
    assert [how["y"] for how in drawn] == [("task_psnr", "psnr")]


def test_how_well_no_link_delivers_is_not_drawn(
    drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    free = rows().assign(transmitter="no link", cbr=0.0)
    of_link = [part.assign(judges="link") for part in (rows(), free)]
    both = pd.concat([*of_link, free.assign(metric="task_psnr", judges="task")])
    draw(tmp_path, (*SWEPT, "transmitter"), Plot(), both)
    left = drawn[0]["rows"].groupby("metric")["transmitter"].unique().map(list)
    assert left.to_dict() == {"psnr": ["deepjscc"], "task_psnr": ["no link"]}


def test_a_picture_keeps_its_caption(tmp_path: Path) -> None:
    image = torch.rand(3, 8, 8)
    for folder, caption in (("a", "iou 0.93"), ("b", "")):
        save_picture(tmp_path / folder / "sent.png", image)
        save_picture(tmp_path / folder / "0.png", image, caption)
    (file,) = draw_strips(tmp_path, {"": {n: {0.0: tmp_path / n / "0.png"} for n in "ab"}})
    assert file.name == "strip.webp" and file.stat().st_size > 1000


def test_published_values_come_from_a_file_at_the_cbrs_of_the_rows(
    drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "published.csv"
    head = "system,payload,channel,cbr,snr_db,metric,value\n"
    path.write_text(head + "A,kodak,awgn,0.167,10,psnr,33\nB,kodak,awgn,0.5,10,psnr,40\n")
    draw(tmp_path, SWEPT, Plot(published=str(path)), rows())
    draw(tmp_path, SWEPT, Plot(x="cbr", published=str(path)), rows())
    assert list(drawn[0]["reference"]["system"]) == ["A"]
    assert list(drawn[1]["reference"]["system"]) == ["A", "B"]


def test_a_closed_form_takes_further_arguments() -> None:
    curve = closed_form({"form": "qam_ber_rician", "k_db": 3, "order": 16})
    assert curve([0.0, 7.0]).tolist() == [theory.qam_ber_rician(s, 3, 16) for s in (0.0, 7.0)]
    assert closed_form("awgn_capacity")([10.0])[0] == theory.awgn_capacity(10.0)


def test_a_closed_form_of_words_is_one_sentence() -> None:
    form = {"form": "qam_ber_rician", "k_db": "ten"}
    with pytest.raises(SpecError, match=r"takes numbers, got .*'ten'"):
        check_plot(Plot(y="ber", theory={"T": form}), {}, ["ber"])


def test_a_scenario_may_draw_one_metric_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {
        "payload": "toy_parts:ToyPayload",
        "transmitter": "toy_parts:ToyTransmitter",
        "channel": "toy_parts:ToyChannel",
        "metrics": ["toy_parts:Error"],
        "snr_db": [0, 10],
        "plots": [{"y": "error"}, {"y": "error", "theory": {"capacity": "awgn_capacity"}}],
    }
    run(Scenario.parse(values), "out")
    names = {path.name for path in Path("out").glob("*.png")}
    assert names == {"error_over_snr_db.png", "error_over_snr_db_2.png"}


@pytest.mark.parametrize(
    "plots",
    [
        [{"by": "csi.rx"}, {"y": "psnr", "by": "transmitter.cbr"}],
        [{"y": "psnr", "by": "csi.rx"}, {"y": ["psnr"], "by": "transmitter.cbr"}],
        [{"y": "psnr"}, {"y": "ssim"}, {"by": "csi.rx"}],
    ],
)
def test_no_figure_overwrites_another(
    plots: list[dict[str, Any]], drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    both = pd.concat([rows(), rows().assign(metric="ssim")])
    files = draw_all(tmp_path, SWEPT, plots, both)
    assert len(files) == len(drawn) == len({str(file).lower() for file in files})
    assert "psnr_over_snr_db_2.png" in {file.name for file in files}


def test_more_schemes_than_can_be_told_apart_are_drawn_faintly(tmp_path: Path) -> None:
    from semsim.plots.drawing import LINES, plot_rows

    many = pd.concat(
        [rows().assign(transmitter=f"scheme {k:03}", **{"csi.rx": "x"}) for k in range(60)]
    )
    many = many[(many["channel"] == "AWGN") & (many["cbr"] == 1 / 6)]
    figure = plot_rows(many, tmp_path / "many.png")
    (legend,) = figure.legends
    assert len(legend.get_texts()) == LINES
    assert f"{LINES} of 60 schemes are named" in figure.get_supxlabel()
    (faint,) = [line for line in figure.axes[0].lines if line.get_color() == "#cccccc"]
    assert sum(value == value for value in faint.get_xdata()) == 2 * 2 * (60 - LINES)


def test_strips_show_as_much_as_can_be_looked_at() -> None:
    places = [(f"panel {p}", f"scheme {s}") for s in range(30) for p in range(20)]
    shown = shown_links(places)
    assert len(shown) == 12 * 12
    assert {places[k][0] for k in shown} == {f"panel {p}" for p in range(12)}
    assert {places[k][1] for k in shown} == {f"scheme {s}" for s in range(12)}
    assert shown_snrs([0.0, 5.0]) == [0.0, 5.0]
    few = shown_snrs([float(snr) for snr in range(100)])
    assert (len(few), few[0], few[-1]) == (8, 0.0, 99.0)
    assert few == sorted(set(few))


def test_labels_that_file_names_do_not_tell_apart_get_strips_of_their_own(tmp_path: Path) -> None:
    image = torch.rand(3, 8, 8)
    for name in ("sent", "0"):
        save_picture(tmp_path / f"{name}.png", image)
    found = {"scheme": {0.0: tmp_path / "0.png"}}
    panels = ["snr+", "snr-", "SNR", "snr 2", "x" * 300]
    files = draw_strips(tmp_path, dict.fromkeys(panels, found))
    assert len({str(file).lower() for file in files}) == len(panels)
    assert all(file.is_file() and len(file.name) < 100 for file in files)
