"""A sequence is one item: a channel's history, or a video, through codec, link and evaluator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.base import CSI
from channels.fading import Rayleigh
from channels.ofdm import TDL
from channels.snapshots import snapshots
from channels.units import linear_to_db
from semsim.codecs.values import ValuesReceiver, ValuesTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.metrics.base import Outcome
from semsim.metrics.error import NMSE
from semsim.payloads.channel_history import ChannelHistory
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0, "subcarriers": 12}


class Video(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Clips [T, 3, H, W] in [0, 1] of a gradient that moves."""

    name = "video"

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index >= len(self):
            raise IndexError(index)
        place = torch.arange(8) / 8
        frame = place + torch.arange(5)[:, None] / 10 + index / 20  # [T, W]
        clip = (frame % 1)[:, None, None].expand(-1, 3, 8, -1).contiguous()
        return clip, clip


def test_an_item_is_the_channel_s_history() -> None:
    channel = TDL("A", num_tx=2, num_rx=2, **MOVING)
    payload = ChannelHistory(channel, 5, moments=6, interval_s=2e-4, seed=3)
    item, target = payload[4]
    assert target is item
    assert item.shape == (6, 2, 4, 12)
    assert item.dtype == torch.float32
    generator = stream(3, "channel_history", 4)
    h = snapshots(channel, 1, generator, moments=6, interval_s=2e-4)[0]
    assert torch.equal(torch.complex(item[:, 0], item[:, 1]), h)
    again = ChannelHistory(channel, 9, moments=6, interval_s=2e-4, seed=3)
    assert torch.equal(again.__getitems__([1, 4])[1][0], item)
    assert not torch.equal(payload[0][0], item)
    assert payload[-1][0].equal(item)
    with pytest.raises(IndexError, match="5 items"):
        payload[5]


def test_a_history_has_power_1_over_items() -> None:
    payload = ChannelHistory(Rayleigh(2, 2, speed_mps=30.0), 2000, moments=2, interval_s=0.5)
    power = torch.stack([item.square().sum(dim=1).mean() for item, _ in payload]).double()
    assert abs(power.mean() - 1) < 5 * power.std() / math.sqrt(2000)


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_a_history_arrives_with_the_closed_form_s_error(snr_db: float) -> None:
    payload = ChannelHistory(TDL("A", **MOVING), 40, moments=8, interval_s=5e-4)
    link = Link(ValuesTransmitter(), AWGN(), ValuesReceiver())
    (row,) = evaluate(link, payload, snr_db=[snr_db], metrics=[NMSE()])
    n0 = 10 ** (-snr_db / 10)
    rung = (math.log(1e4) / 255) ** 2 / 12  # of the scale that the header names
    power = n0 / (1 + n0) + rung / (1 + n0) ** 2
    half = (row["ci_high"] - row["ci_low"]) / 2
    assert abs(row["value"] - float(linear_to_db(torch.tensor(power)))) < 2.6 * half  # 5 sigma
    assert row["cbr"] == pytest.approx((8 * 12 + 64) / (8 * 2 * 12))


def test_a_video_is_one_item() -> None:
    link = Link(ValuesTransmitter(), AWGN(), ValuesReceiver())
    (row,) = evaluate(link, Video(), snr_db=[60.0], metrics=["nmse"])
    assert row["n"] == 4
    assert row["value"] < -35  # what the scale's ladder leaves
    sent = link.transmit(torch.stack([Video()[0][0]]), 60.0, stream(1, "link"))
    assert sent.estimate.shape == (1, 5, 3, 8, 8)
    torch.testing.assert_close(sent.estimate[0], Video()[0][0], atol=0.05, rtol=0)


def test_an_odd_number_of_values_goes_as_well() -> None:
    source = torch.randn(3, 5, generator=stream(1, "x"))
    sender, receiver = ValuesTransmitter(), ValuesReceiver()
    symbols = sender(source, CSI(None, torch.ones(3)))
    assert symbols.shape == (3, 1, sender.num_symbols((5,)))
    csi = CSI(None, torch.full((3, 1, symbols.shape[-1]), 1e-9))
    torch.testing.assert_close(receiver(symbols, csi, (5,)), source, rtol=0.02, atol=1e-6)


def test_what_cannot_be_sent_or_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="its speed_mps, or that of a stage"):
        ChannelHistory(Rayleigh())
    with pytest.raises(ValueError, match="real numbers, got a complex source"):
        ValuesTransmitter()(torch.zeros(1, 4, dtype=torch.complex64), CSI(None, torch.ones(1)))
    with pytest.raises(ValueError, match="equalised symbols"):
        ValuesReceiver()(torch.zeros(1, 1, 4), CSI(None, torch.ones(1)), (4,))
    with pytest.raises(ValueError, match="an item is all zeros"):
        NMSE()(Outcome(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="use a receiver of the same items"):
        NMSE()(Outcome(torch.zeros(1, 4), torch.zeros(1, 5), torch.zeros(1, 5)))
