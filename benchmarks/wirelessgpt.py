"""WirelessGPT against its classical rivals: prediction, estimation, sensing and cost.

    python benchmarks/wirelessgpt.py predict estimate sense tune-estimate tune-predict wifi cost
        rate [--model wirelessgpt-small] [--lstm WEIGHTS] [--drops 1024] [--pool 2048] [--seeds 3]
        [--labels 204] [--steps 100] [--wifi PACK] [--out results/wirelessgpt]

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
import copy
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from scipy import special
from torch import Tensor, nn
from torch.nn import functional as F

from channels.awgn import AWGN
from channels.doppler import doppler_hz
from semsim import zoo
from semsim.codecs.observed import Observed, ObservedTransmitter
from semsim.csi import WirelessGPT
from semsim.csi.adapt import encoder_of
from semsim.csi.blocks import Attention, Block
from semsim.csi.kalman import kalman
from semsim.csi.patches import hide, patchify, unpatchify
from semsim.csi.predicted import predict
from semsim.csi.pretrain import FillIn, noisy
from semsim.csi.recurrent import PredictChannel
from semsim.csi.rivals import Autoregression, LinearMMSE, hold, jakes, own_autoregression
from semsim.csi.tasks import EstimateChannel
from semsim.evaluation import evaluate
from semsim.metrics.base import Metric, Outcome
from semsim.metrics.error import ChannelNMSE, RateLoss
from semsim.nn.lowmem import low_memory
from semsim.nn.saved import saved_bytes
from semsim.payloads.channel_activity import ChannelActivity
from semsim.payloads.channels import Channels, best_beam, parts
from semsim.payloads.measured import MeasuredChannels
from semsim.seeds import stream
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink

SEEN, HORIZON = 16, 4
COMMON: dict[str, Any] = {"subcarriers": 16, "speed_mps": (11.2, 27.7)}  # 40 to 100 km/h
DROPS: dict[str, dict[str, Any]] = {
    "UMi (trained on)": {"model": "umi"},
    "UMa (trained on)": {"model": "uma"},
    "RMa (new)": {"model": "rma"},
    "CDL-C (new)": {"model": "cdl-C"},
    "UMi 28 GHz (new)": {
        "model": "umi", "carrier_hz": 28e9, "slot_s": 0.125e-3, "speed_mps": (3.8, 9.5),
    },
}  # fmt: skip
SNRS_DB = (60.0, 20.0, 10.0, 0.0)
RAW = "raw patch (patch-wise linear MMSE)"
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1e3)  #: over the mean square; the last leaves them out
#: what a head tells, of how many classes, behind how much noise, from how many of the first slots
SENSED = (
    ("LoS", 2, 10.0, 20), ("LoS", 2, 0.0, 20), ("LoS", 2, -10.0, 20), ("LoS", 2, 10.0, 4),
    ("LoS", 2, 0.0, 4), ("LoS", 2, -10.0, 4), ("beam", 16, 10.0, SEEN), ("activity", 6, 10.0, None),
)  # fmt: skip
Parts = tuple[Tensor, ...]
ESTIMATED_DB = (-5.0, 0.0, 10.0, 20.0)
Rows = Iterator[tuple[Any, ...]]


def drawn(count: int, seed: int, **options: Any) -> tuple[Tensor, dict[str, Tensor], Channels]:
    payload = Channels(count=count, seed=seed, **{**COMMON, **options})
    records = payload.records(0, count)
    return records.h, records.facts, payload


def seen_at(h: Tensor, snr_db: float, seed: int) -> Tensor:
    return noisy(h, torch.full((len(h),), snr_db), stream(seed, "noise", snr_db))


def judged(metric: Metric, told: Tensor, truth: Tensor) -> Tensor:
    wanted = parts(truth)
    return metric(Outcome(parts(told), wanted, wanted))


def nmse(told: Tensor, truth: Tensor) -> Tensor:
    return judged(ChannelNMSE(), told, truth)


def in_db(values: Tensor) -> str:
    """Return the mean in dB, and half of its interval."""
    values = values.double()
    mean, error = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return f"{10 * math.log10(mean):.2f} ± {10 * math.log10(1 + error / mean):.2f}"


def over_seeds(values: list[float], digits: int = 3) -> str:
    """Return the mean and half of its 95 % interval by Student's t; of one seed there is none."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f} (one seed)"
    reach = float(special.stdtrit(len(values) - 1, 0.975))
    half = reach * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}"


def batches(work: Callable[[Tensor], Tensor], h: Tensor, size: int = 128) -> Tensor:
    with torch.inference_mode():
        return torch.cat([work(part) for part in h.split(size)])


def control(model: WirelessGPT) -> WirelessGPT:
    """Return the same network with random weights."""
    torch.manual_seed(0)
    return WirelessGPT(**model.spec).eval()


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


