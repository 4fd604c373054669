"""Several users on one channel at the same time, each with a codec of its own.

    source 1 ─► transmitter 1 ─► a_1 ─┐                                   ┌─► receiver 1 ─► estimate 1
    source 2 ─► transmitter 2 ─► a_2 ─┼─► channel, antenna u for user u ─►┤   separated, or cancelled
       ...                            │                                   │   one after the other
    source U ─► transmitter U ─► a_U ─┘                                   └─► receiver U ─► estimate U

Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), chapter 8 (LMMSE and
successive interference cancellation) and 6 (one antenna, users of unequal power).
"""  # noqa: E501 - the diagram

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.checks import check_choice, check_count, check_range
from channels.csi import CSISource, NoCSI, PerfectCSI
from channels.impairments import Clipping
from channels.streams import fork
from semsim.hop import Air, Hop, check_tensor, n0_of
from semsim.link import begin_at, check_ends, check_estimate, check_precision, encode_at
from semsim.links.codecs import check_open
from semsim.links.user_csi import UserCSI
from semsim.phy.frontend import IRC, LMMSE, ZF, FrontEnd, NoFrontEnd
from semsim.types import (
    AnyLink,
    End,
    Payload,
    Receiver,
    Transmission,
    Transmitter,
    WithNotes,
    each_user,
)


@dataclass(frozen=True)
class _Heard:
    """What is left of a batch at the base station.

    Args:
        y: received, less what was cancelled, [B, R, N].
        h: gain of each user, amplitude included, [B, R, U, 1 or N].
        n0: noise power, linear, [B] or [B, 1, N].
        told: average noise of each user as its transmitter knows it, linear, [B, U].
        spread: covariance of noise and interference, [B, R, R, 1 or N].
    """

    y: Tensor
    h: Tensor
    n0: Tensor
    told: Tensor
    spread: Tensor

    def of(self, items: Tensor) -> _Heard:
        """Return some items."""
        return _Heard(*(value[items] for value in vars(self).values()))


