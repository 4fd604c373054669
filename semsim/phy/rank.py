"""How many streams to send: the ways in which a front end can spend its power on some of them.

    rank 1     stream 1 ──► all power
    rank 2     streams 1, 2 ──► half each, or by water-filling over these two
    ...
    rank S     all streams

A transmitter that adapts its rank compares what each way leaves of noise, as far as it knows, and
takes the best. Every way keeps trace(P P^H) = 1. Streams that are left out carry nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, singledispatch

import torch
from torch import Tensor

from channels.base import CSI
from semsim.phy.frontend import LMMSE, RZF, SVD, ZF, FrontEnd
from semsim.phy.theory import water_filling


@dataclass(frozen=True)
class Way:
    """One choice of streams with their powers.

    Args:
        streams: those that are used, best first as far as the transmitter knows, [B, rank].
        precoder: makes P [B, T, S, 1 or N], with zero columns for the other streams.
    """

    streams: Tensor
    precoder: Callable[[], Tensor]

    @property
    def rank(self) -> int:
        """Streams in use."""
        return self.streams.shape[1]


@singledispatch
def ways(frontend: FrontEnd, csi_tx: CSI, num_tx: int, num_rx: int) -> list[Way]:
    """Return all ways to load the streams of a front end.

    A front end that is not known here has one, its own precoder; ``ways.register`` adds another.

    Args:
        frontend: of the link.
        csi_tx: what the transmitter believes: h [B, R, T, 1 or N] or None; n0 [B], linear.
        num_tx, num_rx: antennas T and R.
    """
    return [_all_streams(frontend, csi_tx, num_tx, num_rx)]


@ways.register(LMMSE)
@ways.register(ZF)
def _of_antennas(frontend: LMMSE | ZF, csi_tx: CSI, num_tx: int, num_rx: int) -> list[Way]:
    """Return the strongest 1, 2, ... transmit antennas; the first ones where h is not known."""
    whole = _all_streams(frontend, csi_tx, num_tx, num_rx)
    order = whole.streams
    if csi_tx.h is not None:
        order = _strength(csi_tx.h, antenna_axis=2).argsort(dim=1, descending=True)
    return [
        *(_equal(order[:, :rank], whole.precoder()) for rank in range(1, whole.rank)),
        whole,
    ]


@ways.register
def _of_modes(frontend: SVD, csi_tx: CSI, num_tx: int, num_rx: int) -> list[Way]:
    """Return the strongest 1, 2, ... modes, with equal power and, if asked for, water-filling."""
    modes = SVD(whiten=frontend.whiten).precoder(csi_tx, num_tx, num_rx)
    count = modes.shape[2]
    order = _first(len(csi_tx.n0), count, csi_tx.n0.device)
    choices = [_equal(order[:, :rank], modes) for rank in range(1, count + 1)]
    if not frontend.water_filling or count == 1:
        return choices
    snr = count / left_behind(frontend, behind(csi_tx, modes)).n0  # [B, S, 1 or N], at unit power
    for rank in range(2, count + 1):
        share = water_filling(snr[:, :rank].transpose(1, 2)).transpose(1, 2)
        choices.append(Way(order[:, :rank], partial(_loaded, modes, order[:, :rank], share)))
    return choices


@ways.register
def _of_receivers(frontend: RZF, csi_tx: CSI, num_tx: int, num_rx: int) -> list[Way]:
    """Return the strongest 1, 2, ... receive antennas, each set without nulls for the others."""
    whole = _all_streams(frontend, csi_tx, num_tx, num_rx)
    if csi_tx.h is None:
        return [whole]  # its precoder says what is missing
    order = _strength(csi_tx.h, antenna_axis=1).argsort(dim=1, descending=True)

    def served(rank: int) -> Tensor:
        kept = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :rank], True)
        h = csi_tx.h * kept[:, :, None, None]  # type: ignore[operator]
        return frontend.precoder(CSI(h, csi_tx.n0 * rank / num_rx), num_tx, num_rx)

    return [
        *(Way(order[:, :rank], partial(served, rank)) for rank in range(1, whole.rank)),
        whole,
    ]


def behind(csi: CSI, precoder: Tensor) -> CSI:
    """Return the CSI of the channel that the streams see: h times the precoder."""
    if csi.h is None or precoder.shape[1:3] == (1, 1):
        return csi if csi.h is None else replace(csi, h=csi.h * precoder)
    if csi.h.shape[-1] == 1 and precoder.shape[-1] == 1:
        return replace(csi, h=(csi.h[..., 0] @ precoder[..., 0]).unsqueeze(-1))
    return replace(csi, h=torch.einsum("brtn,btsn->brsn", *_match(csi.h, precoder)))


def left_behind(frontend: FrontEnd, seen: CSI) -> CSI:
    """Return what a front end leaves of noise where the streams see ``seen``, [B, S, 1 or N]."""
    if seen.h is None:
        raise ValueError("what a front end leaves depends on h, got CSI that knows no channel")
    parts = [part for part in (seen.h, seen.n0, seen.covariance) if part is not None]
    uses = max(part.shape[-1] for part in parts if part.dim() > 1)
    return frontend.combine(seen.h.new_zeros(len(seen.h), seen.h.shape[1], uses), seen)[1]


def of_streams(values: Tensor, streams: Tensor) -> Tensor:
    """Return values [B, S, N] of the streams [B, rank], in their order: [B, rank, N]."""
    return values.gather(1, streams[..., None].expand(-1, -1, values.shape[-1]))


def _all_streams(frontend: FrontEnd, csi_tx: CSI, num_tx: int, num_rx: int) -> Way:
    streams = _first(len(csi_tx.n0), frontend.num_streams(num_tx, num_rx), csi_tx.n0.device)

    def precoder() -> Tensor:
        p = frontend.precoder(csi_tx, num_tx, num_rx)
        return p.expand(len(csi_tx.n0), *p.shape[1:])

    return Way(streams, precoder)


def _first(batch: int, count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device).expand(batch, count)


def _strength(h: Tensor, *, antenna_axis: int) -> Tensor:
    """Return the energy of each antenna over all others and all uses, [B, antennas]."""
    rest = tuple(axis for axis in (1, 2, 3) if axis != antenna_axis)
    return h.abs().square().sum(dim=rest)


def _equal(streams: Tensor, directions: Tensor) -> Way:
    """Share the power equally; ``directions`` [B, T, S, 1 or N] have equal columns."""
    share = torch.full((len(streams), streams.shape[1], 1), 1 / streams.shape[1])
    share = share.to(directions.device, directions.real.dtype)
    return Way(streams, partial(_loaded, directions, streams, share))


def _loaded(directions: Tensor, streams: Tensor, share: Tensor) -> Tensor:
    """Return P: columns of power 1 / S scaled to ``share`` [B, rank, 1 or N] of the power."""
    count = directions.shape[2]
    scale = share.new_zeros(len(share), count, share.shape[-1])
    index = streams[..., None].expand(-1, -1, share.shape[-1])
    return directions * (count * scale.scatter(1, index, share)).sqrt()[:, None]


def _match(h: Tensor, precoder: Tensor) -> tuple[Tensor, Tensor]:
    """Give both the longer last axis and the batch of ``h``."""
    uses = max(h.shape[-1], precoder.shape[-1])
    return (
        h.expand(*h.shape[:-1], uses),
        precoder.expand(len(h), *precoder.shape[1:-1], uses),
    )
