"""Receivers that whiten interference, against closed forms and against what they report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import CSI, Channel, complex_normal
from channels.cascade import Cascade
from channels.csi import PerfectCSI, PilotCSI
from channels.erasure import Erasure
from channels.fading import Rayleigh
from channels.interference import Interference
from channels.silence import SilenceCSI
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.payloads.bits import Bits
from semsim.phy.frontend import IRC, LMMSE, SVD
from semsim.seeds import stream

CHANNELS: list[Channel] = [
    Interference(0.0, channel=Rayleigh(1, 2)),
    Interference(-10.0, channel=Rayleigh(2, 4)),
    Interference(0.0, channel=Interference(3.0, channel=Rayleigh(1, 4))),
    Interference(0.0, channel=Rayleigh(2, 3, coherence=5)),
    Cascade([Interference(0.0, channel=Rayleigh(2, 2)), Rayleigh(2, 3, coherence="symbol")]),
    Erasure(0.3, 8, channel=Interference(0.0, channel=Rayleigh(1, 2))),
    Interference(5.0, channel=Cascade([Rayleigh(1, 2), Interference(0.0, channel=Rayleigh(2, 2))])),
    Rayleigh(2, 2),
]


def behind(csi: CSI) -> CSI:
    """Return what streams of equal power see."""
    return replace(csi, h=csi.h / csi.h.shape[2] ** 0.5)


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_what_arrives_has_the_covariance_of_the_state(channel: Channel) -> None:
    state = channel.draw(300, 40, stream(1, "state"))
    csi = PerfectCSI()(state, torch.full((300,), 0.1), stream(1, "csi"))
    x = complex_normal((300, channel.num_tx, 40), stream(1, "x")) / channel.num_tx**0.5
    y = channel(x, state, csi.n0 - state.interference, stream(1, "noise"))
    covariance = state.coloured()
    unwanted = y - torch.einsum("brtn,btn->brn", state.h.expand(-1, -1, -1, 40), x)
    lost = (unwanted == 0).all(dim=1, keepdim=True)
    eye = torch.eye(y.shape[1], dtype=torch.complex128)[None, ..., None]
    expected = (covariance + 0.1 * eye).expand(-1, -1, -1, 40)
    error = unwanted[:, :, None] * unwanted[:, None].conj() - expected
    error = torch.where(lost[:, None], 0, error).mean(dim=3)  # one of each item
    for part in (error.real, error.imag):
        assert (part.mean(0).abs() <= 5 * part.std(0) / math.sqrt(300) + 1e-9).all()
    if csi.covariance is not None:
        torch.testing.assert_close(csi.covariance, covariance + 0.1 * eye)


def reported(front_end: nn.Module, csi: CSI, y: Tensor) -> tuple[Tensor, Tensor]:
    streams, after = front_end.combine(y, behind(csi))
    return streams, after.n0


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
def test_the_reported_noise_is_what_is_left(channel: Channel) -> None:
    items = 400
    state = channel.draw(items, 40, stream(2, "state"))
    n0 = torch.full((items,), 0.1)
    csi = PerfectCSI()(state, n0, stream(2, "csi"))
    x = complex_normal((items, channel.num_tx, 40), stream(2, "x"))
    y = channel(x / channel.num_tx**0.5, state, n0, stream(2, "noise"))
    streams, left = reported(IRC(), csi, y)
    live = left < 1e5
    ratio = torch.where(live, (streams - x).abs().square() / left, 0).sum((1, 2))
    ratio = (ratio / live.sum((1, 2)).clamp_min(1))[live.any(2).any(1)]
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio))
    assert (left <= reported(LMMSE(), csi, y)[1] * (1 + 1e-4)).double().mean() > 0.6


@pytest.mark.parametrize("streams", [1, 2])
def test_the_sinr_is_that_of_the_closed_form(streams: int) -> None:
    channel = Interference(-3.0, channel=Rayleigh(streams, 4))
    state = channel.draw(50, 1, stream(3, "state"))
    n0 = torch.full((50,), 0.05)
    csi = PerfectCSI()(state, n0, stream(3, "csi"))
    _, left = reported(IRC(), csi, torch.zeros(50, 4, 1, dtype=torch.complex64))
    h = behind(csi).h[..., 0].to(torch.complex128)
    inverse = torch.linalg.inv(csi.covariance[..., 0].to(torch.complex128))
    within = torch.linalg.inv(torch.eye(streams) + h.mH @ inverse @ h)
    sinr = 1 / within.diagonal(dim1=1, dim2=2).real - 1
    torch.testing.assert_close(1 / left[..., 0].double(), sinr, rtol=1e-4, atol=1e-4)


def test_a_strong_interferer_costs_one_antenna_and_no_more() -> None:
    channel = Interference(-60.0, channel=Rayleigh(1, 3))
    state = channel.draw(20_000, 1, stream(4, "state"))
    n0 = torch.full((20_000,), 0.1)
    csi = PerfectCSI()(state, n0, stream(4, "csi"))
    _, left = reported(IRC(), csi, torch.zeros(20_000, 3, 1, dtype=torch.complex64))
    gain = 0.1 / left[:, 0, 0]  # of two antennas without interferer: gamma, mean 2, variance 2
    assert abs(gain.mean() - 2) < 5 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize("front_end", [IRC(), SVD(whiten=True)], ids=repr)
@pytest.mark.parametrize("streams", [1, 2])
def test_gradients_pass_gradcheck(front_end: nn.Module, streams: int) -> None:
    h = complex_normal((2, 3, streams, 2), stream(5, "h"), torch.complex128).requires_grad_()
    g = complex_normal((2, 3, 1), stream(5, "g"), torch.complex128)
    white = 0.1 * torch.eye(3, dtype=torch.complex128)
    covariance = (g @ g.mH + white)[..., None].requires_grad_()
    y = complex_normal((2, 3, 2), stream(5, "y"), torch.complex128).requires_grad_()

    def combine(y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        c = (c + c.conj().transpose(1, 2)) / 2
        x_hat, after = front_end.combine(y, CSI(h, torch.full((2,), 0.1).double(), covariance=c))
        return x_hat, after.n0

    assert torch.autograd.gradcheck(combine, (y, h, covariance))


def ber(link: Link, snr_db: float = 10.0) -> float:
    (row,) = evaluate(link, Bits(400, length=1000), snr_db=[snr_db], metrics=["ber"], seed=6)
    return float(row["value"])


def test_whitening_frees_a_link_of_its_interferer() -> None:
    channel = Interference(-10.0, channel=Rayleigh(1, 3))
    ends = UncodedTransmitter(), channel, UncodedReceiver()
    mrc, irc = ber(Link(*ends)), ber(Link(*ends, frontend=IRC()))
    free = ber(Link(UncodedTransmitter(), Rayleigh(1, 2), UncodedReceiver()))
    assert mrc > 0.2
    assert 0.5 * free < irc < 1.5 * free
    measured = {
        uses: ber(Link(*ends, csi_rx=SilenceCSI(uses), frontend=IRC())) for uses in (1, 8, 64)
    }
    assert mrc > measured[1] > measured[8] > 0.98 * measured[64]
    assert measured[64] < 1.2 * irc
    pilots = PilotCSI(64, "lmmse")
    blind = ber(Link(*ends, csi_rx=pilots))
    assert ber(Link(*ends, csi_rx=SilenceCSI(16, gain=pilots), frontend=IRC())) < 0.5 * blind


def test_svd_sends_past_the_interferer() -> None:
    channel = Interference(-10.0, channel=Rayleigh(3, 3))
    ends = UncodedTransmitter(), channel, UncodedReceiver()

    def rate(front_end: SVD) -> float:
        link = Link(*ends, csi_tx=PerfectCSI(), frontend=front_end)
        sent = link.transmit(torch.zeros(500, 60), 10.0, stream(7, "link"))
        p = front_end.precoder(sent.csi_tx, 3, 3)
        h = replace(sent.csi_rx, h=torch.einsum("brtn,btsn->brsn", sent.csi_rx.h, p))
        _, after = front_end.combine(torch.zeros(500, 3, 1, dtype=p.dtype), h)
        return float(torch.log2(1 + 1 / after.n0).sum(dim=1).mean())

    plain, white = rate(SVD(True)), rate(SVD(True, whiten=True))
    assert white > 1.5 * plain


@pytest.mark.parametrize("snr_db", [20.0, 100.0, 200.0, math.inf])
def test_without_noise_the_interferer_goes_entirely(snr_db: float) -> None:
    channel = Interference(0.0, channel=Rayleigh(1, 2))
    link = Link(UncodedTransmitter(), channel, UncodedReceiver(), frontend=IRC())
    assert ber(link, snr_db) < (0.01 if snr_db == 20 else 1e-4)


def test_silent_uses_are_charged_and_needed() -> None:
    state = AWGN().draw(1, 100, stream(8, "state"))
    cost = SilenceCSI(12, gain=PilotCSI(4)).overhead(state, 100, 1)
    assert cost.pilot_uses == 16
    with pytest.raises(ValueError, match="uses is a whole number of 1 or more"):
        SilenceCSI(0)


def test_in_white_noise_silence_measures_white_noise() -> None:
    state = Rayleigh(2, 2).draw(200, 1, stream(9, "state"))
    csi = SilenceCSI(200)(state, torch.full((200,), 0.3), stream(9, "csi"))
    eye = 0.3 * torch.eye(2, dtype=torch.complex128)[None, ..., None]
    assert (csi.covariance - eye).abs().mean() < 0.03
