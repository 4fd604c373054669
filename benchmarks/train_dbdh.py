"""Train the embedder and the localiser of hidden codes.

    python benchmarks/train_dbdh.py pimog --data DATA --minutes 12 --out RUN
    python benchmarks/train_dbdh.py dbdh --embedders pimog --data DATA --minutes 60 --out RUN
    python benchmarks/train_dbdh.py dbdh --data DATA --steps 300 --out RUN --filters none

DATA holds photos883_128.npz and bsds500.npz (folders train and test train, val validates). One
thread; the learning rate follows the clock. A stopped run goes on where it was. ``dbdh`` makes its
photos while it trains: a ring of them, of which each is seen about three times, in other turns. The
residual is strong at first and as weak as the default in the end. ``--filters none`` and the other
switches are ablations. Weights and card for the zoo are written to RUN in the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_pool import read_pack, tiles
from timing import multiply_adds
from torch import Tensor, nn

from semsim import stream, zoo
from semsim.nn.geometry import order_corners, quad_iou, rectify, square
from semsim.payloads.images import StackedImages, to_float
from semsim.tasks.base import Task
from semsim.training.loop import Training, TrainResult
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import dbdh

SIZE, BATCH, LR, WARMUP = 128, 16, 3e-3, 0.03
RING, FRESH = 4096, 6  # photos kept, and made anew per step
SIDES = (0.3, 0.6)
STRENGTHS = (3.0, 24.0, 5.0)  # least, and largest at first and in the end
EMBED_BATCH, LOOK_EVERY = 32, 200


def covers(data: Path, split: str) -> Tensor:
    """Return cover pictures, uint8 [N, 3, 128, 128], of the photos of ``train`` or ``val``."""
    rng = np.random.default_rng(0)
    bsds, meta = read_pack(data / "bsds500.npz")
    train = [i for i, s in zip(bsds, meta["split"], strict=True) if s in ("train", "test")]
    held = [i for i, s in zip(bsds, meta["split"], strict=True) if s == "val"]
    if split == "val":
        found = [tiles(held, SIZE, 1.2, 2.2, 1, rng)]
    else:
        small, _ = read_pack(data / "photos883_128.npz")
        found = [tiles(train, SIZE, 1, 2.2, 2, rng), tiles(small, SIZE, 1, 1, 1, rng)]
    return torch.from_numpy(np.concatenate(found))


def pools(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return covers to train on and held-out ones; kept in the folder above the run's."""
    kept = args.out.parent / "covers.pt"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save([covers(args.data, split) for split in ("train", "val")], kept)
    train, held = torch.load(kept, weights_only=True)
    return train, held


def method(kind: str, weights: str | None) -> Any:
    """Return an embedder, frozen; ``pimog`` with the weights of a run where they are given."""
    if kind == "pimog" and weights:
        return dbdh.Pimog(weights)
    return dbdh.make_embedder(kind)


def train_task(
    task: Task, pictures: Tensor, batch: int, args: argparse.Namespace, look: Callable[[], object]
) -> TrainResult:
    """Train a task alone on covers, in pieces; say after each what the average reaches."""
    spec = TrainSpec(
        steps=args.steps or 1, minutes=None if args.steps else args.minutes, batch_size=batch,
        lr=LR, optimiser="muon", warmup=WARMUP, ema=1 - 1 / 300, clip=5.0, flip=False,
        through="task",
    )  # fmt: skip
    covers = StackedImages("covers", pictures)
    with Training(AnyLink(), covers, task, spec, folder=args.out, seed=args.seed) as training:
        state = training.state
        while state.progress() < 1:
            loss = training.advance(LOOK_EVERY)
            with state.averaged():
                print(f"{state.seconds / 60:5.1f} min, {state.steps} steps, loss {loss:.3f}, "
                      f"reached {look()}", flush=True)  # fmt: skip
            task.train()
        return training.finish()


