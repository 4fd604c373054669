"""Baselines without learning on photos: SoftCast, HEVC with LDPC, and the hybrid of both.

    python benchmarks/baselines.py --data DIR [--images 24]  # writes results/baselines.md
    python benchmarks/baselines.py --tune DIR [--images 8 --draws 3]  # tries splits

DIR is a folder of images, or a pack NAME.npz of encoded files; without --data the bundled photos
are shown. All schemes spend the same channel uses: what side information costs at an SNR comes off
the payload. AWGN, and Rayleigh block fading on one and two receive antennas that the receiver alone
knows. Every image meets --draws draws, the same for all schemes; differences are paired per image.
"""

from __future__ import annotations

import argparse
import io
import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from channels import AWGN, Channel, Rayleigh
from semsim.codecs.hybrid import HybridLink, HybridTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.softcast import SoftCastReceiver, SoftCastTransmitter
from semsim.comparison.paired import mean_of
from semsim.link import Link
from semsim.payloads.photos import PHOTOS, Photos
from semsim.seeds import stream

SNRS_DB = (1.0, 4.0, 7.0, 10.0, 13.0)
CBR = Fraction(1, 16)
SIDE = 256  #: images are cut to the largest centre square and shrunk to this
RESULTS = Path(__file__).with_name("results")
#: share of channel uses, share of power, MCS, codec: what --tune looks at
SPLITS = [
    (0.2, 0.3, 2, "hevc"), (0.3, 0.5, 3, "hevc"), (0.4, 0.6, 4, "hevc"), (0.5, 0.5, 2, "hevc"),
    (0.5, 0.6, 2, "hevc"), (0.5, 0.6, 3, "hevc"), (0.5, 0.6, 4, "hevc"), (0.5, 0.7, 5, "hevc"),
    (0.6, 0.7, 3, "hevc"), (0.7, 0.8, 2, "hevc"), (0.5, 0.6, 3, "avif"),
]  # fmt: skip


def load(path: Path | None, count: int) -> Tensor:
    """Return images as one batch [B, 3, SIDE, SIDE] in [0, 1]."""
    if path is None:
        photos = Photos(PHOTOS, resize=SIDE, crop=SIDE)
        return torch.stack([photos[i][0] for i in range(min(count, len(photos)))])
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            blob, edges = arrays["blob"], arrays["off"]
            train = arrays["split"] == "train" if "split" in arrays else np.ones(len(edges) - 1)
        files: list = [
            io.BytesIO(blob[a:b].tobytes())
            for (a, b), taken in zip(itertools.pairwise(edges), train, strict=True)
            if taken
        ]
    else:
        files = sorted(path.glob("*.png")) + sorted(path.glob("*.jpg"))
    if not files:
        raise SystemExit(f"no images in {path}")
    images = [Image.open(file).convert("RGB") for file in files[:count]]
    squares = []
    for image in images:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box)
        squares.append(torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255)
    return torch.stack(squares)


def within(make: type[nn.Module], snr_db: float, **arguments: object) -> nn.Module:
    """Return a transmitter whose symbols and side information are CBR together, as near as can be.

    Side information travels at capacity, as a link charges it.
    """
    shape, bits_per_use = (3, SIDE, SIDE), math.log2(1 + 10 ** (snr_db / 10))
    total = math.floor(CBR * math.prod(shape))
    symbols = total
    for _ in range(20):
        transmitter = make(str(Fraction(symbols, math.prod(shape))), **arguments)
        side = transmitter.layout(shape).side_info_bits / bits_per_use
        symbols = math.floor(total - side)
    return make(str(Fraction(symbols, math.prod(shape))), **arguments)


def links(snr_db: float, channel: Channel) -> dict[str, Link]:
    """Return what is compared."""
    softcast = within(SoftCastTransmitter, snr_db)
    return {
        "SoftCast": Link(softcast, channel, SoftCastReceiver(softcast.cbr)),
        "HEVC + LDPC": SeparateLink(SeparateTransmitter(str(CBR)), channel),
        "hybrid": HybridLink(within(HybridTransmitter, snr_db), channel),
    }


