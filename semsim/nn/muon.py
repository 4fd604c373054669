"""Muon: steepest descent for weight matrices under the spectral norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

# Quintic iteration that sends singular values in (0, 1] to about 1 in five steps; see the source.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T for matrix = U S V^T [M, N]; singular values end within 0.7 to 1.2.

    The iteration runs on the smaller Gram matrix alone, since every iterate is a polynomial of it
    times the matrix: two large products in all instead of two per step.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-12)
    gram = x @ x.T
    one = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    total = one
    for _ in range(steps):
        factor = a * one + b * gram + c * gram @ gram
        total = factor @ total
        gram = factor @ gram @ factor
    x = total @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update has all its singular values set to about one.

    For weights [out, in, ...] of dense and convolutional layers, taken as [out, in · ...]; leave
    biases, gains, first and last layers to Adam. The update's root mean square is that of Adam,
    so one learning rate serves both.

    Source: Jordan and others, Muon: an optimizer for hidden layers (2024); the scale after Liu and
    others, Muon is scalable for LLM training, arXiv 2502.16982.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, *, momentum: float = 0.95, steps: int = 5
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "steps": steps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["velocity"] = torch.zeros_like(p)
                state["velocity"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(state["velocity"], group["momentum"])
                matrix = ahead.reshape(ahead.shape[0], -1)
                size = 0.2 * math.sqrt(max(matrix.shape))
                update = orthogonalise(matrix, group["steps"]).view(p.shape)
                p.add_(update, alpha=-group["lr"] * size)
