"""LCFSC: a Swin codec whose encoder lets the MIMO channel choose what attends to what.

Source: Xie and others (2024), see ``fusion``. Found in the public release: the sizes of "release",
    where its masks sit, a ModNet at each end, and a ratio that is learned. Inferred: unit power per
    image; a ModNet that sees the average SNR only, so that H enters by the masks alone; at the
    decoder, symbols scaled by their trust and the trust as an input; LMMSE as the usual front end;
    how many passes refine the ratio; for "tiny", the linear path beside the network and masks in
    every second block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from channels.base import CSI
from channels.checks import check_choice
from semsim.codecs.lcfsc.arguments import MASKS, Fusion, check
from semsim.codecs.lcfsc.ends import Ends
from semsim.codecs.lcfsc.estimator import NoisePurifier
from semsim.codecs.lcfsc.fusion import CSIFusion, Sources, mask_logits, random_scores
from semsim.codecs.lcfsc.ratio import RELEASE_RATIOS, RatioGenerator
from semsim.codecs.symbols import pad_to_stride, shown, symbol_trust, to_latent, to_symbols
from semsim.nn.snr import SNR_SCALE_DB
from semsim.nn.swin import Attend
from semsim.nn.swin_codec import SwinDecoder, SwinEncoder
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmission, Transmitter

Preset = Literal["tiny", "release"]


class LCFSCTransmitter(Ends, Transmitter):
    """Image to complex symbols of unit power, by a Swin encoder with channel-dependent masks.

        image ─► Swin encoder ─► ModNet(average SNR) ─► pair halves of the channels ─► unit power ─► x
                     ▲ masks in every second block
        H, SNR ─► (npn) ─► fusion with the tokens ─► scores ─► mask the share `ratio`

    The ModNet sees the average SNR alone, so that H enters by the masks and nowhere else.

    Args:
        cbr: complex symbols per source value over all antennas, a number or a fraction.
        preset: "tiny", one stage of width 64 for 64 x 64 images on a CPU with a linear path beside
            it, or "release", the sizes of the authors' code for 128 x 128.
        num_tx, num_rx: antennas of the channel; H is one matrix per image.
        fusion: "masked"; "none", the plain codec; and two controls: "random" masks random pairs,
            "concat" puts H and the SNR beside the tokens (invasive).
        sources: what the score of a mask sees.
        ratio: "learned", by the variational autoencoder, or a fixed share of pairs to mask.
        candidates: ratios between which "learned" weighs; the release's by default.
        passes: how often the ratio is refined; each costs one pass of the encoder without gradient.
        npn: whether H is cleaned before use, for a channel known from pilots. From YAML the
            cleaning is trained end to end; in Python :func:`~semsim.codecs.lcfsc.estimator.pretrain`
            can train ``estimator`` before.

    Arguments that the others leave without effect are refused.
    """  # noqa: E501 - the diagram

    sees_channel = True  #: H itself, not only the noise that the front end will leave

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        preset: Preset = "tiny",
        num_tx: int = 8,
        num_rx: int = 8,
        fusion: Fusion = "masked",
        sources: Sources = "both",
        ratio: float | Literal["learned"] = "learned",
        candidates: tuple[float, ...] = RELEASE_RATIOS,
        passes: int = 1,
        npn: bool = False,
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "num_tx": num_tx, "num_rx": num_rx, "fusion": fusion,
             "sources": sources, "ratio": ratio, "candidates": list(candidates), "passes": passes,
             "npn": npn}
        )  # fmt: skip
        check(self.spec)
        self.uses_csi = True
        heatmap = self.facts if fusion == "concat" else 0
        self.encoder = SwinEncoder(
            self.channels, self.size.swin, snr_unit=SNR_SCALE_DB, heatmap=heatmap
        )
        self.fusions = nn.ModuleDict()
        self.ratios: RatioGenerator | None = None
        with torch.random.fork_rng([]):  # the backbone and all that follows start as without fusion
            self._add_fusion()
            self.estimator = NoisePurifier() if npn else None

    def _add_fusion(self) -> None:
        size, spec = self.size, self.spec
        if spec["fusion"] == "masked":
            width = size.swin.widths[size.stage]
            for block in size.masked_blocks():
                self.fusions[str(block)] = CSIFusion(
                    width, self.facts, window=size.swin.window, hidden=size.fusion,
                    sources=spec["sources"],
                )  # fmt: skip
        if spec["fusion"] in MASKS and spec["ratio"] == "learned":
            self.ratios = RatioGenerator(
                self.channels, self.facts, candidates=spec["candidates"], hidden=size.posterior
            )

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        return self.symbols_on_grid(shape)

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K].

        Args:
            source: [B, 3, H, W] in [0, 1].
            csi: h [B, R, T, 1] and n0 [B], linear; h may be None for ``fusion="none"``.
            generator: of the learned ratio, which draws while training.
        """
        self.grid(tuple(source.shape[1:]))
        image = pad_to_stride(source, self.stride)
        return unit_power(to_symbols(self._latent(image, self._clean(csi), generator)))

    def masking(self, source: Tensor, csi: CSI) -> tuple[Tensor, Tensor | None]:
        """Return the masking ratio [B] of each image, and y [B, choices] where it is learned."""
        if self.ratios is None:
            fixed = self.spec["ratio"] if self.spec["fusion"] in MASKS else 0.0
            return source.new_full((len(source),), fixed), None
        image, csi = pad_to_stride(source, self.stride), self._clean(csi)
        choice = self._choice(image, csi, self._known(csi), self.ratios)
        return self.ratios.ratio(choice), choice

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor | float:
        """Return what the learned ratio asks of itself."""
        return 0.0 if self.ratios is None else self.ratios.auxiliary_loss(progress)

    def _clean(self, csi: CSI) -> CSI:
        if self.estimator is None or csi.h is None:
            return csi
        return replace(csi, h=self.estimator(csi.h[..., 0], csi.n0)[..., None])

    def _latent(self, image: Tensor, csi: CSI, generator: torch.Generator | None) -> Tensor:
        snr_db = CSI(None, csi.n0).effective_snr_db()
        if self.spec["fusion"] == "none":
            return self.encoder(image, snr_db)
        facts = self._known(csi)
        if self.spec["fusion"] == "concat":
            height, width = (s // self.stride for s in image.shape[-2:])
            return self.encoder(
                image, snr_db, facts[:, :, None, None].expand(-1, -1, height, width)
            )
        if self.ratios is None:
            ratio = facts.new_full((len(facts),), self.spec["ratio"])
        else:
            ratio = self.ratios.ratio(self._choice(image, csi, facts, self.ratios, generator))
        return self.encoder(image, snr_db, attend=self._attend(facts, ratio))

    def _known(self, csi: CSI) -> Tensor:
        if csi.h is None:
            raise ValueError(
                f"fusion {self.spec['fusion']} needs the channel at the transmitter, which knows "
                "none; set csi.tx to perfect, pilots or feedback, or fusion: none"
            )
        return self.channel_facts(csi.h, csi.n0)

    def _choice(
        self,
        image: Tensor,
        csi: CSI,
        facts: Tensor,
        ratios: RatioGenerator,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return y: what the encoder would send under the last y decides on the next."""
        snr_db = CSI(None, csi.n0).effective_snr_db()
        choice = ratios.first_choice(len(image))
        for _ in range(self.spec["passes"]):
            with torch.no_grad():
                attend = self._attend(facts, ratios.ratio(choice))
                would_send = self.encoder(image, snr_db, attend=attend)
            choice = ratios(would_send, facts, choice, generator)
        return choice

    def _attend(self, facts: Tensor, ratio: Tensor) -> Attend:
        """Return what the encoder adds to the logits of the masked blocks."""
        size = self.size

        def logits(stage: int, block: int, x: Tensor) -> Tensor | None:
            if stage != size.stage or block not in size.masked_blocks():
                return None
            window = size.swin.window
            if min(x.shape[1:3]) < window:
                least = window * self.stride // 2 ** (len(size.swin.widths) - 1 - stage)
                raise ValueError(
                    f"lcfsc masks windows of {window} x {window} tokens and needs images of at "
                    f"least {least} x {least} pixels; scale them up or set fusion: none"
                )
            return mask_logits(self._scores(block, x, facts), ratio)

        return logits

    def _scores(self, block: int, x: Tensor, facts: Tensor) -> Tensor:
        if self.spec["fusion"] == "random":
            tokens = torch.cat([x.mean(dim=(1, 2)), facts], dim=1)
            return random_scores(tokens, self.size.swin.window**2)
        return self.fusions[str(block)](x, facts)


class LCFSCReceiver(Ends, Receiver):
    """Received symbols to image, by a Swin decoder with channel-dependent masks.

        y, n0 ─► · trust = 1 / (1 + n0) ─► unpair ─► Swin decoder(latent, trust, SNR) ─► crop ─► image

    Behind ``frontend: none``, the release's receiver, y [B, R, N] is taken stream by stream as it
    came, which needs as many receive as transmit antennas. Arguments as in
    :class:`LCFSCTransmitter`.

    Args:
        cbr, preset, num_tx, num_rx: as in :class:`LCFSCTransmitter`.
        beside: what the decoder sees beside the symbols: "trust", how much each can be trusted, or
            "channel", H and the SNR as well, which only ``frontend: none`` leaves to it.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        preset: Preset = "tiny",
        num_tx: int = 8,
        num_rx: int = 8,
        beside: Literal["trust", "channel"] = "trust",
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "num_tx": num_tx, "num_rx": num_rx, "beside": beside}
        )
        check_choice("beside", beside, ("trust", "channel"))
        planes = self.channels // 2 + (self.facts if beside == "channel" else 0)
        self.decoder = SwinDecoder(
            self.channels, self.size.swin, snr_unit=SNR_SCALE_DB, heatmap=planes
        )

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the image [B, *shape]; clamped to [0, 1] unless training.

        Args:
            y: [B, 1, K] after a front end, with n0 [B, 1, K]; or [B, R, N] with h and n0 [B].
            csi: as above.
            shape: the image's, [3, H, W].
        """
        height, width = self.grid(shape)
        symbols = self.symbols_on_grid(shape)
        streams = self._symbols(y, csi, symbols)
        trust = symbol_trust(csi.n0, symbols)
        latent = to_latent(streams * trust, self.channels, height, width)
        trust = trust.reshape(len(y), self.channels // 2, height, width)
        if self.spec["beside"] == "channel":
            if csi.h is None:
                raise ValueError(
                    "beside: channel needs frontend: none, as other front ends leave no channel to "
                    "the lcfsc receiver; write that, or beside: trust"
                )
            facts = self.channel_facts(csi.h, csi.n0)[:, :, None, None]
            trust = torch.cat([trust, facts.expand(-1, -1, height, width)], dim=1)
        image = self.decoder(latent, csi.effective_snr_db(), trust)
        return shown(image, shape, training=self.training)

    def _symbols(self, y: Tensor, csi: CSI, symbols: int) -> Tensor:
        """Return [B, K], symbol k from stream k mod R."""
        if csi.h is not None:
            if self.antennas[0] != self.antennas[1]:
                raise ValueError(
                    "behind frontend none lcfsc takes each receive antenna for a stream and needs "
                    f"num_rx = num_tx, got {self.antennas[0]} and {self.antennas[1]}; use lmmse"
                )
            y = y.transpose(1, 2).reshape(len(y), 1, -1)[..., :symbols]
        if y.shape[1:] != (1, symbols):
            raise ValueError(
                f"the lcfsc receiver takes [B, 1, {symbols}] symbols for this image, got "
                f"{list(y.shape)}; cbr and preset must be those of the transmitter"
            )
        return y[:, 0]
