"""Say what is wrong in a scenario: the dotted path of the key, the rule, and what to write."""

from __future__ import annotations

import difflib
import errno
import traceback
import types
import typing
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, PlainValidator

T = TypeVar("T")
FRACTION = " (a fraction such as 1/12 will do)"
#: by the last word of a key: in what it counts
UNITS = {"s": "s", "hz": "Hz", "mps": "m/s", "m": "m", "db": "dB"}
IN_SWEEP = "in the sweep, at"  #: before the swept values at which a mistake shows


class SpecError(ValueError):
    """What is wrong in a scenario: the dotted path of the key, a sentence, and file and line."""

    def __init__(self, path: str, message: str, where: str = "") -> None:
        path, message, where = map(printable, (path, message, where))
        text = f"{path}: {message}" if path else message
        super().__init__(f"{text} ({where})" if where else text)
        self.path, self.message, self.where = path, message, where

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process."""
        return SpecError, (self.path, self.message, self.where)

    def under(self, *prefix: str | int) -> SpecError:
        """Return the same error as seen from further out."""
        return SpecError(join_path(*prefix, self.path), self.message, self.where)

    def at(self, where: str) -> SpecError:
        """Return the same error with the place in a file where its key stands."""
        return SpecError(self.path, self.message, where)


def join_path(*parts: str | int) -> str:
    """Return ``a.b[1].c`` for ("a", "b", 1, "c"); empty parts vanish."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part:
            path += ("." if path and not part.startswith("[") else "") + part
    return path


def root_of(path: str) -> str:
    """Return ``a`` of ``a.b[1].c``."""
    return path.partition(".")[0].partition("[")[0]


def closest(names: Iterable[str], given: object) -> str | None:
    """Return the name that is like a mistyped one, in upper or lower case; None without any."""
    return next(iter(_likest(names, given)), None)


def _likest(names: Iterable[str], given: object) -> list[str]:
    """Return the names that are most like a mistyped one; several where they are equally like."""
    word, folded = str(given).casefold(), {str(name).casefold(): name for name in names}
    close = difflib.get_close_matches(word, folded)
    likeness = [difflib.SequenceMatcher(None, name, word).ratio() for name in close]
    return [folded[name] for name, r in zip(close, likeness, strict=True) if r == likeness[0]]


def known(names: Iterable[str], given: object) -> str:
    """Return "did you mean 'x'? Known: x, y." for a name that is not among ``names``.

    It goes on behind a semicolon.
    """
    names = list(names)
    close = " or ".join(map(repr, _likest(names, given)))
    hint = f"did you mean {close}? Known" if close else "known"
    shown = [f"{name!r}" if ", " in str(name) else str(name) for name in names]
    return f"{hint}: {', '.join(shown) or 'none'}."


def one_of(choices: tuple[T, ...], given: object, option: str) -> T:
    """Return the choice that was given; a mistake names the option."""
    for choice in choices:
        if choice == given:
            return choice
    raise ValueError(f"{option} {given!r} is not one of {', '.join(map(str, choices))}")


def check_choices(settings: object) -> None:
    """Raise ValueError where a field of a value object holds none of the words that it may."""
    for name, hint in typing.get_type_hints(type(settings)).items():
        many = typing.get_origin(hint) is tuple
        choice = typing.get_args(hint)[0] if many else hint
        if typing.get_origin(choice) is Literal:
            given = getattr(settings, name)
            for value in given if many else (given,):
                one_of(typing.get_args(choice), str(value), name)


def cause_of(mistake: Any) -> Exception | None:
    """Return the exception behind one of pydantic's mistakes."""
    return mistake.get("ctx", {}).get("error")


