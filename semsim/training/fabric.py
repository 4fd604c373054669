"""Lightning Fabric around the loop: device, log and quiet; no more of Lightning is used."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch


def fabric_for(device: torch.device, folder: Path | None, log: str) -> Any:
    """Return Lightning Fabric for one device, with a log where there is a folder for it."""
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
    from lightning.fabric.plugins.environments import LightningEnvironment

    loggers: dict[str, Any] = {
        "csv": partial(CSVLogger, flush_logs_every_n_steps=1),
        "tensorboard": TensorBoardLogger,
    }
    is_numbered = device.type == "cuda" and device.index is not None
    return Fabric(
        accelerator=device.type, devices=[device.index] if is_numbered else 1,
        loggers=[] if folder is None else [loggers[log](folder, name="log")],
        plugins=[LightningEnvironment()],  # or SLURM's variables ask for several processes
    )  # fmt: skip


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
