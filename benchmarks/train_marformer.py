"""Train the MARformer of the zoo on simulated metal artefacts.

    python unpack.py ct_tcga CT      # hu.npy and meta.npz, see the data's own README
    python benchmarks/train_marformer.py --data CT --size T --minutes 60 --out RUN

A pool of slices is simulated first: procedural jaws of 128 x 128 pixels, and the training patients'
CT slices with metal at 128 x 128 and at 256 x 256 pixels; each step cuts crops of 128 from the
latter. One thread; the learning rate follows the clock. A stopped run goes on where it was. With
glibc, MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment keep
the memory from going back to the system after each layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from timing import multiply_adds
from torch import Tensor, nn

from semsim import zoo
from semsim.tasks.base import Task
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision.marformer import SIZES, MARformer, MetalSlices

POOL = {"jaws": 5000, "ct128": 2025, "ct256": 972}
SHARE = {"jaws": 0.7, "ct128": 0.15, "ct256": 0.15}  # of the items of a step
BATCH, SIDE, LR, WARMUP, EMA = 4, 128, 2e-3, 0.03, 0.999
LOOK_EVERY = 500  # steps


def payload(kind: str, count: int, data: Path, split: str, seed: int = 0) -> MetalSlices:
    """The slices of one kind."""
    if kind == "jaws":
        return MetalSlices(count, split=split, seed=seed)
    size = 128 if kind == "ct128" else None
    return MetalSlices(count, path=str(data), size=size, split=split, seed=seed)


def simulate(kind: str, data: Path, out: Path) -> np.ndarray:
    """Corrupted and clean slices, uint16 [N, 2, S, S]; simulated once, then read from ``out``."""
    file = out / f"{kind}.npy"
    if not file.exists():
        slices, pairs, begin = payload(kind, POOL[kind], data, "train"), [], time.perf_counter()
        for n in range(len(slices)):
            scan = slices.scan(n)
            pair = torch.stack([scan.corrupted[0], scan.clean[0]])
            pairs.append((pair.numpy() * 65535).round().astype(np.uint16))
        np.save(file, np.stack(pairs))
        print(f"{kind}: {len(pairs)} slices in {time.perf_counter() - begin:.0f} s", flush=True)
    return np.load(file, mmap_mode="r")


class Crops(torch.utils.data.Dataset):
    """Sources and targets [1, 128, 128], each turned and mirrored at random, as its index says."""

    name = "crops"

    def __init__(self, pool: dict[str, np.ndarray], count: int = 1_000_000) -> None:
        self.pool, self.count = pool, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([0, index])
        pairs = self.pool[rng.choice(list(SHARE), p=list(SHARE.values()))]
        top, left = rng.integers(0, pairs.shape[-1] - SIDE + 1, 2)
        pair = pairs[rng.integers(len(pairs)), :, top : top + SIDE, left : left + SIDE]
        pair = np.rot90(pair, rng.integers(4), (1, 2))
        pair = pair[..., ::-1] if rng.random() < 0.5 else pair
        both = torch.from_numpy(pair.astype(np.float32) / 65535)
        return both[:1], both[1:]


class Clean(Task):
    """A network that takes artefacts out of a slice [B, 1, H, W], by the mean log MSE."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.judge = network, Reconstruct("log_mse")

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the slice without artefacts."""
        return self.network(estimate)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the mean log MSE to the clean slice."""
        return self.judge.loss(output, target, target)


@torch.no_grad()
def psnr_db(network: nn.Module, pairs: Tensor) -> Tensor:
    """PSNR before and after, mean over slices [N, 2, S, S]."""
    before, clean = pairs[:, :1], pairs[:, 1:]
    after = torch.cat([network(part) for part in before.split(8)]).clamp(0, 1)
    errors = torch.stack([(x - clean).square().mean(dim=(1, 2, 3)) for x in (before, after)])
    return -10 * errors.log10().mean(dim=1)


def run(data: Path, size: str, minutes: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    pool = {kind: simulate(kind, data, out) for kind in POOL}
    scans = [payload("jaws", 48, data, "train", seed=1).scan(n) for n in range(48)]
    seen = torch.stack([torch.cat([s.corrupted, s.clean]) for s in scans])
    torch.manual_seed(0)
    network = MARformer(**SIZES[size])
    spec = TrainSpec(
        minutes=minutes, batch_size=BATCH, lr=LR, optimiser="muon", warmup=WARMUP, ema=EMA,
        clip=10.0, flip=False, through="task",
    )  # fmt: skip
    with Training(AnyLink(), Crops(pool), Clean(network), spec, folder=out) as training:
        while training.state.progress() < 1:
            loss = training.advance(LOOK_EVERY)
            with training.state.averaged():
                before, after = psnr_db(network, seen).tolist()
            print(f"{training.state.seconds / 60:5.1f} min, {training.state.steps} steps, training "
                  f"{-10 / np.log(10) * loss:.2f} dB, new jaws {before:.2f} -> {after:.2f} dB",
                  flush=True)  # fmt: skip
        result = training.finish()
    export(network, size, result.steps, result.minutes, minutes, out)


def export(
    network: nn.Module, size: str, steps: int, spent: float, minutes: float, out: Path
) -> None:
    """Write weights and card; benchmarks/marformer.py --card adds what it measured."""
    card = {
        "about": f"MARformer-{size}: takes metal artefacts out of CT slices (mu / 0.5 per cm)",
        "data": f"simulated: {POOL['jaws']} procedural jaws; TCIA TCGA-LUAD/LUSC CT slices of 44 "
        f"training patients with metal, {POOL['ct128']} at 128 and {POOL['ct256']} at 256 pixels",
        "steps": steps,
        "minutes": round(spent, 1),
        "machine": "1 of 2 shared CPU cores",
        "command": "python benchmarks/train_marformer.py --data CT "
        f"--size {size} --minutes {minutes:g} --out RUN",
        "multiply_adds": multiply_adds(network, torch.rand(1, 1, SIDE, SIDE)),
    }
    zoo.export_parts(out / f"marformer-{size.lower()}.safetensors", {"network": network}, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="T")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run(args.data, args.size, args.minutes, args.out)


if __name__ == "__main__":
    main()
