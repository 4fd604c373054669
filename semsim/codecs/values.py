"""Numbers of any kind as analog symbols, two to a symbol: a video, a channel's history, features.

    item [...] ─► pairs ─► unit power ─► header among symbols

The header carries the item's scale, as that of :mod:`semsim.codecs.analog` does, and is paid for.
It is spread over the item, which may be long, so that no single fade takes all of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.analog import HEADER, header, read_header
from semsim.codecs.symbols import check_equalised
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter


def _symbols(shape: tuple[int, ...]) -> int:
    return HEADER + -(-math.prod(shape) // 2)


def _is_header(y: Tensor) -> Tensor:
    """Return which of K symbols are the header's, [K]."""
    places = torch.arange(HEADER, device=y.device) * y.shape[-1] // HEADER
    return torch.zeros(y.shape[-1], dtype=torch.bool, device=y.device).index_fill(0, places, True)


class ValuesTransmitter(Transmitter):
    """Real values of an item of any shape to symbols, in order, an odd one filled up with zero."""

    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an item of this shape, with the header."""
        return _symbols(shape)

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K] for source [B, ...], real."""
        if source.is_complex():
            raise ValueError(
                "values sends real numbers, got a complex source; give its real and imaginary part "
                "an axis of their own, torch.view_as_real(source)"
            )
        flat = nn.functional.pad(source.flatten(1), (0, source[0].numel() % 2))
        symbols = torch.complex(flat[:, ::2], flat[:, 1::2])[:, None]
        scale = symbols.abs().square().mean(dim=(1, 2)).sqrt()
        sent = symbols.new_empty(len(source), 1, HEADER + symbols.shape[2])
        first = _is_header(sent)
        sent[..., first], sent[..., ~first] = header(scale), unit_power(symbols)
        return sent


class ValuesReceiver(Receiver):
    """Symbols to values: the linear MMSE estimate, of normalised error n0 / (1 + n0) in AWGN."""

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the item [B, *shape] for y [B, 1, K]."""
        check_equalised("values", y, csi, _symbols(shape), shape)
        n0 = csi.n0.reshape(len(y), -1).expand(-1, y.shape[2])
        first = _is_header(y)
        scale = read_header(y[:, 0, first], n0[:, first])
        symbols = y[:, 0, ~first] * scale[:, None] / (1 + n0[:, ~first])
        values = torch.view_as_real(symbols).flatten(1)
        return values[:, : math.prod(shape)].unflatten(1, shape)
