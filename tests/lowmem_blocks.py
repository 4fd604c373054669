"""The standard transformer block on which low-memory training is measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim import stream
from semsim.nn.saved import saved_bytes


class Block(nn.Module):
    """One pre-norm block of a vision transformer, with a dense layer for each of q, k and v."""

    low_memory_norms = {"norm1": ("q", "k", "v"), "norm2": ("mlp.0",)}  # noqa: RUF012

    def __init__(self, width: int = 192, heads: int = 3, norm: type[nn.Module] = nn.LayerNorm):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = norm(width, eps=1e-6), norm(width, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def trained_like(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give every parameter values as after a training: no scale 1, no offset 0."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=stream(seed, "trained", name))
            parameter.add_(0.3 * noise if parameter.dim() < 2 else 0.02 * noise)
    return model


def units(model: nn.Module, dtype: torch.dtype = torch.float32, autocast: bool = False) -> float:
    """Return what one pass keeps, in units of the input's elements at the precision of the run."""
    x = torch.randn(4, 196, 192, generator=stream(2, "units")).to(dtype).requires_grad_()

    def work() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(x)

    size = 2 if autocast else x.element_size()
    return saved_bytes(work, model) / (size * x.numel())
