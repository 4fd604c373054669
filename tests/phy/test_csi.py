"""What each end believes of the channel: error variances, ageing, and what it costs."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import CSI, Channel, ChannelState, complex_normal
from channels.cascade import Cascade
from channels.csi import CSISource, FeedbackCSI, NoCSI, Overhead, PerfectCSI, PilotCSI, remember
from channels.doppler import SPEED_OF_LIGHT, clarke, doppler_hz
from channels.erasure import Erasure
from channels.fading import Rayleigh
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import TDL
from channels.waveform import Waveform
from semsim.seeds import stream


def z_score(values: Tensor, mean: float) -> float:
    values = values.flatten().double()
    return float((values.mean() - mean) / (values.std() / math.sqrt(values.numel())))


def fading(
    batch: int,
    tx: int = 2,
    rx: int = 2,
    *,
    blocks: int = 1,
    coherence: int = 10,
    interference: float = 0.0,
) -> ChannelState:
    h = complex_normal((batch, rx, tx, blocks), stream(1, "h"))
    h = h if blocks == 1 else h.repeat_interleave(coherence, dim=-1)
    return ChannelState(h, coherence, interference)


@pytest.mark.parametrize("snr_db", [0, 10])
@pytest.mark.parametrize("per_block", [2, 8])
@pytest.mark.parametrize("interference", [0.0, 0.3])
def test_pilots_err_as_their_closed_forms_say(
    snr_db: int, per_block: int, interference: float
) -> None:
    state = fading(20_000, interference=interference)
    n0 = torch.full((20_000,), 10 ** (-snr_db / 10))
    variance = (float(n0[0]) + interference) * 2 / per_block
    for estimator, expected in {"ls": variance, "lmmse": variance / (1 + variance)}.items():
        believed = PilotCSI(per_block, estimator)(state, n0, stream(2, "pilots"))
        assert abs(z_score((believed.h - state.h).abs().square(), expected)) < 5
        torch.testing.assert_close(believed.n0, n0 + interference + expected)


def test_lmmse_never_errs_more_than_least_squares() -> None:
    state, n0 = fading(2000), torch.logspace(2, -4, 2000)
    ls, lmmse = (
        (PilotCSI(2, kind)(state, n0, stream(3, "pilots")).h - state.h).abs().square().sum()
        for kind in ("ls", "lmmse")
    )
    assert lmmse < ls


def test_an_lmmse_estimate_is_uncorrelated_with_its_error() -> None:
    state, n0 = fading(20_000), torch.full((20_000,), 0.5)
    h = PilotCSI(2, "lmmse")(state, n0, stream(4, "pilots")).h
    assert abs(z_score((h.conj() * (h - state.h)).real, 0)) < 5


def test_each_coherence_block_has_one_estimate_of_its_own() -> None:
    state = ChannelState(fading(50, blocks=4).h[..., :37], 10)  # the last block is cut short
    h = PilotCSI(4)(state, torch.full((50,), 0.1), stream(5, "pilots")).h
    assert h.shape == state.h.shape
    for first in (0, 10, 20, 30):
        block = h[..., first : first + 10]
        assert (block == block[..., :1]).all()
    assert (h[..., 0] != h[..., 10]).all()


@pytest.mark.parametrize("estimator", ["ls", "lmmse"])
@pytest.mark.parametrize(
    "channel",
    [
        PhaseNoise(1e3, 1e6, antennas=2),
        PhaseNoise(30.0, 1e6),
        CarrierOffset(1e-3),
        Cascade([Rayleigh(2, 2), PhaseNoise(1e3, 1e6, antennas=2)]),
        Interference(10.0, channel=PhaseNoise(1e3, 1e6)),
        Cascade([Rayleigh(coherence=40), PhaseNoise(100.0, 1e6)]),
        Cascade([Rayleigh(coherence=16), PhaseNoise(100.0, 1e6)]),
        Cascade([CarrierOffset(1e-3), CarrierOffset(5e-4), PhaseNoise(100.0, 1e6)]),
        Erasure(0.0, 40, channel=PhaseNoise(100.0, 1e6)),
        Waveform([PhaseNoise(30.0)], subcarriers=12),
        Waveform([PhaseNoise(100.0)], subcarriers=12),
        Waveform([PhaseNoise(1e3, antennas=2)], subcarriers=12),
        Waveform([Clipping(6.0), CarrierOffset(offset_hz=300.0)], subcarriers=12),
        Erasure(0.0, 40, channel=Waveform([PhaseNoise(100.0)], subcarriers=12)),
    ],
    ids=[
        "walk", "slow walk", "turn", "fading", "interferer", "blocks of 8", "blocks of 16",
        "two turns", "packets", "signal", "signal that walks", "signal that walks fast",
        "signal that turns", "packets of a signal",
    ],
)  # fmt: skip
def test_drift_within_a_block_is_expected_and_not_given(channel: Channel, estimator: str) -> None:
    items, n0 = 2000, torch.full((2000,), 0.02)
    state = channel.draw(items, 150, stream(6, "drift"))
    assert state.coherence < 150 or state.drift > 0
    believed = PilotCSI(2, estimator)(state, n0, stream(6, "pilots"))
    assert (believed.n0 == believed.n0[0]).all()  # no item's own drift is known
    found = (believed.h - state.h).abs().square().sum(dim=2).mean(dim=(1, 2))
    claimed = (believed.n0 - n0 - state.interference) * state.h.shape[2]
    assert abs(z_score(found / claimed, 1)) < 5


def test_a_stretch_drifts_as_far_as_it_reaches() -> None:
    state = PhaseNoise(100.0, 1e6).draw(1, 256, stream(6, "drift"))
    half, whole = (state.during(0, uses).drift for uses in (128, 256))
    assert half == pytest.approx(PhaseNoise(100.0, 1e6).draw(1, 128, stream(6, "x")).drift)
    assert half == pytest.approx(whole / 2, rel=0.05)  # phases walk as far as they have time to
    assert PhaseNoise(100.0, tracked=False).draw(1, 256, stream(6, "x")).drift == 0


def test_pilots_show_the_gain_in_the_middle_of_their_block() -> None:
    h = torch.arange(10).to(torch.complex64)[None, None, None]
    believed = PilotCSI(1)(ChannelState(h, 4), torch.full((1,), 1e-12), stream(6, "pilots")).h
    torch.testing.assert_close(
        believed.real.round().flatten(), torch.tensor(4 * [2.0] + 4 * [6.0] + 2 * [9.0])
    )


def test_a_lost_packet_is_known_to_be_lost() -> None:
    h = fading(3, blocks=2).h.clone()
    h[..., :10] = 0
    believed = PilotCSI(2)(ChannelState(h, 10), torch.ones(3), stream(14, "pilots")).h
    assert (believed[..., :10] == 0).all()
    assert (believed[..., 10:] != h[..., 10:]).all()


@pytest.mark.parametrize("bits", [0, 33, 70, 8.0])
def test_a_report_has_no_more_bits_than_one_without_quantisation(bits: object) -> None:
    with pytest.raises(ValueError, match=r"bits .* got .*without quantisation leave bits out"):
        FeedbackCSI(bits)
    FeedbackCSI(32)


@pytest.mark.parametrize(
    ("blocks", "coherence", "uses", "expected"), [(1, 100, 100, 1), (10, 10, 95, 10), (7, 1, 7, 7)]
)
def test_overhead_counts_every_block(blocks: int, coherence: int, uses: int, expected: int) -> None:
    state = fading(2, tx=2, rx=3, blocks=blocks, coherence=coherence)
    state = ChannelState(state.h[..., :uses], coherence)
    assert PilotCSI(4).overhead(state, uses, 2) == Overhead(pilot_uses=4 * expected)
    assert FeedbackCSI(5).overhead(state, uses, 2) == Overhead(feedback_bits=5 * 12 * expected)
    assert FeedbackCSI().overhead(state, uses, 2) == Overhead(feedback_bits=32 * 12 * expected)
    for free in (PerfectCSI(), NoCSI()):
        assert free.overhead(state, uses, 2) == Overhead(0.0, 0.0)


def test_perfect_and_no_csi_both_know_the_mean_noise() -> None:
    state, n0 = fading(4, interference=0.5), torch.full((4,), 0.1)
    for source, h in ((PerfectCSI(), state.h), (NoCSI(), None)):
        believed = source(state, n0, stream(7, "csi"))
        assert believed.h is h
        torch.testing.assert_close(believed.n0, torch.full((4,), 0.6))


def quantiser_error(bits: int) -> float:
    """Return the mean squared error per coefficient of variance 1/2, by integration."""
    x = torch.linspace(-8, 8, 2_000_001, dtype=torch.float64) * math.sqrt(0.5)
    largest = 1.4 * math.sqrt(0.5 * bits)
    step = 2 * largest / 2**bits
    centres = (torch.arange(2**bits, dtype=torch.float64) + 0.5) * step - largest
    nearest = centres[torch.bucketize(x, (centres[1:] + centres[:-1]) / 2)]
    density = torch.exp(-x.square()) / math.sqrt(math.pi)
    return float(((x - nearest).square() * density).sum() * (x[1] - x[0]))


def test_feedback_errs_as_its_quantiser_does_and_6_db_less_per_bit() -> None:
    state, n0 = fading(20_000), torch.full((20_000,), 0.1)
    received, errors = PerfectCSI()(state, n0, stream(8, "rx")), []
    for bits in range(1, 9):
        told = FeedbackCSI(bits)(state, n0, stream(8, "tx"), received)
        expected = 2 * quantiser_error(bits)
        z = z_score((told.h - state.h).abs().square(), expected)
        assert z < 5
        assert z > -5 or bits == 8  # ruled by values so rare that a mean may lack them
        errors.append(expected)
        assert told.h.real.unique().numel() <= 2**bits
    drops = [10 * math.log10(a / b) for a, b in pairwise(errors[3:])]
    assert all(5 < drop < 6.03 for drop in drops)  # a wider range takes 10 log10((b + 1) / b)


def test_the_quantiser_is_near_the_best_uniform_one() -> None:
    best = (0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041)  # Max (1960), table II
    for bits, error in enumerate(best, 1):
        assert error < 2 * quantiser_error(bits) * 1.001 < 1.04 * error


@pytest.mark.parametrize(("delay_s", "expected"), [(1e-3, 0.903713), (5e-3, -0.304242)])
def test_late_feedback_is_correlated_as_clarke_says(delay_s: float, expected: float) -> None:
    # J0(0.2 pi) and J0(pi) from Abramowitz and Stegun, table 9.1
    channel = Rayleigh(2, 2, speed_mps=SPEED_OF_LIGHT * 100 / 3e9, carrier_hz=3e9)  # 100 Hz
    told, h = late(channel, PerfectCSI(), delay_s)
    assert abs(z_score((told * h.conj()).real, expected)) < 5
    assert abs(z_score((told - h).abs().square(), 2 * (1 - expected))) < 5
    assert abs(z_score((expected * told - h).abs().square(), 1 - expected**2)) < 5
    assert abs(z_score(told.abs().square(), 1)) < 5


def late(channel: Channel, receiver: CSISource, delay_s: float) -> tuple[Tensor, Tensor]:
    """Return what the transmitter is told and what is true, for 20000 items at 3 dB."""
    n0, generator = torch.full((20_000,), 0.5), stream(9, "late")
    state = channel.draw(20_000, 4, generator)
    received = remember(receiver, receiver(state, n0, generator), state, n0, generator)
    return FeedbackCSI(delay_s=delay_s)(state, n0, generator, received).h, state.h


@pytest.mark.parametrize("estimator", ["ls", "lmmse"])
def test_a_late_report_is_an_estimate_of_the_channel_of_then(estimator: str) -> None:
    told, h = late(Rayleigh(speed_mps=30.0), PilotCSI(1, estimator), 2e-3)
    rho = float(clarke(torch.tensor(2e-3), doppler_hz(30.0, 3.5e9)))
    shrink = 1 if estimator == "ls" else 1 / 1.5
    assert abs(z_score((told * h.conj()).real, shrink * rho)) < 5
    assert abs(z_score(told.abs().square(), shrink**2 * 1.5)) < 5


def test_a_report_of_a_channel_at_rest_does_not_age() -> None:
    for channel in (Rayleigh(), AWGN(), TDL(subcarriers=6), CarrierOffset(0.01)):
        with pytest.raises(ValueError, match=r"delay_s=0.005 has no effect.*set speed_mps"):
            late(channel, PerfectCSI(), 5e-3)
    state, n0 = Rayleigh(speed_mps=3.0).draw(2, 4, stream(1, "h")), torch.ones(2)
    with pytest.raises(ValueError, match="has no past to report"):
        FeedbackCSI(delay_s=1e-3)(state, n0, stream(1, "tx"), CSI(state.h, n0))


def test_prompt_feedback_in_floats_is_the_belief_of_the_receiver() -> None:
    state, n0 = fading(5, blocks=3), torch.full((5,), 0.1)
    received = PilotCSI(4)(state, n0, stream(10, "rx"))
    told = FeedbackCSI()(state, n0, stream(10, "tx"), received)
    torch.testing.assert_close(told.h, received.h)
    torch.testing.assert_close(told.n0, received.n0)


@pytest.mark.parametrize("source", [PilotCSI(4)])
def test_the_generator_alone_decides(source: nn.Module) -> None:
    state, n0 = fading(3), torch.full((3,), 0.1)
    received = CSI(state.h, n0)
    first, again, other = (
        source(state, n0, stream(11, label), received).h for label in ("a", "a", "b")
    )
    assert (first == again).all()
    assert (first != other).any()
    assert not source.state_dict()


def test_too_few_pilots_are_refused() -> None:
    state = fading(1, tx=4)
    with pytest.raises(ValueError, match="set per_block to 4 or more"):
        PilotCSI(2)(state, torch.ones(1), stream(12, "pilots"))
    with pytest.raises(ValueError, match="set per_block to 4 or more"):
        PilotCSI(2).overhead(state, 10, 4)


def test_feedback_of_nothing_is_refused() -> None:
    state, n0 = fading(1), torch.ones(1)
    for received in (None, CSI(None, n0)):
        with pytest.raises(ValueError, match=r"set csi\.rx to perfect or pilots"):
            FeedbackCSI()(state, n0, stream(13, "tx"), received)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: PilotCSI(0), "per_block is a whole number"),
        (lambda: PilotCSI(4, "mmse"), "estimator is one of ls, lmmse"),
        (lambda: FeedbackCSI(0), "bits is a whole number"),
        (lambda: FeedbackCSI(delay_s=-1), "delay_s lies in"),
    ],
)
def test_wrong_settings_are_named(build: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build()
