"""The loop behind train_zoo.py: networks, their average, patches in memory, processes that meet."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from channels.base import CSI, complex_normal
from semsim import spec as parts
from semsim.nn import muon
from semsim.training.learner import networks_in_bf16

MEET_EVERY = 30.0  # seconds between averagings of the processes of one run


@dataclass
class Recipe:
    """One training run; ``spec`` goes to both ends of the codec ``kind``."""

    spec: dict[str, object]
    pool: str  # file of patches made by make_pool.py
    batch: int = 64
    lr: float = 2e-3
    warmup: float = 0.02  # share of the run
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    near: float = 0.3  # share of items with an SNR close to 10 dB, where the zoo is compared
    start: str | None = None  # checkpoint to start from where shapes agree
    kind: str = "deepjscc"
    cut: bool = False  # whether larger tensors of ``start`` are cut to size: its leading channels
    warmup_steps: int = 300  # of a training at a constant rate
    precision: str = "32"  # or "bf16": the networks under autocast, the channel in fp32


def draw_noise(
    batch: int, symbols: int, near: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return n0 known to the transmitter [B] and n0 per received symbol [B, K].

    Two thirds AWGN; the rest block Rayleigh, half of it on two streams of unequal gain, as a linear
    front end over 2 x 2 antennas leaves them.
    """
    snr_db = torch.empty(batch).uniform_(-2, 22, generator=generator)
    close = torch.rand(batch, generator=generator) < near
    snr_db = torch.where(close, torch.empty(batch).normal_(10, 2, generator=generator), snr_db)
    n0 = 10 ** (-snr_db / 10)
    gain = complex_normal((batch, 2), generator).abs().square().clamp_min(1e-2)
    kind = torch.rand(batch, generator=generator)
    gain[kind < 0.65] = 1
    flat = kind < 0.82
    gain[flat, 1] = gain[flat, 0]
    stream = torch.arange(symbols) % 2
    return n0, n0[:, None] / gain[:, stream]


class Trainer:
    """A pair of networks, their average, and the state of the run."""

    def __init__(self, recipe: Recipe, rank: int = 0, world: int = 1) -> None:
        self.recipe, self.rank, self.world = recipe, rank, world
        torch.manual_seed(recipe.seed)
        self.net = nn.ModuleDict(
            {
                "transmitter": parts.resolve("transmitter", recipe.kind)(**recipe.spec),
                "receiver": parts.resolve("receiver", recipe.kind)(**recipe.spec),
            }
        ).to(memory_format=torch.channels_last)
        if recipe.start:
            warm_start(self.net, recipe.start, cut=recipe.cut)
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.optimisers = make_optimisers(self.net, recipe)
        self.generator = torch.Generator().manual_seed(recipe.seed + 1 + rank)
        self.steps = 0
        self.seconds = 0.0
        self.meetings = 0

    def step(self, images: Tensor, scale: float) -> float:
        """Take one step at ``scale`` times the peak learning rate; return the loss."""
        recipe = self.recipe
        low = [*self.net.values()] if recipe.precision == "bf16" else []
        with networks_in_bf16(low, images.device):
            loss = self.loss(images)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), recipe.clip)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        decay = min(recipe.ema, (1 + self.steps) / (4 + self.steps))
        with torch.no_grad():
            mine = list(self.net.state_dict().values())
            torch._foreach_lerp_(list(self.average.values()), mine, 1 - decay)
        return loss.item()

    def loss(self, images: Tensor) -> Tensor:
        tx, rx = self.net["transmitter"], self.net["receiver"]
        shape = tuple(images.shape[1:])
        n0, n0_symbol = draw_noise(
            len(images), tx.num_symbols(shape), self.recipe.near, self.generator
        )
        x = tx(images, CSI(None, n0))
        y = x + n0_symbol.sqrt()[:, None] * complex_normal(tuple(x.shape), self.generator)
        estimate = rx(y, CSI(None, n0_symbol[:, None]), shape)
        return (estimate - images).square().mean(dim=(1, 2, 3)).add(1e-6).log10().mean()


