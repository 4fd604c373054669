"""Faces restored by a small latent diffusion model, and verifiers against perturbed restorations.

    python benchmarks/restore.py train --out RUNS [--minutes 12 24]
    python benchmarks/restore.py report --out RUNS --verifiers FACES [--pairs 200]

``train`` trains the autoencoder and then the U-Net, each for so many minutes, on drawn faces; a
stopped run goes on where it was. ``report`` needs the verifiers of ``benchmarks/faces.py train
--out FACES``, of which one is the surrogate. It writes benchmarks/results/restore.csv,
restore_attacks.csv and restore.md.

Intervals are 95 %: a bootstrap over people of what is paired by face or pair, with one training of
each network. Drawn faces are no photos. For evaluation only: see semsim/vision/restore.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from faces import cosines, interval, stacked, ways
from torch import Tensor

from semsim import stream, zoo
from semsim.files.weightfile import sha256_of
from semsim.metrics.base import Outcome
from semsim.metrics.image import PSNR, SSIM
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import faces, restore

RESULTS = Path(__file__).parent / "results"
COUNT = 1920  #: degraded faces to train on, one of each picture
SURROGATE = "residual"
PIXEL_BUDGETS = (1, 2, 4, 8, 16)  #: of I-FGSM, to 255
LATENT_BUDGETS = (0.05, 0.1, 0.2, 0.4, 0.8)  #: of AdvRestore, in deviations of the latent
MIDDLE = 0.4  #: budget of the ablations
PLAIN = "restored only"  #: what the restoration makes of a probe that nothing perturbs
EQUAL = ("within 16/255", "I-FGSM 16")  #: a restoration and pixels that change as much at most
CONTROLS = ("I-FGSM 16", "MI-FGSM 16", "DI-FGSM 16", "TI-FGSM 16", "restored only within 16/255")
DRAWS = 2000
SETTINGS: dict[str, Any] = {
    "batch_size": 16, "optimiser": "muon", "shift": 2, "through": "task",
}  # fmt: skip
STAGES: dict[str, dict[str, Any]] = {
    "autoencoder": {"lr": 5e-3, "ema": 0.98},
    "unet": {"lr": 3e-3, "ema": 0.99},
}


def train(args: argparse.Namespace) -> None:
    """Train what is not trained yet."""
    torch.set_num_threads(1)
    begun: str | None = None
    for part, minutes in zip(STAGES, args.minutes, strict=True):
        file = args.out / part / "fitted.safetensors"
        if not file.is_file():
            train_part(file, part, minutes, begun)
        begun = str(file)


def train_part(file: Path, part: Any, minutes: float, begun: str | None) -> None:
    """Train one part, beginning with what the parts before it have left."""
    torch.manual_seed(1)
    payload = restore.DegradedFaces("train", count=COUNT)
    task = restore.Restore(trainable=True, part=part, weights=begun)
    spec = TrainSpec(minutes=minutes, **SETTINGS, **STAGES[part])
    with Training(AnyLink(), payload, task, spec, folder=file.parent, seed=1) as training:
        training.advance()
        done = training.finish()
    facts = {"about": f"restoration of faces, {part}", "steps": done.steps, "data": "drawn faces",
             "minutes": round(done.minutes, 1), "loss": round(done.loss, 4)}  # fmt: skip
    zoo.export_parts(file, {"network": task.network}, facts)
    print(part, facts, flush=True)


def restorer_of(args: argparse.Namespace) -> restore.Restorer:
    network = restore.Restorer()
    zoo.load_parts(args.out / "unet" / "fitted.safetensors", {"network": network})
    return network.eval().requires_grad_(False)


def verifier(args: argparse.Namespace, kind: str) -> Path:
    """Return where the weights of a verifier lie."""
    return args.verifiers / f"drawn-{kind}" / "fitted.safetensors"


def verifiers_of(args: argparse.Namespace) -> dict[str, faces.Verifier]:
    """Return trained verifiers, the surrogate first; no two may have the same weights."""
    found, hashes = {}, set()
    for kind in (SURROGATE, *(k for k in faces.BODIES if k != SURROGATE)):
        file = verifier(args, kind)
        network = faces.Verifier(kind)  # type: ignore[arg-type]
        zoo.load_parts(file, {"network": network})
        found[kind] = network.eval().requires_grad_(False)
        hashes.add(sha256_of(file))
    if len(hashes) < len(found):
        raise SystemExit("two verifiers have the same weights: a target would be the surrogate")
    return found


def measured(found: Tensor, aim: Tensor) -> dict[str, np.ndarray]:
    """Return PSNR in dB and SSIM of each face."""
    outcome = Outcome(found, aim, aim)
    return {"psnr": PSNR()(outcome).numpy(), "ssim": SSIM()(outcome).numpy()}


@torch.no_grad()
def restoration(
    args: argparse.Namespace, model: restore.Restorer, nets: dict[str, faces.Verifier]
) -> list[dict[str, Any]]:
    """Return how near held-out faces are to clean ones, before and after, and paired gains."""
    every = restore.DegradedFaces("test")
    chosen = range(0, len(every), max(1, len(every) // args.faces))
    degraded, face = (torch.stack(part) for part in zip(*(every[i] for i in chosen), strict=True))
    who = np.array([every.faces.pictures[i].who for i in chosen])
    found_by: dict[str, Tensor] = {"degraded": degraded}
    found_by["autoencoder of the clean face"] = model.decode(model.encode(face))
    for steps, start in ((20, 0.4), (0, 0.4), (5, 0.4), (20, 0.2), (20, 1.0)):
        name = f"{steps} steps from {start:g}" if steps else "autoencoder alone"
        found_by[name] = model.decode(model.restored(degraded, steps=steps, start=start))
    rows, before = [], dict[str, np.ndarray]()
    for name, found in found_by.items():
        values = measured(found, face)
        values |= {f"cosine_{k}": cosines(net, found, face) for k, net in nets.items()}
        before = before or values
        row: dict[str, Any] = {"way": name, "faces": len(face), "people": len(np.unique(who))}
        for key, value in values.items():
            low, high = interval(value - before[key], who)
            row |= {key: value.mean(), f"{key}_gain_low": low, f"{key}_gain_high": high}
        rows.append(row)
        say(row)
    return rows


def say(row: dict[str, Any]) -> None:
    """Print a row as it is done."""
    print({k: v if isinstance(v, str) else round(float(v), 3) for k, v in row.items()}, flush=True)


class Attacked:
    """Genuine pairs of people nobody trained on, and what attacks make of their probes."""

    def __init__(
        self, args: argparse.Namespace, model: restore.Restorer, nets: dict[str, faces.Verifier]
    ) -> None:
        pairs = faces.Faces("test", count=args.pairs, pairs="genuine")
        self.probes, self.enrolled = stacked(pairs)
        self.who = np.array([first.who for first, _ in pairs.pairs])
        self.model, self.nets, self.iterations = model, nets, args.iterations
        self.made = dict[str, Tensor]()
        self.rows: list[dict[str, Any]] = []
        self.hits = dict[str, np.ndarray]()  #: of the surrogate, by attack
        self.rates = dict[str, np.ndarray]()  #: of each pair over the targets, by attack

    def add(self, name: str, method: str, budget: float, adv: Tensor) -> None:
        """Note what verifiers make of perturbed probes, and how they look."""
        hits = {k: cosines(net, adv, self.enrolled) <= float(net.threshold[0])
                for k, net in self.nets.items()}  # fmt: skip
        rate = np.mean([hit for k, hit in hits.items() if k != SURROGATE], axis=0)
        low, high = interval(rate, self.who)
        look = measured(adv, self.probes)
        self.made[name], self.hits[name], self.rates[name] = adv, hits[SURROGATE], rate
        self.rows.append({
            "attack": name, "method": method, "budget": budget, "pairs": len(adv),
            "white_box": hits[SURROGATE].mean(), "targets": rate.mean(), "targets_low": low,
            "targets_high": high, "psnr": look["psnr"].mean(), "ssim": look["ssim"].mean(),
            "change": float(255 * (adv - self.probes).abs().max()),
        })  # fmt: skip
        say(self.rows[-1])

    def pixel(self, eps: float, name: str = "I-FGSM", **more: Any) -> None:
        attack = faces.Attack(eps=eps, iterations=self.iterations, **more)
        adv = faces.craft(self.nets[SURROGATE], self.probes, self.enrolled, attack)
        self.add(f"{name} {eps:g}", name, eps, adv)

    def restored(self, name: str, attack: restore.RestoreAttack, method: str = "ablation") -> None:
        adv = restore.craft_restored(
            self.nets[SURROGATE], self.model, self.probes, self.enrolled, attack
        )
        self.add(name, method, attack.eps, adv)

    def cheapest(self, method: str) -> np.ndarray:
        """Return what each pair has at its least budget that the surrogate rejects, or NaN.

        [2, pairs]: SSIM, and the share of the targets that reject it.
        """
        found = np.full((2, len(self.probes)), np.nan)
        for row in sorted((r for r in self.rows if r["method"] == method),
                          key=lambda r: -r["budget"]):  # fmt: skip
            name = row["attack"]
            own = np.stack([measured(self.made[name], self.probes)["ssim"], self.rates[name]])
            found = np.where(self.hits[name], own, found)
        return found

    def matched(self) -> dict[str, Any]:
        """Compare both methods on the pairs that both get rejected, each at its least budget.

        Pairs that the restoration alone gets rejected are left out.
        """
        ours, theirs = self.cheapest("AdvRestore"), self.cheapest("I-FGSM")
        kept = ~self.hits[PLAIN] & ~self.hits["clean"]
        both = kept & ~np.isnan(ours[0]) & ~np.isnan(theirs[0])
        row: dict[str, Any] = {"pairs": int(kept.sum()), "both": int(both.sum())}
        if both.any():
            for at, what in enumerate(("ssim", "rate")):
                gain = (ours[at] - theirs[at])[both]
                row[what] = (ours[at][both].mean(), theirs[at][both].mean(),
                             *interval(gain, self.who[both]))  # fmt: skip
        print(row, flush=True)
        return row

    def within(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Compare what is projected to 16/255 with controls of that budget, paired by pair."""
        ours = EQUAL[0]
        look = measured(self.made[ours], self.probes)
        found = {}
        for control in CONTROLS:
            other = measured(self.made[control], self.probes)
            gains = {k: look[k] - other[k] for k in ("ssim", "psnr")}
            gains["rate"] = self.rates[ours] - self.rates[control]
            found[control] = {k: interval(gain, self.who) for k, gain in gains.items()}
        return found


