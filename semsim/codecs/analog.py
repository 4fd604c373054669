"""Analog transmission without learning: pixels, or transform coefficients, as symbols.

    image ─► blocks ─► linear transform ─► gains ─► pairs ─► unit power ─► [header | symbols]

The yardstick from below for learned codecs, and the one codec whose distortion is known in closed
form. What unit power hides, the image's scale, travels in a header that is paid for like the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.symbols import (
    LatentCodec,
    check_equalised,
    latent_channels,
    pad_to_stride,
    shown,
    to_latent,
    to_symbols,
)
from semsim.nn.conv import transform_basis
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmitter

BITS = 8  # of the scale
REPEATS = 16  # of each header symbol: one bit in 10^5 wrong at 0 dB
HEADER = BITS // 2 * REPEATS  # QPSK symbols
SCALE_RANGE = (1e-3, 10.0)  # of the root mean square before normalisation, on a logarithmic ladder
MIDDLE = 0.5  # of the pixel range, taken off before sending


class _Analog(LatentCodec):
    """Block transform, gains and header that both ends share."""

    kind = "analog"
    basis: Tensor
    gain: Tensor
    share: Tensor

    def __init__(self, cbr: float | str = "1/2", *, block: int = 8) -> None:
        super().__init__()
        if block < 1:
            raise ValueError(f"block must be at least 1 pixel, got {block}")
        self.block = self.stride = block
        self.channels = latent_channels(cbr, block)
        self.spec = {"cbr": str(self.cbr), "block": block}
        basis, variance = torch.eye(3 * block**2), torch.ones(3 * block**2)
        if self.channels < 3 * block**2:
            basis, variance = transform_basis(block, self.channels)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("gain", variance**-0.25, persistent=False)
        self.register_buffer("share", variance.sqrt() / variance.sqrt().mean(), persistent=False)


class AnalogTransmitter(_Analog, Transmitter):
    """Image to symbols, linearly but for the power normalisation.

    At a CBR of 1/2 the pixels themselves are sent. Below, a block's principal components under a
    model of natural images (``semsim.nn.conv.transform_basis``), the strongest first, with gains
    variance^(-1/4), which are the best among linear codes. A header of 64 symbols carries
    the scale.

    Args:
        cbr: complex symbols per source value, at most 1/2, header apart; a multiple of
            1 / (3 block^2).
        block: side of a block in pixels.
    """

    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W], with the header."""
        return HEADER + self.symbols_on_grid(shape)

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K] for source [B, 3, H, W] in [0, 1]."""
        self.grid(tuple(source.shape[1:]))
        blocks = nn.functional.pixel_unshuffle(
            pad_to_stride(source, self.block) - MIDDLE, self.block
        )
        latent = torch.einsum("cp,bphw->bchw", self.basis * self.gain[:, None], blocks)
        symbols = to_symbols(latent)
        scale = symbols.abs().square().mean(dim=(1, 2)).sqrt()
        return torch.cat([header(scale), unit_power(symbols)], dim=2)


class AnalogReceiver(_Analog, Receiver):
    """Symbols to image: the linear MMSE estimate of each coefficient, transformed back.

    For plain pixels of variance v around 1/2 in AWGN the distortion is v n0 / (1 + n0) per value,
    and v / 9,000 in the mean for the scale, which the header rounds to steps of 3.7 %.
    Arguments as in :class:`AnalogTransmitter`.
    """

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the image [B, *shape] for y [B, 1, K]; clamped to [0, 1] unless training."""
        grid = self.grid(shape)
        expected = HEADER + self.symbols_on_grid(shape)
        check_equalised(self.kind, y, csi, expected, shape)
        n0 = csi.n0.reshape(len(y), -1).expand(-1, expected)
        scale = read_header(y[:, 0, :HEADER], n0[:, :HEADER])
        received = to_latent(y[:, 0, HEADER:], self.channels, *grid)
        noise = n0[:, HEADER:].reshape(len(y), self.channels // 2, *grid).repeat(1, 2, 1, 1)
        share = self.share[:, None, None]
        latent = received * scale[:, None, None, None] * share / (share + noise)
        blocks = torch.einsum("cp,bchw->bphw", self.basis / self.gain[:, None], latent)
        image = nn.functional.pixel_shuffle(blocks, self.block) + MIDDLE
        return shown(image, shape, training=self.training)


def ladder(device: torch.device) -> Tensor:
    """Return the values that a header can name, [2^BITS]."""
    low, high = (torch.tensor(v, device=device).log() for v in SCALE_RANGE)
    return torch.linspace(0, 1, 2**BITS, device=device).mul(high - low).add(low).exp()


def header(scale: Tensor) -> Tensor:
    """Return scale [B] as QPSK symbols [B, 1, HEADER]: the index of the nearest rung, repeated."""
    rungs = ladder(scale.device)
    index = (scale.detach()[:, None].clamp_min(SCALE_RANGE[0]).log() - rungs.log()).abs().argmin(1)
    bits = index[:, None] >> torch.arange(BITS, device=scale.device) & 1
    signs = (1 - 2.0 * bits) * 0.5**0.5
    symbols = torch.complex(signs[:, ::2], signs[:, 1::2])
    return symbols.repeat(1, REPEATS)[:, None]


def read_header(y: Tensor, n0: Tensor) -> Tensor:
    """Return the scale [B] that header symbols y [B, HEADER] with noise n0 name."""
    mixed = (y / n0.clamp_min(1e-9)).reshape(len(y), REPEATS, BITS // 2).sum(dim=1)
    bits = torch.stack([mixed.real < 0, mixed.imag < 0], dim=2).flatten(1).long()
    index = (bits << torch.arange(BITS, device=y.device)).sum(dim=1)
    return ladder(y.device)[index]
