"""Channel attention: none, SE, ECA, SimAM and PFCA, each a module that keeps the shape.

"Found" and "inferred" in the docstrings tell what its source states from what was chosen here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _wide(x: Tensor) -> Tensor:
    """Return x in at least fp32, for statistics under autocast."""
    return x if x.dtype == torch.float64 else x.float()


class SE(nn.Module):
    """Squeeze and excitation: weights from the channel means through two dense layers.

        w = sigmoid(W2 relu(W1 mean_hw(x))),  y = w · x

    2 C^2 / reduction parameters, no biases (found).

    Source: Hu, Shen, Sun, Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item and channel."""
        weight = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * weight[:, :, None, None]


class ECA(nn.Module):
    """Efficient channel attention: a 1-D convolution over the channel means.

        w = sigmoid(conv_k(mean_hw(x))),  k odd, about (log2 C + 1) / 2

    k parameters (found).

    Source: Wang, Wu, Zhu, Li, Zuo, Hu, ECA-Net, CVPR 2020.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs((math.log2(channels) + 1) / 2))
        size += 1 - size % 2
        self.mix = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item and channel."""
        weight = torch.sigmoid(self.mix(x.mean(dim=(2, 3))[:, None])[:, 0])
        return x * weight[:, :, None, None]


class SimAM(nn.Module):
    """Parameter-free attention over the pixels of a channel.

        v = (x - mean_hw)^2 / (4 (var_hw + lambda)) + 1/2,  y = sigmoid(v) · x

    Statistics over H x W with divisor H W - 1; lambda = 1e-4 (found).

    Source: Yang, Zhang, Li, Xie, SimAM, ICML 2021.
    """

    def __init__(self, regulariser: float = 1e-4) -> None:
        super().__init__()
        self.regulariser = regulariser

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item, channel and pixel."""
        wide = _wide(x)
        square = (wide - wide.mean(dim=(2, 3), keepdim=True)).square()
        divisor = max(x.shape[2] * x.shape[3] - 1, 1)  # one pixel: its deviation is 0 anyway
        variance = square.sum(dim=(2, 3), keepdim=True) / divisor
        return x * torch.sigmoid(square / (4 * (variance + self.regulariser)) + 0.5).to(x.dtype)


class PFCA(nn.Module):
    """Parameter-free channel attention: channels that differ from the others weigh more.

        u_c = mean_hw(x_c)                       (global average)
        v_c = (u_c - mean u)^2 / (4 (var u + lambda)) + 1/2
        y_c = sigmoid(v_c) · x_c

    Mean and variance run across the channels of one item, the variance with divisor C - 1; lambda =
    1e-4 (found, by way of an unofficial module written from the preprint). Inferred: means over H
    and W of any size, variance 0 for a single channel, statistics in fp32 under autocast, and
    ``relative``.

    Args:
        regulariser: lambda. Where var u is far below it, every weight collapses to sigmoid(1/2).
        relative: take lambda times the mean square of u, so that the scale of x does not matter.

    Source: Shi, Yang, Zhang and others, arXiv 2303.11055 (2023).
    """

    def __init__(self, regulariser: float = 1e-4, relative: bool = False) -> None:
        super().__init__()
        self.regulariser = regulariser
        self.relative = relative

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights [B, C], each in (sigmoid(1/2), 1)."""
        mean = _wide(x).mean(dim=(2, 3))
        square = (mean - mean.mean(dim=1, keepdim=True)).square()
        variance = square.sum(dim=1, keepdim=True) / max(x.shape[1] - 1, 1)
        floor: Tensor | float = self.regulariser
        if self.relative:
            tiny = torch.finfo(mean.dtype).tiny
            floor = self.regulariser * mean.square().mean(dim=1, keepdim=True) + tiny
        return torch.sigmoid(square / (4 * (variance + floor)) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, H, W] scaled per item and channel."""
        return x * self.weights(x).to(x.dtype)[:, :, None, None]


ATTENTION = ("none", "se", "eca", "simam", "pfca")


def attention(kind: str, channels: int) -> nn.Module:
    """Return the module named ``kind``, one of :data:`ATTENTION`, for ``channels`` channels."""
    match kind:
        case "none":
            return nn.Identity()
        case "se":
            return SE(channels)
        case "eca":
            return ECA(channels)
        case "simam":
            return SimAM()
        case "pfca":
            return PFCA()
    raise ValueError(f"attention is one of {', '.join(ATTENTION)}, got {kind!r}")
