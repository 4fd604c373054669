"""What a training leaves: both ends, the parts of a task that learned, and a card that says how."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semsim import zoo
from semsim.training.spec import TrainSpec
from semsim.training.state import State

#: of a card, what says how the weights came about
OF_MAKING = ("data", "steps", "minutes", "training", "before", "batch", "command", "stages")


def write_weights(state: State, folder: Path) -> Path | None:
    """Write both ends, and beside them the parts of a task that was trained too."""
    link: Any = state.nets["link"]
    task = state.nets["task"]
    facts = making(state)
    if any(p.requires_grad for p in task.parameters()):
        zoo.export_parts(folder / zoo.OF_TASK, dict(task.named_children()), facts)
    if not link.parts():
        return None
    return zoo.export_parts(folder / zoo.OF_LINK, link.parts(), facts)


def making(state: State) -> dict[str, Any]:
    """Return how these weights were made, and how those were that they began with."""
    plain, spec = asdict(TrainSpec()), asdict(state.spec)
    changed = {key: value for key, value in spec.items() if value != plain[key]}
    facts = {
        "steps": state.steps,
        "minutes": round(state.seconds / 60, 2),
        "training": {**changed, "seed": state.seed},
    }
    before = [_past(name) for name in state.spec.starts()]
    return {**facts, "before": before} if before else facts


def _past(name: str) -> dict[str, Any]:
    """Return what the card of weights says of their making, as far as there is a card."""
    if name in zoo.names():
        card = zoo.card(name)
    else:
        beside = Path(name).with_suffix(".json")
        try:
            card = json.loads(beside.read_bytes())
        except (OSError, ValueError):  # a checkpoint has no card, a lost one says nothing
            card = {}
    known = card if isinstance(card, dict) else {}
    return {"weights": name, **{key: known[key] for key in OF_MAKING if key in known}}
