"""A link: transmitter, channel, receiver, and what each end knows of the channel between them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from channels.base import CSI, Channel
from channels.csi import CSISource
from channels.streams import fork
from semsim.hop import Air, Hop, charged, check_tensor, n0_of
from semsim.phy.frontend import FrontEnd
from semsim.types import (
    AnyLink,
    End,
    Receiver,
    Transmission,
    Transmitter,
    WithNotes,
    WithSideInfo,
)


class Link(Hop, AnyLink):
    """Send a source through a channel and estimate it at the other end.

        source ─► transmitter ─► split over S streams ─► precoder ─► channel ─► combiner ─► join ─► receiver ─► estimate
                       ▲                                    ▲           │           ▲                    ▲
                       └──────────── csi_tx ────────────────┘           └─ csi_rx ──┴────────────────────┘

    The ends are a ``Transmitter`` and a ``Receiver`` (``semsim.types``); the other parts may be any
    ``nn.Module`` that keeps the protocol of its place (``channels.base``). K symbols go over S
    streams in ceil(K / S) channel uses, symbol k on stream k mod S; the streams share the transmit
    power equally unless the front end decides otherwise.

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
        receiver: Receiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__(channel, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend)
        check_ends(transmitter, receiver)
        own = transmitter.link_class
        if own is not None and type(self) is Link:
            name = type(transmitter).__name__
            raise TypeError(
                f"{name} has a link of its own, got {type(self).__name__}; write "
                f"{own.__name__}({name}(...), channel)"
            )
        self.transmitter: Any = transmitter
        self.receiver: Any = receiver
        if receiver is not None and receiver.freezes_transmitter:
            transmitter.freeze()

    def begin(self, source: Tensor) -> Any:
        """Return the symbols, or what of the transmitter's work does not depend on the channel."""
        check_precision(self, source)
        return begin_at(self.transmitter, source)

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> Transmission:
        """Send one batch and keep every intermediate; arguments as in ``AnyLink.transmit``.

        Fading, noise and each end draw from a stream of their own out of ``generator``, so that
        noise and fading of a use do not depend on K, the front end or what the ends know.
        """
        if begun is None:
            check_precision(self, source)  # else begin has looked
        shape = tuple(source.shape[1:])
        count = self.transmitter.num_symbols(shape)
        at_tx, at_rx = fork(generator, "transmitter"), fork(generator, "receiver")
        air = self.draw(count, n0_of(snr_db, source), generator)
        symbols: Any = encode_at(
            self.transmitter, source, self._seen_by_transmitter(air), at_tx, begun
        )
        bits, told = 0.0, dict[str, Tensor]()
        if isinstance(symbols, WithSideInfo):
            bits = charged(symbols.side_info, symbols.bits, self.sender)
            _check_reads_side_info(self.receiver)
            symbols, told = symbols.symbols, {"side_info": symbols.side_info}
        _check_symbols(symbols, len(source), count)
        there = self.carry(symbols, air)
        estimate = self.receiver(there.received, there.csi, shape, at_rx, **told)
        estimate, notes = estimate if isinstance(estimate, WithNotes) else (estimate, {})
        check_estimate(estimate, self.receiver, len(source))
        return self.transmission(estimate, symbols, air, there, side_info_bits=bits, notes=notes)

    def ends(self) -> dict[str, End]:
        """Return transmitter and receiver, where it has one."""
        ends = {"transmitter": self.transmitter, "receiver": self.receiver}
        return {name: end for name, end in ends.items() if end is not None}

    @property
    def sender(self) -> str:
        """The transmitter's class."""
        return type(self.transmitter).__name__

    @property
    def constellation(self) -> bool:
        """As the transmitter says."""
        return bool(self.transmitter.constellation)

    @property
    def bytes_per_pixel(self) -> float:
        """As the transmitter says."""
        return float(self.transmitter.bytes_per_pixel)

    def _seen_by_transmitter(self, air: Air) -> CSI:
        """Return what the transmitter may know, the noise that the front end will leave.

        A transmitter that says ``sees_channel = True`` gets what its end believes, h included,
        and that noise where it asks for it.
        """
        if not self.transmitter.uses_csi:
            return air.csi_tx
        if not self.transmitter.sees_channel:
            return self.foreseen(air)
        self.transmitter.check_channel(air.state)
        return replace(air.csi_tx, foreseen=partial(self.foreseen, air))


