"""WirelessGPT against its classical rivals: prediction, estimation, sensing and cost.

    python benchmarks/wirelessgpt.py predict estimate sense tune-estimate tune-predict wifi cost
        rate [--model wirelessgpt-small] [--lstm WEIGHTS] [--drops 1024] [--pool 2048] [--seeds 3]
        [--labels 204] [--users umi] [--learns full lora partial frozen] [--heads zero solved]
        [--steps 100] [--wifi PACK] [--out results/wirelessgpt]

PACK is wifi_intel5300.npz, of the Intel 5300; without it that section is left out.

--model is a name, or task.safetensors of ``semsim train scenarios/train/wirelessgpt-small.yaml``;
WEIGHTS that of ``scenarios/train/lstm-predictor.yaml``, without which that rival is left out. The
options that tables were made with are in docs/results.md.
Each section prints a table and writes it to OUT/SECTION.md. Values are means over held-out drops,
or over seeds, with half of their 95 % interval. Times are of this process alone. Takes about 30
minutes on one core. What it is worth in a link, ``csi_links.py`` measures.

Normalisers and rivals are fitted to training drops alone, never to those that are tested.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from wirelessgpt_cost import costing, drawing
from wirelessgpt_tools import (
    COMMON,
    DROPS,
    HORIZON,
    RIDGES,
    SEEN,
    Normal,
    Rows,
    batches,
    control,
    drawn,
    in_db,
    judged,
    measured,
    nmse,
    observed,
    over_seeds,
    seen_at,
    write_table,
)
from wirelessgpt_tune import on_wifi, tuned_estimates, tuned_predictions

from channels.doppler import doppler_hz
from semsim import zoo
from semsim.csi import WirelessGPT
from semsim.csi.adapt import encoder_of
from semsim.csi.kalman import kalman
from semsim.csi.patches import patchify, unpatchify
from semsim.csi.predicted import predict
from semsim.csi.recurrent import PredictChannel
from semsim.csi.rivals import Autoregression, LinearMMSE, hold, jakes, own_autoregression
from semsim.csi.tasks import EstimateChannel
from semsim.metrics.error import RateLoss
from semsim.payloads.channel_activity import ChannelActivity
from semsim.payloads.channels import Channels, best_beam
from semsim.seeds import stream
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec

SNRS_DB = (60.0, 20.0, 10.0, 0.0)
RAW = "raw patch (patch-wise linear MMSE)"
#: what a head tells, of how many classes, behind how much noise, from how many of the first slots
SENSED = (
    ("LoS", 2, 10.0, 20), ("LoS", 2, 0.0, 20), ("LoS", 2, -10.0, 20), ("LoS", 2, 10.0, 4),
    ("LoS", 2, 0.0, 4), ("LoS", 2, -10.0, 4), ("beam", 16, 10.0, SEEN), ("activity", 6, 10.0, None),
)  # fmt: skip
Parts = tuple[Tensor, ...]
ESTIMATED_DB = (-5.0, 0.0, 10.0, 20.0)


def predicting(model: WirelessGPT, arguments: argparse.Namespace) -> Rows:
    """NMSE in dB of slots 17 to 20 from 1 to 16, and the rate that precoding to them loses.

    WirelessGPT and the LSTM learned from the same channels, not for as long: by their scenarios 180
    minutes with Muon in batches of 64, and 40 minutes with AdamW in batches of 32. The LSTM of the
    published table had 82 minutes, two such trainings in a row. What else is named was fitted.
    """
    yield ("drops", "SNR dB", "rival", "NMSE dB", "rate lost at 10 dB, bit/use")
    learned_from = torch.cat(
        [drawn(2048, 50 + i, **DROPS[name])[0] for i, name in enumerate(list(DROPS)[:2])]
    )
    fitted = {
        snr: Autoregression.fit(
            seen_at(learned_from[:, :SEEN], snr, 9), learned_from[:, SEEN:], SEEN
        )
        for snr in SNRS_DB
    }
    random, lstm = control(model), None
    if arguments.lstm is not None:
        lstm = lstm_of(arguments.lstm).network
    for number, (name, options) in enumerate(DROPS.items()):
        h, facts, payload = drawn(arguments.drops, 900 + number, **options)
        site = payload.site
        doppler = doppler_hz(facts["speed_mps"], site.carrier_hz) * site.slot_s
        for snr in SNRS_DB:
            seen, truth = seen_at(h[:, :SEEN], snr, number), h[:, SEEN:]
            n0 = torch.full((len(h),), 10 ** (-snr / 10))
            told = {
                "hold": hold(seen, HORIZON),
                "AR(16) fitted to training drops at this SNR": fitted[snr](seen),
                "AR(8) fitted to each drop": own_autoregression(seen, HORIZON, 8),
                "MMSE over Clarke's spectrum, true Doppler": jakes(seen, HORIZON, doppler, n0),
                "Kalman, Jakes' true Doppler": kalman(seen, HORIZON, doppler, n0),
                "Kalman, the likeliest Doppler": kalman(seen, HORIZON, None, n0),
                "random network": batches(lambda x: predict(random, x, HORIZON), seen),
                "WirelessGPT": batches(lambda x: predict(model, x, HORIZON), seen),
            }
            if lstm is not None:
                told["LSTM, same channels"] = batches(lstm, seen)
            for rival, channel in told.items():
                yield name, f"{snr:g}", rival, in_db(nmse(channel, truth)), lost(channel, truth)


def lost(told: Tensor, truth: Tensor) -> str:
    rate = judged(RateLoss(10.0), told, truth).double()
    return f"{float(rate.mean()):.3f} ± {1.96 * float(rate.std()) / math.sqrt(len(rate)):.3f}"


def estimating(model: WirelessGPT, arguments: argparse.Namespace) -> Rows:
    """NMSE in dB of a channel behind noise on every element; heads are linear, solved exactly."""
    yield ("labels", "SNR dB", "rival", "NMSE dB")
    many = arguments.pool
    pool, _, _ = drawn(many, 60, model="umi")
    h, _, _ = drawn(arguments.drops, 910, model="umi")
    random = control(model)
    rivals = {
        (count, slots): LinearMMSE.fit(pool[:count], slots)
        for count, slots in ((many, 1), (many, model.patch[0]), (many // 4, 1), (many // 100, 1))
    }
    for snr in ESTIMATED_DB:
        seen, n0 = seen_at(h, snr, 1), torch.full((len(h),), 10 ** (-snr / 10))
        yield "-", f"{snr:g}", "LS", in_db(nmse(seen, h))
        for (count, slots), rival in rivals.items():
            name = f"LMMSE over {slots} slots, covariance of {count} drops"
            yield count, f"{snr:g}", name, in_db(nmse(rival(seen, n0), h))
        yield "-", f"{snr:g}", "WirelessGPT as pre-trained", in_db(nmse(batches(model, seen), h))
        found: dict[tuple[int, str], list[float]] = {}
        tested = features(model, random, seen)
        for seed in range(arguments.seeds):  # of up to four nothing is shared
            labelled = pool[many // 4 * seed % many :][: many // 4]
            known = features(model, random, seen_at(labelled, snr, 100 + seed))
            for labels, name in itertools.product((many // 100, many // 4), known):
                few = tuple(part[:labels] for part in known[name])
                value = probe(model, few, labelled[:labels], tested[name], h)
                found.setdefault((labels, name), []).append(value)
        for (labels, name), values in found.items():
            yield labels, f"{snr:g}", name, over_seeds(values, 2)
            if name.startswith("raw +"):
                raw = found[labels, RAW]
                less = [a - b for a, b in zip(values, raw, strict=True)]
                yield labels, f"{snr:g}", f"{name}, less raw alone, paired", over_seeds(less, 2)
    if arguments.steps:
        yield from convolving(arguments)


def convolving(arguments: argparse.Namespace) -> Rows:
    """ResCNN heads that see the observation alone, or z beside it, after the same training."""
    tested = Channels("umi", arguments.drops // 4, seed=910, **COMMON)
    for features, name in (("raw", "ResCNN on raw"), ("both", "ResCNN on raw + z")):
        tasks = []
        for seed in range(arguments.seeds):
            torch.manual_seed(seed)
            task = EstimateChannel(arguments.model, features=features, head="rescnn", pairs=16)
            payload = Channels("umi", arguments.pool // 4, seed=60 + seed, **COMMON)
            spec = TrainSpec(
                steps=arguments.steps, batch_size=16, lr=5e-3, optimiser="muon",
                snr_db=(-5.0, 20.0), precision="bf16", ema=0.95,
            )  # fmt: skip
            with Training(observed(), payload, task, spec, seed=seed) as training:
                training.advance()
                training.finish()
            tasks.append(task)
        for snr in ESTIMATED_DB:
            found = [measured(task, tested, "channel_nmse", snr) for task in tasks]
            labels = arguments.pool // 4
            yield labels, f"{snr:g}", f"{name}, {arguments.steps} steps", over_seeds(found, 2)


def features(model: WirelessGPT, random: WirelessGPT, h: Tensor) -> dict[str, Parts]:
    """Return what linear heads see of each patch, [B, P, n] each, by name."""
    raw = patchify(h, model.patch)
    z, other = (batches(lambda x, by=by: by.encode(x).z, h) for by in (model, random))
    return {
        RAW: (raw,),
        "z of a random network": (other,),
        "z": (z,),
        "raw + z of a random network": (raw, other),
        "raw + z": (raw, z),
    }


def probe(model: WirelessGPT, known: Parts, labelled: Tensor, tested: Parts, h: Tensor) -> float:
    """Return the NMSE in dB of a linear head that few labels are fitted to.

    Features are scaled to a mean square of 1 over the labels. Raw values and z have a ridge each,
    those of a list by which labelled drops are told best that were left out, a quarter in turn.
    """
    scales = [part.double().square().mean(dim=(0, 1)).sqrt().clamp(min=1e-12) for part in known]
    x = torch.cat([part.double() / s for part, s in zip(known, scales, strict=True)], dim=2)
    y = patchify(labelled, model.patch).double()
    folds = [Normal.of(x[n::4], y[n::4]) for n in range(min(4, len(x)))]
    whole = Normal(*(sum(parts) for parts in zip(*folds, strict=True)))
    widths = [part.shape[2] for part in known]

    def error(ridges: tuple[float, ...]) -> float:
        rest = (Normal(*(a - b for a, b in zip(whole, fold, strict=True))) for fold in folds)
        return sum(
            fold.error(other.solved(widths, ridges))
            for fold, other in zip(folds, rest, strict=True)
        )

    best = min(itertools.product(RIDGES, repeat=len(known)), key=error)
    weights = whole.solved(widths, best)
    seen = torch.cat([part.double() / s for part, s in zip(tested, scales, strict=True)], dim=2)
    told = seen @ weights[:-1] + weights[-1]
    estimate = unpatchify(told, tuple(h.shape[1:]), model.patch)
    return 10 * math.log10(float(nmse(estimate, h).double().mean()))


def sensing(model: WirelessGPT, arguments: argparse.Namespace) -> Rows:
    """Accuracy of linear heads: line of sight, best beam 4 slots ahead, what a person does."""
    yield ("task", "labels", "features", "accuracy", "macro F1 or top 3")
    random = control(model)
    train_h, train_facts, _ = drawn(arguments.pool, 70, model="umi", los=0.5)
    h, facts, _ = drawn(arguments.drops, 920, model="umi", los=0.5)
    moving = [
        ChannelActivity(n, seed=s).records(0, n) for n, s in ((arguments.pool, 80), (len(h), 81))
    ]
    for task, classes, snr_db, slots in SENSED:
        sets = []
        pair = moving if task == "activity" else ((train_h, train_facts), (h, facts))
        for (channels, known), seed in zip(pair, (5, 6), strict=True):
            cut = seen_at(channels, snr_db, seed)[:, :slots]
            if task == "activity":
                sets.append((cut, known["activity"]))
            elif task == "beam":
                sets.append((cut, torch.tensor([best_beam(x[-1]) for x in channels])))
            else:
                sets.append((cut, known["los"].long()))
        (x, y), (tested, truth) = sets
        features = {
            "raw": (x.flatten(1), tested.flatten(1)),
            "random network": (whole(random, x), whole(random, tested)),
            "WirelessGPT": (whole(model, x), whole(model, tested)),
        }
        of = f"{task}, {slots or 'all'} slots at {snr_db:g} dB"
        for labels in (len(x) // 100, len(x) // 10, len(x) // 4, len(x)):
            for name, (own, other) in features.items():
                got = scored(real(own), y, real(other), truth, classes, labels, arguments.seeds)
                yield (of, labels, name, *got)
        own, other = (real(part) for part in features["WirelessGPT"])
        order = torch.randperm(len(y), generator=stream(1, "shuffle"))
        got = scored(own, y[order], other, truth, classes, len(x) // 4, arguments.seeds)
        yield (of, len(x) // 4, "WirelessGPT, shuffled labels", *got)


def real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).flatten(1) if x.is_complex() else x


def whole(model: WirelessGPT, h: Tensor) -> Tensor:
    def told(part: Tensor) -> Tensor:
        encoded = model.encode(part)
        spread = encoded.z.std(dim=1)
        return torch.cat([encoded.whole, spread, encoded.log_gain[:, None]], 1)

    return batches(told, h)


def scored(
    x: Tensor, y: Tensor, tested: Tensor, truth: Tensor, classes: int, labels: int, seeds: int
) -> tuple[str, str]:
    """Return accuracy, and macro F1 of two classes or the share within the best three of more."""
    right, second = [], []
    for seed in range(seeds if labels < len(x) else 1):
        chosen = torch.randperm(len(x), generator=stream(seed, "labels"))[:labels]
        mean, spread = x[chosen].mean(0), x[chosen].std(0) + 1e-6
        head = logistic((x[chosen] - mean) / spread, y[chosen], classes)
        logits = ((tested - mean) / spread) @ head[:-1] + head[-1]
        told = logits.argmax(1)
        right.append(float((told == truth).float().mean()))
        if classes == 2:
            second.append(statistics.mean(f1(told == c, truth == c) for c in range(2)))
        else:
            second.append(float((logits.topk(3).indices == truth[:, None]).any(1).float().mean()))
    return over_seeds(right), over_seeds(second)


def f1(told: Tensor, truth: Tensor) -> float:
    both = float((told & truth).sum())
    return 2 * both / max(float(told.sum() + truth.sum()), 1.0)


def logistic(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """Return weights and offset of a regression with a prior on the weights."""
    head = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([head], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(x @ head[:-1] + head[-1], y) + 3 / len(x) * head[:-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return head.detach()


def lstm_of(weights: str) -> PredictChannel:
    return PredictChannel(**zoo.specs(weights)["network"], weights=weights, trainable=False)


BY_WEIGHTS = {
    "tune-estimate": tuned_estimates, "tune-predict": tuned_predictions, "wifi": on_wifi,
}  # fmt: skip
TUNES = ("full", "lora", "partial", "frozen")
HEADS = ("zero", "solved")
SECTIONS = ("predict", "estimate", "sense", *BY_WEIGHTS, "cost", "rate")


def rows_of(section: str, arguments: argparse.Namespace) -> Rows:
    if section == "rate":
        return drawing(arguments)
    if section in BY_WEIGHTS:
        return BY_WEIGHTS[section](arguments.model, arguments)
    model = encoder_of(arguments.model, "small").eval()
    work = {"predict": predicting, "estimate": estimating, "sense": sensing, "cost": costing}
    return work[section](model, arguments)


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="*", default=SECTIONS, help=", ".join(SECTIONS))
    parser.add_argument("--model", default="wirelessgpt-small", help="weights, a name or a file")
    parser.add_argument("--lstm", help="weights of the LSTM rival")
    parser.add_argument("--drops", type=int, default=1024)
    parser.add_argument("--pool", type=int, default=2048, help="labelled drops in all")
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        default=[204],
        help="labelled drops that tune-* learns from",
    )
    parser.add_argument("--lr", type=float, default=3e-3, help="of tune-...")
    parser.add_argument("--users", default="umi", choices=("umi", "uma", "rma"), help="of tune-...")
    parser.add_argument("--learns", nargs="+", default=TUNES, choices=TUNES, help="tune-estimate")
    parser.add_argument(
        "--heads", nargs="+", default=HEADS, choices=HEADS, help="their start in tune-estimate"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=100, help="of each tuning; estimate with 0: linear heads alone"
    )
    parser.add_argument("--wifi", type=Path, help="wifi_intel5300.npz")
    parser.add_argument("--out", type=Path, default=Path("results/wirelessgpt"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for section in arguments.sections:
        if section not in SECTIONS:
            parser.error(f"no section {section!r}; there are {', '.join(SECTIONS)}")
        write_table(rows_of(section, arguments), arguments.out / f"{section}.md")


if __name__ == "__main__":
    main()
