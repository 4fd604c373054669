"""Where Lightning's processes run; imported with Lightning, and in each process that it starts."""

from __future__ import annotations

import logging

from lightning.fabric.plugins.environments import LightningEnvironment


class OneMachine(LightningEnvironment):
    """One machine, whatever SLURM's variables say; its processes do not tell that they begin."""

    def set_global_rank(self, rank: int) -> None:
        """Take a number, which each process gets before it joins the others."""
        for name in ("lightning.fabric", "lightning.pytorch"):
            logging.getLogger(name).setLevel(logging.ERROR)
        super().set_global_rank(rank)
