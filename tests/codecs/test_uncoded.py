"""Uncoded QAM errs as often as the closed forms say."""

from __future__ import annotations

import math

import pytest
from torch import nn

from channels import AWGN, PerfectCSI, Rayleigh, Rician
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.metrics.signal import BER
from semsim.payloads.bits import Bits
from semsim.phy import theory
from semsim.phy.frontend import LMMSE, RZF, SVD, ZF


@pytest.mark.parametrize(("bits", "order"), [(2, 4), (4, 16)])
@pytest.mark.parametrize("channel", ["awgn", "rayleigh"])
def test_uncoded_bits_err_as_often_as_theory_says(bits: int, order: int, channel: str) -> None:
    model = AWGN() if channel == "awgn" else Rayleigh(coherence="symbol")
    expected = {"awgn": theory.qam_ber_awgn, "rayleigh": theory.qam_ber_rayleigh}[channel]
    link = Link(UncodedTransmitter(bits), model, UncodedReceiver(bits))
    payload = Bits(400, length=1001)  # odd: the last symbol is filled up
    for row in evaluate(link, payload, snr_db=[9.0, 12.0], metrics=[BER()], batch_size=200):
        sigma = (row["ci_high"] - row["value"]) / 1.966  # Student's t with 399 degrees of freedom
        assert abs(row["value"] - expected(row["snr_db"], order)) < 5 * sigma


def test_an_image_is_no_payload_for_uncoded_bits() -> None:
    with pytest.raises(ValueError, match="uncoded sends bits"):
        UncodedTransmitter().num_symbols((3, 32, 32))


@pytest.mark.parametrize(("bits", "order"), [(4, 16), (6, 64), (8, 256)])
@pytest.mark.parametrize("snr_db", [0.0, 5.0])
def test_at_low_snr_it_decides_as_the_closed_forms_do(bits: int, order: int, snr_db: float) -> None:
    """A decision by LLRs errs 1 % less often on 16-QAM in Rayleigh fading at 5 dB."""
    for channel, theory_of in (
        (AWGN(), theory.qam_ber_awgn),
        (Rayleigh(coherence="symbol"), theory.qam_ber_rayleigh),
        (Rician(3.0, coherence="symbol"), lambda s, o: theory.qam_ber_rician(s, 3.0, o)),
    ):
        link = Link(UncodedTransmitter(bits), channel, UncodedReceiver(bits))
        payload = Bits(1000, length=2400)
        (row,) = evaluate(link, payload, snr_db=[snr_db], metrics=[BER()], batch_size=500)
        sigma = (row["ci_high"] - row["value"]) / 1.962
        assert sigma < 0.002 * row["value"]
        assert abs(row["value"] - theory_of(snr_db, order)) < 5 * sigma


@pytest.mark.parametrize("antennas", [1, 2, 4])
@pytest.mark.parametrize("frontend", [LMMSE(), ZF(), SVD(), SVD(water_filling=True), RZF()])
def test_without_noise_no_bit_is_wrong(antennas: int, frontend: nn.Module) -> None:
    link = Link(
        UncodedTransmitter(),
        Rayleigh(antennas, antennas),
        UncodedReceiver(),
        csi_tx=PerfectCSI(),
        frontend=frontend,
    )
    snrs = [100.0, 160.0, 180.0, 200.0, math.inf]
    rows = evaluate(link, Bits(100, length=1000), snr_db=snrs, metrics=["ber", "evm"])
    for row in rows:
        assert row["value"] < (1e-12 if row["metric"] == "ber" else 0.01)  # EVM in percent
