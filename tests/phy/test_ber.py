"""Bit errors of QAM over the channels, behind the front end, against closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.csi import PerfectCSI
from channels.fading import Rayleigh, Rician
from channels.units import snr_db_to_n0
from semsim.phy import theory
from semsim.phy.frontend import LMMSE
from semsim.seeds import stream

SYMBOLS = 500_000


def gray_levels(order: int) -> Tensor:
    """Return the level of each label of one axis, unit power over both axes."""
    side = math.isqrt(order)
    index = torch.arange(side)
    levels = torch.empty(side)
    levels[index ^ (index >> 1)] = 2.0 * index - (side - 1)
    return levels * math.sqrt(1.5 / (order - 1))


def bit_errors(channel: nn.Module, snr_db: float, order: int) -> Tensor:
    """Return how many of its bits each symbol lost, [SYMBOLS]."""
    generator = stream(1, "ber", repr(channel), snr_db, order)
    levels = gray_levels(order)
    sent = torch.randint(len(levels), (2, SYMBOLS), generator=generator)
    x = torch.complex(*levels[sent]).view(50, 1, -1)
    state = channel.draw(50, x.shape[-1], generator)
    n0 = torch.full((50,), snr_db_to_n0(snr_db))
    csi = PerfectCSI()(state, n0, generator)
    y, _ = LMMSE().combine(channel(x, state, n0, generator), csi)
    parts = torch.view_as_real(y).view(SYMBOLS, 2).T
    decided = (parts[..., None] - levels).abs().argmin(dim=-1)
    wrong = decided ^ sent
    return sum((wrong >> bit) & 1 for bit in range(8)).sum(dim=0).double()


def check(errors: Tensor, ber: float, order: int) -> None:
    # the symbol is the unit: its bits share one gain and one noise
    z = (errors.mean() - ber * math.log2(order)) / (errors.std() / math.sqrt(SYMBOLS))
    assert abs(z) < 5  # a right channel fails one seed in 1.7 million


@pytest.mark.parametrize("snr_db", [0.0, 4.0, 8.0])
@pytest.mark.parametrize("order", [4, 16])
@pytest.mark.parametrize(
    ("channel", "theory_of"),
    [
        (AWGN(), theory.qam_ber_awgn),
        (Rayleigh(coherence=1), theory.qam_ber_rayleigh),
        (Rician(3.0, coherence=1), lambda snr_db, order: theory.qam_ber_rician(snr_db, 3, order)),
        (Rician(10.0, coherence=1), lambda snr_db, order: theory.qam_ber_rician(snr_db, 10, order)),
    ],
    ids=["awgn", "rayleigh", "rician-3", "rician-10"],
)
def test_qam_errs_as_often_as_theory_says(
    channel: nn.Module, theory_of: Callable[[float, int], float], order: int, snr_db: float
) -> None:
    check(bit_errors(channel, snr_db, order), theory_of(snr_db, order), order)


def test_antennas_at_the_receiver_bring_the_diversity_of_theory() -> None:
    # two branches, QPSK: p^2 (1 + 2 (1 - p)), p of one branch (Proakis, Salehi 2008)
    p = theory.qam_ber_rayleigh(6.0)
    channel = Rayleigh(1, 2, coherence=1)
    check(bit_errors(channel, 6.0, 4), p**2 * (1 + 2 * (1 - p)), 4)