def begin_at(transmitter: Transmitter, source: Tensor) -> Any:
    """Return what a transmitter can do before the channel: all, where it does not look at it."""
    if transmitter.uses_csi:
        return transmitter.begin(source)
    return transmitter(source, CSI(h=None, n0=source.new_ones(len(source))))


def encode_at(
    transmitter: Transmitter, source: Tensor, csi: CSI, generator: torch.Generator, begun: Any
) -> Any:
    """Return the symbols of a transmitter, with what :func:`begin_at` returned or without."""
    if begun is None:
        return transmitter(source, csi, generator)
    if not transmitter.uses_csi:
        return begun
    return transmitter(source, csi, generator, begun=begun)


def check_precision(link: AnyLink, source: Tensor) -> None:
    """Refuse no tensor, and another precision than single, which would be an error of torch's."""
    check_tensor(source)
    weights = {p.dtype for p in link.parameters() if p.is_floating_point()}
    if torch.float64 in weights:
        raise ValueError("a link computes in float32, but has float64 weights; write .float()")
    if source.is_floating_point() and source.dtype != torch.float32:
        kind = str(source.dtype).removeprefix("torch.")
        raise ValueError(f"a link takes sources of float32, got {kind}; write source.float()")


def _check_symbols(symbols: Tensor, batch: int, num_symbols: int) -> None:
    if not isinstance(symbols, Tensor):
        raise TypeError(
            f"a transmitter returns complex symbols [{batch}, 1, {num_symbols}], got "
            f"{type(symbols).__name__}"
        )
    if not symbols.is_complex() or tuple(symbols.shape) != (batch, 1, num_symbols):
        raise ValueError(
            f"a transmitter returns complex symbols of shape [B, 1, K] = [{batch}, 1, "
            f"{num_symbols}] (K from its num_symbols), got {list(symbols.shape)} {symbols.dtype}"
        )


def check_estimate(estimate: Any, receiver: Any, batch: int) -> None:
    """Refuse what is no estimate of each item, [batch, ...]."""
    if not isinstance(estimate, Tensor) or estimate.shape[:1] != (batch,):
        got = list(estimate.shape) if isinstance(estimate, Tensor) else type(estimate).__name__
        raise TypeError(
            f"receiver {type(receiver).__name__} returns an estimate of each item, [{batch}, ...], "
            f"got {got}"
        )


def _check_reads_side_info(receiver: Receiver) -> None:
    if not receiver.reads_side_info:
        raise ValueError(
            f"the transmitter sends side information, which {type(receiver).__name__} does not "
            "take; its own receiver does. One of yours says reads_side_info = True and takes "
            "side_info in forward"
        )


def check_ends(transmitter: Transmitter, receiver: Receiver | None) -> None:
    """Refuse ends that lack what a link asks of them, and a receiver too few or too many."""
    ends: list[tuple[object, type[End]]] = [(transmitter, Transmitter), (receiver, Receiver)]
    for end, kind in ends:
        if end is not None and not isinstance(end, kind):
            name = kind.__name__
            if isinstance(end, type):
                raise TypeError(f"a {name.lower()} is an object, got a class; {end.__name__}(...)")
            raise TypeError(
                f"a {name.lower()} derives from semsim.types.{name}, which says what a link asks "
                f"of it, got {type(end).__name__}; write class {type(end).__name__}({name})"
            )
    if receiver is None and transmitter.link_class is None:
        raise ValueError(f"a link needs a receiver for {type(transmitter).__name__}, got none")
    if receiver is not None and transmitter.link_class is not None:
        raise ValueError(
            f"{type(transmitter).__name__} brings both ends and takes no receiver, got "
            f"{type(receiver).__name__}; leave receiver out"
        )
    if receiver is not None:
        receiver.check_transmitter(transmitter)
