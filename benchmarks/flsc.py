"""Federated FLSC on RSSCN7: against clients alone, one client with all data, and digital chains.

    python benchmarks/flsc.py run CASE --data DATA --out OUT [--seed 1] [--alpha 0.5]
    python benchmarks/flsc.py report --out OUT          # writes benchmarks/results/flsc.md
    python benchmarks/flsc.py longer --out OUT --long LONG  # writes results/flsc_longer.md
    python benchmarks/flsc.py cost --data DATA --out OUT  # time and memory of the local engine

DATA holds train/CLASS/*.jpg and test/CLASS/*.jpg; images are scaled to 64 x 64. A run that was
stopped goes on from OUT. Ten clients, every second one classifies; 2x2 block fading, SVD with the
channel known, SNR U[0, 15] dB in training. ``pooled`` is one client per task with as much data and
as many steps as the five of that task have together; ``central-*`` is one client with all data,
twice as much. Their optimisers start anew five times as seldom as those of the ten: a difference
may partly be that. From a rate of 1e-3 on the classifier alone fell to one class.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from semsim.comparison.paired import Estimate, mean_of
from semsim.items import read_items
from semsim.results import read_rows
from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run

RESULTS = Path(__file__).with_name("results")
CLIENTS, CLASSES, SNRS = 10, 7, [0, 3, 6, 9, 12, 15]
FAULTY = {"dropout": 0.3, "nan_clients": [1], "noise_clients": [2], "noise_scale": 10.0}
CODEC = {"kind": "flsc", "cbr": "1/48", "fine": "1/24", "num_streams": 2}
FEDERATED: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "alone": {"aggregation": "none"},
    "fedprox": {"aggregation": "fedprox"},
    "bf16": {"compression": "bf16"},
    "int8": {"compression": "int8"},
    "top_k": {"compression": "top_k"},
    "dropout": {"dropout": 0.3},
    **{
        f"faults-{rule}": {"aggregation": rule, **FAULTY}
        for rule in ("fedavg", "median", "trimmed_mean", "krum")
    },
}
SENT: dict[str, dict[str, Any]] = {"coarse": {"fine": None}, "both": {"fine_for": "all"}}
DIGITAL = {
    f"{codec}-{fallback}": {"kind": "separate", "codec": codec, "fallback": fallback}
    for codec in ("jpeg", "hevc")
    for fallback in ("mean", "grey")
}
CASES = [*FEDERATED, "pooled", "central-reconstruct", "central-classify", *SENT, *DIGITAL]


def values_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the scenario of a case."""
    case, data = args.case, Path(args.data)

    def payload(part: str) -> dict[str, Any]:
        return {"kind": "folder", "path": str(data / part), "classes": True, "resize": 64}

    values: dict[str, Any] = {
        "name": name_of(args), "seed": args.seed, "payload": payload("test"),
        "transmitter": {**CODEC, **SENT.get(case, {})},
        "channel": {"kind": "rayleigh", "num_tx": 2, "num_rx": 2, "coherence": "block"},
        "csi": {"tx": {"kind": "perfect"}}, "frontend": {"kind": "svd"},
        "metrics": ["psnr", "accuracy"], "snr_db": SNRS, "stop": {"max_items": 224},
    }  # fmt: skip
    if case in DIGITAL:
        values["transmitter"] = {**DIGITAL[case], "cbr": args.cbr}
        return {**values, "metrics": ["psnr"]}
    values["receiver"] = {"kind": "flsc", "classes": CLASSES}
    values["train"] = {
        "payload": payload("train"), "validation": payload("test"), "batch_size": args.batch,
        "lr": args.lr, "snr_db": [0, 15], "val_snr_db": [10], "turn": True,
    }  # fmt: skip
    values["federated"] = federated_of(args)
    return values


