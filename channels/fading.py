"""Flat fading: Rayleigh and Rician, one antenna to many, constant over ``coherence`` uses.

All gains have E|h[r, t]|^2 = 1 in expectation and are never normalised per draw: a deep fade stays
a deep fade, also at batch 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from channels.base import ChannelState
from channels.checks import check_count, check_draw, check_positive, check_range
from channels.doppler import Past, Stretch, Waves, correlated, doppler_hz
from channels.gain import GainChannel
from channels.spectrum import Written, spectrum_of
from channels.streams import beside, gains_by_use
from channels.units import db_to_linear

Coherence = Literal["block", "symbol"] | int


@dataclass(eq=False, repr=False, kw_only=True)
class _Scattered(GainChannel):
    """Scattered waves at antennas, and how they change; what Rayleigh and Rician fading share."""

    num_tx: int = 1
    num_rx: int = 1
    coherence: Coherence = "block"
    tx_correlation: float = 0.0
    rx_correlation: float = 0.0
    speed_mps: float = 0.0
    carrier_hz: float = 3.5e9
    symbol_rate_hz: float | None = None
    spectrum: Written = "clarke"

    def __post_init__(self) -> None:
        super().__init__()
        check_count("num_tx", self.num_tx, "one transmit antenna is num_tx: 1")
        check_count("num_rx", self.num_rx, "one receive antenna is num_rx: 1")
        _check_coherence(self.coherence)
        _check_correlation("tx_correlation", self.tx_correlation)
        _check_correlation("rx_correlation", self.rx_correlation)
        check_motion(self.speed_mps, self.carrier_hz)
        _check_rate(self.symbol_rate_hz, self.speed_mps, self.coherence)
        self._spectrum = spectrum_of(self.spectrum)

    @property
    def doppler_hz(self) -> float:
        """Largest Doppler shift, speed over wavelength."""
        return doppler_hz(self.speed_mps, self.carrier_hz)

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw h [B, R, T, 1], or [B, R, T, N] where it changes within the item."""
        check_draw(batch, uses)
        coherence = _coherent_uses(self.coherence, uses)
        blocks = -(-uses // coherence)
        spread = partial(self._spread, uses=uses, coherence=coherence)
        if self.doppler_hz == 0:
            return ChannelState(spread(self._scattered(batch, blocks, generator)), coherence)
        if self.symbol_rate_hz is not None:
            times = self._block_times(blocks, coherence).to(generator.device)
            stretch = Stretch(self._waves(batch, 1, generator), times, spread)
            now = stretch(torch.zeros(1, dtype=torch.float64))[:, :, :, 0]
            return ChannelState(now, coherence, motion=stretch)
        waves = partial(self._waves_from, generator.get_state(), batch, blocks, generator.device)
        now = self._scattered(batch, blocks, generator)
        return ChannelState(spread(now), coherence, motion=Past(now, waves, spread))

    def _spread(
        self, scattered: Tensor, times_s: Tensor | float = 0.0, *, uses: int, coherence: int
    ) -> Tensor:
        """Return the gain of each use from that of each block; for [..., M, blocks], [M, 1]."""
        within = self._block_times(scattered.shape[-1], coherence).to(scattered.device)
        h = self._with_sight(scattered, within + times_s)
        if h.shape[-1] == 1 or coherence == 1:
            return h
        return h.repeat_interleave(coherence, dim=-1)[..., :uses]

    def _with_sight(self, scattered: Tensor, time_s: Tensor) -> Tensor:
        """Return gains of scattered ones at ``time_s`` [blocks] or [M, blocks], in s."""
        return scattered

    def _block_times(self, blocks: int, coherence: int) -> Tensor:
        period = coherence / self.symbol_rate_hz if self.symbol_rate_hz else 0.0
        return period * torch.arange(blocks, dtype=torch.float64)

    def _waves(self, batch: int, blocks: int, generator: torch.Generator) -> Waves:
        """Draw scattered gains as processes over time."""
        shape = (batch, self.num_rx, self.num_tx, blocks)
        waves = Waves.draw(shape, self.doppler_hz, self._spectrum, generator)
        return waves.correlated(self.rx_correlation, self.tx_correlation)

    def _waves_from(self, seed: Tensor, batch: int, blocks: int, device: torch.device) -> Waves:
        return self._waves(batch, blocks, beside(seed, device, "past"))

    def _scattered(self, batch: int, blocks: int, generator: torch.Generator) -> Tensor:
        """Draw gains [B, R, T, blocks]."""
        white = gains_by_use((batch, self.num_rx, self.num_tx), blocks, generator)
        return correlated(correlated(white, self.rx_correlation, dim=1), self.tx_correlation, dim=2)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        names = ["num_tx", "num_rx", "coherence"]
        if self.tx_correlation or self.rx_correlation:
            names += ["tx_correlation", "rx_correlation"]
        if self.speed_mps:
            names += ["speed_mps", "carrier_hz", "symbol_rate_hz", "spectrum"]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


@dataclass(eq=False, repr=False)
class Rayleigh(_Scattered):
    """Rich scattering without line of sight: y = Hx + n, h[r, t] ~ CN(0, 1).

    With correlation, H = R_rx^(1/2) W R_tx^(1/2), W white and R[i, j] = correlation^|i - j| (the
    exponential Kronecker model). Block k of an item has the same gain however long the item is.

    While the user moves, gains t apart are correlated as the Doppler spectrum says, J0(2 pi f_D t)
    for Clarke's, f_D = speed / wavelength: ``state.during`` tells them. Blocks of an item fade
    independently, as if interleaved or on other carriers, unless ``symbol_rate_hz`` makes them one
    stretch of time.

    Args:
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
        coherence: uses over which a gain stays; "block" for the whole item, "symbol" for one use.
        tx_correlation: correlation of neighbouring transmit antennas, 0 to below 1.
        rx_correlation: correlation of neighbouring receive antennas, 0 to below 1.
        speed_mps: speed of the user, in m/s.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        symbol_rate_hz: channel uses per second, where the blocks follow one another in time.
        spectrum: of the scattered waves: "clarke" (Jakes), from a ring; "flat", from a sphere;
            "gaussian"; or measured pairs [shift / f_D, density], straight between.

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), sections 2.4 and 7.3.
    """

    num_tx: int = field(default=1, kw_only=False)
    num_rx: int = field(default=1, kw_only=False)


@dataclass(eq=False, repr=False)
class Rician(_Scattered):
    """Scattering around a line of sight: H = sqrt(K / (K + 1)) L + sqrt(1 / (K + 1)) H_scattered.

    L is all ones: both arrays face each other broadside, so the line of sight has rank one, phase
    zero and does not fade. At K -> inf one antenna gives AWGN; at K -> 0 all is Rayleigh.
    Correlation and Doppler spectrum are those of the scattered part alone. The line of sight has
    one Doppler shift, f_D cos(los_angle_deg): with the default it keeps its phase.

    Args:
        k_db: power of the line of sight over the scattered power, in dB; .inf leaves no scattering.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
        coherence: uses over which a gain stays; "block" for the whole item, "symbol" for one use.
        tx_correlation: correlation of neighbouring transmit antennas, 0 to below 1.
        rx_correlation: correlation of neighbouring receive antennas, 0 to below 1.
        speed_mps: speed of the user, in m/s.
        carrier_hz: carrier frequency, 0.5 to 100 GHz.
        symbol_rate_hz: channel uses per second, where the blocks follow one another in time.
        spectrum: of the scattered waves, as in :class:`Rayleigh`.
        los_angle_deg: angle between motion and line of sight, in degrees; 0 moves towards it.

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), section 2.4.2.
    """

    k_db: float
    los_angle_deg: float = field(default=90.0, kw_only=True)

    def __post_init__(self) -> None:
        if not (isinstance(self.k_db, float) and math.isinf(self.k_db)):
            check_range("k_db", self.k_db, low=-300.0, high=300.0, hint="no scattering is .inf")
        super().__post_init__()
        check_range("los_angle_deg", self.los_angle_deg, low=0.0, high=180.0, hint="across is 90.0")

    def _with_sight(self, scattered: Tensor, time_s: Tensor) -> Tensor:
        scatter_power = 1 / (1 + db_to_linear(self.k_db))  # 1 / (K + 1), also at K = inf
        sight = math.sqrt(1 - scatter_power)
        cosine = 0.0 if self.los_angle_deg == 90 else math.cos(math.radians(self.los_angle_deg))
        if not self.doppler_hz * cosine:
            return sight + math.sqrt(scatter_power) * scattered
        phase = 2 * math.pi * self.doppler_hz * cosine * time_s
        turn = torch.polar(torch.full_like(phase, sight), phase).to(scattered.dtype)
        return turn + math.sqrt(scatter_power) * scattered

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        text = f"k_db={float(self.k_db)}, {super().extra_repr()}"
        return f"{text}, los_angle_deg={self.los_angle_deg}" if self.speed_mps else text


def _coherent_uses(coherence: Coherence, uses: int) -> int:
    if coherence == "block":
        return uses
    return 1 if coherence == "symbol" else min(int(coherence), uses)


def _check_coherence(coherence: Coherence) -> None:
    if coherence in ("block", "symbol"):
        return
    if isinstance(coherence, bool) or not isinstance(coherence, int) or coherence < 1:
        raise ValueError(
            "coherence is 'block' (one gain per item), 'symbol' (one per use) or a whole number of "
            f"uses, got {coherence!r}"
        )


def check_motion(speed_mps: float, carrier_hz: float) -> None:
    """Raise ValueError unless this is a speed in m/s and a carrier in Hz."""
    fast = "a car does 14 m/s in town; a standing user has 0.0"
    check_range("speed_mps", speed_mps, low=0.0, high=3e3, hint=fast)
    check_range("carrier_hz", carrier_hz, low=5e8, high=1e11, hint="5G's middle band is 3.5e9")


def _check_rate(symbol_rate_hz: float | None, speed_mps: float, coherence: Coherence) -> None:
    if symbol_rate_hz is None:
        return
    check_positive("symbol_rate_hz", symbol_rate_hz, "one use per microsecond is 1e6")
    if speed_mps == 0 or coherence == "block":
        raise ValueError(
            f"symbol_rate_hz={symbol_rate_hz} says how fast blocks of an item follow one another "
            f"while the user moves, got speed_mps={speed_mps} and coherence={coherence!r}; set "
            "speed_mps above 0 and coherence to 'symbol' or a number of uses, or leave it out"
        )


def _check_correlation(name: str, value: float) -> None:
    hint = "antennas without correlation have 0.0"
    check_range(name, value, low=0.0, high=1.0, hint=hint)
    if value == 1:
        raise ValueError(f"{name} stays below 1, got {value}; {hint}, nearly equal ones 0.999")
