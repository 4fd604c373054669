"""Swin transformer parts of codecs: window attention, stages, changes of scale, ModNet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from semsim.nn.windows import relative_index, window_layout

LEAK = 0.1  # slope of the leaky ReLU below zero
INIT_STD = 0.02  # of truncated-normal dense weights
Attend = Callable[[int, int, Tensor], Tensor | None]  #: (stage, block, tokens) -> logits to add


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position.

    Args:
        width: channels C of a token.
        heads: attention heads; they divide ``width``.
        window: side of the largest window in tokens; smaller grids use the middle of the table.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads must divide the width, got {heads} heads at width {width}")
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=INIT_STD)

    def forward(self, tokens: Tensor, side: tuple[int, int], extra: Tensor | None = None) -> Tensor:
        """Attend within each window.

        Args:
            tokens: [M, N, C], M windows of N = height x width tokens.
            side: the window's height and width in tokens.
            extra: added to the logits, [m, 1 or heads, N, N] with m dividing M: windows of an item
                lie side by side, so m = windows per item repeats for each item, or m = M. With one
                column more, the last is that of a sink: a key and a value of zeros, which takes the
                weight of a token that may attend to nothing.
        """
        count, length, width = tokens.shape
        index = relative_index(*side, self.window).to(tokens.device).view(-1)
        logits = self.bias.T.contiguous().index_select(1, index).view(1, -1, length, length)
        sink = extra is not None and extra.shape[-1] > length
        if extra is not None:
            logits = (nn.functional.pad(logits, (0, 1)) if sink else logits) + extra
            if 1 < len(logits) < count:
                logits = logits.repeat(count // len(logits), 1, 1, 1)
        qkv = self.qkv(tokens).view(count, length, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        if sink:
            k, v = (nn.functional.pad(part, (0, 0, 0, 1)) for part in (k, v))
        mixed = attend(q, k, v, logits.to(q.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(count, length, width))


def attend(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + logits) v; q is [M, heads, N, d], k, v like it.

    Through torch's fused kernel, but for training on a CPU: no fused kernel there has a gradient
    for ``logits``, and what torch falls back to takes 1.5 times as long as the three steps.
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and logits.requires_grad:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return (scores + logits).softmax(dim=-1) @ v
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=logits)


class SwinBlock(nn.Module):
    """Attention within windows and a two-layer network per token, each added to its input.

        x ─┬─► LN ─► windows ─► attention ─► + ─┬─► LN ─► dense ─► GELU ─► dense ─► + ─►
           └────────────────────────────────────┘└────────────────────────────────────┘

    Windows of every second block are shifted by half a window; tokens that only meet by wrapping
    around, and the padding of a grid that the window does not divide, are masked from each other.
    Where the grid is no larger than the window, the grid is the window and nothing is shifted.

    Args:
        width: channels C.
        heads: attention heads.
        window: side of a window in tokens.
        shift: tokens by which windows are shifted; 0 or half a window.
        mlp_ratio: width of the hidden layer over ``width``.

    Source: Liu and others, Swin Transformer, ICCV 2021.
    """

    #: norms whose only consumers are these dense layers, so that their scale can move there
    low_memory_norms = {"norm1": ("attention.qkv",), "norm2": ("mlp.0",)}  # noqa: RUF012

    def __init__(
        self, width: int, heads: int, window: int, shift: int = 0, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        if not 0 <= shift < window:
            raise ValueError(f"shift must be in [0, window), got {shift} at window {window}")
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        hidden = int(mlp_ratio * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return tokens like x [B, H, W, C].

        Args:
            x: a grid of tokens.
            extra: added to the attention logits of every window, [B, N, N] for all heads or
                [B, heads, N, N], N the tokens in a window; may hold -inf and carry a gradient. With
                one column more, the last is a sink's, as in :class:`WindowAttention`.
        """
        layout = window_layout(x.shape[1], x.shape[2], self.window, self.shift)
        tokens = layout.split(x)
        logits = layout.mask(x.device)
        if extra is not None:
            of_heads = extra[:, None] if extra.dim() == 3 else extra
            own = of_heads[:, None].expand(-1, layout.windows, -1, -1, -1).flatten(0, 1)
            if logits is not None:
                logits = nn.functional.pad(logits, (0, own.shape[-1] - logits.shape[-1]))
            logits = own if logits is None else own + logits.repeat(len(x), 1, 1, 1)
        tokens = tokens + self.attention(self.norm1(tokens), layout.side, logits)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return layout.join(tokens)


class LocalMixing(nn.Module):
    """Two 3 x 3 convolutions added to their input, for what windows see poorly: close neighbours.

    x ─┬─► 3 x 3 ─► leaky ReLU ─► 3 x 3 ─► + ─►
       └───────────────────────────────────┘
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        # tokens are stored in this order, so that no copy is needed
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens like x [B, H, W, C]."""
        y = nn.functional.leaky_relu(self.first(x.permute(0, 3, 1, 2)), LEAK)
        return x + self.second(y).permute(0, 2, 3, 1)


class SwinStage(nn.Module):
    """Blocks at one scale, every second one with shifted windows.

    Args:
        width: channels.
        depth: blocks.
        heads: attention heads.
        window: side of a window in tokens.
        mlp_ratio: as in :class:`SwinBlock`.
        local: whether a :class:`LocalMixing` precedes each block; not part of a Swin transformer.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        window: int,
        mlp_ratio: float = 4.0,
        *,
        local: bool = False,
    ) -> None:
        super().__init__()
        shifts = [window // 2 if i % 2 else 0 for i in range(depth)]
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, s, mlp_ratio) for s in shifts)
        self.local = nn.ModuleList(LocalMixing(width) for _ in shifts if local)

    def forward(self, x: Tensor, attend: Callable[[int, Tensor], Tensor | None]) -> Tensor:
        """Return tokens like x [B, H, W, C]; ``attend(block, x)`` gives logits to add, or None."""
        for index, block in enumerate(self.blocks):
            if self.local:
                x = self.local[index](x)
            x = block(x, attend(index, x))
        return x


class PatchMerging(nn.Module):
    """Halve height and width: each 2 x 2 tokens become one of another width.

    Source: Swin Transformer; a normalisation and one dense layer without bias.
    """

    low_memory_norms = {"norm": ("reduce",)}  # noqa: RUF012

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * before)
        self.reduce = nn.Linear(4 * before, after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, H / 2, W / 2, after] for x [B, H, W, before]."""
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2 * channels).transpose(2, 3)
        return self.reduce(self.norm(x.reshape(batch, height // 2, width // 2, 4 * channels)))


class PatchSplitting(nn.Module):
    """Double height and width: each token becomes 2 x 2 of another width.

    Source: patch reverse merging of WITT; a normalisation and one dense layer without bias.
    """

    low_memory_norms = {"norm": ("expand",)}  # noqa: RUF012

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(before)
        self.expand = nn.Linear(before, 4 * after, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, 2 H, 2 W, after] for x [B, H, W, before]."""
        batch, height, width, _ = x.shape
        x = self.expand(self.norm(x)).view(batch, height, width, 2, 2, -1)
        return x.transpose(2, 3).reshape(batch, 2 * height, 2 * width, x.shape[-1])
