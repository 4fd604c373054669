"""What weights bring along: the arguments that they were trained with."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from semsim import spec, zoo
from semsim.mistakes import SpecError


def specs_of(weights: str) -> dict[str, dict[str, Any]]:
    """Return the arguments that weights belong to, by the prefix of the part.

    Args:
        weights: a shipped name, or a file; of what is neither nothing is known, and who loads it
            says what is wrong.
    """
    if weights in zoo.names():
        return dict(zoo.card(weights)["spec"])
    path = Path(weights)
    try:
        facts = path.stat()
    except OSError:
        return {}
    return _specs_in(path.resolve(), facts.st_ino, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache
def _specs_in(path: Path, *_facts: int) -> dict[str, dict[str, Any]]:
    try:
        return zoo.specs(path)
    except (ValueError, OSError):
        return {}


def completed(family: str, value: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> BaseModel:
    """Return a part as written; what that leaves out is as in its weights where the two differ.

    Where they agree it stays as written, so that such scenarios keep the hash that they had.

    Args:
        family: of the part.
        value: the part as written.
        theirs: the spec in its weights; None where they have none.
    """
    if not theirs or not isinstance(value.get("kind"), str):
        return spec.parse(family, value)
    given = zoo.arguments(theirs)
    fields = spec.model_of(family, value["kind"]).model_fields
    needed = {name: given[name] for name in fields if fields[name].is_required() and name in given}
    part = spec.parse(family, {**needed, **value})
    made = spec.resolve(family, value["kind"])
    others = _others(family, made, part.model_dump_json(), json.dumps(theirs))
    left_out = given.keys() & fields.keys() - value.keys() - {"kind", "codec"}
    if others is not None:
        left_out &= others
    if not left_out:
        return part
    return spec.parse(family, {**needed, **{name: given[name] for name in left_out}, **value})


@functools.lru_cache
def _others(
    family: str, _made: Callable[..., object], written: str, theirs: str
) -> frozenset[str] | None:
    """Return the arguments of a part as written that differ from those of weights of its kind.

    None where it cannot be made as it is written.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            live = spec.build(spec.parse(family, json.loads(written)))
    except SpecError:
        return None
    try:
        strange, differing = zoo.compared("", family, live, json.loads(theirs))
    except ValueError:  # files that arguments name are others; who loads them says so
        return frozenset()
    return frozenset() if strange else frozenset(n.partition(".")[0] for n, _, _ in differing)
