"""Feedback reaches the closed form of Elias, and what it costs is charged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from channels import AWGN, CSI, Erasure, Rayleigh
from channels.csi import PerfectCSI
from channels.doppler import clarke
from semsim import Link, Scenario, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.separate import SeparateTransmitter
from semsim.links.feedback import SCALE_BITS, FeedbackLink
from semsim.links.frames import FramesLink
from semsim.types import Receiver, Transmission, Transmitter


class Gaussian(Transmitter):
    """Complex normal symbols as they are; the closed form asks for their own power of 1."""

    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def forward(self, source: torch.Tensor, csi: CSI, *rest: object) -> torch.Tensor:
        return source[:, None] / source.abs().square().mean(dim=1).sqrt()[:, None, None]


class Keep(Receiver):
    def forward(
        self, y: torch.Tensor, csi: CSI, shape: tuple[int, ...], *rest: object
    ) -> torch.Tensor:
        self.n0 = csi.n0.expand(y.shape)
        return y[:, 0]


def sent_over(link: Link, snr_db: float) -> tuple[Transmission, torch.Tensor]:
    """Return a transmission of 8 x 4000 symbols and the noise left in it, [B, K]."""
    source = torch.randn(8, 4000, generator=stream(3, "s"), dtype=torch.complex64)
    sent = link.transmit(source, snr_db, stream(1, "link"))
    assert sent.symbols is not None
    return sent, sent.estimate - sent.symbols[:, 0]


def closed_form(snr: float, rounds: int, back: float) -> float:
    """Return the SNR after all rounds, by the recursion of the error's variance."""
    left = 1 / (1 + snr)
    for _ in range(rounds - 1):
        beside = (left + back) / snr + back
        left = left * beside / (left + beside)
    return 1 / left - 1


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("snr_db", [0.0, 6.0])
def test_free_feedback_multiplies_what_is_left(rounds: int, snr_db: float) -> None:
    link = FeedbackLink(Gaussian(), AWGN(), Keep(), rounds=rounds)
    _, noise = sent_over(link, snr_db)
    snr = 10 ** (snr_db / 10)
    wanted = (1 + snr) ** rounds - 1
    assert closed_form(snr, rounds, 0.0) == pytest.approx(wanted)
    five_sigma = 5 / math.sqrt(32_000)
    assert noise.abs().square().mean() * wanted == pytest.approx(1, abs=five_sigma)
    assert link.receiver.n0.mean() * wanted == pytest.approx(1, abs=five_sigma)


@pytest.mark.parametrize("feedback_snr_db", [3.0, 15.0])
def test_noise_on_the_way_back_costs_what_the_recursion_says(feedback_snr_db: float) -> None:
    link = FeedbackLink(Gaussian(), AWGN(), Keep(), rounds=3, feedback_snr_db=feedback_snr_db)
    _, noise = sent_over(link, 3.0)
    wanted = closed_form(10**0.3, 3, 10 ** (-feedback_snr_db / 10))
    assert noise.abs().square().mean() * wanted == pytest.approx(1, abs=5 / math.sqrt(32_000))
    assert wanted < (1 + 10**0.3) ** 3 - 1


def test_over_fading_each_item_is_told_its_own_noise() -> None:
    link = FeedbackLink(Gaussian(), Rayleigh(), Keep(), rounds=3)
    _, noise = sent_over(link, 6.0)
    ratio = noise.abs().square().mean(dim=1) / link.receiver.n0.mean(dim=(1, 2))
    assert torch.allclose(ratio, torch.ones(8), atol=5 / math.sqrt(4000))


def test_rounds_have_unit_power_and_are_charged() -> None:
    noisy = FeedbackLink(Gaussian(), AWGN(), Keep(), rounds=3, feedback_snr_db=10.0)
    sent, _ = sent_over(noisy, 0.0)
    for part in sent.x.split(4000, dim=2):
        assert torch.allclose(part.abs().square().mean(dim=(1, 2)), torch.ones(8), atol=1e-4)
    assert sent.ledger.payload == 3 * 4000
    assert sent.ledger.feedback == 2 * 4000
    assert sent.ledger.side_info == pytest.approx(2 * SCALE_BITS)  # one bit per use at 0 dB
    free, _ = sent_over(FeedbackLink(Gaussian(), AWGN(), Keep(), rounds=3), 0.0)
    assert free.ledger.feedback == 0


def test_one_round_is_a_link_without_feedback() -> None:
    image = torch.rand(2, 3, 32, 32, generator=stream(0, "image"))
    link = FeedbackLink(AnalogTransmitter("1/6"), AWGN(), AnalogReceiver("1/6"), rounds=1)
    sent = link.transmit(image, 10.0, stream(0, "link"))
    assert sent.ledger.total == AnalogTransmitter("1/6").num_symbols((3, 32, 32))


def test_codecs_with_links_of_their_own_and_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="harq"):
        FeedbackLink(SeparateTransmitter("1/6"), AWGN())
    with pytest.raises(ValueError, match="rounds is 1 or more, got 0"):
        FeedbackLink(Gaussian(), AWGN(), Keep(), rounds=0)


