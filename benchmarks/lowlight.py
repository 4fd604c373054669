"""NLHD: what it takes, what each of its parts is worth, and a look at real low-light photos.

    python benchmarks/lowlight.py speed quality look --data DATA [--photos 50]

DATA holds bsds500.npz, whose folder val gives the photos (shrunk by two, central 128 x 128 pixels;
the defaults of NLHD were chosen on the folder train), and lowlight_lol3.npz for ``look``.
``speed`` compares with loops over blocks and rows in numpy, tests/nlhd_loop.py. Photos are the
independent unit; intervals are 95 %. Writes benchmarks/results/lowlight_{speed,quality,look}.csv
and lowlight.md.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import torch
from make_pool import read_pack
from timing import interleaved, machine, ratio
from torch import Tensor
from torch.nn import functional as F

from semsim import stream
from semsim.metrics.base import Outcome
from semsim.metrics.image import TaskPSNR, TaskSSIM
from semsim.payloads.photos import Photos
from semsim.vision.nlhd import (
    Enhance,
    FlatNoise,
    Grouping,
    Groups,
    MatchedPSNR,
    darken,
    decompose,
    lightness_order,
)

sys.path.append(str(Path(__file__).parents[1] / "tests"))

RESULTS = Path(__file__).parent / "results"
GAMMA = Enhance().gamma
#: least and largest darkness, noise, seed
CONDITIONS = {
    "very dark, 0.05 to 0.15": ((0.05, 0.15), (0.001, 0.004), 0),
    "dark, 0.15 to 0.4": ((0.15, 0.4), (0.001, 0.004), 1),
    "dark, no noise": ((0.15, 0.4), (0.0, 0.0), 2),
}
METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "input": lambda dark: dark,
    "gamma 1/2.2": lambda dark: dark.pow(1 / 2.2),
    f"gamma {GAMMA:g}": lambda dark: dark.pow(GAMMA),
    "gamma 0.25": lambda dark: dark.pow(0.25),
    "NLHD": Enhance(),
    "NLHD, step 8": Enhance(step=8),
    "step 8, no suppression": Enhance(step=8, threshold=0),
    "step 8, no saturation module": Enhance(step=8, desaturate_below=0),
    "step 8, neither": Enhance(step=8, threshold=0, desaturate_below=0),
    "step 8, exp alone": Enhance(step=8, fusion="exp"),
    "step 8, log alone": Enhance(step=8, fusion="log"),
    "step 8, blocks, no rows": Enhance(step=8, rows=1),
    "step 8, log reflectance": Enhance(step=8, reflectance="log"),
    "step 8, hsv": Enhance(step=8, colour="hsv"),
    "step 8, hsv, neither": Enhance(step=8, colour="hsv", threshold=0, desaturate_below=0),
    "step 8, gamma 0.4, alpha 30": Enhance(step=8, gamma=0.4, alpha=30.0),
}
METRICS = {"PSNR": TaskPSNR(), "SSIM": TaskSSIM(), "matched PSNR": MatchedPSNR(),
           "flat noise": FlatNoise()}  # fmt: skip


def photos(data: Path, count: int) -> Tensor:
    """Return BSDS500 val, halved and cropped, [N, 3, 128, 128]."""
    pack, meta = read_pack(data / "bsds500.npz")
    val = [image for image, split in zip(pack, meta["split"], strict=True) if split == "val"]
    found = []
    for image in val[:count]:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
        small = F.avg_pool2d(pixels[None], 2)[0]
        top, left = ((side - 128) // 2 for side in small.shape[1:])
        found.append(small[:, top : top + 128, left : left + 128])
    return torch.stack(found)


def colour_error(output: Tensor, target: Tensor) -> list[float]:
    """Return the mean CIEDE2000 difference of each pair of images."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    lab = [rgb2lab(x.clamp(0, 1).permute(0, 2, 3, 1).numpy()) for x in (output, target)]
    return [float(deltaE_ciede2000(a, b).mean()) for a, b in zip(*lab, strict=True)]


def quality(data: Path, count: int) -> pandas.DataFrame:
    """Measure every method under every condition; a row per method, condition and photo."""
    bright, rows = photos(data, count), []
    for condition, (darkness, noise, seed) in CONDITIONS.items():
        dark = torch.stack([
            darken(image, stream(seed, "dark", i), darkness=darkness, noise=noise)
            for i, image in enumerate(bright)
        ])  # fmt: skip
        for name, method in METHODS.items():
            rows += measured(method, dark, bright, {"condition": condition, "method": name})
        print(condition, flush=True)
    return pandas.DataFrame(rows)


def measured(
    method: Callable[[Tensor], Tensor], dark: Tensor, bright: Tensor, about: dict[str, str]
) -> list[dict]:
    """Return one row per photo."""
    with torch.inference_mode():
        parts = zip(dark.split(10), bright.split(10), strict=True)
        outcomes = [Outcome(method(d), d, b) for d, b in parts]
        columns = {
            name: torch.cat([metric(o) for o in outcomes]).tolist()
            for name, metric in METRICS.items()
        }
    columns["colour error"] = [e for o in outcomes for e in colour_error(o.output, o.target)]
    names = list(columns)
    values = zip(*columns.values(), strict=True)
    return [about | {"photo": i} | dict(zip(names, v, strict=True)) for i, v in enumerate(values)]


