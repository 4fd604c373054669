"""Measure block error rates of 5G LDPC with QAM over AWGN and append them to semsim's counts.

    python benchmarks/measure_bler.py [--mcs 2 3 4] [--coded-bits 6144 1536 512] [--belief 0.5 2]

Walks the waterfall of each scheme in steps of 0.25 dB with the true decoder and writes a point as
soon as it is done, so it can be stopped and started again; points that are there are not repeated.
With a belief the decoder takes the noise power for so many times what it is.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import torch

from channels.units import snr_db_to_n0
from semsim.phy.bler import COLUMNS, COUNTS_FILE, Count, read_counts
from semsim.phy.ldpc import Segmentation, ldpc_demodulate, ldpc_modulate
from semsim.phy.mcs import MCS_TABLE, mcs_by_index
from semsim.phy.qam import qam_information
from semsim.seeds import stream

STEP_DB = 0.25
BATCH = 32


def measure(plan: Segmentation, snr_db: float, belief: float, args: argparse.Namespace) -> Count:
    """Send blocks until enough are lost; a block is lost where any bit is wrong."""
    generator = stream(
        0, "bler", plan.mcs.index, plan.coded, snr_db
    )  # the same noise for all beliefs
    blocks = errors = 0
    while errors < args.max_errors and blocks < args.max_blocks:
        shape = (BATCH, plan.info - plan.crc)
        payload = torch.randint(0, 2, shape, generator=generator).float()
        x = ldpc_modulate(payload, plan)
        n0 = torch.full(x.shape, snr_db_to_n0(snr_db))
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        decoded, _ = ldpc_demodulate(x + n0.sqrt() * noise, belief * n0, plan)
        errors += int((decoded != payload).any(dim=1).sum())
        blocks += BATCH
    return Count(plan.mcs.index, plan.coded, snr_db, blocks, errors, belief)


def starting_snr_db(plan: Segmentation, belief: float) -> float:
    """Return the grid point about where the waterfall is: capacity and a gap for the length.

    Noise taken for too much costs nearly as much as if it were there, for too little much less.
    """
    grid = torch.arange(-10.0, 35.0, STEP_DB)
    enough = qam_information(grid, plan.mcs.bits_per_symbol) >= plan.mcs.efficiency
    wrong_db = 10 * math.log10(belief)
    gap_db = 0.4 + 40 / math.sqrt(plan.coded) + max(0.5 * wrong_db, -0.15 * wrong_db)
    return float(grid[enough][0]) + round(gap_db / STEP_DB) * STEP_DB


def walk(
    plan: Segmentation, belief: float, args: argparse.Namespace, known: dict[float, Count]
) -> None:
    """Measure from the middle up until blocks are rarely lost, and down until they mostly are."""
    start = starting_snr_db(plan, belief)
    step_db = STEP_DB if belief >= 1 else 2 * STEP_DB
    for direction, done in ((1, lambda rate: rate < 0.05), (-1, lambda rate: rate > 0.8)):
        snr_db = start if direction == 1 else start - step_db
        while True:
            if snr_db not in known:
                known[snr_db] = measure(plan, snr_db, belief, args)
                append(args.out, known[snr_db])
            rate = known[snr_db].errors / known[snr_db].blocks
            if done(rate):
                break
            snr_db += direction * step_db


def append(path: Path, count: Count) -> None:
    """Add a line, with a heading where the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(getattr(count, column) for column in COLUMNS)
    rate = count.errors / count.blocks
    place = f"mcs {count.mcs:2d}  n {count.coded_bits}  {count.snr_db:6.2f} dB"
    print(f"{place}  belief {count.belief:g}  {rate:.4f}", flush=True)


def main() -> None:
    """Measure what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mcs", type=int, nargs="+", default=sorted(MCS_TABLE))
    parser.add_argument("--coded-bits", type=int, nargs="+", default=[6144, 1536, 512])
    parser.add_argument("--belief", type=float, nargs="+", default=[1.0])
    parser.add_argument("--max-errors", type=int, default=40)
    parser.add_argument("--max-blocks", type=int, default=256)
    parser.add_argument("--out", type=Path, default=COUNTS_FILE)
    args = parser.parse_args()
    before = time.perf_counter()
    counts = read_counts(args.out) if args.out.exists() else []
    for coded_bits in args.coded_bits:
        for index in args.mcs:
            mcs = mcs_by_index(index)
            coded = coded_bits // mcs.bits_per_symbol * mcs.bits_per_symbol
            info = math.floor(coded * mcs.rate)
            plan = Segmentation(mcs, 1, coded, info, 24)
            for belief in args.belief:
                here = (index, coded, belief)
                known = {c.snr_db: c for c in counts if (c.mcs, c.coded_bits, c.belief) == here}
                walk(plan, belief, args, known)
    print(f"{time.perf_counter() - before:.0f} s")


if __name__ == "__main__":
    main()
