"""The models of TR 38.901 behind Sionna's door: responses on an OFDM grid, now and earlier.

A realisation is told at other moments by drawing it once more from the same state of the generator:
Sionna's draws do not depend on the moments at which they are looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from channels.doppler import Sight, Taps, doppler_hz
from channels.sionna_bridge import device_key, drawing_from, sionna_phy

Motion = Literal["horizontal", "3d"]
Scenario = Literal["umi", "uma"]

_DROPS = 500  # over which the urban models' statistics are taken


@dataclass(frozen=True)
class Grid:
    """An OFDM grid and what moves through it: F subcarriers, R and T antennas."""

    subcarriers: int
    subcarrier_spacing_hz: float
    carrier_hz: float
    speed_mps: float
    num_tx: int
    num_rx: int

    @property
    def symbol_rate_hz(self) -> float:
        """OFDM symbols per second with 5G's normal cyclic prefix: 14 in a slot of 15 / spacing."""
        return self.subcarrier_spacing_hz * 14 / 15

    @property
    def doppler_hz(self) -> float:
        """Largest Doppler shift, speed over wavelength."""
        return doppler_hz(self.speed_mps, self.carrier_hz)


@dataclass(frozen=True)
class DelayProfile:
    """Which TR 38.901 profile, A to E, stretched to which RMS delay spread."""

    model: str
    delay_spread_s: float


@dataclass(frozen=True, eq=False)
class Moments:
    """When to look at a realisation: so many times in a row, from now or from each of ``times_s``.

    Args:
        count: of looks in a row.
        rate_hz: of looks.
        times_s: when rows begin, [M], in s from now; now where None.
    """

    count: int
    rate_hz: float
    times_s: Tensor | None = None

    @property
    def looks(self) -> int:
        """How many there are, over all rows."""
        return self.count if self.times_s is None else self.count * len(self.times_s)

    def sampling(self, device: torch.device) -> tuple[int, float | Tensor]:
        """Return Sionna's number of time steps and sampling rate, a step more where not from now.

        Sionna looks at step / rate, from 0 on. A rate per step reaches any moment but step 0's.
        """
        if self.times_s is None:
            return self.count, self.rate_hz
        row = torch.arange(self.count, dtype=torch.float64, device=device) / self.rate_hz
        seconds = (row + self.times_s.to(device)[:, None]).flatten()
        step = torch.arange(1, self.looks + 1, dtype=torch.float64, device=device)
        rate = torch.cat([step.new_ones(1), step / seconds])  # inf where the moment is 0
        return self.looks + 1, rate.float()


@dataclass(frozen=True, eq=False)
class Impulse:
    """A realisation of an impulse response.

    Args:
        gains: of each path at each moment, [B, R, T, P, moments], complex64.
        delays_s: [B, P].
    """

    gains: Tensor
    delays_s: Tensor

    def response(self, grid: Grid) -> Tensor:
        """Return the gain of each subcarrier, [B, R, T, moments, F], complex64."""
        frequencies = sionna_phy().channel.subcarrier_frequencies(
            grid.subcarriers, grid.subcarrier_spacing_hz,
            precision="single", device=str(self.delays_s.device),
        )  # fmt: skip
        gains, delays = self.gains[:, None, :, None], self.delays_s[:, None, None]
        h = sionna_phy().channel.cir_to_ofdm_channel(frequencies, gains, delays)
        return h[:, 0, :, 0]  # one receiver, one transmitter


def tdl_impulse(
    profile: DelayProfile, grid: Grid, batch: int, moments: Moments, generator: torch.Generator
) -> Impulse:
    """Draw tapped delay lines."""
    block = _tdl(profile, grid, device_key(generator.device))
    with drawing_from(generator):
        return _impulse(block(batch, *moments.sampling(generator.device)), moments)


def cdl_impulse(
    profile: DelayProfile,
    grid: Grid,
    batch: int,
    moments: Moments,
    generator: torch.Generator,
    motion: Motion,
) -> Impulse:
    """Draw clustered delay lines.

    Sionna's own velocities point up and down as often as sideways, so they are drawn here.
    """
    key = device_key(generator.device)
    if grid.speed_mps == 0:
        block = _cdl(profile, grid, key)
    else:
        block = _new_cdl(profile, grid, key, _velocities(grid, batch, generator, motion))
    with drawing_from(generator):
        return _impulse(block(batch, *moments.sampling(generator.device)), moments)


@cache
def tdl_taps(profile: DelayProfile, grid: Grid) -> Taps:
    """Return the statistics of a tapped delay line: every tap sees Clarke's spectrum."""
    block = _tdl(profile, grid, "cpu")
    powers, delays, sight = block.mean_powers.clone(), block.delays, None
    if block.los:  # within the first tap
        shift = grid.doppler_hz * math.cos(float(block._los_angle_of_arrival))
        sight = Sight(float(block.mean_power_los), float(delays[0]), shift)
        powers[0] -= sight.power
    return Taps(powers, delays, torch.full_like(delays, grid.doppler_hz), sight=sight)


