"""Hybrid: a digital base layer with a floor, and an analog layer of its residual with no ceiling.

    image ─► image codec ─► LDPC, QAM ─► sqrt(p_base) ────────────────────────► [base | analog] ─► x
      │          │
      └─► minus what the base decodes to ─► SoftCast ─► sqrt(p_analog) ──────────►┘

The base layer is that of ``separate`` at one robust MCS, the analog layer is ``softcast``. Both
share the channel uses and the power of an image by a split that its arguments state. Where the base
does not arrive, its mean colour takes its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import CSI
from channels.streams import fork, on_cpu
from semsim.codecs.envelope import Plan, best_plan
from semsim.codecs.image_codecs import CodecName, Headers, Pixels
from semsim.codecs.layers import Codeword, Offer
from semsim.codecs.outage import separated
from semsim.codecs.passage import Passage
from semsim.codecs.separate import Engine, SeparateTransmitter
from semsim.codecs.softcast import Layout, check_chunk, receive, send
from semsim.codecs.softcast import layout as cut_within
from semsim.codecs.stills import Fallback, Stills, each, pixels_of, sources_of, symbols_at
from semsim.hop import Arrival, n0_of
from semsim.link import Link
from semsim.phy.ldpc import segment
from semsim.phy.mcs import mcs_by_index
from semsim.ranges import clip
from semsim.types import Transmission, Transmitter

ROBUST = 3  #: QPSK at rate 0.44


class HybridTransmitter(Transmitter):
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
        self.bytes_per_pixel = self.base.bytes_per_pixel
        self.cbr, self.share, self.power, self.chunk = self.base.cbr, share, power, chunk
        self.constellation = mcs_by_index(mcs).bits_per_symbol > 2  # QPSK is exact in each item

    @property
    def stills(self) -> Stills:
        """The base's image codec."""
        return self.base.stills

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols of both layers for an image [3, H, W]."""
        return symbols_at(self.cbr, shape)

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Return how the residual of an image [3, H, W] is cut."""
        return cut_within(shape, self.chunk, round((1 - self.share) * self.num_symbols(shape)))

    def amplitudes(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Return the factors on unit-power symbols of the base and of the analog layer."""
        total, analog = self.num_symbols(shape), self.layout(shape).symbols
        base = total * self.power / (total - analog)
        return base**0.5, (total * (1 - self.power) / analog) ** 0.5

    def extra_repr(self) -> str:
        """Name the settings of the split."""
        return f"cbr={self.cbr}, share={self.share}, power={self.power}, chunk={self.chunk}"


class HybridLink(Link):
    """A link whose two ends share the base's bits; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds per item ``decoded``, 1 where the base arrived, and ``bits``, its
    payload.
    """

    def begin(self, source: Tensor) -> list[Pixels]:
        """Return the images."""
        return pixels_of(source)

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: list[Pixels] | None = None,
    ) -> Transmission:
        """Send one batch of images."""
        shape, ends = tuple(source.shape[1:]), self.transmitter
        at_tx, at_rx = (on_cpu(fork(generator, end)) for end in ("transmitter", "receiver"))
        base = self._base(self.begin(source) if begun is None else begun, shape)
        air = self.draw(ends.num_symbols(shape), n0_of(snr_db, source), generator)
        analog = send(source - _decoded(base, like=source), ends.layout(shape))
        of_base, of_analog = ends.amplitudes(shape)
        layers = [of_base * base.send(at_tx).to(source.device), of_analog * analog.symbols]
        symbols = torch.cat(layers, dim=2)
        there = self.carry(symbols, air)
        estimate = self._receive(there, base, analog.side_info, shape, at_rx)
        notes = {name: base.notes()[name] for name in ("decoded", "bits")}
        return self.transmission(
            estimate, symbols, air, there, side_info_bits=float(analog.bits), notes=notes
        )

    def _base(self, images: list[Pixels], shape: tuple[int, ...]) -> Passage:
        """Return the base layer of a batch: one MCS on all streams, whatever the channel."""
        base: SeparateTransmitter = self.transmitter.base
        symbols = self.transmitter.num_symbols(shape) - self.transmitter.layout(shape).symbols
        passage = Passage(base, self, images, symbols)
        streams = tuple(range(self.num_streams))
        cut = segment(passage.uses * len(streams), mcs_by_index(int(base.mcs)))
        offer = [Offer(0, (Codeword(streams, cut),), 1.0)]
        passage.plans = each(
            lambda image: best_plan(base.stills, image, offer, must_send=True), images
        )
        return passage

    def _receive(
        self,
        there: Arrival,
        base: Passage,
        side_info: Tensor,
        shape: tuple[int, ...],
        generator: torch.Generator,
    ) -> Tensor:
        """Return the images [B, 3, H, W]: the base, or what stands in for it, and the residual."""
        y, edge = there.received, base.total
        n0 = separated(there.csi).expand(y.shape)
        of_base, of_analog = self.transmitter.amplitudes(shape)
        n0_base = CSI(None, n0[..., :edge] / of_base**2)
        image = base.receive(y[..., :edge] / of_base, n0_base, shape, generator).to(y.device)
        analog, n0_analog = y[:, 0, edge:] / of_analog, n0[:, 0, edge:] / of_analog**2
        image = image + receive(analog, n0_analog, side_info, self.transmitter.layout(shape), shape)
        return image if self.training else clip(image)


def _decoded(base: Passage, like: Tensor) -> Tensor:
    """Return the images that arrive where the base does."""
    stills = base.transmitter.stills

    def shown(plan: Plan) -> Pixels:
        if plan.coded is None:
            return stills.lost(plan.image)
        return stills.decode(plan.coded, plan.image)

    return sources_of(each(shown, base.plans), like)


HybridTransmitter.link_class = HybridLink
