"""What the channel at the transmitter is worth to LCFSC, by masks and by its controls; three seeds.

    python benchmarks/lcfsc.py --data DATA --pool POOL.npz --runs RUNS [--steps 100] [--ablations]

POOL is made by make_pool.py photo; DATA holds bsds500.npz and set5_set14.npz. Every variant goes on
from one plain backbone per number of antennas and, by seed, sees the same crops of 64 x 64,
channels and noise in the same steps; all send the same k at the same power and have the same
receiver behind LMMSE. Test: the middle of each photo in BSDS500 val, halved in size, and of each of
Set5 and Set14, over the same draws for all. Runs that are in the CSV are not repeated; one that was
stopped goes on from RUNS. Several processes, each with its own --antennas, --seeds or --variants,
may share CSV and RUNS. Differences to ``plain`` are paired by seed; intervals are 95 % by Student's
t. The classical baseline is separate coding, and its bound, behind SVD with water-filling. Writes
benchmarks/results/lcfsc.{csv,md}.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas
import torch
from make_pool import read_pack
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from zoo_psnr import Images

from channels import MismatchedCSI, PerfectCSI, Rayleigh
from semsim import Link, evaluate
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.lcfsc.codec import LCFSCReceiver, LCFSCTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.metrics.image import PSNR
from semsim.phy.frontend import SVD
from semsim.tasks.reconstruct import Reconstruct
from semsim.training import TrainSpec, train

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
SNRS = [1.0, 10.0, 19.0]
ANTENNAS = (2, 8)
CBR = "1/16"
SIDE = 64
WIDE_RATIOS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1.0]  # the release's list for ablations
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {"fusion": "none"},
    "masked": {"fusion": "masked"},
    "random mask": {"fusion": "random"},
    "concat": {"fusion": "concat"},
}
ABLATIONS: dict[str, dict[str, object]] = {
    "masked, wide ratios": {"candidates": WIDE_RATIOS},
    "masked, ratio 0.1": {"ratio": 0.1},
    "masked, ratio 0.5": {"ratio": 0.5},
    "masked, CSI only, ratio 0.5": {"sources": "csi", "ratio": 0.5},
    "masked, source only, ratio 0.5": {"sources": "source", "ratio": 0.5},
    "random mask, wide ratios": {"fusion": "random", "candidates": WIDE_RATIOS},
}
WRONG = ", wrong CSI"
STUDENT_T = 4.303  # 97.5 % point for two degrees of freedom


class Crops(torch.utils.data.Dataset):
    """Patches of a pool of photos, from each part as many as its weight says; read from disk.

    Args:
        pool: file made by make_pool.py; its arrays are unpacked once, so that
            processes share their pages.
        folder: where to.
        count: how many patches.
    """

    name = "crops"

    def __init__(self, pool: Path, folder: Path, count: int = 12_000) -> None:
        rng = np.random.default_rng(0)
        pack = np.load(pool)
        shares = pack["weights"] / pack["weights"].sum()
        self.parts = [unpacked(pack, f"part{i}", folder) for i in range(len(shares))]
        self.places = [
            (part, int(place))
            for part, share in zip(self.parts, shares, strict=True)
            for place in rng.integers(0, len(part), round(share * count))
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        part, place = self.places[index]
        patch = torch.from_numpy(part[place].astype(np.float32)) / 255
        return patch, patch


def unpacked(pack: np.lib.npyio.NpzFile, key: str, folder: Path) -> np.ndarray:
    """An array of a pack as a file that is read where it is touched."""
    path = folder / f"{key}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        pack.zip.extract(f"{key}.npy", folder)  # type: ignore[union-attr]
    return np.load(path, mmap_mode="r")


def test_crops(data: Path) -> Images:
    """119 crops of 64 x 64 from photos that no training has seen."""
    bsds, meta = read_pack(data / "bsds500.npz")
    held = [photo for photo, split in zip(bsds, meta["split"], strict=True) if split == "val"]
    photos = [p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS) for p in held]
    crops = []
    for photo in photos + read_pack(data / "set5_set14.npz")[0]:
        pixels = np.asarray(photo)
        top, left = ((s - SIDE) // 2 for s in pixels.shape[:2])
        crops.append(pixels[top : top + SIDE, left : left + SIDE])
    return Images(crops)


def make_link(antennas: int, arguments: dict[str, object], seed: int) -> Link:
    """A fresh link with CSI at both ends."""
    size = {"num_tx": antennas, "num_rx": antennas}
    torch.manual_seed(seed)
    transmitter = LCFSCTransmitter(CBR, **size, **arguments)
    receiver = LCFSCReceiver(CBR, **size)
    return Link(transmitter, Rayleigh(**size), receiver, csi_tx=PerfectCSI())


def go_on(link: Link, crops: Crops, folder: Path, *, steps: int, lr: float, seed: int) -> float:
    """Train a link, or go on where its folder left off; return the CPU seconds."""
    spec = TrainSpec(
        steps=steps, batch_size=8, lr=lr, optimiser="muon", crop=SIDE, save_every=50, ema=0.99
    )
    start = time.process_time()
    train(link, crops, Reconstruct("log_mse"), spec, folder=folder, seed=seed)
    return round(time.process_time() - start, 1)


def take_over(link: Link, weights: Path) -> None:
    """Load the backbone of another variant; what is not in the file stays fresh."""
    tensors = load_file(weights)
    for name in ("transmitter", "receiver"):
        own = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
        getattr(link, name).load_state_dict(own, strict=False)


def one_run(
    antennas: int, variant: str, seed: int, args: argparse.Namespace, crops: Crops, test: Images
) -> list[dict]:
    """Train one codec, measure it, and measure it again with the CSI of another draw."""
    arguments = {**VARIANTS, **ABLATIONS}[variant]
    label = f"{antennas}x{antennas}"
    start = args.runs / f"{label} start"
    if not (start / "weights.safetensors").is_file():
        plain = make_link(antennas, {"fusion": "none"}, 0)
        go_on(plain, crops, start, steps=args.start, lr=3e-3, seed=0)
    link = make_link(antennas, arguments, seed)
    take_over(link, start / "weights.safetensors")
    folder = args.runs / f"{label} {variant} {seed}"
    facts = {
        "antennas": antennas,
        "seed": seed,
        "steps": args.start + args.steps,
        "cpu_seconds": go_on(link, crops, folder, steps=args.steps, lr=2e-3, seed=seed + 100),
        "parameters": sum(p.numel() for p in link.parameters()),
    }
    rows = [{"variant": variant, **facts, **row} for row in measure(link, test)]
    if arguments.get("fusion", "masked") in ("masked", "concat"):
        link.csi_tx = MismatchedCSI()
        rows += [{"variant": variant + WRONG, **facts, **row} for row in measure(link, test)]
    return rows


def measure(link: nn.Module, test: Images) -> list[dict]:
    """PSNR per SNR over the same channels and noise for every link."""
    rows = evaluate(link.eval(), test, snr_db=SNRS, metrics=[PSNR()], seed=7, batch_size=17)
    keep = {"snr_db": "snr_db", "value": "psnr_db", "cbr": "cbr", "power": "power"}
    return [{new: r[old] for old, new in keep.items()} for r in rows]


def classical(antennas: int, test: Images) -> list[dict]:
    """Separate coding and its bound over the same channels, both ends knowing H."""
    channel = Rayleigh(num_tx=antennas, num_rx=antennas)
    ends = {"csi_tx": PerfectCSI(), "frontend": SVD(water_filling=True)}
    links = {
        "separate coding, SVD": SeparateLink(SeparateTransmitter(CBR), channel, **ends),
        "bound, SVD": BoundLink(BoundTransmitter(CBR), channel, **ends),
    }
    facts = {"antennas": antennas, "seed": -1, "steps": 0, "cpu_seconds": 0, "parameters": 0}
    return [
        {"variant": name, **facts, **row} for name, link in links.items()
        for row in measure(link, test)
    ]  # fmt: skip


def summary(rows: pandas.DataFrame) -> str:
    """Markdown: per number of antennas, means and paired differences to plain."""
    text = []
    for antennas, part in rows.groupby("antennas"):
        head = " | ".join(f"{s:g} dB" for s in SNRS)
        text += [
            f"\n## {antennas} x {antennas}\n",
            f"| variant | seeds | parameters | CPU s | {head} |",
            "|---|---|---|---|" + "---|" * len(SNRS),
        ]
        psnr = part.pivot_table(index=["variant", "seed"], columns="snr_db", values="psnr_db")
        for variant in part["variant"].unique():
            own = part[part["variant"] == variant]
            cells = [cell(psnr, variant, snr) for snr in SNRS]
            text.append(
                f"| {variant} | {own['seed'].nunique()} | {own['parameters'].iloc[0]:,} | "
                f"{own['cpu_seconds'].mean():.0f} | " + " | ".join(cells) + " |"
            )
    return "\n".join(text) + "\n"


def cell(psnr: pandas.DataFrame, variant: str, snr: float) -> str:
    """The mean, and the paired difference to plain with its interval where seeds allow one."""
    own, plain = psnr.xs(variant)[snr], psnr.xs("plain")[snr]  # by seed
    gain = (own - plain).dropna()
    if variant == "plain" or not len(gain):
        return f"{own.mean():.2f}"
    if len(gain) < len(SEEDS):
        return f"{own.mean():.2f} ({gain.mean():+.3f})"
    half = STUDENT_T * gain.std() / len(gain) ** 0.5
    return f"{own.mean():.2f} ({gain.mean():+.3f} ± {half:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100, help="of each variant")
    parser.add_argument("--start", type=int, default=200, help="steps of the backbone before")
    parser.add_argument("--antennas", type=int, nargs="*", default=ANTENNAS)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--variants", nargs="*", default=[*VARIANTS, "classical"])
    parser.add_argument("--ablations", action="store_true", help="the ablations over 2 x 2 as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "lcfsc.csv"
    crops, test = Crops(args.pool, args.runs / "pool"), test_crops(args.data)
    for antennas, variant, seed in plan(args):
        if done(path, antennas, variant, seed):
            continue
        if variant == "classical":
            new = classical(antennas, test)
        else:
            new = one_run(antennas, variant, seed, args, crops, test)
        print(pandas.DataFrame(new).to_string(index=False, header=False), flush=True)
        pandas.concat([table(path), pandas.DataFrame(new)]).round(4).to_csv(path, index=False)
    rows = table(path)
    (RESULTS / "lcfsc.md").write_text(
        HEADING.format(args.start, args.steps) + summary(rows), encoding="utf-8"
    )
    print(summary(rows))


def plan(args: argparse.Namespace) -> list[tuple[int, str, int]]:
    """What to run, in this order: antennas, variant, seed."""
    variants = [v for v in VARIANTS if v in args.variants]
    runs = [(n, v, s) for s in args.seeds for n in args.antennas for v in variants]
    if "classical" in args.variants:
        runs += [(n, "classical", -1) for n in args.antennas]
    if args.ablations:
        runs += [(2, v, s) for s in args.seeds for v in ABLATIONS]
    return runs


def table(path: Path) -> pandas.DataFrame:
    """The rows so far."""
    return pandas.read_csv(path) if path.is_file() else pandas.DataFrame()


def done(path: Path, antennas: int, variant: str, seed: int) -> bool:
    """Tell whether a run is in the table."""
    rows, name = table(path), "bound, SVD" if variant == "classical" else variant
    if not len(rows):
        return False
    same = (rows["antennas"] == antennas) & (rows["seed"] == seed) & (rows["variant"] == name)
    return bool(same.any())


HEADING = (
    "PSNR in dB on 119 crops of 64 x 64 from held-out photos, CBR 1/16 over all antennas, i.i.d. "
    "block Rayleigh fading; mean over the seeds, in brackets the paired difference to plain with "
    "its 95 % interval. {} steps of 8 crops for the plain backbone, then {} for each variant; "
    "LMMSE at the receiver, H known at both ends.\n"
)

if __name__ == "__main__":
    main()
