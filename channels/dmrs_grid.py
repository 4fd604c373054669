"""Which elements of an OFDM grid carry DMRS, and which are estimated from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from channels.grid import SLOT

BUNDLE = 48  #: subcarriers that are estimated together: four resource blocks
_SYMBOLS = {1: (2,), 2: (2, 11), 3: (2, 7, 11), 4: (2, 5, 8, 11)}
_DOUBLE = {1: (2,), 2: (2, 10)}
_GROUPS = {1: 2, 2: 3}  # combs per type, of two ports each


def max_ports(dmrs_type: int) -> int:
    """Return how many antennas a single symbol tells apart."""
    return 2 * _GROUPS[dmrs_type]


@dataclass(frozen=True, eq=False)
class Layout:
    """Elements and pilots of a window, counted from its first subcarrier and symbol.

    Args:
        elements: subcarrier and symbol of what is estimated, [E, 2].
        pilots: subcarrier and symbol of the pilots, [P, 2].
        codes: what each antenna sends there, [T, P], complex128; power 1 in all.
        teams: for each pilot, the run of pilots over which the antennas' codes are orthogonal.
    """

    elements: Tensor
    pilots: Tensor
    codes: Tensor
    teams: Tensor


@dataclass(frozen=True, eq=False)
class Window:
    """All stretches of an item with one layout.

    Args:
        layout: the same for all.
        uses: channel use of each element, [windows, E].
        pilots: channel use whose gain each pilot sees, [windows, P].
    """

    layout: Layout
    uses: Tensor
    pilots: Tensor


@lru_cache(maxsize=64)
def windows(
    subcarriers: int, uses: int, num_tx: int, dmrs_type: int, dmrs_symbols: int
) -> list[Window]:
    """Return the windows that an item of ``uses`` channel uses falls into."""
    alike: dict[tuple[int, int, int], list[int]] = {}
    for (symbol, whole, tail), (first, width) in product(
        _slots(subcarriers, uses), _bundles(subcarriers)
    ):
        shape = width, whole, min(max(tail - first, 0), width)
        if whole or shape[2]:
            alike.setdefault(shape, []).append(symbol * subcarriers + first)
    found = []
    for shape, starts in alike.items():
        layout = _layout(*shape, num_tx, dmrs_type, dmrs_symbols)
        start = torch.tensor(starts)[:, None]
        step = torch.tensor([1, subcarriers])
        elements, pilots = (layout.elements * step).sum(1), (layout.pilots * step).sum(1)
        found.append(Window(layout, start + elements, start + pilots))
    return found


def _slots(subcarriers: int, uses: int) -> list[tuple[int, int, int]]:
    """Return first symbol, whole symbols and elements of a last, cut one, per slot."""
    symbols, tail = divmod(uses, subcarriers)
    slots = [(first, min(SLOT, symbols - first), 0) for first in range(0, symbols, SLOT)] or [
        (0, 0, 0)
    ]
    first, whole, _ = slots[-1]  # less than a symbol is no slot of its own
    return [*slots[:-1], (first, whole, tail)]


def _bundles(subcarriers: int) -> list[tuple[int, int]]:
    """Return first subcarrier and width; the last takes what is too narrow to stand alone."""
    count = max(1, (subcarriers + BUNDLE // 2) // BUNDLE)
    firsts = [BUNDLE * bundle for bundle in range(count)]
    ends = [*firsts[1:], subcarriers]
    return [(first, end - first) for first, end in zip(firsts, ends, strict=True)]


def _layout(
    width: int, whole: int, tail: int, num_tx: int, dmrs_type: int, dmrs_symbols: int
) -> Layout:
    elements = [(k, n) for n in range(whole) for k in range(width)]
    elements += [(k, whole) for k in range(tail)]
    double = num_tx > max_ports(dmrs_type)
    reach = width if whole else tail
    pilots, teams = [], []
    for row, symbol in enumerate(_pilot_symbols(max(whole, 1), dmrs_symbols, double)):
        for k in range(reach):
            comb, place = _comb(k, dmrs_type)
            if 2 * comb >= num_tx:
                continue
            shared = num_tx > 2 * comb + 1  # two antennas on this comb tell apart by a pair
            pilots.append((k, symbol, comb, place, row % 2 if double else 0))
            team = place // 2 if shared else place
            teams.append((comb, row // 2 if double else row, team))
    order = {team: number for number, team in enumerate(sorted(set(teams)))}
    return Layout(
        torch.tensor(elements),
        torch.tensor([pilot[:2] for pilot in pilots]),
        _codes(pilots, num_tx, max_ports(dmrs_type)),
        torch.tensor([order[team] for team in teams]),
    )


def _comb(k: int, dmrs_type: int) -> tuple[int, int]:
    """Return the comb that subcarrier ``k`` belongs to, and its place there."""
    if dmrs_type == 1:
        return k % 2, k // 2
    return k % 6 // 2, k // 6 * 2 + k % 2


def _pilot_symbols(whole: int, dmrs_symbols: int, double: bool) -> list[int]:
    """Return the OFDM symbols with pilots in a slot of ``whole`` symbols, cut where it is short."""
    wanted, length = (_DOUBLE, 2) if double else (_SYMBOLS, 1)
    last = max(whole - length, 0)
    found: list[int] = []
    for symbol in wanted[dmrs_symbols]:
        place = min(symbol, last)
        if not found or place >= found[-1] + length + 2:
            found.append(place)
    return [place + more for place in found for more in range(min(length, whole))]


def _codes(pilots: list[tuple[int, int, int, int, int]], num_tx: int, ports: int) -> Tensor:
    """Return [T, P]: antenna t has comb t // 2, signs over the pair, and over a doubled symbol."""
    codes = torch.zeros(num_tx, len(pilots), dtype=torch.complex128)
    for antenna in range(num_tx):
        port = antenna % ports
        for p, (_, _, comb, place, second) in enumerate(pilots):
            if comb == port // 2:
                turned = (port % 2 and place % 2) ^ (antenna >= ports and second)
                codes[antenna, p] = -1.0 if turned else 1.0
    return codes / codes.abs().square().sum(dim=0).clamp_min(1).sqrt()
