"""Ctrl-C and SIGTERM: what is at hand is finished and saved, and then the signal is obeyed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a stop like Ctrl-C, but with another exit code."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return 128 and the number of the signal, as a shell has it."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, so that what cleans up after Ctrl-C does so too.

    Ctrl-C raises KeyboardInterrupt meanwhile, where Python handles it at all.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    handlers: dict = {signal.SIGTERM: stop}
    if callable(signal.getsignal(signal.SIGINT)):  # neither ignored nor left to the system
        handlers[signal.SIGINT] = signal.default_int_handler
    with _handled(handlers):
        yield


class Postponed:
    """Notes both signals while it is entered; :meth:`obey` then does what they ask for.

    Args:
        then: is told the number of each signal that is noted.
    """

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        self.received: int | None = None
        self.then = then

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note signals for the length of a block."""
        with _handled(dict.fromkeys(SIGNALS, self._note)):
            yield

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if self.then is not None:
            self.then(number)

    def obey(self) -> None:
        """Do what the signal would have done: KeyboardInterrupt for Ctrl-C, or the end."""
        if self.received is not None:
            signal.raise_signal(self.received)
            raise KeyboardInterrupt  # where somebody ignores the signal


@contextlib.contextmanager
def _handled(handlers: dict) -> Iterator[None]:
    """Set handlers of signals for a while; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
