"""Rare sites in aerial tiles: what pseudo-negatives are worth, and what a link leaves of it.

    python benchmarks/sscl.py train --out RUNS [--data DATA] [--sets drawn] [--seeds 0 1 2]
    python benchmarks/sscl.py report --out RUNS [--data DATA] [--tiles 4000]
    python benchmarks/sscl.py report --out RUNS --contrast 0.25 --name sscl_harder --no-links

``train`` trains every method on every set with every seed, each in a folder of its own; a stopped
run goes on where it was, and what is finished is left alone. ``report`` measures whatever is there
and writes benchmarks/results/NAME.csv, NAME.md and NAME_links.csv; NAME is sscl, or sscl_rsscn7
where no drawn tiles are asked for. Without links those measured before stay. Trainings at another
contrast need another folder RUNS.
DATA holds rsscn7_128.npz, of which one class is kept rare; without it only drawn tiles are used.

Intervals are 95 %: of a mean over trainings a bootstrap over tiles, drawn within each class and
shared by all methods, with the trainings as they are; differences are paired by tile.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from make_pool import read_pack

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.values import ValuesReceiver, ValuesTransmitter
from semsim.metrics.scores import average_precision, recall
from semsim.payloads.images import to_float
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import sscl

RESULTS = Path(__file__).parent / "results"
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"ssl": 0.0, "sup": 0.0, "pn": 0.0, "end_to_end": True},
    "no pseudo-negatives": {"pn": 0.0, "end_to_end": True},
    "full": {"end_to_end": True},
    "random pseudo-negatives": {"choice": "random", "end_to_end": True},
    "top-ranked pseudo-negatives": {"choice": "top", "end_to_end": True},
    "linear stage": {},
    "self-supervised, linear stage": {"sup": 0.0, "pn": 0.0},
    "full, SimSiam": {"base": "simsiam", "end_to_end": True},
    "full, channel": {"channel_db": (-5.0, 15.0), "end_to_end": True},
}
SNRS = (-5.0, 0.0, 5.0, 10.0, 15.0)
METRICS = ("balanced_accuracy", "sensitivity", "specificity", "average_precision")
AT_SNR = ("balanced_accuracy", "sensitivity_at", "sensitivity_recalibrated", "average_precision")
DRAWS = 1000
RARE = "Parking"  # the class of RSSCN7 that is kept rare


def sites(which: str, split: str, args: argparse.Namespace, **more: Any) -> sscl.Sites:
    """Return a split of a set."""
    if which == "drawn":
        return sscl.Sites(split, contrast=args.contrast, **more)
    return sscl.Sites(split, path=unpacked(args), size=64, rare=RARE, **more)


def unpacked(args: argparse.Namespace) -> str:
    """Write the tiles of RSSCN7 as a folder per class, once; return the folder."""
    folder = args.out / "rsscn7"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")  # a run may be stopped while it writes
        shutil.rmtree(part, ignore_errors=True)
        images, meta = read_pack(args.data / "rsscn7_128.npz")
        for index, (image, label) in enumerate(zip(images, meta["label"], strict=True)):
            where = part / str(meta["classes"][label])
            where.mkdir(parents=True, exist_ok=True)
            image.save(where / f"{index:04d}.png")
        part.rename(folder)
    return str(folder)


def run_folder(args: argparse.Namespace, which: str, method: str, seed: int) -> Path:
    return args.out / f"{which}-{method.replace(', ', '-').replace(' ', '_')}-{seed}"


def train(args: argparse.Namespace) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    for which in args.sets:
        for seed in args.seeds:
            for method in args.methods:
                folder = run_folder(args, which, method, seed)
                if not (folder / "fitted.safetensors").is_file():
                    print(which, method, seed, flush=True)
                    train_one(args, which, method, seed, folder)


def train_one(args: argparse.Namespace, which: str, method: str, seed: int, folder: Path) -> None:
    """Train one network, note the purity on the way, then fit its head or its thresholds."""
    alone = method == "supervised"
    torch.manual_seed(seed)
    task = sscl.FindSites(weights=None, trainable=True, **METHODS[method])
    tiles = sites(which, "train", args, anchors=1.0 if alone else 0.5)
    spec = TrainSpec(
        steps=args.steps, batch_size=args.batch // 2 if alone else args.batch, lr=args.lr,
        through="task", flip=False, ema=0.99,
    )  # fmt: skip
    with Training(AnyLink(), tiles, task, spec, folder=folder, seed=seed) as training:
        for share in (0.1, 0.5, 1.0):
            left = round(share * args.steps) - training.state.steps
            if left > 0:
                training.advance(left)
                if task.learner is not None:
                    note_purity(args, which, task, training.state.steps, folder)
        done = training.finish()
    labelled, validation = (sites(which, split, args) for split in ("labelled", "val"))
    if METHODS[method].get("end_to_end"):
        sscl.set_thresholds(task.network, validation)
    else:
        sscl.fit_head(task.network, labelled, validation)
    facts = {"about": f"SSCL, {method}: tells tiles with a site", "data": which, "seed": seed,
             "steps": done.steps, "minutes": round(done.minutes, 1)}  # fmt: skip
    zoo.export_parts(folder / "fitted.safetensors", {"network": task.network}, facts)


def note_purity(
    args: argparse.Namespace, which: str, task: sscl.FindSites, step: int, folder: Path
) -> None:
    """Append the purity of pseudo-negatives, by the hidden truth."""
    labelled, hidden = (sites(which, split, args) for split in ("labelled", "unlabelled"))
    anchors, truth = sscl.tensors(labelled)
    rows = [
        {"step": step, "choice": choice, "prevalence": float(np.mean(hidden.truth)),
         "purity": sscl.purity(task.network, anchors[truth == 1], hidden, task.rho, choice)}
        for choice in ("bottom", "random", "top")
    ]  # fmt: skip
    path = folder / "purity.csv"
    before = [pandas.read_csv(path)] if path.is_file() else []
    pandas.concat([*before, pandas.DataFrame(rows)]).to_csv(path, index=False)


def loaded(args: argparse.Namespace, which: str, method: str) -> dict[int, Path]:
    """Return the finished trainings of a method, by seed."""
    found = {s: run_folder(args, which, method, s) / "fitted.safetensors" for s in args.seeds}
    return {seed: path for seed, path in found.items() if path.is_file()}


@torch.no_grad()
def scores_of(path: Path, tiles: sscl.Sites) -> np.ndarray:
    """Return the scores of tiles, less the threshold of the best balanced accuracy, [N]."""
    task = sscl.FindSites(weights=str(path)).eval()
    pixels, _ = sscl.tensors(tiles)
    found = [task(to_float(part))[:, 0] for part in pixels.split(250)]
    return torch.cat(found).double().numpy()


def measures(scores: np.ndarray, yes: np.ndarray) -> np.ndarray:
    """Return all ``METRICS`` for scores [..., N], [metrics, ...]."""
    found, left = recall(scores, yes, True), recall(scores, yes, False)
    return np.stack([(found + left) / 2, found, left, average_precision(scores, yes)])


def resampled(scores: np.ndarray, yes: np.ndarray, picks: list[np.ndarray]) -> np.ndarray:
    """Return ``METRICS`` of every redrawn set of tiles, mean over trainings, [metrics, DRAWS]."""
    drawn = np.concatenate(picks, axis=1)
    target = np.arange(drawn.shape[1]) < picks[0].shape[1]
    return np.mean([measures(own[drawn], target) for own in scores], axis=0)


def table(args: argparse.Namespace, which: str, by: str = "region") -> list[dict[str, Any]]:
    """Return a row per method, with paired differences to the full method."""
    more = {"by": by, "count": args.tiles} if which == "drawn" else {}
    tiles = sites(which, "test", args, **more)
    yes = np.array(tiles.truth) == 1
    rng = np.random.default_rng(0)
    picks = [rng.choice(np.flatnonzero(own), (DRAWS, own.sum())) for own in (yes, ~yes)]
    scores = {
        m: np.stack([scores_of(p, tiles) for p in loaded(args, which, m).values()])
        for m in METHODS
        if loaded(args, which, m)
    }
    drawn = {m: resampled(s, yes, picks) for m, s in scores.items()}
    rows = []
    for method, own in scores.items():
        value = measures(own, yes).mean(axis=1)
        row: dict[str, Any] = {"set": which, "split": by, "method": method, "trainings": len(own)}
        for name, v, d in zip(METRICS, value, drawn[method], strict=True):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"),
                            (v, *np.quantile(d, (0.025, 0.975))), strict=True))  # fmt: skip
        row["each"] = " ".join(f"{v:.3f}" for v in measures(own, yes)[0])
        for other, sign in (("full", 1), ("supervised", -1)):
            if other in drawn:
                ends = np.quantile(sign * (drawn[other][0] - drawn[method][0]), (0.025, 0.975))
                name = "full_better" if sign > 0 else "better_than_supervised"
                row |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    return rows


def ways(repeats: tuple[int, int]) -> Iterator[tuple[str, str, Any]]:
    """Yield (channel uses, way, link) of images and embeddings: 128 and 768 channel uses."""
    few, many = repeats
    yield "128", "embedding", (few, Link(ValuesTransmitter(), AWGN(), ValuesReceiver()))
    yield "128", "analog image", (0, Link(AnalogTransmitter("1/192"), AWGN(),
                                          AnalogReceiver("1/192")))  # fmt: skip
    yield "768", "embedding", (many, Link(ValuesTransmitter(), AWGN(), ValuesReceiver()))
    ends: dict[str, Any] = zoo.build("deepjscc-photo-1-16")
    yield "768", "DeepJSCC image", (0, Link(ends["transmitter"], AWGN(), ends["receiver"]))
    separate = SeparateTransmitter("1/16", codec="hevc")
    yield "768", "HEVC image", (0, SeparateLink(separate, AWGN()))


def links(args: argparse.Namespace, which: str) -> list[dict[str, Any]]:
    """Return rows over SNR of image links and feature links, trained clean and with the channel."""
    tiles, rows = sites(which, "test", args), []
    for method in ("full", "full, channel"):
        for seed, path in loaded(args, which, method).items():
            for uses, way, (repeats, link) in ways((1, 11)):
                at = "sender" if repeats else "receiver"
                task = sscl.FindSites(at, weights=str(path), repeats=max(repeats, 1))
                found = evaluate(link, tiles, snr_db=SNRS, metrics=AT_SNR, task=task,
                                 batch_size=250)  # fmt: skip
                about = {"set": which, "method": method, "training": seed, "uses": uses, "way": way}
                rows += [about | row for row in found]
    return rows


def report(args: argparse.Namespace) -> None:
    """Measure all that is trained and write the tables."""
    torch.set_num_threads(1)
    rows, at_snr, pure = [], [], []
    for which in args.sets:
        rows += table(args, which)
        if which == "drawn":
            rows += table(args, which, "tile")
        at_snr += links(args, which) if args.links else []
        for path in sorted(args.out.glob(f"{which}-*/purity.csv")):
            pure.append(pandas.read_csv(path).assign(run=path.parent.name))
    frame = pandas.DataFrame(rows)
    name = args.name or ("sscl" if "drawn" in args.sets else "sscl_rsscn7")
    frame.round(4).to_csv(RESULTS / f"{name}.csv", index=False)
    path = RESULTS / f"{name}_links.csv"
    if at_snr:
        pandas.DataFrame(at_snr).round(4).to_csv(path, index=False)
    measured = pandas.read_csv(path, dtype={"uses": str}) if path.is_file() else pandas.DataFrame()
    (RESULTS / f"{name}.md").write_text(text(frame, measured, pure))


def text(frame: pandas.DataFrame, at_snr: pandas.DataFrame, pure: list[pandas.DataFrame]) -> str:
    """Return the tables in words."""
    lines = ["# Rare sites in aerial tiles", "", *__doc__.strip().splitlines()[-2:], "",
             "| set | split | method | balanced accuracy | each training | sensitivity | "
             "specificity | average precision | full is better by | better than supervised by |",
             "|" + "---|" * 10]  # fmt: skip
    for row in frame.to_dict("records"):
        cells = [f"{row[m]:.3f} ({row[m + '_low']:.3f} to {row[m + '_high']:.3f})" for m in METRICS]
        better = [
            f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}"
            if f"{name}_low" in row and row["method"] != other else ""
            for name, other in (("full_better", "full"), ("better_than_supervised", "supervised"))
        ]  # fmt: skip
        lines.append("| " + " | ".join([row["set"], row["split"], row["method"], cells[0],
                                        row["each"], *cells[1:], *better]) + " |")  # fmt: skip
    if len(at_snr):
        keys = ["set", "method", "uses", "way", "metric", "snr_db"]
        means = at_snr.groupby(keys)["value"].mean().unstack("snr_db")
        head = " | ".join(f"{snr:g} dB" for snr in means.columns)
        lines += ["", f"| set | trained | channel uses | sent | metric | {head} |",
                  "|" + "---|" * (5 + len(means.columns))]  # fmt: skip
        for key, values in means.iterrows():
            lines.append("| " + " | ".join([*key, *(f"{v:.3f}" for v in values)]) + " |")
    if pure:
        means = pandas.concat(pure).assign(run=lambda t: t["run"].str.rpartition("-")[0])
        means = means.groupby(["run", "step", "choice"])["purity"].mean().unstack("choice")
        lines += ["", "| training | step | bottom | random | top |", "|---|---|---|---|---|"]
        for (run, step), v in means.iterrows():
            lines.append(f"| {run} | {step} | {v['bottom']:.4f} | {v['random']:.4f} | "
                         f"{v['top']:.4f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=("drawn", "rsscn7"), default=["drawn"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--contrast", type=float, default=0.28)
    parser.add_argument("--name", help="of the files in benchmarks/results")
    parser.add_argument("--links", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--tiles", type=int, default=4000, help="drawn tiles to test without link")
    args = parser.parse_args()
    if "rsscn7" in args.sets and args.data is None:
        parser.error("--sets rsscn7 needs --data")
    {"train": train, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
