"""Two convolutions that PyTorch does slowly on a CPU: the same numbers in less time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

COLUMNS = 3  # of a kernel, up to which PyTorch has a fast loop for its gradient


class _InPieces(torch.autograd.Function):
    """A depth-wise convolution whose weight gradient is taken three kernel columns at a time.

    In pieces the gradient of a 7x7 kernel takes a fraction of the time (``benchmarks/marformer.py``
    measures a whole step of such a layer).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        side, groups = weight.shape[-1], len(weight)
        reach = side // 2
        parts = []
        for left in range(0, side, COLUMNS):
            columns = min(COLUMNS, side - left)
            shifted = F.pad(x, (reach - left, left + columns - 1 - reach))
            shape = torch.Size((groups, 1, side, columns))
            parts.append(conv2d_weight(shifted, shape, gradient, padding=(reach, 0), groups=groups))
        back = F.conv2d(gradient, weight.flip(2, 3), padding=reach, groups=groups)
        return back, torch.cat(parts, dim=3), gradient.sum(dim=(0, 2, 3))


class Depthwise(nn.Conv2d):
    """A depth-wise convolution with a large kernel, same size out as in.

    Args:
        channels: C.
        kernel: side in pixels, odd.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        slow = x.device.type == "cpu" and self.kernel_size[1] > COLUMNS
        if slow and torch.is_grad_enabled() and x.shape[-1] >= self.kernel_size[1]:
            taken: Any = (x, self.weight, self.bias)
            if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
                # autocast knows no functions of our own
                taken = (part.to(torch.get_autocast_dtype(x.device.type)) for part in taken)
            return _InPieces.apply(*taken)
        return super().forward(x)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as one matrix product over all pixels: on a CPU about twice as fast."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H, W]."""
        weight = self.weight.flatten(1)
        return F.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)
