"""How a channel changes while something moves: shifts, correlation over time, other times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from channels.spectrum import Clarke, Spectrum, spectrum_of
from channels.streams import fork, gains_by_use, uniform_by_use

SPEED_OF_LIGHT = 299_792_458.0  #: m/s
WAVES = 64  #: plane waves that make up a fading process


def doppler_hz(speed_mps: float, carrier_hz: float) -> float:
    """Return the largest Doppler shift: speed over wavelength, in Hz."""
    return speed_mps * carrier_hz / SPEED_OF_LIGHT


def clarke(lag_s: Tensor, doppler_hz: Tensor | float) -> Tensor:
    """Return J0(2 pi f_D t), how waves from all around remember over ``lag_s``, in s."""
    return Clarke().correlation(lag_s, doppler_hz)


@dataclass(frozen=True)
class Sight:
    """A path that does not fade: its power, its delay in s, and its Doppler shift in Hz."""

    power: float
    delay_s: float
    shift_hz: float


@dataclass(frozen=True, eq=False)
class Taps:
    """What is known of a channel in the long run: power, delay and Doppler spread of its paths.

    Args:
        powers: [L], linear; all and the line of sight's sum to 1.
        delays_s: [L].
        dopplers_hz: [L], the largest shift among the waves of a path.
        spectrum: of each path: "clarke", waves from a ring, or "flat", from a sphere.
        sight: the line of sight, where there is one.
    """

    powers: Tensor
    delays_s: Tensor
    dopplers_hz: Tensor
    spectrum: Literal["clarke", "flat"] = "clarke"
    sight: Sight | None = None

    def correlation(self, offsets_hz: Tensor, lags_s: Tensor) -> Tensor:
        """Return E[h(f + offset, t + lag) h*(f, t)], [offsets, lags], complex128.

        Args:
            offsets_hz: distances in frequency, [offsets].
            lags_s: distances in time, [lags].
        """
        offsets, lags = offsets_hz.double()[:, None], lags_s.double()[:, None]
        shifts = self.dopplers_hz.double()
        fading = spectrum_of(self.spectrum).correlation(lags, shifts)
        paths = torch.exp(-2j * math.pi * offsets * self.delays_s.double()) * self.powers
        total = paths @ fading.T.to(paths.dtype)
        if self.sight is None:
            return total
        turn = self.sight.shift_hz * lags.T - offsets * self.sight.delay_s
        return total + self.sight.power * torch.exp(2j * math.pi * turn)

    def later_than(self, seconds: float) -> float:
        """Return the share of the power that arrives later."""
        late = float(self.powers[self.delays_s > seconds].sum())
        sight = self.sight
        return late + (sight.power if sight is not None and sight.delay_s > seconds else 0.0)

    @property
    def mean_square(self) -> float:
        """Mean of (shift / largest shift)^2 over the waves of a path."""
        return spectrum_of(self.spectrum).mean_square

    @property
    def moving(self) -> bool:
        """Tell whether anything changes with time."""
        return bool(self.dopplers_hz.any()) or (self.sight is not None and self.sight.shift_hz != 0)


@dataclass(frozen=True, eq=False)
class Waves:
    """A Gaussian process over time with a given Doppler spectrum: a sum of plane waves.

        g(t) = M^(-1/2) sum over m of a[m] exp(j 2 pi f[m] t),  f[m] = f_D q((m + u) / M)

    with a[m] ~ CN(0, 1), so that g is Gaussian at any moment; q tells the shift at a share of the
    power, cos(2 pi share) for Clarke's spectrum, and u is uniform, so that the mean correlation is
    the spectrum's exactly, over any lag.

    Args:
        amplitudes: [B, R, T, K, M], complex.
        shifts_hz: [B, K, M].
    """

    amplitudes: Tensor
    shifts_hz: Tensor

    @classmethod
    def draw(
        cls,
        shape: tuple[int, int, int, int],
        doppler_hz: float,
        spectrum: Spectrum,
        generator: torch.Generator,
    ) -> Waves:
        """Draw processes of ``shape`` [B, R, T, K]; antennas share the shifts."""
        device = generator.device
        jitter = uniform_by_use(shape[:1], shape[3], fork(generator, "jitter"), torch.float64)
        a = gains_by_use((*shape[:3], WAVES), shape[3], generator).transpose(3, 4)
        wave = torch.arange(WAVES, dtype=torch.float64, device=device)
        return cls(a, doppler_hz * spectrum.shifts((wave + jitter[..., None]) / WAVES))

    def correlated(self, rx: float, tx: float) -> Waves:
        """Give neighbouring antennas a correlation, exponential with distance."""
        a = correlated(correlated(self.amplitudes, rx, dim=1), tx, dim=2)
        return Waves(a, self.shifts_hz)

    def at(self, time_s: float | Tensor) -> Tensor:
        """Return the gains [B, R, T, K] at a time, or at one for each of K, in s."""
        turns = self._turns(time_s)
        return torch.einsum("brtkm,bkm->brtk", self.amplitudes, turns) / math.sqrt(WAVES)

    def memory(self, time_s: float | Tensor) -> Tensor:
        """Return E[g(t) g*(0)] over the amplitudes, [B, K]; times as in :meth:`at`."""
        return self._turns(time_s).mean(dim=-1)

    def given(self, now: Tensor, time_s: float | Tensor) -> Tensor:
        """Return the process at another time, where it is ``now`` [B, R, T, K] at time 0.

        One process (K = 1) takes several times, [M], and gives [B, R, T, M].
        """
        memory = self.memory(time_s)[:, None, None]
        return self.at(time_s) + memory * (now - self.at(0.0))

    def _turns(self, time_s: float | Tensor) -> Tensor:
        seconds = torch.as_tensor(time_s, dtype=torch.float64, device=self.shifts_hz.device)
        phase = 2 * math.pi * self.shifts_hz * seconds.reshape(-1, 1)
        return torch.polar(torch.ones_like(phase), phase).to(self.amplitudes.dtype)


@dataclass(frozen=True, eq=False)
class Past:
    """Other times of gains that age each by itself, given what they are now.

    Args:
        now: scattered gains, [B, R, T, K].
        waves: draws their processes, the same ones each time, when somebody asks.
        spread: makes h of scattered gains and of the times in s at which they are.
    """

    now: Tensor
    waves: Callable[[], Waves]
    spread: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, times_s: Tensor) -> Tensor:
        """Return h at moments [M], in s from now; all tell of one past and one future."""
        waves, times_s = self.waves(), times_s.to(self.now.device)
        if self.now.shape[-1] == 1:
            gains = waves.given(self.now, times_s)[..., None]
        else:
            gains = torch.stack([waves.given(self.now, time_s) for time_s in times_s], dim=3)
        return self.spread(gains, times_s[:, None])


@dataclass(frozen=True, eq=False)
class Stretch:
    """An item that lasts: its gains are moments of one process, now and at other times.

    Args:
        waves: the process, [B, R, T, 1].
        times_s: [K], in s.
        spread: as in :class:`Past`.
    """

    waves: Waves
    times_s: Tensor
    spread: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, times_s: Tensor) -> Tensor:
        """Return h at moments [M], in s from now."""
        times_s = times_s.to(self.times_s.device)[:, None]
        gains = self.waves.at((self.times_s + times_s).flatten())
        return self.spread(gains.unflatten(-1, (len(times_s), -1)), times_s)


def correlated(a: Tensor, correlation: float, *, dim: int) -> Tensor:
    """Give neighbours along ``dim`` of white ``a`` a correlation, exponential with distance."""
    if not correlation or a.shape[dim] == 1:
        return a
    place = torch.arange(a.shape[dim], dtype=torch.float64)
    root = torch.linalg.cholesky(correlation ** (place[:, None] - place).abs())
    return torch.tensordot(root.to(a), a, dims=([1], [dim])).movedim(0, dim)
