"""Monte Carlo: send items over a link at several SNRs until the intervals are narrow enough.

    for each batch:   source ──encode once──► symbols ──┬─ transmit at SNR 1 ─► metrics per item
                                                        └─ transmit at SNR 2 ─► ...

Items are the independent unit. Batch ``i`` draws from ``stream(seed, "link", i)`` at every SNR and
for every scheme, so all of them see the same images, fading and noise, and an SNR evaluated alone,
later or after a resume gives the same digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from semsim.batches import Batches
from semsim.intervals import FEW, Moments, Tally, interval_of_ratio
from semsim.measuring import FACTS, Meter, Part, Place
from semsim.metrics.base import Metric, check_names
from semsim.phy.power import TOLERANCE
from semsim.seeds import MAX_SEED
from semsim.tasks.base import Task
from semsim.tasks.reconstruct import Reconstruct
from semsim.types import AnyLink

Row = dict[str, Any]


Keep = Callable[[Place, Any, Any], None]


@dataclass(frozen=True)
class Stop:
    """When an SNR has seen enough items: at ``max_items``, or earlier when it meets a goal.

    Args:
        min_items: never stop on a goal before so many items.
        max_items: always stop here; the size of the payload where None. Beyond the payload's size
            its items come again with new fading and noise; intervals then speak of this payload
            alone, not of other items like them.
        ci95: goal: half the width of the 95 % interval of the first metric, in its unit. While
            few items carry the errors the interval allows for failures not seen (see
            ``semsim.intervals``), so that a point does not stop on a lucky start.
        errors: goal: so many items on which the first metric is not zero (for ber, bler).
    """

    min_items: int = 100
    max_items: int | None = None
    ci95: float | None = None
    errors: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_items", "max_items", "errors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.ci95 is not None and not self.ci95 > 0:
            raise ValueError(f"ci95 must be > 0, half the width of an interval, got {self.ci95}")

    def check_metrics(self, metrics: Sequence[Metric]) -> None:
        """Raise ValueError where the first metric knows no errors to count."""
        if self.errors is not None and metrics and metrics[0].pooled:
            raise ValueError(
                f"errors counts items on which the first metric is not zero, but {metrics[0].name} "
                "is of all items together; write ci95 or max_items, or put a metric such as bler "
                "first"
            )


class Evaluation:
    """One link on one payload at several SNRs, a batch at a time.

    Arguments are those of :func:`evaluate`. ``points`` holds what was accumulated per SNR; give
    it the points of an earlier, interrupted evaluation to go on from there with the same digits.
    ``keep``, if any, is called at each SNR of a batch with two rows that say which items these are,
    their numbers and the CRC-32 of their sources, [2, B], and with their values [metrics, B].
    """

    def __init__(
        self,
        link: AnyLink,
        payload: Any,
        *,
        snr_db: Iterable[float],
        metrics: Sequence[Metric | str],
        task: Task | None = None,
        stop: Stop | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> None:
        check_link(link)
        if not len(payload):
            raise ValueError("the payload is empty; there is nothing to send")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is a whole number from 0 to 2^63 - 1, got {seed!r}")
        self.link, self.payload, self.metrics = link, payload, [_metric(m) for m in metrics]
        self.task = Reconstruct() if task is None else task
        check_task(self.task)
        check_names(self.metrics)
        self.stop, self.seed, self.batch_size = stop or Stop(), seed, batch_size
        self.stop.check_metrics(self.metrics)
        self.task.check_payload(payload)
        for metric in self.metrics:
            metric.check_payload(payload)
        self.max_items = self.stop.max_items or len(payload)
        self.device = device_of(link)
        self.task.to(self.device)
        self.snr_db, self.users = _snrs(snr_db), link.users
        self.points = {
            Place(snr, user): Tally([Moments(kept=[] if m.pooled else None) for m in self.metrics])
            for snr in self.snr_db
            for user in range(1, self.users + 1)
        }
        self.batches = Batches(
            payload, link.payloads, users=self.users, max_items=self.max_items,
            batch_size=batch_size, device=self.device,
        )  # fmt: skip
        self.meter = Meter(self.link, self.task, self.metrics, self.batches, self.seed, self.device)
        self.keep: Keep | None = None

    def items(self, snr_db: float) -> int:
        """Return how many items an SNR has seen."""
        return self.points[Place(snr_db)].power.n

    def is_done(self, snr_db: float) -> bool:
        """Tell whether the stop rule holds at an SNR, for every user."""
        return all(self._is_done(Place(snr_db, user)) for user in range(1, self.users + 1))

    def _is_done(self, place: Place) -> bool:
        n, point = self.items(place.snr_db), self.points[place]
        if n >= self.max_items or n < self.stop.min_items or not point.values:
            return n >= self.max_items
        first, metric = point.values[0], self.metrics[0]
        if self.stop.errors is not None and first.nonzero >= self.stop.errors:
            return True
        if self.stop.ci95 is None or n < 2:
            return False
        low, high = _interval(metric, first, point.spent)
        return (high - low) / 2 <= self.stop.ci95

    def run(self, after_batch: Callable[[Evaluation], None] | None = None) -> None:
        """Send batches until all SNRs are done; ``after_batch`` sees the state after each."""
        with self.meter.measuring():
            for index, numbers, items in self.batches.plan():
                if self.all_done():
                    break
                if active := self.waiting_for(index):
                    which = self.keep is not None
                    self.add(index, self.meter.measure(index, numbers, items, active, which=which))
                    if after_batch:
                        after_batch(self)
        self.check_power()

    def all_done(self) -> bool:
        """Tell whether the stop rule holds at every SNR."""
        return all(map(self.is_done, self.snr_db))

    def waiting_for(self, index: int) -> list[float]:
        """Return the SNRs that go on with a batch."""
        return [
            snr
            for snr in self.snr_db
            if self.points[Place(snr)].batches == index and not self.is_done(snr)
        ]

    def rows(self) -> list[Row]:
        """Return one row per SNR and metric for all SNRs that are done."""
        return [
            self._row(place, metric, moments)
            for place, point in self.points.items()
            if self.is_done(place.snr_db)
            for metric, moments in zip(self.metrics, point.values, strict=True)
        ]

    def add(self, index: int, parts: Sequence[Part]) -> None:
        """Accumulate one batch, where its SNRs still wait for it; batches come in their order."""
        wanted = set(self.waiting_for(index))
        for part in parts:
            if part.place.snr_db not in wanted:
                continue
            self._check_items_power(part.place, part.values[1], part.most)
            self._add(part)
            if self.keep:
                self.keep(part.place, part.which, part.values[FACTS : FACTS + len(self.metrics)])

    def _add(self, part: Part) -> None:
        point, values, snr = self.points[part.place], part.values, part.place.snr_db
        if not values[0].all():
            raise ValueError(
                f"the receiver's estimate holds NaN or infinity at snr_db = {snr:g} (items "
                f"{point.power.n} to {point.power.n + values.shape[1] - 1}); metrics would be void"
            )
        for metric, row in zip(self.metrics, values[FACTS:], strict=False):
            if not all(map(math.isfinite, row)):
                raise ValueError(f"{metric.name} is not a finite number at snr_db = {snr:g}")
        point.power.add(values[1])
        point.spent.add(values[2])
        for metric, moments, row in zip(self.metrics, point.values, values[FACTS:], strict=False):
            moments.add(row)
            if metric.per_use:
                moments.pair(row, values[2])
        for name, row in zip(part.notes, values[FACTS + len(self.metrics) :], strict=True):
            point.notes.setdefault(name, Moments()).add(row)
        for name, uses in part.uses.items():
            point.uses[name] += uses
        point.remarks |= part.remarks
        point.source_values += part.source_values
        point.seconds += part.seconds
        point.batches += 1

    def _check_items_power(self, place: Place, power: Any, limit: float) -> None:
        """Refuse a link that gives any item more power than it may have."""
        if (power <= limit).all():
            return
        item = int((~(power <= limit)).argmax())  # also where it is NaN
        raise ValueError(
            f"{self.link.sender} sends a mean power of {power[item]:.4g} at snr_db = "
            f"{place.snr_db:g} in item {self.points[place].power.n + item}, but each item may have "
            "1 per channel use (summed over transmit antennas); normalise each item's symbols with "
            "semsim.phy.power.unit_power"
        )

    def check_power(self) -> None:
        """Refuse a constellation whose mean power is above 1 by more than chance."""
        for place, point in self.points.items():
            power = point.power
            if power.mean - 1 > max(TOLERANCE, min(0.5, power.five_sigma())):
                raise ValueError(
                    f"{self.link.sender} sends a mean power of {power.mean:.4g} at snr_db = "
                    f"{place.snr_db:g} over {power.n} items, but a link may send 1 per channel use "
                    "(summed over transmit antennas); scale its constellation to unit power"
                )

    def _row(self, place: Place, metric: Metric, moments: Moments) -> Row:
        point, n = self.points[place], moments.n
        low, high = _interval(metric, moments, point.spent)
        uses = {name: total / n for name, total in point.uses.items()}
        return {
            "snr_db": place.snr_db,
            **({"user": place.user} if self.users > 1 else {}),
            "metric": metric.name,
            # of a metric of one's own they may be NumPy's, which no checkpoint gives back
            "value": float(reported(metric, moments, point.spent)),
            "ci_low": float(low),
            "ci_high": float(high),
            "n": n,
            "few_items": n < FEW,
            "interval": "items",
            "cbr": sum(point.uses.values()) / point.source_values,
            "power": point.power.mean,
            "seed": self.seed,
            "seconds": point.seconds,
            "unit": metric.unit,
            "better": metric.better,
            "label": metric.words,
            "scale": metric.scale,
            "judges": metric.judges,
            **{f"uses_{name}": value for name, value in uses.items()},
            **{name: m.mean for name, m in point.notes.items()},
            **point.remarks,
        }


def evaluate(
    link: AnyLink,
    payload: Any,
    *,
    snr_db: Iterable[float],
    metrics: Sequence[Metric | str],
    task: Task | None = None,
    stop: Stop | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Row]:
    """Measure a link at several SNRs and return one row per SNR and metric.

    Args:
        link: a :class:`semsim.link.Link`, or your own :class:`semsim.types.AnyLink`. Items are
            sent where it is: ``evaluate(link.to("cuda"), ...)``.
        payload: items (source, target), deterministic by index.
        snr_db: average received Es/N0 per receive antenna, in dB: a list, an array, a tensor.
        metrics: what to measure, objects or kinds such as "psnr"; the stop rule looks at the first.
        task: what the estimate is good for; reconstruction by default. It goes where the link is.
            It, and a metric, may refuse the payload by ``check_payload``.
        stop: how many items; the payload once by default.
        seed: decides fading and noise; the payload and the weights have seeds of their own.
        batch_size: items per batch at most. Part of the experiment: it decides which random
            numbers an item meets.

    Raises:
        ValueError: the link sends too much power, an estimate holds NaN, an SNR is named twice, or
            a metric makes no sense for this payload and receiver.
    """
    evaluation = Evaluation(
        link,
        payload,
        snr_db=snr_db,
        metrics=metrics,
        task=task,
        stop=stop,
        seed=seed,
        batch_size=batch_size,
    )
    evaluation.run()
    return evaluation.rows()


def check_link(link: object) -> None:
    """Raise TypeError where something is no link."""
    if not isinstance(link, AnyLink):
        name = type(link).__name__
        raise TypeError(
            f"a link derives from semsim.types.AnyLink, got {name}; write class {name}(AnyLink), "
            "or give Link a transmitter and a receiver"
        )


def check_task(task: object) -> None:
    """Raise TypeError where something is no task."""
    if not isinstance(task, Task):
        name = type(task).__name__
        raise TypeError(
            f"a task derives from semsim.tasks.base.Task, got {name}; write class {name}(Task)"
        )


def _snrs(snr_db: Iterable[float]) -> list[float]:
    """Return SNRs as plain numbers, whether they come in a list, an array or a tensor."""
    try:
        snrs = [] if isinstance(snr_db, str) else [float(snr) for snr in snr_db]
    except (TypeError, ValueError):
        snrs = []
    if not snrs or any(math.isnan(snr) for snr in snrs):
        raise ValueError(
            f"snr_db takes one or more numbers in dB, got {snr_db!r}; for one write [10.0]"
        )
    if len(set(snrs)) < len(snrs):  # its items would count twice
        raise ValueError(f"snr_db names an SNR twice, got {snr_db!r}; write each once")
    return snrs


def reported(metric: Metric, moments: Moments, spent: Moments) -> float:
    """Return the reported value of a metric for the items that were seen, and their uses."""
    if metric.pooled:
        return metric.pool(np.asarray(moments.kept, dtype=np.float64))
    if metric.per_use:
        return moments.mean / spent.mean
    return metric.combine(moments.mean)


def _interval(metric: Metric, moments: Moments, spent: Moments) -> tuple[float, float]:
    """Return the ends of a metric's interval as it is reported, in ascending order."""
    if metric.pooled:
        return metric.pool_interval(np.asarray(moments.kept, dtype=np.float64))
    if metric.per_use:
        return interval_of_ratio(moments, spent, worst=metric.worst)
    ends = moments.interval(worst=metric.worst)
    low, high = sorted(map(metric.combine, ends))
    return low, high


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters or buffers live; the CPU where it has none."""
    tensors = [*module.parameters(), *reversed([*module.buffers()])]  # a link's own come last
    return tensors[0].device if tensors else torch.device("cpu")


def _metric(metric: Metric | str) -> Metric:
    from semsim import spec

    built = spec.build(spec.parse("metric", metric)) if isinstance(metric, str) else metric
    if isinstance(built, type) and issubclass(built, Metric):
        raise TypeError(f"a metric is an object, got the class; write {built.__name__}()")
    if isinstance(built, Metric) and not isinstance(getattr(built, "name", None), str):
        raise TypeError(
            f"{type(built).__name__} has no name; write name = 'mae', say, in the class"
        )
    if not isinstance(built, Metric):
        name = type(built).__name__
        raise TypeError(
            f"a metric derives from semsim.metrics.base.Metric, which says what is asked of it, "
            f"got {name}; write class {name}(Metric)"
        )
    return built
