"""What a client sends of its weights, and how the server reads it.

none       the weights themselves, 32 bits each
bf16       their change, 16 bits each
int8       their change in steps of the largest of each tensor over 127, 8 bits each
top_k      the largest changes and their places, 64 bits each

Tensors of whole numbers, such as a count of batches, travel as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
STEPS = 127  #: of int8 on either side of zero


def encode(
    kind: str,
    after: Weights,
    before: Weights,
    *,
    share: float = 1.0,
    residual: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return what travels, and what "top_k" keeps back for the next round.

    Args:
        kind: the rule.
        after, before: weights of the same names.
        share: of the changes that "top_k" sends.
        residual: what it kept back before.
    """
    whole = {n: v for n, v in after.items() if not v.is_floating_point()}
    moved = {n: v - before[n] for n, v in after.items() if v.is_floating_point()}
    if kind == "none":
        return dict(after), None
    if kind == "bf16":
        return whole | {n: v.to(torch.bfloat16) for n, v in moved.items()}, None
    if kind == "int8":
        names = sorted(moved)
        largest = torch.stack([moved[n].abs().amax() for n in names]) if names else torch.zeros(0)
        scales = largest / STEPS
        steps = {
            n: (moved[n] / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
            for n, scale in zip(names, scales, strict=True)
        }
        return whole | steps | {"scales": scales}, None
    flat = _flat(moved)
    flat = flat if residual is None else flat + residual
    count = max(1, round(share * len(flat))) if len(flat) else 0
    places = flat.abs().topk(count).indices.sort().values
    kept = flat.clone()
    kept[places] = 0
    return whole | {"places": places.to(torch.int32), "values": flat[places]}, kept


def decode(kind: str, sent: Weights, before: Weights) -> dict[str, Tensor]:
    """Return the weights that a client meant, of the names in ``before``."""
    if kind == "none":
        return {n: sent[n] for n in before}
    moved = {n: v for n, v in before.items() if v.is_floating_point()}
    after = {n: sent[n] for n, v in before.items() if not v.is_floating_point()}
    if kind == "bf16":
        return after | {n: v + sent[n].to(v.dtype) for n, v in moved.items()}
    if kind == "int8":
        scales = zip(sorted(moved), sent["scales"], strict=True)
        return after | {n: moved[n] + sent[n].to(moved[n].dtype) * scale for n, scale in scales}
    flat = torch.zeros(sum(v.numel() for v in moved.values()))
    flat[sent["places"].long()] = sent["values"].float()
    for name in sorted(moved):
        size = moved[name].numel()
        after[name] = moved[name] + flat[:size].view_as(moved[name])
        flat = flat[size:]
    return after


def bits_of(tensors: Weights) -> int:
    """Return the bits that tensors take."""
    return sum(8 * v.numel() * v.element_size() for v in tensors.values())


def _flat(tensors: Weights) -> Tensor:
    parts = [tensors[n].flatten() for n in sorted(tensors)]
    return torch.cat(parts) if parts else torch.zeros(0)
