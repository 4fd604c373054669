"""The bounds of one link beside separate coding: what knowledge is worth, and what coding loses.

    python benchmarks/bounds.py [--snr-db 7] [--items 500] [--channel rayleigh]

HEVC at CBR 1/16 on the five bundled photos at 256 px, over block fading; every scheme meets the
same draws. Prints one line per scheme.
"""

from __future__ import annotations

import argparse

from channels import PerfectCSI
from channels.base import Channel
from semsim import spec
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.evaluation import Stop, evaluate
from semsim.link import Link
from semsim.payloads.photos import Photos


def links(channel: Channel) -> dict[str, Link]:
    """Return the schemes to compare."""
    bounds = {"rate: per_draw": {"rate": "per_draw"}, "rate: ergodic": {"rate": "ergodic"}}
    bounds |= {"rate: one": {"rate": "one"}, "rate: one, code: shell": {"code": "shell"}}
    return {
        **{
            name: BoundLink(BoundTransmitter("1/16", **more), channel)
            for name, more in bounds.items()
        },
        "separate": SeparateLink(SeparateTransmitter("1/16"), channel),
        "separate, draw known": SeparateLink(
            SeparateTransmitter("1/16"), channel, csi_tx=PerfectCSI()
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr-db", type=float, default=7.0)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--channel", default="rayleigh", help="a kind that needs no argument")
    args = parser.parse_args()
    channel = spec.build(spec.parse("channel", args.channel))
    photos = Photos(resize=256, crop=256)
    for name, link in links(channel).items():
        (row,) = evaluate(
            link, photos, snr_db=[args.snr_db], metrics=["psnr"], batch_size=25, seed=1,
            stop=Stop(max_items=args.items),
        )  # fmt: skip
        half = (row["ci_high"] - row["ci_low"]) / 2
        said = row.get("bound", "")
        print(f"{name:24s} {row['value']:6.2f} +-{half:.2f} dB  {said}", flush=True)


if __name__ == "__main__":
    main()
