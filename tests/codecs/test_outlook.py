"""What the transmitter makes of limited knowledge: never less than of none, all of perfect."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.base import CSI, Channel
from channels.csi import CSISource, FeedbackCSI, MismatchedCSI, NoCSI, PerfectCSI, PilotCSI
from channels.fading import Rayleigh
from channels.interference import Interference
from channels.ofdm import TDL
from semsim.codecs.outlook import Outlook, Prospect
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.sounding import Sounding
from semsim.phy.bler import waterfall
from semsim.phy.frontend import LMMSE, SVD
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.rank import ways
from semsim.seeds import stream
from semsim.types import Transmission

ITEMS = 96


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Keep the user's cache out of the tests, and one for all of them."""
    folder: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMSIM_CACHE", str(folder))
        yield


def source() -> Tensor:
    """Make one smooth random image, ITEMS times."""
    coarse = torch.rand(1, 3, 6, 6, generator=stream(0, "images"))
    image = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1)
    return image.expand(ITEMS, -1, -1, -1)


def send(
    channel: Channel, csi_tx: CSISource, snr_db: float, times: int = 1, **ends: object
) -> Transmission:
    """Send all items; SVD where several antennas meet a transmitter that knows a channel."""
    several = channel.num_tx > 1 and not isinstance(csi_tx, NoCSI)
    link = SeparateLink(
        SeparateTransmitter("1/3", codec="webp"),
        channel,
        csi_tx=csi_tx,
        frontend=SVD(water_filling=True) if several else LMMSE(),
        **ends,
    )
    return link.transmit(source().repeat(times, 1, 1, 1), snr_db, stream(1, "limited"))


def psnr_db(sent: Transmission) -> Tensor:
    """Return the PSNR per image, dB."""
    return -10 * torch.log10((source() - sent.estimate).square().mean(dim=(1, 2, 3)))


def gain(sent: Transmission, other: Transmission) -> tuple[float, float]:
    """Return the mean paired difference and its standard error, dB."""
    values = psnr_db(sent) - psnr_db(other)
    return float(values.mean()), float(values.std()) / math.sqrt(ITEMS)


@pytest.mark.parametrize(
    ("channel", "snr_db"),
    [
        (Rayleigh(), 4.0),
        (Rayleigh(), 13.0),
        (Rayleigh(num_tx=2, num_rx=2), 7.0),
        (TDL("A", 1e-7), 10.0),
    ],
)
def test_feedback_is_never_worse_than_none_and_grows_into_perfect_knowledge(
    channel: Channel, snr_db: float
) -> None:
    none, perfect = send(channel, NoCSI(), snr_db), send(channel, PerfectCSI(), snr_db)
    for bits in (1, 2, 3, 4, 6, 8):
        told = send(channel, FeedbackCSI(bits), snr_db)
        more, error = gain(told, none)
        assert more > -2 * error - 0.1, f"{bits} bits"
        if bits == 3:  # 1.9 dB below no knowledge before, on 1x1 at 13 dB
            assert more > 2 * error
    missing, error = gain(perfect, told)
    assert abs(missing) < 2 * error + 0.1


@pytest.mark.parametrize(
    ("csi_tx", "channel"),
    [
        (FeedbackCSI(8, delay_s=1e-3), Rayleigh(speed_mps=5.0)),
        (FeedbackCSI(8, delay_s=1e-2), Rayleigh(speed_mps=5.0)),
        (FeedbackCSI(4, delay_s=3e-3), Rayleigh(num_tx=2, num_rx=2, speed_mps=5.0)),
        (FeedbackCSI(4, delay_s=1e-2), TDL("A", 1e-7, speed_mps=5.0)),
        (PilotCSI(1), Rayleigh()),
        (PilotCSI(2, "lmmse"), Rayleigh(num_tx=2, num_rx=2)),
        (MismatchedCSI(), Rayleigh()),
        (MismatchedCSI(), Rayleigh(num_tx=2, num_rx=2)),  # its belief decides the powers
    ],
)
def test_late_estimated_or_wrong_knowledge_is_never_worse_than_none(
    csi_tx: CSISource, channel: Channel
) -> None:
    more, error = gain(send(channel, csi_tx, 10.0), send(channel, NoCSI(), 10.0))
    assert more > -2 * error - 0.1


