"""Train any link end to end, through its channel, on Lightning.

    payload ─► batch of step i ─► link at random SNR ─► task.loss ─► optimiser ─► average of weights

Batch, augmentation, SNR, fading and noise of step i depend on the seed and on i alone, so a
training that was stopped and resumed is bit for bit the one that was not.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from semsim.files.disk import Damaged, locked, set_aside, write_atomic
from semsim.link import Link
from semsim.stopping import Postponed
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.learner import Batches, State, lightning_module, low_memory_if

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainSpec:
    """How to train; the fields are the keys of ``train:`` in a scenario.

    Args:
        steps: optimiser steps.
        minutes: train for so long instead of ``steps``; the learning rate follows the clock.
        batch_size: items per step.
        lr: peak learning rate; it rises over ``warmup`` and falls to 0 as a cosine.
        optimiser: ``adamw`` or ``muon`` (for hidden matrices, Adam for the rest).
        warmup: share of the training in which the learning rate rises.
        snr_db: one SNR, or the two ends between which each item draws its own.
        crop: side of random square crops of images; null for whole items.
        flip: mirror half of the images.
        precision: ``32``, or ``bf16``: the networks under autocast, the channel always in fp32.
        memory: ``low`` keeps less for the backward pass, see :mod:`semsim.nn.lowmem`; outputs are
            the same, gradients of GELU and SiLU approximate. ``low_memory.txt`` says what changed.
        ema: decay of the average of the weights that is kept in the end; 0 keeps the last.
        clip: largest norm of the gradient.
        val_every: steps between validations, where there is a payload for them.
        val_snr_db: SNRs of the validation.
        val_items: items of the validation.
        save_every: steps between checkpoints.
        log: ``csv`` or ``tensorboard``.
    """

    steps: int = 20_000
    minutes: float | None = None
    batch_size: int = 64
    lr: float = 1e-3
    optimiser: Literal["adamw", "muon"] = "adamw"
    warmup: float = 0.02
    snr_db: float | tuple[float, float] = (0.0, 20.0)
    crop: int | None = None
    flip: bool = True
    precision: Literal["32", "bf16"] = "32"
    memory: Literal["normal", "low"] = "normal"
    ema: float = 0.999
    clip: float = 1.0
    val_every: int = 1000
    val_snr_db: tuple[float, ...] = (0.0, 10.0, 20.0)
    val_items: int = 200
    save_every: int = 500
    log: Literal["csv", "tensorboard"] = "csv"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "val_every", "val_items", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number > 0, got {value}")
        if not self.clip > 0:
            raise ValueError(f"clip must be > 0, got {self.clip}")
        for name in ("ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        low, high = self.snr_range()
        for name, snrs in {"snr_db": (low, high), "val_snr_db": self.val_snr_db}.items():
            if not snrs or not all(abs(snr) <= 200 for snr in snrs):
                got = getattr(self, name)
                raise ValueError(f"{name} must lie between -200 and 200 dB, got {got}")
        if low > high:
            raise ValueError(f"snr_db goes from low to high, got {low} to {high}; swap them")

    def snr_range(self) -> tuple[float, float]:
        """Return the lowest and the highest SNR in dB."""
        if isinstance(self.snr_db, int | float):
            return float(self.snr_db), float(self.snr_db)
        low, high = self.snr_db
        return float(low), float(high)


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Args:
        steps: steps in all, with those before a resume.
        minutes: time spent on them.
        loss: mean over the last hundred steps of this run; nan where it had none.
        curve: validation rows of this run, each with ``step``.
        weights: the file with the averaged weights, where the link has two ends.
    """

    steps: int
    minutes: float
    loss: float
    curve: list[dict[str, Any]] = field(default_factory=list)
    weights: Path | None = None


