"""The networks of a convolutional codec: image to latent and back, at any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semsim.nn.attention import attention
from semsim.nn.conv import (
    Blocks,
    Stage,
    analysis_layer,
    half_whitening,
    position_filter,
    start_at_zero,
    synthesis_layer,
    upsample,
)
from semsim.nn.same import Padding, down, up


def scale_widths(stride: int, patch: int, width: int) -> list[int]:
    """Return the channels at each scale from ``patch`` to ``stride``, doubling each time."""
    scales = stride // patch if patch > 0 else 0
    if scales < 1 or stride % patch or scales & (scales - 1):
        raise ValueError(
            f"stride must be patch times a power of two, got stride {stride} and patch {patch}; "
            "write stride: 4, patch: 4 or stride: 8, patch: 4"
        )
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    return [width * 2**i for i in range(scales.bit_length())]


class ResidualEncoder(nn.Module):
    """Image to latent: a linear transform, and a network that adds to it.

        image ─► unshuffle ─┬─► linear transform ────────────────────────────────┬─► + ─► latent
                            └─► 3 x 3 ─► [blocks ─► 2 x 2 / 2] ... blocks ─► 3 x 3 ─┘

    The transform starts as the best linear code for a model of natural images and the rest at zero,
    so training starts at a usable picture.

    Args:
        channels: reals per latent position.
        blocks: of what kind the residual blocks are.
        stride: pixels per latent position and direction.
        patch: pixels per position at the finest scale.
        width: channels at the finest scale.
        depth: residual blocks per scale.
        reach: positions on each side over which latents are decorrelated; 0 for none.
    """

    def __init__(
        self, channels: int, blocks: Blocks, *, stride: int, patch: int, width: int, depth: int,
        reach: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.patch = stride, patch
        widths = scale_widths(stride, patch, width)
        self.linear = analysis_layer(stride, channels)
        self.stem = nn.Conv2d(3 * patch**2, width, 3, padding=1)
        self.stages = nn.ModuleList(Stage(w, depth, blocks) for w in widths)
        self.down = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.head = nn.Conv2d(widths[-1], channels, 3, padding=1)
        start_at_zero(self.head)
        self.whiten: nn.Module = nn.Identity()
        if reach:
            self.whiten = position_filter(half_whitening(stride, channels, reach)[0])

    def forward(self, image: Tensor, told: Tensor) -> Tensor:
        """Return the latent [B, channels, H/stride, W/stride] of image [B, 3, H, W] in [0, 1]."""
        image = image - 0.5
        x = self.stem(nn.functional.pixel_unshuffle(image, self.patch))
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.down[index - 1](x), told)
        linear = self.linear(nn.functional.pixel_unshuffle(image, self.stride))
        return self.whiten(linear + self.head(x))


class ResidualDecoder(nn.Module):
    """Latent to image, the mirror of :class:`ResidualEncoder` with twice the blocks.

    latent ──────────┬─► linear transform ──────────────────────────────┬─► + ─► image
    latent and trust ┴─► 3 x 3 ─► [blocks ─► x 2] ... blocks ─► 3 x 3 ─► shuffle ─┘
    """

    def __init__(
        self, channels: int, blocks: Blocks, *, stride: int, patch: int, width: int, depth: int,
        reach: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.patch = stride, patch
        widths = scale_widths(stride, patch, width)[::-1]
        self.linear = synthesis_layer(stride, channels)
        self.stem = nn.Conv2d(channels * 3 // 2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(Stage(w, 2 * depth, blocks) for w in widths)
        self.up = nn.ModuleList(upsample(w, w // 2) for w in widths[:-1])
        self.head = nn.Conv2d(width, 3 * patch**2, 3, padding=1)
        start_at_zero(self.head)
        self.restore: nn.Module = nn.Identity()
        if reach:
            self.restore = position_filter(half_whitening(stride, channels, reach)[1])

    def forward(self, latent: Tensor, trust: Tensor, told: Tensor) -> Tensor:
        """Return the image [B, 3, H, W], about [0, 1] but not clamped.

        Args:
            latent: received, shrunk by ``trust``, [B, C, h, w].
            trust: 1 / (1 + n0) of each complex symbol, [B, C / 2, h, w].
            told: what the blocks see, [B, adaptive].
        """
        latent = self.restore(latent)
        x = self.stem(torch.cat([latent, trust], dim=1))
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.up[index - 1](x), told)
        image = nn.functional.pixel_shuffle(self.linear(latent), self.stride)
        return image + nn.functional.pixel_shuffle(self.head(x), self.patch) + 0.5


class Encoder2019(nn.Sequential):
    """The first DeepJSCC encoder: five 5 x 5 convolutions with PReLU, the first two by stride 2.

    Source: Bourtsoulatze, Kurka, Gündüz, Deep Joint Source-Channel Coding for Wireless Image
    Transmission, IEEE TCCN 5(3), 2019. One PReLU slope per layer; per channel with the padding of
    Keras, so that weights of either kind can be taken over. See :mod:`semsim.nn.same`. Not in the
    paper: attention after each PReLU but the last, see :mod:`semsim.nn.attention`.
    """

    def __init__(
        self, channels: int, padding: Padding = "symmetric", attention_kind: str = "none"
    ) -> None:
        sizes = [(3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1), (32, channels, 1)]
        layers: list[nn.Module] = []
        for before, after, stride in sizes:
            layers += _attended(attention_kind, before) if layers else []
            layers += [down(before, after, 5, stride, padding), _slopes(after, padding)]
        super().__init__(*layers)


class Decoder2019(nn.Sequential):
    """The first DeepJSCC decoder: the mirror in transposed convolutions, with a sigmoid.

    With attention after each PReLU.
    """

    def __init__(
        self, channels: int, padding: Padding = "symmetric", attention_kind: str = "none"
    ) -> None:
        sizes = [(channels, 32, 1), (32, 32, 1), (32, 32, 1), (32, 16, 2), (16, 3, 2)]
        layers: list[nn.Module] = []
        for before, after, stride in sizes:
            layers += _attended(attention_kind, before) if layers else []
            layers += [up(before, after, 5, stride, padding), _slopes(after, padding)]
        super().__init__(*layers[:-1], nn.Sigmoid())


def _attended(kind: str, channels: int) -> list[nn.Module]:
    """Return the attention between two layers; nothing for none, so that layers keep names."""
    return [] if kind == "none" else [attention(kind, channels)]


def _slopes(channels: int, padding: Padding) -> nn.PReLU:
    return nn.PReLU(channels if padding == "keras" else 1)
