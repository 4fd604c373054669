"""Numbers of any size as analog symbols, two to a symbol: a video, a channel's history, features.

    item [...] ─► pairs ─► unit power ─► header among symbols

The header carries the item's scale and is paid for. It is spread over the item, which may be long,
so that no single fade takes all of it. The scale is 2^(e + f): e, one of 2^8 octaves as of the
normal numbers of float32, goes in 120 bits of QPSK, any two of whose words differ in 56 or more (a
Reed-Muller code of first order, 8 bits shorter); f, from 0 to 1, is the phase of four symbols and
arrives as exactly as the channel lets it. A single wrong octave could rule the mean over all items,
so the receiver takes sizes near 1 for likelier.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.symbols import check_equalised
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter

OCTAVES = 8  # bits of e
CODED = 120  # bits that they are sent in
PHASES = 4  # symbols that carry f
HEADER = CODED // 2 + PHASES  # symbols
LOWEST = -126  # e of the smallest normal number of float32
# natural log of how much less likely a scale is for each octave away from 1, and at most. A scale
# that is k octaves too large costs 4^k, and is taken for right 4^-k times as often.
UNLIKELY, LEAST_LIKELY = 2 * math.log(2), 25.0


def octave_words(device: torch.device) -> Tensor:
    """Return the QPSK symbols of each octave, [2^OCTAVES, CODED / 2]."""
    octaves, places = torch.arange(2**OCTAVES, device=device), torch.arange(CODED, device=device)
    common = octaves[:, None] & (2 * places + 1)  # the lowest bit counts everywhere
    parity = (common[..., None] >> torch.arange(OCTAVES, device=device) & 1).sum(dim=2) % 2
    signs = (1 - 2.0 * parity) * 0.5**0.5
    return torch.complex(signs[:, ::2], signs[:, 1::2])


def scale_header(scale: Tensor) -> Tensor:
    """Return symbols [B, HEADER], of power 1 each, that name the scale [B]."""
    scale = scale.detach().nan_to_num().clamp_min(2.0**LOWEST)
    octave = scale.log2().floor()
    angle = math.pi * (scale.log2() - octave - 0.5)
    words = octave_words(scale.device)[octave.long() - LOWEST].unflatten(1, (PHASES, -1))
    phases = torch.polar(torch.ones_like(angle), angle)[:, None, None].expand(-1, PHASES, 1)
    return torch.cat([words, phases], dim=2).flatten(1)


def read_scale(y: Tensor, n0: Tensor) -> Tensor:
    """Return the scale [B] that a header y [B, HEADER] with noise n0 names."""
    n0 = n0.clamp_min(1e-9).unflatten(1, (PHASES, -1))
    y = y.detach().unflatten(1, (PHASES, -1))
    coded, noise = y[..., :-1].flatten(1), n0[..., :-1].flatten(1)
    weighed = coded / noise
    words = octave_words(y.device).to(weighed.dtype)
    likely = 2 * (weighed @ words.mH).real  # natural log, [B, 2^OCTAVES]
    # more noise than the receiver believes in makes it less sure
    left = (coded - words[likely.argmax(dim=1)]).abs().square() / noise
    octaves = torch.arange(2**OCTAVES, device=y.device) + LOWEST
    rare = (UNLIKELY * octaves.abs()).clamp_max(LEAST_LIKELY)
    octave = octaves[(likely / left.mean(dim=1, keepdim=True).clamp_min(1) - rare).argmax(dim=1)]
    turn = (y[..., -1] / n0[..., -1]).sum(dim=1).angle() / math.pi
    return torch.exp2(octave + 0.5 + turn)


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
        if not source.is_floating_point():
            raise ValueError(
                f"values sends real numbers of float32, got {source.dtype}; write source.float()"
            )
        flat = nn.functional.pad(source.flatten(1), (0, source[0].numel() % 2))
        symbols = torch.complex(flat[:, ::2], flat[:, 1::2])[:, None]
        unit = unit_power(symbols)
        peaks = (torch.view_as_real(part).abs().amax(dim=(1, 2, 3)) for part in (symbols, unit))
        scale = next(peaks) / next(peaks).clamp_min(1e-30)  # squares of the source may overflow
        sent = symbols.new_empty(len(source), 1, HEADER + symbols.shape[2])
        first = _is_header(sent)
        sent[..., first], sent[..., ~first] = scale_header(scale)[:, None], unit
        return sent


class ValuesReceiver(Receiver):
    """Symbols to values: the linear MMSE estimate, of normalised error n0 / (1 + n0) in AWGN.

    The header adds 0.6 % to that. Below -1 dB numbers far from 1 may get a wrong scale, and small
    ones come out far too large then; multiply them so that they are about 1.
    """

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
        scale = read_scale(y[:, 0, first], n0[:, first])
        symbols = y[:, 0, ~first] * scale[:, None] / (1 + n0[:, ~first])
        values = torch.view_as_real(symbols).flatten(1)
        return values[:, : math.prod(shape)].unflatten(1, shape)
