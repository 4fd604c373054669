"""The normal approximation against published numbers and against drawn information densities."""

from __future__ import annotations

import math

import pytest
import torch

from channels.base import complex_normal
from semsim.phy.blocklength import arrival, dispersion, normal_approximation
from semsim.phy.theory import awgn_capacity
from semsim.seeds import stream


@pytest.mark.parametrize("code", ["shell", "gaussian"])
@pytest.mark.parametrize("snr", [0.3, 1.0, 10.0])
def test_the_information_density_varies_as_stated(code: str, snr: float) -> None:
    uses, draws = 100, 40_000
    generator = stream(1, "density", code, snr)
    x = complex_normal((draws, uses), generator, torch.complex128)
    if code == "shell":
        x = x / x.abs().square().mean(dim=1, keepdim=True).sqrt()
    noise = complex_normal((draws, uses), generator, torch.complex128)
    y = math.sqrt(snr) * x + noise
    density = math.log(1 + snr) + y.abs().square() / (1 + snr) - noise.abs().square()
    density = density.sum(dim=1) / math.log(2)
    variance = uses * float(dispersion(torch.tensor(snr).double(), code))
    # of a sample variance; the sums are nearly normal
    assert abs(density.var() / variance - 1) < 5 * math.sqrt(2 / draws) + 0.01


def test_real_symbols_at_0_db_reach_what_polyanskiy_says() -> None:
    # n real uses: C = 1/2, V = 3/8 log2(e)^2; complex uses hold two each
    n, error, q = 1000, 1e-3, 3.0902
    real = 0.5 - math.sqrt(0.375 / n) / math.log(2) * q + math.log2(n) / (2 * n)
    assert normal_approximation(0.0, n // 2, error) / 2 == pytest.approx(real, abs=6e-4)


def test_long_codes_reach_capacity_and_gaussian_ones_less_soon() -> None:
    for snr_db in (-5.0, 5.0, 15.0):
        rates = [normal_approximation(snr_db, n) for n in (100, 1000, 10_000, 10**8)]
        assert rates == sorted(rates)
        assert rates[-1] == pytest.approx(awgn_capacity(snr_db), rel=1e-3)
        assert normal_approximation(snr_db, 500, code="gaussian") < rates[1]


def test_a_message_at_the_approximation_is_lost_at_its_error() -> None:
    bits = 700 * normal_approximation(3.0, 700, 0.01)
    snr = torch.tensor([10**0.3]).double()
    odds = arrival(bits, 700 * torch.log2(1 + snr), 700 * dispersion(snr), 700)
    assert float(odds) == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"uses": 0}, "uses is a whole"), ({"error": 1.0}, "error lies"), ({"code": "x"}, "code is")],
)
def test_what_is_no_code_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normal_approximation(0.0, **{"uses": 100, **wrong})
