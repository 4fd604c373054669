"""The separation baseline: two engines, the envelope over MCS, and its cliff."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.csi import NoCSI, PerfectCSI, PilotCSI
from channels.fading import Rayleigh
from channels.impairments import Clipping
from semsim.codecs.bound import BoundLink, BoundTransmitter, best_offer
from semsim.codecs.envelope import best_plan
from semsim.codecs.image_codecs import Pixels, psnr_of_mse
from semsim.codecs.layers import Codeword, Offer
from semsim.codecs.limits import Offer as LimitOffer
from semsim.codecs.outage import delivered
from semsim.codecs.rd_cache import Coded
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.stills import Stills, pixels_of
from semsim.phy.bler import waterfall
from semsim.phy.frontend import SVD, NoFrontEnd
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.seeds import stream


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests."""
    monkeypatch.setenv("SEMSIM_CACHE", str(tmp_path))


def images(count: int, side: int = 32) -> Tensor:
    """Make smooth random images [B, 3, side, side]."""
    coarse = torch.rand(count, 3, 6, 6, generator=stream(0, "images"))
    return torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def psnr_db(source: Tensor, estimate: Tensor) -> Tensor:
    """Return the PSNR per image, dB."""
    return -10 * torch.log10((source - estimate).square().mean(dim=(1, 2, 3)))


def link_of(cbr: str = "1/3", **settings: object) -> SeparateLink:
    """Make a baseline on AWGN; WebP is fast and has a small header."""
    return SeparateLink(SeparateTransmitter(cbr, **{"codec": "webp", **settings}), AWGN())


@pytest.mark.parametrize("engine", ["bler", "ldpc"])
@pytest.mark.parametrize("codec", ["hevc", "avif", "webp"])
def test_an_image_arrives_where_the_channel_is_good(engine: str, codec: str) -> None:
    source = images(2)
    link = link_of(engine=engine, codec=codec, mcs=9)
    sent = link.transmit(source, 15.0, stream(0, "good"))
    assert sent.notes["decoded"].tolist() == [1, 1]
    assert float(psnr_db(source, sent.estimate).min()) > 20
    assert sent.ledger.total == 1024
    assert sent.symbols.shape == (2, 1, 1024)


def test_both_engines_send_the_same_image() -> None:
    source = images(3)
    sent = [
        link_of(engine=engine, headers=headers).transmit(source, 12.0, stream(0, "same"))
        for engine, headers in (("bler", "minimal"), ("ldpc", "minimal"), ("ldpc", "file"))
    ]
    assert torch.equal(sent[0].estimate, sent[1].estimate)
    assert all(one.notes["decoded"].all() for one in sent)


@pytest.mark.parametrize(("index", "channel"), [(9, "awgn"), (13, "awgn"), (9, "rayleigh")])
def test_the_engines_lose_equally_many_images(index: int, channel: str) -> None:
    source, decoded = images(1).expand(96, -1, -1, -1), {}
    snr_db = waterfall(index, 512 * mcs_by_index(index).bits_per_symbol)[0]
    if channel == "rayleigh":
        snr_db += 1.0
    for engine in ("bler", "ldpc"):
        link = SeparateLink(
            SeparateTransmitter("1/6", codec="webp", mcs=index, engine=engine, fallback="grey"),
            AWGN() if channel == "awgn" else Rayleigh(),
        )
        sent = link.transmit(source, snr_db, stream(5, "engines", index))
        decoded[engine] = float(sent.notes["decoded"].mean())
    # each share has a standard error of at most 0.5 / sqrt(96); fading is common to both
    assert 0.1 < decoded["bler"] < 0.95
    assert abs(decoded["bler"] - decoded["ldpc"]) < 4 * 0.5 * math.sqrt(2 / 96)


def test_one_mcs_falls_off_a_cliff_and_gains_nothing_above_it() -> None:
    source, link = images(4), link_of(mcs=7)
    middle = waterfall(7, 4096)[0]
    values = [
        float(psnr_db(source, link.transmit(source, snr, stream(0, "cliff")).estimate).mean())
        for snr in (middle - 2, middle + 2, middle + 12)
    ]
    assert values[1] > values[0] + 5
    assert values[1] == values[2]


