"""The HTML report stands alone and shows what it is given."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch

from semsim.plots.drawing import strip
from semsim.plots.report import write_report

ROWS = pd.DataFrame(
    {
        "transmitter": ["<b>evil</b>", "plain"],
        "snr_db": [0.0, 10.0],
        "metric": "psnr",
        "value": [25.1234, 30.0],
        "ci_low": [24.0, 29.0],
        "ci_high": [26.0, 31.0],
        "unit": "dB",
        "n": [24, 5],
        "few_items": [False, True],
    }
)


class Tags(HTMLParser):
    """Collects opening tags and checks that all are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_is_one_well_formed_file_without_links(tmp_path: Path) -> None:
    image = torch.rand(3, 8, 8)
    strip(image, {"a": {0.0: image}}, tmp_path / "strip.png")
    provenance = {"versions": {"torch": "2"}, "command": "semsim run <file>"}
    path = write_report(
        ROWS,
        tmp_path / "out" / "report.html",
        title="A & B",
        figures=[tmp_path / "strip.png"],
        provenance=provenance,
    )
    text = path.read_text()
    parser = Tags()
    parser.feed(text)
    assert not parser.open
    assert "25.12 -1.1/+0.88<" in text and "30 ± 1, few items<" in text
    pictures = [attrs["src"] for tag, attrs in parser.seen if tag == "img"]
    assert len(pictures) == 1 and str(pictures[0]).startswith("data:image/png;base64,")
    assert not [tag for tag, _ in parser.seen if tag in ("script", "link", "a")]
    assert "A &amp; B" in text and "&lt;b&gt;evil" in text and "semsim run &lt;file&gt;" in text
    assert "<h3>psnr (dB)</h3>" in text and "<th>10 dB</th>" in text


def test_a_figure_that_no_browser_shows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tiff cannot be shown"):
        write_report(ROWS, tmp_path / "r.html", title="t", figures=["a.tiff"])


@pytest.mark.parametrize(
    "out", ["--out /home/me/results", "--out=/home/me/results", "--out=~/results"]
)
def test_a_report_names_no_folder_of_this_machine(tmp_path: Path, out: str) -> None:
    provenance = {"command": f"semsim run /home/me/mine.yaml {out}"}
    path = write_report(ROWS, tmp_path / "report.html", title="A", provenance=provenance)
    text = path.read_text()
    assert f"semsim run mine.yaml {out[:5]}" in text
    assert "/home" not in text and "~" not in text


def test_a_report_calls_few_lost_items_few_and_not_none(tmp_path: Path) -> None:
    rows = ROWS.assign(decoded=[0.999, 1.0])
    text = write_report(rows, tmp_path / "report.html", title="A").read_text()
    assert "&lt;1% lost<" in text and text.count(" lost<") == 1