def attacked(
    args: argparse.Namespace, model: restore.Restorer, nets: dict[str, faces.Verifier]
) -> tuple[Attacked, dict[str, Any]]:
    """Return all attacks on the same pairs, and the comparison at equal success."""
    on = Attacked(args, model, nets)
    on.add("clean", "none", 0, on.probes)
    base = restore.RestoreAttack(iterations=args.iterations)
    for eps in PIXEL_BUDGETS:
        on.pixel(eps)
    on.pixel(8, "MI-FGSM", momentum=1.0)
    on.pixel(8, "BPFA", eta=0.02)
    on.pixel(16, "MI-FGSM", momentum=1.0)
    on.pixel(16, "DI-FGSM", diversity=0.7)
    on.pixel(16, "TI-FGSM", smoothing=5)
    still = replace(base, eps=0.0, iterations=1)
    on.restored(PLAIN, still)
    on.restored(CONTROLS[-1], replace(still, pixels=16.0))
    for eps in LATENT_BUDGETS:
        attack = replace(base, eps=eps, step=2 * eps / args.iterations)
        on.restored(f"AdvRestore {eps:g}", attack, "AdvRestore")
    comparison = on.matched()
    middle = replace(base, eps=MIDDLE, step=2 * MIDDLE / args.iterations)
    for sibling in (0.0, 5.0):
        on.restored(f"sibling {sibling:g}", replace(middle, sibling=sibling))
    for place in ("unet", "decoder"):
        on.restored(f"at {place}", replace(middle, place=place))  # type: ignore[arg-type]
    on.restored("plain autoencoder", replace(middle, steps=0))
    on.restored("5 steps of DDIM", replace(middle, steps=5))
    on.restored(EQUAL[0], replace(middle, pixels=16.0))
    comparison["within"] = on.within()
    return on, comparison


