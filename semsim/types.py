"""The small vocabulary shared by links, codecs, metrics and the evaluator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from channels.base import CSI, ChannelState


@dataclass(frozen=True)
class Ledger:
    """Complex channel uses that one item cost, itemised; means where items differ."""

    payload: float
    pilots: float = 0.0
    feedback: float = 0.0
    side_info: float = 0.0

    @property
    def total(self) -> float:
        """All channel uses, the numerator of the CBR."""
        return self.payload + self.pilots + self.feedback + self.side_info


@dataclass(frozen=True)
class Transmission:
    """One batch on its way through a link, with every intermediate.

    Args:
        estimate: what the receiver made of it, [B, ...].
        x: what went into the channel, [B, T, N], complex; power is measured on it.
        ledger: channel uses per item.
        symbols, received: what the transmitter sent and the receiver got, [B, 1, K], complex, where
            the link has them (for EVM).
        state: the channel's realisation; csi_tx, csi_rx: what the two ends believed.
        notes: further facts per item, [B] each, such as ``mcs`` or ``decoded``.
    """

    estimate: Tensor
    x: Tensor
    ledger: Ledger
    symbols: Tensor | None = None
    received: Tensor | None = None
    state: ChannelState | None = None
    csi_tx: CSI | None = None
    csi_rx: CSI | None = None
    notes: dict[str, Tensor] = field(default_factory=dict)


class WithSideInfo(NamedTuple):
    """Symbols, and what the receiver must know to read them.

    Side information arrives without errors and is charged: the transmitter's
    ``side_info_bits(shape)`` says how many bits an item takes; a link refuses it where that is
    missing or 0, and floats that are charged less than their width.
    """

    symbols: Tensor  #: [B, 1, K], complex
    side_info: Tensor  #: [B, ...]


class Payload(Protocol):
    """Items (source, target), deterministic by index; sources are tensors."""

    def __len__(self) -> int:
        """Return how many items there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return the source and the target of an item."""
        ...


class Transmitter(Protocol):
    """Source in, complex symbols of unit mean power per item out (see ``semsim.phy.power``).

    With ``sees_channel = True`` its CSI holds h as its end believes it, and n0 [B], even in front
    of a linear front end; without, the noise that the front end will leave on each symbol. It may
    offer ``before_channel(source) -> Tensor | None``, the part of its work that does not depend on
    the channel, and take that as ``features``: a sweep then computes it once for all SNRs. With
    ``constellation = True`` its power is 1 in expectation over its points, not in each item.
    """

    uses_csi: bool  #: False where x does not depend on ``csi``: a sweep then encodes once

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return how many complex symbols K an item of this shape (without batch) costs."""
        ...

    def __call__(self, source: Tensor, csi: CSI) -> Tensor | WithSideInfo:
        """Return symbols [B, 1, K], complex64, mean |x|^2 = 1 per item."""
        ...


class Receiver(Protocol):
    """Received symbols in, an estimate of the source out."""

    def __call__(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Return the estimate [B, *shape].

        Args:
            y: symbols after the front end, [B, 1, K], complex, unbiased.
            csi: h None and n0 [B, 1, K], the noise left per symbol; behind ``frontend: none``
                y is [B, R, N] as received and csi holds h.
            shape: the source's shape without batch, known at both ends.

        Behind a transmitter with side information it is called with ``side_info`` as well.
        """
        ...
