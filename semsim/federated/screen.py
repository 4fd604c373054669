"""How a federation stands, on the screen: a bar that moves, or a line every few minutes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from semsim.federated.federation import Standing

EVERY_SECONDS = 300.0  #: between lines where the screen is no terminal
REFRESH_SECONDS = 0.5  #: between changes of the bar where it is one
WIDTH = 20  #: of the bar


class RoundScreen:
    """Tells on stderr how far a federation is, and how long it may still take.

    Args:
        wanted: whether to say anything at all.
        folder: where its state is kept.
    """

    def __init__(self, wanted: bool, folder: Path) -> None:
        self.wanted, self.folder = wanted, folder
        self.moves = sys.stderr.isatty()
        self.last, self.begun, self.from_round = 0.0, time.monotonic(), 0

    def begin(self, number: int) -> None:
        """Say that it begins, after how many rounds."""
        after = f", going on after round {number:,}" if number else ""
        self.from_round, self.begun = number, time.monotonic()
        self._write(f"federated training{after}, kept in {self.folder}")
        self.last = time.monotonic()

    def __call__(self, standing: Standing) -> None:
        """Say where it stands, where it is time for that."""
        now, over = time.monotonic(), standing.round >= standing.rounds
        if not over and now - self.last < (REFRESH_SECONDS if self.moves else EVERY_SECONDS):
            return
        self.last = now
        text = line(standing, now - self.begun, self.from_round)
        end = "\n" if over or not self.moves else ""
        self._write(f"\r{text:<79}" if self.moves else text, end=end)

    def _write(self, text: str, end: str = "\n") -> None:
        if self.wanted:
            print(text, end=end, file=sys.stderr, flush=True)


def line(standing: Standing, seconds: float, from_round: int = 0) -> str:
    """Return a bar, the round, the loss, and the time left as the rounds so far took theirs."""
    part = standing.done / standing.asked if standing.asked else 0.0
    done = standing.round + part
    share = min(done / standing.rounds, 1.0)
    bar = ("#" * round(share * WIDTH)).ljust(WIDTH, ".")
    text = f"[{bar}] round {standing.round:,}/{standing.rounds:,}"
    if standing.client is not None:
        text += f", client {standing.client}"
    text += f", loss {standing.loss:.4g}"
    if done > from_round and share < 1:
        left = seconds * (standing.rounds - done) / (done - from_round)
        text += f", {left / 60:.0f} min left" if left >= 60 else f", {left:.0f} s left"
    return text
