"""The discrete cosine transform of whole images."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor


def dct(planes: Tensor) -> Tensor:
    """Return the orthonormal DCT-II of planes [..., H, W] along both sides."""
    down, across = (_dct_matrix(n).to(planes) for n in planes.shape[-2:])
    return down @ planes @ across.T


def inverse_dct(coefficients: Tensor) -> Tensor:
    """Invert :func:`dct`."""
    down, across = (_dct_matrix(n).to(coefficients) for n in coefficients.shape[-2:])
    return down.T @ coefficients @ across


@cache
def _dct_matrix(n: int) -> Tensor:
    with torch.inference_mode(False):
        place = torch.arange(n, dtype=torch.float64)
        matrix = torch.cos(math.pi / n * (place + 0.5) * place[:, None]) * math.sqrt(2 / n)
        matrix[0] /= math.sqrt(2)
        return matrix
