"""Make the training patches of the zoo from photo collections.

    python benchmarks/make_pool.py cifar --data DATA --out POOL.npz
    python benchmarks/make_pool.py photo --data DATA --out POOL.npz
    python benchmarks/make_pool.py photo-large --data DATA --out POOL.npz
    python benchmarks/make_pool.py cifar-classes --data DATA --out POOL.npz
    python benchmarks/make_pool.py covers --data DATA --out FOLDER

DATA holds image packs: NAME.npz with ``blob`` (concatenated image files), ``off`` (their ends) and
arrays such as ``split`` and ``name``. Read are bsds500 (folders train and test; val validates),
photos883_128 and, for cifar, the first 2,000 images of cifar10_lossless3000. cifar-classes are the
images x and classes y of CIFAR-10: 46,000 of cifar10_jpeg56000, then cifar10_lossless3000, of which
the last 1,000 test. covers are the photos themselves as files, in mixed order. Photos are shrunk
with antialiasing by random factors, because a shrunk photo is free of compression artefacts.
"""

from __future__ import annotations

import argparse
import io
import itertools
import lzma
from pathlib import Path

import numpy as np
from PIL import Image


def read_pack(path: Path) -> tuple[list[Image.Image], dict[str, np.ndarray]]:
    """Return the images of a pack and its other arrays."""
    pack = np.load(path, allow_pickle=False)
    xz = "blob_xz" in pack.files
    blob = lzma.decompress(pack["blob_xz"].tobytes()) if xz else pack["blob"].tobytes()
    ends = pack["off"]
    images = [Image.open(io.BytesIO(blob[a:b])).convert("RGB") for a, b in itertools.pairwise(ends)]
    return images, {k: pack[k] for k in pack.files if k not in ("blob", "blob_xz", "off")}


def cut(image: Image.Image, factor: float, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shrink by ``factor`` and cut into size x size tiles from a random offset."""
    kernel = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)
    shape = tuple(max(round(s / factor), 1) for s in image.size)
    small = image if factor == 1 else image.resize(shape, kernel[rng.choice(3, p=(0.5, 0.3, 0.2))])
    a = np.asarray(small)
    if min(a.shape[:2]) < size:
        return []
    top, left = (int(rng.integers(0, n % size + 1)) for n in a.shape[:2])
    return [
        a[y : y + size, x : x + size]
        for y in range(top, a.shape[0] - size + 1, size)
        for x in range(left, a.shape[1] - size + 1, size)
    ]


def tiles(
    images: list[Image.Image], size: int, low: float, high: float, times: int,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Cut every image ``times`` times at factors drawn log-uniformly: uint8 [N, 3, size, size]."""
    found = []
    for image in images:
        for _ in range(times):
            found += cut(image, float(np.exp(rng.uniform(np.log(low), np.log(high)))), size, rng)
    return np.stack(found).transpose(0, 3, 1, 2)


def centres(images: list[Image.Image]) -> np.ndarray:
    """The middle 256 x 256 of every fourth image, upright or not: uint8 [N, 3, 256, 256]."""
    crops = [np.asarray(i.crop((112, 32, 368, 288))) for i in images[::4]]
    return np.stack(crops).transpose(0, 3, 1, 2)


def classes(data: Path) -> dict[str, np.ndarray]:
    """Return CIFAR-10 images uint8 [N, 32, 32, 3] and their classes [N]."""
    images, meta = read_pack(data / "cifar10_jpeg56000.npz")
    chosen = meta["is_train"].astype(bool)
    sheets, clean = read_pack(data / "cifar10_lossless3000.npz")
    lossless = np.concatenate([np.asarray(s).reshape(1000, 32, 32, 3) for s in sheets])
    x = np.concatenate([np.stack([np.asarray(i) for i in images])[chosen], lossless])
    return {"x": x, "y": np.concatenate([meta["label"][chosen], clean["label"]]).astype(np.int64)}


def write_covers(data: Path, folder: Path) -> None:
    """Write the photos to train on as files of their own, large and small ones mixed."""
    bsds, meta = read_pack(data / "bsds500.npz")
    photos = [image for image, s in zip(bsds, meta["split"], strict=True) if s in ("train", "test")]
    photos += read_pack(data / "photos883_128.npz")[0]
    folder.mkdir(parents=True, exist_ok=True)
    for number, which in enumerate(np.random.default_rng(0).permutation(len(photos))):
        photos[which].save(folder / f"{number:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "kind", choices=("cifar", "photo", "photo-large", "cifar-classes", "covers")
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.kind == "cifar-classes":
        np.savez(args.out, **classes(args.data))
        return
    if args.kind == "covers":
        write_covers(args.data, args.out)
        return
    rng = np.random.default_rng(0)
    bsds, meta = read_pack(args.data / "bsds500.npz")
    split = meta["split"]
    train = [image for image, s in zip(bsds, split, strict=True) if s in ("train", "test")]
    held = [image for image, s in zip(bsds, split, strict=True) if s == "val"]
    small, _ = read_pack(args.data / "photos883_128.npz")
    if args.kind == "cifar":
        sheets, _ = read_pack(args.data / "cifar10_lossless3000.npz")
        cifar = np.concatenate([np.asarray(s).reshape(1000, 32, 32, 3) for s in sheets[:2]])
        cifar = cifar.transpose(0, 3, 1, 2)
        parts = [tiles(train, 32, 2, 4.5, 8, rng), tiles(small, 32, 1, 2, 3, rng), cifar[:1900]]
        weights, valid = (0.42, 0.18, 0.40), cifar[1900:]
    elif args.kind == "photo-large":  # for the last minutes: whole photos are larger than crops
        parts, weights, valid = [tiles(train, 320, 1, 1, 2, rng)], (1.0,), centres(held)
    else:
        # 128 pixels, so that most positions see no border, as in whole photos
        parts = [tiles(train, 128, 1, 1, 3, rng), tiles(train, 128, 1, 2.2, 5, rng),
                 tiles(small, 128, 1, 1, 1, rng)]  # fmt: skip
        weights = (0.65, 0.2, 0.15)  # photos as they are sent, mostly
        valid = centres(held)
    print([p.shape for p in parts], valid.shape)
    arrays = {f"part{i}": p for i, p in enumerate(parts)}
    np.savez(args.out, weights=np.array(weights), valid=np.ascontiguousarray(valid), **arrays)


if __name__ == "__main__":
    main()
