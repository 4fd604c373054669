"""Read YAML as data and nothing else: no duplicate keys, no tags, no bombs; errors say the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semsim.mistakes import SpecError

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000  # after aliases are followed: a few lines of nested aliases can mean billions


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML 1.2 file; :class:`SpecError` where it is anything else."""
    try:
        if path.is_dir():
            raise SpecError("", f"{path} is a folder; give a scenario file (.yaml)")
        if path.stat().st_size > MAX_BYTES:
            raise SpecError("", f"{path} is larger than 1 MiB; a scenario is a page of text")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("", f"no such file: {path}{_close(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError("", f"{path} cannot be read: {reason}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str = "the scenario") -> dict[str, Any]:
    """Return the mapping that YAML text holds; ``name`` is what errors call it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        line, key = error.problem_mark.line + 1, str(error.problem).split('"')[1]
        raise SpecError(key, f"appears twice ({name}, line {line}); keep one") from None
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
    _check_plain(value, name)
    return value


def _check_plain(root: object, name: str) -> None:
    """Refuse what JSON could not hold, and aliases that grow out of hand."""
    seen, stack = 0, [("", root)]
    while stack:
        path, value = stack.pop()
        seen += 1
        if seen > MAX_VALUES:
            raise SpecError(
                "", f"{name} unfolds to more than {MAX_VALUES:,} values; use no aliases"
            )
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise SpecError(path, f"keys are words, got {key!r}; put it in quotes")
                stack.append((f"{path}.{key}" if path else key, item))
        elif isinstance(value, list):
            stack.extend((f"{path}[{i}]", item) for i, item in enumerate(value))
        elif value is not None and not isinstance(value, str | int | float | bool):
            raise SpecError(path, f"{value} is read as {type(value).__name__}; put it in quotes")


def _close(path: Path) -> str:
    import difflib

    names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
