"""Reconstruction as a task."""

from __future__ import annotations

import math

import pytest
import torch

from semsim.metrics.base import Outcome
from semsim.metrics.image import PSNR
from semsim.seeds import stream
from semsim.tasks.base import Task
from semsim.tasks.reconstruct import Reconstruct


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = stream(1, "pair")
    source = torch.rand(4, 3, 16, 16, generator=generator) * 0.6 + 0.2
    sigma = torch.tensor([0.01, 0.02, 0.05, 0.1]).view(4, 1, 1, 1)
    return source, source + sigma * torch.randn(source.shape, generator=generator)


def test_the_estimate_is_handed_on() -> None:
    _, estimate = pair()
    assert Reconstruct()(estimate) is estimate
    assert not list(Reconstruct().parameters())


def test_mse_is_that_of_torch() -> None:
    source, estimate = pair()
    expected = torch.nn.functional.mse_loss(estimate, source)
    assert torch.allclose(Reconstruct().loss(estimate, source, source), expected)


def test_log_mse_is_the_mean_psnr_up_to_a_factor() -> None:
    source, estimate = pair()
    loss = Reconstruct("log_mse").loss(estimate, source, source)
    psnr = PSNR()(Outcome(estimate, source, source)).mean()
    # 1e-6 is added to an MSE of at least 1e-4, and rounding to 8 bits adds 1.3e-6: 0.1 dB
    assert float(-10 / math.log(10) * loss) == pytest.approx(float(psnr), abs=0.1)


@pytest.mark.parametrize("loss", ["mse", "log_mse"])
def test_the_loss_falls_along_its_gradient_even_at_the_source(loss: str) -> None:
    source, estimate = pair()
    task = Reconstruct(loss)  # type: ignore[arg-type]
    for start in (estimate, source):
        x = start.clone().requires_grad_()
        before = task.loss(x, source, source)
        before.backward()
        assert x.grad is not None and x.grad.isfinite().all()
        step = x.detach() - 1e-3 * x.grad
        assert task.loss(step, source, source) <= before


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="one of mse, log_mse, got 'l1'"):
        Reconstruct("l1")  # type: ignore[arg-type]


def test_a_plain_task_hands_on_and_cannot_be_trained_on() -> None:
    source, estimate = pair()
    assert Task()(estimate) is estimate and Task().after_step() is None
    with pytest.raises(NotImplementedError, match="cannot be trained on"):
        Task().loss(estimate, source, source)
