"""Train rivals of the latent denoiser from one codec, alike: what denoisers.py compares.

    python benchmarks/denoiser_rivals.py deepjscc-cifar-1-6 control --pools POOLS --out RUNS
    python benchmarks/denoiser_rivals.py deepjscc-cifar-1-6 residual --pools POOLS --out RUNS

POOLS holds cifar.npz, made by make_pool.py. ``deepjscc-cifar-1-6`` of the zoo knows the SNR at both
ends. ``deepjscc2019-cifar-1-6`` does not, and is trained here, at 10 dB, when it is first needed.
All see the same patches, SNRs of -10 to 15 dB and the same channels: two thirds AWGN, the rest
block fading on two streams of unequal gain.

    control       both ends of the codec go on training, without a denoiser
    control-awgn  the same over AWGN alone
    residual      stage 2, the latent denoiser before the frozen codec; stage 3, all of it
    dncnn         stage 2 with a DnCNN
    diffusion     a diffusion model of the latent, as many steps as stage 2

The controls take as many steps as stages 2 and 3 together. A run that was stopped goes on where it
was. scenarios/train/latent-denoiser-deepjscc*.yaml train what is called residual here.
"""

from __future__ import annotations

import argparse
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from attention import Patches
from latent_rivals import DiffusionReceiver, DnCNNReceiver
from torch import Tensor, nn

from channels import AWGN
from channels.base import CSI, ChannelState, complex_normal
from semsim import Link, spec, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser
from semsim.codecs.symbols import to_latent
from semsim.tasks.base import Task
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.loop import Training, TrainResult, train
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink

SNR_DB = (-10.0, 15.0)
FRESH_LR = 3e-3  # of a denoiser before a frozen codec
SIZES = {"width": 48, "depth": 6, "max_steps": 3}


@dataclass(frozen=True)
class Plan:
    """How one codec and its denoisers are trained.

    Args:
        steps: of stage 2, and again of stage 3.
        lr: of the codec, with a denoiser or without.
        told: what the codec is told of the noise; see :class:`LatentDenoiser`.
        network: arguments of a codec that is not in the zoo.
    """

    steps: int
    lr: float
    told: Literal["channel", "equivalent"]
    network: dict[str, Any] | None = None


PLANS = {
    "deepjscc-cifar-1-6": Plan(300, 1e-3, "channel"),
    "deepjscc2019-cifar-1-6": Plan(
        400, 2e-3, "equivalent", {"cbr": "1/6", "preset": "bourtsoulatze2019"}
    ),
}


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
    start = name.split("-")[0]
    kind = {"swin": "swin_jscc", "deepjscc2019": "deepjscc"}.get(start, start)
    return spec.resolve("transmitter", kind), spec.resolve("receiver", kind)


def start(name: str, runs: Path) -> str:
    """Return the weights of a codec before any of this: of the zoo, or trained by :func:`first`."""
    if PLANS[name].network is None:
        return name
    return str(runs / name / "codec" / "weights.safetensors")


def first(name: str, patches: Patches, runs: Path) -> None:
    """Train a codec that is not in the zoo, over AWGN at the one SNR of its paper's figures."""
    torch.manual_seed(0)
    network = PLANS[name].network or {}
    link = Link(DeepJSCCTransmitter(**network), AWGN(), DeepJSCCReceiver(**network))
    settings = TrainSpec(
        steps=2500, batch_size=64, lr=3e-3, optimiser="muon", warmup=0.05, snr_db=10.0,
        save_every=200,
    )  # fmt: skip
    train(link, patches, Reconstruct("log_mse"), settings, folder=runs / name / "codec")


def codec(weights: str, name: str) -> tuple[Any, Any]:
    """Return both ends as the weights have them, ready to be trained on."""
    ends = zoo.pair(weights, *classes(name))
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


def control(name: str, patches: Patches, runs: Path, channel: Any, out: Path) -> None:
    """The codec alone, for as many steps as stages 2 and 3 together."""
    transmitter, receiver = codec(start(name, runs), name)
    plan = PLANS[name]
    fit(Link(transmitter, channel, receiver), patches, out, steps=2 * plan.steps, lr=plan.lr)


