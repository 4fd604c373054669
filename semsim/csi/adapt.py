"""From one pre-trained encoder to many tasks: which of its weights a task may change."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice, check_count
from semsim import zoo
from semsim.csi.model import WirelessGPT

Tune = Literal["frozen", "partial", "lora", "full"]


class LowRank(nn.Module):
    """A layer that keeps its weights, and learns to add a product of two narrow matrices.

        y = W x + b + B A x,  A [rank, in], B [out, rank] zero at first

    Args:
        layer: what is kept.
        rank: of the product.

    Source: Hu and others, LoRA: low-rank adaptation of large language models, arXiv 2106.09685.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.narrow = nn.Parameter(layer.in_features**-0.5 * torch.randn(rank, layer.in_features))
        self.wide = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] of x [..., in]."""
        added = F.linear(F.linear(x, self.narrow), self.wide)
        return self.layer(x) + added  # type: ignore[no-any-return]


def encoder_of(encoder: str | None, size: str) -> WirelessGPT:
    """Return the encoder of weights as they were trained, or a fresh one of a size.

    Args:
        encoder: name of shipped weights or a .safetensors file of a pre-training; None for fresh.
        size: of the fresh one.
    """
    if encoder is None:
        return WirelessGPT.preset(size, attention="factorised")
    spec = zoo.specs(encoder).get("network")
    if spec is None or not {"width", "patch", "mode"} <= spec.keys():
        raise ValueError(
            f"encoder {encoder!r} holds no WirelessGPT; name the task.safetensors of a training "
            "of task fill_in"
        )
    model = WirelessGPT(**spec)
    zoo.load_parts(encoder, {"network": model})
    return model


def prepare(model: WirelessGPT, tune: Tune, last: int, rank: int) -> None:
    """Put the low-rank layers of ``lora`` into an encoder."""
    check_choice("tune", tune, get_args(Tune))
    check_count("last", last, "the last two blocks are last: 2")
    check_count("rank", rank, "the source has rank: 4")
    if last > len(model.blocks):
        raise ValueError(f"last is at most the encoder's {len(model.blocks)} blocks, got {last}")
    if tune == "lora":
        for block in model.blocks:
            for parent, name in ((block.attention, "qkv"), (block.attention, "out"),
                                 (block, "rise"), (block, "fall")):  # fmt: skip
                setattr(parent, name, LowRank(getattr(parent, name), rank))


def freeze(model: WirelessGPT, tune: Tune, last: int) -> None:
    """Let only those weights of an encoder learn that a way of tuning changes."""
    if tune == "full":
        return
    model.requires_grad_(False)
    if tune == "partial":
        for block in model.blocks[-last:]:
            block.requires_grad_(True)
        model.norm.requires_grad_(True)
    if tune == "lora":
        for module in model.modules():
            if isinstance(module, LowRank):
                module.narrow.requires_grad_(True)
                module.wide.requires_grad_(True)
