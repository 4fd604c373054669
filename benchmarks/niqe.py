"""Fit NIQE on photos, and see whether it falls with quality on others.

    python benchmarks/niqe.py fit --data DATA
    python benchmarks/niqe.py report --data DATA

``fit`` takes the folders train and test of bsds500.npz and writes semsim/metrics/niqe.safetensors
with its card. ``report`` disturbs the photos of kodak24.npz by noise, blur and JPEG, and writes
benchmarks/results/niqe.csv: the mean and its 95 % interval over photos, and on how many photos each
is worse than the photo as it was. Kodak's photos are for evaluation: nothing is fitted on them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from make_pool import read_pack
from PIL import Image, ImageFilter
from torch import Tensor

from semsim import stream, zoo
from semsim.metrics import niqe as method

RESULTS = Path(__file__).parent / "results"


def pixels(image: Image.Image) -> Tensor:
    """Return a photo [3, H, W], 0 to 255."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).double()


def fit(data: Path) -> None:
    """Write the model of bsds500's training and test photos."""
    images, facts = read_pack(data / "bsds500.npz")
    chosen = [i for i, split in enumerate(facts["split"]) if str(split) in ("train", "test")]
    photos = [pixels(images[i]) for i in chosen]
    model = method.fit(photos)
    card = {
        "about": "NIQE: features of undisturbed photos",
        "data": f"BSDS500, folders train and test, {len(photos)} photos (Arbelaez 2011)",
        "command": "python benchmarks/niqe.py fit --data DATA",
    }
    zoo.export_parts(method.MODEL, {"pristine": model}, card)
    print(method.MODEL.with_suffix(".json").read_text())


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    """Return a photo with white Gaussian noise, its deviation to 255."""
    clean = pixels(image)
    draws = torch.randn(clean.shape, generator=stream(1, "niqe", *image.size), dtype=clean.dtype)
    found = (clean + deviation * draws).clamp(0, 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(found.contiguous().numpy())


def coded(image: Image.Image, quality: int) -> Image.Image:
    """Return a photo after JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def disturbances() -> dict[tuple[str, float], Callable[[Image.Image], Image.Image]]:
    """Return what is done to photos, by name and strength."""
    made: dict[tuple[str, float], Callable[[Image.Image], Image.Image]] = {}
    made["none", 0] = lambda image: image
    for deviation in (5, 10, 25):
        made["noise", deviation] = lambda image, d=deviation: noisy(image, d)
    for radius in (1, 2, 3):
        made["blur", radius] = lambda image, r=radius: image.filter(ImageFilter.GaussianBlur(r))
    for quality in (50, 20, 10):
        made["jpeg", quality] = lambda image, q=quality: coded(image, q)
    return made


def report(data: Path) -> None:
    """Write the table."""
    images, _ = read_pack(data / "kodak24.npz")
    clean, rows = None, []
    for (name, strength), disturb in disturbances().items():
        found = torch.cat([method.niqe(pixels(disturb(image))[None]) for image in images]).numpy()
        clean = found if clean is None else clean
        error = 1.96 * found.std(ddof=1) / len(found) ** 0.5
        worse, mean = int((found > clean).sum()), found.mean()
        rows.append({"disturbance": name, "strength": strength, "photos": len(found), "niqe": mean,
                     "low": mean - error, "high": mean + error, "worse": worse})  # fmt: skip
        print(rows[-1], flush=True)
    pandas.DataFrame(rows).round(3).to_csv(RESULTS / "niqe.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fit", "report"))
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"fit": fit, "report": report}[args.what](args.data)


if __name__ == "__main__":
    main()
