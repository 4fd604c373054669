"""Pilots of 5G over an OFDM grid: demodulation reference signals (DMRS)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from channels.base import CSI, ChannelState
from channels.blocks import over_grid
from channels.checks import check_choice, check_count
from channels.csi import Observer, Overhead
from channels.dmrs_grid import Window, max_ports, windows
from channels.grid import ResourceGrid
from channels.interpolation import Interpolation, estimator
from channels.streams import gains_by_use

DmrsType = Literal[1, 2]


class DmrsCSI(Observer):
    """Measure an OFDM grid at 5G's pilots and interpolate over subcarriers and time.

        symbol  0 1 2 3 4 5 6 7 8 9 ...        . payload, P pilot: type 1 for one antenna and
        f = 0   . . P . . . . . . .            dmrs_symbols 1; the other subcarriers of the
        f = 1   . . . . . . . . . .            symbol still carry payload
        f = 2   . . P . . . . . . .

    Pilots have the power and SNR of the symbols, stand beside the payload at the gains of their
    places, and each costs one channel use: 3.6 % per symbol with pilots in every second subcarrier
    of a slot of 14. Transmit antennas share them by codes over pairs of pilots and by combs: up to
    4 antennas for type 1 and 6 for type 2, twice as many where each DMRS symbol is doubled.

    The estimate is made per slot and bundle of 48 subcarriers. "lmmse" knows the noise and the
    channel's long-term delay and Doppler statistics (``ChannelState.grid``), not the item's own;
    "linear" takes the quotient at the pilots, draws straight lines between, and holds the ends.
    The believed n0 [B, 1, N] contains interference and, for each resource element, the variance of
    the estimate's error as those statistics give it; over many draws it is what is measured.

    Args:
        dmrs_type: 1, every second subcarrier (or all, for 3 antennas and more), or 2, pairs of
            subcarriers in every six.
        dmrs_symbols: OFDM symbols with pilots per slot, 1 to 4: symbol 2; and 11; and 7; or 2, 5, 8
            and 11. Doubled ones are 1 or 2: symbols 2, 3; and 10, 11.
        interpolation: "lmmse" or "linear".

    Source: 3GPP TS 38.211, section 7.4.1.1; Edfors et al., OFDM channel estimation by singular
        value decomposition (1998).
    """

    def __init__(
        self,
        dmrs_type: DmrsType = 1,
        dmrs_symbols: int = 1,
        *,
        interpolation: Interpolation = "lmmse",
    ) -> None:
        super().__init__()
        if dmrs_type not in (1, 2):
            raise ValueError(f"dmrs_type is 1 or 2, got {dmrs_type!r}; 1 has more pilots")
        check_count("dmrs_symbols", dmrs_symbols, "a slot has 1 to 4")
        if dmrs_symbols > 4:
            raise ValueError(f"dmrs_symbols is 1 to 4 per slot, got {dmrs_symbols}")
        check_choice("interpolation", interpolation, ("lmmse", "linear"))
        self.dmrs_type: DmrsType = dmrs_type
        self.dmrs_symbols = dmrs_symbols
        self.interpolation: Interpolation = interpolation

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return (
            f"dmrs_type={self.dmrs_type}, dmrs_symbols={self.dmrs_symbols}, "
            f"interpolation={self.interpolation!r}"
        )

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return the estimate [B, R, T, N] and the noise it leaves, [B, 1, N], linear; n0 [B]."""
        grid, noise = _grid_of(state), n0 + state.interference
        h, error = torch.empty_like(state.h), n0.new_empty(len(n0), state.h.shape[-1])
        for window in self._windows(grid, state.h.shape[-1], state.h.shape[2]):
            uses = window.uses.to(h.device)
            y = _listen(state.h, window, noise, generator)
            estimate = estimator(grid, window.layout, self.interpolation, h.device)
            found, missed = estimate(y, noise)
            h[..., uses] = found.to(h.dtype)
            error[:, uses] = missed[:, None].to(error.dtype)
        return CSI(h, noise[:, None, None] + error[:, None])

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return the pilots' channel uses, one for each."""
        found = self._windows(_grid_of(state), uses, num_tx)
        return Overhead(pilot_uses=float(sum(window.pilots.numel() for window in found)))

    def _windows(self, grid: ResourceGrid, uses: int, num_tx: int) -> list[Window]:
        most = max_ports(self.dmrs_type)
        if num_tx > 2 * most:
            raise ValueError(
                f"dmrs_type {self.dmrs_type} tells {2 * most} transmit antennas apart, got "
                f"{num_tx}; use csi.rx perfect, or fewer antennas"
            )
        if num_tx > most and self.dmrs_symbols > 2:
            raise ValueError(
                f"dmrs_symbols is 1 or 2 where {num_tx} transmit antennas double each, got "
                f"{self.dmrs_symbols}"
            )
        return windows(grid.subcarriers, uses, num_tx, self.dmrs_type, self.dmrs_symbols)


def _grid_of(state: ChannelState) -> ResourceGrid:
    if state.grid is None and over_grid(state):
        raise ValueError(
            "csi dmrs interpolates by what is known of one OFDM channel in the long run, and here "
            "another stage changes its gains (lost packets, a second fading, a tracked oscillator, "
            "a gain); use csi perfect, or leave that stage out"
        )
    if state.grid is None:
        raise ValueError(
            "csi dmrs estimates an OFDM grid (channel tdl, cdl, umi or uma, also under an "
            "interferer), and this channel has none; use csi pilots"
        )
    return state.grid


def _listen(h: Tensor, window: Window, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return what arrives at the pilots, [B, R, windows, P], complex128."""
    pilots, codes = window.pilots.to(h.device), window.layout.codes.to(h.device)
    y = torch.einsum("tp,brtwp->brwp", codes, h[..., pilots].to(codes.dtype))
    batch, num_rx, windows, places = y.shape
    hiss = gains_by_use((batch, num_rx, places), windows, generator).transpose(2, 3).to(y.dtype)
    return y + noise.double().sqrt()[:, None, None, None] * hiss
