"""What an image codec could do with the best channel code of all: one that reaches capacity.

    image ─► codec at the best quality that fits into C bits ─► (error-free) ─► estimate

    C = sum over channel uses of log2 det(I + H P P^H H^H / n0)

with the true channel H, the precoder P of the front end and Gaussian symbols: equal power per
antenna, or SVD and water-filling where ``csi.tx`` and the front end provide them. On AWGN this is
K log2(1 + SNR). With ``ergodic=False`` each image gets the capacity of its own realisation, which
in block fading takes a transmitter that knows it; with ``ergodic=True`` all get the mean over the
fading, what a code over very many realisations reaches without knowing any.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel, ChannelState, complex_normal
from channels.csi import CSISource
from channels.units import n0_to_snr_db, snr_db_to_n0
from semsim.codecs.image_codecs import CodecName, Headers, Pixels
from semsim.codecs.stills import (
    Fallback,
    Stills,
    cbr_fraction,
    each,
    pixels_of,
    sources_of,
    symbols_at,
)
from semsim.link import Link
from semsim.phy.frontend import FrontEnd
from semsim.phy.power import unit_power
from semsim.phy.theory import mimo_capacity
from semsim.seeds import stream
from semsim.types import Transmission, WithSideInfo

_REALISATIONS = 16384  # of an ergodic mean; its standard error is about 0.01 bit


class BoundTransmitter(nn.Module):
    """Image codec at the rate that the channel can carry.

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16".
        codec: image codec.
        ergodic: the mean capacity over the fading for every image, instead of the capacity of the
            image's own realisation.
        fallback: what an image becomes that does not fit at all: "mean", its mean colour, charged
            3 bytes, or "grey".
        headers: "minimal" charges the elementary stream and 5 bytes from which the file is rebuilt
            exactly; "file" charges the whole file.
    """

    link_class: ClassVar[type[nn.Module]]
    uses_csi = True

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        codec: CodecName = "hevc",
        ergodic: bool = False,
        fallback: Fallback = "mean",
        headers: Headers = "minimal",
    ) -> None:
        super().__init__()
        cbr_fraction(cbr)
        self.cbr = cbr
        self.ergodic = ergodic
        self.stills = Stills(codec, headers, fallback)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return K = cbr times the number of source values, rounded down."""
        return symbols_at(self.cbr, shape)

    def forward(self, source: Tensor, csi: CSI) -> Tensor:
        """Return Gaussian symbols [B, 1, K] of unit power, the input that reaches capacity."""
        shape = (len(source), 1, self.num_symbols(tuple(source.shape[1:])))
        symbols = complex_normal(shape, stream(0, "bound", shape))
        return unit_power(symbols).to(source.device)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"cbr={self.cbr}, codec={self.stills.codec.name}, ergodic={self.ergodic}, "
            f"fallback={self.stills.fallback}, headers={self.stills.headers}"
        )


class BoundReceiver(nn.Module):
    """The other end; it takes all that it needs to know from the transmitter's arguments."""


class BoundLink(Link):
    """A link at capacity; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds ``capacity_bits`` per item and ``decoded``, 0 where nothing fits.
    """

    def __init__(
        self,
        transmitter: BoundTransmitter,
        channel: Channel,
        receiver: BoundReceiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__(
            transmitter,
            channel,
            receiver or BoundReceiver(),
            csi_rx=csi_rx,
            csi_tx=csi_tx,
            frontend=frontend,
        )
        self._ergodic: dict[float, Tensor] = {}

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        symbols: Tensor | WithSideInfo | None = None,
        features: Tensor | None = None,
    ) -> Transmission:
        """Send one batch of images; arguments as in :meth:`semsim.link.Link.transmit`."""
        if symbols is not None:
            raise ValueError("a bound chooses its rate per SNR; leave symbols out")
        air = Link(
            self.transmitter,
            self.channel,
            _nothing,
            csi_rx=self.csi_rx,
            csi_tx=self.csi_tx,
            frontend=self.frontend,
        )
        sent = air.transmit(source, snr_db, generator)
        n0 = snr_db_to_n0(torch.as_tensor(snr_db, device=source.device, dtype=torch.float32))
        bits = self._capacity_bits(sent, n0.expand(len(source)))
        transmitter: BoundTransmitter = self.transmitter  # type: ignore[assignment]
        stills = transmitter.stills
        jobs = list(zip(pixels_of(source), bits.tolist(), strict=True))
        shown = each(lambda job: _decoded(stills, *job), jobs)
        images = [image for image, _ in shown]
        fits = torch.tensor([float(fit) for _, fit in shown], device=source.device)
        return dataclasses.replace(
            sent,
            estimate=sources_of(images, like=source),
            notes={"capacity_bits": bits, "decoded": fits},
        )

    def _capacity_bits(self, sent: Transmission, n0: Tensor) -> Tensor:
        """Return the bits that each item's channel uses can carry, [B]."""
        if sent.state is None or sent.csi_tx is None:
            raise TypeError("a bound needs a channel that returns its state")
        uses = sent.x.shape[-1]
        if not getattr(self.transmitter, "ergodic", False):
            return uses * self._capacity(sent.state, sent.csi_tx, n0)
        return uses * torch.stack([self._mean_capacity(float(n), n0.device) for n in n0])

    def _capacity(self, state: ChannelState, csi_tx: CSI, n0: Tensor) -> Tensor:
        """Return the mean capacity of given realisations, bits per channel use, [B]."""
        precoder = self.frontend.precoder(csi_tx, self.channel.num_tx, self.channel.num_rx)
        uses = max(state.h.shape[-1], precoder.shape[-1])
        h = state.h.expand(*state.h.shape[:-1], uses)
        precoder = precoder.expand(len(h), *precoder.shape[1:-1], uses)
        effective = torch.einsum("brtn,btsn->brsn", h, precoder.to(h.dtype))
        noise = n0 + state.interference
        if 1 in effective.shape[1:3]:  # one antenna or one stream: no need for a determinant
            gain = effective.abs().square().sum(dim=(1, 2))
            return torch.log2(1 + gain / noise[:, None]).mean(dim=-1)
        return mimo_capacity(effective * math.sqrt(effective.shape[2]), noise).mean(dim=-1)

    def _mean_capacity(self, n0: float, device: torch.device) -> Tensor:
        """Return the capacity averaged over fading of a fixed seed, bits per channel use."""
        key = round(n0_to_snr_db(n0), 4)
        if key not in self._ergodic:
            generator = stream(0, "ergodic", key, device=device)
            noise = torch.full((_REALISATIONS,), n0, device=device)
            state = self.channel.draw(_REALISATIONS, 1, generator)
            csi_rx = self.csi_rx(state, noise, generator)
            csi_tx = self.csi_tx(state, noise, generator, csi_rx)
            self._ergodic[key] = self._capacity(state, csi_tx, noise).mean()
        return self._ergodic[key]


def _nothing(y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
    """Stand in for a receiver: the bound's bits arrive by definition."""
    return y


def _decoded(stills: Stills, image: Pixels, budget_bits: float) -> tuple[Pixels, bool]:
    coded = stills.fit(image, budget_bits)
    if coded is None:
        return stills.lost(image), False
    return stills.decode(coded, image), True


BoundTransmitter.link_class = BoundLink