@cache
def cdl_taps(profile: DelayProfile, grid: Grid, motion: Motion) -> Taps:
    """Return the statistics of a clustered delay line, averaged over directions of travel.

    A ray that arrives at a zenith angle z from a random azimuth has Clarke's spectrum of width
    sin(z) times speed over wavelength.
    """
    block = _cdl(profile, grid, "cpu")
    powers, delays, zenith = block._powers, block._delays, block._zoa
    rays = zenith.shape[1]
    if block._has_los:
        k = block._k_factor
        powers = torch.cat([powers, k[None]]) / (1 + k)
        delays = torch.cat([delays, delays.new_zeros(1)])
        zenith = torch.cat([zenith, block._los_zoa.expand(1, rays)])
    width = zenith.flatten().sin() if motion == "horizontal" else torch.ones(zenith.numel())
    return Taps(
        (powers / rays).repeat_interleave(rays),
        delays.repeat_interleave(rays),
        grid.doppler_hz * width,
        spectrum="clarke" if motion == "horizontal" else "flat",
    )


@cache
def urban_taps(scenario: Scenario, grid: Grid) -> Taps:
    """Return the statistics over many drops of the urban models, measured once per process."""
    one = replace(grid, num_tx=1, num_rx=1)
    generator = torch.Generator().manual_seed(0)
    drops = urban_impulse(scenario, one, _DROPS, Moments(1, 1.0), generator)
    powers = drops.gains.abs().square().flatten() / _DROPS
    seconds = drops.delays_s.flatten()
    heard = powers > 0
    powers, seconds = powers[heard] / powers.sum(), seconds[heard]
    return Taps(powers, seconds, torch.full_like(seconds, grid.doppler_hz))


def urban_impulse(
    scenario: Scenario, grid: Grid, batch: int, moments: Moments, generator: torch.Generator
) -> Impulse:
    """Drop one user per item into an urban sector.

    Both arrays stand upright: tilted, they would lose power to the other polarisation.
    """
    key = device_key(generator.device)
    speed = {"min_ut_velocity": grid.speed_mps, "max_ut_velocity": grid.speed_mps}
    block = _urban(scenario, grid, key)
    # the topology stays in the block: made under inference it would refuse gradients later
    with torch.inference_mode(False), torch.no_grad(), drawing_from(generator):
        topology = sionna_phy().channel.gen_single_sector_topology(
            batch, 1, scenario, precision="single", device=key, **speed
        )
        user, station, user_turn, station_turn, velocity, indoor = topology
        upright = station_turn * station_turn.new_tensor([1.0, 0.0, 0.0])  # bearing, no downtilt
        block.reset_topology()  # else a batch of another size is refused
        block.set_topology(user, station, torch.zeros_like(user_turn), upright, velocity, indoor)
        return _impulse(block(*moments.sampling(generator.device)), moments)


def _impulse(drawn: tuple[Tensor, Tensor], moments: Moments) -> Impulse:
    """Make one receiver's and one transmitter's response of what Sionna draws for many."""
    gains, delays = drawn
    return Impulse(gains[:, 0, :, 0, ..., -moments.looks :], delays[:, 0, 0])


def _velocities(grid: Grid, batch: int, generator: torch.Generator, motion: Motion) -> Tensor:
    """Return [batch, 3]: one speed, a random bearing, level or with a random climb."""
    draw = torch.rand(batch, 2, generator=generator, device=generator.device)
    bearing = 2 * math.pi * draw[:, 0]
    climb = 2 * draw[:, 1] - 1 if motion == "3d" else torch.zeros_like(bearing)  # sin of the angle
    level = (1 - climb.square()).sqrt()
    return grid.speed_mps * torch.stack([level * bearing.cos(), level * bearing.sin(), climb], 1)


@cache
def _tdl(profile: DelayProfile, grid: Grid, device: str) -> Any:
    with torch.inference_mode(False):
        return sionna_phy().channel.tr38901.TDL(
            profile.model,
            profile.delay_spread_s,
            grid.carrier_hz,
            min_speed=grid.speed_mps,
            num_tx_ant=grid.num_tx,
            num_rx_ant=grid.num_rx,
            precision="single",
            device=device,
        )


@cache
def _cdl(profile: DelayProfile, grid: Grid, device: str) -> Any:
    return _new_cdl(profile, grid, device, None)


def _new_cdl(profile: DelayProfile, grid: Grid, device: str, velocities: Tensor | None) -> Any:
    """Make Sionna's block; it takes velocities when it is made, which costs 2 ms."""
    with torch.inference_mode(False):
        return sionna_phy().channel.tr38901.CDL(
            profile.model,
            profile.delay_spread_s,
            grid.carrier_hz,
            ut_array=_array(grid.num_rx, grid, device),
            bs_array=_array(grid.num_tx, grid, device),
            ut_velocity=velocities,
            precision="single",
            device=device,
        )


@cache
def _urban(scenario: str, grid: Grid, device: str) -> Any:
    tr38901 = sionna_phy().channel.tr38901
    model = {"umi": tr38901.UMi, "uma": tr38901.UMa}[scenario]
    with torch.inference_mode(False):
        return model(
            grid.carrier_hz,
            o2i_model="low",
            ut_array=_array(grid.num_rx, grid, device),
            bs_array=_array(grid.num_tx, grid, device),
            direction="downlink",
            enable_pathloss=False,
            enable_shadow_fading=False,
            precision="single",
            device=device,
        )


def _array(antennas: int, grid: Grid, device: str) -> Any:
    return sionna_phy().channel.tr38901.AntennaArray(
        num_rows=1,
        num_cols=antennas,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=grid.carrier_hz,
        precision="single",
        device=device,
    )
