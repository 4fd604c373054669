"""LCFSC for photos over correlated 2x2 fading: its plain twin, its ceiling, wrong CSI, and HEVC.

    python benchmarks/lcfsc_photo.py --data DATA --runs RUNS

RUNS holds SYSTEM/weights.safetensors of ``twin``, ``masked`` and ``ceiling``, trained as the head
of scenarios/train/lcfsc-photo-2x2.yaml says.

All three go on from one plain backbone for as many steps. ``plain twin`` knows nothing at the
transmitter but the SNR, LCFSC masks half of the pairs of its encoder, in each head by itself, by
how good the stream of each token is, and the ``ceiling`` is told that beside each token. They send
as many symbols at equal power, behind the same SVD, and meet the same fading and noise. With
``wrong CSI`` the transmitter's network is told of the channel of another image; SVD and the
receiver keep the true one. HEVC + LDPC fills water, and chooses streams and rates for each draw.
Middles of the Kodak photos, 256 x 256, the mean over ``--draws`` draws of each; differences are
paired by photo, intervals are 95 % over photos. Writes benchmarks/results/lcfsc_photo.{csv,md}.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from denoisers import Recorded, middles
from torch import Tensor
from zoo_psnr import kodak

from channels import CSI, PerfectCSI, Rayleigh
from semsim import Link, Stop, evaluate, zoo
from semsim.codecs.lcfsc.codec import LCFSCReceiver, LCFSCTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.comparison.paired import mean_of
from semsim.metrics.image import PSNR
from semsim.phy.frontend import SVD
from semsim.types import Transmitter

RESULTS = Path(__file__).parent / "results"
SNRS = [1.0, 4.0, 7.0, 10.0, 13.0, 19.0]
CHANNELS = {
    "correlated 0.9": {"tx_correlation": 0.9, "rx_correlation": 0.9},
    "i.i.d.": {},
}
TWIN, HEVC = "plain twin", "HEVC + LDPC"
TRAINED = {TWIN: "twin", "LCFSC": "masked", "ceiling": "ceiling"}
SIDE = 256


class Misled(Transmitter):
    """A transmitter that is told of the channel that the image before in the batch meets."""

    sees_channel = True

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.codec, self.uses_csi = codec, True

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return as many symbols as the codec sends."""
        return int(self.codec.num_symbols(shape))

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K]."""
        after = csi.foreseen() if csi.foreseen is not None else csi
        other = replace(after, n0=after.n0.roll(1, dims=0))
        h = None if csi.h is None else csi.h.roll(1, dims=0)
        return self.codec(source, replace(csi, h=h, foreseen=lambda: other), generator)


def links(runs: Path, channel: Rayleigh) -> dict[str, Any]:
    """Return all systems over a channel."""
    ways = {"csi_tx": PerfectCSI(), "frontend": SVD()}
    made: dict[str, Any] = {}
    for name, folder in TRAINED.items():
        weights = runs / folder / "weights.safetensors"
        if not weights.is_file():
            raise SystemExit(f"{weights} is missing; train {folder} first")
        transmitter, receiver = zoo.pair(str(weights), LCFSCTransmitter, LCFSCReceiver)
        made[name] = Link(transmitter, channel, receiver, **ways).eval()
        if name != TWIN:
            made[f"{name}, wrong CSI"] = Link(Misled(transmitter), channel, receiver, **ways).eval()
    made[HEVC] = SeparateLink(
        SeparateTransmitter("1/16", codec="hevc"), channel,
        csi_tx=PerfectCSI(), frontend=SVD(water_filling=True),
    )  # fmt: skip
    return made


def values_of(link: Any, payload: Any, count: int, kept: Path) -> np.ndarray:
    """Return PSNR by SNR and photo, mean over its draws, [SNRs, photos]; kept in a file."""
    if kept.is_file():
        return np.load(kept)
    found = []
    for snr_db in SNRS:
        recorded = Recorded(PSNR())
        evaluate(
            link, payload, snr_db=[snr_db], metrics=[recorded], stop=Stop(1, count), seed=7,
            batch_size=8,
        )  # fmt: skip
        draws = torch.cat(recorded.values).numpy().reshape(-1, len(payload))
        found.append(draws.mean(axis=0))
    kept.parent.mkdir(exist_ok=True)
    np.save(kept, np.stack(found))
    print(kept.stem, np.stack(found).mean(axis=1).round(2).tolist(), flush=True)
    return np.stack(found)


def _of(runs: Path, system: str) -> str:
    """Return what tells the weights of a system from others, for the name of a file."""
    folder = TRAINED.get(system.partition(",")[0])
    return "" if folder is None else f" {zoo.digest(runs / folder / 'weights.safetensors')[:12]}"


def measure(args: argparse.Namespace) -> pandas.DataFrame:
    """Return a row per channel, system and SNR."""
    photos, rows = middles(kodak(args.data), SIDE), []
    for name, settings in CHANNELS.items():
        channel = Rayleigh(num_tx=2, num_rx=2, coherence="block", **settings)
        found = {
            system: values_of(
                link,
                photos,
                args.draws * len(photos),
                args.runs
                / "measured"
                / f"{system} {name} {args.draws}{_of(args.runs, system)}.npy",
            )
            for system, link in links(args.runs, channel).items()
        }
        for system, values in found.items():
            for index, snr_db in enumerate(SNRS):
                row: dict[str, Any] = {"channel": name, "system": system, "snr_db": snr_db}
                row |= {"psnr_db": values[index].mean(), "photos": values.shape[1]}
                for rival, key in ((TWIN, "over_twin"), (HEVC, "over_hevc")):
                    if rival in found:
                        gain = mean_of(values[index] - found[rival][index])
                        row |= {key: gain.value, f"{key}_low": gain.low, f"{key}_high": gain.high}
                rows.append(row)
    return pandas.DataFrame(rows)


def report(rows: pandas.DataFrame) -> str:
    """Return the tables."""
    lines = ["# " + __doc__.splitlines()[0], "", *__doc__.split("\n\n")[3].splitlines()]
    head = " | ".join(f"{snr:g} dB" for snr in SNRS)
    for channel, part in rows.groupby("channel", sort=False):
        for key, rival in (("over_twin", TWIN), ("over_hevc", HEVC)):
            lines += ["", f"## {channel}: PSNR in dB, in brackets less {rival}", "",
                      f"| system | {head} |", "|" + " --- |" * (len(SNRS) + 1)]  # fmt: skip
            for system, own in part.groupby("system", sort=False):
                cells = [
                    f"{r['psnr_db']:.2f}" + ("" if system == rival else
                    f" ({r[key]:+.2f}, {r[key + '_low']:+.2f} to {r[key + '_high']:+.2f})")
                    for r in own.to_dict("records")
                ]  # fmt: skip
                lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(args)
    rows.round(4).to_csv(RESULTS / "lcfsc_photo.csv", index=False)
    (RESULTS / "lcfsc_photo.md").write_text(report(rows), encoding="utf-8")
    print(report(rows))


if __name__ == "__main__":
    main()
