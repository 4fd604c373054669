"""One hop: symbols through a channel and back to symbols, and what both ends know meanwhile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel, ChannelState
from channels.csi import CSISource, NoCSI, PerfectCSI, remember
from channels.streams import forks
from channels.units import snr_db_to_n0
from semsim.phy.frontend import LMMSE, FrontEnd
from semsim.phy.rank import behind
from semsim.types import Ledger, Transmission, Turn

_DRAWS = ("fading", "csi_rx", "csi_tx", "noise")  #: each from a stream of its own


@dataclass(frozen=True)
class Air:
    """One draw of a hop, before anything is sent over it.

    Args:
        state: the channel's realisation.
        symbols: K of each item, of which the last use may carry fewer than it could.
        uses: channel uses.
        n0: noise power per receive antenna, linear, [B].
        csi_rx, csi_tx: what the two ends believe of the state.
        precoder: as the front end chose it, [B or 1, T, S, 1 or N], complex.
        noise: draws the noise.
    """

    state: ChannelState
    symbols: int
    uses: int
    n0: Tensor
    csi_rx: CSI
    csi_tx: CSI
    precoder: Tensor
    noise: torch.Generator


@dataclass(frozen=True)
class Arrival:
    """Symbols after a hop.

    Args:
        x: what went into the channel, [B, T, N], complex.
        turns: as in :class:`semsim.types.Transmission`.
        received: [B, 1, K], complex, unbiased; [B, R, N] where the front end leaves the antennas
            to the codec.
        csi: the noise left in them, n0 [B, 1, K] and h None; where the antennas are left to the
            codec n0 [B], and h as far as the receiver knows it.
    """

    x: Tensor
    received: Tensor
    csi: CSI
    turns: tuple[Turn, ...] = ()


class Hop(nn.Module):
    """A channel with a front end, and what its two ends know of it.

    K symbols go over S streams in ceil(K / S) channel uses, symbol k on stream k mod S; the streams
    share the transmit power equally unless the front end decides otherwise.

    Args:
        channel: from ``channels`` or your own.
        csi_rx: what the receiving end knows of the channel; perfect by default.
        csi_tx: what the sending end knows of it; only the average SNR by default.
        frontend: precoder and combiner; LMMSE, which is a division on one antenna, by default.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__()
        check_parts(channel, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend)
        self.channel = channel
        self.csi_rx = csi_rx if csi_rx is not None else PerfectCSI()
        self.csi_tx = csi_tx if csi_tx is not None else NoCSI()
        self.frontend = frontend if frontend is not None else LMMSE()

    @property
    def num_streams(self) -> int:
        """Symbols that travel in one channel use."""
        return self.frontend.num_streams(self.channel.num_tx, self.channel.num_rx)

    def draw(self, num_symbols: int, n0: Tensor, generator: torch.Generator) -> Air:
        """Draw the channel for a batch, and what both ends make of it.

        Args:
            num_symbols: K of each item.
            n0: noise power per receive antenna, linear, [B].
            generator: of fading, noise and knowledge; each has a stream of its own, so that noise
                and fading of a use do not depend on K, the front end or what the ends know.
        """
        uses = math.ceil(num_symbols / self.num_streams)
        fading, *others = forks(generator, *_DRAWS)
        state = self.channel.draw(len(n0), uses, fading)
        if not isinstance(state, ChannelState):
            raise TypeError(
                f"draw of channel {type(self.channel).__name__} returns a ChannelState(h, "
                f"coherence), got {type(state).__name__}"
            )
        return self._known(state, num_symbols, n0, *others)

    def again(self, air: Air, generator: torch.Generator, *, later_s: float = 0.0) -> Air:
        """Meet the same realisation once more, some s later, with new knowledge and new noise."""
        state = air.state.during(0, air.state.uses, later_s=later_s)
        return self._known(state, air.symbols, air.n0, *forks(generator, *_DRAWS)[1:])

    def _known(
        self,
        state: ChannelState,
        symbols: int,
        n0: Tensor,
        at_rx: torch.Generator,
        at_tx: torch.Generator,
        noise: torch.Generator,
    ) -> Air:
        csi_rx = self.csi_rx(state, n0, at_rx)
        told = remember(self.csi_rx, csi_rx, state, n0, at_rx)
        csi_tx = self.csi_tx(state, n0, at_tx, told)
        precoder = self.frontend.precoder(csi_tx, self.channel.num_tx, self.channel.num_rx)
        uses = math.ceil(symbols / self.num_streams)
        return Air(state, symbols, uses, n0, csi_rx, csi_tx, precoder, noise)

    def carry(self, symbols: Tensor, air: Air) -> Arrival:
        """Send symbols [B, 1, K] over a channel that :meth:`draw` drew."""
        x, precoder = _precode(air.precoder, _split(symbols, self.num_streams))
        y = self.channel(x, air.state, air.n0, air.noise)
        if not isinstance(y, Tensor) or not y.is_complex() or y.dim() != 3:
            what = f"{list(y.shape)} {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"channel {type(self.channel).__name__} returns complex y [B, R, N], got {what}"
            )
        streams, csi = self.frontend.combine(y, behind(air.csi_rx, precoder))
        if not csi.separated:
            return Arrival(x, streams, csi)
        count = symbols.shape[-1]
        return Arrival(x, _join(streams, count), CSI(None, _join(csi.n0, count)))

    def foreseen(self, air: Air) -> CSI:
        """Return the noise that the front end will leave, as far as the sending end knows."""
        csi = air.csi_tx
        if csi.h is None:
            return csi
        silence = csi.h.new_zeros(csi.h.shape[0], csi.h.shape[1], air.uses)
        _, after = self.frontend.combine(silence, behind(csi, air.precoder))
        if not after.separated:
            return after
        return CSI(None, _join(after.n0, air.symbols))

    def ledger(self, air: Air, side_info_bits: float = 0.0) -> Ledger:
        """Itemise the channel uses; bits of feedback and side information travel at capacity."""
        at_rx = self.csi_rx.overhead(air.state, air.uses, self.channel.num_tx)
        at_tx = self.csi_tx.overhead(air.state, air.uses, self.channel.num_tx)
        feedback_bits = at_rx.feedback_bits + at_tx.feedback_bits
        return Ledger(
            payload=air.uses,
            pilots=at_rx.pilot_uses + at_tx.pilot_uses,
            feedback=uses_at_capacity(feedback_bits, air.n0, air.state),
            side_info=uses_at_capacity(side_info_bits, air.n0, air.state),
        )

    def transmission(
        self,
        estimate: Tensor,
        symbols: Tensor,
        air: Air,
        there: Arrival,
        *,
        side_info_bits: float = 0.0,
        notes: dict[str, Tensor] | None = None,
    ) -> Transmission:
        """Return one hop with every intermediate; arguments as in the other methods."""
        return Transmission(
            estimate=estimate,
            x=there.x,
            ledger=self.ledger(air, side_info_bits),
            symbols=symbols,
            received=there.received,
            turns=there.turns,
            state=air.state,
            csi_tx=air.csi_tx,
            csi_rx=air.csi_rx,
            notes=notes or {},
        )


