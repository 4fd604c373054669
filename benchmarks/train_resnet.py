"""Train the zoo's CIFAR-10 classifier.

    python benchmarks/train_resnet.py --data DATA --minutes 12 --out RUN

DATA holds cifar10_jpeg56000.npz (its 46,000 training images, JPEG) and cifar10_lossless3000.npz
(the first 2,000 train, the last 1,000 test). One thread; the learning rate follows the clock. A
stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from make_pool import read_pack
from torch import Tensor, nn

from semsim import zoo
from semsim.nn import muon
from semsim.nn.resnet import ResNet
from semsim.training.spec import rate

NAME = "resnet-cifar10"
BATCH, LR, WARMUP, EMA, PAD = 128, 3e-3, 0.05, 0.99, 4


def load(data: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images uint8 [N, 3, 32, 32] and labels, test images and labels."""
    images, meta = read_pack(data / "cifar10_jpeg56000.npz")
    train = np.stack([np.asarray(i) for i in images])[meta["is_train"].astype(bool)]
    labels = meta["label"][meta["is_train"].astype(bool)]
    sheets, clean = read_pack(data / "cifar10_lossless3000.npz")
    lossless = np.concatenate([np.asarray(s).reshape(1000, 32, 32, 3) for s in sheets])
    x = np.concatenate([train, lossless[:2000]])
    y = np.concatenate([labels, clean["label"][:2000]]).astype(int)
    tensors = x, y, lossless[2000:], clean["label"][2000:].astype(int)
    a, b, c, d = (torch.from_numpy(np.ascontiguousarray(t)) for t in tensors)
    return a.permute(0, 3, 1, 2), b, c.permute(0, 3, 1, 2), d


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift the batch by up to four pixels in each direction and mirror half of it."""
    padded = nn.functional.pad(images.float() / 255, (PAD,) * 4, mode="reflect")
    parts = []
    for quarter in padded.chunk(8):  # one shift per eighth: cheap, and varied enough
        top, left = rng.integers(0, 2 * PAD + 1, 2)
        parts.append(quarter[:, :, top : top + 32, left : left + 32])
    shifted = torch.cat(parts)
    mirrored = torch.from_numpy(rng.random(len(shifted)) < 0.5)
    shifted = torch.where(mirrored[:, None, None, None], shifted.flip(3), shifted)
    return shifted.contiguous(memory_format=torch.channels_last)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class the network names."""
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(chunk.float() / 255) for chunk in images.split(250)])
    network.train()
    return float((scores.argmax(dim=1) == labels).float().mean())


def run(data: Path, minutes: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = ResNet().to(memory_format=torch.channels_last)
    mean = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA), use_buffers=True
    )
    optimiser = muon.Muon(muon.groups(network), lr=LR)
    steps, seconds = 0, 0.0
    if (out / "last.pt").exists():
        state = torch.load(out / "last.pt", weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        steps, seconds = state["steps"], state["seconds"]
    rng = np.random.default_rng([0, steps])
    x, y, test_x, test_y = load(data)
    order, last, saved = rng.permutation(len(x)), time.perf_counter(), seconds
    while seconds < 60 * minutes:
        if len(order) < BATCH:
            order = rng.permutation(len(x))
        picks, order = torch.from_numpy(order[:BATCH]), order[BATCH:]
        scores = network(augment(x[picks], rng))
        loss = nn.functional.cross_entropy(scores, y[picks], label_smoothing=0.1)
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = LR * rate(seconds / (60 * minutes), WARMUP)
        optimiser.step()
        optimiser.zero_grad()
        mean.update_parameters(network)
        steps += 1
        now = time.perf_counter()
        seconds, last = seconds + now - last, now
        if seconds - saved > 60:
            state = {
                "network": network.state_dict(),
                "mean": mean.state_dict(),
                "optimiser": optimiser.state_dict(),
                "steps": steps,
                "seconds": seconds,
            }
            torch.save(state, out / "last.tmp")
            os.replace(out / "last.tmp", out / "last.pt")
            seen = accuracy(mean.module, x[:500], y[:500])
            epochs = steps * BATCH / len(x)
            print(f"{seconds / 60:5.1f} min, {epochs:5.2f} epochs, loss {loss:.3f}, on seen images "
                  f"{seen:.3f}", flush=True)  # fmt: skip
            last, saved = time.perf_counter(), seconds
    share = accuracy(mean.module, test_x, test_y)
    print(f"accuracy {share:.3f} on the last 1,000 lossless images")
    card = {
        "data": "CIFAR-10: 46,000 training images as JPEG, 2,000 lossless",
        "steps": steps,
        "minutes": round(seconds / 60, 1),
        "machine": "1 of 2 shared CPU cores",
        "command": f"python benchmarks/train_resnet.py --data DATA --minutes {minutes:g} --out RUN",
        "multiply_adds": zoo_multiply_adds(mean.module),
        "measured": {
            "on": "CIFAR-10, last 1,000 of the lossless images",
            "accuracy": round(share, 4),
        },
    }
    zoo.export_parts(out / f"{NAME}.safetensors", {"network": mean.module.eval()}, card)


def zoo_multiply_adds(network: nn.Module) -> int:
    """Multiply-adds for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.rand(1, 3, 32, 32))
    return counter.get_total_flops() // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    run(args.data, args.minutes, args.out)


if __name__ == "__main__":
    main()
