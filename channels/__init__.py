"""Wireless channels for learned links: torch and Sionna; no image, no task, no YAML.

Every channel is an ``nn.Module`` in two steps, ``draw`` then ``forward``; see ``channels.base``.
"""

from __future__ import annotations

import importlib
from typing import Any

from channels.tables import exports

__all__ = sorted(exports())


def __getattr__(name: str) -> Any:
    homes = exports()
    if name not in homes:
        raise AttributeError(f"module 'channels' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)


def __dir__() -> list[str]:
    return sorted(exports())
