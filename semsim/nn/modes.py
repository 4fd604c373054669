"""Training and evaluation mode, of each module by itself: a frozen part may be in evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def in_evaluation(*nets: nn.Module) -> Iterator[None]:
    """Put networks in evaluation mode for a while, and each of their modules back in its own."""
    before = {module: module.training for net in nets for module in net.modules()}
    for net in nets:
        net.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def to_training(*nets: nn.Module) -> None:
    """Put networks in training mode, but for parts in evaluation with nothing to train."""
    for net in nets:
        still = [m for m in net.modules() if not m.training and _is_frozen(m)]
        net.train()
        for module in still:
            module.eval()


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)
