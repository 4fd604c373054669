"""How likely all blocks of a message arrive, for the noise that each symbol meets."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from channels.base import CSI, Channel
from channels.csi import CSISource
from semsim.link import Link
from semsim.phy.bler import block_error_rate
from semsim.phy.frontend import FrontEnd
from semsim.phy.ldpc import Segmentation
from semsim.phy.qam import qam_effective_snr_db, qam_points
from semsim.seeds import stream

_PROBE_SYMBOLS = 1024
_PROBE_VALUES = 1 << 18  # realisations times symbols of a probe
_REALISATIONS = (8, 256)  # at least, at most


def delivered(n0: Tensor, cut: Segmentation) -> Tensor:
    """Return the probability that every block arrives, [B].

    Each block counts with the SNR of the AWGN channel of the same mutual information.

    Args:
        n0: noise left per symbol, [B, K], linear; a shorter stretch stands for all blocks.
        cut: blocks, in order of the symbols.
    """
    if cut.blocks == 0:
        return n0.new_zeros(len(n0), dtype=torch.float64)
    used, times = cut.blocks * cut.symbols_per_block, 1
    if n0.shape[-1] >= used:
        n0 = n0[:, :used].reshape(len(n0), cut.blocks, cut.symbols_per_block)
    else:
        n0, times = n0[:, None], cut.blocks
    snr_db = qam_effective_snr_db(n0, cut.mcs.bits_per_symbol)
    loss = block_error_rate(snr_db, cut.mcs.index, cut.coded)
    return (1 - loss).prod(dim=-1) ** times


def with_hidden_noise(y: Tensor, symbols: Tensor, n0: Tensor, stretch: int) -> Tensor:
    """Return n0 [K], raised where symbols came out worse than the receiver believes.

    Wrong CSI, clipping or phase noise do not show in n0. Over a stretch of L symbols, honest noise
    has mean |y - x|^2 / n0 = 1 with standard error 1 / sqrt(L); beyond five of them it is not.

    Args:
        y: symbols as received, [K], complex.
        symbols: as sent, [K], complex.
        n0: what the front end believes it left, [K], linear.
        stretch: L.
    """
    stretch = min(max(stretch, 1), len(y))
    used = len(y) // stretch * stretch
    ratio = ((y - symbols).abs().square() / n0)[:used].view(-1, stretch).mean(dim=1)
    ratio = torch.where(ratio > 1 + 5 / math.sqrt(stretch), ratio, torch.ones_like(ratio))
    raised = n0.clone()
    raised[:used] *= ratio.repeat_interleave(stretch)
    return raised


class Outlook:
    """What a transmitter that knows only the average SNR can expect of its channel.

    Sends probes through realisations of the link's own channel, CSI and front end, drawn from a
    fixed seed, and counts how often a message would arrive.

    Args:
        channel, csi_rx, csi_tx, frontend: those of the link.
    """

    def __init__(
        self, channel: Channel, csi_rx: CSISource, csi_tx: CSISource, frontend: FrontEnd
    ) -> None:
        self._parts = (channel, csi_rx, csi_tx, frontend)
        self._odds: dict[tuple, list[float]] = {}

    def odds(
        self,
        snr_db: float,
        cuts: tuple[Segmentation, ...],
        num_symbols: int,
        device: torch.device,
    ) -> list[float]:
        """Return, for each way to cut a message of ``num_symbols``, how likely it arrives."""
        key = (snr_db, cuts, num_symbols)
        if key not in self._odds:
            n0 = self._probe(snr_db, num_symbols, device)
            self._odds[key] = [float(delivered(n0, cut).mean()) for cut in cuts]
        return self._odds[key]

    def _probe(self, snr_db: float, num_symbols: int, device: torch.device) -> Tensor:
        """Return the noise that symbols meet, [realisations, symbols]."""
        channel, csi_rx, csi_tx, frontend = self._parts
        generator = stream(0, "outlook", snr_db, device=device)
        constant = channel.draw(1, num_symbols, generator).h.shape[-1] == 1
        symbols = min(num_symbols, _PROBE_SYMBOLS) if constant else num_symbols
        least, most = _REALISATIONS
        count = min(max(_PROBE_VALUES // symbols, least), most)
        points = qam_points(2).to(device)
        draw = torch.randint(len(points), (count, 1, symbols), generator=generator, device=device)
        heard = _Listener()
        link = Link(
            _Probe(symbols), channel, heard, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend
        )
        source = torch.zeros(count, 1, device=device)
        link.transmit(source, snr_db, generator, symbols=points[draw])
        n0 = [
            with_hidden_noise(y, x, n0, symbols)
            for y, x, n0 in zip(heard.y[:, 0], points[draw][:, 0], heard.n0[:, 0], strict=True)
        ]
        return torch.stack(n0).cpu()


class _Probe(nn.Module):
    """Stand in for a transmitter whose symbols are given."""

    uses_csi = False

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.symbols = symbols

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the length of the probe."""
        return self.symbols


class _Listener(nn.Module):
    """Stand in for a receiver and keep what the front end hands over."""

    y: Tensor
    n0: Tensor

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Keep y [B, 1, K] and its noise."""
        if csi.h is not None:
            raise ValueError(
                "separate detects each stream by itself and needs a front end that separates "
                "them, got frontend none; use lmmse, zf, svd or rzf"
            )
        self.y, self.n0 = y, csi.n0
        return y
