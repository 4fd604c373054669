"""Train denoisers in front of a codec of the zoo, and the same codec without one, alike.

    python benchmarks/train_denoiser.py deepjscc-cifar-1-6 control --pools POOLS --out RUNS
    python benchmarks/train_denoiser.py deepjscc-cifar-1-6 residual --pools POOLS --out RUNS

POOLS holds cifar.npz, made by make_pool.py. All see the same patches, SNRs of -10 to 15 dB and the
same channels: two thirds AWGN, the rest block fading on two streams of unequal gain.

    control     both ends of the codec go on training, without a denoiser
    residual    stage 2, the latent denoiser before the frozen codec; stage 3, all of it
    dncnn       the same two stages with a DnCNN
    diffusion   a diffusion model of the latent; then the decoder alone behind it

``control`` takes as many steps as stage 3, and ``control-long`` three times as many, which is more
than both stages together. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attention import Patches
from latent_rivals import DiffusionReceiver, DnCNNReceiver
from torch import Tensor, nn

from channels.base import CSI, ChannelState, complex_normal
from semsim import Link, spec, stream, zoo
from semsim.codecs.deepjscc import to_latent
from semsim.codecs.latent_denoiser import DenoisingLink, LatentDenoiser
from semsim.learner import Batches, rate
from semsim.nn.muon import Muon, groups
from semsim.tasks.reconstruct import Reconstruct
from semsim.training import TrainResult, TrainSpec, train

SNR_DB = (-10.0, 15.0)
FRESH = {"steps": 600, "lr": 3e-3}  # of a denoiser before a frozen codec
TUNE = {"steps": 600, "lr": 1e-3}  # of the codec, with a denoiser or without
SIZES = {"width": 64, "depth": 8, "max_steps": 3}


class Mixture:
    """AWGN for 65 % of the items, else block fading with one gain for even and one for odd uses."""

    num_tx = num_rx = 1

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw h [B, 1, 1, N]; gains are at least 0.01, so that training sees no infinite noise."""
        gain = complex_normal((batch, 2), generator).abs().square().clamp_min(1e-2)
        kind = torch.rand(batch, generator=generator)
        gain[kind < 0.65] = 1
        flat = kind < 0.82
        gain[flat, 1] = gain[flat, 0]
        h = gain.sqrt()[:, torch.arange(uses) % 2].to(torch.complex64)
        return ChannelState(h[:, None, None], coherence=uses)

    def __call__(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return h x + CN(0, n0)."""
        y = state.h[:, 0] * x
        if n0 is None:
            return y
        return y + n0.sqrt()[:, None, None] * complex_normal(tuple(x.shape), generator)


def classes(name: str) -> tuple[Any, Any]:
    """Return the classes of both ends of a codec of the zoo, whose kind starts its name."""
    kind = {"swin": "swin_jscc"}.get(name.split("-")[0], name.split("-")[0])
    return spec.resolve("transmitter", kind), spec.resolve("receiver", kind)


def codec(name: str) -> tuple[Any, Any]:
    """Return both ends as they are in the zoo, ready to be trained on."""
    ends = zoo.pair(name, *classes(name))
    for end in ends:
        end.train()
    return ends


def fit(link: nn.Module, patches: Patches, folder: Path, *, steps: int, lr: float) -> TrainResult:
    """Train what is not frozen, with the settings that all rivals share."""
    settings = TrainSpec(
        steps=steps, batch_size=32, lr=lr, optimiser="muon", warmup=0.05, snr_db=SNR_DB,
        save_every=50,
    )  # fmt: skip
    result = train(link, patches, Reconstruct("log_mse"), settings, folder=folder, progress=False)
    facts = {"steps": result.steps, "minutes": round(result.minutes, 2), "loss": result.loss}
    (folder / "facts.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    print(folder.name, facts, flush=True)
    return result


def control(name: str, patches: Patches, out: Path, more: int = 1) -> None:
    """The codec alone, for as many steps as stage 3 or ``more`` times that."""
    transmitter, receiver = codec(name)
    plan = {**TUNE, "steps": more * TUNE["steps"]}
    fit(Link(transmitter, Mixture(), receiver), patches, out, **plan)


def stages(name: str, patches: Patches, out: Path, around: Callable[..., Any]) -> None:
    """Stage 2, a denoiser before the frozen codec, and stage 3, all of it.

    Args:
        name: the codec, weights of the zoo.
        patches: what to train on.
        out: folder of the run.
        around: makes the receiver from the codec's receiver and ``stage``.
    """
    torch.manual_seed(0)
    transmitter, receiver = codec(name)
    link = DenoisingLink(transmitter, Mixture(), around(receiver, stage=2))
    fit(link, patches, out / "stage2", **FRESH)
    transmitter, receiver = codec(name)
    link = DenoisingLink(transmitter, Mixture(), around(receiver, stage=3))
    zoo.load(out / "stage2" / "weights.safetensors", link.transmitter, link.receiver)
    fit(link, patches, out / "stage3", **TUNE)


def diffusion(name: str, patches: Patches, out: Path) -> None:
    """The U-Net on clean latents, then the decoder alone behind it."""
    torch.manual_seed(0)
    transmitter, receiver = codec(name)
    rival = DiffusionReceiver(receiver, stage=2)
    done = out / "stage2" / "weights.safetensors"
    if not done.is_file():
        done.parent.mkdir(parents=True, exist_ok=True)
        minutes = fit_noise(transmitter, rival, patches)
        facts = {"steps": FRESH["steps"], "minutes": round(minutes, 2)}
        zoo.export(done, transmitter, rival, facts)
        print("stage2", facts, flush=True)
    transmitter, receiver = codec(name)
    link = Link(transmitter, Mixture(), DiffusionReceiver(receiver, stage=3))
    zoo.load(done, link.transmitter, link.receiver)
    link.transmitter.requires_grad_(False)
    # sampling makes a step several times as long: about the same minutes as the other denoisers
    fit(link, patches, out / "stage3", steps=TUNE["steps"] // 5, lr=TUNE["lr"])


def fit_noise(transmitter: Any, rival: DiffusionReceiver, patches: Patches) -> float:
    """Train the U-Net with the settings of :func:`fit`; return the minutes."""
    settings = TrainSpec(batch_size=32, snr_db=SNR_DB, **FRESH)
    optimiser = Muon(groups(rival.network), lr=settings.lr)
    generator, start = stream(0, "noise"), time.perf_counter()
    batches = Batches(patches, settings, 0, 0)
    for step in range(settings.steps):
        images, _ = batches.batch(step)
        snr_db = torch.empty(len(images)).uniform_(*SNR_DB, generator=generator)
        with torch.no_grad():
            symbols = transmitter(images, CSI(None, 10 ** (-snr_db / 10)))
        grid = transmitter.grid(tuple(images.shape[1:]))
        loss = rival.noise_loss(to_latent(symbols, transmitter.channels, *grid), generator)
        loss.backward()
        nn.utils.clip_grad_norm_(rival.network.parameters(), settings.clip)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * rate((step + 1) / settings.steps, 0.05)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            print("diffusion", step + 1, round(loss.item(), 4), flush=True)
    return (time.perf_counter() - start) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", help="weights of the zoo")
    parser.add_argument(
        "what", choices=("control", "control-long", "residual", "dncnn", "diffusion")
    )
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    patches, out = Patches(args.pools / "cifar.npz"), args.out / args.codec / args.what
    if args.what.startswith("control"):
        control(args.codec, patches, out, more=1 if args.what == "control" else 3)
    elif args.what == "residual":
        stages(args.codec, patches, out, functools.partial(LatentDenoiser, **SIZES))
    elif args.what == "dncnn":
        stages(args.codec, patches, out, DnCNNReceiver)
    else:
        diffusion(args.codec, patches, out)


if __name__ == "__main__":
    main()
