"""Sequences frame by frame: a codec of images carries a video, which is one item all the same.

    item [T, ...] ─► T frames ─► transmitter ─► one frame's symbols after the other ─► hop ─► receiver ─► [T, ...]

The channel is drawn once for all frames, so that they meet it as time goes by.
"""  # noqa: E501 - the diagram

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.link import Link, check_ends, check_estimate
from semsim.links.codecs import check_open, check_separated
from semsim.phy.frontend import FrontEnd
from semsim.types import (
    End,
    Receiver,
    Transmission,
    Transmitter,
    WithNotes,
    WithSideInfo,
    each_user,
)


class FramesLink(Link):
    """Send items that are sequences, [T, ...] each, with a codec of what a frame is.

    The codec sees frames as items of a batch. Each has the noise of its own channel uses, where the
    channel changes over the item (``coherence`` and ``symbol_rate_hz`` of flat fading, or OFDM).

    Args:
        transmitter, channel, receiver, csi_rx, csi_tx, frontend: as in :class:`Link`. Not a codec
            with a link of its own, such as separate, or one that reads h.
    """

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
        check_ends(transmitter, receiver)
        check_open("frames", transmitter, "use an open codec such as deepjscc or analog")
        if transmitter.sees_channel:
            raise ValueError(
                f"frames tells a codec the noise of each frame, and {type(transmitter).__name__} "
                "reads the channel's gains; use a codec behind a front end, such as deepjscc"
            )
        super().__init__(
            transmitter, channel, receiver, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend
        )
        self.transmitter = _FramesOut(transmitter)
        self.receiver = receiver and _FramesIn(receiver)

    def auxiliary_loss(
        self, progress: float, sent: Transmission | tuple[Transmission, ...]
    ) -> Tensor | float:
        """Return what the ends ask of themselves; estimate and symbols are told by frame."""
        (items,) = each_user(sent)
        count = items.estimate.shape[:2].numel()
        symbols, received = (
            part if part is None else part.reshape(count, 1, -1)
            for part in (items.symbols, items.received)
        )
        frames = replace(
            items, estimate=items.estimate.flatten(0, 1), symbols=symbols, received=received
        )
        return super().auxiliary_loss(progress, frames)

    def ends(self) -> dict[str, End]:
        """Return the ends of a frame, whose weights are those of a link of single frames."""
        own = {"transmitter": self.transmitter, "receiver": self.receiver}
        return {name: end.codec for name, end in own.items() if end is not None}

    @property
    def sender(self) -> str:
        """The transmitter's class."""
        return type(self.transmitter.codec).__name__


class _FramesOut(Transmitter):
    """A transmitter of sequences out of one of frames."""

    def __init__(self, codec: Transmitter) -> None:
        super().__init__()
        self.codec: Any = codec
        self.uses_csi, self.constellation = codec.uses_csi, codec.constellation
        self.bytes_per_pixel = codec.bytes_per_pixel

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an item [T, ...]."""
        if len(shape) < 2:
            raise ValueError(
                f"link frames sends sequences, such as videos [T, 3, H, W], got {list(shape)} per "
                "item; leave link out"
            )
        return shape[0] * int(self.codec.num_symbols(shape[1:]))

    def begin(self, source: Tensor) -> Any:
        """Return what of the frames does not depend on the channel."""
        return self.codec.begin(source.flatten(0, 1))

    def forward(
        self, source: Tensor, csi: CSI, generator: torch.Generator | None = None, **begun: Any
    ) -> Tensor | WithSideInfo:
        """Return symbols [B, 1, K], frame after frame, for source [B, T, ...]."""
        batch, frames = source.shape[:2]
        sent = self.codec(source.flatten(0, 1), _of_frames(csi, frames), generator, **begun)
        if not isinstance(sent, WithSideInfo):
            return sent.reshape(batch, 1, -1)
        bits = frames * sent.bits
        if isinstance(sent.bits, Tensor) and sent.bits.dim():
            bits = sent.bits.view(batch, frames).sum(dim=1)
        told = sent.side_info.unflatten(0, (batch, frames))
        return WithSideInfo(sent.symbols.reshape(batch, 1, -1), told, bits)


class _FramesIn(Receiver):
    """A receiver of sequences out of one of frames."""

    def __init__(self, codec: Receiver) -> None:
        super().__init__()
        self.codec: Any = codec
        self.reads_side_info = codec.reads_side_info

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        **told: Tensor,
    ) -> Tensor | WithNotes:
        """Return the item [B, T, ...] for y [B, 1, K]; notes are means over its frames."""
        check_separated("frames", csi)
        frames = shape[0]
        told = {name: value.flatten(0, 1) for name, value in told.items()}
        arrived = y.reshape(len(y) * frames, 1, -1)
        made = self.codec(arrived, _of_frames(csi, frames), shape[1:], generator, **told)
        whole = made.estimate if isinstance(made, WithNotes) else made
        check_estimate(whole, self.codec, len(y) * frames)
        if not isinstance(made, WithNotes):
            return made.unflatten(0, (len(y), frames))
        notes = {n: v.double().view(len(y), frames).mean(dim=1) for n, v in made.notes.items()}
        return WithNotes(made.estimate.unflatten(0, (len(y), frames)), notes)


def _of_frames(csi: CSI, frames: int) -> CSI:
    """Return the noise of each frame, of that of each symbol or item."""
    if csi.n0.dim() == 1:
        return CSI(None, csi.n0.repeat_interleave(frames))
    if csi.n0.shape[-1] == 1:
        return CSI(None, csi.n0.repeat_interleave(frames, dim=0))
    return CSI(None, csi.n0.reshape(len(csi.n0) * frames, 1, -1))
