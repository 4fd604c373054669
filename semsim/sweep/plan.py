"""All links of a run: hashes and labels are kept of each, scenarios are built when needed.

A link of one SNR takes less than a kilobyte, so 100,000 of them fit beside anything.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from semsim.scenario.points import Point
from semsim.scenario.scenario import Scenario

LABELLED = ("transmitter", "channel", "payload", "frontend")  #: parts whose kind is a column


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of a link; names and SNRs are one object for all links that share them."""

    uid: str
    uids: tuple[tuple[str, ...], ...]
    snrs: tuple[float, ...]
    names: tuple[str, ...]
    values: tuple[Any, ...]
    swept: tuple[str, ...]
    training: str | None


class Planned:
    """One link of a run. Its hashes are those of when the run began."""

    def __init__(self, points: Sequence[Point], index: int, kept: _Kept) -> None:
        self._points, self._index, self._kept = points, index, kept
        self.uid, self.snr_db = kept.uid, kept.snrs  #: hash of the link without an SNR; SNRs in dB
        self.training = kept.training  #: hash of its training; None where it trains nothing

    @functools.cached_property
    def scenario(self) -> Scenario:
        """The link's scenario, built when it is first needed."""
        return self._points[self._index].scenario

    @property
    def name(self) -> str:
        """What to call it on the screen."""
        return " | ".join(map(str, self.swept.values())) or str(self.labels["scenario"])

    @property
    def labels(self) -> dict[str, Any]:
        """The columns that say which link a row belongs to."""
        return dict(zip(self._kept.names, self._kept.values, strict=True))

    @property
    def swept(self) -> dict[str, Any]:
        """Labels of what was chosen."""
        labels = self.labels
        return {name: labels[name] for name in self._kept.swept}

    def uids(self, snr_db: float) -> tuple[str, ...]:
        """Return the hash at one SNR of each user; results are kept under it."""
        return self._kept.uids[self.snr_db.index(snr_db)]

    def all_uids(self) -> Iterator[str]:
        """Yield the hashes at all SNRs and of all users."""
        for uids in self._kept.uids:
            yield from uids


class Plan(Sequence[Planned]):
    """The links of a run in their order.

    Args:
        points: the links, each built when it is asked for.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points
        self.weights: set[str] = set()  #: that links name, shipped ones or files
        self._shared: dict[Any, Any] = {}
        self._kept = [self._keep(point) for point in points]
        self._shared.clear()

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Planned: ...
    @overload
    def __getitem__(self, index: slice) -> list[Planned]: ...
    def __getitem__(self, index: int | slice) -> Planned | list[Planned]:
        """Return a link, or some."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return Planned(self.points, index, self._kept[index])

    def _keep(self, point: Point) -> _Kept:
        scenario, labels = point.scenario, _labels(point)
        if weights := scenario.transmitter.weights:
            self.weights.add(weights)
        values = (self._once(v) if type(v) is str else v for v in labels.values())
        return _Kept(
            scenario.uid(),
            tuple(tuple(scenario.uids(snr)) for snr in scenario.snr_db),
            self._once(tuple(scenario.snr_db)),
            self._once(tuple(labels)),
            tuple(values),
            self._once(tuple(point.swept)),
            self._once(scenario.training_hash()) if scenario.trains() else None,
        )

    def _once(self, value: Any) -> Any:
        """Return the one object that stands for equal ones."""
        return self._shared.setdefault(value, value)


def _labels(point: Point) -> dict[str, Any]:
    scenario = point.scenario
    kinds = {name: getattr(scenario, name).kind for name in LABELLED}
    known = {"csi_rx": scenario.csi.rx.kind, "csi_tx": scenario.csi.tx.kind}
    return {"scenario": scenario.name, **kinds, **known, **point.swept}
