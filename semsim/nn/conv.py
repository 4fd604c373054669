"""Convolutional parts of codecs: residual blocks, changes of scale, a linear transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from semsim.nn.attention import attention
from semsim.nn.fast_conv import Depthwise
from semsim.nn.snr import AttentionFeature

Block = Literal["residual", "convnext"]

COLOUR_VARIANCE = (1.0, 0.06, 0.02)  # of luminance and two opponent colours in natural images
LEAK = 0.1  # slope of the leaky ReLU below zero
FAR = 12  # positions over which correlation is followed
PIXEL_CORRELATION = 0.95  # between neighbours; the usual first-order model of a photo


def start_at_zero(layer: nn.Module) -> None:
    """Set weight and bias to zero, so that a fresh branch adds nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Two convolutions and a sum; without normalisation, because in a codec scale carries meaning.

        x ─┬─► 3 x 3 ─► leaky ReLU ─► 3 x 3 ─► AF(told) ─► attention ─► + ─►
           └──────────────────────────────────────────────────────────┘

    The last convolution starts at zero, so that a fresh network is its linear path.

    Args:
        width: channels W.
        attention_kind: see :mod:`semsim.nn.attention`.
        adaptive: numbers that an AF module sees, 1 for the SNR; 0 for no such module.
    """

    def __init__(self, width: int, attention_kind: str = "none", *, adaptive: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.snr = AttentionFeature(width, reduction=4, num_told=adaptive) if adaptive else None
        self.attention = attention(attention_kind, width)
        start_at_zero(self.second)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return features like x [B, W, H, W']; ``told`` is [B, adaptive]."""
        y = self.second(nn.functional.leaky_relu(self.first(x), LEAK))
        if self.snr is not None:
            y = self.snr(y, told)
        return x + self.attention(y)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a dense network per position, four times as wide within.

        x ─┬─► 7 x 7, each channel ─► LN ─► dense ─► GELU ─► dense ─► AF(told) ─► attention ─► + ─►
           └──────────────────────────────────────────────────────────────────────────────────┘

    At equal width it takes about half of the multiplications and parameters of
    :class:`ResidualBlock` and has four times its nonlinear units; on a CPU it is not faster. The
    last dense layer starts at zero. Arguments as there.

    Source: Liu and others, A ConvNet for the 2020s, CVPR 2022; no layer scale, no dropped paths.
    """

    #: norms whose only consumers are these dense layers, so that their scale can move there
    low_memory_norms = {"norm": ("widen",)}  # noqa: RUF012

    def __init__(self, width: int, attention_kind: str = "none", *, adaptive: int = 1) -> None:
        super().__init__()
        self.spread = Depthwise(width, 7)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.bend = nn.GELU()
        self.shrink = nn.Linear(4 * width, width)
        self.snr = AttentionFeature(width, reduction=4, num_told=adaptive) if adaptive else None
        self.attention = attention(attention_kind, width)
        start_at_zero(self.shrink)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return features like x [B, W, H, W']; ``told`` is [B, adaptive]."""
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        y = self.shrink(self.bend(self.widen(y))).permute(0, 3, 1, 2)
        if self.snr is not None:
            y = self.snr(y, told)
        return x + self.attention(y)


BLOCKS: dict[Block, type[ResidualBlock] | type[ConvNeXtBlock]] = {
    "residual": ResidualBlock,
    "convnext": ConvNeXtBlock,
}


@dataclass(frozen=True)
class Blocks:
    """Which residual blocks a network is made of.

    Args:
        kind: see :data:`BLOCKS`.
        attention: see :mod:`semsim.nn.attention`.
        adaptive: numbers that the blocks see, 1 for the SNR; 0 for none.
    """

    kind: Block
    attention: str
    adaptive: int

    def made(self, width: int) -> nn.Module:
        """Return a block for ``width`` channels."""
        return BLOCKS[self.kind](width, self.attention, adaptive=self.adaptive)


