"""Measure MARformer: corrupted slices, linear interpolation and the network, on jaws and real CT.

    python benchmarks/marformer.py [--data CT] [--weights marformer-t]
    python benchmarks/marformer.py --than OTHER.safetensors    # paired on the same jaws, printed

CT holds hu.npy and meta.npz, as the payload ``mar`` reads them; without it only the jaws are
measured. Writes benchmarks/results/marformer.{csv,md}. PSNR and SSIM against the same scan without
metal, peak 1; ± is half a 95 % interval from a bootstrap, over slices for jaws and over patients
for CT, which is the wider and the honest one there.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from timing import interleaved, machine, multiply_adds, ratio
from torch import Tensor, nn

from semsim import zoo
from semsim.ct.phantoms import FIELD_CM, dental_metal, dental_phantom
from semsim.ct.scanner import Scanner
from semsim.metrics.ssim import ssim
from semsim.seeds import stream
from semsim.vision.marformer import SIZES, MARformer, MetalSlices

RESULTS = Path(__file__).parent / "results"
SINGLE = (("Ti", 1), ("Fe", 1), ("Fe", 3), ("Zr", 2), ("Ag", 2))
WAYS = ("corrupted", "LI", "network", "network, eight turns")
METRICS = ("psnr_db", "outside_db", "ssim")


@dataclass(frozen=True)
class Slices:
    """Slices to measure on; ``group`` tells which of them are of one patient."""

    name: str
    payload: MetalSlices
    group: np.ndarray


def sets(data: Path | None, jaws: int, single: int, bodies: int) -> list[Slices]:
    """All sets of slices; none of them was trained on."""

    def own(name: str, count: int, **arguments: object) -> Slices:
        return Slices(name, MetalSlices(count, **arguments), np.arange(count))

    found = [own("jaws, default mix", jaws)]
    for material, pieces in SINGLE:
        mix = {"materials": (material,), "metals": (pieces, pieces), "seed": 1}
        found.append(own(f"jaws, {material} x {pieces}", single, **mix))
    if data is not None:
        with np.load(data / "meta.npz") as meta:
            patients = meta["patient"][meta["split"] == "test"]
        for side in (128, 256):
            size = side if side == 128 else None
            payload = MetalSlices(bodies, path=str(data), size=size)
            name = f"CT, {side} pixels"
            found.append(Slices(name, payload, np.resize(patients, bodies)))
    return found


@torch.no_grad()
def measure(slices: Slices, network: nn.Module) -> pandas.DataFrame:
    """PSNR in dB and SSIM of each slice, each way."""
    rows = []
    for n in range(len(slices.payload)):
        scan = slices.payload.scan(n)
        images = {
            "corrupted": scan.corrupted,
            "LI": scan.interpolated,
            "network": network(scan.corrupted[None])[0],
            "network, eight turns": eight_turns(network, scan.corrupted[None])[0],
        }
        for way, image in images.items():
            image = image.clamp(0, 1)
            error = (image - scan.clean).square()
            rows.append({
                "slices": slices.name, "number": n, "group": slices.group[n], "way": way,
                "psnr_db": -10 * error.mean().log10().item(),
                "outside_db": -10 * error[scan.metal == 0].mean().log10().item(),
                "ssim": ssim(image[None], scan.clean[None], 1.0).item(),
            })  # fmt: skip
    return pandas.DataFrame(rows)


def gain(than: str, network: nn.Module, slices: Slices) -> None:
    """Print what the network has above other weights, paired by slice."""
    other = copy.deepcopy(network)
    zoo.load_parts(than, {"network": other})
    found = [measure(slices, each).set_index("way").psnr_db for each in (other, network)]
    for way in WAYS[2:]:
        before, after = (each[way].to_numpy() for each in found)
        mean, half = interval(after - before, np.arange(len(after)))
        print(f"{way}: {before.mean():.2f} to {after.mean():.2f} dB, {mean:+.2f} ± {half:.2f}")


def eight_turns(network: nn.Module, image: Tensor) -> Tensor:
    """Return the mean answer over four turns of [B, 1, S, S] and of its mirror image."""
    total = torch.zeros_like(image)
    for turn in range(4):
        for mirror in ([], [3]):
            turned = network(torch.rot90(image, turn, (2, 3)).flip(mirror))
            total += torch.rot90(turned.flip(mirror), -turn, (2, 3))
    return total / 8


def interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of its 95 % bootstrap interval over groups."""
    names = np.unique(groups)
    parts = [values[groups == name] for name in names]
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(parts), (2000, len(parts)))
    sums = np.array([p.sum() for p in parts])[picks].sum(axis=1)
    counts = np.array([len(p) for p in parts])[picks].sum(axis=1)
    low, high = np.quantile(sums / counts, [0.025, 0.975])
    return float(values.mean()), float((high - low) / 2)


