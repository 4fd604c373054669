"""Metrics of bits and symbols against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from channels.units import snr_db_to_n0
from semsim.metrics.base import Outcome
from semsim.metrics.decision import Accuracy
from semsim.metrics.signal import BER, BLER, EVM, PAPR
from semsim.seeds import stream
from semsim.types import Ledger, Transmission, Turn


def sent(x: torch.Tensor, received: torch.Tensor | None = None) -> Outcome:
    link = Transmission(x, x, Ledger(x.shape[-1]), x[:, :1], received)
    return Outcome(x, x, x, link)


def test_ber_of_flipped_bits_is_the_share_flipped() -> None:
    generator = stream(1, "flips")
    bits = torch.randint(2, (200, 1000), generator=generator).float()
    flips = torch.rand(bits.shape, generator=generator) < 0.03
    outcome = Outcome((bits - flips.float()).abs(), bits, bits)
    assert float(BER()(outcome).mean()) == pytest.approx(float(flips.float().mean()))
    z = (float(BER()(outcome).mean()) - 0.03) / math.sqrt(0.03 * 0.97 / bits.numel())
    assert abs(z) < 5


@pytest.mark.parametrize("snr_db", [0.0, 4.0, 7.0])
def test_ber_of_bpsk_equals_the_q_function(snr_db: float) -> None:
    generator = stream(2, "bpsk", snr_db)
    bits = torch.randint(2, (100, 2000), generator=generator).float()
    noise = torch.randn(bits.shape, generator=generator) * math.sqrt(snr_db_to_n0(snr_db) / 2)
    measured = float(BER()(Outcome(((2 * bits - 1 + noise) > 0).float(), bits, bits)).mean())
    p = 0.5 * math.erfc(math.sqrt(1 / snr_db_to_n0(snr_db)))
    assert abs(measured - p) < 5 * math.sqrt(p * (1 - p) / bits.numel())


def test_bler_counts_items_with_any_wrong_bit_or_those_not_decoded() -> None:
    bits = torch.zeros(3, 8)
    output = bits.clone()
    output[1, 5] = 1
    outcome = Outcome(output, bits, bits)
    assert BLER()(outcome).tolist() == [0, 1, 0]
    x = torch.ones(3, 1, 4, dtype=torch.complex64)
    link = Transmission(x, x, Ledger(4), notes={"decoded": torch.tensor([True, True, False])})
    images = torch.rand(3, 3, 4, 4)
    assert BLER()(Outcome(images, images, images, link)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_evm_in_awgn_is_one_over_the_root_of_the_snr(snr_db: float) -> None:
    generator = stream(3, "evm", snr_db)
    n0, count = snr_db_to_n0(snr_db), 50 * 4000
    bits = torch.randint(2, (2, 50, 1, 4000), generator=generator) * 2.0 - 1
    x = torch.complex(bits[0], bits[1]) / math.sqrt(2)
    noise = torch.randn(x.shape, dtype=torch.complex64, generator=generator)
    metric = EVM()
    percent = metric.combine(float(metric(sent(x, x + math.sqrt(n0) * noise)).mean()))
    # |noise|^2 is exponential: its mean over n symbols has standard error n0 / sqrt(n)
    assert percent == pytest.approx(100 * math.sqrt(n0), rel=5 / math.sqrt(count) / 2)


def test_evm_without_equalised_symbols_is_refused() -> None:
    x = torch.ones(1, 1, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="lmmse instead of none"):
        EVM()(sent(x, x.expand(1, 2, 4)))
    with pytest.raises(ValueError, match="keeps symbols and received"):
        EVM()(sent(x))


def test_papr_is_0_db_for_constant_modulus_and_n_for_an_impulse() -> None:
    phases = torch.rand(1, 1, 64, generator=stream(4, "phase")) * 2 * math.pi
    constant = torch.polar(torch.ones(1, 1, 64), phases)
    impulse = torch.zeros(1, 1, 64, dtype=torch.complex64)
    impulse[..., 7] = 8
    values = PAPR()(sent(torch.cat([constant, impulse])))
    assert values.tolist() == pytest.approx([0, 10 * math.log10(64)], abs=1e-5)


def test_papr_is_that_of_the_worst_antenna_and_a_silent_one_counts_for_nothing() -> None:
    x = torch.zeros(1, 3, 4, dtype=torch.complex64)
    x[0, 0] = 1
    x[0, 1, 2] = 1
    assert float(PAPR()(sent(x))) == pytest.approx(10 * math.log10(4))


def test_papr_of_turns_is_that_of_each_device() -> None:
    x = torch.zeros(1, 2, 12, dtype=torch.complex64)
    x[0, 0, :4], x[0, :, 4:] = 1, 0.3  # a source of one antenna, then a relay of two
    link = Transmission(x, x, Ledger(12), turns=(Turn(4, None), Turn(8, None)))
    assert float(PAPR()(Outcome(x, x, x, link))) == pytest.approx(0, abs=1e-5)


def test_accuracy_counts_the_largest_logit() -> None:
    logits = torch.tensor([[0.1, 0.9], [2.0, -1.0], [0.0, 1.0]])
    outcome = Outcome(logits, torch.rand(3, 3, 4, 4), torch.tensor([1, 1, 1]))
    assert Accuracy()(outcome).tolist() == [1, 0, 1]
