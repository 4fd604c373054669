"""What the benchmarks of WirelessGPT share: channels, judges, intervals, tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy import special
from torch import Tensor

from channels.awgn import AWGN
from semsim import zoo
from semsim.codecs.observed import Observed, ObservedTransmitter
from semsim.csi import WirelessGPT
from semsim.csi.pretrain import FillIn, noisy
from semsim.evaluation import evaluate
from semsim.metrics.base import Metric, Outcome
from semsim.metrics.error import ChannelNMSE
from semsim.payloads.channels import Channels, parts
from semsim.seeds import stream

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
RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1e3)  #: over the mean square; the last leaves them out
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


def observed() -> Observed:
    return Observed(ObservedTransmitter(), AWGN())


def measured(task: Any, payload: Any, metric: str, snr_db: float) -> float:
    (row,) = evaluate(
        observed(), payload, snr_db=[snr_db], metrics=[metric], task=task, batch_size=128
    )
    return float(row["value"])


def options_of(weights: str) -> dict[str, Any]:
    """Return what a task has to say of the network that weights belong to."""
    own = zoo.specs(weights)["network"]
    return {key: own[key] for key in ("mode", "attention", "time_causal", "temporal_pe")}


def filling(weights: str | None) -> FillIn:
    spec = {"attention": "factorised"} if weights is None else options_of(weights)
    return FillIn("small", weights=weights, **spec)


def write_table(rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write rows, the first of which is the heading, as Markdown; print each as it comes."""
    lines: list[str] = []
    for number, row in enumerate(rows):
        lines.append("| " + " | ".join(map(str, row)) + " |")
        if number == 0:
            lines.append("|" + " --- |" * len(row))
        print(lines[-1] if number else "\n".join(lines), flush=True)
    path.write_text("\n".join(lines) + "\n")
