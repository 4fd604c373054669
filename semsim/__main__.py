"""The command ``semsim``, also as ``python -m semsim``."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command. Ctrl-C ends it with one line, also while modules are still imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from semsim.cli import app

    app(prog_name="semsim")


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave at once: an exception would meet libraries that swallow it or print a traceback."""
    os.write(2, b"\nStopped.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
