"""What WirelessGPT costs: steps, encoding, memory, and drawing its channels."""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wirelessgpt_tools import (
    Rows,
)

from semsim.csi import WirelessGPT
from semsim.csi.blocks import Attention, Block
from semsim.csi.patches import hide, patchify
from semsim.nn.lowmem import low_memory
from semsim.nn.saved import saved_bytes
from semsim.payloads.channels import Channels
from semsim.seeds import stream


class Plain(nn.Module):
    """The attention as a tutorial has it: three products, softmax in three steps."""

    def __init__(self, fused: Attention) -> None:
        super().__init__()
        self.heads = fused.heads
        width = fused.out.in_features
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, allowed: Tensor | None = None, *, across: bool = False) -> Tensor:
        if across:
            return self(x.transpose(-2, -3)).transpose(-2, -3)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for layer in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        weights = torch.exp(scores.float() - scores.float().amax(dim=-1, keepdim=True))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        return self.out((weights.to(v.dtype) @ v).transpose(-2, -3).flatten(-2))


def step(model: WirelessGPT, h: Tensor, *, bf16: bool) -> float:
    """Return the seconds of one forward and backward pass."""
    hidden = hide(model.grid(h), len(h), stream(1, "mask"), kind="random", share=0.4)
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        believed, gain = model.believe(h, hidden)
    error = (believed.float() - patchify(h, model.patch) / gain[:, None, None]).square()
    (error.mean(dim=2) * hidden).sum().backward()
    return time.process_time() - start


def costing(model: WirelessGPT, arguments: argparse.Namespace) -> Rows:
    """Ratios of steps taken in turn; time to encode; base80 built, timed and its memory."""
    yield ("what", "value")
    h = torch.randn(64, 20, 16, 16, dtype=torch.complex64, generator=stream(1, "h"))
    small = WirelessGPT.preset("small", attention="factorised")
    plain = copy.deepcopy(small)
    for block in plain.modules():
        if isinstance(block, Block):
            block.attention = Plain(block.attention)
    for name, bf16 in (("plain fp32 step over ours in bf16", False), ("both in bf16", True)):
        times: dict[str, list[float]] = {"own": [], "plain": []}
        for _ in range(5):
            times["own"].append(step(small, h, bf16=True))
            times["plain"].append(step(plain, h, bf16=bf16))
        ratio = statistics.median(times["plain"]) / statistics.median(times["own"])
        yield f"{name}, small, batch 64, medians of 5 in turn", f"{ratio:.2f}"
    yield "encode a snapshot, small, batch 64, ms", f"{encode_ms(small, h):.2f}"
    alone, operations = products(small, len(h) * small.grid(h).total)
    yield "of it products of its layers, timed alone, ms", f"{1e3 * alone / len(h):.2f}"
    yield "these are, Gflop a snapshot", f"{operations / len(h) / 1e9:.2f}"
    yield "which this core does at, Gflop/s", f"{operations / alone / 1e9:.0f}"
    one = h[:, :4]
    yield "the same of 4 slots, ms", f"{encode_ms(small, one):.2f}"
    base = WirelessGPT.preset("base80", attention="factorised")
    yield "base80 parameters, M", f"{sum(p.numel() for p in base.parameters()) / 1e6:.2f}"
    optimiser = torch.optim.AdamW(base.parameters(), lr=2e-4)
    few, taken = h[:4], []
    for _ in range(20):
        taken.append(step(base, few, bf16=True))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    yield "base80 step at batch 4, s, median of 20", f"{statistics.median(taken):.2f}"
    normal = kept(base, few)
    low_memory(base)
    yield "base80 kept for the backward pass, MB, normal", f"{normal / 1e6:.0f}"
    yield "base80 kept for the backward pass, MB, memory low", f"{kept(base, few) / 1e6:.0f}"


def products(model: WirelessGPT, tokens: int) -> tuple[float, float]:
    """Return the least seconds of all dense layers of the blocks in bf16, and their operations."""
    seconds = operations = 0.0
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            x = torch.randn(tokens, layer.in_features).bfloat16()
            w = layer.weight.detach().bfloat16()
            taken = []
            for _ in range(3):
                start = time.process_time()
                F.linear(x, w)
                taken.append(time.process_time() - start)
            seconds += min(taken)
            operations += 2 * tokens * w.numel()
    return seconds, operations


def encode_ms(model: WirelessGPT, h: Tensor) -> float:
    taken = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(5):
            start = time.process_time()
            model.encode(h)
            taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken) / len(h)


def kept(model: WirelessGPT, h: Tensor) -> float:
    def forward() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model.believe(h)[0]

    return float(saved_bytes(forward, model))


def drawing(arguments: argparse.Namespace) -> Rows:
    """Drops drawn per second of one core's time, at the sizes that the paper's notes have."""
    yield ("model, 20 slots x 16 pairs x 32 subcarriers", "drops per second")
    for model in ("umi", "uma", "rma", "cdl-C", "tdl-A"):
        payload = Channels(model, 4 * 64)
        payload.records(0, 64)
        start = time.process_time()
        payload.records(64, 4 * 64)
        yield model, f"{3 * 64 / (time.process_time() - start):.0f}"
