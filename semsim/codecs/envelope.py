"""Which streams, modulations and code rates to take: the envelope over all offers, by image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from semsim.codecs.image_codecs import Pixels, measured_psnr
from semsim.codecs.layers import Offer
from semsim.codecs.rd_cache import Coded
from semsim.codecs.stills import Stills

_HOPELESS = 0.01  # an offer that delivers less often is not worth an encoding
_MAX_SLOPE_DB = 10.0  # no codec here gains more PSNR from twice the bits


@dataclass(frozen=True)
class Plan:
    """What the transmitter settled on for one image."""

    image: Pixels
    offer: Offer
    coded: Coded | None  # None where nothing fits


def best_plan(
    stills: Stills, image: Pixels, offers: Sequence[Offer], *, must_send: bool = False
) -> Plan:
    """Return the offer with the largest expected PSNR, and the image coded for it.

    Args:
        stills: codec and policies.
        image: what is sent.
        offers: what to choose from, at least one.
        must_send: take the best offer also where sending nothing promises as much.
    """
    lost_db = stills.lost_psnr(image)
    best, best_db = Plan(image, offers[0], None), -math.inf if must_send else lost_db
    known: list[tuple[int, float]] = []  # (payload bits, PSNR) of what was encoded
    filled = [offer for offer in offers if offer.payload]
    for offer in sorted(filled, key=lambda offer: -offer.odds * offer.payload):
        odds = offer.odds
        if odds < _HOPELESS and not must_send:
            continue
        if known and odds * _limit_db(offer.payload, known) + (1 - odds) * lost_db <= best_db:
            continue
        coded = stills.fit(image, offer.payload)
        if coded is None:
            continue
        psnr_db = measured_psnr(coded.mse)
        known.append((offer.payload, psnr_db))
        expected_db = odds * psnr_db + (1 - odds) * lost_db
        if expected_db > best_db:
            best, best_db = Plan(image, offer, coded), expected_db
    return best


def _limit_db(payload: int, known: Sequence[tuple[int, float]]) -> float:
    """Return what no image of this payload exceeds, by those already coded: saves encodings."""
    limits = [
        psnr_db + max(0.0, _MAX_SLOPE_DB * math.log2(payload / other)) for other, psnr_db in known
    ]
    return min(limits)