def half_width(values: pandas.Series) -> float:
    """Return half the 95 % interval of a mean over photos."""
    return 1.96 * values.std() / len(values) ** 0.5


def quality_text(table: pandas.DataFrame) -> str:
    """Return a markdown table per condition, with paired differences to plain gamma."""
    text, metrics = "", [*METRICS, "colour error"]
    for condition, own in table.groupby("condition", sort=False):
        text += f"\n### {condition}; {own['photo'].nunique()} photos\n\n"
        text += "| method | " + " | ".join(metrics) + f" | PSNR - gamma {GAMMA:g} "
        text += f"| SSIM - gamma {GAMMA:g} |\n|---|" + "---|" * (len(metrics) + 2) + "\n"
        plain = own[own["method"] == f"gamma {GAMMA:g}"].set_index("photo")
        for method, mine in own.groupby("method", sort=False):
            cells = [f"{mine[m].mean():.{3 if m == 'SSIM' else 2}f}" for m in metrics]
            for metric, digits in (("PSNR", 2), ("SSIM", 3)):
                gain = mine.set_index("photo")[metric] - plain[metric]
                cells.append(f"{gain.mean():+.{digits}f} ± {half_width(gain):.{digits}f}")
            text += f"| {method} | " + " | ".join(cells) + " |\n"
    return text


def speed(side: int = 256) -> pandas.DataFrame:
    """Time an image of 256 x 256 with one and two threads, and a small one against loops."""
    from nlhd_loop import nlhd

    image = 0.2 * Photos(["astronaut"], resize=side, crop=side)[0][0][None]
    ways = {"default": Enhance(), "step 8": Enhance(step=8)}
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            taken = interleaved({n: functools.partial(timed, w, image) for n, w in ways.items()}, 3)
            for name, way in ways.items():
                rows.append({"what": name, "side": side, "threads": threads,
                             "wall_s": np.median(taken[name]), "least_wall_s": min(taken[name]),
                             "least_cpu_s": min(timed(way, image) for _ in range(2))})  # fmt: skip
    torch.set_num_threads(1)
    small = image[:, :1, 96:136, 96:136].double()
    pair = small[0, 0].numpy()
    taken = interleaved(
        {"loop": lambda: nlhd(pair, pair), "torch": lambda: decomposed(small)}, 3, warm_up=0
    )
    value, low, high = ratio(taken["loop"], taken["torch"])
    rows.append({"what": "loop / torch, one channel", "side": 40, "threads": 1, "ratio": value,
                 "low": low, "high": high})  # fmt: skip
    return pandas.DataFrame(rows)


def decomposed(image: Tensor) -> None:
    """Do in torch what the loops do: groups, their transform, all coefficients rebuilt."""
    groups = Groups(image, Grouping())
    decompose(image, groups, torch.zeros(len(groups), dtype=image.dtype))


def timed(way: Callable[[Tensor], Tensor], image: Tensor) -> float:
    """Return the CPU time of a run, all threads together; other work does not lengthen it."""
    start = time.process_time()
    way(image)
    return time.process_time() - start


def look(data: Path) -> pandas.DataFrame:
    """Measure three real low-light photos, for which there is no reference."""
    rows = []
    names = ("input", f"gamma {GAMMA:g}", "NLHD", "step 8, hsv")
    for number, image in enumerate(read_pack(data / "lowlight_lol3.npz")[0]):
        dark = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        for name in names:
            with torch.inference_mode():
                out = METHODS[name](dark)
            levels = (out.mean(dim=1) * 255).round().flatten().long().bincount(minlength=256)
            p = levels[levels > 0] / levels.sum()
            rows.append({
                "photo": number, "method": name, "mean": 255 * float(out.mean()),
                "entropy_bits": float(-(p * p.log2()).sum()),
                "lightness_order_error": float(lightness_order(out, dark)),
            })  # fmt: skip
    return pandas.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=("speed", "quality", "look"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--photos", type=int, default=50)
    args = parser.parse_args()
    if args.data is None and set(args.parts) != {"speed"}:
        parser.error("quality and look need --data")
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    for part in args.parts:
        made = {
            "speed": speed,
            "quality": functools.partial(quality, args.data, args.photos),
            "look": functools.partial(look, args.data),
        }[part]()
        made.round(4).to_csv(RESULTS / f"lowlight_{part}.csv", index=False)
    write_text()


def write_text() -> None:
    """Write lowlight.md from the tables that are there."""
    tables = {
        part: pandas.read_csv(path)
        for part in ("quality", "speed", "look")
        if (path := RESULTS / f"lowlight_{part}.csv").is_file()
    }
    text = f"# NLHD\n\n{machine()}; 2 CPU cores, shared with other work.\n"
    if "quality" in tables:
        text += (
            "\n## Darkened photos\n\nBSDS500 val, 128 x 128; the last columns are paired, with 95 %"
            " intervals over photos. matched: after one gain"
            " to the reference's mean. flat noise in units of the last bit, after that gain. "
            "colour error: CIEDE2000.\n" + quality_text(tables["quality"])
        )
    for part, title in (("speed", "Time"), ("look", "Three real low-light photos")):
        if part in tables:
            text += f"\n## {title}\n\n" + markdown(tables[part])
    (RESULTS / "lowlight.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(table: pandas.DataFrame) -> str:
    """Return a markdown table; empty where a value is missing."""
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    for row in table.itertuples(index=False):
        cells = ["" if v != v else f"{v:.3g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
