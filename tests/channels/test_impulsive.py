"""Noise that comes in impulses."""

from __future__ import annotations

import math

import pytest
import torch

from channels import AWGN, Impulsive, PerfectCSI, PilotCSI, Rayleigh
from channels.units import db_to_linear, snr_db_to_n0
from semsim import Link
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.phy.frontend import IRC, LMMSE
from semsim.seeds import stream

N0 = 0.1


def test_impulses_are_as_many_as_long_and_as_strong_as_stated() -> None:
    channel = Impulsive(0.2, -7.0, 5, channel=Rayleigh(2, 2))
    items, uses = 400, 500
    state = channel.draw(items, uses, stream(1, "state"))
    hit = state.stages[1].h[:, 0, 0].real > 0
    assert torch.equal(hit[:, ::5], hit[:, 4::5])  # whole bursts
    bursts = items * uses / 5
    assert abs(int(hit[:, ::5].sum()) - 0.2 * bursts) < 5 * math.sqrt(0.2 * 0.8 * bursts)
    silence = torch.zeros(items, 2, uses, dtype=torch.complex64)
    power = channel(silence, state, None, stream(1, "noise")).abs().square()
    assert power[~hit[:, None].expand_as(power)].max() == 0
    strong = power[hit[:, None].expand_as(power)].double()
    error = strong.std() / math.sqrt(len(strong))
    assert abs(strong.mean() - db_to_linear(7.0)) < 5 * error
    assert state.interference == pytest.approx(0.2 * db_to_linear(7.0))


def test_perfect_csi_knows_which_uses_are_hit_and_others_the_mean() -> None:
    channel = Impulsive(0.3, 0.0)
    state = channel.draw(2, 50, stream(1, "state"))
    hit = state.stages[1].h[:, 0, 0].real
    n0 = torch.full((2,), N0)
    perfect = PerfectCSI()(state, n0, stream(1, "csi"))
    torch.testing.assert_close(perfect.covariance[:, 0, 0].real, N0 + hit.double())
    torch.testing.assert_close(perfect.n0, n0 + 0.3)
    assert PilotCSI()(state, n0, stream(1, "csi")).covariance is None


def test_whitening_leaves_each_use_its_own_noise() -> None:
    channel = Impulsive(0.3, 0.0)
    state = channel.draw(2, 50, stream(1, "state"))
    csi = PerfectCSI()(state, torch.full((2,), N0), stream(1, "csi"))
    y = channel(torch.ones(2, 1, 50) + 0j, state, None, stream(1, "noise"))
    _, after = IRC().combine(y, csi)
    torch.testing.assert_close(after.n0[:, 0], N0 + state.stages[1].h[:, 0, 0].real)


def test_bit_errors_follow_the_closed_form() -> None:
    """QPSK is decided by signs, whatever the receiver knows: the mean over both noises.

    The two bits of a symbol share a hit: errors are counted as symbols of 0, 1 or 2 of them.
    """
    snr_db, sir_db, rate, bits, items = 7.0, -3.0, 0.1, 2000, 100
    channel = Impulsive(rate, sir_db)
    link = Link(UncodedTransmitter(2), channel, UncodedReceiver(2), frontend=LMMSE())
    source = torch.randint(2, (items, bits), generator=stream(1, "bits")).float()
    sent = link.transmit(source, snr_db, stream(1, "link"))
    wrong = (sent.estimate != source).double().view(items, -1, 2).mean(dim=2)
    powers = (snr_db_to_n0(snr_db), snr_db_to_n0(snr_db) + db_to_linear(-sir_db))
    clean, hit = (0.5 * math.erfc(math.sqrt(0.5 / power)) for power in powers)
    expected = (1 - rate) * clean + rate * hit
    error = float(wrong.std()) / math.sqrt(wrong.numel())
    assert abs(float(wrong.mean()) - expected) < 5 * error


def test_the_bound_fills_the_uses_that_are_not_hit() -> None:
    """With weak noise and strong impulses all power goes where none are, as water does."""
    snr_db, rate, items, uses = 10.0, 0.25, 40, 512
    transmitter = BoundTransmitter("1/6", codec="jpeg", rate="per_draw")
    link = BoundLink(transmitter, Impulsive(rate, -10.0))
    source = torch.rand(items, 3, 32, 32, generator=stream(1, "image"))
    sent = link.transmit(source, snr_db, stream(1, "x"))
    bits = sent.notes["capacity_bits"].double() / uses
    n0 = snr_db_to_n0(snr_db)
    free = torch.linspace(0.5, 1, uses // 2 + 1, dtype=torch.float64)  # shares of uses not hit
    possible = free * torch.log2(1 + 1 / (free * n0))
    assert (bits[:, None] - possible).abs().min(dim=1).values.max() < 1e-5
    expected = (1 - rate) * math.log2(1 + 1 / ((1 - rate) * n0))
    assert abs(float(bits.mean()) - expected) < 5 * float(bits.std()) / math.sqrt(items)


def test_rate_0_is_the_channel_beneath() -> None:
    x = torch.randn(3, 1, 40, dtype=torch.complex64, generator=stream(1, "x"))
    channel = Impulsive(0.0, -10.0)
    state = channel.draw(3, 40, stream(1, "state"))
    torch.testing.assert_close(channel(x, state, None, stream(1, "noise")), x)
    assert isinstance(channel.channel, AWGN)
    assert state.interference == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 1.5, "sir_db": 0.0}, r"rate lies in \[0, 1\], got 1.5"),
        ({"rate": 0.1, "sir_db": math.nan}, "sir_db lies in"),
        ({"rate": 0.1, "sir_db": 0.0, "burst_uses": 0}, "burst_uses is a whole number"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Impulsive(**arguments)


def test_gains_at_other_moments_are_those_of_the_channel_beneath() -> None:
    still = Impulsive(0.5, 0.0).draw(2, 12, stream(1, "state"))
    assert not still.moves  # a late report of it would tell nothing of age
    moving = Impulsive(0.5, 0.0, channel=Rayleigh(speed_mps=30.0)).draw(2, 12, stream(1, "state"))
    assert moving.moves
    gains = moving.gains(torch.tensor([0.0, 1e-3], dtype=torch.float64))
    assert gains.shape[:4] == (2, 1, 1, 2)
    torch.testing.assert_close(
        gains[:, :, :, 0].expand(2, 1, 1, 12), moving.h.expand(2, 1, 1, 12), rtol=1e-4, atol=1e-5
    )
    before = moving.earlier(1e-3)
    torch.testing.assert_close(before.covariance, moving.covariance)


def test_a_transmitter_expects_what_a_receiver_meets() -> None:
    """Impulses do not move what h is; probes still span the item, and no use stands for all."""
    source = torch.nn.functional.interpolate(
        torch.rand(8, 3, 6, 6, generator=stream(1, "image")), 64, mode="bicubic"
    ).clamp(0, 1)
    for frontend in (LMMSE(), IRC()):
        link = SeparateLink(
            SeparateTransmitter("1/3", codec="webp", engine="ldpc"), Impulsive(0.05, -3.0),
            frontend=frontend,
        )  # fmt: skip
        sent = link.transmit(source, 8.0, stream(1, "link"))
        assert sent.notes["odds"].min() > 0.5
        assert sent.notes["decoded"].mean() > 0.5
        bound = BoundLink(BoundTransmitter("1/3", codec="webp"), link.channel, frontend=frontend)
        most = bound.transmit(source, 8.0, stream(1, "link"))
        assert most.notes["decoded"].mean() == 1
        assert (sent.notes["bits"] <= most.notes["capacity_bits"]).all()
