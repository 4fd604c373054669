"""What the masks of LCFSC are told of the channel: H itself, or what each token can expect of it.

    n0 of each symbol ─► SNR in dB / 20 ─► mean over a token's symbols ─┬─► plane [h, w] ─► windows
                                                                        └─► sorted, 8 of them

A link puts symbol k on stream k mod S, and the symbols of a latent [pairs, h, w] are numbered in
this order. Where S divides h w, all symbols of token (i, j) travel on stream (i w + j) mod S; where
it does not, on several, and the token counts as their mean: it fits any antennas; tokens differ
only where the number of streams divides the number of tokens. Where S divides the side of a window
too, the tokens at one place of all windows share a stream, so that one map serves all windows;
otherwise it holds the mean. Behind SVD stream 0 is the strongest eigenmode.

Inferred, all of it: the paper flattens H into dense layers, which then have to learn a singular
value decomposition and on which stream each position travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from channels.base import CSI
from channels.units import linear_to_db
from semsim.codecs.symbols import symbol_trust
from semsim.nn.snr import SNR_RANGE_DB, SNR_SCALE_DB, snr_number
from semsim.nn.windows import window_layout

FactsOf = Literal["channel", "streams"]
LEVELS = 8  #: token qualities, from worst to best, among the numbers; up to 8 streams show all
STREAM_NUMBERS = LEVELS + 1
PLANES = 2  #: quality of each token, and the SNR


@dataclass(frozen=True)
class Facts:
    """What is known of the channel of each item.

    Args:
        numbers: [B, F].
        planes: of :func:`stream_facts`, [B, 2, h, w]; None where H itself is told.
        trust: 1 / (1 + n0) of each symbol, [B, pairs, h, w]; likewise.
    """

    numbers: Tensor
    planes: Tensor | None = None
    trust: Tensor | None = None

    def for_scores(self) -> Tensor:
        """Return what :class:`~semsim.codecs.lcfsc.fusion.CSIFusion` takes."""
        return self.numbers if self.planes is None else self.planes

    def beside(self, grid: tuple[int, int]) -> Tensor:
        """Return what a network takes beside its tokens, [B, C, h, w]."""
        if self.trust is not None:
            return self.trust
        return self.numbers[:, :, None, None].expand(-1, -1, *grid)


def stream_facts(n0: Tensor, snr_db: Tensor, pairs: int, grid: tuple[int, int]) -> Facts:
    """Return what the noise behind a front end says of each token.

    Args:
        n0: of each symbol, [B, 1, >= K], or [B] for all alike.
        snr_db: that the masks are told beside it, [B].
        pairs: symbols per token.
        grid: tokens, height and width; K = pairs h w.
    """
    symbols = pairs * grid[0] * grid[1]
    each = n0.reshape(len(n0), -1)[:, :symbols].expand(-1, symbols)
    db = -linear_to_db(each).clamp(-SNR_RANGE_DB[1], -SNR_RANGE_DB[0])
    quality = (db / SNR_SCALE_DB).reshape(-1, pairs, *grid).mean(dim=1)
    snr = snr_number(snr_db).to(quality.dtype)
    planes = torch.stack([quality, snr[:, :, None].expand_as(quality)], dim=1)
    ranked = quality.flatten(1).sort(dim=1).values
    places = torch.linspace(0, ranked.shape[1] - 1, LEVELS, device=n0.device).round().long()
    trust = symbol_trust(n0, symbols).reshape(-1, pairs, *grid)
    return Facts(torch.cat([ranked[:, places], snr], dim=1), planes, trust)


def noise_behind(csi: CSI) -> Tensor:
    """Return the noise that the front end will leave on each symbol, [B, 1, >= K].

    Raises:
        ValueError: the transmitter does not know the channel, or no front end separates streams.
    """
    with torch.autocast(csi.n0.device.type, enabled=False):  # a front end is no network
        after = csi if csi.foreseen is None else csi.foreseen()
    if not after.separated:
        raise ValueError(
            "facts: streams needs the noise that a front end will leave on each symbol, which the "
            "transmitter does not know; set csi.tx to perfect, pilots or feedback and frontend to "
            "svd or lmmse, or set fusion: none"
        )
    return after.n0


def in_window(planes: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Return the mean over all shifted windows of what lies at each of their places.

    Args:
        planes: [B, C, h, w].
        grid: of the tokens that attend, which may be finer than h x w; at least one window.
        window: its side.

    Returns:
        [B, C, window, window]; where tokens are missing in a window, the mean of the others.
    """
    fine = functional.interpolate(planes, grid)
    layout = window_layout(*grid, window, window // 2)
    there = torch.cat([fine, torch.ones_like(fine[:, :1])], dim=1).permute(0, 2, 3, 1)
    tokens = layout.split(there).view(len(planes), layout.windows, window, window, -1)
    mean = tokens.mean(dim=1).permute(0, 3, 1, 2)
    return mean[:, :-1] / mean[:, -1:]
