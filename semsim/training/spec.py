"""How to train, as values: the settings of ``train:``, and the learning rate that follows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

from semsim.mistakes import check_choices


@dataclass(frozen=True)
class TrainSpec:
    """How to train; the fields are the keys of ``train:`` in a scenario.

    Args:
        steps: optimiser steps.
        minutes: train for so long instead of ``steps``; the learning rate follows the clock.
        batch_size: items per step.
        lr: peak learning rate.
        optimiser: ``adamw`` or ``muon`` (for hidden matrices, Adam for the rest).
        warmup: share of the training in which the learning rate rises, or, from 1 on, steps.
        schedule: after it ``cosine`` falls to 0; ``constant`` keeps the peak until the decay.
        decay: last share of a ``constant`` training, in which the rate falls to 0 in a straight
            line. ``undecayed.pt`` keeps the state before it, for another training to start from.
        start: weights to begin with: names of shipped ones or .safetensors files, taken over tensor
            by tensor where names and shapes agree; or one .pt file, with averages and optimiser.
        cut: of a larger tensor in ``start`` take the leading part.
        rates: factors on ``lr`` by the start of parameter names, such as ``{transmitter: 0.1}``;
            0 freezes, and puts those modules in evaluation mode.
        snr_db: one SNR, or the two ends between which each item draws its own.
        snr_peak: mean in dB, standard deviation in dB and share of the items whose SNR is drawn
            around that mean instead.
        through: ``link``, or ``task`` for a loss of the task alone, on items that nothing sent.
        crop: side of random square crops of images; null for whole items.
        shift: move images by up to so many pixels in each direction; what comes in is mirrored.
        flip: mirror half of the images, where targets are images or classes; of others, such as
            corners, none.
        turn: turn each image, and its reference alike, by a random number of quarters.
        precision: ``32``, or ``bf16``: the networks under autocast, the channel always in fp32.
        memory: ``low`` keeps less for the backward pass, see :mod:`semsim.nn.lowmem`; outputs are
            the same, gradients of GELU and SiLU approximate. ``low_memory.txt`` says what changed.
        processes: train in so many processes, each on its share of every batch and, with device
            cuda, on a GPU of its own; their gradients are averaged in each step.
        ema: decay of the average of the weights that is kept in the end; 0 keeps the last.
        clip: largest norm of the gradient.
        val_every: steps between validations, where there is a payload for them.
        val_snr_db: SNRs of the validation.
        val_items: items of the validation.
        save_every: steps between checkpoints; one is written every five minutes anyway.
        log: ``csv`` or ``tensorboard``.
    """

    steps: int = 20_000
    minutes: float | None = None
    batch_size: int = 64
    lr: float = 1e-3
    optimiser: Literal["adamw", "muon"] = "adamw"
    warmup: float = 0.02
    schedule: Literal["cosine", "constant"] = "cosine"
    decay: float = 0.0
    start: str | tuple[str, ...] | None = None
    cut: bool = False
    rates: dict[str, float] | None = None
    snr_db: float | tuple[float, float] = (0.0, 20.0)
    snr_peak: tuple[float, float, float] | None = None
    through: Literal["link", "task"] = "link"
    crop: int | None = None
    shift: int = 0
    flip: bool = True
    turn: bool = False
    precision: Literal["32", "bf16"] = "32"
    memory: Literal["normal", "low"] = "normal"
    processes: int = 1
    ema: float = 0.999
    clip: float = 1.0
    val_every: int = 1000
    val_snr_db: tuple[float, ...] = (0.0, 10.0, 20.0)
    val_items: int = 200
    save_every: int | None = None
    log: Literal["csv", "tensorboard"] = "csv"

    def __post_init__(self) -> None:
        check_choices(self)
        if isinstance(self.start, os.PathLike):  # as a training returns its weights
            object.__setattr__(self, "start", os.fspath(self.start))
        whole = ("steps", "batch_size", "processes", "val_every", "val_items", "save_every", "crop")
        for name in whole:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("lr", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number > 0, got {value}")
        if not self.clip > 0:
            raise ValueError(f"clip must be > 0, got {self.clip}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        if self.shift < 0 or (self.shift and self.crop is not None):
            raise ValueError(
                f"shift moves whole images by 0 or more pixels, got {self.shift} and crop "
                f"{self.crop}; leave one of them out"
            )
        if self.batch_size % self.processes:
            raise ValueError(
                f"processes must split batch_size {self.batch_size} evenly, got {self.processes}"
            )
        self._check_schedule()
        self._check_snrs()

    def _check_schedule(self) -> None:
        if not 0 <= self.warmup < math.inf:
            raise ValueError(f"warmup must be a share below 1, or steps, got {self.warmup}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")
        if self.decay and self.schedule != "constant":
            raise ValueError("decay belongs to schedule: constant; a cosine falls all the time")
        for name, factor in (self.rates or {}).items():
            if not 0 <= factor < math.inf:
                raise ValueError(
                    f"rates must be finite numbers of at least 0, got {name}: {factor}"
                )
        starts = self.starts()
        if len(starts) > 1 and any(name.endswith(".pt") for name in starts):
            raise ValueError(
                f"start takes one checkpoint alone, which holds all weights, got {list(starts)}; "
                "name the .pt file, or files of weights"
            )
        if self.cut and not self.start:
            raise ValueError(
                "cut says how to take over start, which is missing; name weights in start"
            )

    def _check_snrs(self) -> None:
        low, high = self.snr_range()
        for name, snrs in {"snr_db": (low, high), "val_snr_db": self.val_snr_db}.items():
            if not snrs or not all(abs(snr) <= 200 for snr in snrs):
                got = getattr(self, name)
                raise ValueError(f"{name} must lie between -200 and 200 dB, got {got}")
        if len(set(self.val_snr_db)) < len(self.val_snr_db):
            got = list(self.val_snr_db)
            raise ValueError(f"val_snr_db names an SNR twice, got {got}; write each once")
        if low > high:
            raise ValueError(f"snr_db goes from low to high, got {low} to {high}; swap them")
        if self.snr_peak is not None:
            mean, spread, share = self.snr_peak
            if not (abs(mean) <= 200 and 0 <= spread <= 100 and 0 <= share <= 1):
                raise ValueError(
                    "snr_peak is a mean in dB, a standard deviation in dB and a share of the "
                    f"items, such as [10, 2, 0.3], got {list(self.snr_peak)}"
                )

    def snr_range(self) -> tuple[float, float]:
        """Return the lowest and the highest SNR in dB."""
        if isinstance(self.snr_db, int | float):
            return float(self.snr_db), float(self.snr_db)
        low, high = self.snr_db
        return float(low), float(high)

    def starts(self) -> tuple[str, ...]:
        """Return what the training begins with, in the order in which it is taken over."""
        if self.start is None:
            return ()
        return (self.start,) if isinstance(self.start, str) else tuple(self.start)

    def rate(self, progress: float, steps: int) -> float:
        """Return the learning rate relative to its peak, at a share of the training in [0, 1].

        Args:
            progress: share of the training that is done.
            steps: how many steps are done, for a warm-up in steps.
        """
        rise = min(1.0, (steps + 1) / self.warmup) if self.warmup >= 1 else 1.0
        warmup = 0.0 if self.warmup >= 1 else self.warmup
        if self.schedule == "cosine":
            return rise * rate(progress, warmup)
        fall = min(1.0, (1 - progress) / self.decay) if self.decay else 1.0
        return rise * rising(progress, warmup) * max(fall, 0.0)


def rising(progress: float, warmup: float) -> float:
    """Return how far a warm-up over a share of the training has come."""
    return min(1.0, progress / warmup) if warmup else 1.0


def rate(progress: float, warmup: float) -> float:
    """Return the learning rate relative to its peak: it rises, then falls to 0 as a cosine."""
    return rising(progress, warmup) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


#: settings that change no weight, so that a training may go on under others
OF_NO_WEIGHT = ("val_every", "val_snr_db", "val_items", "save_every", "log")


def deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the weights depend on; those left out are at their defaults."""
    known = {**vars(TrainSpec()), **settings}
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
    return {k: v for k, v in plain.items() if k not in OF_NO_WEIGHT}
