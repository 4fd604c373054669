"""What SE, ECA, SimAM and PFCA do in the receiver's classifier, at equal steps, data and start.

    python benchmarks/attention_classifier.py --data DATA [--steps 1900] [--batch 128]
        [--precision bf16]

DATA holds cifar10_jpeg56000.npz (its training images) and cifar10_lossless3000.npz (the first 2,000
train, the last 1,000 test), and tells the zoo's deepjscc-cifar-1-6 what to send for the images
behind the link. One attention module per residual block of the zoo's small ResNet, before the
addition. Runs of a seed share batches and the start of all weights that they have in common.
Runs that are in the CSV, of as many steps and images and behind the same weights, are not repeated.
Differences to ``none`` are paired by seed; intervals are 95 % by Student's t. Writes
benchmarks/results/attention_classifier.{csv,md}, a table for each budget and weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas
import torch
from attention import SEEDS, STUDENT_T, is_there
from make_pool import classes
from timing import interleaved, machine, multiply_adds, ratio
from torch import Tensor, nn
from zoo_psnr import ends, named

from channels import AWGN
from semsim import Link, stream
from semsim.nn.attention import ATTENTION
from semsim.nn.resnet import ResNet
from semsim.payloads.images import StackedImages
from semsim.tasks.classify import Classify
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink

RESULTS = Path(__file__).parent / "results"
CODEC = "deepjscc-cifar-1-6"
SNRS, LR, WARMUP = (1.0, 10.0), 3e-3, 0.05


def load(data: Path) -> tuple[StackedImages, Tensor, Tensor]:
    """Training images with their classes, test images uint8 [N, 3, 32, 32] and their classes."""
    held = classes(data)
    x, y = torch.from_numpy(held["x"]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(held["y"])
    return StackedImages("cifar10", x[:-1000], y[:-1000].tolist()), x[-1000:], y[-1000:]


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class the network names."""
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(chunk.float() / 255) for chunk in images.split(250)])
    return float((scores.argmax(dim=1) == labels).float().mean())


def network_of(kind: str, seed: int) -> ResNet:
    """The zoo's ResNet with attention; all but the attention starts alike for a seed."""
    torch.manual_seed(seed)
    plain = ResNet()
    network = ResNet(attention_kind=kind)
    network.load_state_dict(plain.state_dict(), strict=False)
    return network.to(memory_format=torch.channels_last)


def behind_link(images: Tensor) -> dict[str, Tensor]:
    """The test images, clean and as the zoo's codec delivers them, uint8."""
    link = Link(*(ends(CODEC)[0], AWGN(), ends(CODEC)[1])).eval()
    seen = {"clean": images}
    for snr_db in SNRS:
        parts = []
        for index, chunk in enumerate(images.split(100)):
            with torch.no_grad():
                estimate = link(chunk.float() / 255, snr_db, stream(7, "behind", snr_db, index))
            parts.append((estimate * 255).round().to(torch.uint8))
        seen[f"{snr_db:g} dB"] = torch.cat(parts)
    return seen


def one_run(
    kind: str, seed: int, args: argparse.Namespace, data: StackedImages
) -> tuple[ResNet, float]:
    """Train one classifier; return it and its CPU seconds."""
    network = network_of(kind, seed)
    task = Classify(None, trainable=True)
    task.network = network
    spec = TrainSpec(
        steps=args.steps, batch_size=args.batch, precision=args.precision, lr=LR, optimiser="muon",
        warmup=WARMUP, shift=4, ema=0.0, through="task",
    )  # fmt: skip
    start = time.process_time()
    with Training(AnyLink(), data, task, spec, seed=seed) as training:
        training.advance()
        training.finish()
    return network, time.process_time() - start


