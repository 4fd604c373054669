"""What is kept in memory: within its room, once each, and not sent to other processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from channels import Rayleigh
from semsim.payloads import channel_history, synthetic
from semsim.payloads.channel_history import ChannelHistory
from semsim.payloads.kept import InBlocks, Kept
from semsim.payloads.synthetic import Synthetic


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
    copy = pickle.loads(pickle.dumps(kept))  # it brings no items, and has room for its own
    for number in (0, 1, 2):
        copy.get(number, tile(number))
    assert made == [0, 1, 2, 2, 0, 1, 2] and copy.room == kept.room == 5


@pytest.mark.parametrize(
    ("module", "payload"),
    [
        (synthetic, lambda: Synthetic(4, 40, seed=77)),
        (channel_history, lambda: ChannelHistory(Rayleigh(speed_mps=10, carrier_hz=2e9), 4)),
    ],
)
def test_drawn_items_are_kept_in_a_room_and_the_same_beyond_it(
    module: Any, payload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [item[0] for item in payload().__getitems__(range(4))]
    room = Kept(2 * wanted[0].nbytes)
    monkeypatch.setattr(module, "Kept", lambda _: room)
    monkeypatch.setattr(module, "_KEPT", room, raising=False)
    made = payload()
    for _ in range(2):
        assert all(map(torch.equal, wanted, (made[i][0] for i in range(4))))
    assert len(room._content) > 0 and room.room < 2 * wanted[0].nbytes
    assert sum(t.nbytes for kept in room._content.values() for t in kept) <= 2 * wanted[0].nbytes
