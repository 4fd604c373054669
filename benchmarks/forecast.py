"""What the classical baseline expects of a channel that is estimated, and what arrives.

    python benchmarks/forecast.py [--items 600]

The photos of semsim at 64 px, JPEG, CBR 1/8, block Rayleigh fading; MCS and streams chosen by the
transmitter. Expected: the mean of the odds it gave its choices. Arrived: the share that did, with
its exact 95 % interval. Writes benchmarks/results/forecast.md; five minutes of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from channels.csi import FeedbackCSI, NoCSI, PerfectCSI, PilotCSI
from channels.fading import Rayleigh
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.evaluation import Stop, evaluate
from semsim.payloads.photos import Photos
from semsim.phy.frontend import LMMSE, RZF, SVD

RESULTS = Path(__file__).with_name("results") / "forecast.md"
SETTINGS: list[tuple[str, int, int, float, dict[str, Any]]] = [
    ("4x2, SVD, 8 pilots, feedback", 4, 2, 10.0,
     {"csi_rx": PilotCSI(8), "csi_tx": FeedbackCSI(), "frontend": SVD()}),
    ("4x2, RZF, 8 pilots, feedback of 4 bits", 4, 2, 10.0,
     {"csi_rx": PilotCSI(8), "csi_tx": FeedbackCSI(4), "frontend": RZF()}),
    ("4x2, SVD, 32 pilots, feedback", 4, 2, 10.0,
     {"csi_rx": PilotCSI(32), "csi_tx": FeedbackCSI(), "frontend": SVD()}),
    ("2x2, SVD, 4 pilots, feedback", 2, 2, 20.0,
     {"csi_rx": PilotCSI(4), "csi_tx": FeedbackCSI(), "frontend": SVD()}),
    ("2x2, LMMSE, 4 pilots, no feedback", 2, 2, 10.0,
     {"csi_rx": PilotCSI(4), "csi_tx": NoCSI(), "frontend": LMMSE()}),
    ("4x2, RZF, known channel, feedback of 4 bits", 4, 2, 10.0,
     {"csi_rx": PerfectCSI(), "csi_tx": FeedbackCSI(4), "frontend": RZF()}),
]  # fmt: skip


def line(name: str, num_tx: int, num_rx: int, snr_db: float, ends: dict[str, Any], n: int) -> str:
    """Return a row of the table."""
    link = SeparateLink(SeparateTransmitter("1/8", codec="jpeg"), Rayleigh(num_tx, num_rx), **ends)
    outage, psnr = evaluate(
        link, Photos(crop=64), snr_db=[snr_db], metrics=["outage", "psnr"],
        stop=Stop(max_items=n), batch_size=50, seed=3,
    )  # fmt: skip
    low, high = 1 - outage["ci_high"], 1 - outage["ci_low"]
    return (
        f"| {name} | {snr_db:g} dB | {outage['odds']:.3f} | {1 - outage['value']:.3f} "
        f"({low:.3f} to {high:.3f}) | {psnr['value']:.2f} dB |"
    )


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What the classical baseline expects, and what arrives",
        "",
        f"`python benchmarks/forecast.py --items {args.items}`: the photos of semsim at 64 px, "
        "JPEG, CBR 1/8, block Rayleigh fading.",
        "",
        "| setting | SNR | expected | arrived | PSNR |",
        "|---|---|---|---|---|",
    ]
    for setting in SETTINGS:
        lines.append(line(*setting, args.items))
        print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
