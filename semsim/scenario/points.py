"""The links that a scenario stands for, each built when it is asked for and not kept.

    Points(make, keys):    points[3] ──► make(keys[3]) ──► Point

A sweep of 100,000 links so takes the memory of a few.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from semsim.mistakes import IN_SWEEP, SpecError
from semsim.scenario import clients
from semsim.scenario.expansion import choices_of, set_choice, set_key

if TYPE_CHECKING:
    from semsim.scenario.scenario import Scenario

MOST_CHECKED = 64  #: links of a sweep that are tried before it runs
CLIENT = "client"  #: column that tells the clients of a federation apart
Choice = tuple[str, Any, Any]  # path, label, value


@dataclass(frozen=True)
class Point:
    """One combination of swept values: a scenario without sweep, and labels of what was chosen."""

    scenario: Scenario
    swept: dict[str, Any]

    @property
    def name(self) -> str:
        """What to call it on the screen."""
        return " | ".join(str(label) for label in self.swept.values()) or self.scenario.name

    def blamed(self, error: SpecError) -> SpecError:
        """Return a mistake with the swept values at which it shows."""
        at = ", ".join(f"{path} = {label}" for path, label in self.swept.items())
        text = f"{error.message} ({IN_SWEEP} {at})" if at else error.message
        return SpecError(error.path, text, error.where)


class Points(Sequence[Point]):
    """Links in order; each is built anew whenever it is asked for.

    Args:
        make: returns the link of a key.
        keys: one for each link.
    """

    def __init__(self, make: Callable[[Any], Point], keys: Sequence[Any]) -> None:
        self.make, self.keys = make, keys

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> Points: ...
    def __getitem__(self, index: int | slice) -> Point | Points:
        """Return a link, or some of them, not yet built."""
        if isinstance(index, slice):
            return Points(self.make, self.keys[index])
        return self.make(self.keys[index])

    def __iter__(self) -> Iterator[Point]:
        return map(self.make, self.keys)


class Combinations:
    """All combinations of swept values, the last key changing fastest.

    Args:
        base: the scenario as plain values, without its sweep.
        sweep: dotted keys to their choices.
        validated: returns the scenario of such values; what was chosen is for its errors.
    """

    def __init__(
        self,
        base: Mapping[str, Any],
        sweep: Mapping[str, Any],
        validated: Callable[[dict[str, Any], tuple[Choice, ...]], Scenario],
    ) -> None:
        self._base, self._validated = json.dumps(base), validated
        self._axes = [
            [(path, label, value) for label, value in choices_of(choices)]
            for path, choices in sweep.items()
        ]
        self._has_clients = "federated" in {path.split(".")[0] for path in (*base, *sweep)}

    def points(self) -> Points:
        """Return a link for each combination, or one for each client to be shown of it."""
        count = math.prod(map(len, self._axes))
        if not self._has_clients:
            return Points(self._point, range(count))
        keys = [(n, *client) for n in range(count) for client in self._clients(n)]
        return Points(self._of_client, keys)

    def _clients(self, number: int) -> Sequence[tuple[str | None, int]]:
        return clients.shown_clients(self._point(number).scenario.federated) or [(None, 0)]

    def _chosen(self, number: int) -> tuple[Choice, ...]:
        chosen = []
        for axis in reversed(self._axes):
            number, place = divmod(number, len(axis))
            chosen.append(axis[place])
        return tuple(reversed(chosen))

    def _point(self, number: int, label: str | None = None, client: int = 0) -> Point:
        values, chosen = json.loads(self._base), self._chosen(number)
        for path, _, value in sorted(chosen, key=lambda choice: choice[0].count(".")):
            set_choice(values, path, value)
        swept = {path: name for path, name, _ in chosen}
        if label is not None:
            set_key(values, "federated.client", client)
            swept[CLIENT] = label
        return Point(self._validated(values, chosen), swept)

    def _of_client(self, key: tuple[int, str | None, int]) -> Point:
        return self._point(*key)


def covering(points: Sequence[Point]) -> Sequence[Point]:
    """Return the links of a sweep to try before it runs: all of them where they are few.

    Of many, those that meet each swept value at least once, or MOST_CHECKED of these spread evenly.
    """
    if len(points) <= MOST_CHECKED:
        return points
    seen: set[tuple[str, str]] = set()
    chosen = []
    for index, point in enumerate(points):
        values = {(path, str(label)) for path, label in point.swept.items()}
        if values - seen:
            seen |= values
            chosen.append(index)
    step = max(len(chosen) / MOST_CHECKED, 1)
    return [points[chosen[int(i * step)]] for i in range(min(len(chosen), MOST_CHECKED))]
