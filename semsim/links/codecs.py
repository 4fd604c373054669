"""What the links of this room ask of a codec: symbols in the open, separated by the front end."""

from __future__ import annotations

from collections.abc import Callable

from channels.base import CSI
from semsim.link import Link
from semsim.types import AnyLink, Transmitter


def check_open(kind: str, transmitter: Transmitter, instead: str) -> None:
    """Raise ValueError where a codec keeps its symbols to a link of its own.

    Args:
        kind: of the link that asks.
        transmitter: the codec's first half.
        instead: what to write for such a codec.
    """
    own = transmitter.link_class
    if own is not None:
        raise ValueError(
            f"{kind} works on a codec's symbols, which {type(transmitter).__name__} keeps to "
            f"{own.__name__}; {instead}"
        )


def check_separated(kind: str, csi: CSI) -> None:
    """Raise ValueError where the front end leaves the antennas to the codec."""
    if not csi.separated:
        raise ValueError(f"{kind} needs a front end that separates streams; write frontend: lmmse")


def class_of(transmitter: Transmitter) -> Callable[..., AnyLink]:
    """Return the link that a codec brings along, or the plain one."""
    return transmitter.link_class or Link
