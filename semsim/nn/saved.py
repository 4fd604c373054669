"""How much a forward pass keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Copies(TorchDispatchMode):
    """Note the copies in another type that autocast makes of the parameters."""

    def __init__(self, storages: set[int]) -> None:
        super().__init__()
        self.storages, self.copies = storages, list[Tensor]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and _storage(args[0]) in self.storages:
            self.copies.append(out)
        return out


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def saved_bytes(work: Callable[[], object], model: nn.Module) -> int:
    """Return the bytes of all activations that ``work`` keeps for its backward pass.

    Each storage counts once, whole, however many layers keep it. Parameters and buffers of the
    model do not count, nor the copies that autocast makes of them.

    Args:
        work: runs the forward pass and returns what holds on to its graph, such as the loss.
        model: whose parameters are used.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept.setdefault(_storage(tensor), tensor)
        return tensor

    with (
        _Copies(own) as casts,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        graph = work()
    own.update(map(_storage, casts.copies))
    total = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    del graph  # until here it kept the storages from being used again
    return total
