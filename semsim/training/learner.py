"""The inside of a training: batches by step, bf16 around the networks, state on disk, the loop."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from semsim.evaluation import prepared
from semsim.files.disk import check_seal, sealed_file, write_atomic
from semsim.nn import muon
from semsim.payloads.items import check_image, pair
from semsim.seeds import stream

if TYPE_CHECKING:
    from semsim.training.loop import TrainSpec


class Batches(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """The batches of steps ``start``, ``start + 1``, ...; each depends on the seed and its step."""

    def __init__(self, payload: Any, spec: TrainSpec, seed: int, start: int) -> None:
        super().__init__()
        if not len(payload):
            raise ValueError("the payload is empty; there is nothing to train on")
        self.payload, self.spec, self.seed, self.start = payload, spec, seed, start
        self._order = functools.lru_cache(2)(self._shuffle)

    def _shuffle(self, epoch: int) -> list[int]:
        generator = stream(self.seed, "order", epoch)
        return torch.randperm(len(self.payload), generator=generator).tolist()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        step = self.start
        while self.spec.minutes is not None or step < self.spec.steps:
            yield *self.batch(step), step
            step += 1

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return sources and targets of a step."""
        generator = stream(self.seed, "augment", step)
        sources, targets = [], []
        for position in range(step * self.spec.batch_size, (step + 1) * self.spec.batch_size):
            epoch, place = divmod(position, len(self.payload))
            index = self._order(epoch)[place]
            source, target = pair(self.payload[index], index)
            if position == self.start * self.spec.batch_size:
                check_image(source)
            source, target = self._augment(source, target, generator)
            sources.append(source)
            targets.append(torch.as_tensor(target))
        if len({s.shape for s in sources}) > 1:
            shapes = sorted({tuple(s.shape) for s in sources})[:2]
            raise ValueError(f"items differ in shape, such as {shapes}; set train.crop")
        return torch.stack(sources), torch.stack(targets)

    def _augment(
        self, source: Tensor, target: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Crop and mirror an image, and its reference alike; a class stays what it is."""
        shape = torch.as_tensor(target).shape
        is_image = len(shape) > 1 and shape[-2:] == source.shape[-2:]
        if source.dim() != 3 or not (is_image or len(shape) == 0):
            if self.spec.crop is not None:
                raise ValueError(
                    "crop cuts images, and targets that are images or classes; here items are "
                    f"{list(source.shape)} and targets {list(shape)}; leave train.crop out"
                )
            return source, target  # a target such as a corner's place would have to move along
        cut = self._window(source, generator)
        mirror = self.spec.flip and torch.rand((), generator=generator) < 0.5

        def changed(image: Tensor) -> Tensor:
            return image[cut].flip(-1) if mirror else image[cut]

        image = changed(source)
        if target is source:
            return image, image
        return image, changed(target) if is_image else target

    def _window(self, source: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        """Return the place of a random square crop, or of the whole image."""
        if (side := self.spec.crop) is None:
            return (...,)
        if min(source.shape[1:]) < side:
            raise ValueError(
                f"crop {side} is larger than an image of {list(source.shape)}; write at most "
                f"{min(source.shape[1:])}"
            )
        top, left = (
            int(torch.randint(n - side + 1, (), generator=generator)) for n in source.shape[1:]
        )
        return (..., slice(top, top + side), slice(left, left + side))


@contextlib.contextmanager
def networks_in_bf16(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Run these modules under bf16 autocast and hand out fp32; what lies between stays as it is."""
    handles = []
    for module in modules:
        cast = torch.autocast(device.type, dtype=torch.bfloat16)

        def enter(_module: nn.Module, _args: Any, cast: torch.autocast = cast) -> None:
            cast.__enter__()

        def leave(_module: nn.Module, _args: Any, output: Any, cast: torch.autocast = cast) -> Any:
            cast.__exit__(None, None, None)
            low = isinstance(output, Tensor) and output.dtype == torch.bfloat16
            return output.float() if low else output

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def low_memory_if(wanted: bool, link: nn.Module, task: nn.Module, folder: Path) -> Iterator[None]:
    """Convert link and task for a while, and report; they leave in the layout they came in."""
    if not wanted:
        yield
        return
    from semsim.nn.lowmem import low_memory, restore

    nets = nn.ModuleDict({"link": link, "task": task})
    report = low_memory(nets)
    write_atomic(folder / "low_memory.txt", f"{report}\n")
    try:
        yield
    finally:
        restore(nets)


def rate(progress: float, warmup: float) -> float:
    """Return the learning rate relative to its peak; ``progress`` runs from 0 to 1."""
    rise = min(1.0, progress / warmup) if warmup else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class State:
    """Everything that a training carries from step to step, on disk and back."""

    def __init__(self, link: nn.Module, task: nn.Module, spec: TrainSpec, seed: int) -> None:
        self.nets = nn.ModuleDict({"link": link, "task": task})
        self.spec, self.seed = spec, seed
        self.steps, self.seconds = 0, 0.0
        self.average = copy.deepcopy(self.nets.state_dict())
        parameters = [p for p in self.nets.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("nothing to train: neither the link nor the task has parameters")
        self.optimiser: torch.optim.Optimizer
        if spec.optimiser == "muon":
            self.optimiser = muon.Muon(muon.groups(self.nets), lr=spec.lr)
        else:
            self.optimiser = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=1e-4)

    def progress(self) -> float:
        """Return the share of the training that is done."""
        if self.spec.minutes is not None:
            return self.seconds / (60 * self.spec.minutes)
        return self.steps / self.spec.steps

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average follow the weights; faster at first, so that it forgets the start."""
        decay = min(self.spec.ema, (1 + self.steps) / (10 + self.steps)) if self.spec.ema else 0.0
        for name, value in self.nets.state_dict().items():
            mean = self.average[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the networks for a while."""
        live = copy.deepcopy(self.nets.state_dict())
        self.nets.load_state_dict(self.average)
        try:
            yield
        finally:
            self.nets.load_state_dict(live)

    def save(self, path: Path) -> None:
        """Write the checkpoint in one go."""
        content = {
            "nets": self.nets.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "seed": self.seed,
            "spec": asdict(self.spec),
        }
        with sealed_file(path) as file:
            torch.save(content, file)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same training; anything else is refused."""
        check_seal(path)
        content = torch.load(path, weights_only=True)
        # settings that are younger than the checkpoint had what is now their default
        theirs = {**asdict(type(self.spec)()), **content["spec"]}
        if (content["seed"], theirs) != (self.seed, asdict(self.spec)):
            raise ValueError(
                f"{path} belongs to a training with other settings; choose another folder, or "
                "delete it to start anew"
            )
        self.nets.load_state_dict(content["nets"])
        self.average = content["average"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.steps, self.seconds = content["steps"], content["seconds"]


def step_loss(state: State, source: Tensor, target: Tensor, step: int) -> Tensor:
    """Return the loss of one step; all that is random comes from the seed and the step."""
    spec = state.spec
    link: Any = state.nets["link"]
    task: Any = state.nets["task"]
    low, high = spec.snr_range()
    unit = torch.rand(len(source), generator=stream(state.seed, "snr", step))
    snr_db = (low + (high - low) * unit).to(source.device)
    ends = [getattr(link, n, None) for n in ("transmitter", "receiver")]
    networks = [m for m in (*ends, task) if isinstance(m, nn.Module)] or [link]
    low_precision = spec.precision == "bf16"
    # for what parts draw without a generator, such as a dropout or the rate of a Swin codec
    torch.manual_seed(int(torch.randint(2**62, (), generator=stream(state.seed, "torch", step))))
    with networks_in_bf16(networks if low_precision else [], source.device):
        generator = stream(state.seed, "train", step, device=source.device)
        source = prepared(task, source)
        sent = link.transmit(source, snr_db, generator)
        outputs = [task(s.estimate) for s in (sent if isinstance(sent, tuple) else (sent,))]
    losses = [  # of several users, who send the batch shifted by one item each
        task.loss(output, source.roll(-user, 0), target.roll(-user, 0))
        if user
        else task.loss(output, source, target)
        for user, output in enumerate(outputs)
    ]
    loss = sum(losses) / len(losses)
    return loss + auxiliary_loss(link, state.progress())


def auxiliary_loss(link: nn.Module, progress: float) -> Tensor | float:
    """Return the sum of what the parts of a link ask of themselves, beside the task; 0 for most.

    Args:
        link: any module within it may define ``auxiliary_loss(progress)``, which returns a scalar
            that depends on what the module kept from its latest forward pass.
        progress: share of the training that is done, 0 to 1, for losses that come in phases.
    """
    asked = (getattr(module, "auxiliary_loss", None) for module in link.modules())
    return sum(part(progress) for part in asked if part is not None)


def lightning_module(
    state: State, after_step: Callable[[float], bool], on_start: Callable[[], None]
) -> Any:
    """Return the LightningModule around the state; it stops when ``after_step`` says so."""
    import lightning

    task: Any = state.nets["task"]

    class Learner(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.nets = state.nets
            self.clock = time.perf_counter()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return state.optimiser

        def on_train_start(self) -> None:
            on_start()

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            share = rate(state.progress(), state.spec.warmup)
            for group in state.optimiser.param_groups:
                group["lr"] = state.spec.lr * share

        def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
            source, target, step = batch
            loss = step_loss(state, source, target, step)
            self.log("loss", loss)
            return loss

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            task.after_step()
            state.steps += 1
            now = time.perf_counter()
            state.seconds += now - self.clock
            state.follow()
            if after_step(float(outputs["loss"])):
                self.trainer.should_stop = True
            self.clock = time.perf_counter()  # validations and checkpoints do not count

    return Learner()