def test_the_envelope_is_no_worse_than_any_row_and_below_capacity() -> None:
    source = images(4)
    for snr_db in (2.0, 9.0, 16.0):
        best = link_of().transmit(source, snr_db, stream(0, "envelope"))
        value = psnr_db(source, best.estimate)
        for index in (3, 7, 11, 15):
            one = link_of(mcs=index).transmit(source, snr_db, stream(0, "envelope"))
            assert bool((psnr_db(source, one.estimate) <= value + 1e-3).all())
        bound = BoundLink(BoundTransmitter("1/3", codec="webp"), AWGN())
        limit = bound.transmit(source, snr_db, stream(0, "e")).notes["capacity_bits"]
        rows = best.notes["mcs"].tolist()
        carried = [segment(1024, mcs_by_index(index)).payload for index in rows]
        assert bool((torch.tensor(carried) < limit).all())


def test_the_row_with_the_largest_expected_psnr_is_taken() -> None:
    stills, image = SeparateTransmitter("1/3", codec="webp").stills, pixels_of(images(1))[0]
    cuts = [segment(1024, mcs_by_index(index)) for index in (7, 9, 11, 13, 15, 17)]
    odds = [1.0, 0.97, 0.93, 0.9, 0.3, 0.02]
    lost_db = stills.lost_psnr(image)
    expected = {
        cut.mcs.index: odd * psnr_of_mse(stills.fit(image, cut.payload).mse) + (1 - odd) * lost_db
        for cut, odd in zip(cuts, odds, strict=True)
    }
    menu = [Offer(0, (Codeword((0,), cut),), odd) for cut, odd in zip(cuts, odds, strict=True)]
    chosen = best_plan(stills, image, menu).offer.words[0].cut.mcs.index
    assert expected[chosen] == max(expected.values())


class Exact(Stills):
    """Images that have all they need at 4,000 bits, and at fewer no error that is measured."""

    def lost_psnr(self, image: Pixels) -> float:
        return 20.0

    def fit(self, image: Pixels, budget_bits: float) -> Coded:
        return Coded(0, b"", 0, 0.0 if budget_bits >= 4000 else 0.09)


@pytest.mark.parametrize("choose", [best_plan, best_offer])
def test_no_risk_is_taken_for_errors_that_no_metric_sees(choose: Any) -> None:
    image = pixels_of(images(1))[0]
    if choose is best_plan:
        cuts = [segment(1024, mcs_by_index(index)) for index in (7, 17)]
        menu: Any = [
            Offer(0, (Codeword((0,), cut),), odds)
            for cut, odds in zip(cuts, (1.0, 0.6), strict=True)
        ]
        chosen = best_plan(Exact("webp", "minimal", "mean"), image, menu).offer
    else:
        menu = [LimitOffer(1500.0, 1.0), LimitOffer(4000.0, 0.6)]
        chosen = best_offer(Exact("webp", "minimal", "mean"), image, menu)[0]
    assert chosen.odds == 1.0


def test_an_image_of_one_colour_is_sent_where_one_mcs_is_asked_for() -> None:
    flat = torch.full((1, 3, 32, 32), 0.2)
    sent = link_of(mcs=7).transmit(flat, 30.0, stream(0, "flat"))
    assert sent.notes["decoded"].tolist() == [1]


def test_the_choice_does_not_depend_on_the_rest_of_the_batch() -> None:
    source, link = images(4), link_of()
    whole = link.transmit(source, 8.0, stream(0, "batch"))
    alone = link_of().transmit(source[2:3], 8.0, stream(0, "batch"))
    assert whole.notes["mcs"][2] == alone.notes["mcs"][0]


def test_a_point_alone_gives_the_same_digits_as_within_a_sweep() -> None:
    source, link = images(4), link_of()
    swept = [link.transmit(source, snr, stream(6, "s")) for snr in (0.0, 5.0, 10.0)]
    alone = link_of().transmit(source, 5.0, stream(6, "s"))
    assert torch.equal(swept[1].estimate, alone.estimate)
    assert torch.equal(swept[1].x, alone.x)


def test_the_fading_and_noise_are_those_of_any_other_scheme() -> None:
    source = images(2)
    states = [
        link.transmit(source, 10.0, stream(7, "fair")).state.h
        for link in (
            SeparateLink(SeparateTransmitter("1/3", codec="webp"), Rayleigh()),
            BoundLink(BoundTransmitter("1/3", codec="webp"), Rayleigh()),
        )
    ]
    assert torch.equal(*states)


