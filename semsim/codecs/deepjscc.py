"""DeepJSCC: a convolutional network at each end, trained through the channel."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState
from channels.checks import check_choice
from semsim import zoo
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
from semsim.csi.vector import ChannelVector
from semsim.nn.adjscc import WIDTH, DecoderADJSCC, EncoderADJSCC
from semsim.nn.attention import ATTENTION
from semsim.nn.codec import Decoder2019, Encoder2019, ResidualDecoder, ResidualEncoder, scale_widths
from semsim.nn.conv import Block, Blocks, check_reach
from semsim.nn.same import Padding
from semsim.nn.snr import snr_number
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter

Preset = Literal["residual", "bourtsoulatze2019", "adjscc"]
Attention = Literal["none", "se", "eca", "simam", "pfca"]
Adaptive = Literal["both", "receiver", "none"]


class _Codec(LatentCodec):
    """What both ends must agree on: the arguments, checked, and the latent's shape."""

    kind = "deepjscc"
    later_options: ClassVar = ("block",)
    spec: dict[str, Any]

    def _settle(self, spec: dict[str, Any]) -> None:
        """Check the arguments, and make the networks of this end."""
        _choose(spec)
        if spec["depth"] < 1:
            raise ValueError(f"depth must be at least 1, got {spec['depth']}")
        check_reach("reach", spec["reach"])
        _check_preset(spec)
        scale_widths(spec["stride"], spec["patch"], spec["width"])
        self.stride = spec["stride"]
        self.channels = latent_channels(spec["cbr"], self.stride)
        #: the arguments, as kept with weights
        self.spec = {**spec, "cbr": str(self.cbr)}
        self._make()

    def _make(self) -> None:
        """Make the networks of this end of its ``spec``."""
        raise NotImplementedError

    def blocks(self, told: int) -> Blocks:
        """Return what residual networks are made of, where their blocks see ``told`` numbers."""
        return Blocks(self.spec["block"], self.spec["attention"], told)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of residual networks."""
        return {k: self.spec[k] for k in ("stride", "patch", "width", "depth", "reach")}


def _choose(spec: dict[str, Any]) -> None:
    """Fill in what the preset decides, and refuse words that are none of those known."""
    preset = spec["preset"]
    check_choice("preset", preset, get_args(Preset))
    if spec["adaptive"] is None:
        spec["adaptive"] = "none" if preset == "bourtsoulatze2019" else "both"
    if spec["width"] is None:
        spec["width"] = WIDTH if preset == "adjscc" else 64
    check_choice("attention", spec["attention"], tuple(ATTENTION))
    for name, words in (("adaptive", Adaptive), ("padding", Padding), ("block", Block)):
        check_choice(name, spec[name], get_args(words))


_FIXED: dict[str, dict[str, Any]] = {
    "residual": {"padding": "symmetric"},
    "bourtsoulatze2019": {"adaptive": "none", "stride": 4, "block": "residual"},
    "adjscc": {"attention": "none", "stride": 4, "block": "residual"},
}  #: arguments of which a preset knows one value


def _check_preset(spec: dict[str, Any]) -> None:
    for key, value in _FIXED[spec["preset"]].items():
        if spec[key] != value:
            raise ValueError(
                f"{key} is {spec[key]!r}, but the network of preset {spec['preset']} has "
                f"{key}: {value}; write that, or another preset"
            )


def _check_told(spec: dict[str, Any]) -> None:
    own = {key: spec[key] for key in ("csi_subcarriers", "csi_values")}
    if spec["csi_weights"] is None:
        if own != {"csi_subcarriers": 1, "csi_values": 16}:
            raise ValueError(
                f"csi_subcarriers and csi_values go with csi_weights, got {own}; name weights of "
                "WirelessGPT, or leave them out"
            )
    elif spec["adaptive"] != "both":
        raise ValueError(
            "csi_weights tells the modules of the transmitter that see the SNR of the channel "
            f"instead, and with adaptive {spec['adaptive']!r} there are none; write adaptive: both "
            "and preset residual or adjscc"
        )


def _snr(csi: CSI) -> Tensor:
    return snr_number(csi.effective_snr_db())


class DeepJSCCTransmitter(_Codec, Transmitter):
    """Image to complex symbols of unit power, by convolutional DeepJSCC.

        image ─► pad to the stride ─► encoder ─► pair halves of the channels ─► unit power ─► x

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/6"; a multiple of
            1 / (3 stride^2).
        preset: "residual", this project's network; "bourtsoulatze2019", the first DeepJSCC, to be
            trained for one rate and one SNR; or "adjscc", with GDN and AF modules. Of the sizes
            below only the width touches the last, and none the network of 2019.
        attention: attention in each residual block, after its last convolution; in the network of
            2019, whose paper has none, after each activation but the last. None in ADJSCC.
        adaptive: which ends see the SNR, through AF modules in every block; both by default, none
            in the network of 2019, which has no such modules. ADJSCC without them is BDJSCC.
        stride: pixels per latent position and direction.
        patch: pixels per position at the finest scale with blocks.
        width: channels at the finest scale, 64 by default; they double with each scale. In ADJSCC
            channels everywhere, 256 by default, as published.
        depth: residual blocks per scale; the receiver has twice as many.
        reach: latent positions on each side over which neighbours are decorrelated before sending,
            12 at most; 0 for none. Under a Gaussian model of photos at CBR 1/16 and 10 dB,
            block-wise latents lose 2 dB to jointly coded ones; what a trained network keeps of it
            was not ablated.
        block: of the residual network: ``residual``, two convolutions, or ``convnext``, a depthwise
            one and a dense network, at about half of the multiplications and parameters.
        padding: of the convolutions in the two published networks, see :mod:`semsim.nn.same`;
            "keras" for weights from Keras (:mod:`semsim.codecs.keras.convert`).
        csi_weights: weights of WirelessGPT, a name or task.safetensors of a training of
            ``fill_in``: the transmitter is told what that makes of the channel in place of the SNR
            alone, see :class:`semsim.csi.vector.ChannelVector`. It then needs a ``csi.tx`` that
            knows the channel. The receiver goes on seeing the noise of each symbol. The codec's
            file keeps the SHA-256 of these weights, wherever they lie.
        csi_subcarriers: of the channel's OFDM grid; 1 where it has none, and then the channel
            stays for an item.
        csi_values: numbers that are told.
    """

    def __init__(
        self,
        cbr: float | str = "1/6",
        *,
        preset: Preset = "residual",
        attention: Attention = "none",
        adaptive: Adaptive | None = None,
        stride: int = 4,
        patch: int = 4,
        width: int | None = None,
        depth: int = 2,
        reach: int = 0,
        block: Block = "residual",
        padding: Padding = "symmetric",
        csi_weights: str | None = None,
        csi_subcarriers: int = 1,
        csi_values: int = 16,
    ) -> None:
        super().__init__()
        self._settle(
            {"cbr": cbr, "preset": preset, "attention": attention, "adaptive": adaptive,
             "stride": stride, "patch": patch, "width": width, "depth": depth, "reach": reach,
             "block": block, "padding": padding, "csi_weights": csi_weights,
             "csi_subcarriers": csi_subcarriers, "csi_values": csi_values}
        )  # fmt: skip

    def _make(self) -> None:
        _check_told(self.spec)
        self.uses_csi = self.spec["adaptive"] == "both"
        self.channel: ChannelVector | None = None
        if (weights := self.spec["csi_weights"]) is not None:
            sizes = (self.spec[f"csi_{name}"] for name in ("subcarriers", "values"))
            self.channel = ChannelVector(weights, *sizes)
            self.spec[zoo.HASHES] = {"csi_weights": zoo.digest(weights)}
        self.sees_channel = self.channel is not None
        self.encoder = self._encoder()
        # convolutions are faster in this order, on CPU and GPU
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _encoder(self) -> nn.Module:
        told = self.spec["csi_values"] if self.sees_channel else int(self.uses_csi)
        if self.spec["preset"] == "residual":
            return ResidualEncoder(self.channels, self.blocks(told), **self.sizes())
        padding = self.spec["padding"]
        if self.spec["preset"] == "bourtsoulatze2019":
            return Encoder2019(self.channels, padding, self.spec["attention"])
        width = self.spec["width"]
        return EncoderADJSCC(self.channels, width=width, adaptive=told, padding=padding)

    def check_channel(self, state: ChannelState) -> None:
        """Refuse a channel over another grid than ``csi_subcarriers`` says."""
        if self.channel is not None:
            self.channel.check(state)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        return self.symbols_on_grid(shape)

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K] for source [B, 3, H, W] in [0, 1]."""
        self.grid(tuple(source.shape[1:]))
        image = pad_to_stride(source, self.stride)
        if self.spec["preset"] == "bourtsoulatze2019":
            return unit_power(to_symbols(self.encoder(image)))
        told = _snr(csi) if self.channel is None else self.channel(csi)
        return unit_power(to_symbols(self.encoder(image, told)))


