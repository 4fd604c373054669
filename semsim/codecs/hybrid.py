"""Hybrid: a digital base layer with a floor, and an analog layer of its residual with no ceiling.

    image ─► image codec ─► LDPC, QAM ─► sqrt(p_base) ────────────────────────► [base | analog] ─► x
      │          │
      └─► minus what the base decodes to ─► SoftCast ─► sqrt(p_analog) ──────────►┘

The base layer is that of ``separate`` at one robust MCS, the analog layer is ``softcast``. Both
share the channel uses and the power of an image by a split that its arguments state. Where the base
does not arrive, its mean colour takes its place.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.codecs.envelope import Plan, best_plan
from semsim.codecs.image_codecs import CodecName, Headers, Pixels
from semsim.codecs.layers import Codeword, Offer
from semsim.codecs.outage import separated
from semsim.codecs.passage import Passage
from semsim.codecs.separate import Engine, SeparateLink, SeparateTransmitter, beside
from semsim.codecs.softcast import Layout, check_chunk, layout, receive, send
from semsim.codecs.stills import Fallback, Stills, each, sources_of, symbols_at
from semsim.link import Link
from semsim.phy.frontend import FrontEnd
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.ranges import clip
from semsim.types import Transmission, WithSideInfo

ROBUST = 3  #: QPSK at rate 0.44


class HybridTransmitter(nn.Module):
    """Image codec, LDPC and QAM beneath SoftCast of what they leave over.

    The transmitter knows nothing of the channel. The default split was the best of a few tried on
    photos of BSDS500 over block fading on two receive antennas at 4 to 10 dB. A base that
    does not arrive takes the coarse picture with it, and half of the channel uses leave little
    room for the residual: measured over fading, the better of the two parents is often above it.

    Args:
        cbr: complex symbols per source value of both layers, side information of the analog layer
            apart, a number or a fraction such as "1/16".
        share: of the channel uses for the base, between 0 and 1; what whole chunks of the analog
            layer leave over goes to the base too.
        power: of the power for the base, between 0 and 1; None is as ``share``.
        mcs: row of 3GPP TS 38.214 table 5.1.3.1-2 of the base.
        codec: image codec of the base.
        chunk: of the analog layer, as in ``softcast``.
        engine, fallback, headers: of the base, as in ``separate``.

    Source: Mittal, Phamdo, Hybrid digital-analog joint source-channel codes for broadcasting and
        robust communications, IEEE Trans. Inf. Theory 2002.
    """

    link_class: ClassVar[type[nn.Module]]
    uses_csi = True  # the two ends share the base's bits, so a link makes the symbols

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        share: float = 0.5,
        power: float | None = 0.6,
        mcs: int = ROBUST,
        codec: CodecName = "hevc",
        chunk: int = 16,
        engine: Engine = "bler",
        fallback: Fallback = "mean",
        headers: Headers = "minimal",
    ) -> None:
        super().__init__()
        power = share if power is None else power
        for name, value in (("share", share), ("power", power)):
            if not 0 < value < 1:
                raise ValueError(
                    f"{name} is the base's part, between 0 and 1, got {value!r}; "
                    "for one layer alone use separate or softcast"
                )
        check_chunk(chunk)
        self.base = SeparateTransmitter(
            cbr, codec=codec, mcs=mcs, engine=engine, fallback=fallback, headers=headers
        )
        self.cbr, self.share, self.power, self.chunk = cbr, share, power, chunk
        self.constellation = mcs_by_index(mcs).bits_per_symbol > 2  # QPSK is exact in each item

    @property
    def stills(self) -> Stills:
        """The base's image codec."""
        return self.base.stills

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols of both layers for an image [3, H, W]."""
        return symbols_at(self.cbr, shape)

    def analog(self, shape: tuple[int, ...]) -> Layout:
        """Return how the residual of an image [3, H, W] is cut."""
        return layout(shape, self.chunk, round((1 - self.share) * self.num_symbols(shape)))

    def side_info_bits(self, shape: tuple[int, ...]) -> float:
        """Return the bits of the analog layer's side information."""
        return self.analog(shape).side_info_bits

    def amplitudes(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return the factors on unit-power symbols of the base and of the analog layer."""
        total, analog = self.num_symbols(shape), self.analog(shape).symbols
        base = total * self.power / (total - analog)
        return base**0.5, (total * (1 - self.power) / analog) ** 0.5

    def extra_repr(self) -> str:
        """Name the settings of the split."""
        return f"cbr={self.cbr}, share={self.share}, power={self.power}, chunk={self.chunk}"


class HybridReceiver(nn.Module):
    """The other end; it takes all that it needs to know from the transmitter's arguments."""


class HybridLink(Link):
    """A link whose two ends share the base's bits; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds per item ``decoded``, 1 where the base arrived, and ``bits``, its
    payload.
    """

    def __init__(
        self,
        transmitter: HybridTransmitter,
        channel: Channel,
        receiver: HybridReceiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__(
            transmitter,
            channel,
            receiver or HybridReceiver(),
            csi_rx=csi_rx,
            csi_tx=csi_tx,
            frontend=frontend,
        )
        self.base = SeparateLink(transmitter.base, channel, frontend=self.frontend)

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
            raise ValueError("a hybrid link makes its symbols itself; leave symbols out")
        layers = _Layers(self, source, beside(generator))
        air = Link(
            layers,
            self.channel,
            layers.receive,
            csi_rx=self.csi_rx,
            csi_tx=self.csi_tx,
            frontend=self.frontend,
        )
        sent = air.transmit(source, snr_db, generator)
        notes = layers.base.notes()
        return dataclasses.replace(sent, notes={name: notes[name] for name in ("decoded", "bits")})


HybridTransmitter.link_class = HybridLink


class _Base(Passage):
    """The base layer of one batch: one MCS on all streams, whatever the channel."""

    def __init__(self, link: HybridLink, source: Tensor, generator: torch.Generator) -> None:
        self.hybrid: HybridTransmitter = link.transmitter  # type: ignore[assignment]
        super().__init__(link.base, source, [], generator)
        streams = tuple(range(link.num_streams))
        cut = segment(self.uses * len(streams), mcs_by_index(int(self.transmitter.mcs)))
        offer = [Offer(0, (Codeword(streams, cut),), 1.0)]
        stills = self.transmitter.stills
        self.plans = each(
            lambda image: best_plan(stills, image, offer, must_send=True), self.images
        )

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols of the base."""
        return self.hybrid.num_symbols(shape) - self.hybrid.analog(shape).symbols

    def decoded(self, like: Tensor) -> Tensor:
        """Return the images that arrive where the base does."""
        return sources_of(each(self._decoded, self.plans), like)

    def _decoded(self, plan: Plan) -> Pixels:
        stills = self.transmitter.stills
        return (
            stills.lost(plan.image) if plan.coded is None else stills.decode(plan.coded, plan.image)
        )


class _Layers:
    """One batch on its way: both ends, with the bits that they share."""

    uses_csi = False

    def __init__(self, link: HybridLink, source: Tensor, generator: torch.Generator) -> None:
        self.transmitter: HybridTransmitter = link.transmitter  # type: ignore[assignment]
        self.num_symbols = self.transmitter.num_symbols
        self.side_info_bits = self.transmitter.side_info_bits
        self.base = _Base(link, source, generator)
        self.training = link.training

    def __call__(self, source: Tensor, csi: CSI) -> WithSideInfo:
        """Return the symbols [B, 1, K] of both layers, and what the analog one tells beside."""
        shape = tuple(source.shape[1:])
        residual = source - self.base.decoded(like=source)
        analog, side_info = send(residual, self.transmitter.analog(shape))
        of_base, of_analog = self.transmitter.amplitudes(shape)
        symbols = torch.cat([of_base * self.base(source, csi), of_analog * analog], dim=2)
        return WithSideInfo(symbols, side_info)

    def receive(
        self, y: Tensor, csi: CSI, shape: tuple[int, ...], side_info: Tensor | None = None
    ) -> Tensor:
        """Return the images [B, 3, H, W]: the base, or what stands in for it, and the residual."""
        if side_info is None:
            raise ValueError("the analog layer cannot be read without its side information")
        edge, n0 = self.base.total, separated(csi).expand(y.shape)
        of_base, of_analog = self.transmitter.amplitudes(shape)
        n0_base = CSI(None, n0[..., :edge] / of_base**2)
        image = self.base.receive(y[..., :edge] / of_base, n0_base, shape).to(y.device)
        analog, n0_analog = y[:, 0, edge:] / of_analog, n0[:, 0, edge:] / of_analog**2
        image = image + receive(analog, n0_analog, side_info, self.transmitter.analog(shape), shape)
        return image if self.training else clip(image)
