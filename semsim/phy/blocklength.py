"""What a code of finite length carries: the normal approximation and its dispersion.

    bits = n C - sqrt(n V) Q^-1(error) + log2(n) / 2

An approximation, not a bound: good from some hundred channel uses up and for errors above 1e-6.

Source: Polyanskiy, Poor, Verdu, Channel coding rate in the finite blocklength regime (2010); Tan,
Tomamichel, The third-order term in the normal approximation for the AWGN channel (2015).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from channels.checks import check_choice
from channels.units import db_to_linear

Code = Literal["shell", "gaussian"]


def dispersion(snr: Tensor, code: Code = "shell") -> Tensor:
    """Return the variance of the information density of complex Gaussian channels, bits^2 per use.

        shell: 1 - 1 / (1 + snr)^2      gaussian: 2 snr / (1 + snr)      times log2(e)^2

    Args:
        snr: of each channel use, linear, any shape.
        code: "shell", codewords of equal energy, the best; "gaussian", symbols drawn independently.
    """
    nats = 1 - (1 + snr).square().reciprocal() if code == "shell" else 2 * snr / (1 + snr)
    return nats / math.log(2) ** 2


def arrival(bits: float | Tensor, information: Tensor, variance: Tensor, uses: int) -> Tensor:
    """Return the probability that a message of so many bits arrives.

    Args:
        bits: of the message.
        information: that the item's uses carry, in bits, any shape.
        variance: of its density, bits^2, same shape.
        uses: channel uses, n.
    """
    spare = information - bits + math.log2(uses) / 2
    return torch.special.ndtr(spare / variance.clamp_min(1e-12).sqrt())


def normal_approximation(
    snr_db: float, uses: int, error: float = 1e-3, code: Code = "shell"
) -> float:
    """Return what a code of ``uses`` channel uses carries over complex AWGN, in bits per use.

    Args:
        snr_db: Es/N0, in dB.
        uses: length of the code in complex channel uses.
        error: block error rate, above 0 and below 1.
        code: as in :func:`dispersion`.
    """
    if isinstance(uses, bool) or not isinstance(uses, int) or uses < 1:
        raise ValueError(f"uses is a whole number of 1 or more, got {uses!r}")
    if not 0 < error < 1:
        raise ValueError(f"error lies between 0 and 1, got {error}; one block in 1000 is 1e-3")
    check_choice("code", code, ("shell", "gaussian"))
    snr = torch.tensor(db_to_linear(snr_db), dtype=torch.float64)
    tail = -float(torch.special.ndtri(torch.tensor(error, dtype=torch.float64)))
    back_off = math.sqrt(float(dispersion(snr, code)) / uses) * tail
    return max(math.log2(1 + float(snr)) - back_off + math.log2(uses) / (2 * uses), 0.0)
