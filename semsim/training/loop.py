"""Train any link end to end, through its channel, with Lightning Fabric.

    payload ─► batch of step i ─► link at random SNR ─► task.loss ─► optimiser ─► average of weights

Batch, augmentation, SNR, fading and noise of step i depend on the seed and on i alone, so a
training that was stopped and resumed is bit for bit the one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from semsim.evaluation import check_link, check_task, device_of
from semsim.files.disk import locked, log_all
from semsim.nn.modes import to_training
from semsim.stopping import Postponed
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.card import write_weights
from semsim.training.fabric import alone, fabric_for
from semsim.training.learner import Batches, Step, low_memory_if
from semsim.training.processes import agreed, in_processes
from semsim.training.screen import Screen
from semsim.training.spec import TrainSpec
from semsim.training.state import CHECKPOINT, UNDECAYED, State, frozen
from semsim.training.validation import curve_so_far, validation_rows, write_curve
from semsim.types import AnyLink

SAVE_SECONDS = 300.0  #: between checkpoints at most
LOG_EVERY = 20  #: steps between rows of the log


class Diverged(ValueError):
    """The loss is no finite number any more."""


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Args:
        steps: steps in all, with those before a resume.
        minutes: time spent on them.
        loss: mean over the last hundred steps of this run; nan where it had none.
        curve: validation rows, those before a resume too, each with ``step``.
        weights: the file with the averaged weights, where the link has two ends.
    """

    steps: int
    minutes: float
    loss: float
    curve: list[dict[str, Any]] = field(default_factory=list)
    weights: Path | None = None


def train(
    link: AnyLink,
    payload: Any,
    task: nn.Module | None = None,
    spec: TrainSpec | None = None,
    *,
    folder: str | Path,
    seed: int = 0,
    validation: Any = None,
    progress: bool | str = False,
) -> TrainResult:
    """Train a link and its task, and leave the averaged weights in them.

    Ctrl-C and SIGTERM finish the step and save, and then do what they always do; the same call
    goes on from there. A checkpoint that is damaged is set aside, and the one before it is taken.

    Args:
        link: a Link, or your own ``AnyLink``, trained where it is, through its channel and front
            end. A task that is trained alone needs none: ``AnyLink()``, on a GPU
            ``AnyLink().to("cuda")``.
        payload: items (source, target).
        task: gives the loss; reconstruction by MSE by default.
        spec: how to train.
        folder: where checkpoint, log, validation curve and weights go.
        seed: decides every random number of the training.
        validation: payload for the curve over SNR of PSNR, of the task's PSNR where items have a
            reference image, of accuracy where they have a class; none by default. It picks nothing.
        progress: say on the screen how far it is; a word is what it calls the training.
    """
    make = partial(
        Training, link, payload, task, spec, folder=folder, seed=seed, validation=validation
    )
    if spec is not None and spec.processes > 1:
        fabric = fabric_for(device_of(link), Path(folder), spec.log, spec.processes)
        in_processes(fabric, make, progress)  # what they have saved is the state below
    with make() as training:
        training.screen = Screen(progress)
        training.advance()
        return training.finish()


