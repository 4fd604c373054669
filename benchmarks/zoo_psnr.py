"""Measure the zoo: PSNR over SNR on CIFAR-10 and Kodak, and write the curves into the model cards.

    python benchmarks/zoo_psnr.py --data DATA            # benchmarks/results/zoo_psnr.csv
    python benchmarks/zoo_psnr.py --data DATA --cards    # and semsim/weights/*.json

DATA holds the packs cifar10_lossless3000.npz (the last 1,000 images are used) and kodak24.npz.
PSNR is the mean over images of each image's PSNR on 8-bit values. Kodak is for evaluation only.
With --names or --channels the other rows and curves stay, in the CSV and in the cards, but not
those of weights that were replaced since under the same name. Several processes, each with its own
names or channels, may share CSV and cards.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path

import numpy as np
import pandas
import torch
from filelock import FileLock
from make_pool import read_pack
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from channels import AWGN, Rayleigh
from channels.base import CSI
from semsim import Link, evaluate, zoo
from semsim.files.disk import LOCK, replacing
from semsim.metrics.image import PSNR
from semsim.nn.resnet import ResNet

SNRS = [0.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 20.0]
CHANNELS = {
    "awgn": AWGN,
    "rayleigh block": Rayleigh,
    "rayleigh block 2x2": lambda: Rayleigh(num_tx=2, num_rx=2),
}
SEED = 7
RESULTS = Path(__file__).parent / "results" / "zoo_psnr.csv"


class Images(torch.utils.data.Dataset):
    """Images of one size in memory, uint8 [N, 3, H, W]."""

    name = "images"

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.images = [torch.from_numpy(a.copy()).permute(2, 0, 1) for a in arrays]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].float() / 255
        return image, image


def cifar(data: Path) -> tuple[Images, np.ndarray]:
    """The last 1,000 of the lossless CIFAR-10 images, and their labels."""
    sheets, meta = read_pack(data / "cifar10_lossless3000.npz")
    last = np.asarray(sheets[2]).reshape(1000, 32, 32, 3)
    return Images(list(last)), meta["label"][2000:].astype(int)


def kodak(data: Path) -> Images:
    """The 24 Kodak photos, all turned to landscape."""
    photos = [np.asarray(i) for i in read_pack(data / "kodak24.npz")[0]]
    return Images([p if p.shape[1] > p.shape[0] else np.rot90(p) for p in photos])


def bundled(size: int) -> Images:
    """Crops of four photos that scikit-image carries; tests re-measure the weights on them."""
    from skimage import data

    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    return Images([p[50 : 50 + size, 100 : 100 + size] for p in photos])


def ends(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Both ends as the card says, with their weights."""
    parts = zoo.build(name)
    return parts["transmitter"], parts["receiver"]