def summary(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row per set and way, with the paired gain over LI."""
    table = []
    for name in dict.fromkeys(rows["slices"]):
        own = rows[rows["slices"] == name]
        groups = own[own["way"] == "LI"]["group"].to_numpy()
        of = {(w, m): own[own["way"] == w][m].to_numpy() for w in WAYS for m in METRICS}
        for way in WAYS:
            row = {"slices": name, "way": way, "n": len(groups), "groups": len(np.unique(groups))}
            for metric in METRICS:
                row[metric], row[f"{metric}_ci95"] = interval(of[way, metric], groups)
            gain = of[way, "psnr_db"] - of["LI", "psnr_db"]
            row["over_li_db"], row["over_li_ci95"] = interval(gain, groups)
            row["share_above_li"] = float((gain > 0).mean())
            table.append(row)
    return pandas.DataFrame(table)


def clocks(network: nn.Module) -> dict[str, tuple[float, float, float]]:
    """Ratios of times, both sides in this run, one thread."""
    from skimage.transform import iradon, radon

    generator = stream(0, "clock")
    mu, teeth = dental_phantom(128, FIELD_CM / 128, generator)
    metal = dental_metal(128, FIELD_CM / 128, teeth, 2, generator)
    scanner, image, angles = Scanner(), mu.double().numpy(), np.arange(180.0)

    def scan() -> None:
        scanner.scan(mu[None], metal[None], ["Fe"], generator)

    def scikit_image() -> None:  # the same three projections and three reconstructions
        sinograms = [radon(image, angles, circle=False) for _ in range(3)]
        for sinogram in sinograms:
            iradon(sinogram, angles, circle=False, output_size=128)

    plain = nn.Conv2d(32, 32, 7, padding=3, groups=32).to(memory_format=torch.channels_last)
    fast = network.down[0][0].feed.wide
    x = torch.rand(4, 32, 128, 128).to(memory_format=torch.channels_last).requires_grad_()

    def training(layer: nn.Module) -> Callable[[], None]:
        return lambda: layer(x).sum().backward()

    fast.requires_grad_()
    chain = interleaved({"ours": scan, "theirs": scikit_image}, repeats=5)
    step = interleaved({"ours": training(fast), "theirs": training(plain)}, repeats=15)
    ahead = interleaved({"scan": scan, "network": lambda: network(image_of(mu))}, repeats=15)
    return {
        "a scan with its projections and three reconstructions: scikit-image's radon and iradon "
        "alone, times that": ratio(chain["theirs"], chain["ours"]),
        "a training step of a 7x7 depth-wise layer: PyTorch's, times this one's": ratio(
            step["theirs"], step["ours"]
        ),
        "a scan, times the network on its slice": ratio(ahead["scan"], ahead["network"]),
    }


def image_of(mu: Tensor) -> Tensor:
    return (mu / 0.5).clamp(0, 1)[None, None]


def report(
    table: pandas.DataFrame, ratios: dict[str, tuple[float, float, float]], weights: str
) -> str:
    """The whole of marformer.md."""
    text = [
        f"# Metal artefacts: corrupted, linear interpolation (LI), {weights}",
        "",
        f"On {machine()}. PSNR and SSIM against the same scan without metal, peak 1 = 0.5 per cm. "
        "± is half a 95 % bootstrap interval, over slices for jaws, over patients for CT. LI works "
        "on the sinogram, which only the scanner has; the network sees the slice alone. The paper "
        "reports 25.72 dB before and 43.11 dB after for its size L on its own data; nothing here "
        "is comparable with that. Outside: without the pixels that hold metal. Eight turns: the "
        "mean answer over the turns and mirror images of a slice, at eight times the work.",
        "",
        "| slices | n | patients | way | PSNR, dB | outside, dB | SSIM | over LI, dB | above LI |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        patients = row["groups"] if row["slices"].startswith("CT") else ""
        text.append(
            f"| {row['slices']} | {row['n']} | {patients} | {row['way']} "
            f"| {row['psnr_db']:.2f} ± {row['psnr_db_ci95']:.2f} "
            f"| {row['outside_db']:.2f} ± {row['outside_db_ci95']:.2f} "
            f"| {row['ssim']:.3f} ± {row['ssim_ci95']:.3f} "
            f"| {row['over_li_db']:+.2f} ± {row['over_li_ci95']:.2f} "
            f"| {row['share_above_li']:.0%} |"
        )
    text += ["", "| size | parameters | multiply-adds, 128 x 128 |", "|---|---|---|"]
    for size in SIZES:
        network = MARformer(**SIZES[size])
        parameters = sum(p.numel() for p in network.parameters())
        work = multiply_adds(network, torch.rand(1, 1, 128, 128))
        text.append(f"| {size} | {parameters / 1e6:.2f} M | {work / 1e9:.2f} G |")
    text += ["", "| times on one thread, in turn | ratio (95 % interval) |", "|---|---|"]
    for name, (value, low, high) in ratios.items():
        text.append(f"| {name} | {value:.1f} ({low:.1f} to {high:.1f}) |")
    return "\n".join(text) + "\n"


def into_card(table: pandas.DataFrame, card: Path) -> None:
    """Write what was measured into the model card beside the weights."""
    facts = json.loads(card.read_text())
    measured: dict[str, Any] = {
        "metric": "mean PSNR in dB against the same scan without metal, half a 95 % interval"
    }
    for row in table.to_dict("records"):
        found = measured.setdefault(row["slices"], {"n": row["n"]})
        found[row["way"]] = [round(row["psnr_db"], 2), round(row["psnr_db_ci95"], 2)]
    card.write_text(json.dumps(facts | {"measured": measured}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", default="marformer-t")
    parser.add_argument("--than", help="other weights, to compare on the same jaws instead")
    parser.add_argument("--card", type=Path, help="model card to write the PSNRs into")
    parser.add_argument("--jaws", type=int, default=200)
    parser.add_argument("--single", type=int, default=50)
    parser.add_argument("--bodies", type=int, default=57)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    network = MARformer(**SIZES["T" if "-t" in Path(args.weights).stem else "L"]).eval()
    zoo.load_parts(args.weights, {"network": network})
    if args.than is not None:
        gain(args.than, network, sets(None, args.jaws, 1, 1)[0])
        return
    parts = []
    for slices in sets(args.data, args.jaws, args.single, args.bodies):
        parts.append(measure(slices, network))
        print(summary(parts[-1])[["slices", "way", "n", "psnr_db", "ssim", "over_li_db"]])
    table = summary(pandas.concat(parts))
    if args.card is not None:
        into_card(table, args.card)
    table.round(4).to_csv(RESULTS / "marformer.csv", index=False)
    (RESULTS / "marformer.md").write_text(report(table, clocks(network), Path(args.weights).stem))


if __name__ == "__main__":
    main()
