"""A channel in a few numbers: what WirelessGPT makes of it, for a network that is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.base import CSI, ChannelState
from channels.checks import check_count
from semsim.csi.adapt import encoder_of
from semsim.csi.model import heard
from semsim.csi.patches import spans
from semsim.nn.snr import snr_number
from semsim.payloads.pilot_estimates import on_grid


class ChannelVector(nn.Module):
    """Tell a network of a channel by a few numbers, learned from a frozen encoder.

        h of each use ─► slots x pairs x subcarriers ─► encoder ─► mean of z ─┐
                                                 log10 of the gain, the SNR ──┴─► linear ─► numbers

    The encoder is frozen and stays where its weights are: it is no part of this module's own. The
    SNR is that behind the front end, as a codec has it that is told of nothing else. Of a channel
    of many OFDM symbols the encoder sees up to 252 at once, and what it makes of them is averaged
    over the uses. A channel without any power, such as that of a lost packet, is told by zeros and
    its SNR.

    Args:
        weights: of WirelessGPT: a name, or task.safetensors of a training of ``fill_in``.
        subcarriers: of the OFDM grid on which the uses stand; 1 where there is none, and then
            the channel stays for an item.
        values: numbers that come out.
    """

    def __init__(self, weights: str, subcarriers: int = 1, values: int = 16) -> None:
        super().__init__()
        check_count("csi_subcarriers", subcarriers, "a channel without OFDM has 1")
        check_count("csi_values", values, "the SNR alone is one number")
        self.subcarriers = subcarriers
        encoder = encoder_of(weights, "small").eval().requires_grad_(False)
        self._frozen = (encoder,)  # in a tuple, so that it is no submodule
        self.linear = nn.Linear(encoder.width + 2, values)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._frozen[0]._apply(fn)
        return super()._apply(fn, recurse)

    def check(self, state: ChannelState) -> None:
        """Refuse a channel over a grid of other subcarriers."""
        if state.symbol_uses != self.subcarriers:
            raise ValueError(
                "csi_subcarriers is the number of the channel's OFDM grid, here "
                f"{state.symbol_uses} (1 is no grid), got {self.subcarriers}; write "
                f"csi_subcarriers: {state.symbol_uses}"
            )

    def forward(self, csi: CSI) -> Tensor:
        """Return [B, values] for what an end believes of the channel."""
        if csi.h is None:
            raise ValueError(
                "csi_weights tells the transmitter of the channel, and it knows none; write csi: "
                "{tx: {kind: perfect}}, or feedback or predicted"
            )
        h, valid = self._snapshots(csi.h)
        with torch.no_grad():
            whole, log_gain = self._encoded(h, valid)
        left = csi if csi.foreseen is None else csi.foreseen()
        snr = snr_number(left.effective_snr_db()).to(whole)
        gain = log_gain.masked_fill(log_gain.isneginf(), 0)
        return self.linear(torch.cat([whole, gain[:, None], snr], dim=1))  # type: ignore[no-any-return]

    def _encoded(self, h: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean of z [B, d] and log10 of the gain [B]; zeros and -inf where h is zero."""
        sizes = spans(h.shape[1])
        if len(sizes) > 1:
            known = torch.ones_like(h, dtype=torch.bool) if valid is None else valid
            own = known.split(sizes, dim=1)
            parts = [self._encoded(*some) for some in zip(h.split(sizes, dim=1), own, strict=True)]
            share = torch.stack([part.sum() for part in own]).to(h.real.dtype) / known.sum()
            wholes, gains = (torch.stack(found, dim=-1) for found in zip(*parts, strict=True))
            return (wholes * share).sum(dim=-1), 0.5 * (100**gains * share).sum(dim=-1).log10()
        h, lost = heard(h)
        encoded = self._frozen[0].encode(h, valid=valid)
        whole = encoded.z.mean(dim=1).masked_fill(lost.view(-1, 1), 0)
        return whole, encoded.log_gain.masked_fill(lost.flatten(), -torch.inf)

    def _snapshots(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return h [B, R, T, N] as [B, slots, R T, F], and where it is known."""
        h = h.to(torch.complex64)
        if h.shape[-1] == 1:  # the same at all uses
            return on_grid(h, 1), None
        if self.subcarriers == 1:
            raise ValueError(
                "csi_weights tells of a channel that stays for an item, or of one over OFDM, got "
                f"{h.shape[-1]} gains without a grid; write rayleigh with coherence: "
                "block, or a channel such as tdl"
            )
        over = -h.shape[-1] % self.subcarriers  # of the last symbol
        whole = on_grid(F.pad(h, (0, over)), self.subcarriers)
        if not over:
            return whole, None
        valid = torch.ones(whole.shape, dtype=torch.bool, device=h.device)
        valid[:, -1, :, -over:] = False
        return whole, valid
