"""Closed forms against known values, other roads to them, and draws of the channels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.fading import Rayleigh
from semsim.phy import theory
from semsim.seeds import stream

SIZES = [(1, 1), (2, 2), (4, 4), (2, 4), (4, 2), (8, 8)]


def drawn_gains(tx: int, rx: int, count: int = 20_000) -> torch.Tensor:
    return Rayleigh(tx, rx).draw(count, 1, stream(1, "capacity", tx, rx)).h


@pytest.mark.parametrize(("tx", "rx"), SIZES)
@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_mean_and_outage_of_drawn_capacities_are_as_theory_says(
    tx: int, rx: int, snr_db: float
) -> None:
    h = drawn_gains(tx, rx)
    capacity = theory.mimo_capacity(h, torch.full((len(h),), 10 ** (-snr_db / 10))).double()
    mean = theory.ergodic_capacity(snr_db, tx, rx)
    assert abs(capacity.mean() - mean) < 5 * capacity.std() / math.sqrt(len(h))
    for probability in (0.05, 0.5):
        rate = theory.outage_capacity(probability, snr_db, tx, rx)
        failed = (capacity < rate).double().mean()
        assert abs(failed - probability) < 5 * math.sqrt(probability * (1 - probability) / len(h))


@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 10.0, 40.0])
def test_one_antenna_capacity_is_an_exponential_integral(snr_db: float) -> None:
    from scipy.special import exp1

    z = 10 ** (-snr_db / 10)
    expected = math.exp(z) * exp1(z) / math.log(2)
    assert theory.ergodic_capacity(snr_db) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("size", "expected"), [(2, (3.50, 0.50)), (4, (9.77, 4.40, 1.57, 0.25))])
def test_eigenvalues_of_drawn_channels_have_known_means(
    size: int, expected: tuple[float, ...]
) -> None:
    h = drawn_gains(size, size)
    power = torch.linalg.svdvals(h[..., 0]).square().double()
    error = 5 * power.std(dim=0) / math.sqrt(len(power)) + 0.005  # known to two decimals
    assert ((power.mean(dim=0) - torch.tensor(expected)).abs() < error).all()


def test_two_by_two_at_10_db_carries_5_55_bits() -> None:
    assert theory.ergodic_capacity(10, 2, 2) == pytest.approx(5.55, abs=0.005)


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0])
def test_outage_of_one_antenna_is_exponential(rate: float) -> None:
    expected = 1 - math.exp(-(2**rate - 1) / 10)
    assert theory.outage_probability(rate, 10) == pytest.approx(expected, rel=1e-12)
    assert theory.outage_capacity(expected, 10) == pytest.approx(rate, rel=1e-6)
    gain = drawn_gains(1, 1).abs().square().flatten()
    failed = (torch.log2(1 + 10 * gain) < rate).double().mean()
    assert abs(failed - expected) < 5 * math.sqrt(expected * (1 - expected) / len(gain))


def test_outage_of_two_by_two_rises_from_nought_to_one() -> None:
    rates = [0.0, 1e-3, 1.0, 3.0, 5.0, 7.0, 12.0, 200.0]
    outage = [theory.outage_probability(rate, 10, 2, 2) for rate in rates]
    assert outage == sorted(outage)
    assert outage[0] == 0
    assert outage[-1] == 1


def test_capacities_are_ordered() -> None:
    for snr_db in (-10.0, 0.0, 10.0, 30.0):
        awgn, faded = theory.awgn_capacity(snr_db), theory.ergodic_capacity(snr_db)
        assert faded < awgn  # Jensen
        grid = [theory.ergodic_capacity(snr_db, n, n) for n in range(1, 9)]
        assert grid == sorted(grid)
        sender = [theory.ergodic_capacity(snr_db, tx, 1) for tx in range(1, 9)]
        assert sender == sorted(sender)  # antennas without CSI harden the channel ...
        assert sender[-1] < awgn  # ... and no more


def test_knowing_the_channel_never_hurts() -> None:
    h = drawn_gains(4, 2, 500)
    n0 = torch.full((500,), 1.0)
    blind, informed = (theory.mimo_capacity(h, n0, csi_tx=csi_tx) for csi_tx in (False, True))
    assert (informed > blind).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8), st.floats(0.01, 10))
def test_water_filling_meets_its_optimality_conditions(gains: list[float], power: float) -> None:
    g = torch.tensor(gains, dtype=torch.float64)
    p = theory.water_filling(g, power)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(), torch.tensor(power, dtype=torch.float64))
    level = p + 1 / g
    water = level[p > 0]
    torch.testing.assert_close(water, water.max().expand_as(water))
    assert (level[p == 0] >= water.max() * (1 - 1e-9)).all()


def test_water_filling_survives_channels_without_gain() -> None:
    p = theory.water_filling(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1e-20]]))
    expected = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(p, expected)


@pytest.mark.parametrize("order", [4, 16, 64, 256])
def test_qam_errs_half_the_time_without_signal(order: int) -> None:
    assert theory.qam_ber_awgn(-200, order) == pytest.approx(0.5)
    assert theory.qam_ber_rayleigh(-200, order) == pytest.approx(0.5)


@pytest.mark.parametrize("order", [4, 16, 64])
@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_rician_fading_lies_between_rayleigh_and_awgn(order: int, snr_db: float) -> None:
    rayleigh, awgn = theory.qam_ber_rayleigh(snr_db, order), theory.qam_ber_awgn(snr_db, order)
    assert theory.qam_ber_rician(snr_db, -100, order) == pytest.approx(rayleigh, rel=1e-6)
    assert theory.qam_ber_rician(snr_db, 90, order) == pytest.approx(awgn, rel=1e-3, abs=1e-15)
    if order == 4:
        assert awgn < theory.qam_ber_rician(snr_db, 5, order) < rayleigh
    assert theory.qam_ber_rician(snr_db, math.inf, order) == awgn


def test_qpsk_matches_its_textbook_values() -> None:
    # Eb/N0 of 9.6 dB gives 1e-5 (Proakis); Rayleigh is near 1 / (4 Eb/N0)
    assert theory.qam_ber_awgn(9.588 + 10 * math.log10(2)) == pytest.approx(1e-5, rel=0.01)
    assert theory.qam_ber_rayleigh(40 + 10 * math.log10(2)) == pytest.approx(0.25e-4, rel=1e-3)


@pytest.mark.parametrize("order", [0, 2, 8, 36, 4.0])
def test_other_constellations_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match="order of a square QAM is 4, 16, 64, 256"):
        theory.qam_ber_awgn(10, order)


def test_distortion_falls_6_db_per_bit() -> None:
    assert theory.gaussian_distortion(0, 1 / 6) == 1
    ratio = theory.gaussian_distortion(2, 0.5, 3.0) / theory.gaussian_distortion(4, 0.5, 3.0)
    assert ratio == pytest.approx(4)


def test_an_outage_probability_of_nought_has_no_rate() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        theory.outage_capacity(0.0, 10)
    with pytest.raises(ValueError, match="antennas at both ends"):
        theory.ergodic_capacity(10, 0, 1)
