"""What ReGELU2 and MS-LayerNorm save, what they cost, and what becomes of the quality.

    python benchmarks/lowmem.py --data DATA --pool POOL.npz --weights WEIGHTS [--steps 300]

Three parts: the activations that one standard block keeps, beside the bytes expected of it; those
of the Swin codec per preset; and fine-tuning a Swin codec, WEIGHTS (a name of the zoo or a
.safetensors file), from AWGN to block Rayleigh fading with and without ``memory: low``: memory,
step time as a ratio of interleaved steps, PSNR on the last 1,000 lossless CIFAR-10 images. POOL is
made by make_pool.py cifar. Fine-tuning runs that are in lowmem_psnr.csv, of the same weights and as
many steps, are not repeated. Writes benchmarks/results/lowmem.{csv,md}.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import pandas
import torch
from attention import STUDENT_T, Patches, is_there, matching
from timing import interleaved, machine, ratio
from torch import Tensor, nn
from zoo_psnr import cifar, named

from channels import Rayleigh
from semsim import Link, evaluate, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.swin_jscc import PRESETS, SwinReceiver, SwinTransmitter
from semsim.metrics.image import PSNR
from semsim.nn import muon
from semsim.nn.lowmem import low_memory
from semsim.nn.saved import saved_bytes
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.learner import networks_in_bf16
from semsim.training.loop import train
from semsim.training.spec import TrainSpec

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # the block is the one that is tested
from lowmem_blocks import Block, units

RESULTS = Path(__file__).parent / "results"
CHOICES = {"normal": (False, False), "act": (True, False), "norm": (False, True),
           "low": (True, True)}  # fmt: skip
#: setting: (dtype, autocast, frozen, units expected of the four choices)
BLOCK = {
    "fp32": (torch.float32, False, False, (16.04, 12.29, 14.03, 10.28)),
    "bf16": (torch.bfloat16, False, False, (16.05, 12.55, 14.05, 10.55)),
    "fp32, weights frozen": (torch.float32, False, True, (10.04, 6.29, 10.03, 6.28)),
    "autocast to bf16": (torch.float32, True, False, (20.07, 16.57, None, 10.55)),
}
#: side of the images and how many, per preset
BATCHES = {"tiny": (64, 1), "cifar": (32, 4), "small": (64, 1), "base": (64, 1),
           "large": (64, 1)}  # fmt: skip
SEEDS, SNRS, BATCH = (0, 1, 2), [1.0, 10.0, 19.0], 16


def block_rows() -> list[dict]:
    """Units kept by one block, for each setting and choice."""
    rows = []
    for setting, (dtype, autocast, frozen, expected) in BLOCK.items():
        row: dict = {"part": "block", "setting": setting, "unit": "input elements"}
        for (name, choice), stated in zip(CHOICES.items(), expected, strict=True):
            block = Block().to(dtype)
            low_memory(block, *choice)  # before freezing, which would keep the norms as they are
            block.requires_grad_(not frozen)
            row[name], row[f"{name}_expected"] = units(block, dtype, autocast), stated
        rows.append(row)
    return rows


def swin_rows() -> list[dict]:
    """MiB kept by one training pass through the link, per preset."""
    rows = []
    for preset in PRESETS:
        side, batch = BATCHES[preset]
        images = torch.rand(batch, 3, side, side, generator=stream(1, "images", preset))
        for precision in ("fp32", "autocast to bf16"):
            setting = f"{preset}, {batch} x {side} x {side}, {precision}"
            row: dict = {"part": "swin", "setting": setting, "unit": "MiB"}
            for name, choice in CHOICES.items():
                torch.manual_seed(0)
                ends = SwinTransmitter("1/16", preset=preset), SwinReceiver("1/16", preset=preset)
                link = Link(ends[0], Rayleigh(), ends[1])
                low_memory(link, *choice)
                with networks_in_bf16(ends if "bf16" in precision else [], images.device):
                    kept = saved_bytes(lambda link=link, x=images: loss(link, x, 0), link)
                row[name] = kept / 2**20
            rows.append(row)
    return rows


def loss(link: Link, images: Tensor, step: int) -> Tensor:
    """The mean square error of one pass at 10 dB."""
    return (link(images, 10.0, stream(2, "pass", step)) - images).square().mean()


def tuned_link(weights: str) -> Link:
    """The codec as trained, over block Rayleigh fading."""
    transmitter, receiver = zoo.pair(weights, SwinTransmitter, SwinReceiver)
    return Link(transmitter, Rayleigh(), receiver)


def step_rows(weights: str, patches: Patches, repeats: int) -> list[dict]:
    """MiB and seconds of a fine-tuning step, with interleaved steps in one process."""
    images = torch.stack([patches[i][0] for i in range(BATCH)])
    links = {name: tuned_link(weights).train() for name in ("normal", "low")}
    low_memory(links["low"])

    def stepper(link: nn.Module) -> object:
        optimiser = muon.Muon(muon.groups(link), lr=1e-4)

        def step() -> None:
            loss(link, images, 0).backward()
            optimiser.step()
            optimiser.zero_grad()

        return step

    kept = {k: saved_bytes(lambda n=v: loss(n, images, 0), v) / 2**20 for k, v in links.items()}
    seconds = interleaved({k: stepper(v) for k, v in links.items()}, repeats, warm_up=2)
    middle, low, high = ratio(seconds["low"], seconds["normal"])
    where = f"{BATCH} x 32 x 32, fp32"
    return [
        {"part": "fine-tuning", "setting": f"kept, {where}", "unit": "MiB", **kept},
        {"part": "fine-tuning", "setting": f"step time, {where}", "unit": "ratio",
         "low": middle, "interval_low": low, "interval_high": high},
    ]  # fmt: skip


def tune(weights: str, memory: str, seed: int, steps: int, patches: Patches, test: object) -> list:
    """Fine-tune and measure; one row per SNR. Memory "before" only measures."""
    link = tuned_link(weights)
    if memory != "before":
        spec = TrainSpec(
            steps=steps, batch_size=BATCH, lr=5e-4, optimiser="muon", memory=memory, ema=0.98,
            save_every=10**9,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            train(link, patches, Reconstruct("log_mse"), spec, folder=folder, seed=seed)
    rows = evaluate(link.eval(), test, snr_db=SNRS, metrics=[PSNR()], seed=7, batch_size=100)
    facts = {"memory": memory, "seed": seed, "steps": steps, "weights": named(weights)}
    return [{**facts, "snr_db": r["snr_db"], "psnr_db": r["value"]} for r in rows]


def psnr_rows(args: argparse.Namespace, patches: Patches) -> list[dict]:
    """PSNR before and after fine-tuning both ways, and the difference paired by seed."""
    path, (test, _) = RESULTS / "lowmem_psnr.csv", cifar(args.data)
    done = pandas.read_csv(path) if path.is_file() else pandas.DataFrame()
    of = {"steps": args.steps, "weights": named(args.weights)}
    for seed, memory in [(0, "before"), *itertools.product(SEEDS, ("normal", "low"))]:
        if is_there(done, {"memory": memory, "seed": seed, **of}):
            continue
        new = pandas.DataFrame(tune(args.weights, memory, seed, args.steps, patches, test))
        print(new.to_string(index=False, header=False), flush=True)
        done = pandas.concat([done, new]) if len(done) else new
        done.round(4).to_csv(path, index=False)
    done = done[matching(done, of)]
    table = done.pivot_table(index=["memory", "seed"], columns="snr_db", values="psnr_db")
    rows = []
    for snr in SNRS:
        gain = (table.xs("low")[snr] - table.xs("normal")[snr]).dropna()
        half = STUDENT_T * gain.std() / len(gain) ** 0.5
        rows.append(
            {"part": "fine-tuning", "setting": f"PSNR at {snr:g} dB", "unit": "dB",
             "before": table.xs("before")[snr].iloc[0], "normal": table.xs("normal")[snr].mean(),
             "low": table.xs("low")[snr].mean(), "difference": gain.mean(),
             "interval_low": gain.mean() - half, "interval_high": gain.mean() + half}
        )  # fmt: skip
    return rows


def summary(rows: list[dict], args: argparse.Namespace) -> str:
    """Three markdown tables and what the converter says of a convolutional codec."""
    names = ["normal", "ReGELU2 only", "MS-LayerNorm only", "both"]
    lines = ["Activations kept for the backward pass by one pre-norm block (width 192, 196 tokens, "
             "batch 4), in units of its input's elements; expected values in brackets.", "",
             f"| setting | {' | '.join(names)} |", "|---|---|---|---|---|"]  # fmt: skip
    for row in (r for r in rows if r["part"] == "block"):
        cells = [
            f"{row[k]:.2f} ({'-' if row[f'{k}_expected'] is None else row[f'{k}_expected']})"
            for k in CHOICES
        ]
        lines.append(f"| {row['setting']} | {' | '.join(cells)} |")
    lines += ["", "The Swin codec, a training pass through the link at CBR 1/16, in MiB.", "",
              f"| setting | {' | '.join(names)} | saved |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for row in (r for r in rows if r["part"] == "swin"):
        cells = " | ".join(f"{row[k]:.1f}" for k in CHOICES)
        lines.append(f"| {row['setting']} | {cells} | {1 - row['low'] / row['normal']:.0%} |")
    kept, time, *psnr = (r for r in rows if r["part"] == "fine-tuning")
    lines += [
        "",
        f"A fine-tuning step of {Path(args.weights).stem} on {BATCH} images over block Rayleigh "
        f"fading keeps {kept['normal']:.1f} MiB normally and {kept['low']:.1f} MiB with memory: "
        f"low. Step time low / normal: {time['low']:.2f} ({time['interval_low']:.2f} to "
        f"{time['interval_high']:.2f}), {machine()}.",
    ]
    if psnr:
        lines += [
            "",
            f"PSNR in dB before and after {args.steps} such steps, mean over {len(SEEDS)} seeds; "
            "the difference is paired by seed.",
            "",
            "| SNR | before | normal | low | low - normal, 95 % interval |",
            "|---|---|---|---|---|",
        ]
    for row in psnr:
        lines.append(
            f"| {row['setting'].removeprefix('PSNR at ')} | {row['before']:.2f} | "
            f"{row['normal']:.2f} | {row['low']:.2f} | {row['difference']:+.3f} "
            f"({row['interval_low']:+.3f} to {row['interval_high']:+.3f}) |"
        )
    codec = nn.ModuleList([DeepJSCCTransmitter("1/6"), DeepJSCCReceiver("1/6")])
    return "\n".join([*lines, "", f"The convolutional DeepJSCC: {low_memory(codec)}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    patches = Patches(args.pool)
    rows = [*block_rows(), *swin_rows(), *step_rows(args.weights, patches, args.repeats)]
    write(rows, args)  # what there is before the long part
    rows += psnr_rows(args, patches)
    write(rows, args)


def write(rows: list[dict], args: argparse.Namespace) -> None:
    """Write the rows and the summary, and print it."""
    pandas.DataFrame(rows).round(4).to_csv(RESULTS / "lowmem.csv", index=False)
    (RESULTS / "lowmem.md").write_text(summary(rows, args), encoding="utf-8")
    print(summary(rows, args), flush=True)


if __name__ == "__main__":
    main()