@torch.inference_mode()
def behind_links(on: Attacked) -> list[dict[str, Any]]:
    """Return how many pairs are accepted behind DeepJSCC and JPEG, at thresholds of clean pairs."""
    link, rows = ways()["DeepJSCC"](), []
    carriers: dict[str, Any] = {"no link": lambda x: x, "jpeg": lambda x: faces.defended(x, "jpeg")}
    for snr in (0.0, 10.0):
        carriers[f"DeepJSCC {snr:g} dB"] = lambda x, s=snr: link(
            x, s, stream(1, "restore link")
        ).clamp(0, 1)
    for way, carry in carriers.items():
        for name in ("clean", PLAIN, *EQUAL):
            got = carry(on.made[name])
            row = {"link": way, "attack": name}
            for kind, net in on.nets.items():
                kept = cosines(net, got, on.enrolled) > float(net.threshold[0])
                row[kind] = kept.mean()
            rows.append(row)
    return rows


@torch.no_grad()
def cost(model: restore.Restorer) -> dict[str, tuple[float, float, float]]:
    """Return 20 DDIM steps, and a whole restoration, over 20 bare U-Net passes at 64 pixels.

    The median and the middle 95 % of 15 rounds, in CPU seconds of one thread, in alternation.
    """
    face = torch.rand(4, 3, 64, 64, generator=stream(1, "cost"))
    condition = model.encode(face)
    rungs = restore.ladder(20, 0.4)
    start, both = model.begun(condition, rungs, 0), torch.cat([condition, condition], dim=1)
    kinds: dict[str, Callable[[], Any]] = {
        "bare": lambda: [model.unet(both, rung) for rung in rungs[:-1]],
        "steps": lambda: model.sampled(start, condition, rungs),
        "whole": lambda: model.decode(model.restored(face, steps=20, start=0.4)),
    }
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(15):
        for name, run in kinds.items():
            clock = time.process_time()
            run()
            taken[name].append(time.process_time() - clock)
    ratios = {k: np.array(taken[k]) / np.array(taken["bare"]) for k in ("steps", "whole")}
    return {k: tuple(np.quantile(v, (0.5, 0.025, 0.975))) for k, v in ratios.items()}  # type: ignore[misc]


