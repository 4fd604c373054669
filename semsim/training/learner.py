"""The inside of a step: its batch, bf16 around the networks, its loss."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semsim.files.disk import write_atomic
from semsim.payloads.items import check_image, pair, stacked
from semsim.seeds import seed_of, stream
from semsim.training.spec import TrainSpec
from semsim.training.state import State


class Batches:
    """The batch of every step; it depends on the seed and the step alone.

    Args:
        payload: items (source, target).
        spec: how many in a batch, and how images are cut, mirrored and turned.
        seed: of order and augmentation.
        share: which of how many processes this is; each takes its part of every batch.
    """

    def __init__(
        self, payload: Any, spec: TrainSpec, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        if not len(payload):
            raise ValueError("the payload is empty; there is nothing to train on")
        self.payload, self.spec, self.seed, self.share = payload, spec, seed, share
        self._order = functools.lru_cache(2)(self._shuffle)
        self._looked = False

    def _shuffle(self, epoch: int) -> list[int]:
        generator = stream(self.seed, "order", epoch)
        return torch.randperm(len(self.payload), generator=generator).tolist()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return sources and targets of a step."""
        generator = stream(self.seed, "augment", step, *of_share(self.share))
        rank, world = self.share
        mine = self.spec.batch_size // world
        first = step * self.spec.batch_size + rank * mine
        sources, targets, indices = [], [], []
        for position in range(first, first + mine):
            epoch, place = divmod(position, len(self.payload))
            index = self._order(epoch)[place]
            source, target = pair(self.payload[index], index)
            if not self._looked:
                check_image(source)
                self._looked = True
            source, target = self._augment(source, target, generator)
            sources.append(source)
            targets.append(target)
            indices.append(index)
        if len({s.shape for s in sources}) > 1:
            shapes = sorted({tuple(s.shape) for s in sources})[:2]
            raise ValueError(f"items differ in shape, such as {shapes}; set train.crop")
        return torch.stack(sources), stacked(targets, indices)

    def _augment(
        self, source: Tensor, target: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Crop and mirror an image, and its reference alike; a class stays what it is."""
        shape = torch.as_tensor(target).shape
        is_image = len(shape) > 1 and shape[-2:] == source.shape[-2:]
        if source.dim() != 3 or not (is_image or len(shape) == 0):
            does = {"crop": "cuts", "shift": "moves", "turn": "turns"}
            for name in (n for n in does if getattr(self.spec, n)):
                raise ValueError(
                    f"{name} {does[name]} images, and targets that are images or classes; here "
                    f"items are {list(source.shape)} and targets {list(shape)}; leave train.{name} "
                    "out"
                )
            return source, target  # a target such as a corner's place would have to move along
        cut = self._window(source, generator)
        mirror = self.spec.flip and torch.rand((), generator=generator) < 0.5
        quarters = int(torch.randint(4, (), generator=generator)) if self.spec.turn else 0

        def changed(image: Tensor) -> Tensor:
            image = _widened(image, self.spec.shift)
            image = image[cut].flip(-1) if mirror else image[cut]
            return image.rot90(quarters, (-2, -1)) if quarters else image

        image = changed(source)
        if target is source:
            return image, image
        return image, changed(target) if is_image else target

    def _window(self, source: Tensor, generator: torch.Generator) -> tuple[Any, ...]:
        """Return the place of a random square crop, or of the whole image."""
        if shift := self.spec.shift:
            moved = [int(torch.randint(2 * shift + 1, (), generator=generator)) for _ in range(2)]
            return (..., *(slice(m, m + n) for m, n in zip(moved, source.shape[1:], strict=True)))
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


def _widened(image: Tensor, pixels: int) -> Tensor:
    """Return an image [C, H, W] with so many pixels more at each side, mirrored."""
    if not pixels:
        return image
    if min(image.shape[1:]) <= pixels:
        raise ValueError(
            f"shift {pixels} is too far for an image of {list(image.shape)}; write at most "
            f"{min(image.shape[1:]) - 1}"
        )
    return nn.functional.pad(image[None], (pixels,) * 4, mode="reflect")[0]


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
def low_memory_if(
    wanted: bool, link: nn.Module, task: nn.Module, folder: Path | None
) -> Iterator[None]:
    """Convert link and task for a while, and report; they leave in the layout they came in."""
    if not wanted:
        yield
        return
    from semsim.nn.lowmem import low_memory, restore

    nets = nn.ModuleDict({"link": link, "task": task})
    report = low_memory(nets)
    if folder is not None:
        write_atomic(folder / "low_memory.txt", f"{report}\n")
    try:
        yield
    finally:
        restore(nets)


def step_loss(state: State, source: Tensor, target: Tensor, step: int) -> Tensor:
    """Return the loss of one step; all that is random comes from the seed and the step."""
    spec = state.spec
    link: Any = state.nets["link"]
    task: Any = state.nets["task"]
    labels = (step, *of_share(state.share))
    alone = spec.through == "task"
    networks = [*link.ends().values(), task] if alone or link.ends() else [link]
    low_precision = spec.precision == "bf16"
    # for what parts draw without a generator, such as a dropout
    torch.manual_seed(seed_of(state.seed, "torch", *labels))
    generator = stream(state.seed, "train", *labels, device=source.device)
    with networks_in_bf16(networks if low_precision else [], source.device):
        if alone:
            return task.own_loss(source, target, state.progress(), generator)
        snr_db = draw_snr(spec, len(source), state.seed, labels).to(source.device)
        sources, targets = (_of_users(part, link.users) for part in (source, target))
        begun = task.begin(link, sources, once=False)
        sent, outputs = task.send(link, begun, snr_db, generator)
    losses = [*map(task.loss, outputs, begun.sources, targets)]
    loss = sum(losses) / len(losses)
    return loss + link.auxiliary_loss(state.progress(), sent)


def _of_users(part: Tensor, users: int) -> list[Tensor]:
    """Return the batch of each user: the same, shifted by one item each."""
    return [part, *(part.roll(-user, 0) for user in range(1, users))]


def of_share(share: tuple[int, int]) -> tuple[int, ...]:
    """Return what tells the draws of several processes apart; nothing where there is one."""
    return () if share[1] == 1 else share


def draw_snr(spec: TrainSpec, count: int, seed: int, labels: tuple[int, ...]) -> Tensor:
    """Return the SNR of each item in dB, [count]."""
    low, high = spec.snr_range()
    snr_db = low + (high - low) * torch.rand(count, generator=stream(seed, "snr", *labels))
    if spec.snr_peak is None:
        return snr_db
    mean, spread, share = spec.snr_peak
    generator = stream(seed, "snr peak", *labels)
    chosen = torch.rand(count, generator=generator) < share
    return torch.where(chosen, mean + spread * torch.randn(count, generator=generator), snr_db)


class Step(nn.Module):
    """The loss of a step as a module, so that Fabric may wrap it."""

    def __init__(self, state: State, batches: Batches) -> None:
        super().__init__()
        self.nets = state.nets
        self.state, self.batches = state, batches

    def forward(self, step: int) -> Tensor:
        device = next(self.nets.parameters()).device
        source, target = (part.to(device) for part in self.batches.batch(step))
        return step_loss(self.state, source, target, step)
