"""Lightning Fabric around the loop: device, log and quiet; no more of Lightning is used."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch


def fabric_for(device: torch.device, folder: Path | None, log: str, processes: int = 1) -> Any:
    """Return Lightning Fabric for a device, or for several processes, with a log in a folder."""
    check_log(log)
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
    from lightning.fabric.strategies import DDPStrategy

    from semsim.training.environment import OneMachine

    csv = partial(CSVLogger, flush_logs_every_n_steps=1)
    loggers: dict[str, Callable[..., Any]] = {"csv": csv, "tensorboard": TensorBoardLogger}
    is_numbered = device.type == "cuda" and device.index is not None and processes == 1
    several = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    return Fabric(
        accelerator=device.type, devices=[device.index] if is_numbered else processes,
        strategy=several if processes > 1 else "auto",
        loggers=[] if folder is None else [loggers[log](folder, name="log")],
        plugins=[OneMachine()],  # or SLURM's variables ask for several processes
    )  # fmt: skip


def check_log(log: str) -> None:
    """Raise ValueError where what a log is written by is missing."""
    names = ("tensorboard", "tensorboardX")
    if log == "tensorboard" and not any(map(importlib.util.find_spec, names)):
        raise ValueError(
            "log: tensorboard is not installed; write log: csv, or pip install "
            "'semsim-wireless[tensorboard]'"
        )


@contextlib.contextmanager
def alone(seed: int) -> Iterator[None]:
    """Seed torch and quieten Lightning for a while, and leave no trace of either."""
    chatter = logging.getLogger("lightning.fabric")
    level = chatter.level
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.filterwarnings("ignore", module="lightning")
        chatter.setLevel(logging.ERROR)
        torch.manual_seed(seed)
        torch.set_flush_denormal(True)  # or tiny gradients make the backward pass four times slower
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            chatter.setLevel(level)