def check_parts(
    channel: Channel,
    *,
    csi_rx: CSISource | None,
    csi_tx: CSISource | None,
    frontend: FrontEnd | None,
) -> None:
    """Refuse a channel without antennas, and what is no object that can do its part."""
    _check_object("channel", channel, ("draw", "__call__"), "Rayleigh()")
    for name in ("num_tx", "num_rx"):
        if not isinstance(getattr(channel, name, None), int):
            raise TypeError(
                f"channel {type(channel).__name__} has no integer {name}, the number of its "
                f"antennas; set self.{name} = 1 in its __init__"
            )
    if type(channel).__call__ is Channel.__call__:
        raise TypeError(
            f"channel {type(channel).__name__} derives from channels.base.Channel, which only says "
            f"what a channel has; write class {type(channel).__name__}(torch.nn.Module), without "
            "Channel"
        )
    for name, source in (("csi_rx", csi_rx), ("csi_tx", csi_tx)):
        if source is not None:
            _check_object(name, source, ("__call__", "overhead"), "PerfectCSI()")
    if frontend is not None:
        methods = ("num_streams", "precoder", "combine")
        _check_object("frontend", frontend, methods, "LMMSE()")


def _check_object(name: str, part: object, methods: tuple[str, ...], example: str) -> None:
    if isinstance(part, type):
        raise TypeError(f"{name} is an object, got a class; {name}={part.__name__}(...)")
    missing = [method for method in methods if not callable(getattr(part, method, None))]
    if "__call__" in methods and getattr(type(part), "forward", None) is nn.Module.forward:
        missing.append("forward")  # which a module's __call__ needs
    if missing:
        raise TypeError(
            f"{name} is an object with {', '.join(methods)}, such as {example}, got {part!r} "
            f"without {missing[0]}"
        )


