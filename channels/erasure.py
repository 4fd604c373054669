"""Packets that are lost whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import Channel, ChannelState
from channels.checks import check_count, check_range
from channels.gain import common_coherence
from channels.streams import beside, forks, uniform_by_use


class Erasure(nn.Module):
    """Lose packets of channel uses whole, each with the same probability.

        x ──► channel ──► · e ──► y        e = 0 for all uses of a lost packet, 1 otherwise

    A lost packet arrives as exact zeros, without noise, and the receiver knows which one it was:
    h is 0 there. SNR and E|h|^2 = 1 are those of the packets that arrive.

    Args:
        rate: probability that a packet is lost, 0 to 1.
        packet_uses: channel uses of a packet; the last one of an item may be shorter.
        channel: what the packets travel through; AWGN where left out.
    """

    def __init__(
        self, rate: float, packet_uses: int = 64, *, channel: Channel | None = None
    ) -> None:
        super().__init__()
        check_range("rate", rate, low=0.0, high=1.0, hint="one packet in ten is 0.1")
        check_count("packet_uses", packet_uses, "single uses are packet_uses: 1")
        self.rate = float(rate)
        self.packet_uses = packet_uses
        self.channel = channel if channel is not None else AWGN()
        self.num_tx = self.channel.num_tx
        self.num_rx = self.channel.num_rx

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw the channel beneath and which packets arrive; h [B, R, T, N]."""
        (losses,) = forks(generator, "losses")
        inner = self.channel.draw(batch, uses, generator)
        seed = losses.get_state()
        now = self._arrivals(batch, uses, losses)
        others = _Losses(self, now, seed, generator.device)
        packet = ChannelState(now, min(self.packet_uses, uses), motion=others)
        return ChannelState(
            h=_arrived((inner, packet))[0],
            coherence=common_coherence(uses, inner.coherence, packet.coherence),
            interference=inner.interference,
            stages=(inner, packet),
            join=_arrived,
            correlation=inner.correlation,
            covariance=inner.covariance,
            waveform=inner.waveform,
        )

    def _arrivals(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        """Draw 1 for the uses of packets that arrive and 0 for those of lost ones, [B, 1, 1, N]."""
        packets = -(-uses // self.packet_uses)
        draws = uniform_by_use((batch,), packets, generator)
        arrives = (draws >= self.rate).repeat_interleave(self.packet_uses, dim=1)[:, None, None]
        return arrives[..., :uses].to(torch.complex64)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        inner, packet = state.stages
        y = self.channel(x, inner, n0, generator)
        return y * packet.h[:, 0].real.to(y.real.dtype)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"rate={self.rate}, packet_uses={self.packet_uses}"


@dataclass(frozen=True, eq=False)
class _Losses:
    """Which packets arrive at other times: others, for losses have no memory."""

    channel: Erasure
    now: Tensor
    seed: Tensor
    device: torch.device

    def __call__(self, times_s: Tensor) -> Tensor:
        return torch.stack([self._at(time_s) for time_s in times_s.tolist()], dim=3)

    def _at(self, time_s: float) -> Tensor:
        if time_s == 0:
            return self.now
        generator = beside(self.seed, self.device, "losses", -time_s)
        return self.channel._arrivals(len(self.now), self.now.shape[-1], generator)


def _arrived(stages: tuple[ChannelState, ...]) -> tuple[Tensor, Tensor | None]:
    inner, packet = stages
    return inner.h * packet.h, inner.covariance