def stages(
    name: str, patches: Patches, runs: Path, out: Path, around: Any, last: int = 3
) -> list[TrainResult]:
    """Stage 2, a denoiser before the frozen codec, and stage 3, all of it.

    Args:
        name: the codec.
        patches: what to train on.
        runs: folder of all runs.
        out: folder of this run.
        around: makes the receiver from the codec's receiver and ``stage``.
        last: 2 for stage 2 alone.
    """
    torch.manual_seed(0)
    plan, begin = PLANS[name], start(name, runs)
    transmitter, receiver = codec(begin, name)
    link = Link(transmitter, Mixture(), around(receiver, stage=2))
    done = [fit(link, patches, out / "stage2", steps=plan.steps, lr=FRESH_LR)]
    if last == 2:
        return done
    transmitter, receiver = codec(begin, name)
    link = Link(transmitter, Mixture(), around(receiver, stage=3))
    zoo.load(out / "stage2" / "weights.safetensors", link.transmitter, link.receiver)
    return [*done, fit(link, patches, out / "stage3", steps=plan.steps, lr=plan.lr)]


def diffusion(name: str, patches: Patches, runs: Path, out: Path) -> None:
    """The U-Net on clean latents, before a frozen codec."""
    torch.manual_seed(0)
    plan = PLANS[name]
    transmitter, receiver = codec(start(name, runs), name)
    rival = DiffusionReceiver(receiver, stage=2)
    done = out / "stage2" / "weights.safetensors"
    if not done.is_file():
        done.parent.mkdir(parents=True, exist_ok=True)
        minutes = fit_noise(transmitter, rival, patches, plan.steps)
        facts = {"steps": plan.steps, "minutes": round(minutes, 2)}
        zoo.export(done, transmitter, rival, facts)
        print("stage2", facts, flush=True)


class Noise(Task):
    """What a diffusion model makes of the noise in the latents that a frozen codec sends."""

    def __init__(self, transmitter: Any, rival: DiffusionReceiver) -> None:
        super().__init__()
        self.transmitter, self.rival = transmitter.requires_grad_(False), rival

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the error of the noise, at random SNRs and steps of the diffusion."""
        snr_db = torch.empty(len(source)).uniform_(*SNR_DB, generator=generator)
        with torch.no_grad():
            symbols = self.transmitter(source, CSI(None, 10 ** (-snr_db / 10)))
        grid = self.transmitter.grid(tuple(source.shape[1:]))
        latent = to_latent(symbols, self.transmitter.channels, *grid)
        return self.rival.noise_loss(latent, generator)


def fit_noise(transmitter: Any, rival: DiffusionReceiver, patches: Patches, steps: int) -> float:
    """Train the U-Net with the settings of :func:`fit`; return the minutes."""
    settings = TrainSpec(
        steps=steps, batch_size=32, lr=FRESH_LR, optimiser="muon", warmup=0.05, ema=0.0,
        through="task",
    )  # fmt: skip
    with Training(
        AnyLink(), patches, Noise(transmitter, rival), settings, progress="diffusion"
    ) as training:
        training.advance()
        return training.finish().minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codec", choices=PLANS)
    parser.add_argument(
        "what", choices=("control", "control-awgn", "residual", "dncnn", "diffusion")
    )
    parser.add_argument("--pools", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    name, runs, out = args.codec, args.out, args.out / args.codec / args.what
    patches = Patches(args.pools / "cifar.npz")
    if PLANS[name].network and not Path(start(name, runs)).is_file():
        first(name, patches, runs)
    if args.what.startswith("control"):
        channel = AWGN() if args.what == "control-awgn" else Mixture()
        control(name, patches, runs, channel, out)
    elif args.what == "residual":
        around = functools.partial(LatentDenoiser, **SIZES, told=PLANS[name].told)
        stages(name, patches, runs, out, around)
    elif args.what == "dncnn":
        stages(name, patches, runs, out, DnCNNReceiver, last=2)
    else:
        diffusion(name, patches, runs, out)


if __name__ == "__main__":
    main()
