"""Devices and weights by name."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from semsim import spec
from semsim.files import outside
from semsim.files.disk import LOCK
from semsim.files.weightfile import read_header, sha256_of
from semsim.mistakes import SpecError, known, looked_in, sentence
from semsim.tasks.base import Task
from semsim.types import AnyLink

_seen: ContextVar[dict[Path, str] | None] = ContextVar("folders looked through", default=None)


def pick_device(name: str) -> torch.device:
    """Return the device of this name; ``auto`` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # a device such as meta computes nothing
        torch.Generator(device)
    except Exception:  # each kind of device has its own way to say that it is missing
        raise SpecError("device", f"{name!r} is not available here; use cpu or auto") from None
    if device.type == "cpu" and device.index:
        raise SpecError("device", f"{name!r} is not there, since the CPU is one device; use cpu")
    return device


def weights_hash(name: str) -> str:
    """Return the SHA-256 of shipped weights by name, or of a .safetensors file."""
    from semsim import zoo

    path = Path(name)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise SpecError("transmitter.weights", f"no such file: {name}{looked_in(name)}")
        try:
            read_header(path)  # before its bytes, of which there may be many
        except ValueError as error:
            raise SpecError("transmitter.weights", str(error)) from error
        return _file_hash(path)
    if name not in zoo.names():
        hint = known(zoo.names(), name)
        raise SpecError("transmitter.weights", f"no weights are called {name!r}; {hint}")
    return str(zoo.card(name)["sha256"])


def start_hash(name: str) -> str:
    """Return the SHA-256 of what a training begins with: weights, or a checkpoint, .pt."""
    try:
        if not name.endswith(".pt"):
            return weights_hash(name)
        return _file_hash(Path(name))
    except FileNotFoundError:
        raise SpecError("train.start", f"no such file: {name}{looked_in(name)}") from None
    except OSError as error:
        raise SpecError("train.start", sentence(error)) from error
    except SpecError as error:
        raise SpecError("train.start", error.message) from error


def drawn_by_sionna(part: Any) -> bool:
    """Tell whether a payload or a channel, or one within it, is drawn by Sionna.

    Args:
        part: as a scenario has it, or a stage of a training as it is written; None for none.
    """
    if isinstance(part, list | tuple):
        return any(map(drawn_by_sionna, part))
    if isinstance(part, Mapping):  # a stage may also change arguments of a channel alone
        families = {"payload": "payload", "validation": "payload", "channel": "channel"}
        named = [(families[key], value) for key, value in part.items() if key in families]
        return any(
            drawn_by_sionna(spec.parse(family, value))
            for family, value in named
            if isinstance(value, str) or (isinstance(value, Mapping) and "kind" in value)
        )
    if not isinstance(part, BaseModel):
        return False
    family = getattr(type(part), "family", None)
    if family in ("payload", "channel"):
        made: Any = spec.resolve(family, part.kind)  # type: ignore[attr-defined]
        if getattr(made, "drawn_by_sionna", False):
            return True
    return any(drawn_by_sionna(getattr(part, name)) for name in type(part).model_fields)


def weights_of_task(task: Any) -> str | None:
    """Return the SHA-256 of the weights that a task loads; None where it loads none.

    Args:
        task: as a scenario has it, with all its arguments.
    """
    from semsim import zoo

    part: Any = spec.resolve("task", task.kind)
    if not (isinstance(part, type) and issubclass(part, Task)):
        return None
    name = part.weights_named(**{key: getattr(task, key) for key in type(task).model_fields})
    if not isinstance(name, str):
        return None
    path = Path(name)
    if name in zoo.names() or (path.suffix == ".safetensors" and path.is_file()):
        return weights_hash(name)
    return None  # the task itself says what is wrong


def data_hashes(content: Any) -> dict[str, str]:
    """Return a hash for each file or folder that a ``path`` or ``model`` key names.

    And for weights beside those that :func:`weights_of_task` knows: ``surrogate_weights``, or an
    ``encoder`` beside ``weights``. And for each module from outside of which ``kind`` or ``model``
    names a part: of the source that was imported, with the author's own modules that it uses.

    A file's is its SHA-256, as is that of shipped weights by name, a folder's that of names, sizes
    and times of change, so that results of data that have changed since are not taken for those of
    today. A folder's lock is no data.
    """
    from semsim import zoo

    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return {}
    found = {}
    for key, value in content.items():
        beside = str(key).endswith("_weights") or (key == "encoder" and content.get("weights"))
        named = key in ("path", "model") or beside
        if named and key != "path" and value in zoo.names():
            found[value] = str(zoo.card(value)["sha256"])
        elif named and isinstance(value, str) and Path(value).exists():
            found[value] = _data_hash(Path(value))
        elif key in ("kind", "model") and isinstance(value, str) and ":" in value:
            if source := outside.source_hash(value.partition(":")[0]):
                found[value] = source
        else:
            found |= data_hashes(value)
    return found


@contextlib.contextmanager
def data_read_once() -> Iterator[None]:
    """Let many links that share a folder of data look through it once, within this context."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def _data_hash(path: Path) -> str:
    if path.is_file():
        return _file_hash(path)
    seen = _seen.get()
    if seen is None:
        return _folder_hash(path)
    if path not in seen:
        seen[path] = _folder_hash(path)
    return seen[path]


def _folder_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != LOCK):
        facts = file.stat()
        digest.update(os.fsencode(file.relative_to(path)))  # a name may be no UTF-8
        digest.update(f" {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    """Return a file's SHA-256; one that was replaced or touched in any way is read again."""
    facts = path.stat()
    return _hash_of(
        path.resolve(), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
    )


@functools.lru_cache
def _hash_of(path: Path, *_facts: int) -> str:
    return sha256_of(path)


def check_files(payload: Any, key: str) -> tuple[int, int] | None:
    """Let a payload look at the headers of all its files, where it has ``check_files``.

    Returns width and height of its largest image, where it says so.
    """
    try:
        look = getattr(payload, "check_files", None)
        return look() if look else None
    except ValueError as error:
        raise SpecError(key, str(error)) from error


def load_weights(name: str, parts: Mapping[str, nn.Module]) -> None:
    """Load weights into the parts of a link; what does not fit is told with the key."""
    from semsim import zoo

    weights_hash(name)
    try:
        zoo.load_parts(name, parts)
    except (ValueError, OSError) as error:
        raise SpecError("transmitter.weights", sentence(error)) from error


def compile_ends(link: AnyLink) -> None:
    """Let torch compile the ends of a link when they first run, for any size of images.

    Raises:
        SpecError: there is no C++ compiler.
    """
    known_names = [name for name in (os.environ.get("CXX"), "g++", "clang++", "cl") if name]
    if not any(map(shutil.which, known_names)):
        raise SpecError(
            "compile", "needs a C++ compiler such as g++, and none is found; write false"
        )
    for end in link.ends().values():
        end.compile()
