"""A training in several processes: each takes its share of every batch, gradients are averaged."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from multiprocessing import util
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

from semsim.mistakes import sentence
from semsim.stopping import Postponed
from semsim.training.screen import Screen


def in_processes(fabric: Any, make: Callable[..., Any], progress: bool | str = False) -> None:
    """Train in the processes of a Fabric; what they have done is in the folder's checkpoint.

    Ctrl-C and SIGTERM reach all of them, which finish the step at hand and save. What one of them
    refuses is told here, in a sentence.

    Args:
        fabric: for several processes.
        make: returns the training of one process, given ``fabric``.
        progress: what the first process says on the screen, as in :class:`Screen`.

    Raises:
        ValueError: what was wrong with the training in one of them.
    """
    signals, mistakes = Postponed(_pass_on), multiprocessing.get_context("spawn").SimpleQueue()
    with signals.noting(), _without_remarks():
        try:
            # torch would hand over the weights as memory that all of them share and change
            fabric.launch(_work, pickle.dumps(make), progress, mistakes)
        except ProcessException:
            if mistakes.empty():
                raise
            raise ValueError(mistakes.get()) from None
    signals.obey()


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Let processes that begin meanwhile not tell what torch thinks of unused parameters.

    Nor let it say here which of them it ends, after a mistake in another.
    """
    name = "TORCH_CPP_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = before or "ERROR"
    chatter = logging.getLogger("torch.multiprocessing.spawn")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatter.setLevel(level)
        if before is None:
            del os.environ[name]


def _pass_on(number: int) -> None:
    """Send a signal to the processes that this one has started."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, number)


def _work(fabric: Any, make: bytes, progress: bool | str, mistakes: Any) -> None:
    """Train in one process; a signal is obeyed by the one that started it."""
    try:
        with pickle.loads(make)(fabric=fabric) as training:
            if training.first:
                training.screen = Screen(progress)
            training.advance_until(Postponed())
    except (ValueError, OSError) as error:
        mistakes.put(sentence(error))
        raise
    fabric.barrier()
    # Ending the process group waits for gloo's threads, which may wait for the interpreter's lock
    # that the waiting thread holds; not ending it lets them abort the interpreter as it ends. So
    # the process leaves, after the last of multiprocessing's own work, without either.
    util.Finalize(None, _leave, exitpriority=-100)


def _leave() -> None:
    """End this process at once, with success."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def agreed(fabric: Any, seconds: float, signal: int | None) -> tuple[float, int | None]:
    """Return one clock and one signal for all processes, so that they stop after the same step."""
    mine = torch.tensor([seconds, float(signal or 0)], dtype=torch.float64, device=fabric.device)
    seconds, number = fabric.all_reduce(mine, reduce_op="max").tolist()
    return seconds, int(number) or None
