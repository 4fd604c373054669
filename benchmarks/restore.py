"""Faces restored by a small latent diffusion model, and verifiers against perturbed restorations.

    python benchmarks/restore.py train --out RUNS [--minutes 18 32]
    python benchmarks/restore.py report --out RUNS --verifiers FACES [--pairs 200]

``train`` trains the autoencoder and then the U-Net, each for so many minutes, on drawn faces; a
stopped run goes on where it was. ``report`` needs the verifiers of ``benchmarks/faces.py train
--out FACES``, of which one is the surrogate. It writes benchmarks/results/restore.csv,
restore_attacks.csv and restore.md.

Intervals are 95 %: a bootstrap over people of what is paired by face or pair, with one training of
each network. Drawn faces are no photos. For evaluation only: see semsim/vision/restore.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from semsim import zoo
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import restore

RESULTS = Path(__file__).parent / "results"
COUNT = 3 * 1920  #: degraded faces to train on, three of each picture
STAGES: dict[str, dict[str, Any]] = {
    "autoencoder": {"lr": 2e-3, "ema": 0.99, "shift": 2},
    "unet": {"lr": 1e-3, "ema": 0.995, "shift": 2},
}


def train(args: argparse.Namespace) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    begun: str | None = None
    for part, minutes in zip(STAGES, args.minutes, strict=True):
        file = args.out / part / "fitted.safetensors"
        if not file.is_file():
            train_part(file, part, minutes, begun)
        begun = str(file)


def train_part(file: Path, part: Any, minutes: float, begun: str | None) -> None:
    """Train one part, beginning with what the parts before it have left."""
    torch.manual_seed(1)
    payload = restore.DegradedFaces("train", count=COUNT)
    task = restore.Restore(trainable=True, part=part, weights=begun)
    spec = TrainSpec(minutes=minutes, batch_size=32, through="task", **STAGES[part])
    with Training(AnyLink(), payload, task, spec, folder=file.parent, seed=1) as training:
        training.advance()
        done = training.finish()
    facts = {"about": f"restoration of faces, {part}", "steps": done.steps, "data": "drawn faces",
             "minutes": round(done.minutes, 1), "loss": round(done.loss, 4)}  # fmt: skip
    zoo.export_parts(file, {"network": task.network}, facts)
    print(part, facts, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs=2, default=(18.0, 32.0))
    args = parser.parse_args()
    {"train": train}[args.what](args)


if __name__ == "__main__":
    main()
