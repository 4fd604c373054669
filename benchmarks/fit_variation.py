"""Fit what a bit of a block is worth by its place, where quality varies within the block.

    python benchmarks/fit_variation.py [--mcs 2 3 4] [--blocks 2048] [--coded-bits 1536]

Blocks of each row of the MCS table are sent over noise that varies within them (none, fading per
symbol, bursts, tilt, combs, two unequal streams, erasures) at SNRs about the waterfall and decoded
by the true decoder. A probit regression of the outcomes on the information of the bits in each
place, and on their certainty, gives the weights (``semsim/phy/variation.py``). Some 20 s a row on
one core, 10 minutes in all; a row is written as soon as it is fitted, rows that are there are kept.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from channels.units import db_to_linear
from semsim.phy.bler import waterfall
from semsim.phy.ldpc import Segmentation, SoftBlocks, ldpc_modulate
from semsim.phy.mcs import MCS_TABLE, mcs_by_index
from semsim.phy.qam import llr_information, qam_effective_snr_db, qam_nearest, qam_signed_llr
from semsim.phy.variation import COLUMNS, PARTS, VARIATION_FILE
from semsim.seeds import stream

Array = NDArray[np.float64]

BATCH = 256
KINDS = ("flat", "symbol", "bursts", "tilt", "comb", "streams", "erased", "erased bursts")
BURST = 16  # symbols
COMB = 12  # subcarriers
MOST_DB = 20.0  # between the best and the worst of two streams, or ends of a tilt
ABOUT_DB = (-0.5, 1.5)  # SNRs, from where the mean information says half
SPREAD = 0.3  # of the weights, one sigma, before anything is measured
ROUNDS = 40


def varied_noise(kind: str, rate: float, symbols: int, generator: torch.Generator) -> Tensor:
    """Return noise powers [BATCH, L], known but for a factor."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(BATCH, *shape, generator=generator)

    def spread_out(values: Tensor, each: int) -> Tensor:
        return values.repeat_interleave(each, dim=1)[:, :symbols]

    bursts = -(-symbols // BURST)
    place = torch.arange(symbols) / symbols
    match kind:
        case "flat":
            return torch.ones(BATCH, symbols)
        case "symbol":
            return 1 / -uniform(symbols).clamp(1e-9, 1 - 1e-7).log()
        case "bursts":
            return spread_out(1 / -uniform(bursts).clamp(1e-9, 1 - 1e-7).log(), BURST)
        case "tilt":  # up to four waves along the block
            wave = torch.cos(math.pi * 8 * uniform(1) * place + 2 * math.pi * uniform(1))
            return db_to_linear(MOST_DB / 2 * uniform(1) * wave)
        case "comb":
            gains = 1 / -uniform(COMB).clamp(1e-9, 1 - 1e-7).log()
            return gains.repeat(1, -(-symbols // COMB))[:, :symbols]
        case "streams":
            noise = torch.ones(BATCH, symbols)
            noise[:, 1::2] *= db_to_linear(MOST_DB * uniform(1))
            return noise
    share = 0.8 * (1 - rate) * uniform(1)
    lost = uniform(symbols) < share
    if kind == "erased bursts":
        lost = spread_out(uniform(bursts), BURST) < share
    return torch.where(lost, 1e6, 1.0)


def about_half(noise: Tensor, plan: Segmentation, generator: torch.Generator) -> Tensor:
    """Return the noise [BATCH, L] at SNRs about that at which half the blocks arrive."""
    middle, _ = waterfall(plan.mcs.index, plan.coded)
    low, high = torch.full((BATCH, 1), -20.0), torch.full((BATCH, 1), 60.0)
    for _ in range(14):
        snr_db = (low + high) / 2
        found = qam_effective_snr_db(noise * db_to_linear(-snr_db), plan.mcs.bits_per_symbol)
        less = found[:, None] < middle
        low, high = torch.where(less, snr_db, low), torch.where(less, high, snr_db)
    away = ABOUT_DB[0] + (ABOUT_DB[1] - ABOUT_DB[0]) * torch.rand(BATCH, 1, generator=generator)
    return noise * db_to_linear(-snr_db - away)


def measure(plan: Segmentation, blocks: int) -> tuple[Array, Array, Array]:
    """Return information by place [blocks, m PARTS], certainty and success of decoded blocks."""
    bits, rows = plan.mcs.bits_per_symbol, []
    for number in range(-(-blocks // BATCH)):
        kind = KINDS[number % len(KINDS)]
        generator = stream(0, "variation", plan.mcs.index, plan.coded, number)
        shape = (BATCH, plan.info - plan.crc)
        payload = torch.randint(0, 2, shape, generator=generator).float()
        x = ldpc_modulate(payload, plan)
        noise = varied_noise(kind, plan.mcs.rate, x.shape[1], generator)
        n0 = about_half(noise, plan, generator)
        y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=generator)
        signed = qam_signed_llr(y, n0, x, bits)
        heard, sent = SoftBlocks(plan), SoftBlocks(plan)
        heard.add(signed)
        sent.add(signed * (2 * qam_nearest(x, bits) - 1))
        decoded, _ = sent.decode()
        parts = [
            part
            for bit in heard.llr.tensor_split(bits, dim=1)
            for part in bit.tensor_split(PARTS, dim=1)
        ]
        information = torch.stack([llr_information(part) for part in parts], dim=1)
        certainty = torch.tanh(heard.llr.double() / 2).mean(dim=1, keepdim=True)
        good = (decoded == payload).all(dim=1, keepdim=True)
        rows.append(torch.cat([information, certainty, good.double()], dim=1).numpy())
    table = np.concatenate(rows)
    return table[:, :-2], table[:, -2], table[:, -1]


def probit(x: Array, good: Array, least: Array) -> Array:
    """Return the coefficients [1 + columns] of the probability that a block arrives.

    Args:
        x: [blocks, columns].
        good: 1 where the block arrived.
        least: precision of each coefficient before anything is measured, around 0; [1 + columns].
    """
    x = np.c_[np.ones(len(x)), x - x.mean(axis=0)]
    found = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        score = np.clip(x @ found, -4, 4)
        rate = np.clip(special.ndtr(score), 1e-5, 1 - 1e-5)
        density = np.exp(-(score**2) / 2) / math.sqrt(2 * math.pi)
        slope = x.T @ (density * (good - rate) / (rate * (1 - rate))) - least * found
        curvature = (x.T * (density**2 / (rate * (1 - rate)))) @ x + np.diag(least)
        found = found + np.linalg.solve(curvature, slope)
    return found


def fit(information: Array, certainty: Array, good: Array) -> tuple[float, Array]:
    """Return the share of certainty and the weights of the places, mean 1."""
    mean = information.mean(axis=1, keepdims=True)
    weak = np.array([1e-6, 1e-6, 1e-6])
    total = probit(mean, good, weak[:2])[1]
    away = np.full(information.shape[1], (information.shape[1] / (SPREAD * total)) ** 2)
    by_place = information - mean
    least = np.concatenate([weak, away])
    found = probit(np.c_[mean, certainty, by_place], good, least)
    share = found[2] / (found[1] + found[2])
    if not 0 < share < 1:  # more information for certain bits than for doubtful ones: by chance
        found = probit(np.c_[mean, by_place], good, np.delete(least, 2))
        found, share = np.insert(found, 2, 0.0), 0.0
    weights = 1 + (found[3:] - found[3:].mean()) * information.shape[1] / found[1]
    weights = weights.clip(0.2)
    return float(share), weights / weights.mean()


def main() -> None:
    """Fit what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mcs", type=int, nargs="+", default=sorted(MCS_TABLE))
    parser.add_argument("--blocks", type=int, default=2048)
    parser.add_argument("--coded-bits", type=int, default=1536)
    parser.add_argument("--out", type=Path, default=VARIATION_FILE)
    args = parser.parse_args()
    known = set()
    if args.out.exists():
        with args.out.open(newline="") as file:
            known = {int(row["mcs"]) for row in csv.DictReader(file)}
    for index in sorted(set(args.mcs) - known):
        before = time.perf_counter()
        mcs = mcs_by_index(index)
        coded = args.coded_bits // mcs.bits_per_symbol * mcs.bits_per_symbol
        plan = Segmentation(mcs, 1, coded, math.floor(coded * mcs.rate), 24)
        information, certainty, good = measure(plan, args.blocks)
        share, weights = fit(information, certainty, good)
        by_part = weights.reshape(-1, PARTS).T.ravel()
        line = [index, coded, plan.graph, len(good), f"{share:.3f}"]
        line.append(" ".join(f"{weight:.2f}" for weight in by_part))
        new = not args.out.exists()
        with args.out.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS] * new + [line])
        print(
            *line, f"arrived {good.mean():.2f}", f"{time.perf_counter() - before:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
