"""The modulation and coding schemes of 5G, as numbers.

Source: 3GPP TS 38.214, table 5.1.3.1-2 (PDSCH, up to 256-QAM).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MCS:
    """One modulation with one code rate.

    Args:
        index: row of the table.
        bits_per_symbol: 2 is QPSK, 4 is 16-QAM, 6 is 64-QAM, 8 is 256-QAM.
        rate: information bits over coded bits.
    """

    index: int
    bits_per_symbol: int
    rate: float

    @property
    def efficiency(self) -> float:
        """Information bits per complex symbol."""
        return self.bits_per_symbol * self.rate


# bits per symbol -> (index of the first row, code rates times 1024)
_ROWS: dict[int, tuple[int, tuple[float, ...]]] = {
    2: (0, (120, 193, 308, 449, 602)),
    4: (5, (378, 434, 490, 553, 616, 658)),
    6: (11, (466, 517, 567, 616, 666, 719, 772, 822, 873)),
    8: (20, (682.5, 711, 754, 797, 841, 885, 916.5, 948)),
}

MCS_TABLE: dict[int, MCS] = {
    first + row: MCS(first + row, bits, rate / 1024)
    for bits, (first, rates) in _ROWS.items()
    for row, rate in enumerate(rates)
}


def mcs_by_index(index: int) -> MCS:
    """Return a row of the table; ValueError names the rows there are."""
    whole = isinstance(index, int) and not isinstance(index, bool)
    if not whole or index not in MCS_TABLE:
        raise ValueError(
            "mcs is a row of 3GPP TS 38.214, table 5.1.3.1-2, a whole number from "
            f"{min(MCS_TABLE)} to {max(MCS_TABLE)}, got {index!r}; 2 is QPSK at rate 0.30"
        )
    return MCS_TABLE[index]