class MultipleAccessLink(AnyLink):
    """Send for several users at once, each with a codec and rows of its own.

    ``transmit`` returns one transmission per user.

    User u has transmit antenna u of the channel, unit power, and all channel uses: each row's CBR
    counts the uses that all share. ``snr_db`` is that of a user whose ``power_db`` is 0, per
    receive antenna and without the others. The base station knows the users' channels as
    ``csi_rx`` says, from pilots as strong as each user's symbols; a user knows its average SNR
    alone.

    ``detect: linear`` separates users with the front end (lmmse, irc or zf). ``detect: sic``
    decodes the user of each item with the best SINR, sends its estimate through its transmitter
    again, subtracts that and goes on, as if nothing of it were left, with the best of the others.
    Where an estimate was wrong, later receivers are told too little noise. It trains no receiver
    whose own loss is of whole batches, as that of latent_denoiser in stages 2 and 3.

    Args:
        transmitter, receiver: codec of the first user, and of all others where none is given.
        channel: with one transmit antenna per user.
        csi_rx: what the base station knows; perfect by default.
        csi_tx: must be none.
        frontend: separates the users; LMMSE by default.
        users: how many.
        power_db: received power of each user over ``snr_db``, in dB, from -200 to 200; 0 for all by
            default.
        detect: how the base station tells users apart.
        transmitters: codecs of the users from the second on.
        receivers: their other halves.
        payloads: what the users from the second on send; the first one's items, a few further on,
            by default.
    """

    amplitudes: Tensor
    transmitters: Any
    receivers: Any

    def __init__(
        self,
        transmitter: Transmitter,
        channel: Channel,
        receiver: Receiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
        users: int = 2,
        power_db: Sequence[float] = (),
        detect: Literal["linear", "sic"] = "linear",
        transmitters: Sequence[Transmitter] = (),
        receivers: Sequence[Receiver] = (),
        payloads: Sequence[Payload] = (),
    ) -> None:
        super().__init__()
        check_choice("detect", detect, ("linear", "sic"))
        self.hop = Hop(channel, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend)
        given = {"transmitters": transmitters, "receivers": receivers, "payloads": payloads}
        _check(users, channel, power_db, given)
        pairs = [(transmitter, receiver), *zip(transmitters, receivers, strict=True)]
        _check_codecs(pairs)
        for sends, reads in pairs:
            if reads is not None and reads.freezes_transmitter:
                sends.freeze()
        if not isinstance(csi_tx, NoCSI | None):
            raise ValueError("multiple_access tells users their average SNR alone; csi.tx: none")
        own = self.hop.frontend
        if not isinstance(own, LMMSE | ZF):
            raise ValueError(f"multiple_access separates by lmmse, irc or zf, not {_kind(own)}")
        power_db = tuple(power_db) or (0.0,) * users
        if not isinstance(csi_rx, PerfectCSI | None):
            self.hop.csi_rx = UserCSI(csi_rx, power_db)
        self.hop.frontend = NoFrontEnd()
        self.frontend, self.detect, self.users = own, detect, users
        self.payloads = tuple(payloads)
        pairs = pairs if transmitters else pairs * users
        self.transmitters = nn.ModuleList([t for t, _ in pairs])
        self.receivers = nn.ModuleList([r for _, r in pairs if r is not None])
        powers = torch.tensor(power_db)
        self.register_buffer("amplitudes", 10 ** (powers / 20), persistent=False)

    @property
    def constellation(self) -> bool:
        """Tell whether any user sends points of a constellation."""
        return any(t.constellation for t in self.transmitters)

    def ends(self) -> dict[str, End]:
        """Return every end once, though users may share it."""
        ends = {f"transmitter {u}": t for u, t in enumerate(self.transmitters, start=1)}
        ends |= {f"receiver {u}": r for u, r in enumerate(self.receivers, start=1)}
        return {name: end for end, name in {end: name for name, end in ends.items()}.items()}

    def auxiliary_loss(
        self, progress: float, sent: Transmission | tuple[Transmission, ...]
    ) -> Tensor | float:
        """Return the sum over the ends; those that users share handled the last of them last."""
        if self.detect == "sic":
            self._check_whole_batches()
        users = each_user(sent)
        return sum(
            end.auxiliary_loss(progress, users[int(name.split()[1]) - 1])
            for name, end in self.ends().items()
        )

    def _check_whole_batches(self) -> None:
        """Refuse a receiver with a loss of a whole batch: it saw but some items of a user last."""
        for receiver in self.receivers:
            if receiver.learns_whole_batches:
                raise ValueError(
                    f"detect: sic gives a receiver some items at a time, and {_kind(receiver)} "
                    "learns from whole batches; train it with detect: linear"
                )

    def parts(self, user: int = 0) -> dict[str, nn.Module]:
        """Return the codec of a user, counted from 0."""
        return {"transmitter": self.transmitters[user], "receiver": self.receivers[user]}

    def begin(self, source: Tensor | Sequence[Tensor]) -> Any:
        """Return what each transmitter can do before the channel."""
        sources = self._of_users(source)
        self._check_precision(sources)
        return [*map(begin_at, self.transmitters, sources)]

    def _check_precision(self, sources: Sequence[Tensor]) -> None:
        for own in sources:
            check_precision(self, own)

    def _of_users(self, source: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
        if isinstance(source, Tensor):
            return [source.roll(-user, 0) for user in range(self.users)]
        for own in source:
            check_tensor(own)
        items = [len(own) for own in source]
        if len(items) != self.users or len(set(items)) > 1:
            raise ValueError(
                f"multiple_access of {self.users} users sends as many batches of one size, got "
                f"batches of {items} items; write one [B, ...] for each user, or one for all"
            )
        return source

    def transmit(
        self,
        source: Tensor | Sequence[Tensor],
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> tuple[Transmission, ...]:
        """Send one batch of each user.

        Args:
            source: [B, ...] of each user; or one batch, which the users share shifted by one item.
            snr_db: of a user with ``power_db`` 0, in dB; a number, or [B].
            generator: draws fading, noise and whatever else is random.
            begun: what :meth:`begin` returned for this source.
        """
        sources = self._of_users(source)
        if begun is None:  # else begin has looked
            self._check_precision(sources)
            begun = [None] * self.users
        at_tx = [fork(generator, "transmitter", user) for user in range(self.users)]
        at_rx = fork(generator, "receiver")
        shapes = [tuple(source.shape[1:]) for source in sources]
        counts = [t.num_symbols(s) for t, s in zip(self.transmitters, shapes, strict=True)]
        n0 = n0_of(snr_db, sources[0])
        air = self.hop.draw(self.users * max(counts), n0, generator)
        told = air.csi_tx.n0[:, None] / self.amplitudes.square()
        knowing = [CSI(None, told[:, user]) for user in range(self.users)]
        symbols = [
            _whole(encode_at(*own))
            for own in zip(self.transmitters, sources, knowing, at_tx, begun, strict=True)
        ]
        x = torch.cat([nn.functional.pad(s, (0, air.uses - s.shape[2])) for s in symbols], dim=1)
        y = self.hop.channel(self.amplitudes[:, None] * x, air.state, n0, air.noise)
        heard, linear = self._heard(y, air, told), self.detect == "linear"
        found = self._linear(heard, shapes, at_rx) if linear else self._sic(heard, shapes, at_rx)
        ledger = self.hop.ledger(air)
        return tuple(
            Transmission(e, s, ledger, symbols=s, received=r, state=air.state, csi_rx=air.csi_rx)
            for (e, r), s in zip(found, symbols, strict=True)
        )

    def _heard(self, y: Tensor, air: Air, told: Tensor) -> _Heard:
        csi = air.csi_rx
        if csi.h is None:
            raise ValueError("multiple_access needs csi.rx that knows h, such as perfect or pilots")
        h = csi.h * self.amplitudes[:, None]
        if csi.covariance is not None:
            spread = csi.covariance
        else:
            eye = torch.eye(y.shape[1], dtype=torch.complex128, device=y.device)
            n0 = csi.n0[:, None] if csi.n0.dim() == 1 else csi.n0[:, 0]
            spread = n0[:, None, None, :] * eye[..., None]
        return _Heard(y, h, csi.n0, told, spread)

    def _linear(
        self, heard: _Heard, shapes: list[tuple[int, ...]], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Return estimate and received symbols of each user, all separated at once."""
        csi = CSI(heard.h, heard.n0, covariance=heard.spread)
        streams, after = self.frontend.combine(heard.y, csi)
        return [
            self._decode(user, streams[:, [user]], after.n0[:, [user]], shape, generator)
            for user, shape in enumerate(shapes)
        ]

    def _sic(
        self, heard: _Heard, shapes: list[tuple[int, ...]], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the same, one user after the other, always the best of those that are left."""
        found: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in shapes]
        everyone = list(range(self.users))
        for items, user, pair in self._best_first(heard, everyone, shapes, generator):
            found[user] |= {int(i): (e, r) for i, e, r in zip(items.tolist(), *pair, strict=True)}
        batch = range(len(heard.y))
        return [
            (torch.stack([f[i][0] for i in batch]), torch.stack([f[i][1] for i in batch]))
            for f in found
        ]

    def _best_first(
        self,
        heard: _Heard,
        left: list[int],
        shapes: list[tuple[int, ...]],
        generator: torch.Generator,
    ) -> Iterator[tuple[Tensor, int, tuple[Tensor, Tensor]]]:
        """Decode the users that are left; yield items, user and what was found of these."""
        streams, n0 = self._separated(heard, left)
        best = n0.mean(dim=2).argmin(dim=1)
        for place in best.unique().tolist():  # items with the same best user together
            items = (best == place).nonzero()[:, 0]
            some, user = heard.of(items), left[place]
            own = streams[items, place, None], n0[items, place, None]
            pair = self._decode(user, *own, shapes[user], generator)
            yield items, user, pair
            if others := [other for other in left if other != user]:
                rest = self._cancelled(some, user, pair[0])
                for chosen, *one in self._best_first(rest, others, shapes, generator):
                    yield items[chosen], *one

    def _separated(self, heard: _Heard, users: list[int]) -> tuple[Tensor, Tensor]:
        """Return the streams of some users, and the noise left in them beside each other."""
        csi = CSI(heard.h[:, :, users], heard.n0, covariance=heard.spread)
        streams, after = IRC().combine(heard.y, csi)
        return streams, after.n0

    def _cancelled(self, heard: _Heard, user: int, estimate: Tensor) -> _Heard:
        """Return what is left without a user, as far as its estimate is right."""
        told = CSI(None, heard.told[:, user])  # as the user has it
        again = _whole(self.transmitters[user](estimate, told))
        missing = heard.y.shape[2] - again.shape[2]
        sent = heard.h[:, :, user] * nn.functional.pad(again, (0, missing))
        return replace(heard, y=heard.y - sent)

    def _decode(
        self,
        user: int,
        streams: Tensor,
        n0: Tensor,
        shape: tuple[int, ...],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        count = self.transmitters[user].num_symbols(shape)
        received, csi = streams[..., :count], CSI(None, n0[..., :count])
        estimate = self.receivers[user](received, csi, shape, generator)
        if isinstance(estimate, WithNotes):
            name = _kind(self.receivers[user])
            raise ValueError(f"multiple_access takes estimates without notes, {name} gives notes")
        check_estimate(estimate, self.receivers[user], len(streams))
        return estimate, received


def _whole(symbols: Any) -> Tensor:
    if not isinstance(symbols, Tensor):
        raise ValueError("multiple_access carries symbols alone, and no side information")
    return symbols


def _check(
    users: int,
    channel: Channel,
    power_db: Sequence[float],
    others: dict[str, Sequence[Any]],
) -> None:
    check_count("users", users, "two or more share a channel")
    if users < 2:
        raise ValueError(f"users is 2 or more, got {users}; for one write link: direct")
    if channel.num_tx != users:
        raise ValueError(
            f"multiple_access of {users} users needs a channel of {users} transmit antennas, one "
            f"for each, got num_tx {channel.num_tx}"
        )
    stages = channel.modules() if isinstance(channel, nn.Module) else ()
    if any(isinstance(stage, Clipping) for stage in stages):
        raise ValueError(
            "multiple_access sends for several devices, and clipping saturates at the mean power "
            "of one that sends alone; leave clipping out"
        )
    counts = {name: (users - 1, values) for name, values in others.items()}
    counts["power_db"] = (users, power_db)
    for name, (wanted, given) in counts.items():
        if given and len(given) != wanted:
            raise ValueError(
                f"{name} has {len(given)} values, but {users} users need {wanted}, or none at all"
            )
    if len(others["transmitters"]) != len(others["receivers"]):
        raise ValueError("transmitters and receivers are the codecs of other users: give both")
    for power in power_db:
        check_range("power_db", power, low=-200.0, high=200.0, hint="equal users have 0 dB")


def _check_codecs(pairs: Sequence[tuple[Transmitter, Receiver | None]]) -> None:
    for transmitter, receiver in pairs:
        check_ends(transmitter, receiver)
        check_open("multiple_access", transmitter, "give users codecs with open symbols")
        if transmitter.sees_channel:
            raise ValueError(
                f"multiple_access tells users their average SNR alone, and {_kind(transmitter)} "
                "reads the channel's gains; give users codecs such as deepjscc"
            )


def _kind(part: object) -> str:
    return type(part).__name__
