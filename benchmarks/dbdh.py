"""How well hidden codes are found and read: without a link, in what a link delivers, ablated.

    python benchmarks/dbdh.py --data DATA [--runs RUNS] [--only photos,jpeg,links,ablation]

DATA holds bsds500.npz, whose folder val nobody trained on; its 100 photos are cropped and shrunk at
random. The localisers are the zoo's. Parts:

    photos    both embedders and cameras, residuals of several strengths, none at all, and a guess
    jpeg      the photos once more through JPEG: what breaks first
    links     over AWGN, behind several codecs, localised at the receiver and at the sender
    ablation  networks of equal budget in RUNS, made by

    python benchmarks/dbdh.py --data DATA --runs RUNS --train filters_none --steps 300

    python benchmarks/dbdh.py --data DATA --than OTHER.safetensors   # paired, printed

Intervals are 95 %, of the mean over photos. Writes benchmarks/results/dbdh.csv and dbdh.md.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pandas
import torch
from make_pool import read_pack, write_covers
from torch import Tensor

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.metrics.image import PSNR
from semsim.nn.geometry import quad_iou
from semsim.training.loop import train
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import dbdh
from semsim.vision.dbdh.camera import jpeg

RESULTS = Path(__file__).parent / "results"
SNRS = (5.0, 15.0, 25.0)
# embedder, camera, strengths
CASES = (("pimog", "screen", (0.0, 2.0, 4.0, 8.0)), ("pimog", "print", (0.0, 2.0, 4.0, 8.0)),
         ("spread", "screen", (0.0, 4.0, 8.0, 16.0)))  # fmt: skip
STRENGTHS = (2.0, 4.0, 8.0)  # of the ablation, whose networks are young
PARTS = ("photos", "jpeg", "links", "ablation")
ABLATIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "filters_none": {"filters": "none"},
    "filters_srm": {"filters": "srm"},
    "filters_gabor": {"filters": "gabor"},
    "no_cross": {"cross": False},
    "no_ase": {"ase": False},
    "no_luma": {"luma": False},
    "no_mask": {"segmentation": False},
}


def unpack(data: Path, folder: Path) -> str:
    """Write the photos of bsds500's folder val as files; return the folder."""
    images, meta = read_pack(data / "bsds500.npz")
    for index, (image, split) in enumerate(zip(images, meta["split"], strict=True)):
        if split == "val":
            image.save(folder / f"{index:03d}.png")
    return str(folder)


def measures(embedder: str) -> list[Any]:
    """All metrics of hidden codes."""
    return [
        dbdh.QuadIoU(), dbdh.Localised(), dbdh.VertexError(), dbdh.BitAccuracy(),
        dbdh.BitAccuracyOracle(embedder), dbdh.MessageSuccess(),
    ]  # fmt: skip


def no_link() -> NoLink:
    return NoLink(NoLinkTransmitter(), AWGN())


def photos(covers: str, count: int) -> list[dict[str, Any]]:
    """No link: strengths, cameras, embedders, no residual, and the guess."""
    rows = []
    for embedder, capture, strengths in CASES:
        for strength in strengths:
            payload = dbdh.MarkedPhotos(
                count, path=covers, embedder=embedder, capture=capture, strength=strength
            )
            for at in (
                ("receiver", "none") if strength == 4 and embedder == "pimog" else ("receiver",)
            ):
                about = {"part": "photos", "embedder": embedder, "capture": capture,
                         "strength": strength, "at": at}  # fmt: skip
                task = dbdh.Localise(at, embedder=embedder)
                found = evaluate(
                    no_link(), payload, snr_db=[0.0], metrics=measures(embedder), task=task
                )
                rows += [about | row for row in found]
                print(about, [round(row["value"], 3) for row in found], flush=True)
    return rows


def jpegs(covers: str, count: int) -> list[dict[str, Any]]:
    """The overlap, and the PSNR of the photos, after JPEG."""
    rows = []
    payload = dbdh.MarkedPhotos(count, path=covers, embedder="pimog", capture="screen")
    source, target = (torch.stack(t) for t in zip(*payload, strict=True))
    corners, network = target[:, :8].view(-1, 4, 2), dbdh.Localise(embedder="pimog").network
    for quality in (100, 95, 90, 80, 70, 50, 30):
        with torch.no_grad():
            coded = jpeg(source, [quality] * count)
            quads = torch.cat([network.locate(part, 4) for part in coded.split(64)])
        psnr = -10 * (255 * (coded - source)).square().mean(dim=(1, 2, 3)).log10() + 48.13
        for metric, values in (("iou", quad_iou(quads, corners)), ("psnr", psnr)):
            low, high = interval(values)
            rows.append({"part": "jpeg", "embedder": "pimog", "capture": "screen", "strength": 4.0,
                         "quality": quality, "metric": metric, "value": float(values.mean()),
                         "ci_low": low, "ci_high": high, "n": count})  # fmt: skip
        print("jpeg", quality, rows[-2]["value"], rows[-1]["value"], flush=True)
    return rows


