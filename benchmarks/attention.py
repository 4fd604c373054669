"""What SE, ECA, SimAM and PFCA do to two codecs at equal steps, data and noise; three seeds.

    python benchmarks/attention.py --data DATA --pool POOL.npz [--codec residual]
        [--steps 600] [--lr 3e-3]

POOL is made by make_pool.py cifar; DATA holds cifar10_lossless3000.npz, whose last 1,000 images
test. CBR 1/6. ``residual`` is a small network (width 32, depth 2) that knows the SNR, trained on 0
to 20 dB; ``bourtsoulatze2019`` the first DeepJSCC, trained at 10 dB. Runs that are in the CSV are
not repeated. Differences to ``none`` are paired by seed; intervals are 95 % by Student's t. Writes
benchmarks/results/attention.{csv,md}.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor
from zoo_psnr import cifar, count_multiply_adds

from channels import AWGN
from semsim import Link, evaluate
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.metrics.image import PSNR
from semsim.nn.attention import ATTENTION
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.loop import train
from semsim.training.spec import TrainSpec

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
SNRS = [1.0, 10.0, 19.0]
CODECS: dict[str, tuple[dict[str, Any], Any]] = {
    "residual": ({"width": 32, "depth": 2}, (0.0, 20.0)),
    "bourtsoulatze2019": ({"preset": "bourtsoulatze2019"}, 10.0),
}  #: the network's arguments, and the SNRs that it is trained on
BATCH = 32
STUDENT_T = 4.303  # 97.5 % point for two degrees of freedom


class Patches(torch.utils.data.Dataset):
    """All patches of a pool, CIFAR images twenty times."""

    name = "patches"

    def __init__(self, path: Path) -> None:
        pack = np.load(path)
        parts = [pack["part0"], pack["part1"], *[pack["part2"]] * 20]
        self.patches = torch.from_numpy(np.concatenate(parts))

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        patch = self.patches[index].float() / 255
        return patch, patch


def one_run(wanted: dict[str, Any], patches: Patches, test: object) -> list[dict[str, Any]]:
    """Train one codec and measure it; one row per SNR."""
    seed = wanted["seed"]
    torch.manual_seed(seed)
    arguments, trained_on = CODECS[wanted["codec"]]
    network = {"cbr": "1/6", **arguments, "attention": wanted["attention"]}
    link = Link(DeepJSCCTransmitter(**network), AWGN(), DeepJSCCReceiver(**network))
    spec = TrainSpec(
        steps=wanted["steps"], batch_size=BATCH, lr=wanted["lr"], optimiser="muon",
        snr_db=trained_on, save_every=10**9,
    )  # fmt: skip
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train(link, patches, Reconstruct("log_mse"), spec, folder=folder, seed=seed)
    seconds = time.process_time() - start
    rows = evaluate(link, test, snr_db=SNRS, metrics=[PSNR()], seed=7, batch_size=100)
    facts = {
        **wanted,
        "parameters": sum(p.numel() for p in link.parameters()),
        "multiply_adds": count_multiply_adds(link.transmitter, link.receiver, (3, 32, 32)),
    }
    return [
        {**facts, "cpu_seconds": round(seconds, 1), "snr_db": r["snr_db"], "psnr_db": r["value"]}
        for r in rows
    ]


def is_there(rows: pandas.DataFrame, wanted: dict[str, Any]) -> bool:
    """Tell whether a table has rows of all these settings; one that it does not say differs."""
    return bool(matching(rows, wanted).any())


def matching(rows: pandas.DataFrame, wanted: dict[str, Any]) -> pandas.Series:
    """Which rows are of all these settings."""
    return (rows.reindex(columns=list(wanted)) == pandas.Series(wanted)).all(axis=1)


def summary(rows: pandas.DataFrame) -> str:
    """A markdown table: means, and paired differences to none with their intervals."""
    lines = [
        "| attention | parameters | multiply-adds | CPU s | "
        + " | ".join(f"{s:g} dB" for s in SNRS)
        + " |",
        "|---|---|---|---|" + "---|" * len(SNRS),
    ]
    table = rows.pivot_table(index=["attention", "seed"], columns="snr_db", values="psnr_db")
    for kind in [k for k in ATTENTION if k in table.index.get_level_values(0)]:
        cells = []
        for snr in SNRS:
            own_psnr, plain = table.xs(kind)[snr], table.xs("none")[snr]  # by seed
            mean, gain = own_psnr.mean(), (own_psnr - plain).dropna()
            half = STUDENT_T * gain.std() / len(gain) ** 0.5
            extra = "" if kind == "none" else f" ({gain.mean():+.2f} ± {half:.2f})"
            cells.append(f"{mean:.2f}{extra}")
        own = rows[rows["attention"] == kind]
        lines.append(
            f"| {kind} | {own['parameters'].iloc[0]:,} | {own['multiply_adds'].iloc[0]:,} | "
            f"{own['cpu_seconds'].mean():.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def report(rows: pandas.DataFrame) -> str:
    """What the tables are of, and one for each budget whose runs are all there."""
    parts = [
        "PSNR in dB on the last 1,000 lossless CIFAR-10 images, CBR 1/6, AWGN; mean over "
        f"{len(SEEDS)} seeds, in brackets the paired difference to none with its 95 % interval.\n"
    ]
    for (codec, steps, lr), own in rows.groupby(["codec", "steps", "lr"], sort=False):
        if len(own) == len(SEEDS) * len(ATTENTION) * len(SNRS):
            _, trained_on = CODECS[codec]
            snrs = "0 to 20 dB" if isinstance(trained_on, tuple) else f"{trained_on:g} dB"
            head = f"{steps:,} steps of {BATCH} patches at a rate of {lr:g}, at {snrs}"
            parts.append(f"## {codec}: {head}\n")
            parts.append(summary(own))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--codec", choices=list(CODECS), default="residual")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    path = RESULTS / "attention.csv"
    columns = ["codec", "attention", "seed", "steps", "lr"]
    rows = pandas.read_csv(path) if path.is_file() else pandas.DataFrame(columns=columns)
    patches, (test, _) = Patches(args.pool), cifar(args.data)
    for seed, kind in ((seed, kind) for seed in SEEDS for kind in ATTENTION):
        values = (args.codec, kind, seed, args.steps, args.lr)
        wanted = dict(zip(columns, values, strict=True))
        if is_there(rows, wanted):
            continue
        new = pandas.DataFrame(one_run(wanted, patches, test))
        print(new.to_string(index=False, header=False), flush=True)
        rows = pandas.concat([rows, new]) if len(rows) else new
        rows.round({"psnr_db": 4}).to_csv(path, index=False)
    (RESULTS / "attention.md").write_text(report(rows), encoding="utf-8")
    print(report(rows))


if __name__ == "__main__":
    main()
