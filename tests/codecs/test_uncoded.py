"""Uncoded QAM errs as often as the closed forms say."""

from __future__ import annotations

import pytest

from channels import AWGN, Rayleigh
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.metrics.signal import BER
from semsim.payloads.bits import Bits
from semsim.phy import theory


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
