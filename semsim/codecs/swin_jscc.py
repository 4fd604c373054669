"""Swin JSCC: a Swin transformer at each end, adaptive to the SNR and, where asked, to the rate."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.deepjscc import latent_channels, pad_to_stride, to_latent, to_symbols
from semsim.nn.snr import SNR_RANGE_DB, SNR_SCALE_DB
from semsim.nn.swin_codec import SwinDecoder, SwinEncoder, SwinSizes
from semsim.phy.power import unit_power

Preset = Literal["tiny", "cifar", "small", "base", "large"]
Adaptive = Literal["both", "receiver", "none"]

_HR = (128, 192, 256, 320)  # widths of the networks for photos
#: Sizes by name. ``tiny`` is this project's, for CPUs; the others are those of WITT and SwinJSCC.
PRESETS = {
    "tiny": SwinSizes(4, (128,), (5,), (7,), 8, mod_layers=1, mod_ratio=1.0, linear=3),
    "cifar": SwinSizes(2, (128, 256), (2, 4), (2, 4), 2),
    "small": SwinSizes(2, _HR, (2, 2, 2, 2), (2, 2, 2, 2), 8),
    "base": SwinSizes(2, _HR, (2, 2, 6, 2), (2, 2, 6, 2), 8),
    "large": SwinSizes(2, _HR, (2, 2, 18, 2), (2, 2, 18, 2), 8),
}


class _Codec(nn.Module):
    """What both ends must agree on: the arguments, checked, and the latent's shape."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        for name, choices in (("preset", Preset), ("adaptive", Adaptive)):
            if spec[name] not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ValueError(f"{name} is one of {known}, got {spec[name]!r}")
        preset = PRESETS[spec["preset"]]
        own = {k: spec[k] for k in _SIZES if spec[k] is not None}
        own |= {k: tuple(v) for k, v in own.items() if isinstance(v, list | tuple)}
        self.sizes = dataclasses.replace(preset, **own)
        self.stride = self.sizes.stride
        self.channels = latent_channels(spec["cbr"], self.stride)
        is_tiny = spec["preset"] == "tiny"
        self.heatmap = is_tiny if spec["heatmap"] is None else bool(spec["heatmap"])
        #: the arguments, as kept with weights
        self.spec = {**spec, "cbr": str(Fraction(self.channels, 6 * self.stride**2))}
        self.spec |= {k: list(v) for k, v in own.items() if isinstance(v, tuple)}
        #: arguments of both networks that depend on the preset
        self.trust_channels = self.channels // 2 if self.heatmap else 0
        self.snr_unit = SNR_SCALE_DB if is_tiny else 1.0

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the latent's height and width for an image of this shape [3, H, W]."""
        if len(shape) != 3 or shape[0] != 3:
            raise ValueError(f"swin_jscc carries images of shape [3, H, W], got {list(shape)}")
        return -(-shape[1] // self.stride), -(-shape[2] // self.stride)

    def trust(self, csi: CSI, batch: int, grid: tuple[int, int]) -> Tensor:
        """Return 1 / (1 + n0) of each symbol, [B, C / 2, h, w]; n0 is [B] or [B, 1, K]."""
        symbols = self.channels // 2 * grid[0] * grid[1]
        trust = 1 / (1 + csi.n0.reshape(batch, -1)[:, :symbols])
        return trust.expand(-1, symbols).reshape(batch, self.channels // 2, *grid)


_SIZES = ("patch", "widths", "depths", "decoder_depths", "window", "linear")


def _snr(csi: CSI) -> Tensor:
    return csi.effective_snr_db().clamp(*SNR_RANGE_DB)


class SwinTransmitter(_Codec):
    """Image to complex symbols of unit power.

        image ─► pad to the stride ─► SwinEncoder ─► pair halves of the channels ─► unit power ─► x

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16"; a multiple of
            1 / (3 stride^2). The stride is 16 for ``small`` to ``large``, 4 for ``cifar``, ``tiny``.
        preset: sizes of the networks. ``cifar`` is for images of 32 x 32, ``small``, ``base`` and
            ``large`` for photos, as published (7.4, 12.0, 18.3 and 37.3 million parameters for both
            ends, ModNets apart); ``tiny`` is this project's, for training on a CPU.
        adaptive: which ends see the SNR, through a ModNet.
        heatmap: whether the networks also see how far each single symbol can be trusted, given the
            noise that the front end leaves on it; preset ``tiny`` does by default. The papers feed
            the noise variance itself (DeepJSCC-MIMO); here it is 1 / (1 + n0), which is bounded.
        patch: pixels per token at the finest scale, instead of the preset's.
        widths: channels of a token per scale, finest first; multiples of 32. Likewise.
        depths: blocks of the encoder per scale. Likewise.
        decoder_depths: blocks of the decoder per scale, finest first. Likewise.
        window: side of a window in tokens. Likewise.
        linear: positions on each side over which a linear path beside the network decorrelates
            latents, see :func:`semsim.nn.conv.half_whitening`; 0 for the path alone. Only ``tiny``
            has such a path by default.

    Source: Yang, Wang, Dai, Qin, Niu, Zhang, WITT, ICASSP 2023; Yang and others, SwinJSCC, IEEE
    TCCN 2024. Found in their code: presets, block, ModNet, raw dB into it. Ours: ``tiny``, the
    linear path, power per image instead of per batch, paired halves of the channels.
    """  # noqa: E501

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        preset: Preset = "tiny",
        adaptive: Adaptive = "both",
        heatmap: bool | None = None,
        patch: int | None = None,
        widths: tuple[int, ...] | None = None,
        depths: tuple[int, ...] | None = None,
        decoder_depths: tuple[int, ...] | None = None,
        window: int | None = None,
        linear: int | None = None,
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "adaptive": adaptive, "heatmap": heatmap, "patch": patch,
             "widths": widths, "depths": depths, "decoder_depths": decoder_depths,
             "window": window, "linear": linear}
        )  # fmt: skip
        sees_snr = adaptive == "both"
        self.uses_csi = sees_snr or self.heatmap
        self.encoder = SwinEncoder(
            self.channels, self.sizes, snr_unit=self.snr_unit if sees_snr else None,
            heatmap=self.trust_channels,
        )  # fmt: skip

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        height, width = self.grid(shape)
        return self.channels // 2 * height * width

    def forward(self, source: Tensor, csi: CSI) -> Tensor:
        """Return symbols [B, 1, K] for source [B, 3, H, W] in [0, 1]."""
        grid = self.grid(tuple(source.shape[1:]))
        trust = self.trust(csi, len(source), grid) if self.heatmap else None
        image = pad_to_stride(source, self.stride)
        return unit_power(to_symbols(self.encoder(image, _snr(csi), trust)))


