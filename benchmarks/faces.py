"""How robust small face verifiers are, alone and behind a link.

    python benchmarks/faces.py train --out RUNS [--data DATA] [--steps 600]
    python benchmarks/faces.py report --out RUNS [--data DATA] [--pairs 200]

``train`` trains four verifiers of different architecture on drawn faces, and one of them once more
on perturbed faces; a stopped run goes on where it was, what is finished is left alone. With DATA,
which holds faces_att.npz, its people 1 to 24 train instead, 25 to 30 set the thresholds, and 31 to
40 test. ``report`` crafts perturbed probes against one of them, the surrogate, and shows them to
the others. It writes benchmarks/results/faces.csv, faces_links.csv and faces.md, with DATA
faces_att instead.

Thresholds are of clean impostor pairs of people that nobody trained on. Intervals are 95 %: a
bootstrap over people of the mean over pairs; differences are paired. For evaluation only: see
semsim/vision/faces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from channels import AWGN
from semsim import Link, stream, zoo
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.metrics.base import Outcome
from semsim.metrics.image import PSNR, SSIM
from semsim.metrics.scores import threshold_at
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import faces

RESULTS = Path(__file__).parent / "results"
KINDS = ("plain", "residual", "mobile", "vit")
SURROGATE = "residual"
ADVERSARIAL = 8.0  # budget of the verifier that is trained on perturbed faces
BASE = faces.Attack(eps=16.0, iterations=20)
ETAS = (8e-4, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1)
SNRS = (0.0, 5.0, 10.0, 15.0)
DRAWS = 2000


def attacks() -> dict[str, faces.Attack]:
    """Return all attacks at one budget: baselines, an eta grid, controls, combinations."""
    rows = {"I-FGSM": BASE}
    rows |= {f"BPFA {eta:g}": replace(BASE, eta=eta) for eta in ETAS}
    rows |= {
        "BPFA relative 0.05": replace(BASE, eta=0.05, eta_mode="relative"),
        "noise 0.02": replace(BASE, eta=2e-2, noise=True),
        "harmful 0.02": replace(BASE, eta=-2e-2),
        "raw 0.02": replace(BASE, eta=2e-2, raw=True),
        "stale 0.02": replace(BASE, eta=2e-2, stale=4),
    }
    rows |= {f"{layers} 0.02": replace(BASE, eta=2e-2, layers=layers)
             for layers in ("early", "middle", "late")}  # fmt: skip
    others = {"MI": {"momentum": 1.0}, "DI": {"diversity": 0.7}, "TI": {"smoothing": 5},
              "DFANet": {"dropout": 0.1}}  # fmt: skip
    for name, change in others.items():
        rows[name] = replace(BASE, **change)
    rows["MI + BPFA 0.02"] = replace(BASE, momentum=1.0, eta=2e-2)
    return rows


def payload(args: argparse.Namespace, split: str, **more: Any) -> faces.Faces:
    """Return drawn faces, or those of AT&T where DATA is given."""
    path = None if args.data is None else unpacked(args)
    return faces.Faces(split, path=path, **more)


def unpacked(args: argparse.Namespace) -> str:
    """Write AT&T's faces as a folder per person, once; return the folder."""
    from PIL import Image

    folder = args.out / "att"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")  # a run may be stopped while it writes
        shutil.rmtree(part, ignore_errors=True)
        held = np.load(args.data / "faces_att.npz", allow_pickle=False)
        for index, (image, who) in enumerate(zip(held["x"], held["y"], strict=True)):
            where = part / f"s{int(who)}"
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(where / f"{index % 10 + 1}.png")
        part.rename(folder)
    return str(folder)


def weights(args: argparse.Namespace, name: str) -> Path:
    kind = "att" if args.data is not None else "drawn"
    return args.out / f"{kind}-{name}" / "fitted.safetensors"


def train(args: argparse.Namespace) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    for name in (*KINDS, "adversarial"):
        if not weights(args, name).is_file():
            train_one(args, name, weights(args, name))


