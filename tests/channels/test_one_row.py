"""A new channel is one file and one row: then it has a kind, a name, and the family's tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKAGE = '''"""A path that something blocks now and then."""

import torch

from channels.base import ChannelState
from channels.checks import check_draw
from channels.gain import GainChannel
from channels.streams import uniform_by_use


class Blockage(GainChannel):
    """A share of the blocks of 2 uses loses all but a hundredth of its power."""

    num_tx = num_rx = 1

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    @classmethod
    def example(cls) -> "Blockage":
        return cls(0.2)

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        check_draw(batch, uses)
        draws = uniform_by_use((batch,), -(-uses // 2), generator)
        power = torch.where(draws < self.share, 0.01, 1.0) / (1 - 0.99 * self.share)
        h = power.sqrt().repeat_interleave(2, dim=1)[:, None, None, :uses]
        return ChannelState(h.to(torch.complex64), min(2, uses))
'''


@pytest.mark.slow
def test_one_file_and_one_row_make_a_channel(tmp_path: Path) -> None:
    without = shutil.ignore_patterns("vision", "weights", "__pycache__")
    for package in ("semsim", "channels"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).with_name("test_family.py"), tmp_path / "tests")
    (tmp_path / "channels" / "blockage.py").write_text(BLOCKAGE)
    table = tmp_path / "channels" / "tables.py"
    row = '    "blockage": "channels.blockage:Blockage",\n    "awgn"'
    table.write_text(table.read_text().replace('    "awgn"', row, 1))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    code = "from channels import Blockage; from semsim import spec; print(spec.build(spec.parse("
    code += "'channel', {'kind': 'blockage', 'share': 0.1})).share == Blockage(0.1).share)"
    assert run("-c", code).strip() == "True"
    said = run("-m", "pytest", "-o", "addopts=--import-mode=importlib", "-k", "blockage", "tests")
    assert re.search(r"1[5-9] passed", said)