class SwinReceiver(_Codec):
    """Received symbols to image.

        y ─► · 1 / (1 + n0) ─► unpair ─► SwinDecoder ─► crop ─► image

    Shrunk so, symbols are the best linear guess of what was sent. Arguments as in
    :class:`SwinTransmitter`.
    """

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        preset: Preset = "tiny",
        adaptive: Adaptive = "both",
        heatmap: bool | None = None,
        patch: int | None = None,
        widths: tuple[int, ...] | None = None,
        depths: tuple[int, ...] | None = None,
        decoder_depths: tuple[int, ...] | None = None,
        window: int | None = None,
        linear: int | None = None,
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "adaptive": adaptive, "heatmap": heatmap, "patch": patch,
             "widths": widths, "depths": depths, "decoder_depths": decoder_depths,
             "window": window, "linear": linear}
        )  # fmt: skip
        self.decoder = SwinDecoder(
            self.channels, self.sizes, snr_unit=None if adaptive == "none" else self.snr_unit,
            heatmap=self.trust_channels,
        )  # fmt: skip

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Return the image [B, *shape] for y [B, 1, K]; clamped to [0, 1] unless training."""
        grid = self.grid(shape)
        expected = self.channels // 2 * grid[0] * grid[1]
        if csi.h is not None or y.shape[1:] != (1, expected):
            raise ValueError(
                f"the swin_jscc receiver takes equalised symbols [B, 1, {expected}] for an image "
                f"{list(shape)}, got {list(y.shape)}; use a front end such as lmmse"
            )
        trust = self.trust(csi, len(y), grid)
        latent = to_latent(y[:, 0] * trust.flatten(1), self.channels, *grid)
        image = self.decoder(latent, _snr(csi), trust if self.heatmap else None)
        image = image[..., : shape[1], : shape[2]]
        return image if self.training else image.clamp(0, 1)
