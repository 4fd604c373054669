"""The package as people get it: its name, what the wheel holds, and that it runs from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXTS = ("*.py", "*.md", "*.toml", "*.yaml", "*.cff", "Makefile")
SCENARIO = """
payload: {kind: bits, count: 4, length: 64}
transmitter: {kind: uncoded}
channel: {kind: rayleigh}
metrics: [ber]
snr_db: [0]
"""


def tracked() -> list[Path]:
    folders = [ROOT / name for name in ("semsim", "channels", "docs", "examples", "scenarios")]
    folders += [ROOT / "benchmarks", ROOT / "tests"]
    found = [path for folder in folders for text in TEXTS for path in folder.rglob(text)]
    return [*found, *(path for text in TEXTS for path in ROOT.glob(text))]


def test_no_text_tells_anyone_to_install_a_project_of_another() -> None:
    foreign = re.compile(r"pip install\s+[^\n]*?[\"' ](semsim|channels)(?![\w-])")
    own = re.compile(r"\b(semsim|channels)\[[a-z,]+\]")
    for path in tracked():
        text = path.read_text(encoding="utf-8")
        wrong = [m[0] for pattern in (foreign, own) for m in pattern.finditer(text)]
        assert not wrong or path == Path(__file__), f"{path}: {wrong}"


def test_the_name_is_not_that_of_another_project_and_extras_refer_to_it() -> None:
    assert PROJECT["name"] not in ("semsim", "channels")
    for needs in PROJECT["optional-dependencies"].values():
        for need in needs:
            if need.startswith("semsim"):
                assert need.startswith(f"{PROJECT['name']}[")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both archives from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("build")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("needs a git checkout, to build from tracked files alone")
    for name in filter(None, listing.stdout.split("\0")):
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(ROOT / name)
    code = (
        "from setuptools import build_meta\n"
        f"print(build_meta.build_sdist({str(folder)!r}), build_meta.build_wheel({str(folder)!r}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_wheel_works_from_an_empty_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.startswith("semsim_wireless-")
    assert wheel.stat().st_size < 100 * 2**20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    assert {"semsim/py.typed", "channels/py.typed", "semsim/phy/bler_counts.csv"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "semsim", "channels",
    }  # fmt: skip
    (tmp_path / "bits.yaml").write_text(SCENARIO)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "import semsim; assert 'installed' in semsim.__file__\n"
        "from semsim.cli import app; app(['run', 'bits.yaml'])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "bits" / "rows.csv").is_file()


@pytest.mark.slow
def test_the_source_archive_holds_what_a_wheel_is_made_of(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    needed = {"pyproject.toml", "LICENSE", "README.md", "semsim/cli.py", "channels/py.typed"}
    assert needed <= names
    assert {f"semsim/weights/{path.name}" for path in ROOT.glob("semsim/weights/*")} <= names
