"""Coded bits: rates, blocks, and that the decoder knows of the noise on each symbol."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from channels import AWGN, CSI
from semsim import Scenario
from semsim.codecs.coded import CodedReceiver, CodedTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.payloads.bits import Bits
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.theory import qam_ber_awgn
from semsim.seeds import stream


@pytest.mark.parametrize(("mcs", "length"), [(0, 20), (2, 333), (4, 5000), (8, 12000), (20, 700)])
def test_bits_come_back_and_cost_what_the_rate_says(mcs: int, length: int) -> None:
    """The CRCs of the blocks and rounding are all that is added."""
    sender, receiver = CodedTransmitter(mcs), CodedReceiver(mcs)
    bits = Bits(2, length=length).__getitems__([0, 1])
    source = torch.stack([b[0] for b in bits])
    symbols = sender(source, CSI(None, torch.ones(2)))
    count, plan = sender.plan(length)
    assert symbols.shape == (2, 1, count) == (2, 1, sender.num_symbols((length,)))
    assert plan.payload >= length
    got = receiver(symbols, CSI(None, torch.full((2,), 1e-3)), (length,))
    assert torch.equal(got, source)


def test_no_symbol_is_too_many() -> None:
    """Against each count from the first: one block, several, and lengths around where they meet."""
    for mcs in (0, 2, 4, 10, 20, 27):
        ends, row = CodedTransmitter(mcs), mcs_by_index(mcs)
        fewest = 1
        for length in (1, 15, 100, 380, 1200, 2999, 3000, 3001, 3808, 3809, 5670, 7001, 9000):
            while segment(fewest, row).payload < length:
                fewest += 1
            assert ends.plan(length) == (fewest, segment(fewest, row))


def test_the_code_gains_what_such_codes_gain() -> None:
    """QPSK at rate 0.29 with the CRC: at -4 dB beyond capacity, at 1 dB without an error.

    A BPSK branch at -4 dB carries at most log2(1 + 0.40) / 2 = 0.24 bits, less than 0.29, so by
    Fano's inequality h(BER) >= 1 - 0.24 / 0.29 and BER >= 0.02. At 1 dB its cutoff rate is 0.38: a
    random code of 1,386 bits fails once in 2^131 blocks. Uncoded, 13 % of 12,800 bits err, give or
    take five deviations.
    """
    coded = Link(CodedTransmitter(2), AWGN(), CodedReceiver(2))
    plain = Link(UncodedTransmitter(2), AWGN(), UncodedReceiver(2))
    payload = Bits(32, length=400)
    asked: dict[str, Any] = {"metrics": ["ber"], "batch_size": 32}
    low, high = evaluate(coded, payload, snr_db=[-4.0, 1.0], **asked)
    (without,) = evaluate(plain, payload, snr_db=[1.0], **asked)
    expected = qam_ber_awgn(1.0, 4)
    assert expected == pytest.approx(0.131, abs=5e-4)
    assert abs(without["value"] - expected) < 5 * (expected * (1 - expected) / 12_800) ** 0.5
    assert low["value"] > 0.02
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


def scenario(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "payload": {"kind": "bits", "length": 100, "count": 4},
        "transmitter": {"kind": "coded", "mcs": 4},
        "channel": {"kind": "rayleigh"},
        "metrics": ["ber", "bler"],
        "snr_db": [30],
    }
    return given | changes


def check(values: dict[str, Any]) -> list[dict[str, Any]]:
    return Scenario.parse(values).points()[0].scenario.check()


def test_a_scenario_sends_coded_bits() -> None:
    """At 100 dB no draw of a fading channel is so weak that a bit would err."""
    rows = check(scenario(snr_db=[100]))
    assert {row["metric"]: row["value"] for row in rows} == {"ber": 0, "bler": 0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frontend": "none"}, "the coded receiver takes equalised symbols .* such as lmmse"),
        (
            {"receiver": {"kind": "coded", "mcs": 2}},
            "the two ends of one codec differ: mcs is 4 and 2; give both the same",
        ),
        ({"payload": "photos"}, r"coded sends bits, \[K\] per item, got \[3, .*use payload bits"),
        (
            {"payload": "photos", "transmitter": "uncoded"},
            r"uncoded sends bits, \[K\] per item, got \[3, .*use payload bits",
        ),
        (
            {"transmitter": "uncoded", "frontend": "none"},
            "the uncoded receiver takes equalised symbols .* such as lmmse",
        ),
        (
            {"transmitter": "uncoded", "receiver": {"kind": "uncoded", "bits_per_symbol": 4}},
            "the two ends of one codec differ: bits_per_symbol is 2 and 4",
        ),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_in_a_sentence(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(scenario(**changes))


@pytest.mark.parametrize("mcs", [40, -1, True, 2.0, "2"])
def test_a_row_that_is_not_in_the_table_is_refused_by_name(mcs: Any) -> None:
    with pytest.raises(ValueError, match=f"mcs is a row of .* from 0 to 27, got {mcs!r}; 2 is"):
        CodedTransmitter(mcs)


def test_each_item_is_decoded_by_itself() -> None:
    """Where some blocks fail and some do not, an item among others has the bits that it has alone.

    A decoder adds in another order for another batch; near a tie that turns a bit of a block that
    failed, so those are compared by whether they fail.
    """
    sender, receiver = CodedTransmitter(2), CodedReceiver(2)
    source = torch.randint(2, (12, 64), generator=stream(1, "bits")).float()
    x = sender(source, CSI(None, torch.ones(12)))
    n0 = torch.where(torch.arange(12) % 3 == 0, 30.0, 0.3)  # -15 dB is hopeless, 5 dB is safe
    noise = torch.randn(x.shape, dtype=x.dtype, generator=stream(1, "noise"))
    y = x + n0.sqrt()[:, None, None] * noise
    whole = receiver(y, CSI(None, n0), (64,))
    came = (whole == source).all(dim=1)
    assert torch.equal(came, n0 < 1)
    alone = torch.cat([receiver(y[[i]], CSI(None, n0[[i]]), (64,)) for i in range(12)])
    assert torch.equal(alone[came], source[came])
    assert torch.equal((alone == source).all(dim=1), came)
