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
import os
import time
from pathlib import Path

import numpy as np
import torch
from timing import multiply_adds
from torch import Tensor, nn

from semsim import zoo
from semsim.nn import muon
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.spec import rate
from semsim.vision.marformer import SIZES, MARformer, MetalSlices

POOL = {"jaws": 5000, "ct128": 2025, "ct256": 972}
SHARE = {"jaws": 0.7, "ct128": 0.15, "ct256": 0.15}  # of the items of a step
BATCH, SIDE, LR, WARMUP, EMA = 4, 128, 2e-3, 0.03, 0.999


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


def batch(pool: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Sources and targets [B, 1, 128, 128], each turned and mirrored at random."""
    items = []
    for kind in rng.choice(list(SHARE), BATCH, p=list(SHARE.values())):
        pairs = pool[kind]
        top, left = rng.integers(0, pairs.shape[-1] - SIDE + 1, 2)
        pair = pairs[rng.integers(len(pairs)), :, top : top + SIDE, left : left + SIDE]
        pair = np.rot90(pair, rng.integers(4), (1, 2))
        items.append(pair[..., ::-1] if rng.random() < 0.5 else pair)
    both = torch.from_numpy(np.stack(items).astype(np.float32) / 65535)
    return both[:, :1], both[:, 1:]


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
    mean = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA)
    )
    optimiser, task = muon.Muon(muon.groups(network), lr=LR), Reconstruct("log_mse")
    steps, seconds = 0, 0.0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        steps, seconds = state["steps"], state["seconds"]
    rng = np.random.default_rng([0, steps])
    last, saved, losses = time.perf_counter(), seconds, []
    while seconds < 60 * minutes:
        source, target = batch(pool, rng)
        loss = task.loss(network(source), target, target)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        for group in optimiser.param_groups:
            group["lr"] = LR * rate(seconds / (60 * minutes), WARMUP)
        optimiser.step()
        optimiser.zero_grad()
        mean.update_parameters(network)
        steps += 1
        losses.append(-10 / np.log(10) * loss.item())
        now = time.perf_counter()
        seconds, last = seconds + now - last, now
        if seconds - saved > 240:
            state = {
                "network": network.state_dict(),
                "mean": mean.state_dict(),
                "optimiser": optimiser.state_dict(),
                "steps": steps,
                "seconds": seconds,
            }
            torch.save(state, out / "last.tmp")
            os.replace(out / "last.tmp", out / "last.pt")
            before, after = psnr_db(mean.module, seen).tolist()
            print(f"{seconds / 60:5.1f} min, {steps} steps, training {np.mean(losses):.2f} dB, "
                  f"new jaws {before:.2f} -> {after:.2f} dB", flush=True)  # fmt: skip
            last, saved, losses = time.perf_counter(), seconds, []
    export(mean.module.eval(), size, steps, seconds / 60, minutes, out)


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
