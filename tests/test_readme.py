"""Every block of the README and of the docs runs; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)
]


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_first_commands_are_make_demo_and_make_test() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("bash")[0].strip().splitlines()]
    assert commands[:2] == ["make demo", "make test"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "test"} <= set(targets)


@pytest.mark.parametrize(
    "code", blocks("python"), ids=lambda code: code.strip().splitlines()[-1][:40]
)
def test_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.strip().splitlines()[0][:40])
def test_yaml_block_passes_check(text: str, tmp_path: Path) -> None:
    from semsim.cli import app

    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0, result.output


def semsim_commands() -> list[str]:
    lines = "\n".join(blocks("bash")).splitlines()
    found = [line.split("#")[0].strip() for line in lines if line.startswith("semsim ")]
    return list(dict.fromkeys(found))


@pytest.mark.slow
@pytest.mark.parametrize("command", semsim_commands())
def test_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semsim.cli import app

    monkeypatch.chdir(ROOT)
    words = shlex.split(command)[1:]
    if words[0] in ("run", "train"):
        words += ["--quick", "--out", str(tmp_path / "out")]
    if words[0] in ("plot", "compare", "table"):
        pytest.skip("needs the results of the command above it; the CLI tests run it")
    if words[0] == "schema":
        words = ["schema", "--out", str(tmp_path / "schema.json")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
