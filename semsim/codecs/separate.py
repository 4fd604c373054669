"""Separate source and channel coding: an image codec, 5G LDPC and QAM, at the same CBR and SNR.

    image ─► codec at the best quality that fits ─► CRC ─► LDPC ─► QAM ─► streams ─► channel ─┐
    estimate ◄─ codec, or fallback ◄─ all blocks good? ◄─ CRC ◄─ LDPC ◄─ LLR ◄─ front end ◄───┘

K symbols at m bits and rate r hold K m r bits, less CRC and what segmentation leaves over. The
image is lost whole where any block is: the cliff. Per image, the transmitter takes the offer with
the largest expected PSNR: the number of streams and their powers (``semsim.phy.rank``), the
codewords on them (``semsim.codecs.layers``) and a row of the MCS table for each. It knows the
average SNR, the statistics of the channel and of its own CSI, and of this realisation what
``csi.tx`` tells it (``semsim.codecs.outlook``). The receiver knows the choice, as from a control
channel, uncharged.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor

from channels.base import Channel
from channels.checks import check_choice, check_count
from channels.streams import fork, on_cpu
from semsim.codecs.harq import Combining, Harq, RoundFading
from semsim.codecs.image_codecs import CodecName, Headers, Pixels
from semsim.codecs.outlook import Outlook
from semsim.codecs.passage import Passage
from semsim.codecs.stills import Fallback, Stills, cbr_fraction, pixels_of, symbols_at
from semsim.hop import n0_of, snr_of
from semsim.link import Link
from semsim.phy.bler import measured_mcs
from semsim.phy.mcs import mcs_by_index
from semsim.types import Ledger, Transmission, Transmitter, turns_of

Engine = Literal["bler", "ldpc"]


class SeparateTransmitter(Transmitter):
    """Image codec, LDPC and QAM at the rate that fits the CBR exactly.

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16".
        codec: image codec.
        mcs: row of 3GPP TS 38.214 table 5.1.3.1-2 for all streams, or "best" for the envelope over
            all rows, codeword by codeword.
        rank: streams in use, at most those of the front end, or "best" for the envelope over them.
        harq: "chase" or "ir" (incremental redundancy) sends an image that did not arrive again and
            combines; every round is charged, and the row's ``cbr`` is the mean that was spent.
        rounds: transmissions of an image at most, with ``harq``; 1 needs a ``round_cbr``.
        round_cbr: channel uses of one round per source value, with ``harq``; half of ``cbr`` where
            left out. With ``mcs="best"`` no row is taken that spends more than ``cbr`` in the mean,
            as far as the transmitter knows.
        round_fading: each round meets "new" fading, or the "same".
        engine: "bler" draws lost blocks from error rates measured with the true decoder; "ldpc"
            encodes and decodes every bit.
        fallback: what an undecodable image becomes: "mean", its mean colour, charged 3 bytes that
            are taken to arrive always, or "grey", mid-grey for nothing.
        headers: "minimal" charges the elementary stream and 5 bytes from which the file is rebuilt
            exactly; "file" charges the whole file.
    """

    constellation = True

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        codec: CodecName = "hevc",
        mcs: Literal["best"] | int = "best",
        rank: Literal["best"] | int = "best",
        harq: Combining = "none",
        rounds: int = 4,
        round_cbr: float | str | None = None,
        round_fading: RoundFading = "new",
        engine: Engine = "bler",
        fallback: Fallback = "mean",
        headers: Headers = "minimal",
    ) -> None:
        super().__init__()
        if mcs != "best":
            mcs_by_index(mcs)
        if rank != "best" and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
            raise ValueError(f"rank is 'best' or a number of streams from 1, got {rank!r}")
        check_choice("engine", engine, ("bler", "ldpc"))
        self.cbr = cbr_fraction(cbr)
        self.harq = _harq(harq, rounds, round_fading, self.cbr, round_cbr)
        self.mcs = mcs
        self.rank = rank
        self.engine = engine
        self.stills = Stills(codec, headers, fallback)
        self.bytes_per_pixel = self.stills.bytes_per_pixel

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return K of a round: its CBR times the number of source values, rounded down."""
        share = Fraction(1) if self.harq is None else self.harq.share
        return symbols_at(self.cbr * share, shape)

    def rows(self) -> tuple[int, ...]:
        """Return the MCS rows to choose from."""
        return measured_mcs() if self.mcs == "best" else (int(self.mcs),)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"cbr={self.cbr}, codec={self.stills.codec.name}, mcs={self.mcs}, "
            f"rank={self.rank}, engine={self.engine}, fallback={self.stills.fallback}, "
            f"headers={self.stills.headers}, harq={self.harq}"
        )


