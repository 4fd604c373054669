"""Train the codecs of semsim's zoo on two CPU cores.

    python benchmarks/make_pool.py cifar --data DATA --out POOLS/cifar.npz
    python benchmarks/train_zoo.py deepjscc-cifar-1-6 --pools POOLS --minutes 50 --out RUN

One thread per process: two models train side by side faster than one model on two threads. For one
model on several processes start the command in each with RANK=0, 1, ... and WORLD_SIZE set; they
average their weights every half minute. The learning rate follows the share of the time that has
passed, so a busy machine changes how many steps a run takes and not its shape. A run stopped at any
moment goes on where it was when started again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from zoo_loop import MEET_EVERY, Pool, Recipe, Trainer, meet, resume, save, validate

from semsim import zoo


def run(name: str, recipe: Recipe, minutes: float, out: Path, every: float) -> None:
    """Train until ``minutes`` of training have passed; validation is not counted."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)  # tiny gradients otherwise cost four times the backward pass
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    trainer = Trainer(recipe, rank, world)
    resume(trainer, out)
    pool = Pool(recipe.pool, [recipe.seed, rank, trainer.steps])
    print(json.dumps(asdict(recipe)), sum(p.numel() for p in trainer.net.parameters()), flush=True)
    losses: list[float] = []
    meeting = trainer.seconds + MEET_EVERY
    last, shown = time.perf_counter(), trainer.seconds
    while trainer.seconds < 60 * minutes:
        losses.append(trainer.step(pool.batch(recipe.batch), trainer.seconds / (60 * minutes)))
        now = time.perf_counter()
        trainer.seconds += now - last
        last = now
        if world > 1 and trainer.seconds > meeting:
            meet(trainer, out)
            meeting += MEET_EVERY
        if rank == 0 and trainer.seconds - shown > every:
            report(trainer, pool, losses, out)
            last, shown = time.perf_counter(), trainer.seconds
    if rank == 0:
        report(trainer, pool, losses, out, snrs=(0, 5, 10, 15, 20))
        export(trainer, name, out)


def export(trainer: Trainer, name: str, out: Path) -> None:
    """Write the averaged weights and what the model card says of their making."""
    live = trainer.net.state_dict()
    trainer.net.load_state_dict(trainer.average)
    recipe = trainer.recipe
    card = {
        "data": DATA[Path(recipe.pool).stem],
        "steps": trainer.steps,
        "batch": recipe.batch,
        "processes": trainer.world,
        "minutes": round(trainer.seconds / 60, 1),
        "machine": "2 CPU cores shared with other work",
        "started_from": recipe.start and Path(recipe.start).stem,
        "command": f"python benchmarks/train_zoo.py {name} --pools POOLS --minutes M --out RUN",
    }
    ends = trainer.net["transmitter"], trainer.net["receiver"]
    zoo.export(out / f"{name}.safetensors", *ends, card)
    trainer.net.load_state_dict(live)


def report(
    trainer: Trainer, pool: Pool, losses: list[float], out: Path, snrs: tuple[float, ...] = (10.0,)
) -> None:
    save(trainer, out)
    curve = validate(trainer, pool.valid, snrs)
    mean = -10 * sum(losses) / max(len(losses), 1)
    now, images = time.strftime("%H:%M:%S"), trainer.steps * trainer.recipe.batch
    done = f"{trainer.seconds / 60:6.2f} min step {trainer.steps} images {images}"
    print(f"{now} {done} train {mean:.2f} dB valid {curve}", flush=True)
    losses.clear()


DATA = {
    "cifar": "BSDS500 train and test photos shrunk 2 to 4.5 times, 883 photos of 128 px shrunk "
    "1 to 2 times, 1,900 lossless CIFAR-10 images; 32 x 32",
    "photo": "BSDS500 train and test photos at full size and shrunk up to 2.2 times, 883 photos of "
    "128 px; 128 x 128",
    "photo-large": "BSDS500 train and test photos at full size, 883 photos of 128 px; patches of "
    "128 x 128, in the end 320 x 320",
}

PLANS: dict[str, Recipe] = {
    "deepjscc-cifar-1-6": Recipe({"cbr": "1/6", "width": 96}, "cifar", batch=48, lr=3e-3),
    "deepjscc-cifar-1-12": Recipe(
        {"cbr": "1/12", "width": 96}, "cifar", batch=48, lr=2e-3, start="deepjscc-cifar-1-6"
    ),
    "deepjscc-photo-1-16": Recipe(
        {"cbr": "1/16", "stride": 8, "width": 64, "reach": 4}, "photo", batch=8, lr=2e-3, near=0.5
    ),
    "swin-cifar-1-6": Recipe({"cbr": "1/6"}, "cifar", batch=48, lr=3e-3, kind="swin_jscc"),
    "swin-cifar-1-12": Recipe(
        {"cbr": "1/12"},
        "cifar",
        batch=48,
        lr=2e-3,
        start="swin-cifar-1-6",
        kind="swin_jscc",
        cut=True,
    ),
    "swin-photo-1-16": Recipe(
        {"cbr": "1/16"},
        "photo",
        batch=6,
        lr=2e-3,
        near=0.5,
        start="swin-cifar-1-6",
        kind="swin_jscc",
        cut=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--pools", type=Path, required=True, help="where cifar.npz, photo.npz lie")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run, resumed if there"
    )
    parser.add_argument("--every", type=float, default=120, help="seconds between validations")
    parser.add_argument("--pool", help="instead of the plan's")
    parser.add_argument("--start", help="weights to start from, instead of the plan's")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--lr", type=float)
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = {k: getattr(args, k) for k in ("pool", "batch", "lr") if getattr(args, k) is not None}
    recipe = replace(PLANS[args.name], **asked)
    recipe = replace(recipe, pool=str(args.pools / f"{recipe.pool}.npz"))
    if args.start:
        recipe = replace(recipe, start=args.start)
    elif recipe.start:
        recipe = replace(recipe, start=str(zoo.WEIGHTS / f"{recipe.start}.safetensors"))
    run(args.name, recipe, args.minutes, args.out, args.every)


if __name__ == "__main__":
    main()