def cosine(progress: float, warmup: float) -> float:
    """Return the share of the peak rate: it rises, then falls to 0 as a cosine."""
    return min(1.0, progress / warmup) * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimisers(net: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    optimiser = muon.Muon(muon.groups(net), lr=recipe.lr)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    return [optimiser]


def warm_start(net: nn.Module, path: str, *, cut: bool) -> None:
    """Take over every tensor whose name and shape agree, or, with ``cut``, the leading part."""
    from safetensors.torch import load_file

    old, new = load_file(path), net.state_dict()
    same = {k: v for k, v in old.items() if k in new and _fits(v, new[k], cut)}
    same = {k: v[tuple(slice(n) for n in new[k].shape)] for k, v in same.items()}
    net.load_state_dict({**new, **same})
    print(f"warm start: {len(same)} of {len(new)} tensors from {path}", flush=True)


def _fits(old: Tensor, new: Tensor, cut: bool) -> bool:
    if not cut or old.dim() != new.dim():
        return old.shape == new.shape
    return all(a >= b for a, b in zip(old.shape, new.shape, strict=True))


class Pool:
    """Uint8 patches in memory; batches are drawn by mixture weight and flipped or turned."""

    def __init__(self, path: str, seed: list[int]) -> None:
        pack = np.load(path)
        self.parts = [torch.from_numpy(pack[k]) for k in pack.files if k.startswith("part")]
        self.weights = pack["weights"]
        self.valid = torch.from_numpy(pack["valid"])  # [N, 3, H, W]
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> Tensor:
        counts = self.rng.multinomial(size, self.weights)
        picks = [
            part[torch.from_numpy(self.rng.integers(0, len(part), n))]
            for part, n in zip(self.parts, counts, strict=True)
            if n
        ]
        x = torch.cat(picks)
        x = x[torch.from_numpy(self.rng.permutation(len(x)))]
        half = size // 2
        x[:half] = x[:half].flip(3)
        if self.rng.random() < 0.25:
            x = x.transpose(2, 3)
        return x.float().div(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def validate(trainer: Trainer, images: Tensor, snrs: tuple[float, ...]) -> dict[float, float]:
    """Mean per-image PSNR of 8-bit outputs of the averaged weights, AWGN."""
    live = {k: v.clone() for k, v in trainer.net.state_dict().items()}
    trainer.net.load_state_dict(trainer.average)
    trainer.net.eval()
    out = {}
    for snr in snrs:
        generator = torch.Generator().manual_seed(99)
        total = []
        for chunk in images.split(100 if images.shape[-1] <= 64 else 2):
            x = chunk.float() / 255
            n0 = torch.full((len(x),), 10 ** (-snr / 10))
            z = trainer.net["transmitter"](x, CSI(None, n0))
            y = z + n0.sqrt()[:, None, None] * complex_normal(tuple(z.shape), generator)
            estimate = trainer.net["receiver"](y, CSI(None, n0), tuple(x.shape[1:]))
            error = (estimate * 255).round() - chunk.float()
            total.append(10 * torch.log10(255**2 / error.square().mean(dim=(1, 2, 3))))
        out[snr] = round(torch.cat(total).mean().item(), 3)
    trainer.net.train()
    trainer.net.load_state_dict(live)
    return out


def save(trainer: Trainer, out: Path) -> None:
    state = {
        "net": trainer.net.state_dict(),
        "average": trainer.average,
        "optimisers": [o.state_dict() for o in trainer.optimisers],
        "generator": trainer.generator.get_state(),
        "steps": trainer.steps,
        "seconds": trainer.seconds,
    }
    torch.save(state, out / "last.tmp")
    os.replace(out / "last.tmp", out / "last.pt")


def resume(trainer: Trainer, out: Path) -> None:
    path = out / "last.pt"
    if not path.exists():
        return
    state = torch.load(path, weights_only=True)
    trainer.net.load_state_dict(state["net"])
    trainer.average = state["average"]
    for optimiser, saved in zip(trainer.optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
        for group in optimiser.param_groups:
            group["peak"] = trainer.recipe.lr
    if trainer.rank == 0:
        trainer.generator.set_state(state["generator"])
    trainer.steps, trainer.seconds = state["steps"], state["seconds"]
    print(f"resumed at step {trainer.steps}, {trainer.seconds / 60:.1f} min", flush=True)


def meet(trainer: Trainer, out: Path) -> None:
    """Average the weights with those of the other processes of this run (local SGD).

    Each process takes the steps it can in MEET_EVERY seconds and meets the others through files,
    since on a busy machine an exchange per step would wait longer than it computes.
    """
    folder = Path("/dev/shm") / out.name
    folder.mkdir(exist_ok=True)
    trainer.meetings += 1
    mine = {"net": trainer.net.state_dict(), "average": trainer.average, "steps": trainer.steps}
    path = folder / f"{trainer.meetings}.{trainer.rank}"
    half = path.with_name(path.name + ".part")
    torch.save(mine, half)
    os.replace(half, path)
    (folder / f"{trainer.meetings - 2}.{trainer.rank}").unlink(missing_ok=True)
    others = [folder / f"{trainer.meetings}.{r}" for r in range(trainer.world)]
    start = time.perf_counter()
    while not all(p.exists() for p in others):
        time.sleep(0.1)
        if time.perf_counter() - start > 120:
            raise SystemExit("another process of this run is gone")
    states = [torch.load(p, weights_only=True) for p in others]
    with torch.no_grad():
        for key, value in trainer.net.state_dict().items():
            value.copy_(sum(s["net"][key] for s in states) / trainer.world)
            trainer.average[key] = sum(s["average"][key] for s in states) / trainer.world
