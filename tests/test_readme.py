"""Every block of the README and of the docs runs; links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from channels import AWGN
from semsim import Link, evaluate
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.comparison.differences import DIFFERENCE
from semsim.payloads.bits import Bits
from semsim.results import COLUMNS
from semsim.tables import FAMILIES

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


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_heading_find_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https:)([^)#]*)#([^)]+)\)", page.read_text()):
        assert anchor in anchors(page.parent / target if target else page), anchor


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_parts_holds_every_kind(family: str) -> None:
    table = (ROOT / "docs" / "parts.md").read_text().split("\n## ")[0]
    missing = [kind for kind in FAMILIES[family] if f"`{kind}`" not in table]
    assert not missing, f"write {missing} into the table of docs/parts.md, at {family}"


def benchmark_commands() -> dict[str, str]:
    """Return each benchmark command of pages, scenarios, results and cards, with where it is.

    Those of scripts that are gone say as of which commit they ran, and are left out.
    """
    found: dict[str, str] = {}
    others = [*(ROOT / "scenarios").rglob("*.yaml"), *(ROOT / "semsim").rglob("*.json"),
              *(ROOT / "benchmarks" / "results").glob("*.md")]  # fmt: skip
    called = r'python (benchmarks/\w+\.py(?! \(as of commit)[^`\n#";]*)'
    for page in [*PAGES, *sorted(others)]:
        for command in re.findall(called, page.read_text()):
            found.setdefault(command.strip(), page.name)
    return found


@pytest.mark.parametrize("command", benchmark_commands())
def test_a_benchmark_takes_the_options_that_its_command_gives(command: str) -> None:
    script, *words = command.split()
    code = (ROOT / script).read_text()
    given = {word for word in words if word.startswith("--")}
    assert given <= set(re.findall(r'"(--[\w-]+)"', code)), "an option that it does not have"
    arguments = re.findall(r"add_argument\((.*?)\)\n", code, re.S)
    asked = [text.split('"')[1] for text in arguments if "required=True" in text]
    assert set(asked) <= given, "an option that it asks for is missing"
    places = [text for text in arguments if not text.lstrip().startswith('"--')]
    if any("nargs" not in text for text in places):
        assert words and not words[0].startswith("--"), "it asks what to do"


def test_the_page_of_concepts_explains_every_column_of_rows() -> None:
    text = (ROOT / "docs/concepts.md").read_text().split("## Rows")[1]
    link = Link(UncodedTransmitter(2), AWGN(), UncodedReceiver(2))
    (row,) = evaluate(link, Bits(2, 64), snr_db=[0], metrics=["ber"])
    for column in {*COLUMNS, *DIFFERENCE, *row}:
        assert f"`{column}`" in text, column


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
