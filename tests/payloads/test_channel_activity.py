"""Activity in a channel: how fast each class moves, and that the channel shows it."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from semsim import spec
from semsim.payloads.channel_activity import CLASSES, ChannelActivity, way

SPEEDS = {
    "still": (0.0, 0.0), "walk": (0.5, 1.5), "run": (2.0, 4.0), "fall": (1.9, 3.0),
    "wave": (0.2, 1.01), "circle": (0.0, 1.51),
}  # fmt: skip


@pytest.mark.parametrize("activity", CLASSES)
def test_a_person_s_speed_is_that_of_the_class(activity: str) -> None:
    times = 3e-3 * torch.arange(128)
    draws = torch.rand(50, 5, generator=torch.Generator().manual_seed(1))
    for draw in draws:
        speed = way(activity, times, draw).diff().abs().max() / 3e-3
        low, high = SPEEDS[activity]
        assert low - 1e-3 <= speed <= high + 1e-3


def test_an_item_moves_as_its_class_says() -> None:
    payload = ChannelActivity(60, slots=64, subcarriers=4, antennas=2)
    h, facts = payload.records(0, 60)
    assert h.shape == (60, 64, 2, 4)
    torch.testing.assert_close(h.abs().square().mean(dim=(1, 2, 3)), torch.ones(60))
    change = h.diff(dim=1).abs().square().mean(dim=(1, 2, 3))
    still = facts["activity"] == 0
    assert change[still].max() < 1e-9
    assert change[facts["activity"] == 2].min() > change[facts["activity"] == 1].median()
    assert set(facts["activity"].tolist()) == set(range(6))
    source, target = pickle.loads(pickle.dumps(payload))[7]
    assert source.shape == (64, 2, 2, 4)
    assert target == int(facts["activity"][7])


def test_what_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too slow for 4 m/s at 5 GHz; write at most 0\.0037"):
        ChannelActivity(slot_s=5e-3)
    with pytest.raises(ValueError, match="slots is at least 2, for one shows no motion, got 1"):
        ChannelActivity(slots=1)
    with pytest.raises(ValueError, match="person_db goes from low to high"):
        ChannelActivity(person_db=(0.0, -3.0))
    with pytest.raises(ValueError, match=r"carrier_hz lies in \[5e\+08, 1e\+11\], got 0"):
        ChannelActivity(carrier_hz=0)
    with pytest.raises(ValueError, match="person_db is a finite number, got inf; write two finite"):
        ChannelActivity(person_db=(0.0, math.inf))
    made = spec.build(spec.parse("payload", {"kind": "channel_activity", "count": 3}))
    assert len(made) == 3