class DeepJSCCReceiver(_Codec, Receiver):
    """Received symbols to image, by convolutional DeepJSCC.

        y, n0 ─► · trust = 1 / (1 + n0) ─► unpair ─► decoder(latent, trust, SNR) ─► crop ─► image

    Shrunk by the trust, symbols are the best linear guess of what was sent; the trust goes in
    beside them, so that the network can tell apart symbols of unequal reliability (streams,
    fading). The published networks get the symbols as they are. Arguments as in
    :class:`DeepJSCCTransmitter`, without those of the channel that the transmitter is told of.
    """

    def __init__(
        self,
        cbr: float | str = "1/6",
        *,
        preset: Preset = "residual",
        attention: Attention = "none",
        adaptive: Adaptive | None = None,
        stride: int = 4,
        patch: int = 4,
        width: int | None = None,
        depth: int = 2,
        reach: int = 0,
        block: Block = "residual",
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        self._settle(
            {"cbr": cbr, "preset": preset, "attention": attention, "adaptive": adaptive,
             "stride": stride, "patch": patch, "width": width, "depth": depth, "reach": reach,
             "block": block, "padding": padding}
        )  # fmt: skip

    def _make(self) -> None:
        self.decoder = self._decoder()
        self.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _decoder(self) -> nn.Module:
        sees_snr, padding = self.spec["adaptive"] != "none", self.spec["padding"]
        if self.spec["preset"] == "residual":
            return ResidualDecoder(self.channels, self.blocks(sees_snr), **self.sizes())
        if self.spec["preset"] == "bourtsoulatze2019":
            return Decoder2019(self.channels, padding, self.spec["attention"])
        width = self.spec["width"]
        return DecoderADJSCC(self.channels, width=width, adaptive=sees_snr, padding=padding)

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the image [B, *shape] for y [B, 1, K]; clamped to [0, 1] unless training."""
        grid, expected = self.grid(shape), self.symbols_on_grid(shape)
        check_equalised(self.kind, y, csi, expected, shape)
        if self.spec["preset"] == "residual":
            trust = symbol_trust(csi.n0, expected)
            latent = to_latent(y[:, 0] * trust, self.channels, *grid)
            trust = trust.reshape(len(y), self.channels // 2, *grid)
            image = self.decoder(latent, trust, _snr(csi))
        else:
            latent = to_latent(y[:, 0], self.channels, *grid)
            seen = (_snr(csi),) if self.spec["preset"] == "adjscc" else ()
            image = self.decoder(latent, *seen)
        return shown(image, shape, training=self.training)
