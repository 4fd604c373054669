"""Decibels and the meanings of SNR."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from channels import units

DB = st.floats(-200, 200)


@given(DB)
def test_db_come_back_from_linear(db: float) -> None:
    assert units.linear_to_db(units.db_to_linear(db)) == pytest.approx(db, abs=1e-9)
    assert units.n0_to_snr_db(units.snr_db_to_n0(db)) == pytest.approx(db, abs=1e-9)


@given(DB, st.integers(1, 10), st.floats(0.01, 1))
def test_bits_share_the_energy_of_their_symbol_there_and_back(
    db: float, bits: int, rate: float
) -> None:
    eb_n0_db = units.es_n0_to_eb_n0_db(db, bits, rate)
    assert units.eb_n0_to_es_n0_db(eb_n0_db, bits, rate) == pytest.approx(db, abs=1e-9)


def test_a_tensor_and_a_float_agree() -> None:
    db = torch.tensor([-3.0, 0.0, 10.0], dtype=torch.float64)
    for convert in (units.db_to_linear, units.snr_db_to_n0):
        expected = torch.tensor([convert(value) for value in db.tolist()], dtype=torch.float64)
        torch.testing.assert_close(convert(db), expected)
    ratio = units.db_to_linear(db)
    torch.testing.assert_close(units.linear_to_db(ratio), db)


def test_known_values() -> None:
    assert units.snr_db_to_n0(10.0) == pytest.approx(0.1)
    # QPSK at rate 1/2 carries one bit per symbol
    assert units.es_n0_to_eb_n0_db(7.0, 2, 0.5) == pytest.approx(7.0)
    assert units.es_n0_to_eb_n0_db(10.0, 4) == pytest.approx(10 - 6.0206, abs=1e-4)
    assert units.eb_n0_db_to_n0(0.0, 2) == pytest.approx(0.5)
    assert units.per_antenna_to_total_snr_db(5.0, 2) == pytest.approx(5 + 3.0103, abs=1e-4)
    assert units.total_to_per_antenna_snr_db(8.0103, 2) == pytest.approx(5.0, abs=1e-4)
    assert units.snr_db_after_combining(0.0, 4) == pytest.approx(6.0206, abs=1e-4)
    assert units.snr_db_before_combining(6.0206, 4) == pytest.approx(0.0, abs=1e-4)
    assert units.linear_to_db(0.0) == -math.inf


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: units.linear_to_db(-1.0), "0 or more, got -1.0"),
        (lambda: units.es_n0_to_eb_n0_db(1.0, 0), "bits_per_symbol is above 0, got 0"),
        (lambda: units.es_n0_to_eb_n0_db(1.0, 2, 1.5), "code_rate .* got 1.5"),
        (lambda: units.per_antenna_to_total_snr_db(1.0, 0), "num_tx .* got 0"),
    ],
)
def test_what_has_no_decibels_is_refused(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