def train_one(args: argparse.Namespace, name: str, file: Path) -> None:
    """Train a verifier, then set its thresholds on the people of ``val``."""
    torch.manual_seed(sum(map(ord, name)))
    people = payload(args, "train")
    kind: Any = "plain" if name == "adversarial" else name
    task = faces.Verify(
        kind, trainable=True, people=people.people,
        adversarial=ADVERSARIAL if name == "adversarial" else 0.0,
    )  # fmt: skip
    spec = TrainSpec(steps=args.steps, batch_size=64, lr=2e-3, through="task", ema=0.99, shift=2)
    with Training(AnyLink(), people, task, spec, folder=file.parent, seed=1) as training:
        training.advance()
        done = training.finish()
    faces.set_thresholds(task.network, payload(args, "val"))
    facts = {"about": f"face verifier, {name}", "steps": done.steps,
             "data": "drawn faces" if args.data is None else "faces_att, people 1 to 24",
             "minutes": round(done.minutes, 1)}  # fmt: skip
    zoo.export_parts(file, {"network": task.network}, facts)
    print(name, f"{done.minutes:.1f} min, loss {done.loss:.3f}", flush=True)


def verifiers(args: argparse.Namespace) -> dict[str, faces.Verifier]:
    """Return all trained verifiers in evaluation mode."""
    found = {}
    for name in (*KINDS, "adversarial"):
        network = faces.Verifier("plain" if name == "adversarial" else name)  # type: ignore[arg-type]
        zoo.load_parts(weights(args, name), {"network": network})
        found[name] = network.eval().requires_grad_(False)
    return found


def stacked(pairs: faces.Faces) -> tuple[torch.Tensor, torch.Tensor]:
    """Return probes and enrolled faces, [N, 3, H, W] each."""
    both = torch.stack([pairs[i][0] for i in range(len(pairs))])
    return both[:, :3], both[:, 3:]


@torch.no_grad()
def cosines(network: faces.Verifier, probes: torch.Tensor, enrolled: torch.Tensor) -> np.ndarray:
    """Return the cosine of each pair, [N]."""
    found = [(network(a) * network(b)).sum(dim=1)
             for a, b in zip(probes.split(100), enrolled.split(100), strict=True)]  # fmt: skip
    return torch.cat(found).double().numpy()