def n0_of(snr_db: float | Tensor, source: Tensor) -> Tensor:
    """Return n0 [B], linear, for a batch [B, ...] and an SNR in dB, a number or [B]."""
    return snr_db_to_n0(snr_of(snr_db, source)).expand(len(source))


def snr_of(snr_db: float | Tensor, source: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an SNR in dB as a tensor that expands to one for each item of a batch [B, ...]."""
    check_tensor(source)
    try:
        snr = torch.as_tensor(snr_db, device=source.device, dtype=dtype)
        snr.expand(len(source))
        return snr
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"snr_db is a number in dB, or one for each of {len(source)} items, got {snr_db!r}"
        ) from error


def check_tensor(source: object) -> None:
    """Refuse a batch that is no tensor, such as an array of NumPy."""
    if not isinstance(source, Tensor):
        raise TypeError(
            f"a link sends a tensor [B, ...], got {type(source).__name__}; write "
            "torch.as_tensor(source), of images / 255 where they are of 8 bits"
        )


def uses_at_capacity(bits: float, n0: Tensor, state: ChannelState | None = None) -> float:
    """Return the channel uses that bits take at the capacity of a line at the average SNR.

    Args:
        bits: per item.
        n0: noise power, linear, [B]; the mean over items counts.
        state: of the channel, whose interference is noise here; fading and lost packets are not
            counted.
    """
    if not bits:
        return 0.0
    noise = n0 if state is None else n0 + state.interference
    return bits / (float(torch.log1p(1 / noise).mean()) / math.log(2))


def charged(side_info: Tensor, bits: float | Tensor, sender: str) -> float:
    """Return the bits per item that side information takes, mean over items.

    Raises:
        ValueError: it costs nothing, or its floats less than they carry.
    """
    mean = float(torch.as_tensor(bits, dtype=torch.float64).mean())
    if not 0 < mean < math.inf:
        raise ValueError(
            f"{sender} sends side information and declares {mean:g} bits for it; what a receiver "
            "is told is charged: say beside it the bits that an item's side information takes"
        )
    values = side_info[0].numel() if len(side_info) else 0
    carried = values * side_info.element_size() * 8
    if side_info.is_floating_point() and mean < carried:
        raise ValueError(
            f"{sender} declares {mean:g} bits for side information of {values} values of "
            f"{side_info.dtype}, which carry {carried}; quantise them to integers, or charge all"
        )
    return mean


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
    if _is_even(precoder):
        return x, precoder
    sent, wanted = (z.abs().square().sum(dim=(1, 2)) for z in (x, streams))
    scale = torch.where(sent > 0, wanted / streams.shape[1] / sent.clamp_min(1e-30), 1).sqrt()
    return x * scale[:, None, None], precoder * scale[:, None, None, None]


def _is_even(precoder: Tensor) -> bool:
    """Tell whether each antenna carries one stream, all with equal power, so that none moves.

    A batch of one item may have any precoder [1, T, S, 1], so that the shape does not tell.
    """
    if len(precoder) > 1 or precoder.shape[-1] > 1:
        return False
    p = precoder[0, ..., 0]
    return p.shape == (1, 1) or torch.equal(p, p[0, 0] * torch.eye(*p.shape, device=p.device))


def _apply(precoder: Tensor, streams: Tensor) -> Tensor:
    """[B, T, S, 1 or N] times [B, S, N]."""
    if precoder.shape[1:3] == (1, 1):
        return precoder[:, :, 0] * streams
    if precoder.shape[-1] == 1:
        return precoder[..., 0] @ streams
    return torch.einsum("btsn,bsn->btn", precoder, streams)
