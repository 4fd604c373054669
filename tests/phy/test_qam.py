"""QAM: unit power, LLRs that tell the truth, and what a constellation can carry."""

from __future__ import annotations

import math

import pytest
import torch

from channels.units import snr_db_to_n0
from semsim.phy import theory
from semsim.phy.qam import (
    ORDERS,
    best_scale,
    llr_information,
    qam_effective_snr_db,
    qam_information,
    qam_llr,
    qam_map,
    qam_nearest,
    qam_points,
    qam_signed_llr,
    qam_spread_db,
)
from semsim.seeds import stream


def noisy(bits_per_symbol: int, snr_db: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bits [1, count m] and their LLRs after AWGN."""
    generator = stream(3, "qam", bits_per_symbol, snr_db)
    bits = torch.randint(2, (1, count * bits_per_symbol), generator=generator)
    x = qam_map(bits, bits_per_symbol)
    n0 = torch.full(x.shape, snr_db_to_n0(snr_db))
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return bits, qam_llr(x + n0.sqrt() * noise, n0, bits_per_symbol)


@pytest.mark.parametrize("order", ORDERS)
def test_points_have_unit_power_and_neighbours_differ_in_one_bit(order: int) -> None:
    points = qam_points(order)
    assert points.abs().square().mean() == pytest.approx(1, abs=1e-6)
    labels = torch.arange(2**order)[:, None] >> torch.arange(order).flip(0) & 1
    torch.testing.assert_close(qam_map(labels.view(1, -1), order)[0], points)
    distance = (points[:, None] - points).abs()
    nearest = distance[distance > 1e-6].min()
    flips = (labels[:, None] != labels).sum(-1)
    assert bool((flips[(distance - nearest).abs() < 1e-3] == 1).all())


@pytest.mark.parametrize("order", ORDERS)
def test_llrs_without_noise_give_the_bits_back(order: int) -> None:
    bits, llr = noisy(order, 45.0, 2000)
    assert bool(((llr > 0) == bits.bool()).all())


@pytest.mark.parametrize(("order", "snr_db"), [(2, 4.0), (4, 10.0), (6, 16.0)])
def test_hard_decisions_err_as_often_as_theory_says(order: int, snr_db: float) -> None:
    bits, llr = noisy(order, snr_db, 50_000)
    p = theory.qam_ber_awgn(snr_db, 2**order)
    errors = int(((llr > 0) != bits.bool()).sum())
    # bits of a symbol share its noise: at worst they err together, m times the variance
    z = (errors - bits.numel() * p) / math.sqrt(order * bits.numel() * p * (1 - p))
    assert abs(z) < 5


@pytest.mark.parametrize(("order", "snr_db"), [(2, 1.0), (4, 7.0), (6, 13.0), (8, 20.0)])
def test_what_the_llrs_tell_is_the_information_by_integration(order: int, snr_db: float) -> None:
    bits, llr = noisy(order, snr_db, 20_000)
    right = torch.where(bits.bool(), llr, -llr).double()
    told = 1 - torch.nn.functional.softplus(-right) / math.log(2)
    per_symbol = told.view(-1, order).sum(dim=1)
    error = float(per_symbol.std()) / math.sqrt(len(per_symbol))
    expected = float(qam_information(torch.tensor(snr_db), order))
    assert abs(float(per_symbol.mean()) - expected) < 5 * error + 1e-3  # 1e-3: the 0.1 dB grid


@pytest.mark.parametrize("order", ORDERS)
def test_information_stays_below_capacity_and_below_the_bits(order: int) -> None:
    snr_db = torch.linspace(-10, 40, 101)
    carried = qam_information(snr_db, order)
    assert bool((carried[1:] >= carried[:-1]).all())
    assert bool((carried < torch.log2(1 + 10 ** (snr_db / 10)) + 1e-9).all())
    assert float(carried[-1]) == pytest.approx(order, abs=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_equal_symbols_have_their_own_snr(order: int) -> None:
    snr_db = torch.tensor([-5.0, 0.0, 5.0, 10.0])
    n0 = snr_db_to_n0(snr_db)[:, None].expand(-1, 7)
    torch.testing.assert_close(qam_effective_snr_db(n0, order), snr_db.double(), atol=2e-3, rtol=0)


def test_unequal_symbols_lie_between_the_worst_and_the_best() -> None:
    n0 = snr_db_to_n0(torch.tensor([[0.0, 20.0]]))
    found = float(qam_effective_snr_db(n0, 2))
    middle = (qam_information(torch.tensor([0.0, 20.0]), 2)).mean()
    assert 0 < found < 20
    assert float(qam_information(torch.tensor(found), 2)) == pytest.approx(float(middle), abs=1e-6)


def test_what_no_qam_carries_is_refused() -> None:
    with pytest.raises(ValueError, match="one of 2, 4, 6, 8"):
        qam_map(torch.zeros(1, 6), 3)
    with pytest.raises(ValueError, match=r"bits of shape \[B, K \* 4\]"):
        qam_map(torch.zeros(1, 6), 4)


@pytest.mark.parametrize("order", ORDERS)
def test_the_nearest_point_is_the_nearest_point(order: int) -> None:
    points = qam_points(order)
    y = 2 * torch.randn(3, 2000, dtype=torch.complex64, generator=stream(6, "nearest", order))
    nearest = (y[..., None] - points).abs().argmin(dim=-1)
    bits = nearest[..., None] >> torch.arange(order - 1, -1, -1) & 1
    assert torch.equal(qam_nearest(y, order), bits.flatten(1).float())
    bits = torch.randint(2, (2, 60 * order), generator=stream(6, "bits")).float()
    assert torch.equal(qam_nearest(qam_map(bits, order), order), bits)


@pytest.mark.parametrize("bits", [2, 4, 6])
@pytest.mark.parametrize("belief", [0.5, 1.0, 4.0])
def test_what_mistaken_llrs_carry_is_what_they_carry_when_measured(
    bits: int, belief: float
) -> None:
    generator, count, snr_db = stream(8, "mistaken", bits), 20_000, 2.0 * bits
    points = qam_points(bits)
    x = points[torch.randint(len(points), (1, count), generator=generator)]
    n0 = torch.full(x.shape, 10 ** (-snr_db / 10))
    y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    llr = qam_signed_llr(y, belief * n0, x, bits)
    carried = bits - torch.nn.functional.softplus(-llr.double()).view(count, bits).sum(
        1
    ) / math.log(2)
    error = float(carried.std()) / math.sqrt(count)
    expected = float(qam_information(torch.tensor(snr_db), bits, belief))
    assert abs(float(carried.mean()) - expected) < 5 * error
    assert float(bits * llr_information(llr)) == pytest.approx(float(carried.mean()), abs=1e-5)
    if bits == 2:  # the LLR of QPSK is linear in 1 / n0
        assert float(best_scale(llr)) == pytest.approx(belief, rel=0.05)
    if belief == 1:
        slope = float(
            qam_information(torch.tensor(snr_db + 0.5), bits)
            - qam_information(torch.tensor(snr_db - 0.5), bits)
        )
        spread = qam_spread_db(snr_db, bits, count)
        assert spread == pytest.approx(error / abs(slope), rel=0.05)
