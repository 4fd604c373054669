"""The Swin networks of a codec: image to latent and back, at any size."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semsim.nn.conv import (
    analysis_layer,
    check_reach,
    half_whitening,
    position_filter,
    synthesis_layer,
)
from semsim.nn.snr import ModNet
from semsim.nn.swin import INIT_STD, Attend, PatchMerging, PatchSplitting, SwinStage

LARGEST_WHITENED = 16  # pixels; the filters of larger patches take gigabytes to compute
HEAD_WIDTH = 32  # channels per attention head, as in every Swin transformer


@dataclass(frozen=True)
class SwinSizes:
    """The sizes of a Swin encoder; the decoder has them in reverse.

    Args:
        patch: pixels per token and direction at the finest scale.
        widths: channels of a token at each scale, finest first; heads have 32 channels.
        depths: encoder blocks at each scale.
        decoder_depths: decoder blocks at each scale, finest first.
        window: side of a window in tokens.
        mod_layers: how often a ModNet takes in its number.
        mod_ratio: its hidden width over the last of ``widths``.
        linear: whether a linear transform carries the latent past the network, which then starts
            at zero, and how many latent positions around are decorrelated; None for no such path.
        local: whether two 3 x 3 convolutions precede each block.
    """

    patch: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    window: int
    mod_layers: int = 7
    mod_ratio: float = 1.5
    linear: int | None = None
    local: bool = False

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.decoder_depths) > 0:
            raise ValueError(
                "widths, depths and decoder_depths name one number per scale, got "
                f"{list(self.widths)}, {list(self.depths)} and {list(self.decoder_depths)}"
            )
        if wrong := [w for w in self.widths if w < 1 or w % HEAD_WIDTH]:
            raise ValueError(f"widths are multiples of {HEAD_WIDTH}, got {wrong[0]}")
        for name in ("patch", "window", "mod_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if min(*self.depths, *self.decoder_depths) < 1:
            raise ValueError("every scale needs at least 1 block in depths and decoder_depths")
        if self.linear is not None:
            check_reach("linear", self.linear, ", or null for no path")
        if self.linear and self.stride > LARGEST_WHITENED:
            raise ValueError(
                f"linear decorrelates patches of up to {LARGEST_WHITENED} pixels, got a stride of "
                f"{self.stride}; set linear: 0, or a smaller patch"
            )

    @property
    def stride(self) -> int:
        """Pixels per latent position and direction."""
        return self.patch * 2 ** (len(self.widths) - 1)

    def mod_net(self, unit: float) -> ModNet:
        """Return a ModNet for tokens of the coarsest scale."""
        width = self.widths[-1]
        return ModNet(width, int(self.mod_ratio * width), self.mod_layers, unit=unit)

    def stages(self, depths: tuple[int, ...]) -> list[SwinStage]:
        """Return one stage per scale, finest first."""
        return [
            SwinStage(w, d, w // HEAD_WIDTH, self.window, local=self.local)
            for w, d in zip(self.widths, depths, strict=True)
        ]


def start_dense(module: nn.Module) -> None:
    """Give every dense layer truncated-normal weights and no bias, as Swin transformers start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def no_logits(stage: int, block: int, x: Tensor) -> None:
    """Add nothing to any attention logit."""


