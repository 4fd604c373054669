"""What both ends of LCFSC agree on: the sizes by preset, the rate, the antennas.

Source: Xie and others (2024), see ``fusion``. Found in the public release: the sizes of "release".
    Inferred: the unit of 20 dB, and all sizes of "tiny", whose one stage has its odd blocks masked
    and a linear path beside it; and "photo", the Swin codec of the zoo for photos, so that a
    training can begin with its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from channels.base import CSI
from semsim.codecs import swin_jscc
from semsim.codecs.symbols import LatentCodec, latent_channels
from semsim.nn.snr import SNR_SCALE_DB
from semsim.nn.swin_codec import SwinSizes


class Size:
    """The sizes of one preset.

    Args:
        swin: of encoder and decoder.
        stage: scale whose odd blocks are masked, finest first.
        fusion: width of the dense layers of a fusion.
        posterior: hidden widths of the ratio's q.
    """

    def __init__(
        self, swin: SwinSizes, stage: int, fusion: int, posterior: tuple[int, int]
    ) -> None:
        self.swin, self.stage, self.fusion, self.posterior = swin, stage, fusion, posterior

    def masked_blocks(self, *, decoder: bool = False) -> list[int]:
        """Return the blocks of the stage that are masked: those with shifted windows."""
        depths = self.swin.decoder_depths if decoder else self.swin.depths
        return list(range(1, depths[self.stage], 2))


PRESETS = {
    "tiny": Size(
        SwinSizes(
            patch=4, widths=(64,), depths=(4,), decoder_depths=(4,), window=8, mod_layers=2,
            mod_ratio=1.0, linear=4,
        ),
        stage=0, fusion=64, posterior=(128, 64),
    ),
    "photo": Size(swin_jscc.PRESETS["tiny"], stage=0, fusion=64, posterior=(128, 64)),
    "release": Size(
        SwinSizes(
            patch=2, widths=(128, 192, 256, 320), depths=(2, 2, 6, 2),
            decoder_depths=(2, 2, 6, 2), window=8, mod_layers=3, mod_ratio=1.0,
        ),
        stage=2, fusion=512, posterior=(648, 128),
    ),
}  # fmt: skip


class Ends(LatentCodec):
    """What both ends must agree on: the rate, the sizes, the antennas."""

    kind = "lcfsc"
    spec: dict[str, Any]

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        if spec["preset"] not in PRESETS:
            raise ValueError(f"preset is {', '.join(PRESETS)}, got {spec['preset']!r}")
        for name in ("num_tx", "num_rx"):
            if spec[name] < 1:
                raise ValueError(f"{name} must be at least 1, got {spec[name]}")
        self.size = PRESETS[spec["preset"]]
        self.stride = self.size.swin.stride
        self.channels = latent_channels(spec["cbr"], self.stride)
        self.antennas = (spec["num_rx"], spec["num_tx"])
        self.num_facts = 2 * spec["num_rx"] * spec["num_tx"] + 1  #: numbers that describe a channel
        #: the arguments, as kept with weights
        self.spec = {**spec, "cbr": str(self.cbr)}

    def channel_facts(self, h: Tensor, n0: Tensor) -> Tensor:
        """Return [Re H, Im H, SNR / 20 dB], [B, facts], for h [B, R, T, 1] and n0 [B], linear."""
        if h.shape[1:] != (*self.antennas, 1):
            rows, columns = self.antennas
            raise ValueError(
                f"lcfsc takes one channel matrix per image, h [B, {rows}, {columns}, 1] for num_rx "
                f"{rows} and num_tx {columns}, got {list(h.shape)}; set num_rx and num_tx to those "
                "of the channel, and its coherence to block"
            )
        matrix = torch.view_as_real(h.resolve_conj()).movedim(-1, 1).flatten(1)
        snr = CSI(None, n0).effective_snr_db() / SNR_SCALE_DB
        return torch.cat([matrix, snr[:, None].to(matrix.dtype)], dim=1)
