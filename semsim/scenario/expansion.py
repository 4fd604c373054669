"""A sweep: dotted keys and their choices, and how a choice is written into a scenario."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from semsim.mistakes import SpecError


def parse_sweep(value: object) -> dict[str, Any]:
    """Return a mapping of dotted keys to non-empty choices."""
    if not isinstance(value, Mapping):
        raise SpecError("", "must map dotted keys to lists, such as {channel.num_rx: [1, 2]}")
    for path, choices in value.items():
        if not isinstance(choices, list | tuple | Mapping):
            raise SpecError(path, f"must be a list, or a mapping of labels, got {choices!r}")
        if not choices:
            raise SpecError(path, "is empty; give at least one value, or leave the key out")
        labels = Counter(str(label) for label, _ in choices_of(choices))
        if twice := sorted(label for label, times in labels.items() if times > 1):
            raise SpecError(
                path, f"names {twice[0]!r} twice; leave one out, or give both labels of their own"
            )
    if "receiver" in value and any(
        _brings_receiver(choice) for _, choice in choices_of(value.get("transmitter", ()))
    ):
        raise SpecError(
            "receiver", "is swept, but a choice of transmitter brings its own; keep one of them"
        )
    return dict(value)


def choices_of(choices: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (label, value); a part is labelled by its kind, and by its keys where kinds repeat."""
    if isinstance(choices, Mapping):
        yield from choices.items()
        return
    kinds = [c.get("kind", "") if isinstance(c, Mapping) else c for c in choices]
    times = Counter(map(str, kinds))
    for choice, kind in zip(choices, kinds, strict=True):
        if isinstance(choice, Mapping) and (times[str(kind)] > 1 or not kind):
            rest = " ".join(f"{k}={v}" for k, v in choice.items() if k != "kind")
            yield f"{kind} {rest}".strip(), choice
        else:
            yield (kind if isinstance(kind, str | int | float) else json.dumps(kind)), choice


def set_choice(values: dict[str, Any], path: str, value: Any) -> None:
    """Set what was chosen at a dotted key; a choice of ``transmitter`` may bring its receiver."""
    if path == "transmitter" and _brings_receiver(value):
        values.update(value)
    else:
        set_key(values, path, value)


def _brings_receiver(choice: Any) -> bool:
    return isinstance(choice, Mapping) and choice.keys() == {"transmitter", "receiver"}


def set_key(values: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted key; a part written as just its kind becomes a mapping."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        child = values.get(key)
        if isinstance(child, str):
            child = {"kind": child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            parent = ".".join(parents[: depth + 1])
            raise SpecError(f"sweep.{path}", f"{parent} is {child!r} and has no keys below it")
        values[key] = child
        values = child
    values[last] = value
