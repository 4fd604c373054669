"""The small vocabulary shared by links, codecs, metrics and the evaluator."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState


@dataclass(frozen=True)
class Ledger:
    """Complex channel uses that one item cost, itemised; means where items differ.

    ``each`` has all uses of each item, [B], where they differ.
    """

    payload: float
    pilots: float = 0.0
    feedback: float = 0.0
    side_info: float = 0.0
    each: Tensor | None = field(default=None, compare=False)

    @property
    def total(self) -> float:
        """All channel uses, the numerator of the CBR."""
        return self.payload + self.pilots + self.feedback + self.side_info

    def __add__(self, other: Ledger) -> Ledger:
        """Return what both cost together."""
        each = None
        if self.each is not None or other.each is not None:
            own = (one.total if one.each is None else one.each for one in (self, other))
            each = torch.as_tensor(sum(own))
        return Ledger(
            self.payload + other.payload,
            self.pilots + other.pilots,
            self.feedback + other.feedback,
            self.side_info + other.side_info,
            each,
        )


class Turn(NamedTuple):
    """One of several times that something is sent: its channel uses and realisation."""

    uses: int
    state: ChannelState | None


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
        turns: where x holds what was sent at several times one after the other, such as by a relay
            or in rounds, the channel uses and the realisation of each.
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
    turns: tuple[Turn, ...] = ()
    notes: dict[str, Tensor] = field(default_factory=dict)


def turns_of(sent: Transmission) -> tuple[Turn, ...]:
    """Return when x was sent, piece by piece; in a single one by most links."""
    return sent.turns or (Turn(sent.x.shape[-1], sent.state),)


class WithSideInfo(NamedTuple):
    """Symbols, and what the receiver must know to read them.

    Side information arrives without errors and is charged; a link refuses it where it costs
    nothing, and floats that are charged less than their width.
    """

    symbols: Tensor  #: [B, 1, K], complex
    side_info: Tensor  #: [B, ...]
    bits: float | Tensor  #: that it takes: of each item alike, or [B]


class Payload(Protocol):
    """Items (source, target), deterministic by index; sources are tensors."""

    def __len__(self) -> int:
        """Return how many items there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """Return the source and the target of an item."""
        ...


class WithNotes(NamedTuple):
    """An estimate, and further facts per item, [B] each, that go into the rows."""

    estimate: Tensor
    notes: dict[str, Tensor]


