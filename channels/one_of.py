"""One of several channels, drawn anew for each batch: to train over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import Channel, ChannelState, acts_on_samples
from channels.checks import check_range
from channels.fading import Rayleigh
from channels.streams import forks
from channels.waveform import Waveform


@dataclass(frozen=True)
class ChosenState(ChannelState):
    """A realisation of one of several channels.

    Args:
        chosen: its place among them.
    """

    chosen: int = 0


class OneOf(nn.Module):
    """Send each batch through one of several channels: all items of a batch meet the same kind.

    A receiver is told what the drawn channel tells it, and not which one it was. To train over:
    ``check`` and ``run`` refuse to measure over it, as rows would depend on ``batch_size``.

    Args:
        channels: to draw from, with equal numbers of antennas.
        weights: how often each is drawn, relative to the others; equally often where left out.
    """

    only_gain = False
    only_training = True

    def __init__(self, channels: list[Channel], weights: list[float] | None = None) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels is empty; name one or more, such as {kind: awgn}")
        for channel in channels:
            if isinstance(channel, OneOf | Waveform):
                raise ValueError(
                    f"channels holds {type(channel).__name__}, which cannot be one of several; "
                    "write its own channels here, or train over it alone"
                )
        antennas = [(channel.num_tx, channel.num_rx) for channel in channels]
        if len({*antennas}) > 1:
            raise ValueError(
                f"channels have antennas {', '.join(f'{t} x {r}' for t, r in antennas)} "
                "(transmit x receive); give all of them as many"
            )
        weights = [1.0] * len(channels) if weights is None else [float(w) for w in weights]
        if len(weights) != len(channels):
            raise ValueError(
                f"weights has {len(weights)} numbers for {len(channels)} channels; give one each"
            )
        for weight in weights:
            check_range("weights", weight, low=0.0, high=1e9, hint="twice as often is 2")
        if sum(weights) == 0:
            raise ValueError("weights are all 0; one of them must be more than 0")
        self.channels = nn.ModuleList(cast(list[nn.Module], channels))
        self.weights = weights
        self.num_tx, self.num_rx = antennas[0]
        self.acts_on = "samples" if any(map(acts_on_samples, channels)) else "uses"

    @classmethod
    def example(cls) -> OneOf:
        """Return one for tests of all channels."""
        return cls([AWGN(), Rayleigh()], [1, 3])

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChosenState:
        """Draw which channel it is, and a realisation of it."""
        (own,) = forks(generator, "one of")
        place = torch.rand((), generator=own, device=own.device, dtype=torch.float64)
        edges = torch.tensor(self.weights, dtype=torch.float64).cumsum(0)
        chosen = int((float(place) * edges[-1] >= edges).sum())
        state = self._of(chosen).draw(batch, uses, generator)
        values = {field.name: getattr(state, field.name) for field in fields(ChannelState)}
        return ChosenState(**values, chosen=chosen)

    def in_turn(self) -> Iterator[None]:
        """Draw nothing but one channel while this stands at it, for each that may be drawn."""
        weights = self.weights
        try:
            for place, weight in enumerate(weights):
                if weight:
                    self.weights = [float(other == place) for other in range(len(weights))]
                    yield
        finally:
            self.weights = weights

    def _of(self, chosen: int) -> Channel:
        return cast(Channel, self.channels.get_submodule(str(chosen)))

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N] through the channel that was drawn, receive y [B, R, N]."""
        channel = self._of(cast(ChosenState, state).chosen)
        return channel(x, state, n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"weights={self.weights}"
