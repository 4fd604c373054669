"""Another transmitter on the same resource."""

from __future__ import annotations

import math

import pytest
import torch

from channels.csi import PerfectCSI
from channels.fading import Rayleigh
from channels.interference import Interference
from channels.units import db_to_linear
from semsim.seeds import stream


@pytest.mark.parametrize("sir_db", [-3.0, 0.0, 10.0])
def test_the_other_signal_arrives_at_the_stated_ratio(sir_db: float) -> None:
    channel = Interference(sir_db, channel=Rayleigh(2, 2))
    items = 50_000
    state = channel.draw(items, 1, stream(1, "state", sir_db))
    silence = torch.zeros(items, 2, 1, dtype=torch.complex64)
    power = channel(silence, state, None, stream(1, "other", sir_db)).abs().square()
    power = power.mean(dim=(1, 2)).double()
    error = power.std() / math.sqrt(items)
    assert abs(power.mean() - db_to_linear(-sir_db)) / error < 5
    assert state.interference == pytest.approx(db_to_linear(-sir_db))


def test_a_receiver_counts_it_as_noise() -> None:
    channel = Interference(10.0, channel=Interference(20.0))
    state = channel.draw(2, 3, stream(1, "state"))
    csi = PerfectCSI()(state, torch.full((2,), 0.5), stream(1, "csi"))
    torch.testing.assert_close(csi.n0, torch.full((2,), 0.5 + 0.1 + 0.01))


def test_the_other_gain_stays_over_the_item() -> None:
    channel = Interference(0.0)
    state = channel.draw(1, 50_000, stream(1, "state"))
    y = channel(torch.zeros(1, 1, 50_000) + 0j, state, None, stream(1, "other"))
    power = y.abs().square().mean() / state.stages[1].h.abs().square()
    assert abs(float(power) - 1) * math.sqrt(50_000) < 5  # |s|^2 is exponential: variance 1


def test_a_ratio_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="sir_db lies in"):
        Interference(math.nan)
