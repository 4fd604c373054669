"""The latent denoiser before the Swin codec where the receiver does not know all of its channel.

    python benchmarks/denoiser_mismatch.py --data DATA --frozen W [--joint W] [--control W]
        [--codec swin-photo-1-16 --delta 1e-4]

``joint`` are the weights that ``semsim train scenarios/train/latent-denoiser-swin-cifar-1-6.yaml``
leaves, ``frozen`` those of its first stage (folder stage-1). ``control`` is the codec trained on by
``semsim train scenarios/train/swin-cifar-1-6-mismatched.yaml``, for as many steps over the same
channels, without a denoiser. For photos, ``frozen`` are the weights that ``semsim train
scenarios/train/latent-denoiser-swin-photo-1-16.yaml`` leaves. ``delta`` is the least predicted gain
that is worth a step; it is chosen such that no step is taken at 15 dB over AWGN.

All receivers are told the mean power of noise and interference. Two know more: ``Bayesian`` knows
how often bursts of impulses come, how long and how strong they are, and gives each symbol the noise
that the amplitudes in its burst speak for; ``genie`` knows which uses are hit, or how strong the
interferer is (``csi.rx: perfect``, ``frontend: irc``). Rates and powers of the impulses and the
line width of the phase noise are not those of the training. CIFAR-10, the first ``--images`` of the
last 1,000 lossless ones, or the middles of the Kodak photos, 192 x 192 pixels; the same noise for
all; differences are paired by image, intervals 95 %. Writes
benchmarks/results/denoiser_mismatch.{csv,md}, or denoiser_mismatch_photo.{csv,md}.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas
import torch
from denoisers import middles, per_image
from torch import Tensor
from zoo_psnr import Images, cifar, kodak

from channels import AWGN, CSI, Impulsive, Interference, PhaseNoise
from channels.base import Channel
from semsim import Link, zoo
from semsim.codecs.latent_denoiser import LatentDenoiser, similarity
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.comparison.paired import mean_of
from semsim.metrics.image import PSNR
from semsim.phy.frontend import IRC, LMMSE
from semsim.types import Receiver

RESULTS = Path(__file__).parent / "results"
SNRS = [-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0]
CODEC, BAYES, GENIE = "codec", "Bayesian", "genie"
CONTROL, DENOISER = "codec trained on", "denoiser and codec"
SETTINGS: dict[str, Channel] = {
    "AWGN": AWGN(),
    "impulses, 3 % at -12 dB": Impulsive(0.03, -12.0),
    "impulses, 10 % at -5 dB": Impulsive(0.1, -5.0),
    "bursts of 16, 3 % at -12 dB": Impulsive(0.03, -12.0, 16),
    "phase noise, 100 Hz": PhaseNoise(100.0, tracked=False),
    "interferer, 3 dB on average": Interference(3.0),
}


class Bayesian(Receiver):
    """Tell the codec of each symbol the noise that the amplitudes in its burst speak for.

    With p the probability that the burst of y was hit, the estimate of a symbol CN(0, 1) is
    y (p / (1 + v_1) + (1 - p) / (1 + v_0)), v_1 and v_0 being the noise with a hit and without.

    Args:
        codec: takes symbols y [B, 1, K] and their noise.
        channel: whose rate, power and bursts it knows.
    """

    def __init__(self, codec: Any, channel: Impulsive) -> None:
        super().__init__()
        self.codec, self.rate, self.burst_uses = codec, channel.rate, channel.burst_uses
        self.power = 10 ** (-channel.sir_db / 10)

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        """Return the codec's estimate."""
        quiet = (1 + csi.n0 - self.rate * self.power).reshape(len(y), 1, -1).expand(y.shape)
        loud, energy = quiet + self.power, y.abs().square()
        each = (quiet / loud).log() + energy / quiet - energy / loud
        bursts = each.unflatten(2, (-1, self.burst_uses)).sum(dim=3)  # K is whole bursts here
        hit = torch.sigmoid(bursts + math.log(self.rate / (1 - self.rate)))
        hit = hit.repeat_interleave(self.burst_uses, dim=2)
        trust = hit / loud + (1 - hit) / quiet
        return self.codec(y, CSI(None, 1 / trust - 1), shape, *rest)


def systems(args: argparse.Namespace, channel: Channel) -> dict[str, Link]:
    """Return the links to be compared over a channel."""
    ends = zoo.pair(args.codec, SwinTransmitter, SwinReceiver)
    made = {CODEC: Link(*_over(ends, channel), frontend=LMMSE())}
    if isinstance(channel, Impulsive):
        around = (ends[0], Bayesian(ends[1], channel))
        made[BAYES] = Link(*_over(around, channel), frontend=LMMSE())
    if isinstance(channel, Impulsive | Interference):
        made[GENIE] = Link(*_over(ends, channel), frontend=IRC())
    if args.control is not None:
        ends = zoo.pair(str(args.control), SwinTransmitter, SwinReceiver)
        made[CONTROL] = Link(*_over(ends, channel), frontend=LMMSE())
    for name, weights in (("denoiser, codec frozen", args.frozen), (DENOISER, args.joint)):
        if weights is not None:
            made[name] = Link(*_over(denoising(weights, args.delta), channel), frontend=LMMSE())
    return {name: link.eval() for name, link in made.items()}