def test_a_scenario_sweeps_the_rounds() -> None:
    scenario = Scenario.parse(
        {
            "payload": "photos",
            "transmitter": {"kind": "analog", "cbr": "1/6"},
            "channel": "awgn",
            "link": {"kind": "feedback"},
            "metrics": ["psnr"],
            "snr_db": [0],
            "stop": {"max_items": 2},
            "sweep": {"link.rounds": [1, 2, 3]},
        }
    )
    values = [point.scenario.check()[0]["value"] for point in scenario.points()]
    assert values == sorted(values) and values[2] > values[0] + 2


@pytest.mark.parametrize("round_s", [0.0, 4e-4, 1.2e-3])
def test_rounds_age_by_the_channel_s_own_time(round_s: float) -> None:
    channel = Rayleigh(speed_mps=30.0)
    link = FeedbackLink(Gaussian(), channel, Keep(), rounds=3, round_s=round_s)
    air = link.draw(4, torch.full((20_000,), 0.1), stream(1, "air"))
    h = torch.stack([one.state.h.flatten() for one in (air, *air.later)])
    for number in (1, 2):
        lag = torch.tensor(number * round_s, dtype=torch.float64)
        product = (h[number] * h[0].conj()).real.double()
        error = 5 * product.std() / math.sqrt(20_000)
        assert abs(product.mean() - clarke(lag, channel.doppler_hz)) < error
    anew = FeedbackLink(Gaussian(), channel, Keep(), rounds=3)
    assert torch.equal(anew.draw(4, air.n0, stream(1, "air")).state.h, air.state.h)


def test_rounds_over_one_realisation_add_up_in_it() -> None:
    link = FeedbackLink(Gaussian(), Rayleigh(), Keep(), rounds=3, round_s=1.0)  # it stands still
    sent, noise = sent_over(link, 6.0)
    snr = 10**0.6 * sent.state.h.abs().square().flatten()
    ratio = noise.abs().square().mean(dim=1) * ((1 + snr) ** 3 - 1)
    torch.testing.assert_close(ratio, torch.ones(8), atol=5 / math.sqrt(4000), rtol=0)
    with pytest.raises(ValueError, match="round_s lies in"):
        FeedbackLink(Gaussian(), Rayleigh(), Keep(), round_s=-1.0)


def test_noise_on_the_way_back_is_charged_for_each_symbol_of_all_streams() -> None:
    link = FeedbackLink(
        Gaussian(), Rayleigh(num_tx=2, num_rx=2), Keep(), rounds=3, feedback_snr_db=10.0
    )
    sent, _ = sent_over(link, 0.0)
    assert sent.ledger.payload == 3 * 2000 and sent.ledger.feedback == 2 * 4000


def test_the_transmitter_does_not_foresee_fading_of_later_rounds() -> None:
    link = FeedbackLink(Gaussian(), Rayleigh(), Keep(), csi_tx=PerfectCSI(), rounds=2)
    air = link.draw(4, torch.full((100,), 0.5), stream(1, "air"))
    first = 1 / (1 + air.state.h.abs().square().flatten() / 0.5)
    wanted = first / 3  # (1 + average SNR) = 3
    n0 = link.foreseen(air).n0[:, 0, 0]
    # compared as what is left of unit power: 1 - wanted loses digits in a deep fade, n0 with it
    torch.testing.assert_close(n0 / (1 + n0), wanted)
    still = FeedbackLink(Gaussian(), Rayleigh(), Keep(), csi_tx=PerfectCSI(), rounds=2, round_s=1.0)
    air = still.draw(4, torch.full((100,), 0.5), stream(1, "air"))
    n0 = still.foreseen(air).n0[:, 0, 0]
    torch.testing.assert_close(n0 / (1 + n0), first**2)


@pytest.mark.parametrize("link", [FeedbackLink, FramesLink])
def test_ends_of_another_class_are_refused(link: type[Link]) -> None:
    with pytest.raises(TypeError, match="derives from"):
        link(torch.nn.Identity(), AWGN(), Keep())


@pytest.mark.parametrize("snr_db", [-20.0, -60.0])
def test_a_stream_that_is_given_up_arrives_as_nothing_at_any_snr(snr_db: float) -> None:
    link, n0 = FeedbackLink(Gaussian(), Erasure(0.3, 16), Keep()), 10 ** (-snr_db / 10)
    symbols = torch.randn(8, 1, 100, generator=stream(3, "s"), dtype=torch.complex64)
    air = link.draw(100, torch.full((8,), n0), stream(1, "air"))
    arrives = sum(own.state.h.abs() for own in (air, *air.later))[:, 0] > 0
    there = link.carry(symbols, air)
    assert torch.equal(there.received != 0, arrives) and there.received.isfinite().all()
    told = there.csi.n0[~arrives] / n0  # two rounds, each with a noise of 1e6 n0
    assert ((told > 1e5) & (told < 1e6)).all() and not arrives.all()
    given_up = replace(air, csi_tx=CSI(None, torch.full((8,), 1e8)))
    both = torch.full((8,), 1 / (1e-8 + 1 / n0))  # the SNR of the second round is that on average
    torch.testing.assert_close(link.foreseen(given_up).n0, both)
