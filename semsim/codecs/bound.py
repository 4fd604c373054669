"""What an image codec could do with the best channel code of all: one that reaches capacity.

    image ─► codec at the best quality that fits into C bits ─► (error-free) ─► estimate

C comes from :mod:`semsim.codecs.limits`: the true channel and interference, known to the receiver,
Gaussian symbols, and at the transmitter what ``csi.tx`` tells it, used as well as any front end
could. Only the number of channel uses is the front end's. Power is what every link is promised: 1
per channel use on the average of an item, to be moved among its uses and antennas where the
transmitter knows the channel.

``per_draw`` bounds every scheme, in so far as no image codec is better than this one. ``one``
bounds those that send an image as one message at one rate, such as ``separate``; a code that
degrades gracefully may pass it. What clipping or an untracked oscillator does is left out, and what
a waveform's resource elements do to each other counts as noise: the bound is then loose, or one
for receivers that take each element by itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from channels.base import CSI, Channel, complex_normal
from channels.checks import check_choice
from channels.csi import MismatchedCSI
from channels.streams import fork, on_cpu
from semsim.codecs.image_codecs import CodecName, Headers, Pixels, measured_psnr
from semsim.codecs.limits import NAMES, Limits, Offer
from semsim.codecs.rd_cache import Coded
from semsim.codecs.stills import (
    Fallback,
    Stills,
    cbr_fraction,
    each,
    pixels_of,
    sources_of,
    symbols_at,
)
from semsim.hop import n0_of
from semsim.link import Link
from semsim.phy.blocklength import Code
from semsim.phy.power import unit_power
from semsim.types import Transmission, Transmitter

_MAX_SLOPE_DB = 10.0  # no codec here gains more PSNR from twice the bits


class BoundTransmitter(Transmitter):
    """Image codec at the rate that the channel can carry.

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16".
        codec: image codec.
        rate: "per_draw", the capacity of each draw, known at the transmitter; "one", one rate for
            all draws, which gives each image the best PSNR on average; "ergodic", the mean
            capacity over the fading; "matched", per_draw where csi.tx tells the draw, else one, or
            ergodic where an item sees so much fading that its draws differ by less than 3 %.
        code: "endless" reaches capacity; "shell" and "gaussian" are codes as long as the item, by
            the normal approximation, with codewords of equal energy or of independent symbols.
        fallback: what an image becomes that does not fit at all: "mean", its mean colour, charged
            3 bytes, or "grey".
        headers: "minimal" charges the elementary stream and 5 bytes from which the file is rebuilt
            exactly; "file" charges the whole file.
    """

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        codec: CodecName = "hevc",
        rate: Literal["matched", "per_draw", "one", "ergodic"] = "matched",
        code: Literal["endless", "shell", "gaussian"] = "endless",
        fallback: Fallback = "mean",
        headers: Headers = "minimal",
    ) -> None:
        super().__init__()
        check_choice("rate", rate, ("matched", "per_draw", "one", "ergodic"))
        check_choice("code", code, ("endless", "shell", "gaussian"))
        if rate == "ergodic" and code != "endless":
            raise ValueError(
                f"rate 'ergodic' is of a code over very many items, got code {code!r}, one as long "
                "as an item; write rate: one"
            )
        self.cbr = cbr_fraction(cbr)
        self.rate = rate
        self.code = code
        self.stills = Stills(codec, headers, fallback)
        self.bytes_per_pixel = self.stills.bytes_per_pixel

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return K = cbr times the number of source values, rounded down."""
        return symbols_at(self.cbr, shape)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"cbr={self.cbr}, codec={self.stills.codec.name}, rate={self.rate}, code={self.code}, "
            f"fallback={self.stills.fallback}, headers={self.stills.headers}"
        )


