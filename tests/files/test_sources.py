"""An edited part of the user's is imported anew, and results are kept under what was imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from semsim.files import outside, sources
from semsim.mistakes import SpecError
from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run

CHANNEL = """
from channels import AWGN
{imports}

class Channel(AWGN):
    def forward(self, x, state, n0, generator):
        return super().forward({factor} * x, state, n0, generator)
"""
VALUES = {
    "name": "mine",
    "payload": {"kind": "bits", "count": 4, "length": 512},
    "transmitter": "uncoded",
    "channel": {"kind": "mine:Channel"},
    "metrics": ["ber"],
    "snr_db": [6],
}
FRESH = "import sys; from semsim.sweep.sweep import run; rows = run(sys.argv[1], sys.argv[2]); "
PRINT = "print(rows['value'].iloc[0], rows['uid'].iloc[0])"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("mine", "helper", "lab", "lab.parts", "lab.sizes"):
        sys.modules.pop(name, None)
        sources._known.pop(name, None)


def write(factor: object, imports: str = "") -> None:
    Path("mine.py").write_text(CHANNEL.format(factor=factor, imports=imports))


def ber(folder: str = "out") -> float:
    return float(run(Scenario.parse(VALUES), folder)["value"].iloc[0])


def in_a_new_process(folder: str) -> tuple[float, str]:
    Path("mine.yaml").write_text(
        "payload: {kind: bits, count: 4, length: 512}\ntransmitter: uncoded\n"
        "channel: {kind: mine:Channel}\nmetrics: [ber]\nsnr_db: [6]\nname: mine\n"
    )
    command = [sys.executable, "-c", FRESH + PRINT, "mine.yaml", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    value, uid = done.stdout.split()[-2:]
    return float(value), uid


def test_an_edited_part_is_measured_anew_and_a_new_process_agrees() -> None:
    write("1.0")
    sound = ber()
    write("-1.")  # as long, and in the same second
    assert ber() > 0.9 > 0.1 > sound
    assert in_a_new_process("out") == in_a_new_process("elsewhere")
    write("1.0")
    assert ber() == sound


@pytest.mark.parametrize("imports", ["from helper import FACTOR", "import helper"])
def test_a_module_that_the_part_imports_counts_too(imports: str) -> None:
    write("FACTOR" if "from" in imports else "helper.FACTOR", imports)
    Path("helper.py").write_text("FACTOR = 1.0\n")
    sound = ber()
    Path("helper.py").write_text("FACTOR = -1.\n")
    assert ber() > 0.9 > 0.1 > sound
    assert in_a_new_process("out")[0] > 0.9


def test_a_package_counts_with_its_modules() -> None:
    Path("lab").mkdir()
    Path("lab/__init__.py").write_text("")
    Path("lab/sizes.py").write_text("FACTOR = 1.0\n")
    text = CHANNEL.format(factor="FACTOR", imports="from .sizes import FACTOR")
    Path("lab/parts.py").write_text(text)
    values = {**VALUES, "channel": {"kind": "lab.parts:Channel"}}
    one = Scenario.parse(values).uid()
    Path("lab/sizes.py").write_text("FACTOR = -1.\n")
    other = Scenario.parse(values)
    assert other.uid() != one
    assert sys.modules["lab.parts"].FACTOR == -1


def test_an_edit_in_the_middle_of_a_run_waits_for_the_next_one() -> None:
    write("1.0")
    both = {**VALUES, "snr_db": [6], "sweep": {"seed": [1, 2]}}
    rows = run(Scenario.parse(both), "out", listener=lambda progress: write("-1."))
    assert max(rows["value"]) < 0.1
    again = run(Scenario.parse(both), "out")
    assert min(again["value"]) > 0.9
    assert not set(again["uid"]) & set(rows["uid"])


def test_a_module_that_was_imported_by_others_before_its_edit_is_read_again() -> None:
    write("1.0")
    __import__("mine")
    write("-1.")
    assert ber() > 0.9


def test_what_was_imported_once_is_still_refused_when_closed() -> None:
    write("1.0")
    Scenario.parse(VALUES)
    with outside.only_tables(), pytest.raises(SpecError, match="--closed refuses"):
        Scenario.parse(VALUES)


def test_installed_modules_and_semsims_own_are_left_alone() -> None:
    import torch

    sources.refresh()
    assert sys.modules["torch"] is torch
    assert sources.hash_of("torch") is not None
    assert sources._file_of("torch.nn") is None and sources._file_of("semsim.link") is None
    assert sources._file_of("tensorflow.keras") is None
