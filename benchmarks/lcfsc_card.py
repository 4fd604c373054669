"""Measure LCFSC, or its plain twin, as semsim train left it; write weights and card for the zoo.

    semsim train scenarios/train/lcfsc-2x2.yaml
    python benchmarks/lcfsc_card.py lcfsc-2x2 --weights RUN/weights.safetensors --data DATA --out O

RUN is the training's folder. Measured are the test crops of lcfsc.py, over fading, with the channel
known at the transmitter and, for LCFSC, also with another channel in its place.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from lcfsc import ANTENNAS, make_link, measure
from lcfsc_data import SIDE, test_crops
from zoo_psnr import Images, bundled, count_multiply_adds

from channels import CSI, MismatchedCSI
from semsim import Link, evaluate, stream, zoo
from semsim.metrics.image import PSNR

NAMES = {
    f"{name}-{n}x{n}": (n, {"fusion": fusion})
    for n in ANTENNAS
    for name, fusion in (("lcfsc", "masked"), ("lcfsc-plain", "none"))
}
DATA = (
    "BSDS500 train and test photos, 883 photos of 128 px, shrunk by random factors; crops of 64 px"
)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--weights", type=Path, required=True, help="of the training")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    antennas, arguments = NAMES[args.name]
    link = make_link(antennas, arguments, 0)
    zoo.load(args.weights, link.transmitter, link.receiver)
    past = json.loads(args.weights.with_suffix(".json").read_text())
    made = {key: past[key] for key in ("steps", "minutes", "training", "before") if key in past}
    command = f"semsim train scenarios/train/{args.name}.yaml"
    card = {"data": DATA, **made, "command": command}
    card |= facts(args.name, link, test_crops(args.data), antennas)
    args.out.mkdir(parents=True, exist_ok=True)
    zoo.export(args.out / f"{args.name}.safetensors", link.transmitter, link.receiver, card)
    print(json.dumps(card["measured"]), card.get("ratio"))


if __name__ == "__main__":
    main()
