"""Code from outside the tables, ``module:name``: imported by name, or refused.

Importing a module runs it. So a scenario that names one is a program, and a scenario of a stranger
is read within :func:`only_tables`, ``--closed`` on the command line.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from semsim.files import sources
from semsim.mistakes import unforeseen

_closed = contextvars.ContextVar("closed", default=False)

#: what a class must have to stand in a family, one of each group
METHODS: dict[str, tuple[tuple[str, ...], ...]] = {
    "payload": (("__len__",), ("__getitem__",)),
    "transmitter": (("num_symbols",), ("forward", "__call__")),
    "receiver": (("forward", "__call__"),),
    "channel": (("draw",), ("forward", "__call__")),
    "csi": (("overhead",), ("forward", "__call__")),
    "frontend": (("precoder",), ("combine",)),
    "task": (("loss",), ("forward", "__call__")),
    "metric": (("forward", "__call__"),),
}


@contextlib.contextmanager
def only_tables() -> Iterator[None]:
    """Refuse code from outside for a while; what the tables name is imported as always."""
    before = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(before)


def load(path: str) -> Any:
    """Return what ``module:name`` names, importing its module now.

    The module is found on the Python path, to which the command line adds the folder from which it
    runs.

    Raises:
        ValueError: it is not there, cannot be imported, or code from outside is refused.
    """
    module_name, _, name = path.partition(":")
    if _closed.get():
        raise ValueError(
            f"{path!r} is code from outside, which --closed refuses; name a kind that `semsim "
            "list` shows, or leave --closed out if you trust the file"
        )
    with sources.noted(module_name):
        module = imported(module_name, path)
    if not hasattr(module, name):
        raise ValueError(f"the module {module_name!r} has no {name!r}")
    return getattr(module, name)


def imported(module: str, asked: str) -> Any:
    """Return a module, importing it now; what it may raise becomes a ValueError.

    Args:
        module: its name.
        asked: what needs it, for the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{asked!r} needs the module {module!r}, which cannot be imported ({error}); is it "
            "installed, or in the folder from which you run semsim?"
        ) from error
    except Exception as error:  # the user's module may raise anything
        raise ValueError(f"{asked!r} cannot be imported: {unforeseen(error)}") from error


def part(path: str, family: str) -> type:
    """Return the class ``module:Class``, which must have what its family calls."""
    found = load(path)
    if not inspect.isclass(found):
        raise ValueError(
            f"{path!r} is a {type(found).__name__}, but a kind names a class; write a class whose "
            "__init__ takes the arguments"
        )
    for group in METHODS[family]:
        if not any(_has(found, name) for name in group):
            raise ValueError(
                f"{path!r} is no {family}: it has no method {group[0]}; see "
                f"semsim/types.py and channels/base.py for what a {family} does"
            )
    return found


def function(path: str, result: type) -> Callable[..., Any]:
    """Return what makes a ``result``: a function defined in the module, or a class of this kind.

    So ``os:system`` is refused: a stray path calls nothing.
    """
    found = load(path)
    is_class = inspect.isclass(found) and issubclass(found, result)
    is_function = inspect.isfunction(found) and found.__module__ == path.partition(":")[0]
    if not is_class and not is_function:
        raise ValueError(
            f"{path!r} is neither a {result.__name__} nor a function that its module defines; name "
            "one that is written there with def"
        )
    return found


def _has(found: type, name: str) -> bool:
    method = getattr(found, name, None)
    if name == "__call__" and not any("__call__" in vars(c) for c in found.__mro__[:-1]):
        return False
    owner = next((c for c in found.__mro__ if name in vars(c)), None)
    is_blank = owner is not None and owner.__module__ == "torch.nn.modules.module"
    return callable(method) and not (is_blank and name in ("forward", "__call__"))


def source_hash(module: str) -> str | None:
    """Return the hash of a module as it was imported, and of what it uses of its author's.

    None where it cannot be imported, or may not be: whoever needs it says so.
    """
    if _closed.get():
        return None
    try:
        with sources.noted(module):
            importlib.import_module(module)
    except Exception:
        return None
    return sources.hash_of(module)
