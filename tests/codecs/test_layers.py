"""Streams, codewords and rates of the separation baseline behind several antennas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels.csi import NoCSI, PerfectCSI
from channels.fading import Rayleigh
from semsim.codecs.image_codecs import psnr_of_mse
from semsim.codecs.layers import mappings, offers
from semsim.codecs.outlook import Outlook
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.stills import pixels_of
from semsim.phy.frontend import LMMSE, RZF, SVD, ZF, FrontEnd
from semsim.phy.theory import mimo_capacity
from semsim.seeds import stream
from semsim.types import Transmission

SEARCH_DB = 0.05  # what the early end of the search for a quality step may cost


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Keep the user's cache out of the tests, and one for all of them."""
    folder: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMSIM_CACHE", str(folder))
        yield


def image(side: int = 32) -> Tensor:
    """Make a smooth random image [1, 3, side, side]."""
    coarse = torch.rand(1, 3, 6, 6, generator=stream(0, "images"))
    return torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def psnr_db(source: Tensor, estimate: Tensor) -> Tensor:
    """Return the PSNR per image, dB."""
    return -10 * torch.log10((source - estimate).square().mean(dim=(1, 2, 3)))


def link_of(
    size: int, front_end: FrontEnd, csi_tx: object = None, **settings: object
) -> SeparateLink:
    """Make a baseline on block Rayleigh fading with ``size`` antennas at each end."""
    return SeparateLink(
        SeparateTransmitter("1/3", **{"codec": "webp", **settings}),
        Rayleigh(num_tx=size, num_rx=size),
        csi_tx=csi_tx if csi_tx is not None else PerfectCSI(),
        frontend=front_end,
    )


def test_codewords_are_mapped_as_5g_does_or_one_by_one() -> None:
    assert mappings(1) == [((0,),)]
    assert mappings(2) == [((0, 1),), ((0,), (1,))]
    assert mappings(4) == [((0, 1, 2, 3),), ((0, 1), (2, 3)), ((0,), (1,), (2,), (3,))]
    assert [len(words) for words in mappings(8)] == [1, 2, 8]
    assert mappings(5)[1] == ((0, 1), (2, 3, 4))  # table 7.3.1.3-1: 2 and 3 layers


@pytest.mark.parametrize(
    ("front_end", "size"), [(SVD(True), 2), (SVD(True), 8), (SVD(), 4), (RZF(), 4)]
)
def test_what_is_chosen_promises_as_much_as_any_fixed_rank(front_end: FrontEnd, size: int) -> None:
    source = image().expand(4, -1, -1, -1)
    still = SeparateTransmitter("1/3", codec="webp").stills
    lost_db = still.lost_psnr(pixels_of(source)[0])

    def promised(rank: object) -> Tensor:
        link, plans = link_of(size, front_end, rank=rank), []
        capture(link, source, plans)
        return torch.tensor(
            [
                lost_db
                if plan.coded is None
                else plan.offer.odds * psnr_of_mse(plan.coded.mse) + (1 - plan.offer.odds) * lost_db
                for plan in plans
            ]
        )

    best = promised("best")
    for rank in range(1, size + 1):
        assert bool((best >= promised(rank) - SEARCH_DB).all())


def capture(link: SeparateLink, source: Tensor, plans: list, snr_db: float = 6.0) -> Transmission:
    """Send a batch and keep its plans."""
    from semsim.codecs import separate

    class Watched(separate.Passage):
        def steer(self, *args: object) -> Tensor:
            precoder = super().steer(*args)
            plans.extend(self.plans)
            return precoder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separate, "Passage", Watched)
        return link.transmit(source, snr_db, stream(2, "draws"))


