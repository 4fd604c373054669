"""The source of users' modules as it was imported, so that an edited one is imported anew.

A class is found by its module's name, and Python imports a name once. :func:`refresh`, where a
scenario is read and where a run begins, forgets what was edited since; in between nothing changes.
A module counts with all modules of the same author that it imports.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_INSTALLED = tuple(sysconfig.get_paths()[n] + os.sep for n in ("stdlib", "purelib", "platlib"))
_OURS = ("semsim", "channels")
_STARTED_NS = time.time_ns()


@dataclass(frozen=True)
class _Source:
    digest: str
    imports: frozenset[str]


_known: dict[str, _Source] = {}  #: by module, as it was when imported


@contextlib.contextmanager
def noted(module: str) -> Iterator[None]:
    """Note the source of a module that is imported in this block, and of what it imports.

    No bytecode is left: Python would take that of an edit in the same second for the present one.
    """
    if module not in _known and _may_be_old(module):
        sys.modules.pop(module)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
    _used_by(module)


def refresh() -> None:
    """Forget modules that were edited since their import, and all that import them."""
    edited = {name for name, known in _known.items() if _look(name) != known}
    for name in [n for n in _known if edited & {n, *_used_by(n)}]:
        sys.modules.pop(name, None)
        del _known[name]
    importlib.invalidate_caches()


def hash_of(module: str) -> str | None:
    """Return the hash of a noted module and of what it imports of its author's."""
    used = {name: _known[name].digest for name in sorted(_used_by(module))}
    if len(used) > 1:
        return hashlib.sha256(repr(used).encode()).hexdigest()
    return used.get(module) or _installed(module)


def _installed(module: str) -> str | None:
    """Return the hash of a module that nobody edits, such as that of a package."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def _used_by(module: str) -> set[str]:
    """Return a module and those of the same author that it imports, near and far."""
    found, left = set[str](), [module]
    while left:
        name = left.pop()
        if name not in found and (source := _known.get(name) or _look(name)):
            _known[name] = source
            found.add(name)
            left += source.imports
    return found


def _look(name: str) -> _Source | None:
    """Return the source of a module as it is now; None for what users do not edit."""
    if name == "__main__" and name in _known:
        return _known[name]  # a script that runs stays what it was
    file = _file_of(name)
    if file is None:
        return None
    try:
        text = file.read_bytes()
        return _Source(hashlib.sha256(text).hexdigest(), frozenset(_imports(name, text)))
    except (OSError, SyntaxError, ValueError):
        return None  # whoever imports it says what is wrong


def _file_of(name: str) -> Path | None:
    """Return the file of a module that users may edit: none of semsim, Python or a package."""
    parent = name.rpartition(".")[0]
    if name.partition(".")[0] in _OURS or (parent and not _is_package(parent)):
        return None
    try:
        spec = importlib.util.find_spec(name)
        file = None if spec is None else spec.origin
    except (ImportError, ValueError, AttributeError):
        file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not file.endswith(".py") or file.startswith(_INSTALLED):
        return None
    return Path(file)


def _is_package(name: str) -> bool:
    """Tell an imported package that users may edit; to look into others would import them."""
    return hasattr(sys.modules.get(name), "__path__") and _file_of(name) is not None


def _imports(name: str, text: bytes) -> Iterator[str]:
    """Yield the modules that a source imports; of ``from a import b`` also a.b."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    package = spec.parent if spec is not None else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(dots, package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _may_be_old(name: str) -> bool:
    """Tell whether a module that somebody else imported may be older than its file."""
    if name == "__main__" or name not in sys.modules:
        return False
    file = _file_of(name)
    return file is not None and file.stat().st_mtime_ns > _STARTED_NS
