"""What a training is made of: its stages, what it trains on, whether anything is to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semsim import spec
from semsim.mistakes import SpecError
from semsim.scenario.building import Built
from semsim.scenario.fields import STAGE_PARTS, of_stage
from semsim.scenario.loading import check_files
from semsim.scenario.scenario import Scenario


def stages_of(scenario: Scenario) -> list[Scenario]:
    """Return a scenario for each stage of a training, with what the stage changes in its place."""
    values = scenario.to_dict()
    train = values["train"]
    changes: list[dict[str, Any]] = train.pop("stages", None) or []
    found = []
    if channel := train.pop("channel", None):
        values["channel"] = channel
        changes = changes or [{}]
    if not changes:
        return [scenario]
    for number, change in enumerate(changes):
        own = {key: value for key, value in change.items() if key not in STAGE_PARTS}
        parts = {key: value for key, value in change.items() if key in STAGE_PARTS}
        try:
            merged = {key: _merged(values.get(key), part) for key, part in parts.items()}
            found.append(Scenario.parse({**values, **merged, "train": of_stage(train, own)}))
        except SpecError as error:
            raise error.under("train", "stages", number) from error
    return found


def _merged(part: Any, change: Any) -> Any:
    """Return a part with some arguments changed; another kind replaces it."""
    before = {"kind": part} if isinstance(part, str) else part or {}
    kind = before.get("kind")
    if not isinstance(change, Mapping) or change.get("kind", kind) != kind:
        return change
    return {**before, **change}


def training_data(scenario: Scenario) -> tuple[Any, Any]:
    """Return what a scenario with ``train`` trains on and what it validates on, or None."""
    made: dict[str, Any] = {"payload": None, "validation": None}
    for key in made:
        part = getattr(scenario.train, key)
        try:
            made[key] = part and spec.build(part)
            check_files(made[key], "")
        except SpecError as error:
            raise error.under("train", key) from error
    return made["payload"], made["validation"]


def learns(built: Built) -> bool:
    """Tell whether a link or its task has parameters to train."""
    parts = (built.link, built.task)
    return any(p.requires_grad for part in parts for p in part.parameters())