class Normal(NamedTuple):
    """The normal equations of a regression: what is left of its data."""

    gram: Tensor
    cross: Tensor
    power: Tensor
    rows: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Normal:
        """Return those of y [B, P, m] on x [B, P, n] and a constant."""
        a = torch.cat([x, torch.ones_like(x[..., :1])], dim=2).flatten(0, 1)
        b = y.flatten(0, 1)
        return cls(a.T @ a, a.T @ b, b.square().sum(), torch.tensor(float(len(a))))

    def solved(self, widths: list[int], ridges: tuple[float, ...]) -> Tensor:
        """Return the weights with a ridge for each group of columns."""
        own = [torch.full((n,), r).double() for n, r in zip(widths, ridges, strict=True)]
        added = self.rows * torch.cat([*own, torch.full((1,), RIDGES[0]).double()])
        return torch.linalg.solve(self.gram + added.diag(), self.cross)

    def error(self, weights: Tensor) -> float:
        """Return the sum of squared errors of weights on these data."""
        fit = (weights * (self.gram @ weights - 2 * self.cross)).sum()
        return float(fit + self.power)


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


def tuned_estimates(weights: str, arguments: argparse.Namespace) -> Rows:
    """Estimation after the same steps on the same labels, from what was learned and from scratch.

    The head starts at zero, or at the ridge regression of the labels' error on what it sees.
    """
    yield (
        "labels",
        "encoder",
        "learns",
        "head starts",
        "NMSE dB at 10 dB",
        "less the first, paired",
    )
    tested = Channels("umi", arguments.drops, seed=930, **COMMON)
    cases = [(None, "full", False), (weights, "full", True), (None, "full", True)]
    cases += [(weights, how, False) for how in ("full", "lora", "partial", "frozen")]
    for labels in arguments.labels:
        first: list[float] = []
        for encoder, how, solve in cases:
            make = functools.partial(EstimateChannel, encoder, tune=how, features="both")
            start = solved_head if solve else None
            told = taught(make, labels, "link", tested, arguments, start)
            first = first or told
            less = over_seeds([a - b for a, b in zip(told, first, strict=True)], 2)
            name = "from scratch" if encoder is None else "pre-trained"
            yield labels, name, how, "solved" if solve else "at zero", over_seeds(told, 2), less


def tuned_predictions(weights: str, arguments: argparse.Namespace) -> Rows:
    """Prediction after the same steps on the same labels, from what was learned or from scratch."""
    yield ("labels", "network", "NMSE dB at 10 dB")
    tested = Channels("umi", arguments.drops, seed=930, **COMMON)
    predictors: dict[str, Callable[[], Any]] = {
        "LSTM from scratch": PredictChannel,
        "transformer from scratch": lambda: filling(None),
        "pre-trained": lambda: filling(weights),
    }
    for labels in arguments.labels:
        for name, make in predictors.items():
            told = taught(make, labels, "task", tested, arguments)
            yield labels, name, over_seeds(told, 2)
    untold = measured(filling(weights), tested, "channel_nmse", 10.0)
    yield 0, "pre-trained, as it is", f"{untold:.2f}"


def taught(
    make: Callable[[], Any], labels: int, through: Literal["link", "task"], tested: Channels,
    arguments: argparse.Namespace, start: Callable[[Any, Channels], None] | None = None,
) -> list[float]:  # fmt: skip
    """Return the NMSE in dB that a task comes to with few labels, of each seed."""
    found = []
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        task, payload = make(), Channels("umi", labels, seed=90 + seed, **COMMON)
        if start is not None:
            start(task, payload)
        spec = TrainSpec(
            steps=arguments.steps, batch_size=16, lr=arguments.lr, optimiser="muon", snr_db=10.0,
            through=through, precision="bf16", ema=0.95,
        )  # fmt: skip
        with Training(observed(), payload, task, spec, seed=seed) as training:
            training.advance()
            training.finish()
        found.append(measured(task, tested, "channel_nmse", 10.0))
    return found


def solved_head(task: EstimateChannel, payload: Channels) -> None:
    """Let a linear head begin where it tells the labels best, each behind four draws of noise."""
    net: Any = task.network
    h = payload.records(0, len(payload)).h
    clean, sums = patchify(h, net.encoder.patch), []
    for draw in range(4):
        with torch.no_grad():
            seen, patches, gain = net.tokens(seen_at(h, 10.0, draw))
        missing = clean / gain[:, None, None] - patches
        sums.append(Normal.of(seen.double(), missing.double()))
    whole = Normal(*(sum(parts) for parts in zip(*sums, strict=True)))
    spread = whole.gram.diagonal() / whole.rows
    solved = torch.linalg.solve(whole.gram + 1e-3 * whole.rows * spread.diag(), whole.cross)
    with torch.no_grad():
        net.head.linear.weight.copy_(solved[:-1].T), net.head.linear.bias.copy_(solved[-1])


