"""The Swin codec against a plain implementation of the same network; sweeps of more SNR points.

    python benchmarks/swin_speed.py [--repeats 7]

``loops`` writes a block as one would first: roll, then a Python loop over the windows, softmax
attention in each, roll back. ``vectorised`` cuts all windows at once, as the published codes do.
Both use the very weights of the codec and are checked to give its output. Ratios of interleaved
runs in one process; noise images, since their content does not change the cost. Writes
benchmarks/results/swin_speed.{csv,md}.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pandas
import torch
from timing import interleaved, machine, ratio
from torch import Tensor, nn

from channels import AWGN, CSI
from semsim import Link, Stop, evaluate
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.metrics.image import PSNR
from semsim.nn.swin import SwinBlock
from semsim.nn.windows import relative_index, window_layout
from semsim.payloads.synthetic import Synthetic

RESULTS = Path(__file__).parent / "results"
CASES = {"cifar": ("1/6", 32, 8), "small": ("1/16", 128, 1), "base": ("1/16", 256, 1)}
POINTS = (1, 2, 4, 8)


def softmax_attention(block: SwinBlock, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Attention over tokens [M, N, C] in separate steps."""
    part = block.attention
    count, length, width = tokens.shape
    qkv = part.qkv(tokens).reshape(count, length, 3, part.heads, width // part.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    index = relative_index(block.window, block.window, block.window).reshape(-1)
    bias = part.bias[index].view(length, length, -1).permute(2, 0, 1)
    logits = q * (width // part.heads) ** -0.5 @ k.transpose(-2, -1) + bias[None]
    if mask is not None:
        logits = logits.view(-1, len(mask), *logits.shape[1:]) + mask[None]
        logits = logits.view(count, -1, length, length)
    mixed = torch.softmax(logits, dim=-1) @ v
    return part.proj(mixed.transpose(1, 2).reshape(count, length, width))


def looping(self: SwinBlock, x: Tensor, extra: Tensor | None = None) -> Tensor:
    """A Swin block with a loop over its windows."""
    layout = window_layout(x.shape[1], x.shape[2], self.window, self.shift)
    side, masks = self.window, layout.mask(x.device)
    y = self.norm1(x)
    if any(layout.shift):
        y = torch.roll(y, (-layout.shift[0], -layout.shift[1]), dims=(1, 2))
    rows = []
    for i in range(0, x.shape[1], side):
        row = []
        for j in range(0, x.shape[2], side):
            number = (i // side) * (x.shape[2] // side) + j // side
            window = y[:, i : i + side, j : j + side].reshape(len(x), side * side, -1)
            mask = None if masks is None else masks[number : number + 1]
            window = softmax_attention(self, window, mask)
            row.append(window.view(len(x), side, side, -1))
        rows.append(torch.cat(row, dim=2))
    y = torch.cat(rows, dim=1)
    if any(layout.shift):
        y = torch.roll(y, layout.shift, dims=(1, 2))
    x = x + y
    return x + self.mlp(self.norm2(x))


def vectorised(self: SwinBlock, x: Tensor, extra: Tensor | None = None) -> Tensor:
    """A Swin block as in published codes: all windows at once, attention in separate steps."""
    layout = window_layout(x.shape[1], x.shape[2], self.window, self.shift)
    y = layout.split(self.norm1(x))
    x = x + layout.join(softmax_attention(self, y, layout.mask(x.device)))
    return x + self.mlp(self.norm2(x))


class Both(nn.Module):
    """Transmitter and receiver with a little noise between."""

    def __init__(self, preset: str, cbr: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.transmitter = SwinTransmitter(cbr, preset=preset)
        self.receiver = SwinReceiver(cbr, preset=preset)

    def forward(self, image: Tensor) -> Tensor:
        """Return the reconstruction."""
        csi = CSI(None, torch.full((len(image),), 0.1))
        return self.receiver(self.transmitter(image, csi), csi, tuple(image.shape[1:]))


def with_blocks(net: Both, forward: Callable[..., Tensor]) -> Both:
    """Return a copy of the codec whose blocks run another forward."""
    net = deepcopy(net)
    for block in net.modules():
        if isinstance(block, SwinBlock):
            block.forward = types.MethodType(forward, block)
    return net


def infer(net: Both, image: Tensor, bf16: bool = False) -> Tensor:
    """One forward pass of both ends."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return net.eval()(image)


def train_step(net: Both, image: Tensor) -> None:
    """Forward and backward of both ends."""
    net.train().zero_grad()
    (net(image) - image).square().mean().backward()


def compare(preset: str, repeats: int) -> list[dict[str, object]]:
    """Ratios of the plain implementations to ours for one preset."""
    cbr, size, batch = CASES[preset]
    ours = Both(preset, cbr)
    image = torch.rand(batch, 3, size, size)
    nets = {"ours": ours, "loops": with_blocks(ours, looping),
            "vectorised": with_blocks(ours, vectorised)}  # fmt: skip
    for name, net in nets.items():
        worst = (infer(net, image) - infer(ours, image)).abs().max()
        if worst > 1e-3:
            raise SystemExit(f"{name} is not the same network: off by {worst:.2g}")
    rows = []
    forward = {n: (lambda net=net: infer(net, image)) for n, net in nets.items()}
    forward["ours in bf16"] = lambda: infer(ours, image, bf16=True)
    step = {n: (lambda net=net: train_step(net, image)) for n, net in nets.items()}
    for what, work in (("forward", forward), ("training step", step)):
        seconds = interleaved(work, repeats)
        pairs = [(plain, "ours") for plain in ("loops", "vectorised")]
        pairs += [("loops", "ours in bf16")] if what == "forward" else []
        for plain, own in pairs:
            median, low, high = ratio(seconds[plain], seconds[own])
            rows.append({"preset": preset, "size": size, "batch": batch, "what": what,
                         "ratio": f"{plain} / {own}", "median": median, "low": low,
                         "high": high})  # fmt: skip
    return rows


def sweep_cost(repeats: int) -> list[dict[str, object]]:
    """Cost per SNR point of a sweep, relative to that of a single point."""
    rows = []
    for adaptive in ("receiver", "both"):
        arguments = {"preset": "cifar", "adaptive": adaptive}
        link = Link(SwinTransmitter("1/6", **arguments), AWGN(), SwinReceiver("1/6", **arguments))
        payload = Synthetic(count=48, size=32)

        def sweep(points: int, link: Link = link, payload: Synthetic = payload) -> None:
            snrs = [float(3 * i) for i in range(points)]
            evaluate(link.eval(), payload, snr_db=snrs, metrics=[PSNR()], batch_size=16,
                     stop=Stop(min_items=48, max_items=48))  # fmt: skip

        seconds = interleaved({str(p): (lambda p=p: sweep(p)) for p in POINTS}, repeats)
        for points in POINTS[1:]:
            per_point = [s / points for s in seconds[str(points)]]
            median, low, high = ratio(per_point, seconds["1"])
            rows.append({"preset": "cifar", "size": 32, "batch": 16,
                         "what": f"sweep, adaptive: {adaptive}",
                         "ratio": f"a point of {points} / a single point", "median": median,
                         "low": low, "high": high})  # fmt: skip
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--presets", nargs="*", default=list(CASES))
    arguments = parser.parse_args()
    rows = [row for preset in arguments.presets for row in compare(preset, arguments.repeats)]
    rows += sweep_cost(arguments.repeats)
    lines = [machine(), "", "| preset | images | what | ratio | median | 95 % interval |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {r['preset']} | {r['batch']} of {r['size']} px | {r['what']} | {r['ratio']} | "
        f"{r['median']:.2f} | {r['low']:.2f} to {r['high']:.2f} |"
        for r in rows
    ]
    RESULTS.mkdir(exist_ok=True)
    pandas.DataFrame(rows).round(3).to_csv(RESULTS / "swin_speed.csv", index=False)
    (RESULTS / "swin_speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