def federated_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return who trains: ten clients, or one per task with as many steps as five."""
    common = {"rounds": args.rounds, "local_steps": args.local_steps, "validate_every": 10}
    tasks = ["reconstruct", "classify"]
    many = {"local_steps": CLIENTS // len(tasks) * args.local_steps}
    if args.case == "pooled":
        return {**common, **many, "clients": len(tasks), "tasks": tasks, "aggregation": "none"}
    if args.case.startswith("central-"):
        return {**common, **many, "clients": 1, "tasks": [args.case.partition("-")[2]]}
    skew = {"partition": "dirichlet", "alpha": args.alpha, "least": args.batch}
    return {**common, "clients": CLIENTS, "tasks": tasks, **skew, **FEDERATED.get(args.case, {})}


def name_of(args: argparse.Namespace) -> str:
    """Return the folder of a case."""
    if args.case in DIGITAL:
        return f"{args.case}-{args.cbr.replace('/', '-')}"
    return f"{args.case}-alpha{args.alpha:g}-seed{args.seed}"


def measure(args: argparse.Namespace) -> None:
    """Train and evaluate a case, as far as it is not there yet."""
    values = values_of(args)
    rows = run(Scenario.parse(values), Path(args.out) / values["name"], device="cpu")
    print(rows[["metric", "snr_db", "value", "ci_low", "ci_high"]].to_string(index=False))


def per_item(folder: Path, metric: str, snr_db: float | None = None) -> pd.Series:
    """Return a metric of each item, over the clients that have it, at an SNR or over all."""
    rows = read_rows(folder)
    rows = rows[rows["metric"] == metric]
    if snr_db is not None:
        rows = rows[rows["snr_db"] == snr_db]
    found = [read_items(folder, uid)[["item", metric]] for uid in rows["uid"].unique()]
    if not found:
        return pd.Series(dtype=float)
    return pd.concat(found).groupby("item")[metric].mean()


def paired_difference(values: pd.Series, rival: pd.Series) -> Estimate:
    """Return the mean paired difference of what both have."""
    both = pd.concat([values, rival], axis=1, join="inner").to_numpy(dtype=float)
    return mean_of(both[:, 0] - both[:, 1])


def cell(mean: Estimate, sign: str = "") -> str:
    return f"{mean.value:{sign}.3f} ({mean.low:{sign}.3f} to {mean.high:{sign}.3f})"


def report(args: argparse.Namespace) -> None:
    """Write all cases, federated against its rivals over the seeds, and the digital chains."""
    out = Path(args.out)
    if not any(out.glob("*/rows.parquet")):
        raise SystemExit(f"no finished run in {out}; run cases first")
    tables = {
        "Mean over the SNRs; differences are to fedavg of the same seed": cases(out),
        "fedavg less a rival, mean over the seeds; the range is that of single seeds": seeds(out),
        "PSNR in dB behind the same SVD, digital chain / FLSC": digital(out),
    }
    lines = ["# Federated FLSC on RSSCN7", "", "95 % intervals are paired over the test images."]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", *markdown(rows)]
    (RESULTS / "flsc.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def longer(args: argparse.Namespace) -> None:
    """Compare fedavg over more rounds, in LONG, with fedavg and all data in one place, in OUT."""
    name = f"alpha{args.alpha:g}-seed{args.seed}"
    folder = Path(args.long) / f"fedavg-{name}"
    rows: list[dict[str, object]] = []
    for case, other in (
        ("fedavg, more rounds", folder),
        ("fedavg", Path(args.out) / f"fedavg-{name}"),
        ("pooled", Path(args.out) / f"pooled-{name}"),
    ):
        if not (other / "rows.parquet").is_file():
            if other == folder or case == "pooled":
                raise SystemExit(f"no finished run in {other}; run it first")
            continue  # of fedavg over as few rounds the report has the numbers
        row: dict[str, object] = {"case": case, "rounds": rounds_of(other)}
        for metric in ("accuracy", "psnr"):
            values, mine = per_item(other, metric), per_item(folder, metric)
            row[metric] = cell(mean_of(values.to_numpy(dtype=float)))
            if other != folder:
                row[f"more rounds less this, {metric}"] = cell(paired_difference(mine, values), "+")
        rows.append(row)
    lines = ["# FLSC over more rounds", ""]
    lines += [
        f"Seed {args.seed}, Dirichlet {args.alpha:g}. 95 % intervals, paired over test images."
    ]
    lines += ["", *markdown(rows)]
    (RESULTS / "flsc_longer.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def rounds_of(folder: Path) -> int:
    """Return how many rounds a case was trained for."""
    return len(pd.read_csv(next(folder.glob("training/*/rounds.csv"))))


def markdown(rows: list[dict[str, object]]) -> list[str]:
    """Return a table; what a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    body = ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), *body]


def cases(out: Path) -> list[dict[str, object]]:
    """Return a row per case and metric."""
    rows: list[dict[str, object]] = []
    for folder in sorted(p.parent for p in out.glob("*/rows.parquet")):
        case, _, rest = folder.name.partition("-alpha")
        rival = folder.parent / f"fedavg-alpha{rest}"
        for metric in ("psnr", "accuracy"):
            values = per_item(folder, metric)
            if not len(values):
                continue
            row: dict[str, object] = {"case": case, "setting": rest, "metric": metric}
            row["mean"] = cell(mean_of(values.to_numpy(dtype=float)))
            if rest and case != "fedavg" and (rival / "rows.parquet").is_file():
                row["difference to fedavg"] = cell(
                    paired_difference(values, per_item(rival, metric)), "+"
                )
            rows.append({**row, **sent_bits(folder)})
    return rows


