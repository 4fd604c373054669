"""Coded bits: rates, blocks, and that the decoder knows of the noise on each symbol."""

from __future__ import annotations

import pytest
import torch

from channels import AWGN, CSI, Rayleigh
from semsim import Scenario
from semsim.codecs.coded import CodedReceiver, CodedTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.payloads.bits import Bits
from semsim.phy.mcs import mcs_by_index
from semsim.seeds import stream


@pytest.mark.parametrize(("mcs", "length"), [(0, 20), (2, 333), (4, 5000), (8, 12000), (20, 700)])
def test_bits_come_back_and_cost_what_the_rate_says(mcs: int, length: int) -> None:
    """The CRCs of the blocks and rounding are all that is added: 40 bits a block at most."""
    sender, receiver = CodedTransmitter(mcs), CodedReceiver(mcs)
    bits = Bits(2, length=length).__getitems__([0, 1])
    source = torch.stack([b[0] for b in bits])
    symbols = sender(source, CSI(None, torch.ones(2)))
    count, plan = sender.plan(length)
    assert symbols.shape == (2, 1, count) == (2, 1, sender.num_symbols((length,)))
    least = length / mcs_by_index(mcs).efficiency
    assert least < count <= least + plan.blocks * 40 / mcs_by_index(mcs).efficiency + 1
    got = receiver(symbols, CSI(None, torch.full((2,), 1e-3)), (length,))
    assert torch.equal(got, source)


def test_the_code_gains_what_such_codes_gain() -> None:
    """QPSK at rate 0.3, 400 bits: many err at -4 dB, none at 1 dB, where 13 % do uncoded."""
    link = Link(CodedTransmitter(2), AWGN(), CodedReceiver(2))
    low, high = evaluate(
        link, Bits(32, length=400), snr_db=[-4.0, 1.0], metrics=["ber"], batch_size=32
    )
    assert low["value"] > 0.05
    assert high["value"] == 0


def test_a_weak_half_of_the_symbols_is_made_up_for() -> None:
    """Where the decoder knows which symbols are noise, half of them are enough at rate 0.3."""
    sender, receiver = CodedTransmitter(2), CodedReceiver(2)
    source = torch.randint(2, (4, 300), generator=stream(1, "bits")).float()
    x = sender(source, CSI(None, torch.ones(4)))
    n0 = torch.full(x.shape, 0.01)
    n0[..., ::2] = 100.0
    y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=stream(1, "noise"))
    assert torch.equal(receiver(y, CSI(None, n0), (300,)), source)
    blind = receiver(y, CSI(None, n0.mean(dim=(1, 2))), (300,))
    assert not torch.equal(blind, source)


def test_a_scenario_sends_coded_bits() -> None:
    text = {
        "payload": {"kind": "bits", "length": 100, "count": 4},
        "transmitter": {"kind": "coded", "mcs": 4},
        "channel": {"kind": "rayleigh"},
        "metrics": ["ber", "bler"],
        "snr_db": [30],
    }
    rows = Scenario.parse(text).points()[0].scenario.check()
    assert {row["metric"] for row in rows} == {"ber", "bler"}
    with pytest.raises(ValueError, match="no MCS 40: the rows are 0 to 27"):
        CodedTransmitter(40)
    with pytest.raises(ValueError, match="coded sends bits"):
        CodedTransmitter().num_symbols((3, 8, 8))


def test_each_item_is_decoded_by_itself() -> None:
    link = Link(CodedTransmitter(2), Rayleigh(coherence="block"), CodedReceiver(2))
    source = torch.randint(2, (3, 64), generator=stream(1, "bits")).float()
    assert link(source, 40.0, stream(1, "link")).shape == (3, 64)
