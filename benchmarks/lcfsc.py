"""What the channel at the transmitter is worth to LCFSC, by masks and by its controls; three seeds.

    python benchmarks/lcfsc.py --data DATA --pool POOL.npz --runs RUNS [--ablations] [--npn]

POOL is made by make_pool.py photo; DATA holds bsds500.npz and set5_set14.npz. Every variant goes on
from one plain backbone per number of antennas and, by seed, sees the same crops of 64 x 64,
channels and noise in the same steps; all send the same k at the same power and have the same
receiver behind LMMSE. Test: the middle of each photo in BSDS500 val, halved in size, and of each of
Set5 and Set14, over the same draws for all. Runs that are in the CSV with as many steps are not
repeated; one that was stopped goes on from RUNS. Several processes, each with its own --antennas,
--seeds or --variants, may share CSV and RUNS. Differences to ``plain`` are paired by seed;
intervals are 95 % by Student's t. How much attention is worth at all shows the plain codec when it
is measured, not trained, with every pair but the own masked in all blocks of its encoder. The
classical baseline is separate coding, and its bound, behind SVD with water-filling. --npn measures
the codecs of seed 0 with H at the transmitter estimated from pilots, and cleaned. Writes
benchmarks/results/lcfsc.{csv,md}.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import pandas
import torch
from lcfsc_data import SIDE, Crops, test_crops
from lcfsc_table import FEEDBACK, SEEDS, SNRS, done, report, table
from safetensors.torch import load_file
from torch import Tensor, nn
from zoo_psnr import Images

from channels import CSI, MismatchedCSI, PerfectCSI, PilotCSI, Rayleigh
from semsim import Link, evaluate, stream
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.lcfsc.codec import LCFSCReceiver, LCFSCTransmitter
from semsim.codecs.lcfsc.estimator import NoisePurifier, nmse, pretrain
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.metrics.image import PSNR
from semsim.phy.frontend import SVD
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.loop import train
from semsim.training.spec import TrainSpec

RESULTS = Path(__file__).parent / "results"
ANTENNAS = (2, 8)
CBR = "1/16"
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
ALONE = "plain, all pairs but the own masked"


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


def budget(args: argparse.Namespace) -> dict[str, int]:
    """Steps of the backbone before, and in all."""
    return {"start": args.start, "steps": args.start + args.steps}


def folder_of(args: argparse.Namespace, antennas: int, variant: str, seed: int) -> Path:
    """Where a run is trained."""
    return args.runs / f"{antennas}x{antennas} {variant} {seed}, {args.start} and {args.steps}"


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
    start = args.runs / f"{antennas}x{antennas} start, {args.start}"
    if not (start / "weights.safetensors").is_file():
        plain = make_link(antennas, {"fusion": "none"}, 0)
        go_on(plain, crops, start, steps=args.start, lr=3e-3, seed=0)
    link = make_link(antennas, arguments, seed)
    take_over(link, start / "weights.safetensors")
    folder = folder_of(args, antennas, variant, seed)
    facts = {
        "antennas": antennas,
        "seed": seed,
        **budget(args),
        "cpu_seconds": go_on(link, crops, folder, steps=args.steps, lr=2e-3, seed=seed + 100),
        "parameters": sum(p.numel() for p in link.parameters()),
    }
    rows = [{"variant": variant, **facts, **row} for row in measure(link, test)]
    if arguments.get("fusion", "masked") in ("masked", "concat"):
        link.csi_tx = MismatchedCSI()
        rows += [{"variant": variant + WRONG, **facts, **row} for row in measure(link, test)]
    return rows


class Alone(nn.Module):
    """An encoder in which each position attends to itself only."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor, snr_db: Tensor) -> Tensor:
        """Return the latent."""

        def own_only(_stage: int, _block: int, x: Tensor) -> Tensor:
            side = self.encoder.sizes.window
            own = torch.eye(side**2, dtype=torch.bool)
            return torch.zeros(own.shape).masked_fill(~own, -torch.inf).expand(len(x), -1, -1)

        return self.encoder(image, snr_db, attend=own_only)


def trained(args: argparse.Namespace, antennas: int, variant: str, seed: int) -> Link:
    """The codec of a run; SystemExit where it is not trained."""
    weights = folder_of(args, antennas, variant, seed) / "weights.safetensors"
    if not weights.is_file():
        raise SystemExit(
            f"{weights} is missing, but is measured here: if an earlier version of this script "
            f"trained it in as many steps, rename its folder, {antennas}x{antennas} {variant} "
            f"{seed}, to {weights.parent.name!r}; else delete its rows from {RESULTS}/lcfsc.csv "
            f"and run this with --antennas {antennas} --variants {variant!r} --seeds {seed}, "
            "which trains it"
        )
    link = make_link(antennas, VARIANTS[variant], seed)
    take_over(link, weights)
    return link


