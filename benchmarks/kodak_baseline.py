"""The classical baseline on Kodak: an image codec at capacity, and with 5G LDPC and QAM.

    python benchmarks/kodak_baseline.py --data DIR [--codecs hevc avif] [--snr-db 1 4 7 10 13]

DIR holds the 24 images as PNG files, or the pack ``kodak24.npz``; $SEMSIM_DATA is its default.
AWGN, PSNR on 8-bit values, mean over images. Every scheme is run twice: the first time encodes what
is not in the cache ($SEMSIM_CACHE, or ~/.cache/semsim), the second is the time from warm caches.
With --cold the cache is a new folder, deleted afterwards, and the first time is reported too.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from channels.awgn import AWGN
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.image_codecs import CodecName, psnr
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.stills import pixels_of
from semsim.intervals import Moments
from semsim.link import Link
from semsim.seeds import stream

SNRS_DB = (0.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0)
FIXED_MCS = (4, 7, 11, 15)  #: QPSK 0.59, 16-QAM 0.48, 64-QAM 0.46, 64-QAM 0.65
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """One scheme at one SNR; seconds and CPU seconds are those of the scheme's whole sweep."""

    scheme: str
    codec: str
    snr_db: float
    psnr_db: float
    ci_low: float
    ci_high: float
    images: int
    decoded: float
    mcs: str
    cbr: float
    first_s: float
    first_cpu_s: float
    warm_s: float
    warm_cpu_s: float


def load_images(folder: Path) -> list[np.ndarray]:
    """Return the images of a folder of PNG files, or of its pack kodak24.npz, uint8 [H, W, 3]."""
    pack = folder / "kodak24.npz"
    if pack.is_file():
        with np.load(pack, allow_pickle=False) as arrays:
            blob, edges = arrays["blob"], arrays["off"]
        files: list = [io.BytesIO(blob[a:b].tobytes()) for a, b in itertools.pairwise(edges)]
    else:
        files = sorted(folder.glob("*.png"))
    if not files:
        raise SystemExit(f"no kodak24.npz and no PNG file in {folder}")
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def batches(images: list[np.ndarray]) -> Iterator[Tensor]:
    """Yield the images of each size as one batch [B, 3, H, W] in [0, 1]."""
    for shape in sorted({image.shape for image in images}):
        same = np.stack([image for image in images if image.shape == shape])
        yield torch.from_numpy(same).permute(0, 3, 1, 2) / 255


def schemes(codec: CodecName, cbr: str, fixed: Sequence[int]) -> dict[str, Link]:
    """Return the links to compare."""
    links: dict[str, Link] = {
        "bound": BoundLink(BoundTransmitter(cbr, codec=codec), AWGN()),
        "separate": SeparateLink(SeparateTransmitter(cbr, codec=codec), AWGN()),
    }
    for mcs in fixed:
        transmitter = SeparateTransmitter(cbr, codec=codec, mcs=mcs)
        links[f"separate, MCS {mcs}"] = SeparateLink(transmitter, AWGN())
    return links


def sweep(
    name: str, codec: str, link: Link, images: list[np.ndarray], snrs_db: list[float]
) -> list[dict]:
    """Send all images at all SNRs."""
    rows = []
    for snr_db in snrs_db:
        values: list[float] = []
        decoded: list[float] = []
        chosen: Counter[int] = Counter()
        cbr = 0.0
        for index, source in enumerate(batches(images)):
            sent = link.transmit(source, snr_db, stream(0, "kodak", index))
            pairs = zip(pixels_of(source), pixels_of(sent.estimate), strict=True)
            values += [psnr(image, estimate) for image, estimate in pairs]
            decoded += sent.notes["decoded"].tolist()
            chosen.update(sent.notes["mcs"].tolist() if "mcs" in sent.notes else [])
            cbr = sent.ledger.total / source[0].numel()
        moments = Moments()
        moments.add(values)
        low, high = moments.interval()
        mcs = " ".join(f"{row}x{count}" for row, count in sorted(chosen.items()))
        share = sum(decoded) / len(decoded)
        rows.append(
            {"scheme": name, "codec": codec, "snr_db": snr_db, "psnr_db": moments.mean,
             "ci_low": low, "ci_high": high, "images": len(values), "decoded": share,
             "mcs": mcs, "cbr": cbr}
        )  # fmt: skip
        print(f"{codec:8s} {name:20s} {snr_db:5.1f} dB {moments.mean:6.2f} dB  {mcs}", flush=True)
    return rows


