"""What a sweep costs beside its bare network, and beside the plain loop of public repositories.

    python benchmarks/speed.py [--images 1000] [--repeats 7] [--cpu]

Ratios of interleaved runs in one process; images are synthetic 32 x 32 pictures, whose content does
not change the cost. ``--cpu`` counts CPU time on one thread, for a machine that others use as well.
The last ratio of a codec is what encoding once brings by itself, with no other cost. Writes
benchmarks/results/speed.{csv,md}.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from timing import interleaved, machine, ratio
from torch import Tensor, nn

from channels import AWGN, CSI
from semsim import Link, Stop, evaluate
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.metrics.image import PSNR
from semsim.payloads.synthetic import Synthetic

SNR_DB = [1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0]
BATCH = 250
RESULTS = Path(__file__).parent / "results"
Clock = Callable[[], float]
CODECS = {
    "2019 network": {"preset": "bourtsoulatze2019"},
    "residual, SNR at the receiver": {"adaptive": "receiver"},
}


def bare(transmitter: nn.Module, receiver: nn.Module, images: Tensor, encodes: int = 1) -> None:
    """One encode, or more, and seven decodes, nothing else."""
    with torch.inference_mode():
        for batch in images.split(BATCH):
            n0 = torch.full((len(batch),), 0.1)
            for _ in range(encodes):
                symbols = transmitter(batch, CSI(None, n0))
            csi = CSI(None, n0[:, None, None].expand(symbols.shape))
            for _ in SNR_DB:
                receiver(symbols, csi, tuple(batch.shape[1:]))


def plain_loop(transmitter: nn.Module, receiver: nn.Module, images: Tensor) -> list[float]:
    """The loop that public repositories run: one SNR at a time, encoding each time.

    The networks are the same, with weights in the order that torch gives them by default.
    """
    values = []
    for snr_db in SNR_DB:
        total = 0.0
        with torch.no_grad():
            for batch in images.split(BATCH):
                n0 = torch.full((len(batch),), 10 ** (-snr_db / 10))
                symbols = transmitter(batch, CSI(None, n0))
                noise = torch.randn_like(symbols) * n0[:, None, None].sqrt()
                csi = CSI(None, n0[:, None, None].expand(symbols.shape))
                estimate = receiver(symbols + noise, csi, tuple(batch.shape[1:]))
                pixels = (estimate.clamp(0, 1) * 255).round()
                mse = (pixels - (batch * 255).round()).square().mean(dim=(1, 2, 3))
                total += float((10 * torch.log10(255**2 / mse)).sum())
        values.append(total / len(images))
    return values


def sweep(link: Link, payload: Synthetic, bf16: bool = False) -> list[float]:
    """The same points through semsim's evaluator."""
    stop = Stop(min_items=len(payload), max_items=len(payload))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        rows = evaluate(link, payload, snr_db=SNR_DB, metrics=[PSNR()], stop=stop, batch_size=BATCH)
    return [row["value"] for row in rows]


def compare(
    name: str, options: dict[str, str], payload: Synthetic, repeats: int, clock: Clock
) -> list[dict[str, object]]:
    """Return one result per ratio for one codec."""
    torch.manual_seed(0)
    transmitter = DeepJSCCTransmitter(cbr=1 / 6, **options).eval()
    receiver = DeepJSCCReceiver(cbr=1 / 6, **options).eval()
    link = Link(transmitter, AWGN(), receiver)
    plain = [
        deepcopy(part).to(memory_format=torch.contiguous_format) for part in (transmitter, receiver)
    ]
    images = torch.stack([payload[i][0] for i in range(len(payload))])
    seconds = interleaved(
        {
            "sweep": lambda: sweep(link, payload),
            "bare": lambda: bare(transmitter, receiver, images),
            "plain loop": lambda: plain_loop(*plain, images),
            "sweep bf16": lambda: sweep(link, payload, bf16=True),
            "bare, 7 encodes": lambda: bare(transmitter, receiver, images, len(SNR_DB)),
        },
        repeats,
        clock=clock,
    )
    fp32, bf16 = sweep(link, payload), sweep(link, payload, bf16=True)
    shift = max(abs(a - b) for a, b in zip(fp32, bf16, strict=True))
    once = "bare 7 encodes + 7 decodes / encode + 7 decodes"
    in_bf16 = f"plain loop / sweep in bf16 (PSNR moves {shift:.3f} dB)"
    return [
        row(name, "sweep / bare encode + 7 decodes", seconds, "sweep", "bare", "at most 1.15"),
        row(name, "plain loop / sweep", seconds, "plain loop", "sweep", "at least 1.6"),
        row(name, in_bf16, seconds, "plain loop", "sweep bf16", "at least 3"),
        row(name, once, seconds, "bare, 7 encodes", "bare", "-"),
    ]


def fresh(code: str) -> None:
    """Run code in a process of its own."""
    subprocess.run([sys.executable, "-c", code], check=True)


def import_cost(repeats: int) -> dict[str, object]:
    """Time importing semsim and its link against importing torch, each in a fresh process."""
    seconds = interleaved(
        {
            "semsim": lambda: fresh("import torch, semsim; semsim.Link"),
            "torch": lambda: fresh("import torch"),
        },
        repeats,
    )
    return row("-", "import semsim.Link / import torch", seconds, "semsim", "torch", "at most 1.2")


def row(
    codec: str, label: str, seconds: dict[str, list[float]], a: str, b: str, target: str
) -> dict[str, object]:
    """Return the ratio of two alternatives with its interval."""
    median, low, high = ratio(seconds[a], seconds[b])
    return {
        "codec": codec,
        "ratio": label,
        "median": median,
        "low": low,
        "high": high,
        "target": target,
        "seconds_of_first": statistics.median(seconds[a]),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu", action="store_true", help="CPU time on one thread")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    if arguments.cpu:
        torch.set_num_threads(1)
    payload = Synthetic(count=arguments.images, size=32)
    rows = [import_cost(arguments.repeats)]
    for name, options in CODECS.items():
        rows += compare(name, options, payload, arguments.repeats, clock)
    lines = [
        f"{machine()}; {arguments.images} images, {len(SNR_DB)} SNR points, batch {BATCH}"
        f"{', CPU time' if arguments.cpu else ''}.",
        "",
        "| codec | ratio | median | 95 % interval | target |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['codec']} | {r['ratio']} | {r['median']:.2f} | {r['low']:.2f} to {r['high']:.2f} "
        f"| {r['target']} |"
        for r in rows
    ]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "speed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (RESULTS / "speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
