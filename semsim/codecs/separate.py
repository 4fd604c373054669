"""Separate source and channel coding: an image codec, 5G LDPC and QAM, at the same CBR and SNR.

    image ─► codec at the best quality that fits ─► CRC ─► LDPC ─► QAM ─► channel ─► front end ─┐
    estimate ◄─ codec, or fallback ◄─ all blocks good? ◄─ CRC ◄─ LDPC ◄─ LLR ◄──────────────────┘

K symbols at m bits and rate r hold K m r bits, less CRC and what segmentation leaves over. The
image is lost whole where any block is: the cliff. With ``mcs="best"`` the transmitter takes, per
image, the row of the MCS table with the largest expected PSNR, knowing the average SNR and the
statistics of the channel, or this realisation where ``csi.tx`` tells it: the envelope over all
rows. The receiver knows the row, as from a control channel, uncharged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.csi import CSISource
from channels.units import n0_to_snr_db
from semsim.codecs.envelope import Plan, best_plan
from semsim.codecs.image_codecs import CodecName, Headers, Pixels
from semsim.codecs.outage import Outlook, delivered, with_hidden_noise
from semsim.codecs.stills import (
    Fallback,
    Stills,
    cbr_fraction,
    each,
    pixels_of,
    sources_of,
    symbols_at,
)
from semsim.link import Link
from semsim.phy.bler import measured_mcs
from semsim.phy.frontend import FrontEnd
from semsim.phy.ldpc import Segmentation, ldpc_demodulate, ldpc_modulate, segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_points
from semsim.seeds import stream
from semsim.types import Transmission, WithSideInfo

Engine = Literal["bler", "ldpc"]


class SeparateTransmitter(nn.Module):
    """Image codec, LDPC and QAM at the rate that fits the CBR exactly.

    Args:
        cbr: complex symbols per source value, a number or a fraction such as "1/16".
        codec: image codec.
        mcs: row of 3GPP TS 38.214 table 5.1.3.1-2, or "best" for the envelope over all rows.
        engine: "bler" draws lost blocks from error rates measured with the true decoder; "ldpc"
            encodes and decodes every bit.
        fallback: what an undecodable image becomes: "mean", its mean colour, charged 3 bytes that
            are taken to arrive always, or "grey", mid-grey for nothing.
        headers: "minimal" charges the elementary stream and 5 bytes from which the file is rebuilt
            exactly; "file" charges the whole file.
    """

    link_class: ClassVar[type[nn.Module]]
    uses_csi = True

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        codec: CodecName = "hevc",
        mcs: Literal["best"] | int = "best",
        engine: Engine = "bler",
        fallback: Fallback = "mean",
        headers: Headers = "minimal",
    ) -> None:
        super().__init__()
        cbr_fraction(cbr)
        if mcs != "best":
            mcs_by_index(mcs)
        if engine not in ("bler", "ldpc"):
            raise ValueError(f"engine is 'bler' or 'ldpc', got {engine!r}")
        self.cbr = cbr
        self.mcs = mcs
        self.engine = engine
        self.stills = Stills(codec, headers, fallback)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return K = cbr times the number of source values, rounded down."""
        return symbols_at(self.cbr, shape)

    def rows(self) -> tuple[int, ...]:
        """Return the MCS rows to choose from."""
        return measured_mcs() if self.mcs == "best" else (int(self.mcs),)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"cbr={self.cbr}, codec={self.stills.codec.name}, mcs={self.mcs}, "
            f"engine={self.engine}, fallback={self.stills.fallback}, headers={self.stills.headers}"
        )


class SeparateReceiver(nn.Module):
    """The other end; it takes all that it needs to know from the transmitter's arguments."""


class SeparateLink(Link):
    """A link whose two ends share the chosen MCS; arguments as in :class:`semsim.link.Link`.

    ``Transmission.notes`` holds per item ``mcs``, the row, and ``decoded``, 1 where the image
    arrived. Padding and lost blocks are drawn beside ``generator``, from a seed made of its state,
    so fading and noise are those that any other scheme sees.
    """

    def __init__(
        self,
        transmitter: SeparateTransmitter,
        channel: Channel,
        receiver: SeparateReceiver | None = None,
        *,
        csi_rx: CSISource | None = None,
        csi_tx: CSISource | None = None,
        frontend: FrontEnd | None = None,
    ) -> None:
        super().__init__(
            transmitter,
            channel,
            receiver or SeparateReceiver(),
            csi_rx=csi_rx,
            csi_tx=csi_tx,
            frontend=frontend,
        )
        self.outlook = Outlook(channel, self.csi_rx, self.csi_tx, self.frontend)

    def transmit(
        self,
        source: Tensor,
        snr_db: float | Tensor,
        generator: torch.Generator,
        symbols: Tensor | WithSideInfo | None = None,
        features: Tensor | None = None,
    ) -> Transmission:
        """Send one batch of images; arguments as in :meth:`semsim.link.Link.transmit`."""
        if symbols is not None:
            raise ValueError("a separate link chooses its symbols per SNR; leave symbols out")
        passage = _Passage(self, source, _beside(generator))
        air = Link(
            passage,
            self.channel,
            passage.receive,
            csi_rx=self.csi_rx,
            csi_tx=self.csi_tx,
            frontend=self.frontend,
        )
        sent = air.transmit(source, snr_db, generator)
        return dataclasses.replace(sent, notes=passage.notes())


SeparateTransmitter.link_class = SeparateLink


