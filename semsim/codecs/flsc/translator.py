"""From received semantics to what a task wants: an image, scores of classes, an embedding.

Source: see ``extractor``. Found: up by transposed convolutions 512, 256, 96, 12 with GELU and batch
    norm, then a pixel shuffle. Inferred: the translators of image-level tasks, the task's embedding
    that modulates a decoder which all tasks share. Ours: dense layers per token and a transformer
    block in place of dense layers over the whole image (402 million parameters, one image size),
    the fine branch, its linear path, residual convolutions, and a clip in place of the sigmoid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim.codecs.flsc.extractor import FINE_STRIDE, Block, Sizes
from semsim.nn.conv import analysis_layer, start_at_zero, synthesis_layer

TASK_WIDTH = 64  #: numbers that tell the shared decoder which task it works for
NORM_GROUPS = 8


class FineEncoder(nn.Module):
    """Fine semantics, beside a linear transform of the pixels that makes a start."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.linear = analysis_layer(FINE_STRIDE, channels)
        self.head = nn.Conv2d(width, channels, 1)
        start_at_zero(self.head)

    def forward(self, image: Tensor, fine: Tensor) -> Tensor:
        """Return the latent [B, channels, H / 8, W / 8] of an image and its fine semantics."""
        pixels = nn.functional.pixel_unshuffle(image - 0.5, FINE_STRIDE)
        return self.linear(pixels) + self.head(fine)


class ChannelDecoder(nn.Module):
    """Received coarse latent to tokens; shared by all tasks, of which one modulates it.

    latent, trust ─► dense ─► · (1 + scale) + shift ─► GELU ─► dense ─► block ─► tokens
                                      ▲ dense ◄─ embedding of the task
    """

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.widths[-1]
        self.enter = nn.Conv2d(3 * channels // 2, width, 1)
        self.modulate = nn.Linear(TASK_WIDTH, 2 * width)
        self.leave = nn.Conv2d(width, width, 1)
        self.block = Block(width, sizes.heads[-1], sizes.mlp_ratios[-1])

    def forward(self, latent: Tensor, trust: Tensor, task: Tensor) -> Tensor:
        """Return [B, C4, h, w].

        Args:
            latent: received, shrunk by ``trust``, [B, C, h, w].
            trust: 1 / (1 + n0) of each symbol, [B, C / 2, h, w].
            task: its embedding, [TASK_WIDTH].
        """
        scale, shift = self.modulate(task)[:, None, None].chunk(2)
        x = self.enter(torch.cat([latent, trust], dim=1)) * (1 + scale) + shift
        x = self.leave(nn.functional.gelu(x))
        return self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Translator(nn.Module):
    """What belongs to one task; a subclass gives ``forward(coarse, fine)``.

    Args of ``forward``:
        coarse: tokens of the shared decoder, [B, C4, H / 32, W / 32].
        fine: received fine latent and its trust, [B, 3 C / 2, H / 8, W / 8]; None where none came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(TASK_WIDTH))


class ImageTranslator(Translator):
    """Semantics to an image, about [0, 1] but not clamped.

    coarse ─► x 2 ─► x 2 ─► + ─► refine ─► x 2 ─► refine ─► x 2 ─► x 2 ─► + ─► image
                     fine ──┴─────────► linear transform ─────────────────┘
    """

    def __init__(self, sizes: Sizes, fine: int, norm: str) -> None:
        super().__init__()
        first, second, third = sizes.up
        self.fine_channels = fine
        self.up16 = nn.Sequential(
            nn.Conv2d(sizes.widths[-1], 4 * first, 1), nn.PixelShuffle(2), nn.GELU(),
            _norm(norm, first),
        )  # fmt: skip
        self.up8, self.up4 = _up(first, second, norm), _up(second, third, norm)
        self.up2 = nn.ConvTranspose2d(third, 12, 2, stride=2)
        self.refine8, self.refine4 = Refine(second), Refine(third)
        self.fine = nn.Conv2d(3 * fine // 2, second, 3, padding=1) if fine else None
        self.linear = synthesis_layer(FINE_STRIDE, fine) if fine else None
        if fine:  # a fresh translator is the linear path alone
            nn.init.zeros_(self.up2.weight)

    def forward(self, coarse: Tensor, fine: Tensor | None) -> Tensor:
        """Return [B, 3, H, W]."""
        x = self.up8(self.up16(coarse))
        if self.fine is not None:
            x = x + self.fine(fine)
        image = self.up2(self.refine4(self.up4(self.refine8(x))))
        image = nn.functional.pixel_shuffle(image, 2) + 0.5
        if self.linear is not None and fine is not None:
            pixels = self.linear(fine[:, : self.fine_channels])
            image = image + nn.functional.pixel_shuffle(pixels, FINE_STRIDE)
        return image


class Refine(nn.Module):
    """Two 3 x 3 convolutions and a sum, whose second starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        start_at_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """Return features like x [B, C, H, W]."""
        return x + self.second(nn.functional.gelu(self.first(x)))


class LabelTranslator(Translator):
    """Semantics to scores of classes, or to an embedding of length 1.

    coarse ─► LN ─► mean ─┬─► dense ─► GELU ─► dense ─► scores
    fine ─► dense ─► mean ┘
    """

    def __init__(self, sizes: Sizes, fine: int, outputs: int, *, unit: bool) -> None:
        super().__init__()
        width, self.unit = sizes.widths[-1], unit
        self.norm = nn.LayerNorm(width)
        self.fine = nn.Conv2d(3 * fine // 2, sizes.widths[1], 3, padding=1) if fine else None
        joined = width + (sizes.widths[1] if fine else 0)
        self.score = nn.Sequential(
            nn.Linear(joined, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, outputs)
        )

    def forward(self, coarse: Tensor, fine: Tensor | None) -> Tensor:
        """Return [B, outputs]."""
        x = self.norm(coarse.flatten(2).transpose(1, 2)).mean(dim=1)
        if self.fine is not None:
            x = torch.cat([x, nn.functional.gelu(self.fine(fine)).mean(dim=(2, 3))], dim=1)
        scores = self.score(x)
        return nn.functional.normalize(scores, dim=1) if self.unit else scores


def _norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(NORM_GROUPS, width)


def _up(before: int, after: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, 2, stride=2), nn.GELU(), _norm(norm, after)
    )
