"""What is kept in memory: within its room, once each, and not sent to other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import torch
from torch import Tensor

from semsim.payloads.kept import InBlocks, Kept


class Counting(InBlocks):
    """Blocks that say how often they were drawn."""

    blocks_kept = 2

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def _drawn(self, number: int) -> int:
        self.drawn.append(number)
        return number


def test_the_last_blocks_are_kept_and_stay_behind() -> None:
    items = Counting()
    assert [items._block(n) for n in (0, 1, 0, 2, 1)] == [0, 1, 0, 2, 1]
    assert items.drawn == [0, 1, 2, 1]
    copy = pickle.loads(pickle.dumps(items))
    copy._block(2)
    assert copy.drawn == [0, 1, 2, 1, 2] and items.drawn == [0, 1, 2, 1]


def test_what_does_not_fit_is_made_again() -> None:
    made: list[int] = []

    def tile(number: int) -> Callable[[], tuple[Tensor]]:
        def make() -> tuple[Tensor]:
            made.append(number)
            return (torch.full((10,), number, dtype=torch.uint8),)

        return make

    kept = Kept(room=25)
    for number in (0, 1, 2, 0, 1, 2):
        assert int(kept.get(number, tile(number))[0][0]) == number
    assert made == [0, 1, 2, 2]