def psnr_db(link: Link, source: Tensor, snr_db: float, draws: int) -> tuple[Tensor, float]:
    """Return the PSNR of each image, [B], mean over draws, and the CBR that was spent."""
    total, cbr = torch.zeros(len(source), dtype=torch.float64), 0.0
    for number in range(draws):
        with torch.inference_mode():
            sent = link.eval().transmit(source, snr_db, stream(1, "baselines", number))
        wrong = ((sent.estimate - source) * 255).round().double()
        mse = wrong.square().mean(dim=(1, 2, 3)).clamp_min(1e-3)
        total += 10 * torch.log10(255**2 / mse)
        cbr = sent.ledger.total / source[0].numel()
    return total / draws, cbr


def tune(source: Tensor, draws: int) -> None:
    """Print the mean PSNR of each split over fading with two receive antennas and all SNRs."""
    channel = Rayleigh(num_rx=2)
    for scheme in ("SoftCast", "HEVC + LDPC"):
        row = [psnr_db(links(s, channel)[scheme], source, s, draws)[0].mean() for s in SNRS_DB]
        _show(scheme, row)
    for share, power, mcs, codec in SPLITS:
        split = {"share": share, "power": power, "mcs": mcs, "codec": codec}
        row = []
        for snr_db in SNRS_DB:
            link = HybridLink(within(HybridTransmitter, snr_db, **split), channel)
            row.append(psnr_db(link, source, snr_db, draws)[0].mean())
        _show(f"{share} {power} {mcs} {codec}", row)


def _show(name: str, row: list[Tensor]) -> None:
    line = " ".join(f"{float(value):.2f}" for value in row)
    print(f"{name}: {float(sum(row)) / len(row):.3f} | {line}", flush=True)


def measure(source: Tensor, draws: int, name: str) -> list[str]:
    """Return a Markdown table of PSNR and paired differences."""
    lines = [f"## {name}, {len(source)} images, {draws} draws each", ""]
    lines += ["| channel | scheme | " + " | ".join(f"{s:g} dB" for s in SNRS_DB) + " |"]
    lines += ["|---|---|" + "---|" * len(SNRS_DB)]
    channels = {"AWGN": AWGN(), "Rayleigh 1x1": Rayleigh(), "Rayleigh 1x2": Rayleigh(num_rx=2)}
    for title, channel in channels.items():
        found = [
            {n: psnr_db(link, source, s, draws) for n, link in links(s, channel).items()}
            for s in SNRS_DB
        ]
        for scheme in found[0]:
            cells = [f"{of[scheme][0].mean():.2f} ({of[scheme][1]:.4f})" for of in found]
            lines.append(f"| {title} | {scheme} | " + " | ".join(cells) + " |")
        for other in ("SoftCast", "HEVC + LDPC"):
            gaps = [mean_of((of["hybrid"][0] - of[other][0]).numpy()) for of in found]
            cells = [f"{g.value:+.2f} ({g.low:+.2f} to {g.high:+.2f})" for g in gaps]
            lines.append(f"| {title} | hybrid minus {other} | " + " | ".join(cells) + " |")
        print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    """Tune, or measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="images that are shown")
    parser.add_argument("--tune", type=Path, help="other images, for choosing the split")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--draws", type=int, default=8, help="of fading and noise for each image")
    args = parser.parse_args()
    if args.tune:
        tune(load(args.tune, args.images), args.draws)
        return
    name = "Bundled photos" if args.data is None else args.data.stem
    lines = measure(load(args.data, args.images), args.draws, name)
    file = RESULTS / f"baselines_{name.split()[0].lower()}.md"
    command = "python benchmarks/baselines.py" + " --data DIR" * (args.data is not None)
    head = "# Baselines without learning\n\nPSNR in dB, in brackets the CBR spent. Made by "
    head += f"`{command} --draws {args.draws}`.\n\n"
    file.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