@pytest.mark.parametrize(
    ("channel", "ends"),
    [
        (Rayleigh(), {"csi_tx": FeedbackCSI(3)}),
        (Rayleigh(num_tx=2, num_rx=2), {"csi_tx": FeedbackCSI(2)}),
        (Rayleigh(), {"csi_tx": PilotCSI(1), "csi_rx": PilotCSI(4)}),
        (Rayleigh(speed_mps=5.0), {"csi_tx": FeedbackCSI(6, delay_s=3e-3)}),
        (Interference(10.0, channel=Rayleigh()), {"csi_tx": PerfectCSI()}),
        (Rayleigh(), {"csi_tx": NoCSI()}),
        (Rayleigh(num_tx=2, num_rx=2), {"csi_tx": PerfectCSI()}),  # idle streams say nothing
    ],
)
def test_images_arrive_as_often_as_the_transmitter_expects(
    channel: Channel, ends: dict[str, object]
) -> None:
    sent = send(channel, snr_db=8.0, **ends)
    error = sent.notes["decoded"] - sent.notes["odds"]
    spread = (sent.notes["odds"] * (1 - sent.notes["odds"])).sum().sqrt() / ITEMS
    # the forecast itself comes from a few hundred probes: 0.04 beside the sampling of the items
    assert abs(float(error.mean())) < 4 * float(spread) + 0.04


def test_two_streams_on_an_estimated_channel_arrive_as_often_as_expected() -> None:
    # the receiver takes wrong gains for right ones: 16-QAM shrinks, which is no noise
    ends = {"csi_tx": FeedbackCSI(), "csi_rx": PilotCSI(8)}
    sent = send(Rayleigh(num_tx=4, num_rx=2), snr_db=10.0, times=5, **ends)
    odds, decoded = sent.notes["odds"], sent.notes["decoded"]
    spread = float((odds * (1 - odds)).sum().sqrt()) / len(odds)
    assert sent.notes["rank"].double().mean() > 1.5
    assert abs(float((decoded - odds).mean())) < 4 * spread + 0.01  # was 0.05 to 0.06 too sure


def test_a_single_choice_is_no_forecast() -> None:
    link = SeparateLink(SeparateTransmitter("1/3", codec="webp", mcs=3), Rayleigh())
    assert "odds" not in link.transmit(source(), 8.0, stream(1, "limited")).notes


def prospect(believed: Tensor, met: Tensor, own: float, alike: Tensor) -> Prospect:
    """Return what one item that believes ``own`` expects of these probes, [M], all in dB."""
    noise = [10 ** (-snr_db / 10)[:, None, None] for snr_db in (believed, met)]
    way = ways(LMMSE(), CSI(None, torch.ones(1)), 1, 1)[0]
    return Prospect(way, torch.full((1, 1, 1), 10 ** (-own / 10)), Sounding(*noise), alike[None])


def test_a_belief_is_worth_what_it_is_among_those_alike() -> None:
    """Silent streams are foreseen exactly; that says nothing of the others."""
    believed, met = 10 + 10 * torch.rand(2, 400, generator=stream(0, "apart"))
    quiet = torch.full((400,), -60.0)
    apart = torch.cat([quiet, believed]), torch.cat([quiet, met])
    cut = segment(512, mcs_by_index(15))
    met_by = float((met > waterfall(15, cut.coded)[0]).double().mean())
    for own in (10.0, 20.0):  # by chance a slope of 0.05 is found, one sigma: 0.25 dB, 0.025
        alike = prospect(*apart, own, torch.arange(400, 800))
        assert abs(float(alike.arrives([0], [cut]).mean()) - met_by) < 0.1


def test_a_belief_must_promise_more_than_statistics_by_more_than_chance() -> None:
    met = 20 * torch.rand(400, generator=stream(0, "doubt"))
    believed = met + torch.rand(400, generator=stream(0, "error"))
    odds = torch.tensor([[0.0, 0.9, 1.0]], dtype=torch.float64)
    alike = prospect(believed, met, 10.0, torch.arange(100))
    error = math.sqrt(0.9 * 0.1 * (1 / 100 - 1 / 400))
    torch.testing.assert_close(alike.at_least(odds), odds - error * (odds == 0.9))
    every = prospect(believed, met, 10.0, torch.arange(400))
    exact = prospect(met, met, 10.0, torch.arange(1))
    for sure in (every, exact, replace(alike, believed=None)):
        torch.testing.assert_close(sure.at_least(odds), odds)


def test_worthless_knowledge_ends_in_the_statistical_choice() -> None:
    wrong, none = (send(Rayleigh(), csi, 8.0) for csi in (MismatchedCSI(), NoCSI()))
    assert torch.equal(wrong.notes["mcs"], none.notes["mcs"])
    assert torch.equal(wrong.notes["odds"], none.notes["odds"])


@pytest.mark.parametrize("channel", [AWGN(), Rayleigh(), Rayleigh(num_tx=2, num_rx=2)])
def test_perfect_knowledge_is_found_to_be_exact_from_few_probes(channel: Channel) -> None:
    frontend = SVD() if channel.num_tx > 1 else LMMSE()
    outlook = Outlook(channel, PerfectCSI(), PerfectCSI(), frontend)
    state = channel.draw(3, 512, stream(2, "exact"))
    csi = PerfectCSI()(state, torch.full((3,), 0.1), stream(2, "csi"))
    for prospect in outlook.prospects(csi, 10.0, 512):
        assert prospect.sounding.is_exact()
        assert len(prospect.sounding.met) <= 32
        assert prospect.alike.shape == (3, 1)
