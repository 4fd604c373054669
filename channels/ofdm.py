"""Frequency-selective fading of TR 38.901 through an OFDM grid: TDL, CDL, UMi, UMa.

An item's N uses fill the grid subcarrier by subcarrier, then OFDM symbol by OFDM symbol, over as
many slots as it takes:

    use n ──► subcarrier n mod F, OFDM symbol n div F          h[r, t, n] = H_rt(f, time)

This is a model per resource element: each sees one complex gain, that of the channel at the start
of its OFDM symbol. It leaves out what the true signal in time meets: subcarriers that disturb each
other while the user moves (-36 dB at 30 m/s, -23 dB at 139 m/s, 3.5 GHz and 30 kHz), and echoes
that arrive after the cyclic prefix, of which a draw warns. ``channels.waveform`` has both.

Symbols last 15/14 of 1 / spacing, the mean of 5G's normal cyclic prefix. E|h[r, t, n]|^2 = 1 over
draws, never per draw. Sionna's models give the impulse responses (TR 38.901 v19.2).

``ChannelState.coherence`` says over how many neighbouring subcarriers gains stay correlated by
0.9, a divisor of F; ``ChannelState.grid`` says what is known of the channel in the long run. Where
the user moves, ``ChannelState.during`` tells the same realisation at other times.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from channels import tr38901
from channels.base import ChannelState
from channels.checks import check_choice, check_count, check_draw, check_positive
from channels.doppler import Taps
from channels.fading import check_motion
from channels.gain import GainChannel
from channels.grid import ResourceGrid
from channels.signal import OFDMSignal
from channels.tr38901 import DelayProfile, Grid, Impulse, Moments, Motion

Model = Literal["A", "B", "C", "D", "E"]
MOST_SPREAD_S = 1e-3  #: of a DelayProfile; hills send echoes of some microseconds
_UNHEARD = 1e-3  # share of late echoes of which nobody is warned


@dataclass(eq=False, repr=False, kw_only=True)
class GridChannel(GainChannel):
    """An OFDM grid over a model that a subclass names: implement ``impulse``.

    Args:
        speed_mps: speed of the user, in m/s; the Doppler shift is speed / c * carrier.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        subcarriers: F, subcarriers of the grid.
        subcarrier_spacing_hz: distance of the subcarriers.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
    """

    speed_mps: float = 0.0
    carrier_hz: float = 3.5e9
    subcarriers: int = 48
    subcarrier_spacing_hz: float = 30e3
    drawn_by_sionna = True  #: another version of Sionna may draw others
    num_tx: int = 1
    num_rx: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        check_motion(self.speed_mps, self.carrier_hz)
        check_count("subcarriers", self.subcarriers, "four resource blocks have 48")
        spacing = self.subcarrier_spacing_hz
        check_positive("subcarrier_spacing_hz", spacing, "5G has 15e3, 30e3 or 60e3")
        check_count("num_tx", self.num_tx, "one transmit antenna is num_tx: 1")
        check_count("num_rx", self.num_rx, "one receive antenna is num_rx: 1")
        self.grid = Grid(
            self.subcarriers,
            float(spacing),
            float(self.carrier_hz),
            float(self.speed_mps),
            self.num_tx,
            self.num_rx,
        )

    def impulse(self, batch: int, moments: Moments, generator: torch.Generator) -> Impulse:
        """Draw impulse responses, looked at at these moments."""
        raise NotImplementedError

    def _taps(self) -> Taps:
        """Return the model's long-term statistics."""
        raise NotImplementedError

    @cached_property
    def signal(self) -> OFDMSignal:
        """What a grid of symbols is in time."""
        return OFDMSignal(self.grid.subcarriers, self.grid.subcarrier_spacing_hz)

    @cached_property
    def resources(self) -> ResourceGrid:
        """The grid, and what is known of the channel in the long run."""
        grid = self.grid
        return ResourceGrid(
            grid.subcarriers, grid.subcarrier_spacing_hz, grid.symbol_rate_hz, self._taps()
        )

    @cached_property
    def _late(self) -> float:
        """The share of the power that arrives after the prefix; said once where it matters."""
        late = self.resources.taps.later_than(self.signal.prefix_s)
        if late > _UNHEARD:
            warnings.warn(
                f"{100 * late:.2g} % of the power of this {type(self).__name__} arrives after the "
                f"cyclic prefix of {1e6 * self.signal.prefix_s:.3g} us, which a model per resource "
                "element leaves out; use channel kind waveform, a shorter delay spread, or a "
                "narrower subcarrier_spacing_hz",
                stacklevel=3,
            )
        return late

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw h [B, R, T, N], one gain per resource element."""
        check_draw(batch, uses)
        _ = self._late
        coherence = min(self.resources.flat_subcarriers, uses)
        if self.grid.speed_mps == 0:  # nothing moves: one OFDM symbol tells all
            symbols = -(-uses // self.grid.subcarriers)
            now = self.impulse(batch, Moments(1, self.grid.symbol_rate_hz), generator)
            h = now.response(self.grid).expand(-1, -1, -1, symbols, -1)
            state = ChannelState(h.flatten(-2)[..., :uses], coherence, grid=self.resources)
            return replace(state, waveform=self.signal.modulate)
        replay = _Replay(self, batch, uses, generator.get_state(), generator.device)
        h = replay.gains(generator, None)[:, :, :, 0]
        state = ChannelState(h, coherence, motion=replay, grid=self.resources)
        return replace(state, waveform=self.signal.modulate)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return ", ".join(f"{name}={value}" for name, value in vars(self.grid).items())


@dataclass(frozen=True, eq=False)
class _Replay:
    """Tell a realisation once more, from the state its generator had."""

    channel: GridChannel
    batch: int
    uses: int
    seed: Tensor
    device: torch.device

    def gains(self, generator: torch.Generator, times_s: Tensor | None) -> Tensor:
        grid = self.channel.grid
        symbols = -(-self.uses // grid.subcarriers)
        moments = Moments(symbols, grid.symbol_rate_hz, times_s)
        h = self.channel.impulse(self.batch, moments, generator).response(grid)
        return h.unflatten(3, (-1, symbols)).flatten(-2)[..., : self.uses]

    def __call__(self, times_s: Tensor) -> Tensor:
        generator = torch.Generator(self.device)
        generator.set_state(self.seed)
        return self.gains(generator, times_s)


@dataclass(eq=False, repr=False)
class _Profiled(GridChannel):
    """A grid over a delay profile of TR 38.901."""

    model: Model = "A"
    delay_spread_s: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("delay_spread_s", self.delay_spread_s, "100 ns is 1e-7")
        if self.delay_spread_s > MOST_SPREAD_S:
            raise ValueError(
                f"delay_spread_s is in seconds, at most {MOST_SPREAD_S:g}, got "
                f"{self.delay_spread_s:g}; 100 ns is 1e-7"
            )
        check_choice("model", self.model, ("A", "B", "C", "D", "E"))
        self.profile = DelayProfile(self.model, float(self.delay_spread_s))

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        profile = f"model={self.model!r}, delay_spread_s={self.profile.delay_spread_s}"
        return f"{profile}, {super().extra_repr()}"


class TDL(_Profiled):
    """Tapped delay line of TR 38.901: A, B, C without line of sight, D, E with.

    Antennas fade independently; the power of the taps sums to 1. In D and E the line of sight has
    the same phase at all antennas, as in :class:`channels.fading.Rician`. Sionna sums 20 sinusoids
    per tap, so that a tap's gain is Gaussian only nearly.

    Args:
        model: the power delay profile.
        delay_spread_s: RMS delay spread, in s.
        speed_mps: speed of the user, in m/s; the Doppler shift is speed / c * carrier.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        subcarriers: F, subcarriers of the grid.
        subcarrier_spacing_hz: distance of the subcarriers.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.

    Source: 3GPP TR 38.901, section 7.7.2.
    """

    def impulse(self, batch: int, moments: Moments, generator: torch.Generator) -> Impulse:
        """Draw impulse responses, looked at at these moments."""
        return tr38901.tdl_impulse(self.profile, self.grid, batch, moments, generator)

    def _taps(self) -> Taps:
        return tr38901.tdl_taps(self.profile, self.grid)


@dataclass(eq=False, repr=False)
class CDL(_Profiled):
    """Clustered delay line of TR 38.901: antennas see the same clusters from their places.

    A base station of ``num_tx`` antennas sends to a user of ``num_rx``; both are horizontal lines
    of upright omnidirectional elements half a wavelength apart, so that each antenna pair has
    E|h|^2 = 1 and neighbours are correlated as the cluster angles say.

    Args:
        model: A, B, C without line of sight; D, E with.
        delay_spread_s: RMS delay spread, in s.
        speed_mps: speed of the user, in m/s, in a direction drawn per item.
        motion: "horizontal", or "3d" for directions from a sphere.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        subcarriers: F, subcarriers of the grid.
        subcarrier_spacing_hz: distance of the subcarriers.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.

    Source: 3GPP TR 38.901, section 7.7.1.
    """

    motion: Motion = field(default="horizontal", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("motion", self.motion, ("horizontal", "3d"))

    def impulse(self, batch: int, moments: Moments, generator: torch.Generator) -> Impulse:
        """Draw impulse responses, looked at at these moments."""
        return tr38901.cdl_impulse(self.profile, self.grid, batch, moments, generator, self.motion)

    def _taps(self) -> Taps:
        return tr38901.cdl_taps(self.profile, self.grid, self.motion)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"{super().extra_repr()}, motion={self.motion!r}"


@dataclass(eq=False, repr=False)
class UMi(GridChannel):
    """Urban microcell, street canyon: each item is another user dropped into the sector.

    Line of sight, indoor or outdoor, delay and angle spreads are drawn per item as TR 38.901 says.
    Path loss and shadow fading are off, ``snr_db`` says what arrives on average, and the cluster
    powers sum to 1 but for the weakest that the standard drops (0.02 % on average), so E|h|^2 = 1
    without a constant. Arrays as in :class:`CDL`, at the base station without downtilt.

    Args:
        speed_mps: speed of the user, in m/s, in a direction drawn per item.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        subcarriers: F, subcarriers of the grid.
        subcarrier_spacing_hz: distance of the subcarriers.
        num_tx: transmit antennas T, at the base station.
        num_rx: receive antennas R, at the user.

    Source: 3GPP TR 38.901, sections 7.2 and 7.5.
    """

    _scenario: ClassVar[Literal["umi", "uma"]] = "umi"

    speed_mps: float = field(default=0.0, kw_only=False)
    carrier_hz: float = field(default=3.5e9, kw_only=False)

    def impulse(self, batch: int, moments: Moments, generator: torch.Generator) -> Impulse:
        """Draw impulse responses, looked at at these moments."""
        return tr38901.urban_impulse(self._scenario, self.grid, batch, moments, generator)

    def _taps(self) -> Taps:
        return tr38901.urban_taps(self._scenario, self.grid)


class UMa(UMi):
    """Urban macrocell: as the microcell (umi), from a base station above the roofs."""

    _scenario: ClassVar[Literal["umi", "uma"]] = "uma"
