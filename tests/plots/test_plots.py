"""Figures: what is drawn, not how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from semsim.payloads.photos import Photos
from semsim.plots import style as plotstyle
from semsim.plots.drawing import plot_rows, published, strip, write

SNRS = (0.0, 10.0, 20.0)


def rows(**changes: Any) -> pd.DataFrame:
    table = []
    for channel in ("awgn", "rayleigh"):
        for number, transmitter in enumerate(("deepjscc", "separate", "bound")):
            for snr in SNRS[::-1]:
                value = 25 + snr / 2 + number
                row = {"transmitter": transmitter, "channel": channel, "payload": "kodak"}
                row |= {"snr_db": snr, "metric": "psnr", "value": value, "unit": "dB"}
                row |= {"label": "PSNR"}
                row |= {"ci_low": value - 0.5, "ci_high": value + 1, "n": 24, "cbr": 1 / 16}
                table.append(row | changes)
    return pd.DataFrame(table)


def drawn(ax: Any) -> dict[str, Any]:
    return {str(line.get_label()): line for line in ax.lines if str(line.get_label())[0] != "_"}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_panel_per_channel_one_line_per_scheme_with_units_on_the_axes() -> None:
    figure = plot_rows(rows())
    assert [ax.get_title("left") for ax in figure.axes] == ["awgn", "rayleigh"]
    assert all(ax.get_xlabel() == "SNR (dB)" for ax in figure.axes)
    assert figure.axes[0].get_ylabel() == "PSNR (dB)"
    assert legend(figure) == ["deepjscc", "separate", "bound"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == list(SNRS) and line.get_ydata().tolist() == [25, 30, 35]


def test_several_metrics_stand_side_by_side_each_on_its_own_scale() -> None:
    task = rows(metric="task_psnr", label="Of the task", value=10.0, ci_low=9.5, ci_high=11.0)
    both = pd.concat([rows(), task])
    figure = plot_rows(both, y=("task_psnr", "psnr"))
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["Of the task (dB)", "PSNR (dB)"] * 2  # a row of panels per channel
    limits = [ax.get_ylim() for ax in figure.axes]
    assert limits[0] == limits[2] and limits[1] == limits[3] and limits[0] != limits[1]
    assert legend(figure) == ["deepjscc", "separate", "bound"]
    assert [ax.get_title("left") for ax in figure.axes] == ["awgn", "awgn", "rayleigh", "rayleigh"]


def test_a_panel_that_would_be_a_bound_lies_dashed_in_all_others() -> None:
    figure = plot_rows(rows(), by="channel", panel="transmitter")
    assert [ax.get_title("left") for ax in figure.axes] == ["deepjscc", "separate"]
    for ax in figure.axes:
        lines = drawn(ax)
        assert list(lines) == ["awgn", "awgn, bound", "rayleigh", "rayleigh, bound"]
        assert lines["awgn, bound"].get_linestyle() == "--"
        assert lines["awgn, bound"].get_color() == lines["awgn"].get_color()
        assert lines["awgn, bound"].get_ydata().tolist() == [27, 32, 37]


@pytest.mark.parametrize("order", [("psnr", "task_psnr"), ("task_psnr", "psnr")])
def test_a_bound_that_only_one_metric_has_lies_in_its_panels(order: tuple[str, str]) -> None:
    of_task = rows(metric="task_psnr", label="Of the task")
    both = pd.concat([rows()[rows()["transmitter"] != "bound"], of_task])
    for axis in ("transmitter", "channel"):
        other = "channel" if axis == "transmitter" else "transmitter"
        figure = plot_rows(both, y=order, by=axis, panel=other)
        dashed = {
            ax.get_ylabel()
            for ax in figure.axes
            if any(line.get_marker() in ("", "None") for line in drawn(ax).values())
        }
        assert dashed == {"Of the task (dB)"}


def test_bands_span_the_interval() -> None:
    band = plot_rows(rows()).axes[0].collections[0].get_paths()[0].vertices
    at = band[band[:, 0] == 0.0, 1]
    assert (at.min(), at.max()) == (24.5, 26.0)


def test_bars_over_words_stand_side_by_side() -> None:
    table = rows()
    table["transmitter.attention"] = ["none", "se", "pfca"] * 6
    figure = plot_rows(table, x="transmitter.attention", by="snr_db", panel=None)
    figure.canvas.draw()
    places = [c.lines[0].get_window_extent().x0 for c in figure.axes[0].containers]
    assert len({round(place) for place in places}) == len(places) == 3


def test_no_line_joins_words_and_a_bound_is_a_stroke_at_each() -> None:
    table = rows(channel="awgn")
    table["csi.rx"] = ["perfect", "pilots", "silence"] * (len(table) // 3)
    for lines in (24, 1):  # told apart, and some of them faint
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("semsim.plots.drawing.LINES", lines)
            ax = plot_rows(table, x="csi.rx", panel=None).axes[0]
        shown = [line for line in ax.lines if len(line.get_xdata(orig=False)) > 1]
        assert shown and {line.get_linestyle() for line in shown} == {"None"}
        assert lines == 1 or drawn(ax)["bound"].get_marker() == "_"


def test_words_lie_in_the_order_of_the_sweep_and_all_of_them_show() -> None:
    table = rows()
    words = ["1/12", "1/6", "1/3"]  # sorted as words 1/3 would come in the middle
    table["transmitter.cbr"] = words * 6
    figure = plot_rows(table.iloc[[0, 1, 2, 11, 10, 9]], x="transmitter.cbr", by="channel")
    figure.canvas.draw()
    for ax in figure.axes:
        assert [label.get_text() for label in ax.get_xticklabels()] == words
        assert ax.get_xlim() == (-0.5, 2.5)
        assert ax.lines[0].get_xdata(orig=False).tolist() == [0, 1, 2]


@pytest.mark.parametrize("x", ["snr_db", "cbr"])
def test_a_single_point_shows_its_interval_and_a_bound_a_stroke(x: str) -> None:
    table = rows(channel="awgn", snr_db=10.0).drop_duplicates("transmitter")
    figure = plot_rows(table, x=x)
    figure.canvas.draw()
    (ax,) = figure.axes
    left, right = ax.get_xlim()
    assert left < table[x].iloc[0] < right and right - left < 5
    bars = [c.lines[2][0].get_segments()[0] for c in ax.containers]
    assert [(low[1], high[1]) for low, high in bars] == [(34.5, 36), (35.5, 37)]
    lines = [c.lines[0] for c in ax.containers]
    first, second = (line.get_transform().transform(line.get_xydata())[0, 0] for line in lines)
    assert bool(first == second) is (x == "cbr")
    assert drawn(ax)["bound"].get_marker() == "_"
    assert figure.get_supxlabel().startswith("bars: 95 % intervals")


def test_words_along_an_axis_are_drawn_as_they_are_written() -> None:
    table = rows(channel="awgn")
    table["transmitter"] = table["transmitter"] + " costs $2 or $3"
    ax = plot_rows(table, x="transmitter", by="snr_db").axes[0]
    assert ax.get_xticklabels()[0].get_text() == r"deepjscc costs \$2 or \$3"
    assert ax.get_xticklabels()[0].get_rotation() == 20


def test_an_axis_is_ruled_by_values_and_not_by_the_interval_of_few_items() -> None:
    wide = rows(n=5)
    wide["ci_low"], wide["ci_high"] = wide["value"] - 40, wide["value"] + 40
    low, high = plot_rows(wide).axes[0].get_ylim()
    assert 20 < low < 25 and 37 < high < 45


def test_curves_that_coincide_are_told_apart() -> None:
    table = rows()
    same = table["transmitter"] == "separate"
    table.loc[same, "value"] = table.loc[table["transmitter"] == "deepjscc", "value"].to_numpy()
    first, second, _ = drawn(plot_rows(table).axes[0]).values()
    assert first.get_linestyle() == "-" and second.get_linestyle() == "--"
    assert second.get_markerfacecolor() == "none"
    assert second.get_markersize() > first.get_markersize()


def test_the_end_of_a_bar_is_no_curve_that_another_coincides_with() -> None:
    table = rows(**{"transmitter.attention": "none"})
    table = pd.concat([table, table.assign(**{"transmitter.attention": "se"})])
    table = table[(table["snr_db"] == 0) & (table["channel"] == "awgn")]  # deepjscc ends at 26,
    figure = plot_rows(table, x="transmitter.attention")  # where separate lies
    faces = [bars.lines[0].get_markerfacecolor() for bars in figure.axes[0].containers[:2]]
    assert "none" not in faces


def test_a_panel_says_which_scheme_it_lacks_and_its_cbr() -> None:
    table = rows()
    table = table[(table["channel"] == "awgn") | (table["transmitter"] != "separate")]
    awgn, fading = plot_rows(table).axes
    assert [text.get_text() for text in fading.texts] == ["not run here: separate"]
    assert not awgn.texts
    assert awgn.get_title("right") == fading.get_title("right") == "CBR 1/16"


def test_a_scheme_has_its_colour_in_every_figure() -> None:
    one = {label: colour for label, colour, *_ in plotstyle.looks(["HEVC + LDPC", "Swin JSCC"])}
    labels = ["mine", "DeepJSCC", "Swin JSCC", "HEVC + LDPC", "DeepJSCC, pilots", "bound"]
    other = {label: colour for label, colour, *_ in plotstyle.looks(labels)}
    assert one["HEVC + LDPC"] == other["HEVC + LDPC"]
    assert one["Swin JSCC"] == other["Swin JSCC"]
    assert len(set(other.values())) == len(labels)


def test_schemes_differ_in_colour_and_marker_and_bounds_are_dashed() -> None:
    lines = list(drawn(plot_rows(rows()).axes[1]).values())
    assert (
        len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 3
    )
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--"]


@pytest.mark.parametrize(
    ("label", "dashed"),
    [("HEVC (bound)", True), ("Upper_Bounds", True), ("no_link", True), ("Shannon limit", True),
     ("limited feedback", False), ("boundary", False)],
)  # fmt: skip
def test_only_what_is_called_a_bound_is_drawn_as_one(label: str, dashed: bool) -> None:
    line = drawn(plot_rows(rows(transmitter=label)).axes[0])[label]
    assert (line.get_linestyle() == "--") is dashed


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_values_that_no_axis_holds_leave_a_figure(value: float, scale: str) -> None:
    nothing = rows(value=value, ci_low=value, ci_high=value, scale=scale)
    some = rows(scale=scale)
    some.loc[some["transmitter"] == "separate", ["value", "ci_low", "ci_high"]] = value
    for table in (nothing, some, rows(transmitter="", scale=scale)):
        limits = [ax.get_ylim() for ax in plot_rows(table).axes]
        assert np.isfinite(limits).all()


def test_theory_beside_a_link_without_noise_ends_at_the_last_snr() -> None:
    table = rows()
    table.loc[table["snr_db"] == 20, "snr_db"] = np.inf
    figure = plot_rows(table, theory={"capacity": lambda snr: 20 + snr})
    assert figure.axes[0].lines[-1].get_xdata()[-1] == 10


def test_what_makes_it_fair_stands_below() -> None:
    note = plot_rows(rows()).get_supxlabel()
    assert note == "bands: 95 % intervals; 24 items per point"
    mixed = pd.concat([rows(), rows(cbr=0.1, n=48)])
    figure = plot_rows(mixed)
    assert figure.get_supxlabel().endswith("24 to 48 items per point")
    assert figure.axes[0].get_title("right") == "CBR 0.0625 to 0.1"
    few = plot_rows(rows(n=5, few_items=True)).get_supxlabel()
    assert few == "bands: 95 % intervals; 5 items per point; few items"


def test_error_rates_get_a_logarithmic_axis_and_zeros_do_not_break_it(tmp_path: Path) -> None:
    table = rows(metric="ber", unit="", label="Bit error rate", scale="log")
    table["value"] = [0.1, 0.01, 0.0] * 6
    table["ci_low"], table["ci_high"] = 0.0, table["value"] + 0.01
    figure = plot_rows(table, tmp_path / "ber.png", y="ber")
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_ylabel() == "Bit error rate"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_files_are_written_and_equal_each_time(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / "new folder" / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        plot_rows(rows(), path)
    assert paths[0].stat().st_size > 5000
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_any_column_serves_as_axis_and_words_as_well_as_numbers() -> None:
    table = rows()
    table["transmitter.attention"] = ["none", "se", "pfca"] * 6
    figure = plot_rows(table, x="transmitter.attention", by="snr_db", panel=None)
    assert figure.axes[0].get_xlabel() == "transmitter.attention"
    assert len(figure.axes) == 1 and legend(figure) == ["20.0", "10.0", "0.0"]


def test_theory_lies_beneath_dashed() -> None:
    figure = plot_rows(rows(), theory={"capacity": lambda snr: 20 + snr})
    curve = figure.axes[0].lines[-1]
    assert curve.get_linestyle() == "--" and "capacity" in legend(figure)
    assert np.allclose(curve.get_ydata(), 20 + curve.get_xdata())


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/a.csv", "ftp://x/y", "/dev/zero", "none.csv"])
def test_published_values_come_from_a_file_of_this_machine(path: str) -> None:
    with pytest.raises(ValueError, match="give a CSV file of this machine"):
        published(path, payload="kodak24")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'a"b\n"c', b"payload\n\n"])
def test_a_file_that_is_no_csv_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv"):
        published(tmp_path / "a.csv", payload="kodak24")


def test_published_values_lie_beneath_in_the_panel_of_their_channel(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(
        "# a comment\nsystem,payload,channel,cbr,snr_db,metric,value,mark,source\n"
        "A,kodak,awgn,0.0625,10,psnr,30,log,here\n"
        "B,kodak,rayleigh,0.0625,10,psnr,29,log,here\n"
        "B,kodak,awgn,0.125,10,psnr,35,log,here\n"
        "B,cifar10,awgn,0.0625,10,psnr,35,log,here\n"
    )
    reference = published(path, payload="kodak24", cbrs=[1 / 16])
    assert list(reference["system"]) == ["A", "B"]
    figure = plot_rows(rows(), reference=reference)
    assert legend(figure)[-2:] == ["A (published)", "B (published)"]
    points = [ax.lines[-1] for ax in figure.axes]
    assert [p.get_ydata().tolist() for p in points] == [[30], [29]]
    assert points[0].get_marker() != points[1].get_marker()
    awgn = rows(channel="AWGN")
    assert legend(plot_rows(awgn, reference=reference, panel=None))[-1] == "A (published)"
    assert "A (published)" not in legend(plot_rows(rows(channel="2x2"), reference=reference))


def test_published_values_lie_in_panels_of_their_payload_and_cbr_alone(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    head = "system,payload,channel,cbr,snr_db,metric,value\n"
    path.write_text(head + "A,kodak,awgn,0.0625,10,psnr,30\nA,kodak,awgn,0.167,10,psnr,35\n")
    reference = published(path, payload="kodak")
    wide = rows(channel="awgn", cbr=1 / 6)
    other = rows(channel="awgn", payload="cifar10")
    table = pd.concat([part.assign(panel=n) for n, part in enumerate((rows(), wide, other))])
    figure = plot_rows(table, panel="panel", reference=reference)
    beneath = [[list(v.get_ydata()) for k, v in drawn(ax).items() if "pub" in k]
               for ax in figure.axes]  # fmt: skip
    assert beneath == [[[30]], [[35]], []]


@pytest.mark.parametrize("row", ["A,kodak,awgn,1/6,10,psnr,30", "A,kodak,awgn,0.2,10,psnr,high"])
def test_published_values_that_are_no_numbers_are_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(f"system,payload,channel,cbr,snr_db,metric,value\n{row}\n")
    with pytest.raises(ValueError, match=r"'(1/6|high)' in column (cbr|value), which is no number"):
        published(path, payload="kodak", cbrs=[1 / 6])


def test_the_shipped_published_values_are_plausible() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "published.csv"
    kodak = published(path, payload="kodak", cbrs=[1 / 16])
    at_10 = kodak[(kodak["snr_db"] == 10) & (kodak["channel"] == "awgn")].set_index("system")[
        "value"
    ]
    assert at_10["DeepJSCC (CNN)"] == 31.5 and at_10["BPG + capacity"] == 34.65
    table = pd.read_csv(path, comment="#")
    psnr = table.loc[table["metric"] == "psnr", "value"]
    assert psnr.between(20, 41).all() and table["cbr"].between(0.01, 0.5).all()
    assert table.notna().all(axis=None) and set(table["mark"]) == {"log", "plot", "recomputed"}


def test_a_missing_column_or_metric_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'snr'; did you mean 'snr_db'"):
        plot_rows(rows(), x="snr")
    with pytest.raises(ValueError, match="no metric 'ssim'; there are psnr"):
        plot_rows(rows(), y="ssim")


def test_settings_of_the_user_stay_as_they_are() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_rows(rows())
    assert dict(matplotlib.rcParams) == before


def test_a_strip_shows_what_was_sent_and_received_with_its_psnr(tmp_path: Path) -> None:
    photo = Photos(["coffee"], resize=48)[0][0] * 0.8
    received = {0.0: photo + 0.1, 10.0: photo}
    figure = strip(photo, {"one": received, "two": received}, tmp_path / "strip.png")
    captions = [ax.get_xlabel() for ax in figure.axes if ax.images]
    assert captions.count("sent") == 1 and len(captions) == 5
    assert {"20.0 dB", "identical"} <= set(captions)
    assert {ax.get_title() for ax in figure.axes} >= {"SNR 0 dB", "SNR 10 dB"}
    assert {ax.get_ylabel() for ax in figure.axes} >= {"one", "two"}
    assert (tmp_path / "strip.png").stat().st_size > 5000


def test_a_strip_shows_other_words_and_another_original_where_given() -> None:
    image = torch.rand(3, 48, 48)
    pictures = {"a": {0.0: image, 5.0: image / 2}}
    figure = strip(image, pictures, captions={("a", 0.0): "iou 0.9"}, first="reference")
    captions = [ax.get_xlabel() for ax in figure.axes if ax.images]
    assert captions[:2] == ["reference", "iou 0.9"] and captions[2].endswith("dB")


@pytest.mark.parametrize("rows_of", [1, 2, 3, 4])
def test_a_strip_takes_any_number_of_schemes(rows_of: int) -> None:
    image = torch.rand(3, 8, 8)
    figure = strip(image, {f"s{i}": {0.0: image} for i in range(rows_of)})
    assert sum(bool(ax.images) for ax in figure.axes) == rows_of + 1


def test_a_strip_with_gaps_is_refused() -> None:
    image = torch.rand(3, 8, 8)
    with pytest.raises(ValueError, match="the same SNRs"):
        strip(image, {"a": {0.0: image}, "b": {5.0: image}})
    with pytest.raises(ValueError, match="got none"):
        strip(image, {})


@pytest.mark.parametrize("label", ["_base", "$x_$", "$", "a_$b", r"\frac{", "50 %"])
def test_a_label_is_drawn_as_it_is_written(label: str, tmp_path: Path) -> None:
    table = rows().replace({"transmitter": {"deepjscc": label}})
    figure = plot_rows(table, tmp_path / "labels.png")
    drawn = {text.replace(r"\$", "$").strip() for text in legend(figure)}
    assert label in drawn


def test_a_long_title_is_broken_into_lines_that_fit() -> None:
    figure = plot_rows(rows())
    write(figure, None, "one word after another " * 12)
    head, width = figure.legends[0].get_title(), figure.bbox.width
    figure.draw_without_rendering()
    assert head.get_text().count("\n") > 0 and head.get_window_extent().width <= width
    panels = max(ax.get_tightbbox().y1 for ax in figure.axes)  # heads of panels included
    assert figure.legends[0].get_window_extent().y0 >= panels


def test_letters_that_no_font_has_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotstyle, "FALLBACKS", ())
    table = rows().replace({"transmitter": {"deepjscc": "\u7f16\u7801"}})
    with pytest.warns(UserWarning, match="no font of this machine has all letters") as told:
        plot_rows(table, tmp_path / "letters.png")
    assert len(told) == 1
