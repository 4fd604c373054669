"""Items of several payloads in given shares: what one learns from together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from semsim.payloads.images import ImagePayload, check_counts, check_members
from semsim.payloads.pool import draw_places
from semsim.seeds import stream
from semsim.types import Payload


class Mix(Dataset[Any]):
    """Items drawn from several payloads, with replacement.

    Items and targets are those of the payload they come from; in one batch they have one shape, so
    images of several sizes need ``train: {crop: ...}``, and either all items have a class or none.

    Args:
        of: the payloads.
        shares: how often each is drawn from, in the order of ``of``, as weights; alike by default.
        count: how many items to draw.
        seed: decides which.
    """

    name = "mix"

    def __init__(
        self,
        of: Sequence[Payload],
        *,
        shares: Sequence[float] | None = None,
        count: int = 100_000,
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        if not of or any(not len(payload) for payload in of):
            raise ValueError(
                "of is a list of payloads that have items, such as [{kind: photos}, {kind: "
                f"synthetic}}], got {len(of)}, with {[len(payload) for payload in of]} items"
            )
        weights = [1.0] * len(of) if shares is None else [float(share) for share in shares]
        good = all(math.isfinite(weight) and weight >= 0 for weight in weights)
        if len(weights) != len(of) or not good or not sum(weights):
            raise ValueError(
                f"shares are {len(of)} weights of at least 0, one for each payload and not all 0, "
                f"got {list(weights)}"
            )
        _check_classes(of)
        self.of = list(of)
        generator = stream(seed, "mix", count)
        self.places = draw_places(weights, [len(payload) for payload in of], count, generator)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} items, asked for number {index}")
        part, place = self.places[index].tolist()
        return self.of[part][place]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return many items at once."""
        return [self[index] for index in indices]

    def check_files(self) -> None:
        """Look at the files of each payload that can say what is wrong with them."""
        check_members(self.of)


def _check_classes(of: Sequence[Payload]) -> None:
    """Raise ValueError where some payloads of images have classes and others have none."""
    classes = {n: p.labels is not None for n, p in enumerate(of) if isinstance(p, ImagePayload)}
    if len(set(classes.values())) > 1:
        some, none = ([n for n, has in classes.items() if has is asked] for asked in (True, False))
        raise ValueError(
            f"either all payloads of a mix have classes or none, but numbers {some} of its list "
            f"have some and {none} none, counted from 0; mix those apart from these"
        )