class _Passage:
    """One batch on its way: both ends of the link, with the plans that they share."""

    uses_csi = True

    def __init__(self, link: SeparateLink, source: Tensor, generator: torch.Generator) -> None:
        self.link = link
        self.transmitter: SeparateTransmitter = link.transmitter  # type: ignore[assignment]
        self.images = pixels_of(source)
        self.generator = generator
        self.plans: list[Plan] = []
        self.symbols = torch.empty(0)
        self.scrambling: list[np.ndarray] = []
        self.decoded: list[bool] = []

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return K."""
        return self.transmitter.num_symbols(shape)

    def notes(self) -> dict[str, Tensor]:
        """Return the row and the success of each item."""
        return {
            "mcs": torch.tensor([plan.cut.mcs.index for plan in self.plans]),
            "decoded": torch.tensor(self.decoded, dtype=torch.float32),
        }

    def __call__(self, source: Tensor, csi: CSI) -> Tensor:
        """Choose rows and qualities, and return symbols [B, 1, K]."""
        num_symbols = self.num_symbols(tuple(source.shape[1:]))
        self.symbols = torch.empty(len(source), 1, num_symbols, dtype=torch.complex64)
        cuts = [segment(num_symbols, mcs_by_index(row)) for row in self.transmitter.rows()]
        stills = self.transmitter.stills
        jobs = [(image, self._odds(cuts, csi, item)) for item, image in enumerate(self.images)]
        self.plans = each(lambda job: best_plan(stills, job[0], cuts, job[1]), jobs)
        for item, plan in enumerate(self.plans):
            self.symbols[item] = self._modulate(plan)
        return self.symbols.to(source.device)

    def receive(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Return the images [B, C, H, W], or what stands in for those that are lost."""
        if csi.h is not None:
            raise ValueError(
                "separate detects each stream by itself and needs a front end that separates "
                "them, got frontend none; use lmmse, zf, svd or rzf"
            )
        read = self._look_up if self.transmitter.engine == "bler" else self._decode
        jobs = []
        for item, plan in enumerate(self.plans):
            message = read(item, plan, y[item, 0].cpu(), csi.n0[item, 0].cpu())
            jobs.append((plan.image, message))
        images = each(lambda job: self._shown(*job), jobs)
        self.decoded = [image is not None for image in images]
        lost = self.transmitter.stills.lost
        shown = [
            lost(plan.image) if image is None else image
            for plan, image in zip(self.plans, images, strict=True)
        ]
        return sources_of(shown, like=y.real.new_empty(0, *shape))

    def _shown(self, sent: Pixels, message: bytes | None) -> Pixels | None:
        """Return the image in a message; None where there is none."""
        if message is None:
            return None
        try:
            image = self.transmitter.stills.unpack(message, *sent.shape[:2])
        except Exception:  # a short CRC passes one wrong block in 65536; codecs choke in many ways
            return None
        return image if image.shape == sent.shape else None

    def _odds(self, cuts: Sequence[Segmentation], csi: CSI, item: int) -> list[float]:
        """Return how likely an image arrives, per row, as far as the transmitter knows."""
        if len(cuts) == 1:
            return [1.0]
        num_symbols = self.symbols.shape[-1]
        if csi.n0.dim() == 1:
            snr_db = round(float(n0_to_snr_db(float(csi.n0[item]))), 4)
            return self.link.outlook.odds(snr_db, tuple(cuts), num_symbols, csi.n0.device)
        n0 = csi.n0[item, :, :num_symbols].cpu()
        return [float(delivered(n0, cut)) for cut in cuts]

    def _modulate(self, plan: Plan) -> Tensor:
        """Return [1, K]: coded blocks, then padding; random symbols where bits do not matter."""
        points = qam_points(plan.cut.mcs.bits_per_symbol)
        shape = (1, self.symbols.shape[-1])
        symbols = points[torch.randint(len(points), shape, generator=self.generator)]
        scrambling = torch.randint(2, (plan.cut.payload,), generator=self.generator)
        self.scrambling.append(scrambling.numpy().astype(np.uint8))
        if self.transmitter.engine == "ldpc" and plan.coded is not None:
            message = self.transmitter.stills.pack(plan.coded, plan.image)
            bits = np.unpackbits(np.frombuffer(message, np.uint8))
            bits = np.pad(bits, (0, plan.cut.payload - len(bits))) ^ self.scrambling[-1]
            blocks = torch.from_numpy(bits).float().view(plan.cut.blocks, -1)
            coded = ldpc_modulate(blocks, plan.cut).reshape(-1)
            symbols[0, : len(coded)] = coded
        return symbols

    def _look_up(self, item: int, plan: Plan, y: Tensor, n0: Tensor) -> bytes | None:
        """Return the message if the draw from its blocks' error rates at this noise says so."""
        n0 = with_hidden_noise(y, self.symbols[item, 0].cpu(), n0, plan.cut.symbols_per_block)
        chance = torch.rand((), generator=self.generator, dtype=torch.float64)
        if plan.coded is None or chance >= delivered(n0[None], plan.cut):
            return None
        return self.transmitter.stills.pack(plan.coded, plan.image)

    def _decode(self, item: int, plan: Plan, y: Tensor, n0: Tensor) -> bytes | None:
        """Return the message if all its blocks can be decoded; zeros follow it."""
        if plan.coded is None:
            return None
        grid = (plan.cut.blocks, plan.cut.symbols_per_block)
        used = math.prod(grid)
        payload, good = ldpc_demodulate(y[:used].view(grid), n0[:used].view(grid), plan.cut)
        if not bool(good.all()):
            return None
        bits = payload.reshape(-1).numpy().astype(np.uint8) ^ self.scrambling[item]
        return np.packbits(bits).tobytes()


def _beside(generator: torch.Generator) -> torch.Generator:
    """Return a generator that depends on this one's state and leaves it where it is."""
    digest = hashlib.sha256(generator.get_state().cpu().numpy().tobytes()).hexdigest()
    return stream(0, "separate", digest)
