"""The shape of the code: how long a function is and how much it asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import channels
import semsim

ROOTS = [Path(package.__file__).parent for package in (semsim, channels)]
LINES, ARGUMENTS = 40, 8
BY_HAND = ("semsim/evaluation.py", "semsim/training/loop.py")  #: constructors that no YAML fills


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function with where it stands."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    yield f"{path.relative_to(root.parent)}:{node.lineno} {node.name}", node


def is_schema(where: str, function: ast.FunctionDef) -> bool:
    """Tell whether the arguments are read from outside: of a YAML kind, a command, a kernel."""
    marks = {ast.unparse(mark).partition("(")[0] for mark in function.decorator_list}
    kind = function.name == "__init__" and not where.startswith(BY_HAND)
    return kind or bool(marks & {"app.command", "triton.jit"})


def statements(function: ast.FunctionDef) -> int:
    """Return the lines of a function's body without its docstring."""
    body = function.body[bool(ast.get_docstring(function)) :]
    return 1 + (body[-1].end_lineno or 0) - body[0].lineno if body else 0


def test_no_function_is_longer_than_a_screen() -> None:
    assert not [(where, statements(f)) for where, f in functions() if statements(f) > LINES]


def test_only_schemas_take_more_than_eight_arguments() -> None:
    def count(function: ast.FunctionDef) -> int:
        taken = function.args
        names = [a.arg for a in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
        return len(names) - (names[:1] in (["self"], ["cls"]))

    assert not [(where, count(f)) for where, f in functions()
                if not is_schema(where, f) and count(f) > ARGUMENTS]  # fmt: skip
