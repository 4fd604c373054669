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
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_pool import read_pack, tiles
from timing import multiply_adds
from torch import Tensor, nn

from semsim import stream, zoo
from semsim.nn import muon
from semsim.nn.geometry import order_corners, quad_iou, rectify, square
from semsim.payloads.images import to_float
from semsim.training.spec import rate
from semsim.vision import dbdh

SIZE, BATCH, LR, WARMUP = 128, 16, 3e-3, 0.03
RING, FRESH = 4096, 6  # photos kept, and made anew per step
SIDES = (0.3, 0.6)
STRENGTHS = (3.0, 24.0, 5.0)  # least, and largest at first and in the end
EMBED_BATCH, SAVE_SECONDS = 32, 300


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


def follow(mean: Tensor, value: Tensor, number: Tensor | int) -> Tensor:
    """Return the new mean; it forgets the start first and has a memory of 300 steps later on."""
    decay = min(1 - 1 / 300, (1 + float(number)) / (10 + float(number)))
    return mean.lerp(value, 1 - decay) if mean.is_floating_point() else value


class Clock:
    """Networks, their mean, the optimiser and the time that they have had; on disk and back."""

    def __init__(self, network: nn.Module, args: argparse.Namespace) -> None:
        args.out.mkdir(parents=True, exist_ok=True)
        self.network, self.file = network, args.out / "last.pt"
        self.minutes, self.limit = args.minutes, args.steps
        self.mean = torch.optim.swa_utils.AveragedModel(network, avg_fn=follow, use_buffers=True)
        self.optimiser = muon.Muon(muon.groups(network), lr=LR)
        self.steps, self.seconds, self.saved = 0, 0.0, 0.0
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            network.load_state_dict(state["network"])
            self.mean.load_state_dict(state["mean"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.steps, self.seconds = state["steps"], state["seconds"]
            self.saved = self.seconds
        self.last = time.perf_counter()

    @property
    def share(self) -> float:
        """Share of the time, or of the steps where they are given, that is over."""
        if self.limit:
            return self.steps / self.limit
        return self.seconds / (60 * self.minutes)

    def step(self, loss: Tensor) -> bool:
        """Take a step down the loss; tell whether it is time to look and save."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        for group in self.optimiser.param_groups:
            group["lr"] = LR * rate(self.share, WARMUP)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.mean.update_parameters(self.network)
        self.steps += 1
        now = time.perf_counter()
        self.seconds, self.last = self.seconds + now - self.last, now
        return self.seconds - self.saved > SAVE_SECONDS

    def save(self) -> None:
        """Write the checkpoint in one go; what this takes does not count."""
        state = {
            "network": self.network.state_dict(), "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(), "steps": self.steps, "seconds": self.seconds,
        }  # fmt: skip
        half = self.file.with_suffix(".tmp")
        torch.save(state, half)
        os.replace(half, self.file)
        self.last, self.saved = time.perf_counter(), self.seconds


class Ring:
    """Photos of hidden codes, made while they are used."""

    def __init__(self, pictures: Tensor, methods: list[Any], seed: int, steps: int) -> None:
        self.pictures, self.methods = pictures, methods
        self.g = stream(seed, "ring", steps)
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


def train_localiser(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    network = dbdh.DBDH(
        filters=args.filters, cross=not args.no_cross, ase=not args.no_ase,
        luma=not args.no_luma, segmentation=not args.no_mask,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    methods = [method(kind, args.pimog) for kind in args.embedders]
    clock = Clock(network, args)
    pictures, held = pools(args)
    ring = Ring(pictures, methods, args.seed, clock.steps)
    weakest, first, last = args.strengths

    def strongest() -> float:
        return max(last, first * (last / first) ** (clock.share / 0.8))

    while ring.filled < RING // 4:
        ring.add(32, weakest, strongest())
    clock.last, losses = time.perf_counter(), []
    while clock.share < 1:
        ring.add(FRESH, weakest, strongest())
        photos, corners = ring.batch(BATCH)
        loss = dbdh.localisation_loss(network(photos), corners)
        losses.append(loss.item())
        if clock.step(loss):
            print(f"{clock.seconds / 60:5.1f} min, {clock.steps} steps, loss "
                  f"{np.mean(losses):.3f}, strongest {strongest():.1f}, overlap "
                  f"{held_out(clock.mean.module, held, methods)}", flush=True)  # fmt: skip
            network.train()
            losses.clear()
            clock.save()
    clock.save()
    measured = held_out(clock.mean.module, held, methods)
    print("overlap", measured, "after", clock.steps, "steps")
    final = clock.mean.module.deployed()
    card = about(args, clock, BATCH, "Photos of hidden codes made from photos883_128 and bsds500 "
                 "(train, test), 128 x 128") | {
        "multiply_adds": multiply_adds(final, torch.rand(1, 3, SIZE, SIZE)),
        "measured": {"on": "64 photos per row, bsds500 val, strength 4, mean overlap"} | measured,
    }  # fmt: skip
    name = f"dbdh-{'-'.join(args.embedders)}.safetensors"
    # half precision in the file moves corners by up to 0.05 pixels; loading makes it float32
    zoo.export_parts(args.out / name, {"network": final.half()}, card)


def about(args: argparse.Namespace, clock: Clock, batch: int, data: str) -> dict[str, Any]:
    """Return what both cards say of the making."""
    command = f"python benchmarks/train_dbdh.py {args.what} --data DATA --out RUN"
    command += f" --steps {args.steps}" if args.steps else f" --minutes {args.minutes:g}"
    if args.what == "dbdh":
        command += f" --embedders {' '.join(args.embedders)}"
        command += "" if args.filters == "all" else f" --filters {args.filters}"
        switches = ("no_cross", "no_ase", "no_luma", "no_mask")
        command += "".join(f" --{s.replace('_', '-')}" for s in switches if getattr(args, s))
    return {
        "data": data, "steps": clock.steps, "batch": batch,
        "minutes": round(clock.seconds / 60, 1), "machine": "1 of 2 shared CPU cores",
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


def train_embedder(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    kind: Any = dbdh.Pimog(None).to(memory_format=torch.channels_last)
    clock = Clock(kind, args)
    pictures, held = pools(args)
    g, losses = stream(args.seed, "pimog", clock.steps), []
    while clock.share < 1:
        strength = max(4.0, 24.0 * (4 / 24) ** (clock.share / 0.6))
        cover = to_float(pictures[torch.randint(len(pictures), (EMBED_BATCH,), generator=g)])
        box = dbdh.draw_box(EMBED_BATCH, SIZE, (0.3, 0.6), g)
        region = rectify(cover, box, dbdh.SIDE).contiguous(memory_format=torch.channels_last)
        bits = torch.randint(2, (EMBED_BATCH, dbdh.BITS), generator=g).float()
        residual = kind.residual(region, bits)
        seen = shot((region + strength / 255 * residual).clamp(0, 1), g, clock.steps)
        loss = nn.functional.binary_cross_entropy_with_logits(kind.read(seen), bits)
        losses.append(loss.item())
        # change what is busy rather than what is flat: errors weigh less where the picture changes
        grey = region.mean(dim=1, keepdim=True)
        busy = nn.functional.avg_pool2d(
            (grey - nn.functional.avg_pool2d(grey, 5, 1, 2)).square(), 5, 1, 2
        )
        weight = 1 / (busy.sqrt() * 255 + 4)
        visible = (residual.square() * weight / weight.mean(dim=(1, 2, 3), keepdim=True)).mean()
        if clock.step(loss + 0.02 * visible * min(1, 2 * clock.share)):
            print(f"{clock.seconds / 60:5.1f} min, {clock.steps} steps, loss "
                  f"{np.mean(losses[-200:]):.3f}, strength {strength:.1f}, bits "
                  f"{accuracy(clock.mean.module, held, 4.0):.3f}", flush=True)  # fmt: skip
            kind.train()
            clock.save()
    clock.save()
    final = clock.mean.module.eval()
    share = accuracy(final, held, 4.0)
    print(f"bits {share:.4f} after {clock.steps} steps")
    adds = multiply_adds(final.encoder, torch.rand(1, 3, 64, 64), torch.zeros(1, dbdh.BITS))
    adds += multiply_adds(final.decoder, torch.rand(1, 3, 64, 64))
    data = "Regions of photos883_128 and bsds500 (train, test), 64 x 64"
    card = about(args, clock, EMBED_BATCH, data) | {
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
