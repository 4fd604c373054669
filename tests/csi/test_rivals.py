"""Classical predictors and estimators against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from channels.base import complex_normal
from channels.doppler import clarke
from semsim.csi.rivals import Autoregression, LinearMMSE, hold, jakes, own_autoregression
from semsim.seeds import stream


def waves(batch: int = 4, slots: int = 20) -> Tensor:
    """Two waves per element with frequencies of their own in each item."""
    turns = torch.rand(batch, 1, 2, generator=stream(1, "turns"), dtype=torch.float64) - 0.5
    angle = 2 * math.pi * turns * torch.arange(slots)[:, None]
    gains = complex_normal((batch, 2, 12), stream(1, "gains"), torch.complex128)
    return (torch.polar(torch.ones_like(angle), angle) @ gains).unflatten(-1, (3, 4))


def test_hold_repeats() -> None:
    h = waves()
    assert torch.equal(hold(h, 2)[:, 1], h[:, -1])


def test_an_autoregression_of_its_own_continues_waves() -> None:
    h = waves()
    told = own_autoregression(h[:, :16], 4, 4, ridge=1e-12)
    torch.testing.assert_close(told, h[:, 16:].to(told.dtype), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match=r"seen less those to come, 8 - 1, got 8"):
        own_autoregression(h[:, :8], 1, 8)


def test_a_fitted_autoregression_continues_waves() -> None:
    h = waves(1)
    told = Autoregression.fit(h[:, :16], h[:, 16:], 4, ridge=1e-12)(h[:, :16])
    torch.testing.assert_close(told, h[:, 16:].to(told.dtype), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="order is 1 to the 16 slots"):
        Autoregression.fit(h[:, :16], h[:, 16:], 17)


def clarke_history(batch: int, slots: int, doppler: float) -> Tensor:
    index = torch.arange(slots, dtype=torch.float64)
    covariance = clarke((index[:, None] - index).abs(), doppler)
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(slots)).to(torch.complex128)
    white = complex_normal((slots, batch), stream(1, "white"), torch.complex128)
    return (root @ white).mT[:, :, None, None]


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_clarke_s_prediction_errs_as_theory_says(snr_db: float) -> None:
    count, doppler, n0 = 4000, 0.08, 10 ** (-snr_db / 10)
    h = clarke_history(count, 10, doppler)
    noise = complex_normal((count, 8, 1, 1), stream(1, "noise"), torch.complex128)
    seen = h[:, :8] + math.sqrt(n0) * noise
    noise_power = torch.full((count,), n0)
    told = jakes(seen, 2, torch.full((count,), doppler), noise_power, order=8)
    index = torch.arange(10, dtype=torch.float64)
    r = clarke((index[:, None] - index).abs(), doppler)
    inverse = torch.linalg.inv(r[:8, :8] + (n0 + 1e-6) * torch.eye(8))
    for ahead in range(2):
        expected = 1 - r[8 + ahead, :8] @ inverse @ r[8 + ahead, :8]
        error = (told[:, ahead] - h[:, 8 + ahead]).abs().square().double()
        assert abs(error.mean() - expected) < 5 * error.std() / math.sqrt(count)
    fitted = Autoregression.fit(seen, h[:, 8:], 8, ridge=0)(seen)
    best = (told - h[:, 8:]).abs().square().mean()
    assert (fitted - h[:, 8:]).abs().square().mean() <= best * (
        1 + 1e-6
    )  # on what it was fitted to


def test_linear_mmse_errs_as_theory_says() -> None:
    root = complex_normal((6, 6), stream(1, "root"), torch.complex128) / math.sqrt(6)
    covariance = root @ root.mH
    h = (complex_normal((2000, 6), stream(1, "h"), torch.complex128) @ root.mT).view(500, 4, 2, 3)
    n0 = torch.full((500,), 0.3)
    noise = complex_normal((500, 4, 2, 3), stream(1, "noise"), torch.complex128)
    error = (LinearMMSE(covariance)(h + math.sqrt(0.3) * noise, n0) - h).abs().square()
    inverse = torch.linalg.inv(covariance + 0.3 * torch.eye(6))
    expected = (covariance - covariance @ inverse @ covariance).diagonal().real.sum()
    slots = error.sum(dim=(2, 3)).flatten().double()
    assert abs(slots.mean() - expected) < 5 * slots.std() / math.sqrt(2000)
    spread = (LinearMMSE.fit(h).covariance - covariance).abs().max()
    assert spread < 5 * float(covariance.diagonal().real.max()) / math.sqrt(2000)


def test_slots_that_go_together_are_estimated_together() -> None:
    """Slots that repeat each other: n of them are one slot at n times the SNR."""
    h = complex_normal((400, 1, 2, 3), stream(1, "h"), torch.complex128).expand(-1, 4, -1, -1)
    n0 = torch.full((400,), 0.4)
    noise = complex_normal((400, 4, 2, 3), stream(1, "noise"), torch.complex128)
    seen = h + math.sqrt(0.4) * noise
    told = LinearMMSE(torch.ones(4, 4).kron(torch.eye(6)).to(h.dtype), 4)(seen, n0)
    mean = seen.mean(dim=1, keepdim=True) / 1.1
    torch.testing.assert_close(told, mean.expand(-1, 4, -1, -1).to(told.dtype))
    fitted = LinearMMSE.fit(h, 2)
    with torch.device("meta"):  # stands for another device: what was fitted goes where h is
        there = torch.empty(h.shape, dtype=h.dtype), torch.empty(len(h))
    assert fitted(*there).is_meta
    assert fitted.covariance.shape == (12, 12)
    alike = fitted.covariance[:6, :6] - fitted.covariance[:6, 6:]
    assert alike.abs().max() < 1e-12
    with pytest.raises(ValueError, match="slots divides the 4 slots of h, got 3"):
        LinearMMSE.fit(h, 3)