def observed() -> Observed:
    return Observed(ObservedTransmitter(), AWGN())


def measured(task: Any, payload: Any, metric: str, snr_db: float) -> float:
    (row,) = evaluate(
        observed(), payload, snr_db=[snr_db], metrics=[metric], task=task, batch_size=128
    )
    return float(row["value"])


def on_wifi(weights: str, arguments: argparse.Namespace) -> Rows:
    """Measured packets, split by recording: upper subcarriers told by the lower ones."""
    yield ("antennas", "rival", "NMSE dB of what was hidden")
    if arguments.wifi is None:
        yield ("-", "left out: name the pack with --wifi", "-")
        return
    for kind in ("3x2", "2x2"):  # of 3x1 there is one recording
        train, tested = (
            MeasuredChannels(str(arguments.wifi), f"csi_{kind}", groups=f"file_{kind}", split=part)
            for part in ("train", "test")
        )
        known, h = train.records(0, len(train)).h, tested.records(0, len(tested)).h[:256]
        half = h.shape[3] // 2 // 4 * 4
        x, y = (part.flatten(0, 1) for part in (known[..., :half], known[..., half:]))
        linear = regression(x.flatten(1), y.flatten(1))
        told = (h[..., :half].flatten(0, 1).flatten(1) @ linear).view(*h.shape[:3], -1)
        yield kind, "last subcarrier held", in_db(nmse(held_up(h, half), h[..., half:]))
        yield kind, "linear MMSE of training recordings", in_db(nmse(told, h[..., half:]))
        torch.manual_seed(0)
        rivals = {"random network": None, "WirelessGPT as it is": weights}
        for name, start in rivals.items():
            task = filling(start)
            yield kind, name, in_db(nmse(upper(task.network, h, half), h[..., half:]))
            tune(task, train, arguments.steps)
            told = upper(task.network, h, half)
            yield kind, f"{name}, tuned {arguments.steps} steps", in_db(nmse(told, h[..., half:]))


def held_up(h: Tensor, half: int) -> Tensor:
    return h[..., half - 1 : half].expand(*h.shape[:3], h.shape[3] - half)


def lstm_of(weights: str) -> PredictChannel:
    return PredictChannel(**zoo.specs(weights)["network"], weights=weights, trainable=False)


def filling(weights: str | None) -> FillIn:
    spec = {"attention": "factorised"}
    if weights is not None:
        own = zoo.specs(weights)["network"]
        spec = {key: own[key] for key in ("mode", "attention", "time_causal", "temporal_pe")}
    return FillIn("small", weights=weights, **spec)


def tune(task: FillIn, payload: Any, steps: int) -> None:
    spec = TrainSpec(
        steps=steps, batch_size=32, lr=1e-3, optimiser="muon", through="task", precision="bf16",
        ema=0.95,
    )  # fmt: skip
    with Training(AnyLink(), payload, task, spec) as training:
        training.advance()
        training.finish()


def upper(model: WirelessGPT, h: Tensor, half: int) -> Tensor:
    grid = model.grid(h)
    late = torch.arange(grid.total) % grid.frequency >= half // model.patch[2]
    return batches(lambda x: model(x, late.expand(len(x), -1)), h)[..., half:]


def regression(x: Tensor, y: Tensor) -> Tensor:
    gram = x.mH @ x
    firm = 1e-3 * gram.diagonal().real.mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram + firm, x.mH @ y)


class Plain(nn.Module):
    """The attention as a tutorial has it: three products, softmax in three steps."""

    def __init__(self, fused: Attention) -> None:
        super().__init__()
        self.heads = fused.heads
        width = fused.out.in_features
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, across: bool = False) -> Tensor:
        if across:
            return self(x.transpose(-2, -3)).transpose(-2, -3)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for layer in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        weights = torch.exp(scores.float() - scores.float().amax(dim=-1, keepdim=True))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return self.out((weights.to(v.dtype) @ v).transpose(-2, -3).flatten(-2))


def step(model: WirelessGPT, h: Tensor, *, bf16: bool) -> float:
    """Return the seconds of one forward and backward pass."""
    hidden = hide(model.grid(h), len(h), stream(1, "mask"), kind="random", share=0.4)
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        believed, gain = model.believe(h, hidden)
    error = (believed.float() - patchify(h, model.patch) / gain[:, None, None]).square()
    (error.mean(dim=2) * hidden).sum().backward()
    return time.process_time() - start


