"""A person moves in a room of echoes: what a receiver's channel tells of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from channels.checks import check_span
from channels.doppler import SPEED_OF_LIGHT
from channels.drops import Site, draw_drops
from semsim.payloads.channels import BLOCK, ChannelItems, Records, Target
from semsim.payloads.images import check_counts
from semsim.payloads.kept import InBlocks
from semsim.seeds import stream

CLASSES = ("still", "walk", "run", "fall", "wave", "circle")


class ChannelActivity(InBlocks, ChannelItems):
    """Echoes that stand still, of CDL-C, and one that moves as a person does; the class says how.

        H(t, s, f) = static + g exp(-j 2 pi (f_c + f) 2 x(t) / c) exp(j pi s sin(theta))

    x(t) is the way that the person has gone: nothing; 0.5 to 1.5 m/s; 2 to 4 m/s; a fall that ends
    on the ground; an arm that swings once or twice a second; a circle. The classes are as frequent
    as each other. It stands in for recordings, which it resembles in Doppler alone.

    Args:
        count: number of items.
        carrier_hz: carrier frequency.
        slots: T, packets of an item.
        slot_s: between packets, in s; the fastest needs c / (16 f_c) = 3.7 ms at 5 GHz.
        subcarriers: F.
        subcarrier_spacing_hz: distance of these.
        antennas: S, half a wavelength apart.
        person_db: lowest and highest power of the moving echo, over that of all others.
        target: ``activity``, or the ``channel`` itself.
        seed: decides the items, together with the index.
    """

    drawn_by_sionna = True
    name = "channel_activity"
    classes = CLASSES

    def __init__(
        self,
        count: int = 1000,
        *,
        carrier_hz: float = 5e9,
        slots: int = 128,
        slot_s: float = 3e-3,
        subcarriers: int = 16,
        subcarrier_spacing_hz: float = 2.5e6,
        antennas: int = 4,
        person_db: tuple[float, float] = (-10.0, 0.0),
        target: Target = "activity",
        seed: int = 0,
    ) -> None:
        check_counts(count=count, antennas=antennas)
        self._aim(target)
        self.site = Site(
            "cdl-C", carrier_hz, slots, slot_s, subcarriers, subcarrier_spacing_hz, (0.0, 0.0),
            (1, antennas), delay_spread_s=50e-9,
        )  # fmt: skip
        if slots < 2:
            raise ValueError(f"slots is at least 2, for one shows no motion, got {slots}")
        if slot_s > SPEED_OF_LIGHT / (16 * carrier_hz):
            raise ValueError(
                f"slot_s {slot_s:g} is too slow for 4 m/s at {carrier_hz / 1e9:g} GHz; write at "
                f"most {SPEED_OF_LIGHT / (16 * carrier_hz):.2g}"
            )
        check_span("person_db", person_db)
        self.count, self.seed, self.person_db = count, seed, person_db

    def __len__(self) -> int:
        return self.count

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with activity and peak speed."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = [self._block(number) for number in range(first, last + 1)]
        cut = slice(start - first * BLOCK, stop - first * BLOCK)
        names = blocks[0].facts
        facts = {name: torch.cat([b.facts[name] for b in blocks])[cut] for name in names}
        return Records(torch.cat([b.h for b in blocks])[cut], facts)

    def _drawn(self, number: int) -> Records:
        generator = stream(self.seed, self.name, number)
        site = self.site
        h = draw_drops(site, BLOCK, generator).h
        activity = torch.randint(len(CLASSES), (BLOCK,), generator=generator)
        draw = torch.rand(BLOCK, 5, generator=generator)
        times = site.slot_s * torch.arange(site.slots)
        moved = [way(CLASSES[a], times, d) for a, d in zip(activity.tolist(), draw, strict=True)]
        x = torch.stack(moved).double()  # [B, T]
        offsets = torch.arange(site.subcarriers) - site.subcarriers // 2
        hertz = site.carrier_hz + site.subcarrier_spacing_hz * offsets
        turns = -2 * x[:, :, None, None] * hertz / SPEED_OF_LIGHT + draw[:, 3, None, None, None]
        slope = (2 * math.pi * draw[:, 4, None]).sin() / 2 * torch.arange(site.pairs)
        phase = 2 * math.pi * (turns + slope[:, None, :, None])
        low, high = self.person_db
        power_db = low + (high - low) * draw[:, 2, None, None, None]
        h = h + torch.polar(torch.ones_like(phase), phase).to(h.dtype) * 10 ** (power_db / 20)
        h = h / h.abs().square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        speed = (x.diff(dim=1).abs().amax(dim=1) / site.slot_s).float()
        return Records(h, {"activity": activity, "speed_mps": speed})


def way(activity: str, times_s: Tensor, draw: Tensor) -> Tensor:
    """Return how far a person has gone, in m, [T].

    Args:
        activity: one of ``CLASSES``.
        times_s: [T].
        draw: numbers in [0, 1), which choose speed and phase.
    """
    first, second = float(draw[0]), float(draw[1])
    sign = 1.0 if second < 0.5 else -1.0
    if activity == "still":
        return torch.zeros_like(times_s)
    if activity == "walk":
        return sign * (0.5 + first) * times_s
    if activity == "run":
        return sign * (2 + 2 * first) * times_s
    if activity == "fall":
        begun = (times_s - 0.3 * second * times_s[-1]).clamp(min=0)
        return 9.81 / 2 * begun.clamp(max=0.2 + 0.1 * first).square()
    if activity == "wave":
        speed, rate = 0.3 + 0.7 * first, 1 + second
        turns = 2 * math.pi * (rate * times_s + first)
        return speed / (2 * math.pi * rate) * turns.sin()
    radius, speed = 0.3 + 0.2 * second, 0.5 + first
    return radius * (1 - (speed / radius * times_s + 2 * math.pi * second).cos())
