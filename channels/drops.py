"""Snapshots of many users' channels by TR 38.901, each with what is known of it, to learn from.

A drop is one user at one place. Its channel H is looked at once per slot, over all antenna pairs
and subcarriers. Path loss and shadowing are told apart from it: H has mean power 1 in each drop,
and ``gain_db`` says what was divided out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from channels.checks import check_choice, check_count, check_positive, check_range
from channels.doppler import doppler_hz
from channels.sionna_bridge import device_key, drawing_from, sionna_phy

URBAN = ("umi", "uma", "rma")
LINES = tuple(f"{kind}-{letter}" for kind in ("cdl", "tdl") for letter in "ABCDE")
Polarisation = Literal["single", "dual"]


@dataclass(frozen=True)
class Site:
    """What channels are drawn of.

    Args:
        model: umi, uma or rma; cdl-A to cdl-E; tdl-A to tdl-E.
        carrier_hz: carrier frequency.
        slots: T, looks at each channel.
        slot_s: from one look to the next, in s.
        subcarriers: F.
        subcarrier_spacing_hz: distance of these.
        speed_mps: lowest and highest speed of a user, between which each has its own.
        tx: rows and columns of the transmitter's antennas, half a wavelength apart.
        rx: those of the user.
        polarisation: ``dual`` doubles the transmitter's antennas.
        indoor: probability that an urban user is in a building.
        los: probability of a line of sight for urban users; as TR 38.901 has it where None.
        delay_spread_s: of cdl and tdl.
    """

    model: str = "umi"
    carrier_hz: float = 2.4e9
    slots: int = 20
    slot_s: float = 0.5e-3
    subcarriers: int = 32
    subcarrier_spacing_hz: float = 360e3
    speed_mps: tuple[float, float] = (11.2, 27.7)
    tx: tuple[int, int] = (4, 4)
    rx: tuple[int, int] = (1, 1)
    polarisation: Polarisation = "single"
    indoor: float = 0.0
    los: float | None = None
    delay_spread_s: float = 100e-9

    def __post_init__(self) -> None:
        check_choice("model", self.model, (*URBAN, *LINES))
        for name in ("slots", "subcarriers"):
            check_count(name, getattr(self, name), "the published sizes are 20 and 32")
        check_positive("slot_s", self.slot_s, "every half millisecond is 5e-4")
        check_positive("subcarrier_spacing_hz", self.subcarrier_spacing_hz, "two blocks are 360e3")
        check_positive("delay_spread_s", self.delay_spread_s, "100 ns is 100e-9")
        check_range("carrier_hz", self.carrier_hz, low=0.5e9, high=100e9, hint="2.4 GHz is 2.4e9")
        check_range("indoor", self.indoor, low=0.0, high=1.0, hint="outdoors is 0")
        check_choice("polarisation", self.polarisation, ("single", "dual"))
        if self.los is not None:
            check_range("los", self.los, low=0.0, high=1.0, hint="half of the users is 0.5")
            if self.model not in URBAN:
                raise ValueError(f"los is for umi, uma and rma; {self.model} has its own")
        self._check_speed()
        for name in ("tx", "rx"):
            if min(getattr(self, name)) < 1:
                raise ValueError(
                    f"{name} is rows and columns, such as [4, 4], got {getattr(self, name)}"
                )
        if self.model.startswith("tdl") and self.polarisation == "dual":
            raise ValueError("polarisation dual needs directions, which tdl has not; use cdl")

    def _check_speed(self) -> None:
        low, high = self.speed_mps
        if not 0 <= low <= high:
            raise ValueError(f"speed_mps goes from low to high, got {low} to {high}; swap them")
        fastest = doppler_hz(high, self.carrier_hz)
        if fastest * self.slot_s >= 0.5:
            raise ValueError(
                f"speed_mps {high:g} at {self.carrier_hz / 1e9:g} GHz is a Doppler shift of "
                f"{fastest:.0f} Hz, which looks every {self.slot_s * 1e3:g} ms cannot follow; keep "
                f"speed below {0.5 / self.slot_s / fastest * high:.3g} or slot_s shorter"
            )

    @property
    def pairs(self) -> int:
        """S, pairs of antennas: pair r T + t from transmit antenna t to receive antenna r."""
        dual = 2 if self.polarisation == "dual" else 1
        return math.prod(self.tx) * dual * math.prod(self.rx)


@dataclass(frozen=True, eq=False)
class Drops:
    """What was drawn.

    Args:
        h: [B, T, S, F], complex64, mean power 1 in each drop.
        gain_db: what was divided out, [B]: path loss, shadowing, fading.
        los: whether there is a line of sight, bool [B], as the model drew it.
        speed_mps: of the user, [B].
        place_m: of the user, from the transmitter's foot, [B, 3]; zeros where the model has none.
    """

    h: Tensor
    gain_db: Tensor
    los: Tensor
    speed_mps: Tensor
    place_m: Tensor


def draw_drops(site: Site, batch: int, generator: torch.Generator) -> Drops:
    """Draw so many users and their channels; the generator decides them, and is advanced."""
    with torch.inference_mode(False), torch.no_grad():
        drawn = _urban if site.model in URBAN else _tdl if site.model[:3] == "tdl" else _cdl
        gains, delays, los, velocity, place = drawn(site, batch, generator)
        h = _response(site, gains[:, 0, :, 0], delays[:, 0, 0])
        power = h.abs().square().mean(dim=(1, 2, 3))
        h = h / power.sqrt()[:, None, None, None]
    gain_db = 10 * power.log10()
    return Drops(h, gain_db, los, torch.linalg.vector_norm(velocity, dim=-1), place)


_Drawn = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _response(site: Site, gains: Tensor, delays: Tensor) -> Tensor:
    """Return H [B, T, S, F] of path gains [B, R, T, P, M] and delays [B, P]: one matrix product."""
    steps = torch.arange(site.subcarriers, device=delays.device) - site.subcarriers // 2
    turns = delays[:, :, None] * steps * site.subcarrier_spacing_hz  # [B, P, F]
    turned = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
    flat = gains.flatten(1, 2).movedim(-1, 1)  # [B, M, S, P]
    return (flat.flatten(1, 2) @ turned).unflatten(1, flat.shape[1:3])


def _urban(site: Site, batch: int, generator: torch.Generator) -> _Drawn:
    """Drop one user per item into a sector; both arrays stand upright."""
    key = device_key(generator.device)
    block = _urban_block(site, key)
    low, high = site.speed_mps
    forced = None
    if site.los is not None:
        draw = torch.rand(batch, 1, 1, generator=generator, device=generator.device)
        forced = draw < site.los
    with drawing_from(generator):
        user, station, turn, turn_station, velocity, indoor = (
            sionna_phy().channel.gen_single_sector_topology(
                batch, 1, site.model, min_ut_velocity=low, max_ut_velocity=high,
                indoor_probability=site.indoor, precision="single", device=key,
            )
        )  # fmt: skip
        upright = turn.new_tensor([1.0, 0.0, 0.0])
        block.reset_topology()  # else a batch of another size is refused
        block.set_topology(
            user, station, turn * upright, turn_station * upright, velocity, indoor,
            los="random" if forced is None else forced,
        )  # fmt: skip
        gains, delays = block(site.slots, 1 / site.slot_s)
        los = block._scenario.los[:, 0, 0].clone()
    return gains, delays, los, velocity[:, 0], (user - station)[:, 0]


def _cdl(site: Site, batch: int, generator: torch.Generator) -> _Drawn:
    key = device_key(generator.device)
    draw = torch.rand(batch, 2, generator=generator, device=generator.device)
    low, high = site.speed_mps
    bearing = 2 * math.pi * draw[:, 0]
    level = torch.stack([bearing.cos(), bearing.sin(), torch.zeros_like(bearing)], dim=1)
    velocity = (low + (high - low) * draw[:, 1:]) * level
    block = sionna_phy().channel.tr38901.CDL(
        site.model[-1], site.delay_spread_s, site.carrier_hz,
        ut_array=_array(site.rx, "single", site.carrier_hz, key),
        bs_array=_array(site.tx, site.polarisation, site.carrier_hz, key),
        direction="downlink", ut_velocity=velocity, precision="single", device=key,
    )  # fmt: skip
    with drawing_from(generator):
        gains, delays = block(batch, site.slots, 1 / site.slot_s)
    return gains, delays, _line_of_sight(site, batch, key), velocity, torch.zeros_like(velocity)


def _tdl(site: Site, batch: int, generator: torch.Generator) -> _Drawn:
    """Draw independent antennas; all users of a batch have the speed that is drawn for it."""
    key = device_key(generator.device)
    low, high = site.speed_mps
    draw = torch.rand((), generator=generator, device=generator.device)
    speed = float(low + (high - low) * draw)
    block = sionna_phy().channel.tr38901.TDL(
        site.model[-1], site.delay_spread_s, site.carrier_hz, min_speed=speed,
        num_rx_ant=math.prod(site.rx), num_tx_ant=math.prod(site.tx),
        precision="single", device=key,
    )  # fmt: skip
    with drawing_from(generator):
        gains, delays = block(batch, site.slots, 1 / site.slot_s)
    velocity = delays.new_tensor([speed, 0.0, 0.0]).expand(batch, 3)
    return gains, delays, _line_of_sight(site, batch, key), velocity, torch.zeros_like(velocity)


def _line_of_sight(site: Site, batch: int, device: str) -> Tensor:
    """Return whether the profile has one: D and E do."""
    return torch.full((batch,), site.model[-1] in "DE", device=device)


@cache
def _urban_block(site: Site, device: str) -> Any:
    tr38901 = sionna_phy().channel.tr38901
    model = {"umi": tr38901.UMi, "uma": tr38901.UMa, "rma": tr38901.RMa}[site.model]
    buildings = {} if site.model == "rma" else {"o2i_model": "low"}
    return model(
        site.carrier_hz, **buildings,
        ut_array=_array(site.rx, "single", site.carrier_hz, device),
        bs_array=_array(site.tx, site.polarisation, site.carrier_hz, device),
        direction="downlink", precision="single", device=device,
    )  # fmt: skip


def _array(size: tuple[int, int], polarisation: str, carrier_hz: float, device: str) -> Any:
    return sionna_phy().channel.tr38901.AntennaArray(
        num_rows=size[0], num_cols=size[1], polarization=polarisation,
        polarization_type="V" if polarisation == "single" else "VH", antenna_pattern="omni",
        carrier_frequency=carrier_hz, precision="single", device=device,
    )  # fmt: skip
