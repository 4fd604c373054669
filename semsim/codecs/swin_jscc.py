"""Swin JSCC: a Swin transformer at each end, adaptive to the SNR and, where asked, to the rate."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from channels.base import CSI
from channels.checks import check_choice, check_count
from semsim.codecs.symbols import (
    LatentCodec,
    check_equalised,
    latent_channels,
    pad_to_stride,
    shown,
    symbol_trust,
    to_latent,
    to_symbols,
)
from semsim.nn.snr import SNR_RANGE_DB, SNR_SCALE_DB
from semsim.nn.swin_codec import SwinDecoder, SwinEncoder, SwinSizes
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter, WithSideInfo

Preset = Literal["tiny", "cifar", "small", "base", "large"]
Adaptive = Literal["both", "receiver", "none"]

_HR = (128, 192, 256, 320)  # widths of the networks for photos
#: Sizes by name. ``tiny`` is this project's, for CPUs; the others are those of WITT and SwinJSCC.
PRESETS = {
    "tiny": SwinSizes(4, (96,), (2,), (4,), 8, mod_layers=1, mod_ratio=1.0, linear=3, local=True),
    "cifar": SwinSizes(2, (128, 256), (2, 4), (2, 4), 2),
    "small": SwinSizes(2, _HR, (2, 2, 2, 2), (2, 2, 2, 2), 8),
    "base": SwinSizes(2, _HR, (2, 2, 6, 2), (2, 2, 6, 2), 8),
    "large": SwinSizes(2, _HR, (2, 2, 18, 2), (2, 2, 18, 2), 8),
}


class _Codec(LatentCodec):
    """What both ends must agree on: the arguments, checked, and the latent's shape."""

    kind = "swin_jscc"
    later_options: ClassVar = ("num_streams",)
    spec: dict[str, Any]

    def __init__(
        self,
        cbr: float | str | None = None,
        *,
        preset: Preset = "tiny",
        adaptive: Adaptive = "both",
        heatmap: bool | Literal["receiver"] | None = None,
        patch: int | None = None,
        widths: tuple[int, ...] | None = None,
        depths: tuple[int, ...] | None = None,
        decoder_depths: tuple[int, ...] | None = None,
        window: int | None = None,
        linear: int | None = None,
        rates: tuple[float | str, ...] = (),
        num_streams: int = 1,
    ) -> None:
        super().__init__()
        check_count("num_streams", num_streams, "behind frontend svd min(num_tx, num_rx)")
        self.num_streams = num_streams
        spec: dict[str, Any] = (
            {"cbr": cbr, "preset": preset, "adaptive": adaptive, "heatmap": heatmap, "patch": patch,
             "widths": widths, "depths": depths, "decoder_depths": decoder_depths,
             "window": window, "linear": linear, "rates": rates, "num_streams": num_streams}
        )  # fmt: skip
        check_choice("preset", preset, get_args(Preset))
        check_choice("adaptive", adaptive, get_args(Adaptive))
        check_choice("heatmap", heatmap, (None, True, False, "receiver"))
        usual = PRESETS[spec["preset"]]
        own = {k: spec[k] for k in _SIZES if spec[k] is not None}
        own |= {k: tuple(v) for k, v in own.items() if isinstance(v, list | tuple)}
        self.sizes = dataclasses.replace(usual, **own)
        self.stride = self.sizes.stride
        #: latent channels of each rate that one network serves, rising; none where it serves one
        self.rates = self._channels_of(spec["rates"])
        if spec["cbr"] is None:
            spec["cbr"] = (
                str(Fraction(self.rates[-1], 6 * self.stride**2)) if self.rates else "1/16"
            )
        self.channels = latent_channels(spec["cbr"], self.stride)
        is_tiny = spec["preset"] == "tiny"
        self.heatmap = is_tiny if spec["heatmap"] is None else bool(spec["heatmap"])
        if self.rates:
            self._check_rates(spec)
        self.spec = self._kept(spec, own)
        self.trust_channels = self.channels // 2 if self.heatmap else 0
        self.snr_unit = SNR_SCALE_DB if is_tiny else 1.0
        self._make()

    def _make(self) -> None:
        """Make the networks of this end."""
        raise NotImplementedError

    def _channels_of(self, rates: tuple[float | str, ...]) -> list[int]:
        try:
            return sorted({latent_channels(rate, self.stride) for rate in rates})
        except ValueError as error:
            raise ValueError(f"rates: {error}") from None

    def _check_rates(self, spec: dict[str, Any]) -> None:
        if self.channels not in self.rates:
            raise ValueError(f"cbr {spec['cbr']} must be one of rates, got {list(spec['rates'])}")
        width = self.sizes.widths[-1]
        if self.rates[-1] > width:
            raise ValueError(
                f"rates need up to {self.rates[-1]} channels, but the last of widths is {width}"
            )
        fixed = {"heatmap": spec["heatmap"], "linear": spec["linear"] is not None}
        for name, given in {**fixed, "num_streams": spec["num_streams"] > 1}.items():
            if given:
                raise ValueError(f"{name} needs a fixed rate; leave it out, or rates")
        self.heatmap = False
        self.sizes = dataclasses.replace(self.sizes, linear=None)

    def _kept(self, spec: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments as kept with weights; one file serves all of ``rates``."""
        whole = 6 * self.stride**2
        kept = {**spec, "cbr": str(self.cbr)}
        kept |= {k: list(v) for k, v in own.items() if isinstance(v, tuple)}
        kept["rates"] = [str(Fraction(c, whole)) for c in self.rates]
        if self.rates:
            del kept["cbr"]
        return kept


_SIZES = ("patch", "widths", "depths", "decoder_depths", "window", "linear")


def _snr(csi: CSI) -> Tensor:
    return csi.effective_snr_db().clamp(*SNR_RANGE_DB)


class SwinTransmitter(_Codec, Transmitter):
    """Image to complex symbols of unit power, by a Swin transformer.

        image ─► pad to the stride ─► SwinEncoder ─► pair halves of the channels ─► unit power ─► x

    With ``rates``, a second ModNet scales the channels by what they hold and by the rate; those with
    the largest sum of gates over the image are sent, and which they are is side information.

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16"; a multiple of
            1 / (3 stride^2). The stride is 16 for ``small`` to ``large``, 4 for ``cifar``, ``tiny``.
            The largest of ``rates`` by default, or 1/16 without.
        preset: sizes of the networks. ``cifar`` is for images of 32 x 32, ``small``, ``base`` and
            ``large`` for photos, as published (7.4, 12.0, 18.3 and 37.3 million parameters for both
            ends, ModNets apart); ``tiny`` is this project's, for training on a CPU.
        adaptive: which ends see the SNR, through a ModNet.
        heatmap: whether the networks also see how far each single symbol can be trusted, given the
            noise that the front end leaves on it; preset ``tiny`` does by default. The papers feed
            the noise variance itself (DeepJSCC-MIMO); here it is 1 / (1 + n0), which is bounded.
            "receiver" shows the transmitter the mean over the symbols in place of each.
        patch: pixels per token at the finest scale, instead of the preset's.
        widths: channels of a token per scale, finest first; multiples of 32. Likewise.
        depths: blocks of the encoder per scale. Likewise.
        decoder_depths: blocks of the decoder per scale, finest first. Likewise.
        window: side of a window in tokens. Likewise.
        linear: positions on each side over which a linear path beside the network decorrelates
            latents, 12 at most, see :func:`semsim.nn.conv.half_whitening`; 0 for the path alone.
            Only ``tiny`` has such a path by default.
        rates: CBRs that one network serves, ``cbr`` being the one at work; it is trained on all of
            them, one drawn per batch.
        num_streams: streams of the link, min(num_tx, num_rx) behind frontend svd: the first
            channels of the latent then go on the strongest ones. 1 for no such order.

    Source: Yang, Wang, Dai, Qin, Niu, Zhang, WITT, ICASSP 2023; Yang and others, SwinJSCC, IEEE
    TCCN 2024. Found in their code: presets, block, ModNets, raw dB and channel counts into them,
    the mask of largest gates. Ours: ``tiny`` with its convolutions before each block and its linear
    path, power per image instead of per batch, paired halves of the channels, symbols shrunk by
    1 / (1 + n0) at the receiver, an SNR clamped to -20 to 40 dB, the heatmap at the coarsest scale.
    And gradients that pass through the ModNets' gates, which the code detaches.
    """  # noqa: E501

    def _make(self) -> None:
        sees_snr = self.spec["adaptive"] == "both"
        self.uses_csi = sees_snr or self.heatmap
        self.encoder = SwinEncoder(
            None if self.rates else self.channels, self.sizes,
            snr_unit=self.snr_unit if sees_snr else None, heatmap=self.trust_channels,
        )  # fmt: skip
        if self.rates:
            unit = self.sizes.widths[-1] if self.spec["preset"] == "tiny" else 1.0
            self.rate = self.sizes.mod_net(unit)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        height, width = self.grid(shape)
        return self._sent() // 2 * height * width

    def _sent(self) -> int:
        """Return how many channels go out: in training on several rates, all of them."""
        return self.sizes.widths[-1] if self.rates and self.training else self.channels

    def begin(self, source: Tensor) -> Tensor | None:
        """Return what does not depend on the channel, [B, h, w, C]; None with a heatmap."""
        if self.heatmap:
            return None
        self.grid(tuple(source.shape[1:]))
        return self.encoder.features(pad_to_stride(source, self.stride))

    def forward(
        self,
        source: Tensor,
        csi: CSI,
        generator: torch.Generator | None = None,
        begun: Tensor | None = None,
    ) -> Tensor | WithSideInfo:
        """Return symbols [B, 1, K] for source [B, 3, H, W] in [0, 1].

        With ``rates`` also which channels are sent, [B, width], bool; in training the generator
        draws one of the rates.
        """
        grid = self.grid(tuple(source.shape[1:]))
        trust = self._heatmap(csi, grid) if self.heatmap else None
        image = pad_to_stride(source, self.stride)
        latent = self.encoder(image, _snr(csi), trust, features=begun)
        if not self.rates:
            return self.as_sent(unit_power(to_symbols(latent)))
        return self._send_some(latent, generator)

    def _heatmap(self, csi: CSI, grid: tuple[int, int]) -> Tensor:
        """Return 1 / (1 + n0) of each symbol, [B, C / 2, h, w]; n0 is [B] or [B, 1, >= K]."""
        pairs, batch = self.channels // 2, len(csi.n0)
        symbols = pairs * grid[0] * grid[1]
        trust = symbol_trust(csi.n0, symbols)[:, self.order(symbols, csi.n0.device)]
        if self.spec["heatmap"] == "receiver":
            trust = trust.mean(dim=1, keepdim=True).expand_as(trust)
        return trust.reshape(batch, pairs, *grid)

    def _send_some(self, latent: Tensor, generator: torch.Generator | None) -> WithSideInfo:
        """Send the channels of latent [B, width, h, w] that weigh most at the rate at work."""
        channels = self.channels
        if self.training:
            where = None if generator is None else generator.device
            drawn = torch.randint(len(self.rates), (), generator=generator, device=where)
            channels = self.rates[int(drawn)]
        tokens = latent.permute(0, 2, 3, 1)
        number = torch.full((len(latent),), float(channels), device=latent.device)
        gate = self.rate.gate(tokens, number)
        best = gate.sum(dim=(1, 2)).sort(dim=1, descending=True, stable=True).indices
        chosen = torch.zeros_like(best, dtype=torch.bool).scatter_(1, best[:, :channels], True)
        latent = (tokens * gate).permute(0, 3, 1, 2)
        if self.training:  # all channels go out, the silent ones as zeros, so that K stays
            share = channels / latent.shape[1]
            x = unit_power(to_symbols(latent * chosen[:, :, None, None])) * share**0.5
        else:
            x = unit_power(
                to_symbols(latent[chosen].view(len(latent), channels, *latent.shape[2:]))
            )
        choices = math.comb(self.sizes.widths[-1], channels)
        return WithSideInfo(x, chosen, max(math.log2(choices), 1.0))


class SwinReceiver(_Codec, Receiver):
    """Received symbols to image, by a Swin transformer.

        y ─► · 1 / (1 + n0) ─► unpair ─► SwinDecoder ─► crop ─► image

    Shrunk so, symbols are the best linear guess of what was sent. Arguments as in
    :class:`SwinTransmitter`.
    """

    def _make(self) -> None:
        self.decoder = SwinDecoder(
            None if self.rates else self.channels, self.sizes,
            snr_unit=None if self.spec["adaptive"] == "none" else self.snr_unit,
            heatmap=self.trust_channels,
        )  # fmt: skip

    reads_side_info = True

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        side_info: Tensor | None = None,
    ) -> Tensor:
        """Return the image [B, *shape] for y [B, 1, K]; clamped to [0, 1] unless training.

        ``side_info`` is needed with ``rates``: which channels were sent, [B, width], bool.
        """
        grid = self.grid(shape)
        channels = self.channels
        if bool(self.rates) != (side_info is not None):
            raise ValueError("rates must be the same in the transmitter and in the receiver")
        if self.rates and self.training:
            channels = self.sizes.widths[-1]
        expected = channels // 2 * grid[0] * grid[1]
        check_equalised(self.kind, y, csi, expected, shape)
        places = self.order(expected, y.device)
        trust = symbol_trust(csi.n0, expected)[:, places]
        latent = to_latent(y[:, 0, places] * trust, channels, *grid)
        if side_info is not None:
            latent = self._place(latent, side_info)
        heatmap = trust.reshape(len(y), channels // 2, *grid) if self.heatmap else None
        image = self.decoder(latent, _snr(csi), heatmap)
        return shown(image, shape, training=self.training)

    def _place(self, latent: Tensor, chosen: Tensor) -> Tensor:
        """Put the channels of latent [B, C, h, w] where ``chosen`` [B, width] says, else zero."""
        if latent.shape[1] == chosen.shape[1]:
            return latent * chosen[:, :, None, None]
        whole = latent.new_zeros(*chosen.shape, *latent.shape[2:])
        return whole.masked_scatter(chosen[:, :, None, None], latent)
