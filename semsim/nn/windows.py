"""How a grid of tokens is cut into windows, shifted or not, and what may not meet in one."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn


class _Reorder(torch.autograd.Function):
    """Permute tokens x [B, L, C] by ``order``; its gradient is a gather by the inverse, no sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.index_select(1, ctx.inverse), None, None


class WindowLayout:
    """How a grid of height x width tokens is cut into windows; see :func:`window_layout`."""

    def __init__(self, height: int, width: int, window: int, shift: int) -> None:
        self.grid = (height, width)
        self.side = (min(window, height), min(window, width))
        # a window as tall as the grid sees all of it, so shifting would change nothing
        self.shift = (shift if window < height else 0, shift if window < width else 0)
        down, across = math.ceil(height / self.side[0]), math.ceil(width / self.side[1])
        self.padded = (down * self.side[0], across * self.side[1])
        self.windows = down * across
        self._masks: dict[torch.device, Tensor | None] = {}
        self._orders: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def split(self, x: Tensor) -> Tensor:
        """Cut x [B, H, W, C] into windows [B * windows, N, C]."""
        batch, channels = len(x), x.shape[-1]
        if self.padded != self.grid:
            down, right = self.padded[0] - x.shape[1], self.padded[1] - x.shape[2]
            x = nn.functional.pad(x, (0, 0, 0, right, 0, down))
        order, back = self.orders(x.device)
        tokens = _Reorder.apply(x.reshape(batch, -1, channels), order, back)
        return tokens.view(batch * self.windows, -1, channels)

    def join(self, tokens: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        channels = tokens.shape[-1]
        order, back = self.orders(tokens.device)
        x = _Reorder.apply(tokens.reshape(-1, len(order), channels), back, order)
        x = x.view(-1, *self.padded, channels)
        return x[:, : self.grid[0], : self.grid[1]] if self.padded != self.grid else x

    def orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return which token of the padded grid comes where in the windows, and the inverse."""
        if torch.compiler.is_compiling():
            return self._make_orders(device)
        if device not in self._orders:
            with torch.inference_mode(False):  # or it could never serve a training
                self._orders[device] = self._make_orders(device)
        return self._orders[device]

    def _make_orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        (height, width), (tall, wide) = self.padded, self.side
        place = torch.arange(height * width, device=device).view(height, width)
        place = place.roll((-self.shift[0], -self.shift[1]), (0, 1))
        windows = place.view(height // tall, tall, width // wide, wide).transpose(1, 2)
        order = windows.reshape(-1)
        return order, order.argsort()

    def mask(self, device: torch.device) -> Tensor | None:
        """Return 0 or -inf for each pair of tokens, [windows, 1, N, N]; None where all may meet."""
        if torch.compiler.is_compiling():
            return self._make_mask(device)
        if device not in self._masks:
            with torch.inference_mode(False):  # or it could never serve a training
                self._masks[device] = self._make_mask(device)
        return self._masks[device]

    def _make_mask(self, device: torch.device) -> Tensor | None:
        if not any(self.shift) and self.padded == self.grid:
            return None
        rows, columns = (_regions(self.grid[i], self.padded[i], self.shift[i]) for i in (0, 1))
        region = (rows[:, None] * len(columns) + columns[None]).to(device)
        still = WindowLayout(*self.padded, max(self.side), 0)
        region = still.split(region[None, :, :, None])[..., 0]  # [windows, N]
        apart = region[:, :, None] != region[:, None, :]
        return torch.zeros(apart.shape, device=device).masked_fill(apart, -math.inf)[:, None]


def _regions(size: int, padded: int, shift: int) -> Tensor:
    """Return a number for each row after the shift; rows of one number are neighbours in truth."""
    place = (torch.arange(padded) + shift) % padded  # where each row came from
    region = (torch.arange(padded) >= padded - shift).long() if shift else torch.zeros_like(place)
    return torch.where(place >= size, 2, region)


_kept_layout = functools.lru_cache(256)(WindowLayout)


def window_layout(height: int, width: int, window: int, shift: int) -> WindowLayout:
    """Return the layout of a grid; kept, so that masks are made once per grid."""
    make = WindowLayout if torch.compiler.is_compiling() else _kept_layout
    return make(height, width, window, shift)


def relative_index(tall: int, wide: int, window: int) -> Tensor:
    """Return where the bias of each pair of tokens lies in a table for ``window``, [N, N]."""
    if torch.compiler.is_compiling():
        return _relative_index(tall, wide, window)
    with torch.inference_mode(False):  # or it could never serve a training
        return _kept_index(tall, wide, window)


def _relative_index(tall: int, wide: int, window: int) -> Tensor:
    row, column = torch.arange(tall * wide) // wide, torch.arange(tall * wide) % wide
    down = row[:, None] - row[None] + window - 1
    across = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + across


_kept_index = functools.lru_cache(64)(_relative_index)