def denoising(weights: Path, delta: float) -> tuple[Any, Any]:
    """Return both ends, with the denoiser around the codec."""
    ends: tuple[Any, Any] = zoo.pair(
        str(weights), SwinTransmitter, LatentDenoiser.around(SwinReceiver)
    )
    ends[1].delta = delta  # also of weights that were trained with another
    return ends


def _over(ends: tuple[Any, Any], channel: Channel) -> tuple[Any, Any, Any]:
    return ends[0], channel, ends[1]


def measure(args: argparse.Namespace, payload: Images, count: int) -> pandas.DataFrame:
    """Return a row per setting, system and SNR, with the paired difference to the codec."""
    rows = []
    for setting, channel in SETTINGS.items():
        found = {
            name: per_image(link, payload, PSNR(), count, SNRS)
            for name, link in systems(args, channel).items()
        }
        for (name, values), index in (
            (pair, i) for i in range(len(SNRS)) for pair in found.items()
        ):
            row: dict[str, Any] = {"setting": setting, "system": name, "snr_db": SNRS[index]}
            row |= {"psnr_db": values[index].mean(), "images": len(values[index])}
            for rival in rivals(args):
                gain = mean_of(values[index] - found[rival][index])
                row |= {f"over {rival}": gain.value, f"{rival} low": gain.low,
                        f"{rival} high": gain.high}  # fmt: skip
            rows.append(row)
        print(setting, {n: v.mean(axis=1).round(2).tolist() for n, v in found.items()}, flush=True)
    return pandas.DataFrame(rows)


def rivals(args: argparse.Namespace) -> list[str]:
    """Return the systems that all are compared to."""
    return [CODEC] if args.control is None else [CODEC, CONTROL]


def plan(weights: Path, delta: float) -> dict[float, int]:
    """Return the steps of the denoiser by SNR."""
    receiver = denoising(weights, delta)[1]
    n0 = torch.tensor([10 ** (-snr / 10) for snr in SNRS])
    return dict(zip(SNRS, receiver.plan(similarity(n0))[1].tolist(), strict=True))


def table(rows: pandas.DataFrame, rival: str) -> list[str]:
    """Return PSNR by setting and system, with the gain over a rival."""
    lines = []
    for setting, part in rows.groupby("setting", sort=False):
        head = " | ".join(f"{snr:g} dB" for snr in SNRS)
        lines += ["", f"## {setting}: PSNR in dB, in brackets the gain over the {rival}", ""]
        lines += [f"| receiver | {head} |", "|" + " --- |" * (len(SNRS) + 1)]
        for system, own in part.groupby("system", sort=False):
            cells = [
                f"{r['psnr_db']:.2f}" + ("" if system == rival else
                f" ({r[f'over {rival}']:+.2f}, {r[f'{rival} low']:+.2f} to "
                f"{r[f'{rival} high']:+.2f})")
                for r in own.to_dict("records")
            ]  # fmt: skip
            lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return lines


def write(rows: pandas.DataFrame, args: argparse.Namespace, path: Path) -> None:
    """Write the tables."""
    about = __doc__.split("\n\n")[3].split(" Writes")[0].split("\nWrites")[0]
    lines = ["# " + __doc__.splitlines()[0], ""]
    lines += [f"Codec: {args.codec}; delta: {args.delta:g}.", "", *about.splitlines()]
    for rival in rivals(args):
        lines += table(rows, rival)
    plans = {"before the codec as it was": args.frozen, "trained with it": args.joint}
    for name, weights in plans.items():
        if weights is not None:
            steps = ", ".join(f"{n} at {snr:g} dB" for snr, n in plan(weights, args.delta).items())
            lines += ["", f"Steps over AWGN of the denoiser {name}: {steps}."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--codec", default="swin-cifar-1-6")
    parser.add_argument("--frozen", type=Path, required=True)
    parser.add_argument("--joint", type=Path)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--delta", type=float, default=0.003)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = "photo" in args.codec
    payload = middles(kodak(args.data)) if photos else cifar(args.data)[0]
    rows = measure(args, payload, min(args.images, len(payload))).round(4)
    path = RESULTS / f"denoiser_mismatch{'_photo' if photos else ''}.md"
    rows.to_csv(path.with_suffix(".csv"), index=False)
    write(rows, args, path)


if __name__ == "__main__":
    main()
