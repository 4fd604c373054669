"""FLSC: coarse semantics that serve every task, fine ones for pixels, a translator per task.

Source: see ``extractor`` and ``translator``. Found: the coarse semantics, the channel encoder of
    dense layers per token, SVD over MIMO, translators per task. Inferred: fine semantics of the
    second scale, sent where a task wants pixels; coarse ones on the strongest streams. Ours: no
    GELU on what is sent, which would leave three quarters of the constellation unused; unit power
    per image; symbols scaled by their trust, which the decoder also sees.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn

from channels.base import CSI
from channels.checks import check_choice, check_count
from semsim.codecs.flsc.extractor import FINE_STRIDE, PRESETS, STRIDE, Extractor
from semsim.codecs.flsc.translator import (
    ChannelDecoder,
    FineEncoder,
    ImageTranslator,
    LabelTranslator,
    Translator,
)
from semsim.codecs.symbols import (
    LatentCodec,
    check_equalised,
    latent_channels,
    pad_to_stride,
    shown,
    symbol_trust,
    to_latent,
    to_symbols,
)
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter

Preset = Literal["tiny", "published"]
TaskName = Literal["reconstruct", "classify", "retrieve"]
FineFor = Literal["pixels", "all"]


class _Codec(LatentCodec):
    """What both ends must agree on: the rates, what is sent for the task, the streams."""

    kind = "flsc"
    spec: dict[str, Any]

    def __init__(
        self, cbr: float | str, preset: Preset, task: TaskName, fine: float | str | None,
        fine_for: FineFor, num_streams: int,
    ) -> None:  # fmt: skip
        super().__init__()
        check_choice("preset", preset, tuple(PRESETS))
        check_choice("task", task, ("reconstruct", "classify", "retrieve"))
        check_choice("fine_for", fine_for, ("pixels", "all"))
        check_count("num_streams", num_streams, "behind frontend svd min(num_tx, num_rx)")
        self.sizes, self.stride, self.num_streams = PRESETS[preset], STRIDE, num_streams
        self.channels = latent_channels(cbr, STRIDE)
        is_sent = fine is not None and (task == "reconstruct" or fine_for == "all")
        of_fine = 0 if fine is None else self._fine_channels(fine)
        self.fine_channels = of_fine if is_sent else 0
        self.spec = {
            "cbr": str(Fraction(self.channels, 6 * STRIDE**2)), "preset": preset, "task": task,
            "fine": None if fine is None else str(Fraction(of_fine, 6 * FINE_STRIDE**2)),
            "fine_for": fine_for, "num_streams": num_streams,
        }  # fmt: skip

    @staticmethod
    def _fine_channels(fine: float | str) -> int:
        try:
            return latent_channels(fine, FINE_STRIDE)
        except ValueError as error:
            raise ValueError(f"fine: {error}") from None

    @property
    def cbr(self) -> Fraction:
        """Complex symbols per source value, fine semantics included where they are sent."""
        fine = Fraction(self.fine_channels, 6 * FINE_STRIDE**2)
        return Fraction(self.channels, 6 * STRIDE**2) + fine

    def counts(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the symbols of coarse and of fine semantics for an image [3, H, W]."""
        height, width = self.grid(shape)
        per_token = (STRIDE // FINE_STRIDE) ** 2
        tokens = height * width
        return self.channels // 2 * tokens, self.fine_channels // 2 * tokens * per_token


class FLSCTransmitter(_Codec, Transmitter):
    """Image to complex symbols of unit power, by a hierarchical vision transformer.

        image ─► extractor ─┬─► coarse ─► dense per token ─┬─► strongest streams first ─► unit power ─► x
                            └─► fine ─► + linear transform ┘

    What the extractor finds does not depend on the task; the task decides whether fine semantics
    are sent as well.

    Args:
        cbr: complex symbols per source value of the coarse semantics, a multiple of 1/3072.
        preset: "tiny", for 64 x 64 images on a CPU, or "published", the authors' sizes.
        task: what the receiver makes of it: "reconstruct", "classify" or "retrieve".
        fine: CBR of the fine semantics, a multiple of 1/192; null for coarse ones alone.
        fine_for: "pixels" sends fine semantics where the task is reconstruct, "all" always.
        num_streams: streams of the link, min(num_tx, num_rx) behind frontend svd; the coarse
            semantics go on the strongest ones. 1 for no such order.
    """  # noqa: E501 - the diagram

    uses_csi = False
    of_task = ("fine",)

    def __init__(
        self,
        cbr: float | str = "1/48",
        *,
        preset: Preset = "tiny",
        task: TaskName = "reconstruct",
        fine: float | str | None = "1/24",
        fine_for: FineFor = "pixels",
        num_streams: int = 1,
    ) -> None:
        super().__init__(cbr, preset, task, fine, fine_for, num_streams)
        width = self.sizes.widths[-1]
        self.extractor = Extractor(self.sizes)
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.GELU(), nn.Conv2d(width, self.channels, 1)
        )
        self.fine = (
            FineEncoder(self.sizes.widths[1], self.fine_channels) if self.fine_channels else None
        )

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to multiples of 32."""
        return sum(self.counts(shape))

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K] for source [B, 3, H, W] in [0, 1]."""
        self.grid(tuple(source.shape[1:]))
        image = pad_to_stride(source, STRIDE)
        coarse, fine = self.extractor(image)
        parts = [to_symbols(self.coarse(coarse))]
        if self.fine is not None:
            parts.append(to_symbols(self.fine(image, fine)))
        return self.as_sent(unit_power(torch.cat(parts, dim=-1)))