@pytest.mark.parametrize(
    ("front_end", "size"), [(SVD(True), 2), (SVD(True), 4), (SVD(True), 8), (RZF(), 4)]
)
def test_the_mean_is_no_worse_than_the_best_fixed_rank(front_end: FrontEnd, size: int) -> None:
    source = image().expand(32, -1, -1, -1)

    def values(rank: object, snr_db: float) -> Tensor:
        sent = link_of(size, front_end, rank=rank).transmit(source, snr_db, stream(3, "mean"))
        assert torch.allclose(sent.x.abs().square().sum(dim=1).mean(), torch.tensor(1.0), atol=0.02)
        return psnr_db(source, sent.estimate)

    for snr_db in (1.0, 10.0):
        best = values("best", snr_db)
        for rank in sorted({1, size // 2, size}):
            gain = best - values(rank, snr_db)
            error = float(gain.std()) / math.sqrt(len(gain))
            assert float(gain.mean()) >= -2 * error - SEARCH_DB


@pytest.mark.parametrize("size", [2, 4, 8])
def test_no_choice_carries_more_than_the_capacity_of_its_draw(size: int) -> None:
    source, front_end = image().expand(32, -1, -1, -1), SVD(water_filling=True)
    for snr_db in (1.0, 10.0, 20.0):
        link, plans = link_of(size, front_end), []
        sent = capture(link, source, plans, snr_db)
        n0 = torch.full((32,), 10 ** (-snr_db / 10))
        limit = 1024 // size * mimo_capacity(sent.state.h, n0, csi_tx=True)[:, 0]
        carried = torch.tensor([plan.offer.payload * plan.offer.odds for plan in plans])
        assert bool((carried < limit).all())


def test_a_weak_stream_is_left_out_and_a_strong_one_gets_a_higher_rate() -> None:
    source, plans = image().expand(64, -1, -1, -1), []
    capture(link_of(2, SVD(water_filling=True)), source, plans, 8.0)
    ranks = [plan.offer.rank for plan in plans]
    assert {1, 2} <= set(ranks)
    two = [plan.offer.words for plan in plans if len(plan.offer.words) == 2]
    assert two
    assert all(a.cut.mcs.efficiency >= b.cut.mcs.efficiency for a, b in two)
    assert sum(a.cut.mcs.efficiency > b.cut.mcs.efficiency for a, b in two) > len(two) / 2


def test_offers_are_sorted_and_none_is_worse_in_both() -> None:
    link = link_of(4, SVD(water_filling=True))
    outlook = Outlook(link.channel, link.csi_rx, link.csi_tx, link.frontend)
    state = link.channel.draw(3, 256, stream(4, "offers"))
    csi = PerfectCSI()(state, torch.full((3,), 0.1), stream(4, "csi"))
    for menu in offers(outlook.prospects(csi, 10.0, 256), link.transmitter.rows(), 256):
        payload = [offer.payload for offer in menu]
        odds = [offer.odds for offer in menu]
        assert payload == sorted(payload, reverse=True)
        assert odds == sorted(odds)
        for offer in menu:
            used = [place for word in offer.words for place in word.streams]
            assert len(set(used)) == len(used) == offer.rank


@pytest.mark.parametrize("engine", ["bler", "ldpc"])
@pytest.mark.parametrize(("size", "side"), [(2, 32), (4, 32), (3, 32)])
def test_several_codewords_carry_one_image_in_both_engines(
    engine: str, size: int, side: int
) -> None:
    source = image(side).expand(4, -1, -1, -1)  # 3 streams do not divide 1024 symbols
    sent = link_of(size, SVD(water_filling=True), engine=engine).transmit(
        source, 22.0, stream(5, "words")
    )
    assert sent.notes["codewords"].max() > 1
    assert sent.notes["decoded"].tolist() == [1, 1, 1, 1]
    assert float(psnr_db(source, sent.estimate).min()) > 20


@pytest.mark.parametrize("front_end", [LMMSE(), ZF()])
def test_without_csit_the_rank_follows_the_statistics(front_end: FrontEnd) -> None:
    source = image().expand(4, -1, -1, -1)
    low, high = (
        link_of(2, front_end, NoCSI()).transmit(source, snr_db, stream(6, "open")).notes["rank"]
        for snr_db in (0.0, 30.0)
    )
    assert low.tolist() == [1, 1, 1, 1]
    assert high.tolist() == [2, 2, 2, 2]


def test_a_rank_that_the_link_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="rank is 'best' or a number"):
        SeparateTransmitter("1/3", rank=0)
    with pytest.raises(ValueError, match="front end has 2 streams"):
        link_of(2, SVD(), rank=3).transmit(image(), 5.0, stream(0, "x"))
