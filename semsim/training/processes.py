"""A training in several processes: each takes its share of every batch, gradients are averaged."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import torch

from semsim.stopping import Postponed
from semsim.training.screen import Screen

SETTLE_S = 0.5  #: for threads of the process group, before it ends


def in_processes(fabric: Any, make: Callable[..., Any], progress: bool | str = False) -> None:
    """Train in the processes of a Fabric; what they have done is in the folder's checkpoint.

    Ctrl-C and SIGTERM reach all of them, which finish the step at hand and save.

    Args:
        fabric: for several processes.
        make: returns the training of one process, given ``fabric``.
        progress: what the first process says on the screen, as in :class:`Screen`.
    """
    signals = Postponed(_pass_on)
    with signals.noting():
        # torch would hand over the weights as memory that all of them share and change
        fabric.launch(_work, pickle.dumps(make), progress)
    signals.obey()


def _pass_on(number: int) -> None:
    """Send a signal to the processes that this one has started."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, number)


def _work(fabric: Any, make: bytes, progress: bool | str) -> None:
    """Train in one process; a signal is obeyed by the one that started it."""
    with pickle.loads(make)(fabric=fabric) as training:
        if training.first:
            training.screen = Screen(progress)
        training.advance_until(Postponed())
    fabric.barrier()
    # gloo's threads let go of the last sums only with the interpreter's lock, which this thread
    # keeps while it waits for them in the end of the group: give it to them before
    time.sleep(SETTLE_S)
    torch.distributed.destroy_process_group()  # or its threads may abort a process that ends


def agreed(fabric: Any, seconds: float, signal: int | None) -> tuple[float, int | None]:
    """Return one clock and one signal for all processes, so that they stop after the same step."""
    mine = torch.tensor([seconds, float(signal or 0)], dtype=torch.float64, device=fabric.device)
    seconds, number = fabric.all_reduce(mine, reduce_op="max").tolist()
    return seconds, int(number) or None
