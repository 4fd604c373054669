"""Channels to learn from: drawn by TR 38.901, or mixed of several payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from channels.checks import check_choice
from channels.drops import Drops, Polarisation, Site, draw_drops
from semsim.payloads.images import check_counts, check_members
from semsim.payloads.kept import InBlocks
from semsim.seeds import stream
from semsim.types import Payload

Target = Literal["channel", "los", "beam", "activity"]
BLOCK = 64  #: drops drawn together; part of what an item is


class Records(NamedTuple):
    """Channels of some items, and what is known of them."""

    h: Tensor  #: [N, T, S, F], complex64, mean power 1 in each item
    facts: dict[str, Tensor]  #: [N, ...] by name


class ChannelItems(Dataset[tuple[Tensor, Any]]):
    """What all payloads of channels have in common; a subclass gives ``records``.

    An item is H as float32 [T, 2, S, F], real and imaginary part at each of T slots, with mean
    power 1; S counts pairs of antennas and F subcarriers. The target is H itself, the class 1 of a
    line of sight, the number of the strongest DFT beam over the S antennas in the last slot, or a
    class that the data brings along.
    """

    name: str
    target: Target
    drawn_by_sionna = False  #: whether another version of Sionna may give other items

    def _aim(self, target: Target) -> None:
        check_choice("target", target, get_args(Target))
        self.target = target

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with all that is known of them."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} items, asked for number {index}")
        number = index % len(self)
        h, facts = self.records(number, number + 1)
        source = parts(h[0])
        return source, self._target(source, h[0], facts)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Any]]:
        """Return many items at once."""
        return [self[i] for i in indices]

    def _target(self, source: Tensor, h: Tensor, facts: dict[str, Tensor]) -> Any:
        if self.target == "channel":
            return source
        if self.target == "beam":
            return best_beam(h[-1])
        if self.target not in facts:
            raise ValueError(
                f"{self.name} does not know the {self.target} of its channels; it knows "
                f"{', '.join(facts) or 'no facts'}, and target beam is told by the channel"
            )
        return int(facts[self.target][0])


def parts(h: Tensor) -> Tensor:
    """Return complex H [..., T, S, F] as real and imaginary part, float32 [..., T, 2, S, F]."""
    return torch.stack([h.real, h.imag], dim=-3)


def joined(source: Tensor) -> Tensor:
    """Return float [..., T, 2, S, F] as complex H [..., T, S, F]."""
    real, imaginary = source.float().unbind(dim=-3)
    return torch.complex(real, imaginary)


def best_beam(h: Tensor) -> int:
    """Return which of the S beams of the DFT codebook is strongest over all F, for h [S, F]."""
    return int(torch.fft.fft(h, dim=0).abs().square().sum(dim=1).argmax())


class Channels(InBlocks, ChannelItems):
    """Channels drawn by Sionna: each item is one user at one place, for so many slots.

    Items are drawn in blocks, of which the last few are kept; to train on many, write them to disk
    with ``semsim channels`` and read them as ``channel_files``.

    Args:
        model: umi, uma or rma; cdl-A to cdl-E; tdl-A to tdl-E.
        count: number of items.
        carrier_hz: carrier frequency.
        slots: T.
        slot_s: from one slot to the next, in s.
        subcarriers: F.
        subcarrier_spacing_hz: distance of these.
        speed_mps: lowest and highest speed of a user.
        tx: rows and columns of the transmitter's antennas, half a wavelength apart.
        rx: those of the user; S is the product of all.
        polarisation: ``dual`` doubles the transmitter's antennas.
        indoor: probability that an urban user is in a building.
        los: probability of a line of sight; as TR 38.901 has it where null.
        delay_spread_s: of cdl and tdl.
        target: ``channel``, or the class ``los`` or ``beam``.
        seed: decides the items, together with the index.
    """

    drawn_by_sionna = True
    blocks_kept = 32
    name = "channels"

    def __init__(
        self,
        model: str = "umi",
        count: int = 1000,
        *,
        carrier_hz: float = 2.4e9,
        slots: int = 20,
        slot_s: float = 0.5e-3,
        subcarriers: int = 32,
        subcarrier_spacing_hz: float = 360e3,
        speed_mps: tuple[float, float] = (11.2, 27.7),
        tx: tuple[int, int] = (4, 4),
        rx: tuple[int, int] = (1, 1),
        polarisation: Polarisation = "single",
        indoor: float = 0.0,
        los: float | None = None,
        delay_spread_s: float = 100e-9,
        target: Target = "channel",
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        self._aim(target)
        self.count, self.seed = count, seed
        self.site = Site(
            model, carrier_hz, slots, slot_s, subcarriers, subcarrier_spacing_hz,
            speed_mps, tx, rx, polarisation, indoor, los, delay_spread_s,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with line of sight, gain, speed and place."""
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = [self._block(number) for number in range(first, last + 1)]
        cut = slice(start - first * BLOCK, stop - first * BLOCK)
        names = ("gain_db", "los", "speed_mps", "place_m")
        facts = {name: torch.cat([getattr(b, name) for b in blocks])[cut] for name in names}
        h = blocks[0].h if len(blocks) == 1 else torch.cat([block.h for block in blocks])
        return Records(h[cut], facts)

    def _drawn(self, number: int) -> Drops:
        return draw_drops(self.site, BLOCK, stream(self.seed, "channels", number))


class ChannelMix(ChannelItems):
    """Several payloads of channels in turn, an item of each: scenarios to learn from together.

    Args:
        of: the payloads, of one shape of items.
        target: as for ``channels``, for all of them.
    """

    name = "channel_mix"

    def __init__(self, of: Sequence[Payload], *, target: Target = "channel") -> None:
        self._aim(target)
        strangers = [type(p).__name__ for p in of if not isinstance(p, ChannelItems)]
        if not of or strangers:
            raise ValueError(
                f"of is a list of payloads of channels, such as [{{kind: channels, model: umi}}], "
                f"got {', '.join(strangers) or 'none'}"
            )
        self.of: list[Any] = list(of)
        shapes = [tuple(p.records(0, 1).h.shape[1:]) for p in self.of]
        if len(set(shapes)) > 1:
            raise ValueError(f"of mixes items of one shape [T, S, F], got {sorted(set(shapes))}")

    def __len__(self) -> int:
        return len(self.of) * min(map(len, self.of))

    def check_files(self) -> None:
        """Look at the files of each member that can say what is wrong with them."""
        check_members(self.of)

    def records(self, start: int, stop: int) -> Records:
        """Return items start to before stop, with what all members know; ``member`` says whose."""
        turns = range(start, stop)
        found = [self.of[i % len(self.of)].records(i // len(self.of), i // len(self.of) + 1)
                 for i in turns]  # fmt: skip
        names = set.intersection(*(set(r.facts) for r in found))
        facts = {name: torch.cat([r.facts[name] for r in found]) for name in sorted(names)}
        facts["member"] = torch.tensor([i % len(self.of) for i in turns])
        return Records(torch.cat([r.h for r in found]), facts)