class AnyLink(nn.Module):
    """What evaluation and training ask of a link, whatever it is made of.

        source ─► begin ─► begun ─┬─► transmit at SNR 1 ─► Transmission
                                  └─► transmit at SNR 2 ─► ...

    A link of your own gives ``transmit``; the rest has defaults. One of several users takes a list
    of sources, one of each user, and returns a transmission of each.
    """

    users: int = 1  #: who send at the same time, each with rows of its own
    payloads: Sequence[Payload] = ()  #: of the users from the second on, where not the first one's
    ignores_channel: ClassVar[bool] = False  #: True where all SNRs are one: a sweep sends once
    hops_db: tuple[float, ...] = (0.0,)  #: SNR of each hop from end to end over ``snr_db``, in dB

    def __init__(self) -> None:
        super().__init__()
        # a link without parameters is somewhere, too: this goes where ``to`` sends the link
        self.register_buffer("_moved_with_link", torch.empty(0), persistent=False)

    def begin(self, source: Any) -> Any:
        """Return what all SNRs of a batch share, for ``transmit(begun=...)``; None for nothing."""
        return None

    def transmit(
        self,
        source: Any,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> Transmission | tuple[Transmission, ...]:
        """Send one batch and keep every intermediate.

        Args:
            source: [B, ...], images [B, 3, H, W] in [0, 1].
            snr_db: average received Es/N0 per receive antenna, in dB; a number, or [B].
            generator: of all that is random, on the source's device.
            begun: what :meth:`begin` returned for this source, to do that part only once.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no transmit")

    def forward(self, source: Tensor, snr_db: float | Tensor, generator: torch.Generator) -> Tensor:
        """Return the first user's estimate of the source; arguments as in :meth:`transmit`."""
        return each_user(self.transmit(source, snr_db, generator))[0].estimate

    def ends(self) -> dict[str, End]:
        """Return the ends by name."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules whose weights a file of this link holds, by their prefix."""
        return dict(self.ends())

    def remarks(self) -> dict[str, str]:
        """Return what rows say beside numbers, words by column."""
        return {}

    def auxiliary_loss(
        self, progress: float, sent: Transmission | tuple[Transmission, ...]
    ) -> Tensor | float:
        """Return the sum of what the ends ask of themselves in training, beside the task."""
        (only,) = each_user(sent)
        return sum(end.auxiliary_loss(progress, only) for end in self.ends().values())

    @property
    def sender(self) -> str:
        """What an error about the power sent calls the sender."""
        return type(self).__name__

    @property
    def constellation(self) -> bool:
        """Whether the power is 1 in expectation over a constellation's points, not in each item."""
        return False

    @property
    def bytes_per_pixel(self) -> float:
        """Memory that a pixel takes beside what torch sees, in bytes."""
        return 0.0


def each_user(sent: Transmission | tuple[Transmission, ...]) -> tuple[Transmission, ...]:
    """Return the transmissions of a link's users, of which most have one."""
    return sent if isinstance(sent, tuple) else (sent,)


#: norms that learn statistics by running; the common class of all of them
RUNNING_NORMS = (nn.modules.batchnorm._NormBase,)


class End(nn.Module):
    """What a link asks of either of its ends; an end overrides what is otherwise."""

    #: the arguments that weights belong to, kept with them; None where an end needs no weights
    spec: Mapping[str, Any] | None = None
    takes: ClassVar[tuple[str, ...]] = ()  #: what a link calls ``forward`` with, in order
    agreed: ClassVar[tuple[str, ...]] = ()  #: options that both ends of a codec must share
    brings_weights: bool = False  #: True where a trained network came with the arguments
    bytes_per_pixel: float = 0.0  #: memory that a pixel takes beside what torch sees
    #: submodules that belong to the task; federated training averages them among its clients only
    of_task: tuple[str, ...] = ()
    is_frozen: bool = False  #: True after ``freeze``

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse an end whose ``forward`` a link could not call."""
        super().__init_subclass__(**options)
        try:
            inspect.signature(cls.forward).bind(cls, *cls.takes)
        except TypeError as error:
            raise TypeError(
                f"{cls.__name__}.forward is called with {', '.join(cls.takes)}, got a signature "
                f"with {error}; write forward(self, {', '.join(cls.takes)}=None)"
            ) from None

    def freeze(self) -> None:
        """Let no training change this end: neither its weights nor what its norms have seen."""
        self.requires_grad_(False)
        self.is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; norms with running statistics stay in evaluation mode where frozen."""
        super().train(mode)
        for module in self.modules() if self.is_frozen else ():
            if isinstance(module, RUNNING_NORMS):
                module.eval()
        return self

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor | float:
        """Return what this end asks of itself in training, beside the task, a scalar.

        Args:
            progress: share of the training that is done, 0 to 1, for losses that come in phases.
            sent: the batch that this end handled last.
        """
        return 0.0


def option(end: End, name: str) -> Any:
    """Return an option of an end, None where it has none of this name."""
    return (end.spec or {}).get(name, getattr(end, name, None))


class Transmitter(End):
    """Source in, complex symbols of unit mean power per item out (see ``semsim.phy.power``)."""

    takes = ("source", "csi", "generator")
    uses_csi: bool = True  #: False where x depends on the source alone: a sweep then encodes once
    #: True for CSI with h as this end believes it, and n0 [B], also in front of a linear front
    #: end, and ``foreseen`` the noise behind it; without, only the noise that the front end will
    #: leave on each symbol
    sees_channel: bool = False
    constellation: bool = False  #: True where the power is 1 in expectation, not in each item
    #: the link of a transmitter that is more than one end, and then needs no receiver
    link_class: ClassVar[type[AnyLink] | None] = None

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return how many complex symbols K an item of this shape (without batch) costs."""
        raise NotImplementedError(f"{type(self).__name__} gives no num_symbols(shape)")

    def check_channel(self, state: ChannelState) -> None:
        """Refuse, by a ValueError, a channel that this end sees and cannot work with."""

    def begin(self, source: Tensor) -> Any:
        """Return what does not depend on the channel, which ``forward`` then takes as ``begun``."""
        return None

    def forward(
        self, source: Tensor, csi: CSI, generator: torch.Generator | None = None
    ) -> Tensor | WithSideInfo:
        """Return symbols [B, 1, K], complex64, mean |x|^2 = 1 per item.

        Args:
            source: [B, ...].
            csi: what this end knows of the channel.
            generator: of what this end draws, from a stream of its own; torch's where None.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no forward")


class Receiver(End):
    """Received symbols in, an estimate of the source out."""

    takes = ("y", "csi", "shape", "generator")
    reads_side_info: bool = False  #: True where ``forward`` takes ``side_info`` as well
    freezes_transmitter: bool = False  #: True where a link's training leaves the transmitter alone
    #: True where ``auxiliary_loss`` is of all items of the batch, which then come at once
    learns_whole_batches: bool = False

    def check_transmitter(self, transmitter: Transmitter) -> None:
        """Refuse, by a ValueError, a transmitter whose symbols this end would misread.

        By default that of the same codec where an option that both must share differs.
        """
        if type(transmitter).__module__ != type(self).__module__:
            return
        pairs = {name: (option(transmitter, name), option(self, name)) for name in self.agreed}
        apart = [f"{n} is {a} and {b}" for n, (a, b) in pairs.items() if a != b]
        if apart:
            raise ValueError(
                f"the two ends of one codec differ: {', '.join(apart)}; give both the same, or "
                "leave the receiver out of the scenario"
            )

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor | WithNotes:
        """Return the estimate [B, *shape].

        Args:
            y: symbols after the front end, [B, 1, K], complex, unbiased.
            csi: h None and n0 [B, 1, K], the noise left per symbol; behind ``frontend: none``
                y is [B, R, N] as received and csi holds h.
            shape: the source's shape without batch, known at both ends.
            generator: of what this end draws, from a stream of its own; torch's where None.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no forward")