def timed(
    name: str, codec: str, link: Link, images: list[np.ndarray], snrs_db: list[float]
) -> list[Row]:
    """Sweep twice and time both."""
    wall, cpu = time.perf_counter(), time.process_time()
    rows = sweep(name, codec, link, images, snrs_db)
    first_s, first_cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    again = sweep(name, codec, link, images, snrs_db)
    warm_s, warm_cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    if repr(again) != repr(rows):  # an interval of one image is NaN, which equals nothing
        raise SystemExit(f"{name} with {codec} is not repeatable")
    times = [round(seconds, 1) for seconds in (first_s, first_cpu_s, warm_s, warm_cpu_s)]
    return [Row(*row.values(), *times) for row in rows]


def write(rows: list[Row], name: str, command: str, cold: bool) -> None:
    """Write all rows as CSV and PSNR over SNR as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            rounded = {key: round(getattr(row, key), 4) for key in ("psnr_db", "ci_low", "ci_high")}
            writer.writerow({**asdict(row), **rounded})
    snrs_db = sorted({row.snr_db for row in rows})
    heads = " | ".join(f"{snr_db:g} dB" for snr_db in snrs_db)
    lines = [
        "# Classical baseline on Kodak, AWGN",
        "",
        f"PSNR in dB, mean over {rows[0].images} images, CBR {rows[0].cbr:.4f}. `{command}`",
        "",
        f"| scheme | codec | {heads} |{' cold, s (CPU s) |' * cold} warm, s (CPU s) |",
        "|---|---|" + "---|" * (len(snrs_db) + 1 + cold),
    ]
    for start in range(0, len(rows), len(snrs_db)):
        part = rows[start : start + len(snrs_db)]
        values = " | ".join(f"{row.psnr_db:.2f}" for row in part)
        first = f" {part[0].first_s:.0f} ({part[0].first_cpu_s:.0f}) |" * cold
        warm = f"{part[0].warm_s:.0f} ({part[0].warm_cpu_s:.0f})"
        lines.append(f"| {part[0].scheme} | {part[0].codec} | {values} |{first} {warm} |")
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SEMSIM_DATA"))
    parser.add_argument("--codecs", nargs="+", default=["hevc", "avif"])
    parser.add_argument("--cbr", default="1/16")
    parser.add_argument("--snr-db", type=float, nargs="+", default=SNRS_DB)
    parser.add_argument("--fixed-mcs", type=int, nargs="*", default=FIXED_MCS, help="first codec's")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--name", default="kodak_baseline", help="of the files in results/")
    parser.add_argument("--cold", action="store_true", help="start from an empty cache")
    args = parser.parse_args()
    if args.data is None:
        parser.error("say where the images are: --data DIR, or $SEMSIM_DATA")
    with tempfile.TemporaryDirectory() as empty:
        if args.cold:
            os.environ["SEMSIM_CACHE"] = empty
        compare(args)


def compare(args: argparse.Namespace) -> None:
    """Run all schemes and write after each."""
    images = load_images(args.data)[: args.images]
    command = f"python benchmarks/kodak_baseline.py --codecs {' '.join(args.codecs)}"
    command += f" --cbr {args.cbr} --snr-db {' '.join(f'{snr:g}' for snr in args.snr_db)}"
    command += f" --fixed-mcs {' '.join(map(str, args.fixed_mcs))}".rstrip()
    command += f" --name {args.name}" + " --cold" * args.cold
    rows: list[Row] = []
    for number, codec in enumerate(args.codecs):
        fixed = () if number else args.fixed_mcs
        for name, link in schemes(codec, args.cbr, fixed).items():
            rows += timed(name, codec, link, images, sorted(args.snr_db))
            write(rows, args.name, command, args.cold)


if __name__ == "__main__":
    main()
