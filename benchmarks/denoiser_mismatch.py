"""The latent denoiser before the Swin codec where the receiver does not know all of its channel.

    python benchmarks/denoiser_mismatch.py --data DATA --joint WEIGHTS [--frozen W] [--control W]

``joint`` are the weights that ``semsim train scenarios/train/latent-denoiser-swin-cifar-1-6.yaml``
leaves, ``frozen`` those of its first stage (folder stage-1); ``control`` is ``swin-cifar-1-6``
trained on for as many steps over the same channels without a denoiser. All receivers are told the
mean power of noise and interference. Beside them stand two that know more. ``blanker`` knows how
often impulses come and how strong they are, and gives each symbol the noise that its amplitude
tells: the Bayesian estimate of a Gaussian symbol. ``genie`` knows which uses are hit, or how
strong the interferer is (``csi.rx: perfect``, ``frontend: irc``). The settings of impulses and
phase noise are not those of the training. CIFAR-10, the first ``--images`` of the last 1,000
lossless ones; the same noise for all; differences are paired by image, intervals 95 %. Writes
benchmarks/results/denoiser_mismatch.{csv,md}.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas
import torch
from denoisers import per_image
from torch import Tensor
from zoo_psnr import Images, cifar

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
CODEC, BLANKER, GENIE = "codec", "blanker", "genie"
SETTINGS: dict[str, Channel] = {
    "AWGN": AWGN(),
    "impulses, 3 % at -12 dB": Impulsive(0.03, -12.0),
    "impulses, 10 % at -5 dB": Impulsive(0.1, -5.0),
    "bursts of 16, 3 % at -12 dB": Impulsive(0.03, -12.0, 16),
    "phase noise, 100 Hz": PhaseNoise(100.0, tracked=False),
    "interferer, 3 dB on average": Interference(3.0),
}


class Blanker(Receiver):
    """Tell the codec of each symbol the noise that its amplitude speaks for.

    With p the probability that y was hit, the estimate of a symbol CN(0, 1) is
    y (p / (1 + v_1) + (1 - p) / (1 + v_0)), v_1 and v_0 being the noise with a hit and without.

    Args:
        codec: takes symbols y [B, 1, K] and their noise.
        channel: whose rate and power it knows.
    """

    def __init__(self, codec: Any, channel: Impulsive) -> None:
        super().__init__()
        self.codec, self.rate = codec, channel.rate
        self.power = 10 ** (-channel.sir_db / 10)

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        """Return the codec's estimate."""
        quiet = 1 + csi.n0.reshape(len(y), 1, -1) - self.rate * self.power
        loud, energy = quiet + self.power, y.abs().square()
        odds = math.log(self.rate / (1 - self.rate)) + (quiet / loud).log()
        hit = torch.sigmoid(odds + energy / quiet - energy / loud)
        trust = hit / loud + (1 - hit) / quiet
        return self.codec(y, CSI(None, 1 / trust - 1), shape, *rest)


def systems(args: argparse.Namespace, channel: Channel) -> dict[str, Link]:
    """Return the links to be compared over a channel."""
    ends = zoo.pair("swin-cifar-1-6", SwinTransmitter, SwinReceiver)
    made = {CODEC: Link(*_over(ends, channel), frontend=LMMSE())}
    if isinstance(channel, Impulsive):
        around = (ends[0], Blanker(ends[1], channel))
        made[BLANKER] = Link(*_over(around, channel), frontend=LMMSE())
    if isinstance(channel, Impulsive | Interference):
        made[GENIE] = Link(*_over(ends, channel), frontend=IRC())
    if args.control:
        ends = zoo.pair(str(args.control), SwinTransmitter, SwinReceiver)
        made["codec trained on"] = Link(*_over(ends, channel), frontend=LMMSE())
    for name, weights in (("denoiser, codec frozen", args.frozen), ("denoiser", args.joint)):
        if weights:
            ends = zoo.pair(str(weights), SwinTransmitter, LatentDenoiser.around(SwinReceiver))
            made[name] = Link(*_over(ends, channel), frontend=LMMSE())
    return {name: link.eval() for name, link in made.items()}


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
            gain = mean_of(values[index] - found[CODEC][index])
            rows.append(
                {"setting": setting, "system": name, "snr_db": SNRS[index],
                 "psnr_db": values[index].mean(), "gain_db": gain.value, "low": gain.low,
                 "high": gain.high, "images": count}
            )  # fmt: skip
        print(setting, {n: v.mean(axis=1).round(2).tolist() for n, v in found.items()}, flush=True)
    return pandas.DataFrame(rows)


def plan(weights: Path) -> dict[float, int]:
    """Return the steps of the denoiser by SNR."""
    receiver: Any = zoo.pair(str(weights), SwinTransmitter, LatentDenoiser.around(SwinReceiver))[1]
    n0 = torch.tensor([10 ** (-snr / 10) for snr in SNRS])
    return dict(zip(SNRS, receiver.plan(similarity(n0))[1].tolist(), strict=True))


def table(rows: pandas.DataFrame, images: str) -> list[str]:
    """Return PSNR by setting and system, with the gain over the codec."""
    lines = []
    for setting, part in rows.groupby("setting", sort=False):
        head = " | ".join(f"{snr:g} dB" for snr in SNRS)
        lines += ["", f"## {images}, {setting}", "", f"| receiver | {head} |"]
        lines += ["|" + " --- |" * (len(SNRS) + 1)]
        for system, own in part.groupby("system", sort=False):
            cells = [
                f"{row.psnr_db:.2f}"
                if system == CODEC
                else f"{row.psnr_db:.2f} ({row.gain_db:+.2f}, {row.low:+.2f} to {row.high:+.2f})"
                for row in own.itertuples()
            ]
            lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--joint", type=Path, required=True)
    parser.add_argument("--frozen", type=Path)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--images", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    payloads = {"CIFAR-10": (cifar(args.data)[0], args.images)}
    found = {name: measure(args, *payload) for name, payload in payloads.items()}
    rows = pandas.concat(part.assign(data=name) for name, part in found.items())
    rows.round(4).to_csv(RESULTS / "denoiser_mismatch.csv", index=False)
    lines = ["# " + __doc__.splitlines()[0], "", "PSNR in dB, in brackets the gain over the codec."]
    for name, part in found.items():
        lines += table(part, name)
    steps = ", ".join(f"{count} at {snr:g} dB" for snr, count in plan(args.joint).items())
    lines += ["", f"Steps of the denoiser over AWGN: {steps}."]
    (RESULTS / "denoiser_mismatch.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