def gain(covers: str, count: int, than: str) -> None:
    """Print the overlap of the zoo's pimog above that of other weights, paired by photo."""
    networks = [dbdh.Localise(embedder="pimog", weights=w).network for w in (than, "dbdh-pimog")]
    for capture in ("print", "screen"):
        payload = dbdh.MarkedPhotos(
            count, path=covers, embedder="pimog", capture=capture, strength=4.0
        )
        source, target = (torch.stack(t) for t in zip(*payload, strict=True))
        corners = target[:, :8].view(-1, 4, 2)
        with torch.no_grad():
            quads = [torch.cat([n.locate(p, 4) for p in source.split(50)]) for n in networks]
        before, after = (quad_iou(each, corners) for each in quads)
        low, high = interval(after - before)
        print(f"{capture}: {before.mean():.3f} to {after.mean():.3f}, {low:+.3f} to {high:+.3f}")


def interval(values: Tensor) -> tuple[float, float]:
    half = 1.96 * float(values.std()) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def link_of(name: str) -> Any:
    """A link by its name in the tables."""
    if name == "no link":
        return no_link()
    if name == "DeepJSCC 1/16":
        ends = zoo.pair("deepjscc-photo-1-16", DeepJSCCTransmitter, DeepJSCCReceiver)
        return Link(ends[0], AWGN(), ends[1])
    if name == "analog 1/2":
        return Link(AnalogTransmitter("1/2"), AWGN(), AnalogReceiver("1/2"))
    return SeparateLink(SeparateTransmitter(name.split()[-1], codec="hevc"), AWGN())


def links(covers: str, count: int) -> list[dict[str, Any]]:
    """Over AWGN, localised at the receiver and at the sender."""
    rows = []
    for embedder in ("pimog",):
        payload = dbdh.MarkedPhotos(count, path=covers, embedder=embedder, capture="screen")
        for name in ("no link", "HEVC + LDPC 1/16", "DeepJSCC 1/16", "HEVC + LDPC 1/3",
                     "analog 1/2"):  # fmt: skip
            for at in ("receiver", "sender"):
                snrs = SNRS[:1] if name == "no link" else SNRS
                metrics = [*measures(embedder), PSNR()]
                task = dbdh.Localise(at, embedder=embedder, views=1)
                found = evaluate(
                    link_of(name), payload, snr_db=snrs, metrics=metrics, task=task, seed=1
                )
                about = {"part": "links", "embedder": embedder, "capture": "screen",
                         "strength": 4.0, "link": name, "at": at}  # fmt: skip
                rows += [about | row for row in found]
                print(about, [round(r["value"], 3) for r in found if r["metric"] == "iou"],
                      [round(r["value"], 3) for r in found if r["metric"] == "bit_accuracy"],
                      flush=True)  # fmt: skip
    return rows


def ablation(covers: str, count: int, runs: Path) -> list[dict[str, Any]]:
    """Networks of one budget, with and without parts, at two strengths."""
    rows = []
    for file in sorted(runs.glob("*/dbdh-*.safetensors")):
        facts = zoo_card(file.with_suffix(".json"))
        network = dbdh.DBDH(**facts["spec"]["network"]).eval()
        zoo.load_parts(file, {"network": network})
        for strength, capture in itertools.product(STRENGTHS, ("print", "screen")):
            payload = dbdh.MarkedPhotos(
                count, path=covers, embedder="pimog", capture=capture, strength=strength
            )
            source, target = (torch.stack(t) for t in zip(*payload, strict=True))
            with torch.no_grad():
                quads = torch.cat([network.locate(part) for part in source.split(64)])
            values = quad_iou(quads, target[:, :8].view(-1, 4, 2))
            low, high = interval(values)
            rows.append({"part": "ablation", "network": file.parent.name, "steps": facts["steps"],
                         "parameters": facts["parameters"], "embedder": "pimog",
                         "capture": capture, "strength": strength, "metric": "iou",
                         "value": float(values.mean()), "ci_low": low, "ci_high": high,
                         "n": count})  # fmt: skip
            print(file.parent.name, capture, strength, rows[-1]["value"], flush=True)
    return rows


def train_ablation(name: str, covers: str, runs: Path, steps: int) -> None:
    """Train a network of the ablation on photos of strong and of hidden codes."""
    torch.manual_seed(0)
    payload = dbdh.MarkedPhotos(
        4000, path=covers, embedder="pimog", capture="both", strength=(3.0, 24.0)
    )
    task = dbdh.Localise(embedder="pimog", weights=None, trainable=True)
    task.network = network = dbdh.DBDH(**ABLATIONS[name])
    settings = TrainSpec(
        steps=steps, batch_size=16, lr=3e-3, optimiser="muon", warmup=0.03, ema=1 - 1 / 300,
        clip=5.0, flip=False, through="task",
    )  # fmt: skip
    train(AnyLink(), payload, task, settings, folder=runs / name, progress=name)
    path = runs / name / "dbdh-pimog.safetensors"
    zoo.export_parts(path, {"network": network.deployed()}, {"steps": steps})


def zoo_card(path: Path) -> dict[str, Any]:
    import json

    return dict(json.loads(path.read_text(encoding="utf-8")))


