"""Hybrid ARQ: what did not arrive goes again, is combined, charged, and kept to the budget."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.csi import PerfectCSI
from channels.fading import Rayleigh
from semsim.codecs.harq import Harq
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.evaluation import Stop, evaluate
from semsim.payloads.photos import Photos
from semsim.phy.bler import block_error_rate, waterfall
from semsim.phy.frontend import LMMSE
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.seeds import stream


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests."""
    monkeypatch.setenv("SEMSIM_CACHE", str(tmp_path))


def images(count: int) -> Tensor:
    """Make smooth random images [B, 3, 32, 32]."""
    coarse = torch.rand(count, 3, 6, 6, generator=stream(0, "images"))
    return torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1)


def link_of(**settings: object) -> SeparateLink:
    """Make a baseline on AWGN; WebP is fast and has a small header."""
    return SeparateLink(SeparateTransmitter("1/3", **{"codec": "webp", **settings}), AWGN())


@pytest.mark.parametrize("engine", ["bler", "ldpc"])
@pytest.mark.parametrize("harq", ["chase", "ir"])
def test_what_did_not_arrive_goes_again_and_is_charged(engine: str, harq: str) -> None:
    link = link_of(engine=engine, harq=harq, mcs=9, rounds=3)
    middle = waterfall(9, 2048)[0]
    source = images(4)
    good = link.transmit(source, middle + 5, stream(12, "good"))
    assert good.notes["rounds"].tolist() == [1] * 4
    assert good.ledger.total == 512  # half of the budget of 1024
    again = link.transmit(source, middle - 1.5, stream(12, "again"))
    assert again.notes["rounds"].tolist() == [2] * 4  # twice the SNR is 3 dB
    assert again.notes["decoded"].tolist() == [1] * 4
    assert again.ledger.total == 1024
    assert again.x.shape == (4, 1, 1024)
    assert torch.equal(again.estimate, good.estimate)
    hopeless = link.transmit(source, -20.0, stream(12, "never"))
    assert hopeless.notes["rounds"].tolist() == [3] * 4
    assert hopeless.notes["decoded"].tolist() == [0] * 4
    assert hopeless.ledger.total == 1536


@pytest.mark.parametrize("harq", ["chase", "ir"])
def test_the_engines_take_equally_many_rounds(harq: str) -> None:
    source, rounds, decoded = images(1).expand(48, -1, -1, -1), {}, {}
    for engine in ("bler", "ldpc"):
        transmitter = SeparateTransmitter(
            "1/3", codec="webp", mcs=9, engine=engine, fallback="grey", harq=harq, rounds=3
        )
        sent = SeparateLink(transmitter, Rayleigh()).transmit(source, 4.0, stream(13, "rounds"))
        rounds[engine] = sent.notes["rounds"].double()
        decoded[engine] = float(sent.notes["decoded"].mean())
    assert 0.1 < decoded["bler"] < 0.95
    # fading and noise are common to both; a share errs by at most 0.5 / sqrt(48)
    assert abs(decoded["bler"] - decoded["ldpc"]) < 3 * 0.5 * math.sqrt(2 / 48)
    error = math.sqrt(2 * float(rounds["bler"].var()) / 48)
    assert abs(float(rounds["bler"].mean() - rounds["ldpc"].mean())) < 3 * error


def test_the_mean_budget_is_kept_when_rows_are_chosen() -> None:
    source = images(1).expand(64, -1, -1, -1)
    for snr_db in (0.0, 6.0, 12.0):
        link = SeparateLink(
            SeparateTransmitter("1/3", codec="webp", harq="ir", round_cbr="1/6"), Rayleigh()
        )
        sent = link.transmit(source, snr_db, stream(14, "budget"))
        spread = 512 * float(sent.notes["rounds"].double().std()) / 8
        assert sent.ledger.total <= 1024 + 3 * spread


