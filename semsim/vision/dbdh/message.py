"""The message of a hidden code: 12 bits, a checksum, and parity that corrects two errors."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

DATA_BITS, CHECK_BITS, PARITY_BITS = 12, 8, 10
BITS = DATA_BITS + CHECK_BITS + PARITY_BITS  #: 30 as in PIMoG
CRC = 0x07  # x^8 + x^2 + x + 1
BCH = 0b11101101001  # generator of BCH(31, 21), which corrects two errors; shortened to (30, 20)


def _remainder(value: int, length: int, generator: int) -> int:
    """Return value(x) x^degree mod generator(x) over GF(2); value has ``length`` bits."""
    degree = generator.bit_length() - 1
    value <<= degree
    for place in range(length + degree - 1, degree - 1, -1):
        if value >> place & 1:
            value ^= generator << (place - degree)
    return value


def encode_message(data: Tensor) -> Tensor:
    """Return code words [B, 30] of data bits [B, 12], all 0 or 1.

        bits 0-11 data | 12-19 CRC-8 (0x07) of the data | 20-29 parity of BCH(31, 21) shortened

    The layout is this simulator's: BCH corrects up to two errors, the CRC tells the right one of
    four turns from the others (a wrong one passes once in about 560 times).
    """
    words = []
    for row in data.long().tolist():
        value = functools.reduce(lambda v, bit: v << 1 | bit, row, 0)
        value = value << CHECK_BITS | _remainder(value, DATA_BITS, 1 << 8 | CRC)
        word = value << PARITY_BITS | _remainder(value, DATA_BITS + CHECK_BITS, BCH)
        words.append([word >> (BITS - 1 - i) & 1 for i in range(BITS)])
    return torch.tensor(words, device=data.device, dtype=torch.float32)


@functools.cache
def _corrections() -> dict[int, int]:
    """Map each syndrome to the pattern of at most two errors that causes it."""
    singles = [1 << i for i in range(BITS)]
    patterns = [0, *singles, *(a | b for a, b in itertools.combinations(singles, 2))]
    return {_remainder(p >> 10, 20, BCH) ^ (p & 1023): p for p in patterns}


def decode_message(bits: Tensor) -> tuple[Tensor, Tensor]:
    """Return corrected code words [B, 30] and whether each passes the check, [B], for hard bits."""
    words, passed = [], []
    for row in bits.long().tolist():
        word = functools.reduce(lambda v, bit: v << 1 | bit, row, 0)
        error = _corrections().get(_remainder(word >> 10, 20, BCH) ^ (word & 1023))
        fixed = word if error is None else word ^ error
        data, check = fixed >> 18, fixed >> 10 & 255
        passed.append(error is not None and _remainder(data, DATA_BITS, 1 << 8 | CRC) == check)
        words.append([fixed >> (BITS - 1 - i) & 1 for i in range(BITS)])
    found = torch.tensor(words, device=bits.device, dtype=torch.float32)
    return found, torch.tensor(passed, device=bits.device)
