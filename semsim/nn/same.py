"""Convolutions whose output is the input's size over the stride, centred by one of two rules.

    symmetric   size // 2 zeros on both sides: each kernel's centre lies on an even pixel
    keras       as few zeros as will do, the odd one at the end: what Keras and TensorFlow call same

With stride 1 the two are one. With stride 2 they see the image half a pixel apart, so weights
trained by one rule are wrong by the other. Those of ``keras`` also start as Keras starts them.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Padding = Literal["symmetric", "keras"]


class SameConv2d(nn.Conv2d):
    """A square convolution by the rule ``keras``: ceil(n / stride) outputs for n inputs."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        super().__init__(before, after, size, stride)
        start_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, ceil(H / stride), ceil(W / stride)] for x [B, before, H, W]."""
        pads = [
            pad
            for n in (x.shape[3], x.shape[2])  # F.pad starts at the last axis
            for pad in _keras_pads(n, self.kernel_size[0], self.stride[0])
        ]
        return super().forward(nn.functional.pad(x, pads))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of :class:`SameConv2d`: n · stride outputs for n inputs."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1) -> None:
        if size < stride:
            raise ValueError(f"size is at least the stride, got {size} and {stride}")
        first = (size - stride) // 2
        super().__init__(before, after, size, stride, padding=first)
        self.surplus = size - stride - 2 * first  # 1 where the padding is odd
        start_as_keras(self)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return [B, after, stride · H, stride · W] for x [B, before, H, W]."""
        y = super().forward(x, output_size)
        return y[..., : y.shape[2] - self.surplus, : y.shape[3] - self.surplus]


def start_as_keras(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights from Glorot and Bengio's uniform distribution, and set biases to zero."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _keras_pads(n: int, size: int, stride: int) -> tuple[int, int]:
    total = max((-(-n // stride) - 1) * stride + size - n, 0)
    return total // 2, total - total // 2


def down(before: int, after: int, size: int, stride: int, padding: Padding) -> nn.Conv2d:
    """Return a convolution of odd ``size`` that divides height and width by the stride."""
    if padding == "keras":
        return SameConv2d(before, after, size, stride)
    return nn.Conv2d(before, after, size, stride=stride, padding=size // 2)


def up(before: int, after: int, size: int, stride: int, padding: Padding) -> nn.ConvTranspose2d:
    """Return a transposed convolution of odd ``size`` that multiplies them."""
    if padding == "keras":
        return SameConvTranspose2d(before, after, size, stride)
    return nn.ConvTranspose2d(
        before, after, size, stride=stride, padding=size // 2, output_padding=stride - 1
    )