def latency() -> dict[str, tuple[float, float, float]]:
    """Time of a forward pass of 50 images over that without attention, with its interval."""
    images = torch.rand(50, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    networks = {kind: network_of(kind, 0).eval() for kind in ATTENTION}

    def work(network: nn.Module) -> None:
        with torch.inference_mode():
            network(images)

    seconds = interleaved(
        {k: lambda n=n: work(n) for k, n in networks.items()}, repeats=41, warm_up=3
    )
    return {kind: ratio(seconds[kind], seconds["none"]) for kind in ATTENTION}


def summary(rows: pandas.DataFrame) -> str:
    """A markdown table: mean accuracy, and paired differences to none with their intervals."""
    sets = list(dict.fromkeys(rows["images"]))
    lines = [
        "| attention | parameters | multiply-adds | latency / none | " + " | ".join(sets) + " |",
        "|---|---|---|---|" + "---|" * len(sets),
    ]
    table = rows.pivot_table(index=["attention", "seed"], columns="images", values="accuracy")
    for kind in [k for k in ATTENTION if k in table.index.get_level_values(0)]:
        cells = []
        for column in sets:
            own, plain = 100 * table.xs(kind)[column], 100 * table.xs("none")[column]
            gain = (own - plain).dropna()
            half = STUDENT_T * gain.std() / len(gain) ** 0.5
            extra = "" if kind == "none" else f" ({gain.mean():+.1f} ± {half:.1f})"
            cells.append(f"{own.mean():.1f}{extra}")
        facts = rows[rows["attention"] == kind].iloc[0]
        low, high = facts["latency_low"], facts["latency_high"]
        lines.append(
            f"| {kind} | {facts['parameters']:,} | {facts['multiply_adds']:,} | "
            f"{facts['latency']:.2f} ({low:.2f} to {high:.2f}) | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def report(rows: pandas.DataFrame) -> str:
    """What the tables are of, and one for each budget and codec whose runs are all there."""
    parts = []
    budget = ["steps", "batch", "precision", "codec"]
    for (steps, batch, precision, codec), own in rows.groupby(budget, sort=False):
        if len(own.groupby(["attention", "seed"])) == len(ATTENTION) * len(SEEDS):
            parts.append(
                "Accuracy in % on the last 1,000 lossless CIFAR-10 images, clean and behind "
                f"{codec} in AWGN; mean over {len(SEEDS)} seeds, in brackets the paired difference "
                f"to none with its 95 % interval. {steps:,} steps of {batch} images, precision "
                f"{precision}. Latency: {machine()}.\n\n{summary(own)}"
            )
    return "\n".join(parts)


def with_latency(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Measure the latencies now, in one process, and write them into the rows."""
    measured = latency()
    for place, name in enumerate(("latency", "latency_low", "latency_high")):
        rows[name] = [measured[kind][place] for kind in rows["attention"]]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    path = RESULTS / "attention_classifier.csv"
    rows = pandas.DataFrame(columns=["attention"])
    if path.is_file():
        rows = pandas.read_csv(path, dtype={"precision": str})
    own = {"steps": args.steps, "batch": args.batch, "precision": args.precision}
    of = {**own, "codec": named(CODEC)}
    data, test_x, test_y = load(args.data)
    seen = behind_link(test_x)
    for seed in SEEDS:
        for kind in ATTENTION:
            if is_there(rows, {"attention": kind, "seed": seed, **of}):
                continue
            network, seconds = one_run(kind, seed, args, data)
            facts = {
                "attention": kind,
                "seed": seed,
                **of,
                "parameters": sum(p.numel() for p in network.parameters()),
                "multiply_adds": multiply_adds(network, torch.rand(1, 3, 32, 32)),
                "cpu_seconds": round(seconds, 1),
            }
            new = pandas.DataFrame(
                [{**facts, "images": k, "accuracy": accuracy(network, v, test_y)}
                 for k, v in seen.items()]
            )  # fmt: skip
            print(new.to_string(index=False, header=False), flush=True)
            rows = pandas.concat([rows, new]) if len(rows) else new
            rows.round(4).to_csv(path, index=False)
    rows = with_latency(rows)
    rows.round(4).to_csv(path, index=False)
    (RESULTS / "attention_classifier.md").write_text(report(rows), encoding="utf-8")
    print(report(rows))


if __name__ == "__main__":
    main()