def seeds(out: Path) -> list[dict[str, object]]:
    """Return fedavg less clients alone and less all data in one place, by the skew."""
    rows: list[dict[str, object]] = []
    for alpha, rival in itertools.product(("0.5", "0.1"), ("alone", "pooled")):
        for metric in ("accuracy", "psnr"):
            pairs = []
            for folder in sorted(out.glob(f"fedavg-alpha{alpha}-seed*")):
                # what is trained in one place does not know how it would have been dealt out
                skew = alpha if rival == "alone" else "0.5"
                other = out / f"{rival}-alpha{skew}-{folder.name.rpartition('-')[2]}"
                if all((f / "rows.parquet").is_file() for f in (folder, other)):
                    both = [per_item(folder, metric), per_item(other, metric)]
                    pairs.append(both[0] - both[1])
            if not pairs:
                continue
            means = [float(pair.mean()) for pair in pairs]
            over_seeds = pd.concat(pairs, axis=1).mean(axis=1).dropna()
            row: dict[str, object] = {"alpha": alpha, "rival": rival, "metric": metric}
            row |= {"seeds": len(pairs)}
            row["fedavg - rival"] = cell(mean_of(over_seeds.to_numpy(dtype=float)), "+")
            if len(pairs) > 1:
                row["single seeds"] = f"{min(means):+.3f} to {max(means):+.3f}"
            rows.append(row)
    return rows


def digital(out: Path) -> list[dict[str, object]]:
    """Return the digital chains' PSNR, and what FLSC has over them at as many channel uses.

    At 1/16 FLSC is trained in one place and sends coarse and fine features, at 1/48 it is trained
    by clients and sends the coarse ones alone.
    """
    rows: list[dict[str, object]] = []
    for case, (cbr, ours) in itertools.product(
        DIGITAL, {"1-16": "pooled", "1-48": "coarse"}.items()
    ):
        folder, rival = out / f"{case}-{cbr}", out / f"{ours}-alpha0.5-seed1"
        if not all((f / "rows.parquet").is_file() for f in (folder, rival)):
            continue
        row: dict[str, object] = {"chain": case, "CBR": cbr.replace("-", "/"), "FLSC": ours}
        for snr_db in (0.0, 3.0, 9.0, 15.0):
            values, flsc = (per_item(f, "psnr", snr_db) for f in (folder, rival))
            row[f"{snr_db:g} dB"] = f"{values.mean():.2f} / {flsc.mean():.2f}"
            row[f"FLSC - chain, {snr_db:g} dB"] = cell(paired_difference(flsc, values), "+")
        rows.append(row)
    return rows


def sent_bits(folder: Path) -> dict[str, str]:
    """Return the megabytes that went up and down, and who was refused, out of the records."""
    files = list(folder.glob("training/*/rounds.csv"))
    if not files:
        return {}
    rounds = pd.read_csv(files[0])
    refused = rounds["refused"].notna().mean() if "refused" in rounds else 0.0
    found = {
        "MB up": rounds["bits_up"].sum() / 8e6, "MB down": rounds["bits_down"].sum() / 8e6,
        "rounds with refusals": refused,
        "seconds over steps": rounds["seconds"].sum() / rounds["client_seconds"].sum(),
    }  # fmt: skip
    return {name: f"{value:.4g}" for name, value in found.items()}


def cost(args: argparse.Namespace) -> None:
    """Print time over bare steps, and peak memory, for few and many clients in a round."""
    if args.clients:
        values = values_of(argparse.Namespace(**{**vars(args), "case": "fedavg"}))
        own = {"clients": args.clients, "partition": "iid", "rounds": args.rounds, "least": 1}
        values["federated"] = {**values["federated"], **own}
        values["train"] = {k: v for k, v in values["train"].items() if k != "validation"}
        folder = Path(args.out) / f"cost-{args.clients}"
        from semsim.sweep.trained import train_all

        list(train_all(Scenario.parse(values), folder, "cpu", fresh=True))
        rounds = pd.read_csv(next(folder.glob("training/*/rounds.csv")))
        found = {
            "clients": args.clients,
            "seconds over bare steps": rounds["seconds"].sum() / rounds["client_seconds"].sum(),
            "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(found))
        return
    for clients in (10, 200):
        command = [sys.executable, __file__, *sys.argv[1:], "--clients", str(clients)]
        subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "report", "longer", "cost"])
    parser.add_argument("case", nargs="?", choices=CASES, default="fedavg")
    parser.add_argument("--data", default="data/rsscn7")
    parser.add_argument("--out", default="runs/flsc")
    parser.add_argument("--long", default="runs/flsc-long", help="of longer: its runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local-steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--cbr", default="1/16", help="of the digital chains")
    parser.add_argument("--clients", type=int, default=0, help="of cost: so many, in this process")
    args = parser.parse_args()
    work = {"run": measure, "report": report, "longer": longer, "cost": cost}
    work[args.what](args)


if __name__ == "__main__":
    main()