class SwinEncoder(nn.Module):
    """Image to latent.

        image ─┬─► patches ─► dense ─► [stage ─► merge 2 x 2] ... stage ─► LN ─► ModNet ─► dense ─► + ─►
               └─► linear transform (where sizes.linear is given) ─────────────────────────────────┘

    Args:
        channels: reals per latent position; None sends the tokens themselves.
        sizes: see :class:`SwinSizes`.
        snr_unit: dB that count as one in the ModNet; None for no ModNet.
        heatmap: reals per position that say how much each symbol can be trusted; 0 for none. They
            enter at the coarsest scale, through a dense layer that starts at zero.
    """  # noqa: E501 - the diagram

    def __init__(
        self, channels: int | None, sizes: SwinSizes, *, snr_unit: float | None, heatmap: int = 0
    ) -> None:
        super().__init__()
        self.sizes = sizes
        widths = sizes.widths
        self.embed = nn.Linear(3 * sizes.patch**2, widths[0])
        self.stages = nn.ModuleList(sizes.stages(sizes.depths))
        pairs = itertools.pairwise(widths)
        self.merge = nn.ModuleList(PatchMerging(before, after) for before, after in pairs)
        self.norm = nn.LayerNorm(widths[-1])
        self.snr = None if snr_unit is None else sizes.mod_net(snr_unit)
        self.head = nn.Identity() if channels is None else nn.Linear(widths[-1], channels)
        self.trust = nn.Linear(heatmap, widths[-1]) if heatmap else None
        start_dense(self)
        _start_at_zero(self.trust)
        self.linear: nn.Module | None = None
        if sizes.linear is not None and channels is not None:
            _start_at_zero(self.head)
            self.linear = analysis_layer(sizes.stride, channels)
            self.whiten = _filter(sizes, channels, 0)

    def forward(
        self,
        image: Tensor,
        snr_db: Tensor,
        trust: Tensor | None = None,
        *,
        attend: Attend = no_logits,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return the latent [B, channels, h, w].

        Args:
            image: [B, 3, H, W] in [0, 1], sides multiples of ``sizes.stride``.
            snr_db: effective SNR per item, [B].
            trust: 1 / (1 + n0) of each complex symbol, [B, heatmap, h, w].
            attend: logits to add in the blocks, see :data:`semsim.nn.swin.Attend`.
            features: what :meth:`features` returned for this image, to compute it only once.
        """
        x = self.features(image, trust, attend) if features is None else features
        if self.snr is not None:
            x = self.snr(x, snr_db)
        latent = self.head(x).permute(0, 3, 1, 2)
        if self.linear is None:
            return latent
        unshuffled = nn.functional.pixel_unshuffle(image - 0.5, self.sizes.stride)
        return self.whiten(self.linear(unshuffled) + latent)

    def features(
        self, image: Tensor, trust: Tensor | None = None, attend: Attend = no_logits
    ) -> Tensor:
        """Return the tokens of the last scale, [B, h, w, C]; the SNR comes in behind them."""
        x = nn.functional.pixel_unshuffle(image - 0.5, self.sizes.patch).permute(0, 2, 3, 1)
        x = self.embed(x)
        last = len(self.stages) - 1
        for index, stage in enumerate(self.stages):
            if index:
                x = self.merge[index - 1](x)
            if index == last and self.trust is not None and trust is not None:
                x = x + self.trust(trust.permute(0, 2, 3, 1))
            x = stage(x, lambda block, tokens, index=index: attend(index, block, tokens))
        return self.norm(x)


class SwinDecoder(nn.Module):
    """Latent to image, the mirror of :class:`SwinEncoder`.

    latent ─┬─► dense ─► ModNet ─► stage ─► [split 2 x 2 ─► stage] ... ─► LN ─► dense ─► + ─► image
            └─► linear transform (where sizes.linear is given) ─────────────────────────┘
    """

    low_memory_norms = {"norm": ("head",)}  # noqa: RUF012

    def __init__(
        self, channels: int | None, sizes: SwinSizes, *, snr_unit: float | None, heatmap: int = 0
    ) -> None:
        super().__init__()
        self.sizes = sizes
        widths = sizes.widths
        given = widths[-1] if channels is None else channels
        self.enter = nn.Linear(given + heatmap, widths[-1])
        self.snr = None if snr_unit is None else sizes.mod_net(snr_unit)
        self.stages = nn.ModuleList(sizes.stages(sizes.decoder_depths)[::-1])
        pairs = itertools.pairwise(widths[::-1])
        self.split = nn.ModuleList(PatchSplitting(before, after) for before, after in pairs)
        self.norm = nn.LayerNorm(widths[0])
        self.head = nn.Linear(widths[0], 3 * sizes.patch**2, bias=False)
        start_dense(self)
        self.linear: nn.Module | None = None
        if sizes.linear is not None and channels is not None:
            _start_at_zero(self.head)
            self.restore = _filter(sizes, channels, 1)
            self.linear = synthesis_layer(sizes.stride, channels)

    def forward(
        self,
        latent: Tensor,
        snr_db: Tensor,
        trust: Tensor | None = None,
        *,
        attend: Attend = no_logits,
    ) -> Tensor:
        """Return the image [B, 3, H, W], about [0, 1] but not clamped.

        Args:
            latent: as received, [B, C, h, w].
            snr_db: effective SNR per item, [B].
            trust: 1 / (1 + n0) of each complex symbol, [B, heatmap, h, w].
            attend: logits to add in the blocks, see :data:`semsim.nn.swin.Attend`.
        """
        if self.linear is not None:
            latent = self.restore(latent)
        given = latent if trust is None else torch.cat([latent, trust], dim=1)
        x = self.enter(given.permute(0, 2, 3, 1))
        if self.snr is not None:
            x = self.snr(x, snr_db)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.split[index - 1](x)
            x = stage(x, lambda block, tokens, index=index: attend(index, block, tokens))
        pixels = self.head(self.norm(x)).permute(0, 3, 1, 2)
        image = nn.functional.pixel_shuffle(pixels, self.sizes.patch)
        if self.linear is not None:
            image = image + nn.functional.pixel_shuffle(self.linear(latent), self.sizes.stride)
        return image + 0.5


def _start_at_zero(layer: nn.Module | None) -> None:
    for parameter in layer.parameters() if layer is not None else ():
        nn.init.zeros_(parameter)


def _filter(sizes: SwinSizes, channels: int, which: int) -> nn.Module:
    if not sizes.linear:
        return nn.Identity()
    return position_filter(half_whitening(sizes.stride, channels, sizes.linear)[which])
