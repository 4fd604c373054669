"""A link: transmitter, channel, receiver, and what each end knows of the channel between them."""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.hop import Air, Hop, n0_of
from semsim.phy.frontend import FrontEnd
from semsim.types import Receiver, Transmission, Transmitter, WithSideInfo


class Link(Hop):
    """Send a source through a channel and estimate it at the other end.

        source ─► transmitter ─► split over S streams ─► precoder ─► channel ─► combiner ─► join ─► receiver ─► estimate
                       ▲                                    ▲           │           ▲                    ▲
                       └──────────── csi_tx ────────────────┘           └─ csi_rx ──┴────────────────────┘

    Each part may be any ``nn.Module`` that keeps the protocol of its place (``semsim.types``,
    ``channels.base``). K symbols go over S streams in ceil(K / S) channel uses, symbol k on stream
    k mod S; the streams share the transmit power equally unless the front end decides otherwise.

    Args:
        transmitter: source [B, ...] to symbols [B, 1, K] of unit mean power per item.
        channel: from ``channels`` or your own.
        receiver: symbols after the front end to an estimate.
        csi_rx: what the receiver knows of the channel; perfect by default.
        csi_tx: what the transmitter knows of it; only the average SNR by default.
        frontend: precoder and combiner; LMMSE, which is a division on one antenna, by default.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        transmitter: Transmitter,
        channel: Channel,
        receiver: Receiver,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__(channel, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend)
        self.transmitter = transmitter
        self.receiver = receiver

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules whose weights a file of this link holds, by their prefix."""
        ends = {"transmitter": self.transmitter, "receiver": self.receiver}
        return {name: end for name, end in ends.items() if isinstance(end, nn.Module)}

    def forward(self, source: Tensor, snr_db: float | Tensor, generator: torch.Generator) -> Tensor:
        """Return the receiver's estimate of the source; arguments as in :meth:`transmit`."""
        return self.transmit(source, snr_db, generator).estimate

    def encode(self, source: Tensor) -> Tensor | WithSideInfo:
        """Return the symbols [B, 1, K] of a transmitter that does not look at the channel.

        A sweep calls this once per batch and passes the result to :meth:`transmit` at each SNR.
        """
        if self.transmitter.uses_csi:
            raise ValueError(
                f"{type(self.transmitter).__name__} adapts to the channel (uses_csi is True), so "
                "its symbols depend on the SNR; call transmit at each SNR instead"
            )
        return self.transmitter(source, CSI(h=None, n0=source.new_ones(len(source))))

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        symbols: Tensor | WithSideInfo | None = None,
        features: Tensor | None = None,
    ) -> Transmission:
        """Send one batch and keep every intermediate.

        Args:
            source: [B, ...], images [B, 3, H, W] in [0, 1].
            snr_db: average received Es/N0 per receive antenna, in dB; a number, or [B].
            generator: draws fading, noise and whatever else is random, on the source's device; each
                from a stream of its own, so that noise and fading of a use do not depend on K, the
                front end or what the ends know.
            symbols: what :meth:`encode` returned for this source, to encode only once.
            features: what ``transmitter.before_channel`` returned for it, where the transmitter has
                that: the part of its work that does not depend on the channel.
        """
        self._check_precision(source)
        shape = tuple(source.shape[1:])
        air = self.draw(self.transmitter.num_symbols(shape), n0_of(snr_db, source), generator)
        if symbols is None:
            shared = {} if features is None else {"features": features}
            symbols = self.transmitter(source, self._seen_by_transmitter(air), **shared)
        side_info = {}
        if isinstance(symbols, WithSideInfo):
            symbols, side_info["side_info"] = symbols
            _check_charged(self.transmitter, side_info["side_info"], shape)
            _check_reads_side_info(self.receiver)
        _check_symbols(symbols, len(source), self.transmitter.num_symbols(shape))
        there = self.carry(symbols, air)
        return Transmission(
            estimate=self.receiver(there.received, there.csi, shape, **side_info),
            x=there.x,
            ledger=self.ledger(air, self._side_info_bits(shape)),
            symbols=symbols,
            received=there.received,
            state=air.state,
            csi_tx=air.csi_tx,
            csi_rx=air.csi_rx,
        )

    def _check_precision(self, source: Tensor) -> None:
        """Refuse double precision at networks, which would end in an error of torch's."""
        weights = {p.dtype for p in self.parameters() if p.is_floating_point()}
        if torch.float64 in weights:
            raise ValueError("a link computes in float32, but has float64 weights; write .float()")
        if weights and source.dtype == torch.float64:
            raise ValueError("a link takes sources of float32, got float64; write source.float()")

    def _seen_by_transmitter(self, air: Air) -> CSI:
        """Return what the transmitter may know, the noise that the front end will leave.

        A transmitter that says ``sees_channel = True`` gets what its end believes, h included.
        """
        if not self.transmitter.uses_csi or getattr(self.transmitter, "sees_channel", False):
            return air.csi_tx
        return self.foreseen(air)

    def _side_info_bits(self, shape: tuple[int, ...]) -> float:
        bits: float = getattr(self.transmitter, "side_info_bits", lambda shape: 0.0)(shape)
        return bits


def _check_symbols(symbols: Tensor, batch: int, num_symbols: int) -> None:
    if not symbols.is_complex() or tuple(symbols.shape) != (batch, 1, num_symbols):
        raise ValueError(
            f"a transmitter returns complex symbols of shape [B, 1, K] = [{batch}, 1, "
            f"{num_symbols}] (K from its num_symbols), got {list(symbols.shape)} {symbols.dtype}"
        )


def _check_charged(transmitter: Transmitter, side_info: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse side information that costs nothing, or floats that cost less than they carry."""
    name = type(transmitter).__name__
    declared = getattr(transmitter, "side_info_bits", None)
    bits = 0.0 if declared is None else float(declared(shape))
    if not 0 < bits < math.inf:
        came = "has no side_info_bits" if declared is None else f"declares {bits:g} bits for it"
        raise ValueError(
            f"{name} sends side information and {came}; what a receiver is told is charged: give "
            "the transmitter side_info_bits(shape), the bits that an item's side information takes"
        )
    values = side_info[0].numel() if len(side_info) else 0
    carried = values * side_info.element_size() * 8
    if side_info.is_floating_point() and bits < carried:
        raise ValueError(
            f"{name} declares {bits:g} bits for side information of {values} values of "
            f"{side_info.dtype}, which carry {carried}; quantise them to integers, or charge all"
        )


def _check_reads_side_info(receiver: Receiver) -> None:
    takes = inspect.signature(getattr(type(receiver), "forward", receiver)).parameters
    if "side_info" not in takes:
        raise ValueError(
            f"the transmitter sends side information, which {type(receiver).__name__} does not "
            "take; its own receiver does"
        )