class Stage(nn.Module):
    """Residual blocks at one scale."""

    def __init__(self, width: int, depth: int, blocks: Blocks) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks.made(width) for _ in range(depth))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return features like x [B, W, H, W']; ``told`` is [B, adaptive]."""
        for block in self.blocks:
            x = block(x, told)
        return x


def upsample(width_in: int, width_out: int) -> nn.Sequential:
    """Return a layer that doubles height and width without overlap."""
    return nn.Sequential(nn.Conv2d(width_in, 4 * width_out, 1), nn.PixelShuffle(2))


def transform_basis(patch: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the leading principal components of a natural-image patch, and their variances.

    Neighbouring pixels correlate by 0.95 in both directions, colours split into luminance and two
    opponent colours; so no data is needed and every fresh codec starts alike.

    Args:
        patch: side of the patch in pixels.
        count: how many components, at most ``3 * patch**2``.

    Returns:
        basis [count, 3 * patch**2], orthonormal rows in the order of ``pixel_unshuffle``, and
        variances [count], descending, relative to a pixel of variance 1.
    """
    distance = torch.arange(patch, dtype=torch.float64)
    line = PIXEL_CORRELATION ** (distance[:, None] - distance[None]).abs()
    variance, vectors = torch.linalg.eigh(torch.kron(line, line))
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours /= colours.norm(dim=1, keepdim=True)
    weights = torch.tensor(COLOUR_VARIANCE, dtype=torch.float64)
    joint = torch.kron(3 * weights / weights.sum(), variance)  # colour-major, as pixel_unshuffle
    order = joint.argsort(descending=True)[:count]
    rows = torch.kron(colours, vectors.T.contiguous())[order]
    signs = torch.where(rows.sum(dim=1) < 0, -1.0, 1.0)[:, None]  # eigh leaves the sign open
    return (rows * signs).float(), joint[order].float()


def analysis_layer(patch: int, count: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution over unshuffled patches that starts as a power-matched transform.

    Gains go with variance^(-1/4), so that coefficient i gets power proportional to its standard
    deviation: the best linear analog code (Lee, Petersen, IEEE Trans. Commun. 24(12), 1976).
    """
    basis, variance = transform_basis(patch, count)
    layer = nn.Conv2d(3 * patch**2, count, 3, padding=1)
    start_at_zero(layer)
    with torch.no_grad():
        layer.weight[:, :, 1, 1] = basis * variance[:, None] ** -0.25
    return layer


def synthesis_layer(patch: int, count: int) -> nn.Conv2d:
    """Return the inverse of :func:`analysis_layer` for latents normalised to unit symbol power."""
    basis, variance = transform_basis(patch, count)
    pixel_std = 0.22  # of values in [0, 1] around 1/2, over natural images
    power = variance.sqrt().mean()  # of the latent before normalisation, for a pixel of variance 1
    gain = pixel_std * math.sqrt(2) * power.sqrt() * variance**0.25
    layer = nn.Conv2d(count, 3 * patch**2, 3, padding=1)
    start_at_zero(layer)
    with torch.no_grad():
        layer.weight[:, :, 1, 1] = basis.T * gain
    return layer


def check_reach(name: str, reach: int, otherwise: str = "") -> None:
    """Raise ValueError where :func:`half_whitening` has no filters of so many positions a side.

    Args:
        name: of the option, as the error calls it.
        reach: its value.
        otherwise: what else the option may be, as the error says it.
    """
    if not 0 <= reach <= FAR:
        raise ValueError(f"{name} must be at least 0 and at most {FAR}{otherwise}, got {reach}")


def half_whitening(patch: int, count: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return filters over latent positions that leave each channel the root of its spectrum.

    Neighbouring patches correlate too, in their mean above all. The best linear analog code sends
    each spatial frequency with power in proportion to the root of its spectrum S, so the filter is
    S^(-1/4); the receiver undoes it. Same image model as :func:`transform_basis`.

    Args:
        patch: side of the patch in pixels.
        count: leading components.
        reach: positions on each side, at most FAR; kernels are 2 reach + 1 wide.

    Returns:
        filter and inverse, [count, 1, 2 reach + 1, 2 reach + 1] each.
    """
    basis, _ = transform_basis(patch, count)
    lags, far = torch.arange(-FAR, FAR + 1), 2 * FAR + 1
    offset = torch.arange(patch)[:, None] - torch.arange(patch)[None]
    lines = PIXEL_CORRELATION ** (offset + patch * lags[:, None, None]).abs().double()
    parts = basis.double().view(count, 3, patch, patch)
    correlation = torch.einsum("kcij,yim,xjn,kcmn->kyx", parts, lines, lines, parts)
    spectrum = torch.fft.fft2(torch.fft.ifftshift(correlation, dim=(1, 2))).real.clamp_min(1e-3)
    shape = (spectrum / spectrum.mean(dim=(1, 2), keepdim=True)) ** -0.25
    kernels = [torch.fft.fftshift(torch.fft.ifft2(s).real, dim=(1, 2)) for s in (shape, 1 / shape)]
    cut = slice(far // 2 - reach, far // 2 + reach + 1)
    whiten, restore = (k[:, None, cut, cut].float() for k in kernels)
    return whiten, restore


def position_filter(kernel: Tensor) -> nn.Conv2d:
    """Return a depthwise convolution that starts as ``kernel`` [C, 1, k, k] and keeps the size."""
    channels, size = len(kernel), kernel.shape[-1]
    layer = nn.Conv2d(
        channels, channels, size, padding=size // 2, groups=channels, bias=False,
        padding_mode="replicate",
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(kernel)
    return layer
