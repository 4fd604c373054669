"""semsim: compose, train, sweep and fairly compare semantic-communication links.

The names below are imported when they are first used, so that ``import semsim`` and the command
line's help cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semsim.evaluation import Stop, evaluate
    from semsim.link import Link
    from semsim.scenario.scenario import Scenario
    from semsim.seeds import stream
    from semsim.sweep.sweep import run
    from semsim.training.loop import train
    from semsim.types import AnyLink, Ledger, Receiver, Transmission, Transmitter

__version__ = "0.2.0"
__all__ = [
    "AnyLink",
    "Ledger",
    "Link",
    "Receiver",
    "Scenario",
    "Stop",
    "Transmission",
    "Transmitter",
    "evaluate",
    "run",
    "stream",
    "train",
]

_HOME = {
    "AnyLink": "types",
    "Ledger": "types",
    "Link": "link",
    "Receiver": "types",
    "Scenario": "scenario.scenario",
    "Stop": "evaluation",
    "Transmission": "types",
    "Transmitter": "types",
    "evaluate": "evaluation",
    "run": "sweep.sweep",
    "stream": "seeds",
    "train": "training.loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'semsim' has no attribute {name!r}")
    return getattr(importlib.import_module(f"semsim.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
