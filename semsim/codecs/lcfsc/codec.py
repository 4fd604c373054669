"""LCFSC: a Swin codec whose encoder lets the MIMO channel choose what attends to what.

Source: Xie and others (2024), see ``fusion``. Found in the public release: the sizes of "release",
    where its masks sit, a ModNet at each end, and a ratio that is learned. Inferred: unit power per
    image; a ModNet that sees the average SNR only, so that H enters by the masks alone; at the
    decoder, symbols scaled by their trust and the trust as an input; LMMSE as the usual front end;
    how many passes refine the ratio; for "tiny" and "photo", the linear path beside the network and
    masks in every second block; and what options below say of themselves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from channels.base import CSI
from channels.checks import check_choice
from semsim.codecs.lcfsc.arguments import MASKS, Fusion, check, check_decoder, idle_at_decoder
from semsim.codecs.lcfsc.estimator import NoisePurifier
from semsim.codecs.lcfsc.facts import Facts, FactsOf, noise_behind, stream_facts
from semsim.codecs.lcfsc.fusion import Sources
from semsim.codecs.lcfsc.masks import MaskedEnd
from semsim.codecs.lcfsc.ratio import OPEN_RATIOS, RELEASE_RATIOS, RatioGenerator
from semsim.codecs.symbols import pad_to_stride, shown, symbol_trust, to_latent, to_symbols
from semsim.nn.snr import SNR_SCALE_DB
from semsim.nn.swin import Attend
from semsim.nn.swin_codec import SwinDecoder, SwinEncoder, no_logits
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter

Preset = Literal["tiny", "release", "photo"]


class LCFSCTransmitter(MaskedEnd, Transmitter):
    """Image to complex symbols of unit power, by a Swin encoder with channel-dependent masks.

        image ─► Swin encoder ─► ModNet(average SNR) ─► pair halves of the channels ─► unit power ─► x
                     ▲ masks in every second block
        H, SNR ─► (npn) ─► fusion with the tokens ─► scores ─► mask the share `ratio`
          └─► front end ─► noise it will leave ─► map of token qualities (facts: streams)

    The ModNet sees the average SNR alone, so that H enters by the masks and nowhere else.

    Args:
        cbr: complex symbols per source value over all antennas, a number or a fraction.
        preset: "tiny", one stage of width 64 for 64 x 64 images on a CPU with a linear path beside
            it, "release", the sizes of the authors' code for 128 x 128, or "photo", those of
            ``swin_jscc`` tiny: a training that starts at weights of that codec takes all but its
            heatmap at the transmitter (the layer ``trust``), which only "concat" over streams has.
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
        facts: what fusion is told of the channel: H and the SNR, or "streams": how good the stream
            is on which each token travels behind the front end, so that no mask need learn an SVD.
            Inferred. Fits any antennas; tokens differ only where the number of streams divides the
            number of tokens.
        per_head: mask pairs in each attention head by scores of its own. Inferred: heads look for
            different things, and one mask takes the same from all.
        sink: give each masked block's attention a key and a value of zeros, which is never masked,
            and let a position be masked from itself. Inferred: else each row of weights sums to one
            and a token cannot tell by what it gets that it is masked; with it, attention may add
            nothing to tokens on bad streams.
        start_open: start a learned ratio at candidate 0. Inferred: a codec that begins with its
            plain twin's weights computes the same, and learns to mask where that helps.

    Arguments that the others leave without effect are refused.
    """  # noqa: E501 - the diagram

    sees_channel = True  #: H itself, not only the noise that the front end will leave
    later_options: ClassVar = ("facts", "per_head", "start_open", "sink")

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
        facts: FactsOf = "channel",
        per_head: bool = False,
        start_open: bool = False,
        sink: bool = False,
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "num_tx": num_tx, "num_rx": num_rx, "fusion": fusion,
             "sources": sources, "ratio": ratio, "candidates": list(candidates), "passes": passes,
             "npn": npn, "facts": facts, "per_head": per_head, "start_open": start_open,
             "sink": sink}
        )  # fmt: skip
        check(self.spec)
        self.uses_csi = True
        beside = self.num_facts if facts == "channel" else self.channels // 2
        heatmap = beside if fusion == "concat" else 0
        self.encoder = SwinEncoder(
            self.channels, self.size.swin, snr_unit=SNR_SCALE_DB, heatmap=heatmap
        )
        with torch.random.fork_rng([]):  # the backbone and all that follows start as without fusion
            self._add_masks(self.spec)
            self.estimator = NoisePurifier() if npn else None

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        return self.symbols_on_grid(shape)

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K].

        Args:
            source: [B, 3, H, W] in [0, 1].
            csi: h [B, R, T, 1] and n0 [B], linear; with ``facts="streams"`` what the front end will
                leave is looked at in place of h, and with ``fusion="none"`` neither.
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
        choice = self._choice(image, csi, self._known(csi, image), self.ratios)
        return self.ratios.ratio(choice), choice

    def _clean(self, csi: CSI) -> CSI:
        if self.estimator is None or csi.h is None:
            return csi
        return replace(csi, h=self.estimator(csi.h[..., 0], csi.n0)[..., None])

    def _latent(self, image: Tensor, csi: CSI, generator: torch.Generator | None) -> Tensor:
        snr_db = CSI(None, csi.n0).effective_snr_db()
        if self.spec["fusion"] == "none":
            return self.encoder(image, snr_db)
        facts = self._known(csi, image)
        if self.spec["fusion"] == "concat":
            return self.encoder(image, snr_db, facts.beside(self.grid(image.shape[1:])))
        if self.ratios is None:
            ratio = image.new_full((len(image),), self.spec["ratio"])
        else:
            ratio = self.ratios.ratio(self._choice(image, csi, facts, self.ratios, generator))
        return self.encoder(image, snr_db, attend=self._attend(facts, ratio))

    def _known(self, csi: CSI, image: Tensor) -> Facts:
        if self.spec["facts"] == "streams":
            snr_db = CSI(None, csi.n0).effective_snr_db()
            grid = self.grid(image.shape[1:])
            return stream_facts(noise_behind(csi), snr_db, self.channels // 2, grid)
        if csi.h is None:
            raise ValueError(
                f"fusion {self.spec['fusion']} needs the channel at the transmitter, which knows "
                "none; set csi.tx to perfect, pilots or feedback, or fusion: none"
            )
        return Facts(self.channel_facts(csi.h, csi.n0))

    def _choice(
        self,
        image: Tensor,
        csi: CSI,
        facts: Facts,
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
            choice = ratios(would_send, facts.numbers, choice, generator)
        return choice


class LCFSCReceiver(MaskedEnd, Receiver):
    """Received symbols to image, by a Swin decoder with channel-dependent masks.

        y, n0 ─► · trust = 1 / (1 + n0) ─► unpair ─► Swin decoder(latent, trust, SNR) ─► crop ─► image

    Behind ``frontend: none``, the release's receiver, y [B, R, N] is taken stream by stream as it
    came, which needs as many receive as transmit antennas.

    Args:
        cbr, preset, num_tx, num_rx: as in :class:`LCFSCTransmitter`.
        beside: what the decoder sees beside the symbols: "trust", how much each can be trusted, or
            "channel", H and the SNR as well, which only ``frontend: none`` leaves to it.
        masked: mask pairs in every second block of the decoder too, told of the streams behind the
            front end. Inferred: tokens that arrived badly can be kept from the others.
        masked_ratio: what ``ratio`` is at the transmitter, for the decoder's masks, "learned" among
            0 to 1 from what arrived; without ``start_open`` it starts near 0.44 of the pairs.
        per_head, start_open: as in :class:`LCFSCTransmitter`; taken over where they have an effect.
    """  # noqa: E501 - the diagram

    decodes = True
    without_effect = staticmethod(idle_at_decoder)  #: not taken over from the transmitter
    later_options: ClassVar = ("masked", "masked_ratio", "per_head", "start_open")

    def __init__(
        self,
        cbr: float | str = "1/16",
        *,
        preset: Preset = "tiny",
        num_tx: int = 8,
        num_rx: int = 8,
        beside: Literal["trust", "channel"] = "trust",
        masked: bool = False,
        masked_ratio: float | Literal["learned"] = "learned",
        per_head: bool = False,
        start_open: bool = False,
    ) -> None:
        super().__init__(
            {"cbr": cbr, "preset": preset, "num_tx": num_tx, "num_rx": num_rx, "beside": beside,
             "masked": masked, "masked_ratio": masked_ratio, "per_head": per_head,
             "start_open": start_open}
        )  # fmt: skip
        check_choice("beside", beside, ("trust", "channel"))
        check_decoder(self.spec)
        planes = self.channels // 2 + (self.num_facts if beside == "channel" else 0)
        self.decoder = SwinDecoder(
            self.channels, self.size.swin, snr_unit=SNR_SCALE_DB, heatmap=planes
        )
        with torch.random.fork_rng([]):
            self._add_masks(
                {**self.spec, "fusion": "masked" if masked else "none", "sources": "both",
                 "ratio": masked_ratio, "candidates": OPEN_RATIOS, "facts": "streams",
                 "sink": False}
            )  # fmt: skip

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the image [B, *shape]; clamped to [0, 1] unless training.

        Args:
            y: [B, 1, K] after a front end, with n0 [B, 1, K]; or [B, R, N] with h, and n0 [B] or
                [B, 1, N].
            csi: as above.
            shape: the image's, [3, H, W].
        """
        height, width = self.grid(shape)
        symbols = self.symbols_on_grid(shape)
        streams = self._symbols(y, csi, symbols)
        n0 = csi.n0 if csi.n0.dim() == 1 else csi.n0.repeat_interleave(y.shape[1], dim=-1)
        trust = symbol_trust(n0, symbols)
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
        attend = self._masks(latent, csi, generator) if self.spec["masked"] else no_logits
        image = self.decoder(latent, csi.effective_snr_db(), trust, attend=attend)
        return shown(image, shape, training=self.training)

    def _masks(self, latent: Tensor, csi: CSI, generator: torch.Generator | None) -> Attend:
        """Return what the decoder adds to its logits, given what arrived and how well."""
        if csi.h is not None:
            raise ValueError(
                "masked: true needs a front end such as svd or lmmse, as frontend none leaves the "
                "streams mixed; write one, or masked: false"
            )
        height, width = latent.shape[-2:]
        facts = stream_facts(csi.n0, csi.effective_snr_db(), self.channels // 2, (height, width))
        if self.ratios is None:
            return self._attend(facts, latent.new_full((len(latent),), self.spec["masked_ratio"]))
        first = self.ratios.first_choice(len(latent))
        choice = self.ratios(latent, facts.numbers, first, generator)
        return self._attend(facts, self.ratios.ratio(choice))

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
