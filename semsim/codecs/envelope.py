"""Which modulation and code rate to take: the envelope over the MCS table, image by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from semsim.codecs.image_codecs import Pixels, psnr_of_mse
from semsim.codecs.rd_cache import Coded
from semsim.codecs.stills import Stills
from semsim.phy.ldpc import Segmentation

_HOPELESS = 0.01  # a row that delivers less often is not worth an encoding
_MAX_SLOPE_DB = 10.0  # no codec here gains more PSNR from twice the bits


@dataclass(frozen=True)
class Plan:
    """What the transmitter settled on for one image."""

    image: Pixels
    cut: Segmentation
    coded: Coded | None  # None where nothing fits


def best_plan(
    stills: Stills, image: Pixels, cuts: Sequence[Segmentation], odds: Sequence[float]
) -> Plan:
    """Return the row with the largest expected PSNR, and the image coded for it.

    Args:
        stills: codec and policies.
        image: what is sent.
        cuts: the rows to choose from, segmented.
        odds: for each, the probability that all its blocks arrive.
    """
    lost_db = stills.lost_psnr(image)
    best, best_db = Plan(image, cuts[0], None), lost_db
    known: list[tuple[int, float]] = []  # (payload bits, PSNR) of what was encoded
    order = sorted(zip(cuts, odds, strict=True), key=lambda row: -row[1] * row[0].payload)
    for cut, odd in order:
        limit_db = _limit_db(cut.payload, known)
        alone = len(cuts) == 1
        if not alone and (odd < _HOPELESS or odd * limit_db + (1 - odd) * lost_db <= best_db):
            continue
        coded = stills.fit(image, cut.payload)
        if coded is None:
            continue
        psnr_db = psnr_of_mse(coded.mse)
        known.append((cut.payload, psnr_db))
        expected_db = odd * psnr_db + (1 - odd) * lost_db
        if alone or expected_db > best_db:
            best, best_db = Plan(image, cut, coded), expected_db
    return best


def _limit_db(payload: int, known: Sequence[tuple[int, float]]) -> float:
    """Return what no image of this payload exceeds, by those already coded: saves encodings."""
    limits = [
        psnr_db + max(0.0, _MAX_SLOPE_DB * math.log2(payload / other)) for other, psnr_db in known
    ]
    return min(limits, default=math.inf)
