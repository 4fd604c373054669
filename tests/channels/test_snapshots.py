"""Channels as sequences H [B, M, S, F]: the same realisation, in the channel's own time."""

from __future__ import annotations

import pytest
import torch

from channels.base import Channel
from channels.cascade import Cascade
from channels.doppler import clarke
from channels.erasure import Erasure
from channels.fading import Rayleigh
from channels.impairments import Clipping
from channels.interference import Interference
from channels.ofdm import CDL, TDL, UMi
from channels.snapshots import snapshots
from channels.waveform import Waveform
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0}
GRID = MOVING | {"subcarriers": 6}
CHANNELS: dict[str, tuple[Channel, int, int]] = {
    "flat": (Rayleigh(2, 3, **MOVING), 6, 1),
    "in time": (Rayleigh(coherence=1, symbol_rate_hz=1e4, **MOVING), 1, 1),
    "tdl": (TDL("A", num_tx=2, **GRID), 2, 6),
    "cdl": (CDL("C", num_tx=2, num_rx=2, **GRID), 4, 6),
    "umi": (UMi(**GRID), 1, 6),
    "interferer": (Interference(3.0, channel=TDL("A", **GRID)), 1, 6),
    "packets": (Erasure(0.2, 2, channel=TDL("A", **GRID)), 1, 6),
    "cascade": (Cascade([Clipping(3.0, 2), Rayleigh(2, 2, **MOVING)]), 4, 1),
    "waveform": (Waveform([Clipping(3.0), TDL("A", num_rx=2, **GRID)]), 2, 6),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_snapshots_are_moments_of_one_realisation(name: str) -> None:
    channel, pairs, width = CHANNELS[name]
    h = snapshots(channel, 3, stream(1, "h"), moments=4, interval_s=1e-3)
    assert h.shape == (3, 4, pairs, width)
    assert h.dtype == torch.complex64
    state = channel.draw(3, width, stream(1, "h"))
    assert state.h.shape[1] * state.h.shape[2] == pairs
    for moment in range(4):
        there = state.during(0, width, later_s=1e-3 * moment).h.flatten(1, 2)
        expected = there.expand(-1, -1, width)
        torch.testing.assert_close(h[:, moment], expected, atol=2e-3, rtol=0)
    assert not torch.equal(h[:, 0], h[:, 1])


def test_antenna_pairs_count_transmit_antennas_first() -> None:
    channel = Rayleigh(2, 3, **MOVING)
    h = snapshots(channel, 1, stream(1, "h"), moments=1, interval_s=1e-3, uses=1)
    expected = channel.draw(1, 1, stream(1, "h")).h[0, ..., 0].flatten()
    torch.testing.assert_close(h[0, 0, :, 0], expected)


def test_a_sequence_remembers_over_all_its_length() -> None:
    channel = TDL("A", 1e-7, subcarriers=1, **MOVING)
    h = snapshots(channel, 3000, stream(1, "h"), moments=8, interval_s=4e-4)[:, :, 0, 0]
    lag = 4e-4 * torch.arange(8, dtype=torch.float64)
    products = (h * h[:, :1].conj()).real.double()
    error = products.std(dim=0) / 3000**0.5
    expected = clarke(lag, channel.grid.doppler_hz)
    assert ((products.mean(dim=0) - expected) / error).abs().max() < 5


@pytest.mark.parametrize(
    ("channel", "given", "says"),
    [
        (Rayleigh(), {}, "this Rayleigh are all the same, .* set its speed_mps"),
        (TDL(**MOVING), {"moments": 0}, "moments is a whole number of 1 or more, got 0"),
        (TDL(**MOVING), {"interval_s": 0.0}, "interval_s is finite and above 0, got 0.0"),
        (TDL(**MOVING), {"uses": 0}, "uses is a whole number"),
    ],
)
def test_a_sequence_of_nothing_is_refused(channel: Channel, given: dict, says: str) -> None:
    arguments = {"moments": 2, "interval_s": 1e-3} | given
    with pytest.raises(ValueError, match=says):
        snapshots(channel, 1, stream(1, "h"), **arguments)