def interval(values: np.ndarray, who: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap interval of a mean: people are drawn, with all that is theirs."""
    rng, people = np.random.default_rng(0), np.unique(who)
    sums = np.array([values[who == p].sum() for p in people])
    counts = np.array([(who == p).sum() for p in people])
    drawn = rng.integers(len(people), size=(DRAWS, len(people)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def owners(pairs: faces.Faces) -> np.ndarray:
    """Return whose face the probe of each pair is, [N]."""
    return np.array([probe.who for probe, _ in pairs.pairs])


def crafted(
    network: Any, probes: torch.Tensor, enrolled: torch.Tensor, attack: faces.Attack, goal: Any,
    size: int = 50,
) -> tuple[torch.Tensor, float]:  # fmt: skip
    """Return perturbed probes, and the surrogate's loss in the last iteration, mean over all."""
    parts, loss = [], 0.0
    for a, b in zip(probes.split(size), enrolled.split(size), strict=True):
        trace: list[float] = []
        parts.append(faces.craft(network, a, b, attack, goal, trace=trace))
        loss += trace[-1] * len(a) / len(probes)
    return torch.cat(parts), loss


def transfer(
    args: argparse.Namespace, nets: dict[str, faces.Verifier], goal: Any
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Return a row per attack, differences to I-FGSM included, and the perturbed probes."""
    kind = "genuine" if goal == "dodging" else "impostor"
    pairs = payload(args, "test", count=args.pairs, pairs=kind)
    (probes, enrolled), who = stacked(pairs), owners(pairs)
    targets = [name for name in KINDS if name != SURROGATE]
    few = {"I-FGSM": BASE, "BPFA 0.02": replace(BASE, eta=2e-2)}
    chosen = attacks() if goal == "dodging" else few
    made: dict[str, torch.Tensor] = {"clean": probes}
    rows, base = [], None
    for name, attack in {"clean": None, **chosen}.items():
        loss = np.nan
        if attack is not None:
            made[name], loss = crafted(nets[SURROGATE], probes, enrolled, attack, goal)
        adv = made[name]
        own = {k: cosines(nets[k], adv, enrolled) for k in nets}
        mean = np.mean([own[k] for k in targets], axis=0)
        accepted = {k: own[k] > float(nets[k].threshold[0]) for k in nets}
        hit = {k: ~a if goal == "dodging" else a for k, a in accepted.items()}
        rate = np.mean([hit[k] for k in targets], axis=0)
        if name == "I-FGSM":
            base = mean, rate
        outcome = Outcome(adv, probes, probes)
        row = {"goal": goal, "attack": name, "pairs": len(adv),
               "target_cosine": mean.mean(), "rate": rate.mean(),
               "white_box": hit[SURROGATE].mean(), "adversarial": hit["adversarial"].mean(),
               "psnr": float(PSNR()(outcome).mean()), "ssim": float(SSIM()(outcome).mean()),
               "change": float(255 * (adv - probes).abs().max()),
               "surrogate_loss": loss,
               **{f"rate_{k}": hit[k].mean() for k in targets}}  # fmt: skip
        found = {"target_cosine": mean, "rate": rate}
        if base is not None:
            found |= {"less_cosine": base[0] - mean, "more_rate": rate - base[1]}
        for key, values in found.items():
            row[f"{key}_low"], row[f"{key}_high"] = interval(values, who)
        rows.append(row)
        print(  # as it goes
            {k: v if isinstance(v, str) else round(float(v), 3) for k, v in row.items()}, flush=True
        )
    return rows, made


def ways() -> dict[str, Callable[[], Any]]:
    """Return links of 1/16 by name."""

    def learned(name: str) -> Any:
        ends: dict[str, Any] = zoo.build(name)
        return Link(ends["transmitter"], AWGN(), ends["receiver"]).eval()

    return {
        "DeepJSCC": lambda: learned("deepjscc-photo-1-16"),
        "Swin JSCC": lambda: learned("swin-photo-1-16"),
        "HEVC + LDPC": lambda: SeparateLink(SeparateTransmitter("1/16", codec="hevc"), AWGN()),
    }


def links(
    args: argparse.Namespace, nets: dict[str, faces.Verifier], made: dict[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """Return rates of clean and perturbed probes behind links and defences."""
    genuine = payload(args, "test", count=args.pairs, pairs="genuine")
    (_, enrolled), who = stacked(genuine), owners(genuine)
    others, strangers = stacked(payload(args, "test", count=args.pairs, pairs="impostor"))
    sent = {k: made[k] for k in ("clean", "I-FGSM", "MI", "BPFA 0.02")}
    received: dict[tuple[str, float, str], Callable[[torch.Tensor], torch.Tensor]] = {}
    for defence in ("none", "jpeg", "bit_depth", "denoise"):
        received["no link", np.inf, defence] = lambda x, d=defence: faces.defended(x, d)
    with torch.inference_mode():
        for name, build in ways().items():
            link = build()
            for snr in SNRS:
                received[name, snr, "none"] = lambda x, link=link, snr=snr: link(
                    x, snr, stream(1, "faces link")
                ).clamp(0, 1)
        rows = []
        for (way, snr, defence), carry in received.items():
            clean = carry(others)
            fresh = {k: threshold_at(cosines(n, clean, strangers), 0.01) for k, n in nets.items()}
            for attack, probes in sent.items():
                got = carry(probes)
                for name, network in nets.items():
                    found = cosines(network, got, enrolled)
                    kept = found > float(network.threshold[0])
                    again = found > fresh[name]
                    low, high = interval(kept.astype(float), who)
                    rows.append({
                        "link": way, "snr_db": snr, "defence": defence, "attack": attack,
                        "verifier": name, "accepted": kept.mean(), "accepted_low": low,
                        "accepted_high": high, "accepted_recalibrated": again.mean(),
                        "false_acceptance": (cosines(network, clean, strangers)
                                             > float(network.threshold[0])).mean(),
                        "psnr": float(PSNR()(Outcome(got, probes, probes)).mean()),
                    })  # fmt: skip
    return rows


def through_the_link(args: argparse.Namespace, nets: dict[str, faces.Verifier]) -> dict[str, Any]:
    """Return the white-box rate of probes that were crafted through DeepJSCC, and past it."""
    probes, enrolled = stacked(payload(args, "test", count=min(args.pairs, 100), pairs="genuine"))
    link, snr, row = ways()["DeepJSCC"]().requires_grad_(False), 10.0, {}
    for name, drawn in (("past the link", None), ("through the link", link)):
        count = 0

        def carry(x: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            return link(x, snr, stream(2, "craft", count)).clamp(0, 1)

        adv = faces.craft(nets[SURROGATE], probes, enrolled, BASE, through=carry if drawn else None)
        with torch.no_grad():
            got = link(adv, snr, stream(1, "faces link")).clamp(0, 1)
        found = cosines(nets[SURROGATE], got, enrolled)
        row[name] = float((found <= float(nets[SURROGATE].threshold[0])).mean())
    return row


def cost(nets: dict[str, faces.Verifier]) -> tuple[float, float, float]:
    """Return one BPFA iteration over one of I-FGSM: the median and the middle 95 % of 15 pairs."""
    x, y = torch.rand(2, 16, 3, 48, 48)
    ratios = []
    for _ in range(15):
        taken = []
        for attack in (replace(BASE, iterations=4), replace(BASE, iterations=4, eta=2e-2)):
            network, start = nets[SURROGATE], time.process_time()
            if attack.eta:
                faces.craft(network, x, y, attack)
            else:
                plain(network, x, y, attack)
            taken.append(time.process_time() - start)
        ratios.append(taken[1] / taken[0])
    low, middle, high = np.quantile(ratios, (0.025, 0.5, 0.975))
    return float(middle), float(low), float(high)


def plain(
    network: faces.Verifier, probe: torch.Tensor, enrolled: torch.Tensor, attack: faces.Attack
) -> torch.Tensor:
    """Return I-FGSM without any hook, written out."""
    aim, image, eps = network(enrolled).detach(), probe, attack.eps / 255
    for _ in range(attack.iterations):
        image = image.detach().requires_grad_()
        loss = -(network(image) - aim).square().sum()
        (gradient,) = torch.autograd.grad(loss, image)
        image = image.detach() - attack.pixel_step / 255 * gradient.sign()
        image = image.clamp(probe - eps, probe + eps).clamp(0, 1)
    return image


def clean(args: argparse.Namespace, nets: dict[str, faces.Verifier]) -> list[dict[str, Any]]:
    """Return the TAR of each verifier on clean pairs, and its false acceptance."""
    rows = []
    genuine = stacked(payload(args, "test", count=400, pairs="genuine"))
    others = stacked(payload(args, "test", count=1000, pairs="impostor"))
    for name, network in nets.items():
        own, strange = cosines(network, *genuine), cosines(network, *others)
        for rate, threshold in zip((0.01, 0.001), network.threshold.tolist(), strict=True):
            rows.append({"verifier": name, "far": rate, "tar": (own > threshold).mean(),
                         "measured_far": (strange > threshold).mean()})  # fmt: skip
    return rows


def report(args: argparse.Namespace) -> None:
    """Measure and write the tables."""
    torch.set_num_threads(1)
    nets = verifiers(args)
    rows, made = transfer(args, nets, "dodging")
    rows += transfer(args, nets, "impersonation")[0]
    at_snr = links(args, nets, made)
    name = "faces" if args.data is None else "faces_att"
    frames = [pandas.DataFrame(part) for part in (clean(args, nets), rows, at_snr)]
    frames[1].round(4).to_csv(RESULTS / f"{name}.csv", index=False)
    frames[2].round(4).to_csv(RESULTS / f"{name}_links.csv", index=False)
    ratio, worst = cost(nets), through_the_link(args, nets)
    (RESULTS / f"{name}.md").write_text(text(*frames, ratio, worst, trained(args)))


def trained(args: argparse.Namespace) -> str:
    """Return on what and for how long the verifiers were trained."""
    cards = [json.loads(weights(args, name).with_suffix(".json").read_text())
             for name in (*KINDS, "adversarial")]  # fmt: skip
    minutes = [card["minutes"] for card in cards]
    return (
        f"Training: {cards[0]['data']}; {cards[0]['steps']} steps of 64 faces each, "
        f"{min(minutes)} to {max(minutes)} minutes of a core. Surrogate: {SURROGATE}."
    )


def text(
    clean_rows: pandas.DataFrame, rows: pandas.DataFrame, at_snr: pandas.DataFrame,
    ratio: tuple[float, float, float], worst: dict[str, float], training: str,
) -> str:  # fmt: skip
    """Return the tables in words."""
    lines = ["# Face verifiers and perturbed probes", "", *__doc__.strip().splitlines()[-3:], "",
             training, "",
             "| verifier | FAR | TAR | FAR measured |", "|---|---|---|---|"]  # fmt: skip
    for r in clean_rows.to_dict("records"):
        lines.append(
            f"| {r['verifier']} | {r['far']:g} | {r['tar']:.3f} | {r['measured_far']:.4f} |"
        )
    lines += ["", "| goal | attack | mean target cosine | below I-FGSM by | rate, mean of "
              "targets | above I-FGSM by | white box | PSNR dB | SSIM |",
              "|" + "---|" * 9]  # fmt: skip
    for r in rows.to_dict("records"):
        ends = [f"{r[f'{k}_low']:+.4f} to {r[f'{k}_high']:+.4f}" if r[f"{k}_low"] == r[f"{k}_low"]
                else "" for k in ("less_cosine", "more_rate")]  # fmt: skip
        lines.append(
            f"| {r['goal']} | {r['attack']} | {r['target_cosine']:.4f} | {ends[0]} | "
            f"{r['rate']:.3f} | {ends[1]} | {r['white_box']:.3f} | {r['psnr']:.2f} | "
            f"{r['ssim']:.4f} |"
        )
    keys = ["link", "snr_db", "defence", "verifier"]
    for value, what in (("accepted", "fixed thresholds"),
                        ("accepted_recalibrated", "recalibrated thresholds")):  # fmt: skip
        table = at_snr.pivot_table(index=keys, columns="attack", values=value, sort=False)
        lines += ["", f"Genuine pairs accepted, {what}:", "",
                  f"| {' | '.join([*keys, *table.columns])} |",
                  "|" + "---|" * (len(keys) + len(table.columns))]  # fmt: skip
        for key, found in table.iterrows():
            lines.append("| " + " | ".join([*map(str, key), *(f"{v:.3f}" for v in found)]) + " |")
    lines += ["", "White-box dodging behind DeepJSCC at 10 dB: "
              + ", ".join(f"{v:.3f} crafted {k}" for k, v in worst.items()) + ".",
              "", f"One BPFA iteration takes {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f}) "
              "times one of I-FGSM."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--pairs", type=int, default=200)
    args = parser.parse_args()
    if args.data is not None and not (args.data / "faces_att.npz").is_file():
        parser.error(f"--data {args.data} holds no faces_att.npz")
    if args.what == "report":
        missing = [n for n in (*KINDS, "adversarial") if not weights(args, n).is_file()]
        if missing:
            parser.error(f"{weights(args, missing[0])} is not there; run train first")
    {"train": train, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