def test_snr_may_differ_within_a_batch() -> None:
    sent = link_of().transmit(images(2), torch.tensor([-20.0, 15.0]), stream(0, "each"))
    assert sent.notes["decoded"].tolist() == [0, 1]


@pytest.mark.parametrize(("fallback", "colour"), [("mean", None), ("grey", 128 / 255)])
def test_a_lost_image_becomes_what_the_fallback_says(fallback: str, colour: float | None) -> None:
    source = images(1)
    sent = link_of(fallback=fallback, mcs=15).transmit(source, -5.0, stream(0, "lost"))
    assert sent.notes["decoded"].tolist() == [0]
    expected = source.mean(dim=(2, 3), keepdim=True) if colour is None else torch.tensor(colour)
    torch.testing.assert_close(
        sent.estimate, expected.expand_as(source), atol=0.5 / 255 + 1e-6, rtol=0
    )


def test_headers_and_colour_are_charged() -> None:
    image = pixels_of(images(1, 64))[0]

    def stream_bytes(headers: str, fallback: str) -> int:
        transmitter = SeparateTransmitter("1/6", codec="hevc", headers=headers, fallback=fallback)
        return transmitter.stills.fit(image, 8 * 1000).file_bytes

    assert stream_bytes("file", "grey") <= 1000
    assert stream_bytes("minimal", "grey") > 1000  # the boxes are not charged
    assert stream_bytes("file", "mean") <= 997


def test_knowing_the_realisation_raises_the_mean_in_block_fading() -> None:
    source, means = images(1).expand(48, -1, -1, -1), {}
    for csi_tx in (NoCSI(), PerfectCSI()):
        link = SeparateLink(SeparateTransmitter("1/3", codec="webp"), Rayleigh(), csi_tx=csi_tx)
        sent = link.transmit(source, 10.0, stream(8, "csit"))
        means[type(csi_tx)] = float(psnr_db(source, sent.estimate).mean())
        if isinstance(csi_tx, NoCSI):
            assert len(sent.notes["mcs"].unique()) == 1  # one image, one average SNR
    assert means[PerfectCSI] > means[NoCSI] + 0.5


def test_mimo_halves_the_channel_uses() -> None:
    link = SeparateLink(
        SeparateTransmitter("1/3", codec="webp"),
        Rayleigh(num_tx=2, num_rx=2),
        csi_tx=PerfectCSI(),
        frontend=SVD(),
    )
    sent = link.transmit(images(2), 15.0, stream(9, "mimo"))
    assert sent.x.shape == (2, 2, 512)
    assert sent.ledger.total == 512
    assert sent.notes["decoded"].all()


@pytest.mark.parametrize(
    "link",
    [
        SeparateLink(SeparateTransmitter("1/6", mcs=13, codec="webp"), Clipping(backoff_db=0.0)),
        SeparateLink(
            SeparateTransmitter("1/6", mcs=11, codec="webp"), AWGN(), csi_rx=PilotCSI(per_block=1)
        ),
    ],
)
def test_distortion_and_wrong_csi_cost_images(link: SeparateLink) -> None:
    source, snr_db = images(1).expand(32, -1, -1, -1), 14.0
    index = int(link.transmitter.mcs)
    assert waterfall(index, 3072)[0] < snr_db - 1
    sent = link.transmit(source, snr_db, stream(11, "hidden"))
    assert float(sent.notes["decoded"].mean()) < 0.9


def test_messages_of_many_blocks_arrive_only_whole() -> None:
    cut = segment(73728, mcs_by_index(7))
    middle, _ = waterfall(7, cut.coded)
    n0 = torch.full((1, 73728), 10 ** (-middle / 10))
    assert cut.blocks == 48
    assert float(delivered(n0, cut)) == pytest.approx(0.5**48, rel=0.2)
    assert float(delivered(n0[:, :1000], cut)) == pytest.approx(0.5**48, rel=0.2)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="a whole number from 0 to 27"):
        SeparateTransmitter("1/6", mcs=40)
    with pytest.raises(ValueError, match="engine is"):
        SeparateTransmitter("1/6", engine="fast")
    link = SeparateLink(SeparateTransmitter("1/6", codec="webp"), AWGN(), frontend=NoFrontEnd())
    with pytest.raises(ValueError, match="frontend none"):
        link.transmit(images(1), 5.0, stream(0, "x"))
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        link_of().transmit(torch.zeros(1, 7), 5.0, stream(0, "x"))
