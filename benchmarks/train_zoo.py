"""Train the codecs of semsim's zoo on two CPU cores.

    python benchmarks/make_pool.py cifar --data DATA --out POOLS/cifar.npz
    python benchmarks/train_zoo.py deepjscc-cifar-1-6 --pools POOLS --minutes 50 --out RUN

One thread per process: two models train side by side faster than one model on two threads. For one
model on several processes start the command in each with RANK=0, 1, ... and WORLD_SIZE set; they
average their weights every half minute. The learning rate follows the share of the time that has
passed, so a busy machine changes how many steps a run takes and not its shape. A run stopped at any
moment goes on where it was when started again.

For hours of training, in pieces:

    python benchmarks/train_zoo.py NAME --pools POOLS --constant --minutes 600 --out RUN
    python benchmarks/train_zoo.py NAME --pools POOLS --finish RUN --minutes 12 --out DONE

The first keeps the rate after its warm-up for as long as it is let; the second copies where it
stands, lets the rate fall to 0 and exports what is shipped, and the first can go on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from zoo_loop import MEET_EVERY, Pool, Recipe, Trainer, cosine, meet, resume, save, validate

from semsim import zoo


def run(
    name: str, recipe: Recipe, minutes: float, out: Path, every: float, schedule: str = "cosine",
    begun: float = 0.0,
) -> None:  # fmt: skip
    """Train until ``minutes`` of training have passed; validation is not counted.

    Args:
        name: entry of the zoo.
        recipe: what to train.
        minutes: how long, those before a resume included.
        out: folder of the run.
        every: seconds between validations and checkpoints.
        schedule: ``cosine`` over all minutes, ``constant``, or ``fall``: from the peak to 0 in a
            straight line over the minutes after ``begun``.
        begun: minutes that were trained before the fall.
    """
    out.mkdir(parents=True, exist_ok=True)
    stop = signal_flag()
    torch.set_flush_denormal(True)  # tiny gradients otherwise cost four times the backward pass
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    trainer = Trainer(recipe, rank, world)
    resume(trainer, out)
    pool = Pool(recipe.pool, [recipe.seed, rank, trainer.steps])
    print(json.dumps(asdict(recipe)), sum(p.numel() for p in trainer.net.parameters()), flush=True)
    losses: list[float] = []
    meeting = trainer.seconds + MEET_EVERY
    last, shown = time.perf_counter(), trainer.seconds
    while trainer.seconds < 60 * minutes and not stop:
        if schedule == "constant":
            scale = min(1.0, (trainer.steps + 1) / recipe.warmup_steps)
        elif schedule == "fall":
            scale = (minutes - trainer.seconds / 60) / (minutes - begun)
        else:
            scale = cosine(trainer.seconds / (60 * minutes), recipe.warmup)
        losses.append(trainer.step(pool.batch(recipe.batch), scale))
        now = time.perf_counter()
        trainer.seconds += now - last
        last = now
        if world > 1 and trainer.seconds > meeting:
            meet(trainer, out)
            meeting += MEET_EVERY
        if rank == 0 and trainer.seconds - shown > every:
            report(trainer, pool, losses, out)
            last, shown = time.perf_counter(), trainer.seconds
    if stop:
        save(trainer, out)
        raise SystemExit(130)
    if rank == 0:
        report(trainer, pool, losses, out, snrs=(0, 5, 10, 15, 20))
        export(trainer, name, out)


def signal_flag() -> list[int]:
    """Return a list that is no longer empty once Ctrl-C or SIGTERM asked for the end."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: asked.append(number))
    return asked


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
    parser.add_argument("--precision", choices=("32", "bf16"))
    parser.add_argument("--constant", action="store_true", help="keep the rate after the warm-up")
    parser.add_argument("--finish", type=Path, help="run to copy and to let fall to rate 0")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keys = ("pool", "batch", "lr", "precision")
    asked = {k: getattr(args, k) for k in keys if getattr(args, k) is not None}
    recipe = replace(PLANS[args.name], **asked)
    recipe = replace(recipe, pool=str(args.pools / f"{recipe.pool}.npz"))
    if args.start:
        recipe = replace(recipe, start=args.start)
    elif recipe.start:
        recipe = replace(recipe, start=str(zoo.WEIGHTS / f"{recipe.start}.safetensors"))
    if args.finish and not (args.out / "last.pt").exists():
        args.out.mkdir(parents=True, exist_ok=True)
        shutil.copy(args.finish / "last.pt", args.out / "last.pt")
    before = _minutes_of(args.finish) if args.finish else 0.0
    schedule = "fall" if args.finish else "constant" if args.constant else "cosine"
    run(args.name, recipe, before + args.minutes, args.out, args.every, schedule, before)


def _minutes_of(folder: Path) -> float:
    """Return how long a run has been trained."""
    return float(torch.load(folder / "last.pt", weights_only=True)["seconds"]) / 60


if __name__ == "__main__":
    main()