class Training:
    """A training in pieces, such as those of a federated client between two rounds.

        with Training(link, payload, spec=spec) as client:
            for _ in range(rounds):
                client.take(weights_of_the_server)
                client.advance(5)
                send(client.weights())

    Pieces of any length give what one piece gives, bit for bit; in several processes up to how
    their sums of gradients are rounded.

    Args:
        link, payload, task, spec, seed, validation: as for :func:`train`.
        folder: where checkpoint, log, validation curve and weights go; None keeps nothing.
        fabric: Lightning Fabric of this process where several train together.
    """

    def __init__(
        self,
        link: AnyLink,
        payload: Any,
        task: nn.Module | None = None,
        spec: TrainSpec | None = None,
        *,
        folder: str | Path | None = None,
        seed: int = 0,
        validation: Any = None,
        fabric: Any = None,
    ) -> None:
        self.task, self.spec = task or Reconstruct(), spec or TrainSpec()
        check_link(link)
        check_task(self.task)
        if any(parameter.requires_grad for parameter in self.task.parameters(recurse=False)):
            raise ValueError(
                f"{type(self.task).__name__} trains parameters of its own; hold them in a module, "
                "such as self.network, whose weights can be kept and loaded"
            )
        self.link, self.payload, self.validation = link, payload, validation
        self.folder = None if folder is None else Path(folder)
        self.seed, self.device = seed, device_of(link)
        self.share = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
        self.first = self.share[0] == 0  # only it writes and speaks
        self.screen = Screen(False)  #: says nothing until another is put here
        self.losses: list[float] = []
        self.state: State
        self._fabric = fabric
        self._decays = False  #: the state before the decay is kept
        self._held, self._changed = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as held, contextlib.ExitStack() as changed:
            spec, folder = self.spec, self.folder
            if folder is not None and self.first:
                held.enter_context(locked(folder))
            self._fabric = self._fabric or fabric_for(self.device, folder, spec.log)
            self.device = self._fabric.device
            self.link.to(self.device), self.task.to(self.device)
            to_training(self.link, self.task)  # weights of the zoo come in evaluation
            wants_less = spec.memory == "low"
            changed.enter_context(low_memory_if(wants_less, self.link, self.task, folder))
            changed.enter_context(frozen(self.link, self.task, spec.rates or {}))
            self.state = State(self.link, self.task, spec, self.seed, self.share)
            if folder is not None:
                self.state.resume(folder)
                if self.first:
                    self._go_on_with_curve(folder)
                begun = self.state.progress() >= 1 - spec.decay
                self._decays = begun and (folder / UNDECAYED).is_file()
            if self.first and not self.state.steps:
                log_all(self.state.remarks)
            self._batches = Batches(self.payload, spec, self.seed, self.share)
            self._saved, self._kept = self.state.seconds, self.state.steps
            step = Step(self.state, self._batches)
            self._step, self._optimiser = self._fabric.setup(step, self.state.optimiser)
            self._held, self._changed = held.pop_all(), changed.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for logger in self._fabric.loggers:
            logger.finalize("success" if error[0] is None else "failed")
        self._changed.close()
        self._held.close()

    def advance(self, steps: int | None = None) -> float:
        """Take so many steps, or all that are left; return the mean loss of these.

        A signal finishes the step at hand and saves; then it is obeyed.
        """
        signals = Postponed()
        mean = self.advance_until(signals, steps)
        signals.obey()
        return mean

    def advance_until(self, signals: Postponed, steps: int | None = None) -> float:
        """Advance, at most until a signal is noted, which is left for the caller to obey."""
        state, begun = self.state, self.state.steps
        until = math.inf if steps is None else begun + steps
        if state.progress() < 1:
            self.screen.begin(self.spec, begun, self.folder)
        with alone(self.seed), signals.noting():
            clock = time.perf_counter()
            while state.progress() < 1 and state.steps < until and signals.received is None:
                loss = self._one_step()
                now = time.perf_counter()
                state.seconds += now - clock
                if self.share[1] > 1:
                    state.seconds, signals.received = agreed(
                        self._fabric, state.seconds, signals.received
                    )
                self._after_step(loss)
                clock = time.perf_counter()  # validations and checkpoints do not count
        self.save()
        recent = self.losses[len(self.losses) - (state.steps - begun) :]
        mean = sum(recent) / len(recent) if recent else math.nan
        if state.steps > begun:
            self.screen.end(state.progress(), state.steps, mean)
        return mean

    def _one_step(self) -> float:
        """Take one step and return its loss."""
        state, fabric = self.state, self._fabric
        state.set_rate()
        self._keep_undecayed()
        loss = self._step(state.steps)
        self._optimiser.zero_grad()
        fabric.backward(loss)
        fabric.clip_gradients(
            self._step, self._optimiser, max_norm=self.spec.clip, error_if_nonfinite=False
        )
        self._optimiser.step()
        self.task.after_step()  # type: ignore[operator]
        state.steps += 1
        return loss.item()

    def _keep_undecayed(self) -> None:
        """Keep the state before the decay begins, from which another training can go on."""
        spec, folder = self.spec, self.folder
        if folder is None or not self.first or not spec.decay or self._decays:
            return
        if self.state.progress() >= 1 - spec.decay:
            self.state.save(folder / UNDECAYED)
            self._decays = True

    def _after_step(self, loss: float) -> None:
        """Note the loss of a step; average, validate and save where it is time."""
        state, spec = self.state, self.spec
        state.follow()
        if not math.isfinite(loss):
            first = "before anything was learned, so look at the payload's values and the task"
            cure = first if state.steps == 1 else f"lower lr (now {spec.lr}) or clip"
            raise Diverged(f"the loss became {loss} at step {state.steps}; {cure}")
        self.losses.append(loss)
        self.screen.step(state.progress(), state.steps, loss)
        if state.steps % LOG_EVERY == 0:
            recent = self.losses[-LOG_EVERY:]
            self._fabric.log("loss", sum(recent) / len(recent), state.steps)
        done = state.progress() >= 1
        if self.first and (done or state.steps % spec.val_every == 0):
            self.validate()  # before the checkpoint, after which nobody would come back to it
        due = spec.save_every is not None and state.steps % spec.save_every == 0
        if due or state.seconds - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, where the training has a folder and went on since the last one."""
        state, path = self.state, None if self.folder is None else self.folder / CHECKPOINT
        if path is not None and self.first and (state.steps > self._kept or not path.is_file()):
            state.save(path)
            self._saved, self._kept = state.seconds, state.steps

    def validate(self) -> None:
        """Measure the averaged weights and append to ``validation.csv``, where that is asked."""
        if self.validation is None:
            return
        self.state.curve += validation_rows(self.state, self.validation)
        if self.folder is not None:
            write_curve(self.folder, self.state.curve)

    def _go_on_with_curve(self, folder: Path) -> None:
        """Let state and ``validation.csv`` hold the validations of the steps before a resume."""
        state = self.state
        if not state.holds_curve:
            state.curve = curve_so_far(folder, state.steps, warn=self.validation is not None)
        elif state.curve:
            write_curve(folder, state.curve)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of link and task as they are now, without the average."""
        return {k: v.detach().clone() for k, v in self.state.nets.state_dict().items()}

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from these weights, as :meth:`weights` names them; the average begins with them.

        The optimiser keeps its moments.
        """
        try:
            self.state.nets.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(
                "these weights are not those of this link and task; give what weights() of such a "
                "training returned"
            ) from error
        for name, value in self.state.nets.state_dict().items():
            self.state.average[name].copy_(value)

    def finish(self) -> TrainResult:
        """End: leave the averaged weights in link and task, write them, say what was done."""
        state = self.state
        state.nets.load_state_dict(state.average)
        self._changed.close()  # files hold the ordinary layout, and what was frozen too
        state.nets.eval()
        self.task.after_training(self.payload, self.validation)  # type: ignore[operator]
        weights = None if self.folder is None else write_weights(state, self.folder)
        recent = self.losses[-100:]
        loss = sum(recent) / len(recent) if recent else math.nan
        return TrainResult(state.steps, state.seconds / 60, loss, state.curve, weights)
