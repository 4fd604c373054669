"""How a training stands, on the screen: one line that moves, or a line every few minutes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from semsim.training.spec import TrainSpec

EVERY_SECONDS = 300.0  #: between lines where the screen is no terminal
REFRESH_SECONDS = 0.5  #: between changes of the line where it is one


class Screen:
    """Tells on stderr that a training begins, how far it is and that it ends.

    Args:
        wanted: whether to say anything at all, or what to call what is trained.
    """

    def __init__(self, wanted: bool | str) -> None:
        self.wanted = bool(wanted)
        self.name = wanted if isinstance(wanted, str) else "training"
        self.moves = sys.stderr.isatty()
        self.last = 0.0

    def begin(self, spec: TrainSpec, steps: int, folder: Path | None) -> None:
        """Say what begins, from which step on, and where its state is kept."""
        length = f"{spec.steps:,} steps"
        if spec.minutes is not None:
            length = f"{spec.minutes:g} min in steps"
        after = f", going on after step {steps:,}" if steps else ""
        kept = f", kept in {folder}" if folder else ""
        self._write(f"{self.name}: {length} of {spec.batch_size} items{after}{kept}")
        self.last = time.monotonic()

    def step(self, share: float, steps: int, loss: float) -> None:
        """Say how far it is, where it is time for that."""
        now = time.monotonic()
        if now - self.last < (REFRESH_SECONDS if self.moves else EVERY_SECONDS):
            return
        self.last = now
        text = f"{self.name}: {min(share, 1):4.0%}, step {steps:,}, loss {loss:.4g}"
        self._write(f"\r{text:<79}" if self.moves else text, end="" if self.moves else "\n")

    def end(self, share: float, steps: int, loss: float) -> None:
        """Say where it stands at last."""
        text = f"{self.name}: {min(share, 1):4.0%}, step {steps:,}, loss {loss:.4g}"
        self._write(f"\r{text:<79}" if self.moves else text)

    def _write(self, text: str, end: str = "\n") -> None:
        if self.wanted:
            print(text, end=end, file=sys.stderr, flush=True)
