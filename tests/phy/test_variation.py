"""What a block is worth whose bits are not equally good."""

from __future__ import annotations

import math

import pytest
import torch

from semsim.phy.bler import measured_mcs
from semsim.phy.ldpc import Segmentation, SoftBlocks, ldpc_modulate
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_effective_snr_db, qam_llr, qam_nearest
from semsim.phy.variation import variation_loss_db, varied_snr_db
from semsim.seeds import stream

COUNT = 64


def cut_of(mcs: int) -> Segmentation:
    scheme = mcs_by_index(mcs)
    coded = 192 * 8 // scheme.bits_per_symbol * scheme.bits_per_symbol
    return Segmentation(scheme, 1, coded, math.floor(coded * scheme.rate), 24)


@pytest.mark.parametrize("mcs", measured_mcs())
def test_even_noise_is_worth_what_it_is(mcs: int) -> None:
    cut = cut_of(mcs)
    snr_db = float(4 * mcs_by_index(mcs).bits_per_symbol - 4)
    n0 = torch.full((1, cut.symbols_per_block), 10 ** (-snr_db / 10))
    assert float(varied_snr_db(n0, cut)) == pytest.approx(snr_db, abs=0.05)  # half a step of a grid
    assert float(varied_snr_db(n0[:, :1], cut)) == pytest.approx(snr_db, abs=0.05)


@pytest.mark.parametrize("mcs", measured_mcs())
def test_less_noise_is_never_worth_less(mcs: int) -> None:
    cut = cut_of(mcs)
    n0 = torch.rand(COUNT, cut.symbols_per_block, generator=stream(0, "noise")) + 0.01
    assert bool((varied_snr_db(n0 * 0.9, cut) >= varied_snr_db(n0, cut)).all())


@pytest.mark.parametrize("mcs", [2, 7, 16, 22])
def test_llrs_and_noise_tell_the_same_loss(mcs: int) -> None:
    cut, generator = cut_of(mcs), stream(1, "llr", mcs)
    bits = cut.mcs.bits_per_symbol
    payload = torch.randint(2, (COUNT, cut.info - 24), generator=generator).float()
    x = ldpc_modulate(payload, cut)
    snr_db = 4.0 * bits - 4
    n0 = torch.full(x.shape, 10 ** (-snr_db / 10))
    n0[:, : x.shape[1] // 2] *= 4
    y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    soft = SoftBlocks(cut)
    soft.add(qam_llr(y, n0, bits) * (2 * qam_nearest(x, bits) - 1))
    found = variation_loss_db(soft.llr, cut)
    wanted = qam_effective_snr_db(n0, bits) - varied_snr_db(n0, cut)
    error = float(found.std()) / math.sqrt(COUNT)
    assert abs(float(found.mean() - wanted[0])) < 5 * error + 0.02
