"""The noise-purified estimator: harmless untrained, better than least squares when trained."""

from __future__ import annotations

import math

import pytest
import torch

from channels import PilotCSI, Rayleigh
from channels.base import complex_normal
from semsim import stream
from semsim.codecs.lcfsc.estimator import NoisePurifier, nmse, pretrain


def purifier() -> NoisePurifier:
    torch.manual_seed(1)
    return NoisePurifier()


@pytest.mark.parametrize("antennas", [(1, 1), (2, 2), (4, 2), (8, 8)])
def test_untrained_it_changes_nothing(antennas: tuple[int, int]) -> None:
    h = complex_normal((3, *antennas), stream(2, "h"))
    assert torch.equal(purifier()(h, torch.full((3,), 0.1)), h)


def test_it_cleans_under_bfloat16_too() -> None:
    h = complex_normal((3, 4, 4), stream(2, "h"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(purifier()(h, torch.full((3,), 0.1)), h)


def test_beyond_the_range_of_snr_the_noise_changes_nothing_any_more() -> None:
    estimator, h = purifier(), complex_normal((3, 4, 4), stream(2, "h"))
    torch.nn.init.normal_(estimator.leave.weight, generator=stream(3, "leave"))
    best, worst = (estimator(h, torch.full((3,), n0)) for n0 in (1e-4, 1e2))  # 40 and -20 dB
    assert torch.equal(estimator(h, torch.zeros(3)), best) and best.isfinite().all()
    assert torch.equal(estimator(h, torch.full((3,), 1e6)), worst)


def test_it_has_the_size_of_the_release() -> None:
    count = sum(p.numel() for p in purifier().parameters())
    assert count == pytest.approx(30_400, rel=0.01)


def test_items_do_not_see_each_other() -> None:
    estimator = purifier()
    torch.nn.init.normal_(estimator.leave.weight, generator=stream(3, "leave"))
    h, n0 = complex_normal((3, 4, 4), stream(3, "h")), torch.tensor([0.1, 1.0, 0.01])
    together, alone = estimator(h, n0)[1:2], estimator(h[1:2], n0[1:2])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_trained_it_beats_least_squares_at_low_snr_and_the_best_scaling_of_it() -> None:
    channel = Rayleigh(num_tx=8, num_rx=8, tx_correlation=0.8, rx_correlation=0.8)
    pilots, estimator = PilotCSI(per_block=8), purifier()
    pretrain(estimator, channel, pilots, stream(4, "train"), steps=150, batch=32, lr=1e-2)
    state = channel.draw(300, 1, stream(5, "test"))
    for snr_db in (0.0, 5.0):
        n0 = torch.full((300,), 10 ** (-snr_db / 10))
        noisy = pilots(state, n0, stream(6, "test"))
        truth = state.h[..., 0]
        cleaned = nmse(estimator(noisy.h[..., 0], noisy.n0), truth)
        scaled = nmse(noisy.h[..., 0] / (1 + n0[0]), truth)  # 8 pilots for 8 antennas: error n0
        assert cleaned < 0.85 * scaled < 0.85 * nmse(noisy.h[..., 0], truth)


def test_nmse_of_a_known_error_is_its_power() -> None:
    h = complex_normal((1000, 8, 8), stream(7, "h"))
    error = complex_normal((1000, 8, 8), stream(8, "e"))
    # the relative deviation of a mean of 64,000 exponentials is 1 / sqrt(64,000), twice
    assert abs(nmse(h + 0.1 * error, h) / 0.01 - 1) < 5 * math.sqrt(2 / 64_000)


def test_too_many_antennas_are_refused() -> None:
    with pytest.raises(ValueError, match="up to 8 x 8"):
        purifier()(complex_normal((1, 16, 2), stream(9, "h")), torch.ones(1))