def explain(model: type[BaseModel], mistake: Any, value: object) -> SpecError:
    """Turn pydantic's account of one mistake in a value into a path and a sentence."""
    key = str(mistake["loc"][0]) if mistake["loc"] else ""
    indices = [i for i in mistake["loc"][1:] if isinstance(i, int)]
    cause = cause_of(mistake)
    if isinstance(cause, SpecError):
        places = [p for p in mistake["loc"] if isinstance(p, int) or p in model.model_fields]
        return cause.under(*places)
    kind = model.model_fields.get("kind")
    owner = f"for kind {kind.default!r}" if kind else ""
    if mistake["type"] == "extra_forbidden":
        names = [n for n in model.model_fields if n != "kind"]
        hint = _nested(key) if root_of(key) in names else known(names, key)
        return SpecError(key, f"no such key {owner}".rstrip() + f"; {hint}")
    field = model.model_fields.get(key)
    if field is None:
        return SpecError(key, mistake["msg"])
    wanted = describe(field.annotation, field.metadata)
    absent = mistake["type"] == "missing"
    if absent and len(mistake["loc"]) == 1:
        return SpecError(key, f"missing; it must be {wanted}")
    rule = _RULES.get(mistake["type"], "").format(**mistake.get("ctx", {}))
    got = value[key] if isinstance(value, Mapping) and key in value else mistake["input"]
    text = f"must be {wanted}{rule}, got {got!r}"
    if got is None and isinstance(field.default, str | int | float):
        text += f"; write {key}: {field.default}, or leave it out"
    text += _as_number(key, wanted, got)
    return SpecError(join_path(key, *([] if absent else indices)), text)


def _nested(key: str) -> str:
    """Say how a dotted key is written outside ``sweep``."""
    *outer, last = key.split(".")
    inner = f"{last}: ..."
    for part in reversed(outer):
        inner = f"{part}: {{{inner}}}"
    return f"dotted keys stand in sweep; here write {inner}"


def _as_number(key: str, wanted: str, got: object) -> str:
    """Say how a number is written that came with its unit, or a whole one as a fraction."""
    if isinstance(got, float) and got.is_integer() and "an integer" in wanted:
        return f"; write {got:.0f}"
    unit = UNITS.get(key.rpartition("_")[2]) if "_" in key else None
    bare = isinstance(got, str) and unit and "a number" in wanted
    return f"; write the number alone, in {unit}" if bare else ""


_RULES = {
    "greater_than_equal": " of at least {ge}",
    "less_than_equal": " of at most {le}",
    "string_pattern_mismatch": " of letters, digits, dots, - and _ that starts with a letter or a "
    "digit",
}  #: by pydantic's name of the mistake: what else the type of a field asks for


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words what a field takes."""
    words = {bool: "true or false", int: "an integer", str: "a word", type(None): "null"}
    if annotation in words:
        return words[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float:
        return f"a number{FRACTION}"
    if origin is Annotated:
        return describe(arguments[0], arguments[1:])
    if origin is Literal:
        return " or ".join(repr(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is list:
        return f"a list, each {describe(arguments[0])}"
    if origin is tuple:
        inner = [describe(a) for a in arguments if a is not ...]
        return f"a list, each {inner[0]}" if ... in arguments else f"a list: {', '.join(inner)}"
    if origin is dict:
        return f"a mapping, each {describe(arguments[1])}"
    if any(isinstance(m, PlainValidator) for m in metadata):
        return "a part, {kind: NAME, ...}"
    return getattr(annotation, "__name__", str(annotation))


def blame_argument(names: Container[str], text: str) -> SpecError:
    """Return the complaint of a constructor at the argument that its first word names, if any."""
    first, _, rest = text.partition(" ")
    name = first.strip("'\"`,:")
    return SpecError(name, rest) if rest and name in names else SpecError("", text)


def unforeseen(error: Exception) -> str:
    """Return an exception that nobody meant for users: its type, its text, where it came from."""
    if isinstance(error, SyntaxError):  # its text names file and line
        return f"{type(error).__name__}: {error}"
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(at.filename).name}:{at.lineno}, in {at.name}"
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({where})"


def printable(text: str) -> str:
    """Return a text that any screen or file takes: a name that is no UTF-8 gets question marks."""
    return text.encode("utf-8", "replace").decode()


def looked_in(path: str | Path) -> str:
    """Say in which folder a relative path that leads nowhere was looked for; else nothing."""
    return "" if Path(path).is_absolute() else printable(f" (looked in {Path.cwd()})")


def sentence(error: Exception) -> str:
    """Return an exception's text as one line."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        at = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{at}; what was done is kept: make room, and run the same again"
    if isinstance(error, FileNotFoundError) and error.filename:
        return printable(f"no such file or folder: {error.filename}") + looked_in(error.filename)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return printable(f"{error.filename} cannot be used: {error.strerror.lower()}")
    return text or type(error).__name__
