"""Export LCFSC and its plain twin for the zoo: the runs of lcfsc.py, trained on where asked.

    python benchmarks/train_lcfsc.py --data DATA --pool POOL.npz --runs RUNS --out OUT [NAME ...]

RUNS are those of lcfsc.py, whose seed-0 codecs are the start; with --steps both twins get the same
further steps on the same crops, channels and noise. Writes OUT/NAME.safetensors and its card,
measured over the test crops of lcfsc.py. A training that was stopped goes on from OUT.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from lcfsc import ANTENNAS, go_on, make_link, measure, take_over
from lcfsc_data import SIDE, Crops, test_crops
from zoo_psnr import Images, bundled, count_multiply_adds

from channels import CSI, MismatchedCSI
from semsim import Link, evaluate, stream, zoo
from semsim.metrics.image import PSNR

NAMES = {
    f"{name}-{n}x{n}": (n, variant, arguments)
    for n in ANTENNAS
    for name, variant, arguments in (
        ("lcfsc", "masked", {"fusion": "masked"}),
        ("lcfsc-plain", "plain", {"fusion": "none"}),
    )
}
DATA = (
    "BSDS500 train and test photos, 883 photos of 128 px, shrunk by random factors; crops of 64 px"
)

FILES = "--data DATA --pool POOL.npz --runs RUNS"


def curve(link: Link, test: Images) -> dict[str, float]:
    """PSNR by SNR."""
    return {str(r["snr_db"]): round(r["psnr_db"], 3) for r in measure(link, test)}


@torch.no_grad()
def ratios(link: Link, test: Images, antennas: int) -> dict[str, float]:
    """How the masking ratio varies with channel and SNR, over the test crops."""
    transmitter = link.transmitter.eval()
    source = torch.stack([test[i][0] for i in range(len(test))])
    state = link.channel.draw(len(source), 1, stream(7, "ratios", antennas))
    snr_db = torch.empty(len(source)).uniform_(0, 20, generator=stream(7, "snr"))
    ratio = transmitter.masking(source, CSI(state.h, 10 ** (-snr_db / 10)))[0].numpy()
    condition = torch.linalg.cond(state.h[..., 0]).log().numpy()
    return {
        "mean": float(ratio.mean()),
        "standard_deviation": float(ratio.std()),
        "correlation_with_snr": float(np.corrcoef(ratio, snr_db.numpy())[0, 1]),
        "correlation_with_log_condition": float(np.corrcoef(ratio, condition)[0, 1]),
    }


def facts(name: str, link: Link, test: Images, antennas: int) -> dict[str, object]:
    """What the card says of the measurement."""
    channel = f"rayleigh block {antennas}x{antennas}, lmmse"
    again = evaluate(
        link.eval(), bundled(SIDE), snr_db=[10.0], metrics=[PSNR()], seed=7, batch_size=4
    )
    by_channel = {channel: curve(link, test)}
    found: dict[str, object] = {}
    if link.transmitter.fusions:
        found["ratio"] = {k: float(f"{v:.4g}") for k, v in ratios(link, test, antennas).items()}
        link.csi_tx = MismatchedCSI()
        by_channel[f"{channel}, wrong CSI at the transmitter"] = curve(link, test)
    cost = CSI(torch.ones(1, antennas, antennas, 1, dtype=torch.complex64), torch.ones(1))
    return {
        "multiply_adds": count_multiply_adds_of(link, cost),
        "multiply_adds_of": [3, SIDE, SIDE],
        "measured": {
            "on": f"{len(test)} crops of 64 px from BSDS500 val, Set5 and Set14",
            "metric": "mean per-image PSNR in dB, 8-bit",
            "by_snr_db": by_channel,
        },
        "bundled_photos_over_fading": {
            "size": SIDE,
            "snr_db": 10.0,
            "psnr_db": round(again[0]["value"], 3),
        },
        **found,
    }


def count_multiply_adds_of(link: Link, known: CSI) -> int:
    """Multiply-adds of both ends for one image of 64 x 64."""

    def transmitter(source: torch.Tensor, _csi: CSI) -> torch.Tensor:
        return link.transmitter(source, known)

    return count_multiply_adds(transmitter, link.receiver, (3, SIDE, SIDE))  # type: ignore[arg-type]


def one(name: str, args: argparse.Namespace, crops: Crops, test: Images) -> None:
    """Train, export and measure one codec."""
    antennas, variant, arguments = NAMES[name]
    link = make_link(antennas, arguments, 0)
    label, folder = f"{antennas}x{antennas}", args.out / name
    before = [args.runs / f"{label} {kind}" for kind in ("start", f"{variant} 0")]
    take_over(link, before[-1] / "weights.safetensors")
    if args.steps:
        go_on(link, crops, folder, steps=args.steps, lr=2e-3, seed=1000)
        before.append(folder)
    past = [json.loads((f / "weights.json").read_text()) for f in before]
    card = {
        "data": DATA,
        "steps": sum(f["steps"] for f in past),
        "batch": "8 crops of 64 px",
        "minutes": round(sum(f["minutes"] for f in past), 1),
        "machine": "one CPU core shared with other work",
        "command": f"python benchmarks/lcfsc.py {FILES} --start {past[0]['steps']} --steps "
        f"{past[1]['steps']} --antennas {antennas} --seeds 0 --variants {variant}; python "
        f"benchmarks/train_lcfsc.py {FILES} --out OUT --steps {args.steps} {name}",
        "history": f"{past[0]['steps']} steps as the plain codec, the rest as it is",
        **facts(name, link, test, antennas),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = zoo.export(args.out / f"{name}.safetensors", link.transmitter, link.receiver, card)
    print(json.dumps(card["measured"]), card.get("ratio"), flush=True)
    if args.ship:
        for file in (path, path.with_suffix(".json")):
            shutil.copy(file, zoo.WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0, help="beyond the runs")
    parser.add_argument("--ship", action="store_true", help="copy to semsim/weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    crops, test = Crops(args.pool, args.runs / "pool"), test_crops(args.data)
    for name in args.names:
        one(name, args, crops, test)


if __name__ == "__main__":
    main()