def test_the_same_fading_does_not_help_and_new_fading_does() -> None:
    source, arrived = images(1).expand(96, -1, -1, -1), {}
    for fading in ("same", "new"):
        link = SeparateLink(
            SeparateTransmitter(
                "1/3", codec="webp", mcs=9, harq="chase", rounds=2, round_fading=fading
            ),
            Rayleigh(),
        )
        sent = link.transmit(source, 6.0, stream(15, "fading"))
        arrived[fading] = sent.notes["decoded"].double()
    needed = 10 ** (waterfall(9, 2048)[0] / 10) / 10**0.6  # sum of gains that decodes
    expected = {
        "same": math.exp(-needed / 2),
        "new": (1 + needed) * math.exp(-needed),
    }  # P(2 g > needed), P(g1 + g2 > needed) with exponential gains
    for fading, values in arrived.items():
        p = expected[fading]
        assert abs(float(values.mean()) - p) < 4 * math.sqrt(p * (1 - p) / 96), fading


@pytest.mark.parametrize(("engine", "harq"), [("bler", "chase"), ("ldpc", "ir")])
def test_codewords_follow_the_best_antenna_of_each_round(engine: str, harq: str) -> None:
    transmitter = SeparateTransmitter(
        "1", codec="webp", mcs=9, rank=1, harq=harq, rounds=4, engine=engine
    )
    link = SeparateLink(transmitter, Rayleigh(2, 2), csi_tx=PerfectCSI(), frontend=LMMSE())
    source = images(1).expand(64, -1, -1, -1)
    sent = link.transmit(source, 0.0, stream(16, "antennas"))
    power = -torch.rand(20000, 4, 2, 2, generator=stream(16, "gains")).log()
    gains = power.sum(dim=2).amax(dim=2)  # in each round, of the stronger antenna
    needed = 10 ** (waterfall(9, 1536)[0] / 10)
    p = float((gains.sum(dim=1) > needed).double().mean())
    # further bits are worth more than the same again
    assert float(sent.notes["decoded"].mean()) > p - 4 * math.sqrt(p * (1 - p) / 64)


def test_chase_over_awgn_is_one_transmission_at_so_many_times_the_snr() -> None:
    cut = segment(1024, mcs_by_index(7))
    harq = Harq("chase", 4, "same", Fraction(1, 2))
    snr_db = torch.full((4, 1, 1), 0.3, dtype=torch.float64)
    after = harq.arrival(snr_db, cut)[:, 0]
    for done, chance in enumerate(after, start=1):
        alone = 1 - block_error_rate(snr_db[0] + 10 * math.log10(done), 7, cut.coded)
        assert float(chance) == pytest.approx(float(alone.prod() ** cut.blocks), abs=1e-12)


def test_further_bits_are_worth_more_than_the_same_again() -> None:
    cut = segment(512, mcs_by_index(15))
    snr_db = torch.full((4, 1, 1), 6.0, dtype=torch.float64)
    after = {
        kind: Harq(kind, 4, "same", Fraction(1, 2)).arrival(snr_db, cut)[:, 0]
        for kind in ("chase", "ir")
    }
    assert bool((after["ir"] >= after["chase"] - 1e-9).all())
    assert bool((after["ir"].diff() >= -1e-9).all())
    assert float(after["ir"][2] - after["chase"][2]) > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"harq": "arq"}, "harq is one of none, chase, ir, got 'arq'"),
        ({"harq": "ir", "rounds": 0}, "rounds"),
        ({"harq": "ir", "rounds": 1}, "once at half of cbr; write harq: none"),
        ({"harq": "ir", "round_cbr": "1/2"}, "more than the whole budget"),
        ({"round_cbr": "1/12"}, "set harq: ir"),
        ({"harq": "ir", "round_fading": "old"}, "round_fading is one of new, same"),
    ],
)
def test_void_retransmissions_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeparateTransmitter("1/6", **settings)


def test_throughput_does_not_depend_on_the_batch() -> None:
    link = SeparateLink(
        SeparateTransmitter("1/4", codec="jpeg", mcs=6, harq="ir", rounds=4, round_cbr="1/8"),
        Rayleigh(),
    )
    for size in (1, 12):
        (row,) = evaluate(
            link, Photos(crop=64), snr_db=[5.0], metrics=["throughput"],
            stop=Stop(max_items=24), batch_size=size,
        )  # fmt: skip
        spent = row["cbr"] * 3 * 64 * 64
        assert row["value"] == pytest.approx(row["bits"] * row["decoded"] / spent)  # equal images
        assert row["ci_low"] < row["value"] < row["ci_high"]
