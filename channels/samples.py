"""States of a channel that acts on samples of an OFDM signal: which stretch of them is which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from channels.base import ChannelState
from channels.signal import OFDMSignal
from channels.tr38901 import Impulse

LOOKS = 8  #: at the paths per OFDM symbol; between them gains go on in straight lines


@dataclass(frozen=True, kw_only=True)
class _InSamples(ChannelState):
    """What both have.

    Args:
        signal: in which the samples are.
    """

    signal: OFDMSignal

    def _gains_of_stages(self, times_s: Tensor) -> Tensor:
        return torch.stack([self._later(time_s).h for time_s in times_s.tolist()], dim=3)


@dataclass(frozen=True, kw_only=True)
class PathState(_InSamples):
    """A grid channel's state with its paths, which samples meet.

    Args:
        impulse: looks at the paths, ``LOOKS`` per OFDM symbol and one more.
        element_gains: returns h of so many uses from such looks.
        replay: looks at them so many s later; None where they stand still.
    """

    impulse: Impulse
    element_gains: Callable[[Impulse, int], Tensor]
    replay: Callable[[float], Impulse] | None

    @property
    def moves(self) -> bool:
        """Tell whether the channel is another one at other times."""
        return self.replay is not None

    def _later(self, later_s: float) -> ChannelState:
        if later_s == 0 or self.replay is None:
            return self
        replay, impulse = self.replay, self.replay(later_s)
        return replace(
            self,
            h=self.element_gains(impulse, self.uses),
            impulse=impulse,
            replay=lambda still_later_s: replay(later_s + still_later_s),
        )

    def _cut(self, start: int, stop: int) -> PathState:
        replay = self.replay
        first, last = start // self.signal.subcarriers, self.signal.symbols(stop)

        def of(impulse: Impulse) -> Impulse:
            return replace(impulse, gains=impulse.gains[..., first * LOOKS : last * LOOKS + 1])

        part = super()._cut(start, stop)
        assert isinstance(part, PathState)  # for mypy: replace keeps the class
        whole = replay and (lambda later_s: of(replay(later_s)))
        return replace(part, impulse=of(self.impulse), replay=whole)


@dataclass(frozen=True, kw_only=True)
class SampleState(_InSamples):
    """A waveform's state, whose stages count samples; a stretch of it hears no echo from before.

    Args:
        joined: returns what ``join`` does, for so many uses.
    """

    joined: Callable[[int, tuple[ChannelState, ...]], tuple[Tensor, None]]

    @property
    def symbol_uses(self) -> int:
        """Uses that are sent together: the subcarriers of an OFDM symbol."""
        return self.signal.subcarriers

    def _cut(self, start: int, stop: int) -> ChannelState:
        return replace(super()._cut(start, stop), join=partial(self.joined, stop - start))

    def _cut_stages(self, start: int, stop: int) -> tuple[ChannelState, ...]:
        first = start // self.signal.subcarriers * self.signal.length
        last = self.signal.symbols(stop) * self.signal.length
        return tuple(
            stage._cut(*((start, stop) if isinstance(stage, PathState) else (first, last)))
            for stage in self.stages
        )