def report(table: pandas.DataFrame) -> str:
    """Return the tables as Markdown, from the CSV alone."""
    lines = ["Hidden codes: found and read. Photos of bsds500 val, cropped and shrunk at random, "
             "128 x 128. Mean ± half the 95 % interval."]  # fmt: skip

    def cell(rows: pandas.DataFrame, metric: str) -> str:
        row = rows[rows.metric == metric].iloc[0]
        return f"{row.value:.3f} ± {(row.ci_high - row.ci_low) / 2:.3f}"

    names = ["iou", "localised", "vertex_error", "bit_accuracy", "bit_accuracy_oracle",
             "message_success"]  # fmt: skip
    part = table[table.part == "photos"]
    if len(part):
        lines += ["", f"## No link, {int(part.n.iloc[0])} photos per row", "",
                  "| embedder | camera | strength | " + " | ".join(names) + " |",
                  "|---" * (3 + len(names)) + "|"]  # fmt: skip
        for key, rows in part.groupby(["at", "embedder", "capture", "strength"], sort=False):
            at, embedder, capture, strength = key
            what = "guess" if at == "none" else f"{strength:g}"
            lines.append(f"| {embedder} | {capture} | {what} | "
                         + " | ".join(cell(rows, n) for n in names) + " |")  # fmt: skip
    part = table[table.part == "jpeg"]
    if len(part):
        lines += ["", f"## JPEG after the camera, pimog, screen, {int(part.n.iloc[0])} photos", "",
                  "| quality | PSNR in dB | iou |", "|---|---|---|"]  # fmt: skip
        lines += [f"| {q:g} | {cell(r, 'psnr')} | {cell(r, 'iou')} |"
                  for q, r in part.groupby("quality", sort=False)]  # fmt: skip
    part = table[table.part == "links"]
    for embedder, of in part.groupby("embedder", sort=False):
        lines += ["", f"## Over AWGN: {embedder}, screen, strength 4, "
                  f"{int(of.n.iloc[0])} photos", "",
                  "| link | localised at | uses per photo | SNR in dB | PSNR in dB | iou | bits | "
                  "bits, true corners | messages |", "|---" * 9 + "|"]  # fmt: skip
        for (name, at, snr), rows in of.groupby(["link", "at", "snr_db"], sort=False):
            shown = "" if name == "no link" else f"{snr:g}"
            cells = [cell(rows, n) for n in ("psnr", "iou", "bit_accuracy", "bit_accuracy_oracle",
                                             "message_success")]  # fmt: skip
            uses = rows.uses_payload.iloc[0]
            lines.append(f"| {name} | {at} | {uses:.0f} | {shown} | " + " | ".join(cells) + " |")
    part = table[table.part == "ablation"]
    if len(part):
        lines += ["", f"## Networks of one budget, pimog, {int(part.n.iloc[0])} photos: iou", ""]
        columns = [(s, c) for s in STRENGTHS for c in ("print", "screen")]
        lines += ["| network | steps | parameters | "
                  + " | ".join(f"{c}, {s:g}" for s, c in columns) + " |",
                  "|---" * (3 + len(columns)) + "|"]  # fmt: skip
        for name, rows in part.groupby("network", sort=False):
            cells = [cell(rows[(rows.strength == s) & (rows.capture == c)], "iou")
                     for s, c in columns]  # fmt: skip
            lines.append(f"| {name} | {rows.steps.iloc[0]:.0f} | {rows.parameters.iloc[0]:,.0f} | "
                         + " | ".join(cells) + " |")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument(
        "--than", help="other weights of pimog, to compare on the same photos instead"
    )
    parser.add_argument("--train", choices=ABLATIONS, help="make a network of the ablation")
    parser.add_argument("--steps", type=int, default=300, help="of that network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if args.train:
        covers = args.runs / "covers"
        if not covers.is_dir():
            write_covers(args.data, covers)
        train_ablation(args.train, str(covers), args.runs, args.steps)
        return
    wanted, file = args.only.split(","), RESULTS / "dbdh.csv"
    found = []
    with tempfile.TemporaryDirectory() as folder:
        covers = unpack(args.data, Path(folder))
        if args.than is not None:
            gain(covers, args.count, args.than)
            return
        if "photos" in wanted:
            found += photos(covers, args.count)
        if "jpeg" in wanted:
            found += jpegs(covers, args.count)
        if "links" in wanted:
            found += links(covers, args.count // 2)
        if "ablation" in wanted and args.runs:
            found += ablation(covers, args.count, args.runs)
    new = pandas.DataFrame(found)
    old = pandas.read_csv(file) if file.is_file() else pandas.DataFrame({"part": []})
    table = pandas.concat([old[~old.part.isin(set(new.part))], new])
    table = table.sort_values("part", kind="stable", key=lambda c: c.map(PARTS.index))
    keep = [c for c in table.columns if c not in ("seconds", "power", "unit", "better")]
    table[keep].to_csv(file, index=False, float_format="%.5g")
    text = report(table)
    (RESULTS / "dbdh.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