def train(
    link: nn.Module,
    payload: Any,
    task: nn.Module | None = None,
    spec: TrainSpec | None = None,
    *,
    folder: str | Path,
    seed: int = 0,
    validation: Any = None,
    resume: bool = True,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> TrainResult:
    """Train a link and its task, and leave the averaged weights in them.

    Ctrl-C and SIGTERM finish the step and save, and then do what they always do; the same call
    goes on from there. A checkpoint that is damaged is set aside, and the training starts anew.

    Args:
        link: any module with ``transmit``; its channel and front end are trained through.
        payload: items (source, target).
        task: gives the loss; reconstruction by MSE by default.
        spec: how to train.
        folder: where checkpoint, log, validation curve and weights go.
        seed: decides every random number of the training.
        validation: payload for the curve over SNR of PSNR, of the task's PSNR where items have a
            reference image, of accuracy where they have a class; none by default.
        resume: go on from the folder's checkpoint where there is one.
        device: where to train.
        progress: show a progress bar, where the screen is a terminal.
    """
    task, spec, folder = task or Reconstruct(), spec or TrainSpec(), Path(folder)
    if any(parameter.requires_grad for parameter in task.parameters(recurse=False)):
        raise ValueError(
            f"{type(task).__name__} trains parameters of its own; hold them in a module, such as "
            "self.network, whose weights can be kept and loaded"
        )
    link.to(device), task.to(device)
    with locked(folder):
        with low_memory_if(spec.memory == "low", link, task, folder):
            state = State(link, task, spec, seed)
            if resume:
                _resume(state, folder / CHECKPOINT)
            watch = _Watch(state, folder, validation)
            with watch.signals.noting():
                if state.progress() < 1:
                    _fit(state, payload, watch, folder, torch.device(device), progress)
                state.save(folder / CHECKPOINT)
            watch.signals.obey()
            state.nets.load_state_dict(state.average)
            state.nets.eval()
        weights = _write_weights(state, folder)
    recent = watch.losses[-100:]
    loss = sum(recent) / len(recent) if recent else math.nan
    return TrainResult(state.steps, state.seconds / 60, loss, watch.curve, weights)


def _resume(state: State, checkpoint: Path) -> None:
    """Go on from a checkpoint where there is a sound one."""
    if checkpoint.is_file():
        try:
            state.load(checkpoint)
        except Damaged as error:
            set_aside(checkpoint, error, then="the training starts anew")


class _Watch:
    """What happens after each step: losses, checkpoints, validation, and when to stop."""

    def __init__(self, state: State, folder: Path, validation: Any) -> None:
        self.state, self.folder, self.validation = state, folder, validation
        self.losses: list[float] = []
        self.curve = _curve_so_far(folder, state.steps)
        self.signals = Postponed()

    def __call__(self, loss: float) -> bool:
        """Note the loss of a step; return True to stop."""
        state, spec = self.state, self.state.spec
        if not math.isfinite(loss):
            first = "before anything was learned, so look at the payload's values and the task"
            cure = first if state.steps == 1 else f"lower lr (now {spec.lr}) or clip"
            raise ValueError(f"the loss became {loss} at step {state.steps}; {cure}")
        self.losses.append(loss)
        if state.steps % spec.save_every == 0:
            state.save(self.folder / CHECKPOINT)
        done = state.progress() >= 1
        if self.validation is not None and (done or state.steps % spec.val_every == 0):
            self.validate()
        return done or self.signals.received is not None

    def validate(self) -> None:
        """Measure the averaged weights and append to ``validation.csv``."""
        import pandas

        from semsim.evaluation import Stop, evaluate

        state, spec = self.state, self.state.spec
        with state.averaged():
            rows = evaluate(
                state.nets["link"], self.validation, snr_db=spec.val_snr_db,
                metrics=[judge(*self.validation[0])], task=state.nets["task"],
                stop=Stop(1, min(spec.val_items, len(self.validation))), seed=state.seed,
            )  # fmt: skip
        keep = ("snr_db", "metric", "value", "ci_low", "ci_high", "n")
        self.curve += [{"step": state.steps, **{k: row[k] for k in keep}} for row in rows]
        text = pandas.DataFrame(self.curve).to_csv(index=False)
        write_atomic(self.folder / "validation.csv", text)


def judge(source: torch.Tensor, target: Any) -> str:
    """Return the kind of metric that a validation shows for such items."""
    if not isinstance(target, torch.Tensor):
        return "accuracy"
    return "task_psnr" if target is not source and target.shape == source.shape else "psnr"


def _curve_so_far(folder: Path, steps: int) -> list[dict[str, Any]]:
    """Return the validation rows of the steps that a resumed training has behind it."""
    path = folder / "validation.csv"
    if not steps or not path.is_file():
        return []
    import pandas

    rows = pandas.read_csv(path, float_precision="round_trip")
    return rows[rows["step"] <= steps].to_dict("records")  # type: ignore[return-value]


def _fit(
    state: State, payload: Any, watch: _Watch, folder: Path, device: torch.device, progress: bool
) -> None:
    import lightning
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from lightning.pytorch.plugins.environments import LightningEnvironment

    logger = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}[state.spec.log]
    batches = Batches(payload, state.spec, state.seed, state.steps)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    with _alone(state.seed):
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, max_epochs=1,
            gradient_clip_val=state.spec.clip, logger=logger(folder, name="log"),
            enable_checkpointing=False, enable_progress_bar=progress and sys.stdout.isatty(),
            enable_model_summary=False, log_every_n_steps=20,
            plugins=[LightningEnvironment()],  # or SLURM's variables ask for several processes
        )  # fmt: skip
        trainer.fit(lightning_module(state, watch, watch.signals.listen), loader)


@contextlib.contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Seed torch and quieten Lightning for a while, and leave no trace of either."""
    chatter = logging.getLogger("lightning.pytorch")
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


def _write_weights(state: State, folder: Path) -> Path | None:
    """Write both ends, and beside them the parts of a task that was trained too."""
    from semsim import zoo

    link, task = state.nets["link"], state.nets["task"]
    facts = {"steps": state.steps, "minutes": round(state.seconds / 60, 2)}
    if any(p.requires_grad for p in task.parameters()):
        zoo.export_parts(folder / zoo.OF_TASK, dict(task.named_children()), facts)
    parts = link.parts() if isinstance(link, Link) else {}
    if not {"transmitter", "receiver"} <= parts.keys():
        return None
    return zoo.export_parts(folder / "weights.safetensors", parts, facts)