def report(args: argparse.Namespace) -> None:
    """Measure and write the tables."""
    torch.set_num_threads(1)
    model, nets = restorer_of(args), verifiers_of(args)
    restored = pandas.DataFrame(restoration(args, model, nets))
    restored.round(4).to_csv(RESULTS / "restore.csv", index=False)
    ratios = cost(model)
    print(ratios, flush=True)
    on, comparison = attacked(args, model, nets)
    attacks = pandas.DataFrame(on.rows)
    attacks.round(4).to_csv(RESULTS / "restore_attacks.csv", index=False)
    card = {"made": made_by(args, len(on.probes)), "trained": trained(args)}
    text = words(restored, attacks, comparison, behind_links(on), ratios, card)
    (RESULTS / "restore.md").write_text(text)


def made_by(args: argparse.Namespace, pairs: int) -> str:
    """Return the command and how many pairs it has attacked."""
    return (
        f"Made by `python benchmarks/restore.py report --out RUNS --verifiers FACES --pairs "
        f"{args.pairs} --faces {args.faces} --iterations {args.iterations}`, of {pairs} pairs."
    )


def trained(args: argparse.Namespace) -> str:
    """Return how long each part was trained."""
    cards = {part: json.loads((args.out / part / "fitted.json").read_text()) for part in STAGES}
    return ", ".join(f"{k} {c['steps']} steps in {c['minutes']:g} min" for k, c in cards.items())


