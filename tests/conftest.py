"""Makes ``toy_parts`` importable, as a user's own module would be, and semsim.vision deletable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HAS_VISION = (ROOT / "semsim" / "vision").is_dir()

sys.path.append(str(Path(__file__).parent))
collect_ignore = [] if HAS_VISION else ["vision"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is about a vision paper where the folder was deleted."""
    if HAS_VISION:
        return
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(map(_is_of_vision, values)):
            item.add_marker(pytest.mark.skip(reason="semsim/vision was deleted"))


def _is_of_vision(value: Any) -> bool:
    """Tell whether a test's argument is a file, a text or weights of a vision paper."""
    from semsim import zoo
    from semsim.tables import VISION

    if isinstance(value, Path):
        return "vision" in value.parts or _is_of_vision(value.read_text())
    if not isinstance(value, str):
        return False
    if value in zoo.names():
        return any(".vision." in path for path in zoo.card(value)["classes"].values())
    kinds = (f"kind: {kind}," in value for kind in VISION)
    return "semsim.vision" in value or "scenarios/vision" in value or any(kinds)
