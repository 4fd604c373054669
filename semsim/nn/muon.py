"""Muon: steepest descent for weight matrices under the spectral norm, with Adam for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic iteration that sends singular values in (0, 1] to about 1 in five steps; see the source.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
LEAST_SIDE = 16  # narrower matrices gain nothing from it


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
    """Momentum whose update has all its singular values set to about one; Adam where that makes no sense.

    Weights [out, in, ...] of hidden dense and convolutional layers are taken as [out, in · ...]. The
    update's root mean square is that of Adam, so one learning rate serves both. No weight decay.

    Args:
        params: parameters, or groups as :func:`groups` makes them; a group with ``adam: True`` gets
            Adam with ``betas``.
        lr: learning rate.
        momentum: decay of the mean gradient of matrices.
        betas: decays of Adam.

    Source: Jordan and others, Muon: an optimizer for hidden layers (2024); the scale after Liu and
    others, Muon is scalable for LLM training, arXiv 2502.16982.
    """  # noqa: E501 - one sentence

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "betas": betas, "adam": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._adam if group["adam"] else self._matrix
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, self.state[parameter], group)
        return loss

    @staticmethod
    def _matrix(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        state["mean"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["mean"], group["momentum"])
        matrix = ahead.reshape(len(ahead), -1)
        size = 0.2 * math.sqrt(max(matrix.shape))
        parameter.add_(orthogonalise(matrix).view(parameter.shape), alpha=-group["lr"] * size)

    @staticmethod
    def _adam(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (state["square"] / (1 - beta2 ** state["step"])).sqrt_().add_(1e-8)
        rate = group["lr"] / (1 - beta1 ** state["step"])
        parameter.addcdiv_(state["mean"], spread, value=-rate)


def groups(*modules: nn.Module) -> list[dict[str, Any]]:
    """Split parameters into matrices for Muon and the rest for Adam.

    The rest are vectors, narrow matrices, depthwise kernels, and layers named ``linear``, whose
    start has a meaning that a full-rank update would wipe out.
    """
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for module in modules:
        for name, p in module.named_parameters():
            if not p.requires_grad:
                continue
            wide = p.dim() >= 2 and min(len(p), p[0].numel()) >= LEAST_SIDE
            kept = "linear" in name.split(".") or (p.dim() == 4 and p.shape[1] == 1)
            (matrices if wide and not kept else rest).append(p)
    return [g for g in ({"params": matrices}, {"params": rest, "adam": True}) if g["params"]]