def without_attention(antennas: int, seed: int, args: argparse.Namespace, test: Images) -> list:
    """Measure the plain codec with every position of its encoder alone."""
    link = trained(args, antennas, "plain", seed)
    facts = {"antennas": antennas, "seed": seed, **budget(args)}
    facts |= {"cpu_seconds": 0, "parameters": sum(p.numel() for p in link.parameters())}
    link.transmitter.encoder = Alone(link.transmitter.encoder)
    return [{"variant": ALONE, **facts, **row} for row in measure(link, test)]


class Told(PilotCSI):
    """Know H itself, but pay and doubt as if it came from pilots."""

    def forward(self, state, n0, generator, received=None) -> CSI:
        """Return the true gain and the noise that the pilots leave."""
        return replace(super().forward(state, n0, generator, received), h=state.h)


def with_estimates(antennas: int, args: argparse.Namespace, test: Images) -> list[dict]:
    """Measure the codecs that see H with an estimate of it at the transmitter, raw and cleaned."""
    channel, pilots = Rayleigh(num_tx=antennas, num_rx=antennas), PilotCSI(per_block=antennas)
    torch.manual_seed(0)
    purifier, rows = NoisePurifier(), []
    start = time.process_time()
    pretrain(purifier, channel, pilots, stream(0, "npn", antennas))
    seconds = round(time.process_time() - start, 1)
    for codec in ("masked", "concat"):
        ways = (pilots, None), (pilots, purifier), (Told(per_block=antennas), None)
        for kind, (source, estimator) in zip(FEEDBACK, ways, strict=True):
            link = trained(args, antennas, codec, 0)
            link.csi_tx, link.transmitter.estimator = source, estimator
            facts = {"variant": codec + kind, "antennas": antennas, "seed": 0}
            facts |= {**budget(args), "cpu_seconds": seconds if estimator else 0}
            facts["parameters"] = sum(p.numel() for p in link.parameters())
            for row in measure(link, test):
                error = error_db(channel, source, estimator, row["snr_db"])
                rows.append({**facts, **row, "nmse_db": error})
    return rows


@torch.no_grad()
def error_db(
    channel: Rayleigh, pilots: PilotCSI, estimator: NoisePurifier | None, snr_db: float
) -> float:
    """NMSE of what the transmitter believes of H over 2,000 draws."""
    state = channel.draw(2000, 1, stream(7, "nmse"))
    noisy: CSI = pilots(state, torch.full((2000,), 10 ** (-snr_db / 10)), stream(8, "nmse"))
    h = noisy.h[..., 0]
    cleaned = h if estimator is None else estimator(h, noisy.n0)
    return 10 * float(nmse(cleaned, state.h[..., 0]).log10())


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
    facts = {"antennas": antennas, "seed": -1, "start": 0, "steps": 0}
    facts |= {"cpu_seconds": 0, "parameters": 0}
    return [
        {"variant": name, **facts, **row} for name, link in links.items()
        for row in measure(link, test)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100, help="of each variant")
    parser.add_argument("--start", type=int, default=200, help="steps of the backbone before")
    parser.add_argument("--antennas", type=int, nargs="*", default=ANTENNAS)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--variants", nargs="*", default=[*VARIANTS, ALONE, "classical"])
    parser.add_argument("--ablations", action="store_true", help="the ablations over 2 x 2 as well")
    parser.add_argument("--npn", action="store_true", help="estimates of H as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "lcfsc.csv"
    crops, test = Crops(args.pool, args.runs / "pool"), test_crops(args.data)
    for antennas, variant, seed in plan(args):
        if done(path, (antennas, variant, seed), budget(args)):
            continue
        if variant == "classical":
            new = classical(antennas, test)
        elif variant == ALONE:
            new = without_attention(antennas, seed, args, test)
        elif variant.endswith(FEEDBACK):
            new = with_estimates(antennas, args, test)
        else:
            new = one_run(antennas, variant, seed, args, crops, test)
        print(pandas.DataFrame(new).to_string(index=False, header=False), flush=True)
        pandas.concat([table(path), pandas.DataFrame(new)]).round(4).to_csv(path, index=False)
    text = report(table(path))
    (RESULTS / "lcfsc.md").write_text(text, encoding="utf-8")
    print(text)


def plan(args: argparse.Namespace) -> list[tuple[int, str, int]]:
    """What to run, in this order: antennas, variant, seed."""
    variants = [v for v in (*VARIANTS, ALONE) if v in args.variants]
    runs = [(n, v, s) for s in args.seeds for n in args.antennas for v in variants]
    if "classical" in args.variants:
        runs += [(n, "classical", -1) for n in args.antennas]
    if args.npn:
        runs += [(n, "masked" + FEEDBACK[0], 0) for n in args.antennas]
    if args.ablations:
        runs += [(2, v, s) for s in args.seeds for v in ABLATIONS]
    return runs


if __name__ == "__main__":
    main()
