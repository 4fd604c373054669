"""The MCS table against the one in Sionna."""

from __future__ import annotations

import pytest

from channels.sionna_bridge import sionna_phy
from semsim.phy.mcs import MCS_TABLE, mcs_by_index


@pytest.mark.parametrize("index", sorted(MCS_TABLE))
def test_a_row_says_what_sionna_says(index: int) -> None:
    order, rate = sionna_phy().nr.utils.decode_mcs_index(index, table_index=2, is_pusch=False)
    mcs = mcs_by_index(index)
    assert mcs.bits_per_symbol == int(order)
    assert mcs.rate == pytest.approx(float(rate), rel=1e-6)
    assert mcs.efficiency == pytest.approx(int(order) * float(rate), rel=1e-6)


def test_the_rows_are_0_to_27() -> None:
    assert sorted(MCS_TABLE) == list(range(28))
    with pytest.raises(ValueError, match="a whole number from 0 to 27"):
        mcs_by_index(28)
