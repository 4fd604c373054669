"""Store weights at half precision where no measured value moves by more than 0.01 dB.

    python benchmarks/half_weights.py --data DATA swin-cifar-1-12 deepjscc-cifar-1-6
    python benchmarks/half_weights.py --data DATA --write swin-cifar-1-12   # replace the file

Both precisions send the same images over the same fading and noise: held-out CIFAR-10 images for
codecs of 32 x 32, the photos that semsim carries, at 128 px, for the others; AWGN and block
Rayleigh, every SNR of the cards; LCFSC at 64 px over its own antennas, the channel known to both.
MARformer cleans the same drawn jaws. Computation stays in single precision; the file is half as
large.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn
from zoo_psnr import CHANNELS, SEED, SNRS, cifar

from channels import PerfectCSI, Rayleigh
from semsim import Link, evaluate, zoo
from semsim.evaluation import Stop
from semsim.payloads.photos import Photos
from semsim.vision.marformer import MetalSlices

MOST_DB = 0.01  #: that a mean may move
ITEMS, JAWS = 60, 48


def values(link: Link, payload: Any) -> np.ndarray:
    """Return the mean PSNR at each SNR, [SNRs], in dB."""
    rows = evaluate(
        link, payload, snr_db=SNRS, metrics=["psnr"], stop=Stop(1, ITEMS), seed=SEED, batch_size=20
    )
    return np.array([row["value"] for row in rows])


def means(name: str, parts: dict[str, nn.Module], data: Path) -> np.ndarray:
    """Return all mean PSNRs of a network, in dB."""
    if name.startswith("marformer"):
        scans = [MetalSlices(JAWS)[i] for i in range(JAWS)]
        seen, clean = (torch.stack(images)[:, :1] for images in zip(*scans, strict=True))
        with torch.inference_mode():
            cleaned = torch.cat([parts["network"].eval()(x) for x in seen.split(8)]).clamp(0, 1)
        error = (cleaned - clean).square().mean(dim=(1, 2, 3))
        return np.array([float(-10 * error.log10().mean())])
    ends = (parts["transmitter"], parts["receiver"])
    if name.startswith("lcfsc"):
        antennas = int(name[-1])
        channel = Rayleigh(num_tx=antennas, num_rx=antennas)
        links = [Link(ends[0], channel, ends[1], csi_tx=PerfectCSI())]
    else:
        links = [Link(ends[0], CHANNELS[c](), ends[1]) for c in list(CHANNELS)[:2]]
    side = 64 if name.startswith("lcfsc") else 128  # as they were trained
    payload = cifar(data)[0] if "cifar" in name else Photos(resize=side, crop=side)
    return np.concatenate([values(link, payload) for link in links])


def largest_move(name: str, data: Path) -> float:
    """Return by how much the worst of all means moves, in dB."""
    single, half = zoo.build(name), zoo.build(name)
    for part in half.values():
        for tensor in (*part.parameters(), *part.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.half().float()
    moves = means(name, half, data) - means(name, single, data)
    return float(np.abs(moves).max())


def write_half(name: str, move: float) -> None:
    """Replace a file of weights by one of half the size, and say so on its card."""
    path = zoo.WEIGHTS / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = save(
        {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}, metadata
    )
    path.write_bytes(content)
    card = path.with_suffix(".json")
    facts = json.loads(card.read_text())
    facts["sha256"] = hashlib.sha256(content).hexdigest()
    facts["stored"] = f"float16; no mean PSNR moved by more than {max(move, 0.001):.3f} dB"
    card.write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        move = largest_move(name, arguments.data)
        fits = move <= MOST_DB
        print(f"{name}: the mean that moves most does so by {move:.4f} dB", flush=True)
        if arguments.write and fits:
            write_half(name, move)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