def words(
    restored: pandas.DataFrame, attacks: pandas.DataFrame, comparison: dict[str, Any],
    linked: list[dict[str, Any]], ratios: dict[str, tuple[float, float, float]],
    card: dict[str, str],
) -> str:  # fmt: skip
    """Return the tables in words."""
    lines = ["# Faces restored, and perturbed restorations", "",
             *__doc__.strip().splitlines()[-2:], "",
             f"Training: {card['trained']}, one thread of a shared machine.", "",
             card["made"], "",
             f"Surrogate {SURROGATE}. Gains are over the degraded face, paired by face.", "",
             "| way | PSNR dB | gain | SSIM | gain | cosine, mean of verifiers | gain of the "
             f"{SURROGATE} |", "|" + "---|" * 7]  # fmt: skip
    cosine = [k for k in restored if k.startswith("cosine_") and "_gain_" not in k]
    for r in restored.to_dict("records"):
        gains = [f"{r[f'{k}_gain_low']:+.3f} to {r[f'{k}_gain_high']:+.3f}"
                 for k in ("psnr", "ssim", f"cosine_{SURROGATE}")]  # fmt: skip
        lines.append(
            f"| {r['way']} | {r['psnr']:.2f} | {gains[0]} | {r['ssim']:.3f} | {gains[1]} | "
            f"{np.mean([r[k] for k in cosine]):.3f} | {gains[2]} |"
        )
    lines += ["", "| attack | white box | rate, mean of targets | interval | PSNR dB | SSIM | "
              "largest change of 255 |", "|" + "---|" * 7]  # fmt: skip
    for r in attacks.to_dict("records"):
        lines.append(
            f"| {r['attack']} | {r['white_box']:.3f} | {r['targets']:.3f} | "
            f"{r['targets_low']:.3f} to {r['targets_high']:.3f} | {r['psnr']:.2f} | "
            f"{r['ssim']:.3f} | {r['change']:.0f} |"
        )
    lines += ["", f"Of {comparison['pairs']} pairs that are accepted as they are and when only "
              f"restored, the {comparison['both']} that both methods get rejected, each at its "
              "least budget of the grid:"]  # fmt: skip
    if comparison["both"]:
        for what, name in (("ssim", "SSIM"), ("rate", "Rate of the targets")):
            ours, theirs, low, high = comparison[what]
            lines[-1] += (
                f" {name} {ours:.3f} of AdvRestore, {theirs:.3f} of I-FGSM; the difference is "
                f"{low:+.3f} to {high:+.3f}."
            )
    lines += ["", "At one pixel budget of 16/255: the perturbed restoration projected to it, less "
              "controls within it, paired.", "",
              "| control | SSIM | PSNR dB | rate of the targets |", "|" + "---|" * 4]  # fmt: skip
    for control, gains in comparison["within"].items():
        cells = (f"{low:+.3f} to {high:+.3f}" for low, high in gains.values())
        lines.append(f"| {control} | {' | '.join(cells)} |")
    names = [k for k in linked[0] if k not in ("link", "attack")]
    lines += ["", "Genuine pairs accepted, both attacks within 16/255:", "",
              f"| link | attack | {' | '.join(names)} |",
              "|" + "---|" * (2 + len(names))]  # fmt: skip
    for row in linked:
        values = " | ".join(f"{row[k]:.3f}" for k in names)
        lines.append(f"| {row['link']} | {row['attack']} | {values} |")
    (m, low, high), whole = ratios["steps"], ratios["whole"]
    lines += ["", f"20 DDIM steps at 64 pixels take {m:.3f} ({low:.3f} to {high:.3f}) times 20 "
              f"bare U-Net passes, with encoder and decoder {whole[0]:.3f} ({whole[1]:.3f} to "
              f"{whole[2]:.3f}) times."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "report"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs=2, default=(12.0, 24.0))
    parser.add_argument("--verifiers", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=20)
    args = parser.parse_args()
    if args.what == "report":
        if args.verifiers is None:
            parser.error("report needs --verifiers, what benchmarks/faces.py train --out wrote")
        needed = [
            args.out / "unet" / "fitted.safetensors",
            *(verifier(args, kind) for kind in faces.BODIES),
        ]
        for file in needed:
            if not file.is_file():
                parser.error(f"{file} is not there; run train of this file and of faces.py first")
    {"train": train, "report": report}[args.what](args)


if __name__ == "__main__":
    main()
