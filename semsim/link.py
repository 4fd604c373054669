"""A link: transmitter, channel, receiver, and what each end knows of the channel between them."""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel, ChannelState
from channels.csi import CSISource, NoCSI, PerfectCSI, remember
from channels.streams import forks
from channels.units import snr_db_to_n0
from semsim.phy.frontend import LMMSE, FrontEnd
from semsim.phy.rank import behind
from semsim.types import Ledger, Receiver, Transmission, Transmitter, WithSideInfo


class Link(nn.Module):
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
        super().__init__()
        for name in ("num_tx", "num_rx"):
            if not isinstance(getattr(channel, name, None), int):
                raise TypeError(
                    f"channel {type(channel).__name__} has no integer {name}, the number of its "
                    f"antennas; set self.{name} = 1 in its __init__"
                )
        self.transmitter = transmitter
        self.channel = channel
        self.receiver = receiver
        self.csi_rx = csi_rx if csi_rx is not None else PerfectCSI()
        self.csi_tx = csi_tx if csi_tx is not None else NoCSI()
        self.frontend = frontend if frontend is not None else LMMSE()

    @property
    def num_streams(self) -> int:
        """Symbols that travel in one channel use."""
        return self.frontend.num_streams(self.channel.num_tx, self.channel.num_rx)

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
        batch, shape = len(source), tuple(source.shape[1:])
        n0 = snr_db_to_n0(torch.as_tensor(snr_db, device=source.device, dtype=torch.float32))
        n0 = n0.expand(batch)
        uses = math.ceil(self.transmitter.num_symbols(shape) / self.num_streams)
        fading, at_rx, at_tx, noise = forks(generator, "fading", "csi_rx", "csi_tx", "noise")
        state = self.channel.draw(batch, uses, fading)
        csi_rx = self.csi_rx(state, n0, at_rx)
        told = remember(self.csi_rx, csi_rx, state, n0, at_rx)
        csi_tx = self.csi_tx(state, n0, at_tx, told)
        precoder = self.frontend.precoder(csi_tx, self.channel.num_tx, self.channel.num_rx)
        if symbols is None:
            seen = self._seen_by_transmitter(csi_tx, precoder, uses)
            shared = {} if features is None else {"features": features}
            symbols = self.transmitter(source, seen, **shared)
        side_info = {}
        if isinstance(symbols, WithSideInfo):
            symbols, side_info["side_info"] = symbols
            _check_charged(self.transmitter, side_info["side_info"], shape)
            _check_reads_side_info(self.receiver)
        _check_symbols(symbols, batch, self.transmitter.num_symbols(shape))
        x, precoder = _precode(precoder, _split(symbols, self.num_streams))
        y = self.channel(x, state, n0, noise)
        streams, csi_after = self.frontend.combine(y, behind(csi_rx, precoder))
        if csi_after.h is None:
            received = _join(streams, symbols.shape[-1])
            csi_after = CSI(None, _join(csi_after.n0, symbols.shape[-1]))
        else:
            received = streams
        return Transmission(
            estimate=self.receiver(received, csi_after, shape, **side_info),
            x=x,
            ledger=self._ledger(state, uses, shape, n0),
            symbols=symbols,
            received=received,
            state=state,
            csi_tx=csi_tx,
            csi_rx=csi_rx,
        )

    def _check_precision(self, source: Tensor) -> None:
        """Refuse double precision at networks, which would end in an error of torch's."""
        weights = {p.dtype for p in self.parameters() if p.is_floating_point()}
        if torch.float64 in weights:
            raise ValueError("a link computes in float32, but has float64 weights; write .float()")
        if weights and source.dtype == torch.float64:
            raise ValueError("a link takes sources of float32, got float64; write source.float()")

    def _seen_by_transmitter(self, csi: CSI, precoder: Tensor, uses: int) -> CSI:
        """Return the noise that the front end will leave, as far as the transmitter knows.

        A transmitter that says ``sees_channel = True`` gets what its end believes, h included.
        """
        if csi.h is None or not self.transmitter.uses_csi:
            return csi
        if getattr(self.transmitter, "sees_channel", False):
            return csi
        silence = csi.h.new_zeros(csi.h.shape[0], csi.h.shape[1], uses)
        _, after = self.frontend.combine(silence, behind(csi, precoder))
        return after if after.h is not None else CSI(None, _join(after.n0, uses * self.num_streams))

    def _ledger(self, state: ChannelState, uses: int, shape: tuple[int, ...], n0: Tensor) -> Ledger:
        """Itemise the channel uses; bits of feedback and side information travel at capacity."""
        at_rx = self.csi_rx.overhead(state, uses, self.channel.num_tx)
        at_tx = self.csi_tx.overhead(state, uses, self.channel.num_tx)
        side_bits = getattr(self.transmitter, "side_info_bits", lambda shape: 0.0)(shape)
        feedback_bits = at_rx.feedback_bits + at_tx.feedback_bits
        bits_per_use = 1.0
        if side_bits or feedback_bits:
            bits_per_use = float(torch.log1p(1 / n0).mean()) / math.log(2)  # > 0 at any SNR
        return Ledger(
            payload=uses,
            pilots=at_rx.pilot_uses + at_tx.pilot_uses,
            feedback=feedback_bits / bits_per_use,
            side_info=side_bits / bits_per_use,
        )


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


def _split(symbols: Tensor, streams: int) -> Tensor:
    """[B, 1, K] to [B, S, ceil(K / S)], symbol k on stream k mod S, zeros at the end."""
    if streams == 1:
        return symbols
    missing = -symbols.shape[-1] % streams
    padded = nn.functional.pad(symbols, (0, missing))
    return padded.view(len(symbols), -1, streams).transpose(1, 2)


def _join(streams: Tensor, num_symbols: int) -> Tensor:
    """Undo :func:`_split`: [B, S, N] to [B, 1, K]."""
    if streams.shape[1] == 1:
        return streams[..., :num_symbols]
    return streams.transpose(1, 2).reshape(len(streams), 1, -1)[..., :num_symbols]


def _precode(precoder: Tensor, streams: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [B, T, N] and the precoder, scaled so that each item keeps its streams' power.

    Streams of unit power share 1; water-filling would give an item more than that whose strong
    stream happens to be loud.
    """
    x = _apply(precoder, streams)
    if len(precoder) == 1 and precoder.shape[-1] == 1:
        return x, precoder  # equal power per antenna: nothing moves
    sent, wanted = (z.abs().square().sum(dim=(1, 2)) for z in (x, streams))
    scale = torch.where(sent > 0, wanted / streams.shape[1] / sent.clamp_min(1e-30), 1).sqrt()
    return x * scale[:, None, None], precoder * scale[:, None, None, None]


def _apply(precoder: Tensor, streams: Tensor) -> Tensor:
    """[B, T, S, 1 or N] times [B, S, N]."""
    if precoder.shape[1:3] == (1, 1):
        return precoder[:, :, 0] * streams
    if precoder.shape[-1] == 1:
        return precoder[..., 0] @ streams
    return torch.einsum("btsn,bsn->btn", precoder, streams)