class FLSCReceiver(_Codec, Receiver):
    """Received symbols to what the task wants: an image, scores of classes or an embedding.

        y ─► · trust = 1 / (1 + n0) ─┬─► coarse ─► shared decoder ─► translator ─► estimate
                                     └─► fine ─────────────────────────▲

    Arguments as in :class:`FLSCTransmitter`. For "classify" the estimate is [B, classes] and goes
    with ``task: recognise``; for "retrieve" it is [B, embedding] of length 1, with ``task:
    retrieve``.

    Args:
        cbr, preset, task, fine, fine_for, num_streams: as in :class:`FLSCTransmitter`.
        classes: how many, for "classify".
        embedding: numbers in an embedding, for "retrieve".
        norm: "batch" or "group" norms in the image translator; the preset's where null.
    """

    of_task = ("translator",)

    def __init__(
        self,
        cbr: float | str = "1/48",
        *,
        preset: Preset = "tiny",
        task: TaskName = "reconstruct",
        fine: float | str | None = "1/24",
        fine_for: FineFor = "pixels",
        num_streams: int = 1,
        classes: int = 10,
        embedding: int = 64,
        norm: Literal["batch", "group"] | None = None,
    ) -> None:
        super().__init__(cbr, preset, task, fine, fine_for, num_streams)
        if classes < 2 or embedding < 2:
            name = "classes" if classes < 2 else "embedding"
            raise ValueError(f"{name} is at least 2, got {min(classes, embedding)}")
        norm = norm or self.sizes.norm  # type: ignore[assignment]
        check_choice("norm", str(norm), ("batch", "group"))
        self.spec |= {"classes": classes, "embedding": embedding, "norm": norm}
        self.decoder = ChannelDecoder(self.channels, self.sizes)
        self.translator = self._translator()

    def _translator(self) -> Translator:
        spec, fine = self.spec, self.fine_channels
        if spec["task"] == "reconstruct":
            return ImageTranslator(self.sizes, fine, spec["norm"])
        unit = spec["task"] == "retrieve"
        outputs = spec["embedding" if unit else "classes"]
        return LabelTranslator(self.sizes, fine, outputs, unit=unit)

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the image [B, *shape], clamped to [0, 1] unless training; or [B, outputs].

        Args:
            y: [B, 1, K] after a front end.
            csi: n0 [B, 1, K], the noise left in it.
            shape: the image's, [3, H, W].
        """
        coarse_count, fine_count = self.counts(shape)
        count = coarse_count + fine_count
        if csi.h is None and y.shape[-1] != count:
            raise ValueError(
                f"flsc awaits {count} symbols for task {self.spec['task']!r}, got {y.shape[-1]}; "
                "give transmitter and receiver the same task, cbr, fine and fine_for"
            )
        check_equalised(self.kind, y, csi, count, shape)
        places = self.order(count, y.device)
        trust = symbol_trust(csi.n0, count)[:, places]
        symbols = y[:, 0, places] * trust
        height, width = self.grid(shape)
        latent = to_latent(symbols[:, :coarse_count], self.channels, height, width)
        beside = trust[:, :coarse_count].reshape(len(y), self.channels // 2, height, width)
        tokens = self.decoder(latent, beside, self.translator.embedding)
        fine = None
        if fine_count:
            times = STRIDE // FINE_STRIDE
            grid = (height * times, width * times)
            fine_latent = to_latent(symbols[:, coarse_count:], self.fine_channels, *grid)
            seen = trust[:, coarse_count:].reshape(len(y), self.fine_channels // 2, *grid)
            fine = torch.cat([fine_latent, seen], dim=1)
        output = self.translator(tokens, fine)
        if self.spec["task"] != "reconstruct":
            return output
        return shown(output, shape, training=self.training)
