"""Read YAML as data and nothing else: no duplicate keys, no tags, no bombs; errors say the line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semsim.mistakes import IN_SWEEP, SpecError, closest

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  #: after aliases are followed: a few lines of nested aliases can mean billions
MAX_DEPTH = 50


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML 1.2 file; :class:`SpecError` where it is anything else."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the text of a scenario file."""
    try:
        if path.is_dir():
            raise SpecError("", f"{path} is a folder; give a scenario file (.yaml)")
        if path.exists() and not path.is_file():
            raise SpecError("", f"{path} is a device or a pipe; give a scenario file (.yaml)")
        if path.stat().st_size > MAX_BYTES:
            raise SpecError("", f"{path} is larger than 1 MiB; a scenario is a page of text")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("", f"no such file: {path}{_close(path)}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError("", f"{path} cannot be read: {reason}") from None


def parse_yaml(text: str, name: str = "the scenario") -> dict[str, Any]:
    """Return the mapping that YAML text holds; ``name`` is what errors call it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="safe", pure=True)
    try:
        _measure(reader.parse(text), name)
        value = YAML(typ="safe", pure=True).load(text)
    except SpecError:
        raise
    except DuplicateKeyError as error:
        line, key = error.problem_mark.line + 1, str(error.problem).split('"')[1]
        raise SpecError(key, "appears twice; keep one", f"{name}, line {line}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError("", f"{name}{where}: not valid YAML: {error.problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpecError("", f"{name}: not valid YAML: {reason}") from None
    if not isinstance(value, dict):
        raise SpecError(
            "",
            f"{name} must be a mapping with keys such as name, payload and channel, got "
            f"{'nothing' if value is None else type(value).__name__}",
        )
    _check_plain(value)
    return value


@contextlib.contextmanager
def located(path: Path | None) -> Iterator[None]:
    """Add file and line to each mistake in a scenario that is told within, where they are known."""
    try:
        yield
    except SpecError as error:
        told = error.message.startswith((str(path), "--"))  # of the file, or of an option
        if path is None or error.where or told or not path.is_file():
            raise
        key, swept = error.path, IN_SWEEP in error.message
        line = line_of(read_text(path), key, swept=swept) if key else None
        at = f"{path}, line {line}" if line is not None else str(path)
        raise error.at(at) from error.__cause__


def line_of(text: str, key: str, *, swept: bool = False) -> int | None:
    """Return the line on which a dotted key of YAML text stands, or else the nearest above it.

    A key of a point of a sweep is looked for below ``sweep`` as well, and first where ``swept``.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lines = _measure(YAML(typ="safe", pure=True).parse(text), "").lines
    except (YAMLError, ValueError):
        return None
    above = [key]
    while key:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
        above.append(key)
    within = [f"sweep.{place}" for place in above[:-1]]
    places = [*within, *above] if swept else [*above[:1], *within[:1], *above]
    return next((lines[place] for place in places if place in lines), None)


@dataclass
class _Open:
    """A mapping or sequence that has begun and not yet ended."""

    path: str
    is_mapping: bool
    anchor: str | None
    size: int = 1  # values in it, aliases followed
    key: str | None = None  # of the value that comes next, in a mapping
    index: int = 0

    def place_of_next(self) -> str:
        """Return the path of the value that comes next."""
        if not self.is_mapping:
            return f"{self.path}[{self.index}]"
        return f"{self.path}.{self.key}" if self.path else str(self.key)


@dataclass
class _Measured:
    """What a pass over YAML's events found out."""

    sizes: dict[str, int] = field(default_factory=dict)  # values behind each anchor
    lines: dict[str, int] = field(default_factory=dict)  # of each key and item, from 1


def _measure(events: Iterator[Any], name: str) -> _Measured:
    """Go through the events without building anything; refuse what would grow out of hand."""
    from ruamel.yaml import events as kinds

    found, stack = _Measured(), list[_Open]()
    for event in events:
        size, anchor = 1, getattr(event, "anchor", None)
        if isinstance(event, kinds.AliasEvent):
            size = _behind(found, stack, event, name)
        elif isinstance(event, kinds.MappingStartEvent | kinds.SequenceStartEvent):
            place = _note(found, stack, event)
            stack.append(_Open(place, isinstance(event, kinds.MappingStartEvent), anchor))
            if len(stack) > MAX_DEPTH:
                raise SpecError("", f"{name}: nests deeper than {MAX_DEPTH}; {_PAGE}")
            continue
        elif isinstance(event, kinds.MappingEndEvent | kinds.SequenceEndEvent):
            done = stack.pop()
            size, anchor = done.size, done.anchor
        elif isinstance(event, kinds.ScalarEvent):
            _note(found, stack, event)
        else:
            continue
        if anchor and not isinstance(event, kinds.AliasEvent):
            found.sizes[anchor] = size
        if size > MAX_VALUES or (stack and _grown(stack[-1], size) > MAX_VALUES):
            raise SpecError(
                "", f"{name} unfolds to more than {MAX_VALUES:,} values; use no aliases"
            )
    return found


_PAGE = "a scenario is a page of text"


def _behind(found: _Measured, stack: list[_Open], event: Any, name: str) -> int:
    """Return how many values an alias stands for; one may not stand within itself."""
    _note(found, stack, event)
    if any(part.anchor == event.anchor for part in stack):
        line = event.start_mark.line + 1
        raise SpecError("", f"{name}, line {line}: *{event.anchor} stands within itself")
    return found.sizes.get(event.anchor, 1)


def _note(found: _Measured, stack: list[_Open], event: Any) -> str:
    """Note the line of a value, or take a mapping's next key; return the value's path."""
    if not stack:
        return ""
    parent = stack[-1]
    if parent.is_mapping and parent.key is None:
        parent.key = str(getattr(event, "value", ""))
        found.lines.setdefault(parent.place_of_next(), event.start_mark.line + 1)
        return parent.place_of_next()
    place = parent.place_of_next()
    found.lines.setdefault(place, event.start_mark.line + 1)
    parent.index += 1
    parent.key = None
    return place


def _grown(part: _Open, size: int) -> int:
    part.size += size
    return part.size


def _check_plain(root: object) -> None:
    """Refuse what JSON could not hold."""
    stack = [("", root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise SpecError(path, f"keys are words, got {key!r}; put it in quotes")
                stack.append((f"{path}.{key}" if path else key, item))
        elif isinstance(value, list):
            stack.extend((f"{path}[{i}]", item) for i, item in enumerate(value))
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            raise SpecError(path, f"{_shown(value)} is beyond what 64 bits hold, 2^63 - 1")
        elif value is not None and not isinstance(value, str | int | float | bool):
            raise SpecError(path, f"{value} is read as {type(value).__name__}; put it in quotes")


def _shown(value: int) -> str:
    """Return an integer; one of thousands of digits cannot even be printed."""
    return str(value) if abs(value) < 10**40 else "an integer of more than 40 digits"


def _close(path: Path) -> str:
    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    close = closest(names, path.name)
    return f"; did you mean {path.parent / close}?" if close else ""
