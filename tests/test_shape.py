"""The shape of the code: how long a function is and how much it asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import channels
import semsim
from semsim.tables import FAMILIES

ROOTS = [Path(package.__file__).parent for package in (semsim, channels)]
LINES, ARGUMENTS = 40, 8
KINDS = {tuple(place.split(":")) for table in FAMILIES.values() for place in table.values()}
#: constructors that no table names, but whose arguments come from outside as well
SCHEMAS = {
    ("semsim.codecs.swin_jscc", "_Codec"),  # of both ends
    ("semsim.csi.model", "WirelessGPT"),  # weights hold its arguments
}


class Function(NamedTuple):
    """A function and where it stands."""

    module: str
    owner: str  #: the class that it belongs to, or nothing
    node: ast.FunctionDef | ast.AsyncFunctionDef

    def __str__(self) -> str:
        return f"{self.module}:{self.owner}.{self.node.name}, line {self.node.lineno}"

    def is_schema(self) -> bool:
        """Tell whether all is given from outside: by a YAML kind, a command, a kernel's caller."""
        marks = {ast.unparse(mark).partition("(")[0] for mark in self.node.decorator_list}
        kind = any(
            self.owner == owner and f"{self.module}.".startswith(f"{room}.")
            for room, owner in KINDS | SCHEMAS
        )
        is_command = bool(marks & {"app.command", "triton.jit"})
        return is_command or (self.node.name == "__init__" and kind)

    def lines(self) -> int:
        """Return the lines of the body without its docstring."""
        body = self.node.body[bool(ast.get_docstring(self.node)) :]
        return 1 + (body[-1].end_lineno or 0) - body[0].lineno if body else 0

    def arguments(self) -> int:
        """Return how many arguments it takes, beside its object."""
        taken = self.node.args
        names = [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
        return len(names) - (names[:1] in (["self"], ["cls"]))


def functions() -> Iterator[Function]:
    """Yield every function of the packages."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
            tree = ast.parse(path.read_text())
            owners = {
                inner: node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ClassDef)
                for inner in node.body
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield Function(module, owners.get(node, ""), node)


def test_no_function_is_longer_than_a_screen() -> None:
    assert not [f"{f}: {f.lines()}" for f in functions() if f.lines() > LINES]


def test_only_schemas_take_more_than_eight_arguments() -> None:
    many = [f for f in functions() if f.arguments() > ARGUMENTS and not f.is_schema()]
    assert not [f"{f}: {f.arguments()}" for f in many]