class Ring:
    """Photos of hidden codes, made while they are used."""

    def __init__(self, pictures: Tensor, methods: list[Any]) -> None:
        self.pictures, self.methods = pictures, methods
        self.g = stream(0, "ring")
        self.photos = torch.empty(RING, 3, SIZE, SIZE, dtype=torch.uint8)
        self.corners = torch.empty(RING, 4, 2)
        self.filled = self.place = self.turn = 0

    def add(self, count: int, weakest: float, strongest: float) -> None:
        """Make photos with residuals of log-uniform strength and let them replace the oldest."""
        pick = torch.randint(len(self.pictures), (2, count), generator=self.g)
        cover, background = (to_float(self.pictures[p]) for p in pick)
        u = torch.rand(count, generator=self.g)
        capture = ("print", "screen")[self.turn % 2]
        kind = self.methods[self.turn // 2 % len(self.methods)]
        self.turn += 1
        strength = weakest * (strongest / weakest) ** u
        with torch.no_grad():
            photo, corners, _ = dbdh.photograph(
                cover, background, kind, self.g, strength=strength, capture=capture, side=SIDES
            )
        at = (self.place + torch.arange(count)) % RING
        self.photos[at], self.corners[at] = (255 * photo).round().to(torch.uint8), corners
        self.place = (self.place + count) % RING
        self.filled = min(self.filled + count, RING)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return photos in random turns and their corners."""
        pick = torch.randint(self.filled, (count,), generator=self.g)
        photos, corners = to_float(self.photos[pick]), self.corners[pick]
        images, points = [], []
        for turn, (image, point) in enumerate(zip(photos.chunk(4), corners.chunk(4), strict=True)):
            images.append(image.rot90(turn, (2, 3)))
            points.append(turned(point, turn))
        stacked = torch.cat(images).contiguous(memory_format=torch.channels_last)
        return stacked, order_corners(torch.cat(points))


def turned(points: Tensor, quarters: int) -> Tensor:
    """Return points after ``rot90`` of a square image by so many quarters, counter-clockwise."""
    for _ in range(quarters):
        points = torch.stack([points[..., 1], SIZE - points[..., 0]], dim=-1)
    return points


@torch.no_grad()
def held_out(network: Any, pictures: Tensor, methods: list[Any]) -> dict[str, float]:
    """Return mean overlap on fixed photos of held-out pictures, by embedder and capture."""
    network.eval()
    found, n = {}, 64
    for kind in methods:
        for capture in ("print", "screen"):
            g = stream(7, "held out", capture)
            cover = to_float(pictures[torch.arange(n) % len(pictures)])
            photo, corners, _ = dbdh.photograph(
                cover, cover.roll(5, 0), kind, g, strength=4.0, capture=capture, side=SIDES
            )
            quads = torch.cat([network.locate(p) for p in photo.split(32)])
            name = f"{type(kind).__name__.lower()} {capture}"
            found[name] = round(float(quad_iou(quads, corners).mean()), 4)
    return found


class Locating(Task):
    """A network that finds hidden codes in photos, which are made while it learns."""

    def __init__(self, network: dbdh.DBDH, ring: Ring, strengths: tuple[float, ...]) -> None:
        super().__init__()
        self.network, self.ring, self.strengths = network, ring, strengths

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss on photos of the ring, after some new ones came in."""
        weakest, first, last = self.strengths
        strongest = max(last, first * (last / first) ** (progress / 0.8))
        self.ring.g = generator
        while self.ring.filled < RING // 4:
            self.ring.add(32, weakest, strongest)
        self.ring.add(FRESH, weakest, strongest)
        photos, corners = self.ring.batch(len(source))
        return dbdh.localisation_loss(self.network(photos), corners)


def train_localiser(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    network = dbdh.DBDH(
        filters=args.filters, cross=not args.no_cross, ase=not args.no_ase,
        luma=not args.no_luma, segmentation=not args.no_mask,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    methods = [method(kind, args.pimog) for kind in args.embedders]
    pictures, held = pools(args)
    task = Locating(network, Ring(pictures, methods), tuple(args.strengths))
    result = train_task(task, pictures, BATCH, args, lambda: held_out(network, held, methods))
    measured = held_out(network, held, methods)
    print("overlap", measured, "after", result.steps, "steps")
    final = network.deployed()
    card = about(args, result, BATCH, "Photos of hidden codes made from photos883_128 and bsds500 "
                 "(train, test), 128 x 128") | {
        "multiply_adds": multiply_adds(final, torch.rand(1, 3, SIZE, SIZE)),
        "measured": {"on": "64 photos per row, bsds500 val, strength 4, mean overlap"} | measured,
    }  # fmt: skip
    name = f"dbdh-{'-'.join(args.embedders)}.safetensors"
    # half precision in the file moves corners by up to 0.05 pixels; loading makes it float32
    zoo.export_parts(args.out / name, {"network": final.half()}, card)


def about(args: argparse.Namespace, result: TrainResult, batch: int, data: str) -> dict[str, Any]:
    """Return what both cards say of the making."""
    command = f"python benchmarks/train_dbdh.py {args.what} --data DATA --out RUN"
    command += f" --steps {args.steps}" if args.steps else f" --minutes {args.minutes:g}"
    if args.what == "dbdh":
        command += f" --embedders {' '.join(args.embedders)}"
        command += "" if args.filters == "all" else f" --filters {args.filters}"
        switches = ("no_cross", "no_ase", "no_luma", "no_mask")
        command += "".join(f" --{s.replace('_', '-')}" for s in switches if getattr(args, s))
    return {
        "data": data, "steps": result.steps, "batch": batch,
        "minutes": round(result.minutes, 1), "machine": "1 of 2 shared CPU cores",
        "command": command,
    }  # fmt: skip


def shot(container: Tensor, g: torch.Generator, step: int) -> Tensor:
    """Return what a camera makes of upright regions whose corners are off by up to two pixels."""
    corners = square(dbdh.SIDE, container).expand(len(container), -1, -1)
    moved = corners + 4 * torch.rand(corners.shape, generator=g) - 2
    noise = dbdh.print_noise if step % 2 else dbdh.screen_noise
    return noise(rectify(container, moved, dbdh.SIDE), g)


def accuracy(kind: Any, pictures: Tensor, strength: float) -> float:
    """Return the share of right bits of held-out regions, over both cameras."""
    kind.eval()
    g, right = stream(7, "bits"), []
    with torch.no_grad():
        for step, chunk in enumerate(pictures.split(48)):
            cover = rectify(
                to_float(chunk), 32 + square(64, torch.ones(())).expand(len(chunk), -1, -1), 64
            )
            bits = torch.randint(2, (len(chunk), dbdh.BITS), generator=g).float()
            seen = shot((cover + strength / 255 * kind.residual(cover, bits)).clamp(0, 1), g, step)
            right.append(((kind.read(seen) > 0) == bits.bool()).float().mean())
    return float(torch.stack(right).mean())


class Marking(Task):
    """An embedder and its decoder, which read what a camera made of upright regions."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.network, self.turn = kind, 0

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of the bits, and what is seen of the mark where the cover is flat."""
        strength = max(4.0, 24.0 * (4 / 24) ** (progress / 0.6))
        box = dbdh.draw_box(len(source), SIZE, (0.3, 0.6), generator)
        region = rectify(source, box, dbdh.SIDE).contiguous(memory_format=torch.channels_last)
        bits = torch.randint(2, (len(source), dbdh.BITS), generator=generator).float()
        residual = self.network.residual(region, bits)
        self.turn += 1
        seen = shot((region + strength / 255 * residual).clamp(0, 1), generator, self.turn)
        loss = nn.functional.binary_cross_entropy_with_logits(self.network.read(seen), bits)
        # change what is busy rather than what is flat: errors weigh less where the picture changes
        grey = region.mean(dim=1, keepdim=True)
        busy = nn.functional.avg_pool2d(
            (grey - nn.functional.avg_pool2d(grey, 5, 1, 2)).square(), 5, 1, 2
        )
        weight = 1 / (busy.sqrt() * 255 + 4)
        visible = (residual.square() * weight / weight.mean(dim=(1, 2, 3), keepdim=True)).mean()
        return loss + 0.02 * visible * min(1, 2 * progress)


def train_embedder(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    final: Any = dbdh.Pimog(None).to(memory_format=torch.channels_last)
    pictures, held = pools(args)
    result = train_task(
        Marking(final), pictures, EMBED_BATCH, args, lambda: accuracy(final, held, 4.0)
    )
    share = accuracy(final.eval(), held, 4.0)
    print(f"bits {share:.4f} after {result.steps} steps")
    adds = multiply_adds(final.encoder, torch.rand(1, 3, 64, 64), torch.zeros(1, dbdh.BITS))
    adds += multiply_adds(final.decoder, torch.rand(1, 3, 64, 64))
    data = "Regions of photos883_128 and bsds500 (train, test), 64 x 64"
    card = about(args, result, EMBED_BATCH, data) | {
        "multiply_adds": adds,
        "measured": {"on": f"{len(held)} regions of bsds500 val, strength 4, corners off by up to "
                     "2 pixels, both cameras", "bit_accuracy": round(share, 4)},
    }  # fmt: skip
    parts = {"encoder": final.encoder, "decoder": final.decoder}
    zoo.export_parts(args.out / "pimog-64.safetensors", parts, card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pimog", "dbdh"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, help="a budget of steps instead of minutes")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedders", nargs="+", default=["spread", "pimog"])
    parser.add_argument("--pimog", help="weights of a run instead of the zoo's")
    parser.add_argument("--strengths", nargs=3, type=float, default=STRENGTHS)
    parser.add_argument("--filters", default="all", choices=("all", "srm", "gabor", "none"))
    for switch in ("no-cross", "no-ase", "no-luma", "no-mask"):
        parser.add_argument(f"--{switch}", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    train_embedder(args) if args.what == "pimog" else train_localiser(args)


if __name__ == "__main__":
    main()