def count_multiply_adds(
    transmitter: torch.nn.Module, receiver: torch.nn.Module, shape: tuple[int, int, int]
) -> int:
    """Multiply-adds of both ends for one image."""
    csi = CSI(None, torch.full((1,), 0.1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        receiver(transmitter(torch.rand(1, *shape), csi), csi, shape)
    return counter.get_total_flops() // 2


def curve(name: str, channel: str, payload: Images) -> list[dict[str, object]]:
    """One row per SNR."""
    transmitter, receiver = ends(name)
    batch = 100 if payload.images[0].shape[-1] <= 64 else 2
    link = Link(transmitter, CHANNELS[channel](), receiver).eval()
    rows = evaluate(link, payload, snr_db=SNRS, metrics=[PSNR()], seed=SEED, batch_size=batch)
    keep = ("snr_db", "value", "ci_low", "ci_high", "n", "cbr", "power")
    of = {"weights": name, "digest": digest(name), "channel": channel}
    return [{**of, **{k: r[k] for k in keep}} for r in rows]


def accuracy(name: str, payload: Images, labels: np.ndarray) -> float:
    """Share of clean images whose class the network names."""
    network = ResNet(**zoo.card(name)["spec"]["network"])
    zoo.load_parts(name, {"network": network})
    with torch.no_grad():
        scores = network.eval()(torch.stack([payload[i][0] for i in range(len(payload))]))
    return float((scores.argmax(dim=1).numpy() == labels).mean())


def digest(weights: str) -> str:
    """The start of the SHA-256 of weights, which tells them from older ones."""
    return zoo.digest(weights)[:8]


def named(weights: str) -> str:
    """The name of weights and the start of their SHA-256."""
    return f"{Path(weights).stem} {digest(weights)}"


def write_rows(rows: list[dict[str, object]]) -> None:
    """Put rows into the CSV as it is now, in the place of those of their weights and channels.

    Rows of weights that had these names before are left out.
    """
    new = pandas.DataFrame(rows)
    if RESULTS.is_file():
        old = pandas.read_csv(RESULTS, dtype={"digest": str})  # or 1234e567 were a number
        again = old["weights"].isin(new["weights"]) & old["channel"].isin(new["channel"])
        old = old[~again]
        now = {str(r["weights"]): r["digest"] for r in rows if "digest" in r}
        held = [r["weights"] not in now or is_of(r, now[r["weights"]]) for _, r in old.iterrows()]
        new = pandas.concat([old[held], new])
    with replacing(RESULTS) as partial:
        new.sort_values(["weights", "channel", "snr_db"]).round(4).to_csv(partial, index=False)


def is_of(row: pandas.Series, now: object) -> bool:
    """Tell whether a row is of these weights; one without a digest where the card holds it too."""
    if isinstance(of := row.get("digest"), str):
        return of == now
    point = curves(row["weights"]).get(row["channel"], {}).get(str(row["snr_db"]))
    return point is not None and abs(point - row["value"]) < 0.006  # it has two decimals


def curves(name: str) -> dict[str, dict[str, float]]:
    """The curves on a card by channel and SNR; none where they are of weights before.

    A card of before says no digest: then the photos are measured again.
    """
    card = zoo.card(name)
    measured, photos = card.get("measured", {}), card.get("bundled_photos", {})
    if "digest" in measured:
        holds = measured["digest"] == digest(name)
    else:
        holds = "psnr_db" in photos and abs(photos["psnr_db"] - on_photos(name)) < 0.002
    return measured.get("by_snr_db", {}) if holds else {}


@functools.cache
def on_photos(name: str) -> float:
    """PSNR in dB of the bundled photos at 10 dB over AWGN."""
    transmitter, receiver = ends(name)
    rows = evaluate(
        Link(transmitter, AWGN(), receiver).eval(), bundled(side(name)), snr_db=[10.0],
        metrics=[PSNR()], seed=SEED, batch_size=4,
    )  # fmt: skip
    return float(rows[0]["value"])


def side(name: str) -> int:
    """Pixels along the bundled photos that weights are measured on."""
    return 128 if "cifar" in name else 256


def write_card(name: str, facts: dict[str, object]) -> None:
    """Merge facts into the model card."""
    path = zoo.WEIGHTS / f"{name}.json"
    path.write_text(json.dumps({**zoo.card(name), **facts}, indent=2) + "\n", encoding="utf-8")


def facts_of(
    name: str, rows: list[dict[str, object]], on: str, shape: tuple[int, int, int]
) -> dict:
    """What the model card says of a codec's measurement; its curves over other channels stay."""
    points = curves(name) | {
        c: {str(r["snr_db"]): round(float(r["value"]), 2) for r in rows if r["channel"] == c}  # type: ignore[arg-type]
        for c in dict.fromkeys(str(r["channel"]) for r in rows)
    }
    return {
        "multiply_adds": count_multiply_adds(*ends(name), shape),
        "multiply_adds_of": list(shape),
        "measured": {"on": on, "metric": METRIC, "digest": digest(name), "by_snr_db": points},
        "bundled_photos": {
            "size": side(name), "snr_db": 10.0, "psnr_db": round(on_photos(name), 3),
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SEMSIM_DATA"))
    parser.add_argument("--cards", action="store_true", help="write the curves into the cards")
    mine = [n for n in zoo.names() if n.startswith(("deepjscc", "swin", "resnet"))]
    parser.add_argument("--names", nargs="*", default=mine)
    parser.add_argument("--channels", nargs="*", choices=list(CHANNELS), default=list(CHANNELS))
    args = parser.parse_args()
    if args.data is None or not (Path(args.data) / "kodak24.npz").is_file():
        raise SystemExit("no data: give --data or SEMSIM_DATA, a folder with kodak24.npz; skipped")
    small, labels = cifar(Path(args.data))
    for name in args.names:
        if name.startswith("resnet"):
            share = accuracy(name, small, labels)
            print(f"{name}: accuracy {share:.3f} on the last 1,000 lossless images")
            if args.cards:
                write_card(name, {"measured": {"on": CIFAR, "accuracy": round(share, 4)}})
            continue
        on, payload, shape = CIFAR, small, (3, 32, 32)
        if "photo" in name:
            on, payload, shape = "Kodak, 24 photos", kodak(Path(args.data)), (3, 512, 768)
        rows = [row for channel in args.channels for row in curve(name, channel, payload)]
        print(pandas.DataFrame(rows)[["weights", "channel", "snr_db", "value"]].to_string())
        RESULTS.parent.mkdir(exist_ok=True)
        with FileLock(RESULTS.parent / LOCK):
            if args.cards:
                write_card(name, facts_of(name, rows, on, shape))
            write_rows(rows)


METRIC = "mean per-image PSNR in dB, 8-bit"
CIFAR = "CIFAR-10, last 1,000 of the lossless images"

if __name__ == "__main__":
    main()