class SeparateLink(Link):
    """A link whose two ends share the chosen plan; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds per item ``rank``, the streams in use, ``codewords`` on them,
    ``mcs``, the row of the first, which has the best streams, ``odds``, how likely the transmitter
    took the image to arrive where it chose anything, and ``decoded``, 1 where it did.
    """

    def __init__(self, transmitter: SeparateTransmitter, channel: Channel, **parts: Any) -> None:
        super().__init__(transmitter, channel, **parts)
        self.outlook = Outlook(channel, self.csi_rx, self.csi_tx, self.frontend)

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
        """Send one batch of images, in as many rounds as there are."""
        images = self.begin(source) if begun is None else begun
        total = self.transmitter.num_symbols(tuple(source.shape[1:]))
        passage = Passage(self.transmitter, self, images, total, self.outlook)
        snrs_db = snr_of(snr_db, source, torch.float64).expand(len(source)).tolist()
        harq, sent, air = passage.transmitter.harq, list[Transmission](), None
        while not sent or not passage.is_over():
            at_tx, at_rx = (on_cpu(fork(generator, end)) for end in ("transmitter", "receiver"))
            if air is None or harq is None or harq.fading == "new":
                air = self.draw(total, n0_of(snr_db, source), generator)
            else:
                air = self.again(air, generator)
            steered = dataclasses.replace(air, precoder=passage.steer(air.csi_tx, snrs_db))
            symbols = passage.send(at_tx).to(source.device)
            there = self.carry(symbols, steered)
            estimate = passage.receive(there.received, there.csi, tuple(source.shape[1:]), at_rx)
            heard = dataclasses.replace(there, received=passage.in_use(there.received))
            sent.append(self.transmission(estimate, passage.in_use(symbols), steered, heard))
        return _together(sent, passage)


SeparateTransmitter.link_class = SeparateLink


def _harq(
    combining: Combining,
    rounds: int,
    fading: RoundFading,
    cbr: Fraction,
    round_cbr: float | str | None,
) -> Harq | None:
    """Return what is sent again; None where nothing is."""
    for name, value, known in (
        ("harq", combining, ("none", "chase", "ir")),
        ("round_fading", fading, ("new", "same")),
    ):
        check_choice(name, value, known)
    check_count("rounds", rounds, "one round is harq: none")
    if combining == "none":
        if round_cbr is not None:
            raise ValueError("round_cbr is the CBR of one round of harq; set harq: ir, or drop it")
        return None
    if rounds == 1 and round_cbr is None:
        raise ValueError(
            f"rounds is 1, and harq: {combining} would then send once at half of cbr; write harq: "
            "none for all of it, or the round_cbr of that round"
        )
    share = Fraction(1, 2) if round_cbr is None else cbr_fraction(round_cbr) / cbr
    if share > 1:
        raise ValueError(f"round_cbr={round_cbr} is more than the whole budget, cbr={cbr}")
    return Harq(combining, rounds, fading, share)


def _together(sent: list[Transmission], passage: Passage) -> Transmission:
    """Return all rounds as one transmission; an item is charged the rounds that it took part in."""
    last, notes = sent[-1], passage.notes()
    if passage.transmitter.harq is None:
        return dataclasses.replace(last, notes=notes)
    spent = sum(passage.rounds) / len(passage.rounds)
    first = sent[0].ledger
    ledger = Ledger(
        payload=spent * first.payload,
        pilots=spent * first.pilots,
        feedback=spent * first.feedback,
        side_info=spent * first.side_info,
        each=torch.tensor(passage.rounds) * first.total,
    )
    return dataclasses.replace(
        last,
        x=torch.cat([one.x for one in sent], dim=-1),
        symbols=torch.cat([one.symbols for one in sent if one.symbols is not None], dim=-1),
        received=torch.cat([one.received for one in sent if one.received is not None], dim=-1),
        ledger=ledger,
        turns=tuple(turn for one in sent for turn in turns_of(one)),
        notes=notes,
    )