def costing(model: WirelessGPT, arguments: argparse.Namespace) -> Rows:
    """Ratios of steps taken in turn; time to encode; base80 built, timed and its memory."""
    yield ("what", "value")
    h = torch.randn(64, 20, 16, 16, dtype=torch.complex64, generator=stream(1, "h"))
    small = WirelessGPT.preset("small", attention="factorised")
    plain = copy.deepcopy(small)
    for block in plain.modules():
        if isinstance(block, Block):
            block.attention = Plain(block.attention)
    for name, bf16 in (("plain fp32 step over ours in bf16", False), ("both in bf16", True)):
        times: dict[str, list[float]] = {"own": [], "plain": []}
        for _ in range(5):
            times["own"].append(step(small, h, bf16=True))
            times["plain"].append(step(plain, h, bf16=bf16))
        ratio = statistics.median(times["plain"]) / statistics.median(times["own"])
        yield f"{name}, small, batch 64, medians of 5 in turn", f"{ratio:.2f}"
    yield "encode a snapshot, small, batch 64, ms", f"{encode_ms(small, h):.2f}"
    alone, operations = products(small, len(h) * small.grid(h).total)
    yield "of it products of its layers, timed alone, ms", f"{1e3 * alone / len(h):.2f}"
    yield "these are, Gflop a snapshot", f"{operations / len(h) / 1e9:.2f}"
    yield "which this core does at, Gflop/s", f"{operations / alone / 1e9:.0f}"
    one = h[:, :4]
    yield "the same of 4 slots, ms", f"{encode_ms(small, one):.2f}"
    base = WirelessGPT.preset("base80", attention="factorised")
    yield "base80 parameters, M", f"{sum(p.numel() for p in base.parameters()) / 1e6:.2f}"
    optimiser = torch.optim.AdamW(base.parameters(), lr=2e-4)
    few, taken = h[:4], []
    for _ in range(20):
        taken.append(step(base, few, bf16=True))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    yield "base80 step at batch 4, s, median of 20", f"{statistics.median(taken):.2f}"
    normal = kept(base, few)
    low_memory(base)
    yield "base80 kept for the backward pass, MB, normal", f"{normal / 1e6:.0f}"
    yield "base80 kept for the backward pass, MB, memory low", f"{kept(base, few) / 1e6:.0f}"


def products(model: WirelessGPT, tokens: int) -> tuple[float, float]:
    """Return the least seconds of all dense layers of the blocks in bf16, and their operations."""
    seconds = operations = 0.0
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            x = torch.randn(tokens, layer.in_features).bfloat16()
            w = layer.weight.detach().bfloat16()
            taken = []
            for _ in range(3):
                start = time.process_time()
                F.linear(x, w)
                taken.append(time.process_time() - start)
            seconds += min(taken)
            operations += 2 * tokens * w.numel()
    return seconds, operations


def encode_ms(model: WirelessGPT, h: Tensor) -> float:
    taken = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(5):
            start = time.process_time()
            model.encode(h)
            taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken) / len(h)


def kept(model: WirelessGPT, h: Tensor) -> float:
    def forward() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model.believe(h)[0]

    return float(saved_bytes(forward, model))


def drawing(arguments: argparse.Namespace) -> Rows:
    """Drops drawn per second of one core's time, at the sizes that the paper's notes have."""
    yield ("model, 20 slots x 16 pairs x 32 subcarriers", "drops per second")
    for model in ("umi", "uma", "rma", "cdl-C", "tdl-A"):
        payload = Channels(model, 4 * 64)
        payload.records(0, 64)
        start = time.process_time()
        payload.records(64, 4 * 64)
        yield model, f"{3 * 64 / (time.process_time() - start):.0f}"


BY_WEIGHTS = {
    "tune-estimate": tuned_estimates, "tune-predict": tuned_predictions, "wifi": on_wifi,
}  # fmt: skip
SECTIONS = ("predict", "estimate", "sense", *BY_WEIGHTS, "cost", "rate")


def rows_of(section: str, arguments: argparse.Namespace) -> Rows:
    if section == "rate":
        return drawing(arguments)
    if section in BY_WEIGHTS:
        return BY_WEIGHTS[section](arguments.model, arguments)
    model = encoder_of(arguments.model, "small").eval()
    work = {"predict": predicting, "estimate": estimating, "sense": sensing, "cost": costing}
    return work[section](model, arguments)


def write_table(rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write rows, the first of which is the heading, as Markdown; print each as it comes."""
    lines: list[str] = []
    for number, row in enumerate(rows):
        lines.append("| " + " | ".join(map(str, row)) + " |")
        if number == 0:
            lines.append("|" + " --- |" * len(row))
        print(lines[-1] if number else "\n".join(lines), flush=True)
    path.write_text("\n".join(lines) + "\n")


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
