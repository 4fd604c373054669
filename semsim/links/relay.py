"""A relay between the two ends: half-duplex, two hops one after the other.

    source ─► transmitter ─► hop 1 ─► relay ─► hop 2 ─► receiver ─► estimate
                                        │
              amplify   g_k y_k: what arrives, each symbol brought to unit power
              process   g_k y_k + f(g_k y_k, noise): a small network, trained with the codec
              decode    receiver ─► transmitter: the codec itself

Source of amplify and decode: Laneman, Tse, Wornell, Cooperative diversity in wireless networks
(2004). Of process: Bian, Shao, Wu, Gündüz, Process-and-forward: deep joint source-channel coding
over cooperative relay networks (2024), whose networks are other and larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.checks import check_choice, check_range
from channels.csi import CSISource
from semsim.hop import Air, Arrival, Hop, snr_of
from semsim.link import Link
from semsim.links.codecs import check_open, check_separated, class_of
from semsim.phy.frontend import FrontEnd
from semsim.phy.power import unit_power
from semsim.types import Ledger, Receiver, Transmission, Transmitter, Turn, turns_of


@dataclass(frozen=True)
class TwoAirs(Air):
    """One draw of both hops; its own fields are those of the first."""

    onward: Air


class RelayLink(Link):
    """Send over a relay; the two hops take channel uses each, and both are charged.

    Source and relay each have a mean power of 1 per channel use. ``snr_db`` is that of the hop
    from the relay to the receiver. Behind ``amplify`` and ``process`` the receiver knows what the
    relay knows of the first hop and how far it amplifies, both for free; with perfect CSI and one
    antenna the SNR of symbol k is g1 g2 / (g1 + g2 + 1) for SNRs g1 and g2 of the hops. What
    ``csi_tx`` says of hop 2 the source knows as well as the relay.

    Args:
        transmitter, channel, receiver, csi_rx, csi_tx, frontend: as in :class:`Link`; knowledge and
            front end are of the same kind on both hops.
        relay: what the relay does: ``amplify``, ``process`` or ``decode``. Codecs with a link of
            their own, such as separate, take decode alone: the relay sends what it made of the
            image anew.
        second: the channel from relay to receiver; like ``channel``, with draws of its own, by
            default.
        first_db: SNR of the hop to the relay over ``snr_db``, in dB, from -200 to 200.
        width: units of the two hidden layers of ``process``.
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
        relay: Literal["amplify", "process", "decode"] = "amplify",
        second: Channel | None = None,
        first_db: float = 0.0,
        width: int = 32,
    ) -> None:
        ends = {"csi_rx": csi_rx, "csi_tx": csi_tx, "frontend": frontend}
        super().__init__(transmitter, channel, receiver, **ends)  # type: ignore[arg-type]
        check_range("first_db", first_db, low=-200.0, high=200.0, hint="equal hops have 0 dB")
        check_choice("relay", relay, ("amplify", "process", "decode"))
        self.relay, self.first_db = relay, first_db
        self.hops_db = (first_db, 0.0)
        self.second = Hop(channel if second is None else second, **ends)  # type: ignore[arg-type]
        if relay == "decode":
            over = (channel, self.second.channel)
            legs = (class_of(transmitter)(transmitter, c, receiver=receiver, **ends) for c in over)
            self.legs = nn.ModuleList(legs)
            return
        check_open(f"relay: {relay}", transmitter, "write relay: decode")
        if relay == "process":
            self.process = Process(width)

    def begin(self, source: Tensor) -> Any:
        """Return what the first leg shares between SNRs."""
        legs: Any = self.legs if self.relay == "decode" else None
        return super().begin(source) if legs is None else legs[0].begin(source)

    def parts(self) -> dict[str, nn.Module]:
        """Return both ends, and the relay where it has a network."""
        own = {"relay": self.process} if self.relay == "process" else {}
        return {**super().parts(), **own}

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: Any = None,
    ) -> Transmission:
        """Send one batch over both hops; arguments as in :meth:`semsim.link.Link.transmit`.

        Of a relay that decodes, all but the estimate, ``x``, the ledger and whether an item was
        ``decoded``, which then it was on both hops, is that of hop 2.
        """
        if self.relay != "decode":
            return super().transmit(source, snr_db, generator, begun)
        legs: Any = self.legs
        snr_db = snr_db if isinstance(snr_db, int | float) else snr_of(snr_db, source)
        sent = legs[0].transmit(source, snr_db + self.first_db, generator, begun)
        again = legs[1].transmit(sent.estimate, snr_db, generator)
        notes = dict(again.notes)
        if "decoded" in notes:  # hop 2 may well deliver what stands in for an item lost on hop 1
            notes["decoded"] = sent.notes["decoded"] * notes["decoded"]
        return replace(
            again,
            x=_on_air(sent.x, again.x),
            ledger=sent.ledger + again.ledger,
            turns=turns_of(sent) + turns_of(again),
            notes=notes,
        )

    def draw(self, num_symbols: int, n0: Tensor, generator: torch.Generator) -> TwoAirs:
        """Draw both hops, the first as a direct link would; ``n0`` is that of the second."""
        air = super().draw(num_symbols, n0 * 10 ** (-self.first_db / 10), generator)
        return TwoAirs(**vars(air), onward=self.second.draw(num_symbols, n0, generator))

    def carry(self, symbols: Tensor, air: Air) -> Arrival:
        """Send symbols [B, 1, K] over the relay."""
        assert isinstance(air, TwoAirs)
        there = super().carry(symbols, air)
        check_separated("a relay", there.csi)
        gain = (1 + there.csi.n0).rsqrt()
        forwarded = gain * there.received
        if self.relay == "process":
            forwarded = self.process(forwarded, gain)
        sent = unit_power(forwarded)
        heard = (forwarded != 0).any(dim=2, keepdim=True)  # else the relay has nothing to send
        before, after = (torch.where(heard, z, 1) for z in (forwarded, sent))
        scale = gain * (_norm(after) / _norm(before).clamp_min(1e-30))
        onward = self.second.carry(sent, air.onward)
        received = torch.where(heard, onward.received / scale, 0)
        noise = there.csi.n0 + torch.where(heard, onward.csi.n0 / scale.square(), 0)
        turns = (
            Turn(there.x.shape[-1], air.state),
            Turn(onward.x.shape[-1], air.onward.state),
        )
        x = _on_air(there.x, onward.x)
        return Arrival(x, received, CSI(None, noise), turns)

    def foreseen(self, air: Air) -> CSI:
        """Return the noise that both hops will leave, as far as the transmitter knows."""
        assert isinstance(air, TwoAirs)
        there, onward = super().foreseen(air).n0, self.second.foreseen(air.onward).n0
        return CSI(None, there + onward * (1 + there))

    def ledger(self, air: Air, side_info_bits: float = 0.0) -> Ledger:
        """Itemise the channel uses of both hops; side information crosses both."""
        assert isinstance(air, TwoAirs)
        onward = self.second.ledger(air.onward, side_info_bits)
        return super().ledger(air, side_info_bits) + onward


class Process(nn.Module):
    """What a relay may add to the symbols that it forwards; nothing before training.

    Args:
        width: units of the two hidden layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is 1 unit or more, got {width}")
        self.spec = {"width": width}
        last = nn.Linear(width, 2)
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last
        )

    def forward(self, symbols: Tensor, gain: Tensor) -> Tensor:
        """Return symbols [B, 1, K], complex, for such with their gain [B, 1, 1 or K]."""
        parts = torch.view_as_real(symbols)
        known = gain[..., None].expand(*parts.shape[:-1], 1)
        return symbols + torch.view_as_complex(self.layers(torch.cat([parts, known], dim=-1)))


def _norm(symbols: Tensor) -> Tensor:
    return symbols.abs().square().mean(dim=2, keepdim=True).sqrt()


def _on_air(first: Tensor, second: Tensor) -> Tensor:
    """Return what both hops send one after the other, [B, T, N1 + N2], T the larger."""
    antennas = max(first.shape[1], second.shape[1])
    both = (nn.functional.pad(x, (0, 0, 0, antennas - x.shape[1])) for x in (first, second))
    return torch.cat([*both], dim=2)
