"""Importing costs torch and nothing more, layers point down, and the vision folder is deletable."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semsim import tables

ROOT = Path(__file__).parents[1]
HEAVY = [
    "sionna", "matplotlib", "lightning", "pandas", "skimage", "pillow_heif", "tensorflow", "keras",
]  # fmt: skip


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "modules",
    [
        "semsim",
        "semsim.link, semsim.evaluation, semsim.codecs.deepjscc",
        "channels, channels.fading",
    ],
)
def test_heavy_packages_are_not_loaded_on_import(modules: str) -> None:
    loaded = run_python(f"import sys, {modules}; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "[]"


def test_channels_know_nothing_of_semsim() -> None:
    code = "import sys, channels, channels.ofdm, channels.cascade; print('semsim' in sys.modules)"
    assert run_python(code) == "False"


def test_every_exported_name_resolves() -> None:
    code = (
        "import semsim, channels\n"
        "for package in (semsim, channels):\n"
        "    for name in package.__all__: assert callable(getattr(package, name)), name\n"
        "print('ok')"
    )
    assert run_python(code) == "ok"


def test_the_core_does_not_import_vision() -> None:
    sources = [p for p in (ROOT / "semsim").rglob("*.py") if "vision" not in p.parts]
    naming = [p.name for p in sources if "semsim.vision" in p.read_text() and p.name != "tables.py"]
    assert naming == []


def test_semsim_works_without_its_vision_folder(tmp_path: Path) -> None:
    for package in ("semsim", "channels"):
        without = shutil.ignore_patterns("vision", "weights", "__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without)
    code = (
        "from semsim import tables; from semsim.scenario import listing\n"
        "assert not any('vision' in row for t in tables.FAMILIES.values() for row in t.values())\n"
        "print(len(list(listing.lines('task'))), 'lowlight' in str(listing.json_schema()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    tasks = sum(".vision." not in row for row in tables.TASKS.values())
    assert done.stdout.split() == [str(tasks), "False"], done.stderr