class BoundLink(Link):
    """A link at capacity; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds per item ``capacity_bits``, the largest message that was sent, and
    ``decoded``, 0 where nothing fits or the draw carries less. Rows say in ``bound`` which it is.
    """

    def __init__(self, transmitter: BoundTransmitter, channel: Channel, **parts: Any) -> None:
        super().__init__(transmitter, channel, **parts)
        self._limits: dict[tuple[int, torch.device], Limits] = {}
        self._kind: str | None = None

    def remarks(self) -> dict[str, str]:
        """Return what rows say beside numbers: which bound it is, after the first batch."""
        if self._kind is None:
            return {}
        approximate = "" if self._code is None else f", normal approximation ({self._code} codes)"
        return {"bound": NAMES[self._kind] + approximate}

    def begin(self, source: Tensor) -> list[Pixels]:
        """Return the images."""
        return pixels_of(source)

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        begun: list[Pixels] | None = None,
    ) -> Transmission:
        """Send one batch of images, as Gaussian symbols of unit power, which reach capacity."""
        images = self.begin(source) if begun is None else begun
        at_tx, at_rx = fork(generator, "transmitter"), on_cpu(fork(generator, "receiver"))
        total, n0 = self._sender.num_symbols(tuple(source.shape[1:])), n0_of(snr_db, source)
        air = self.draw(total, n0, generator)
        symbols = unit_power(complex_normal((len(source), 1, total), at_tx))
        there = self.carry(symbols, air)
        sent = self.transmission(source, symbols, air, there)
        chance = torch.rand(len(source), generator=at_rx)
        return self._delivered(sent, images, n0, chance)

    def _delivered(
        self, sent: Transmission, images: list[Pixels], n0: Tensor, chance: Tensor
    ) -> Transmission:
        """Return what arrives of images whose channel and symbols are already drawn."""
        stills, source = self._sender.stills, sent.estimate
        choices, limits = self._choices(sent, n0)
        plans = each(lambda job: best_offer(stills, *job), list(zip(images, choices, strict=True)))
        offers = [offer for offer, _ in plans]
        odds = torch.tensor([offer.odds for offer in offers], dtype=torch.float64)
        if self._kind == "one":
            odds = limits.arrive(offers, sent.state, n0).cpu()  # type: ignore[arg-type]
        arrives = (chance < odds).tolist()
        received = [coded if ok else None for (_, coded), ok in zip(plans, arrives, strict=True)]
        shown = each(lambda job: _shown(stills, *job), list(zip(images, received, strict=True)))
        return dataclasses.replace(
            sent,
            estimate=sources_of(shown, like=source),
            notes={
                "capacity_bits": torch.tensor([offer.bits for offer in offers]).to(source.device),
                "decoded": torch.tensor([float(c is not None) for c in received]).to(source.device),
            },
        )

    @property
    def _sender(self) -> BoundTransmitter:
        sender: BoundTransmitter = self.transmitter
        return sender

    @property
    def _code(self) -> Code | None:
        code = self._sender.code
        return None if code == "endless" else code

    def _choices(self, sent: Transmission, n0: Tensor) -> tuple[list[list[Offer]], Limits]:
        """Return the messages that each item could be sent as."""
        if sent.state is None or sent.csi_tx is None:
            raise TypeError("a bound needs a channel that returns its state")
        key = (sent.x.shape[-1], n0.device)
        if key not in self._limits:
            self._limits[key] = Limits(self.channel, key[0], self._code, key[1])
        limits = self._limits[key]
        self._kind = self._which(sent.csi_tx, limits)
        if self._kind in ("per_draw", "constant"):
            return limits.of_draws(sent.state, n0), limits
        if self._kind == "ergodic":
            return [[limits.ergodic(float(noise))] for noise in n0], limits
        return [limits.of_statistics(float(noise)) for noise in n0], limits

    def _which(self, csi_tx: CSI, limits: Limits) -> str:
        if self._sender.rate != "matched":
            return self._sender.rate
        if csi_tx.h is not None and not isinstance(self.csi_tx, MismatchedCSI):
            return "per_draw"
        return limits.natural()


def best_offer(
    stills: Stills, image: Pixels, offers: Sequence[Offer]
) -> tuple[Offer, Coded | None]:
    """Return the size of message with the largest expected PSNR, and the image of that size."""
    lost_db = stills.lost_psnr(image)
    best: tuple[Offer, Coded | None] = (offers[0], None)
    best_db, known = lost_db, (0.0, math.inf)  # bits and PSNR of the smallest that was encoded
    for offer in sorted(offers, key=lambda offer: -offer.odds * offer.bits):
        more = math.log2(max(offer.bits, 1.0) / max(known[0], 1.0))
        ceiling_db = known[1] + _MAX_SLOPE_DB * max(more, 0.0)
        if offer.odds * ceiling_db + (1 - offer.odds) * lost_db <= best_db:
            continue
        coded = stills.fit(image, offer.bits)
        if coded is None:
            continue
        psnr_db = measured_psnr(coded.mse)
        known = min(known, (offer.bits, psnr_db), key=lambda pair: pair[1])
        expected_db = offer.odds * psnr_db + (1 - offer.odds) * lost_db
        if expected_db > best_db:
            best, best_db = (offer, coded), expected_db
    return best


def _shown(stills: Stills, image: Pixels, received: Coded | None) -> Pixels:
    return stills.lost(image) if received is None else stills.decode(received, image)


BoundTransmitter.link_class = BoundLink
