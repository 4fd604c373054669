"""From latents to symbols and back, and what the two ends of an image codec share."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.cbr import cbr_fraction
from semsim.ranges import clip
from semsim.types import End


class LatentCodec(End):
    """Both ends of a codec whose symbols are pairs of reals on a grid over the image."""

    kind: ClassVar[str]  #: as errors name it
    agreed = ("cbr", "stride", "rates", "num_streams", "task", "fine", "fine_for")
    stride: int  #: pixels per position of the grid, in each direction
    channels: int  #: reals at each
    num_streams: int = 1  #: of the link; the first symbols of the latent go on the strongest

    @property
    def cbr(self) -> Fraction:
        """Complex symbols per source value."""
        return Fraction(self.channels, 6 * self.stride**2)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the latent's height and width for an image of this shape [3, H, W]."""
        check_image_shape(self.kind, shape)
        return -(-shape[1] // self.stride), -(-shape[2] // self.stride)

    def symbols_on_grid(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an image [3, H, W]; its sides are padded to the stride."""
        height, width = self.grid(shape)
        return self.channels // 2 * height * width

    def order(self, count: int, device: torch.device) -> Tensor | slice:
        """Return where each of the latent's symbols is sent, see :func:`strongest_first`."""
        if self.num_streams == 1:
            return slice(None)
        return strongest_first(count, self.num_streams, device)

    def as_sent(self, symbols: Tensor) -> Tensor:
        """Put what belongs to the latent's symbols, [B, 1, K], in the order of sending."""
        if self.num_streams == 1:
            return symbols
        sent = torch.empty_like(symbols)
        sent[..., self.order(symbols.shape[-1], symbols.device)] = symbols
        return sent


def check_image_shape(kind: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a shape is that of a colour image."""
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"{kind} carries images of shape [3, H, W], got {list(shape)}")


def check_equalised(kind: str, y: Tensor, csi: CSI, symbols: int, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a receiver gets the symbols that it expects, behind a front end."""
    if csi.h is not None or y.shape[1:] != (1, symbols):
        raise ValueError(
            f"the {kind} receiver takes equalised symbols [B, 1, {symbols}] for an item "
            f"{list(shape)}, got {list(y.shape)}; give both ends the same codec and cbr, and use "
            "a front end such as lmmse"
        )


def shown(image: Tensor, shape: tuple[int, ...], *, training: bool) -> Tensor:
    """Return an image without its padding; clamped to [0, 1] unless training."""
    image = image[..., : shape[1], : shape[2]]
    return image if training else clip(image)


def latent_channels(cbr: float | str, stride: int) -> int:
    """Return how many real latent channels a CBR takes at one position per stride x stride pixels.

    Two reals make one complex symbol, so the CBR is ``channels / 2`` over ``3 * stride**2``.
    """
    ratio = cbr_fraction(cbr)
    whole = 3 * stride**2  # source values at one position
    pairs, most = ratio * whole, whole // 2
    if pairs.denominator == 1 and 0 < pairs <= most:
        return 2 * int(pairs)
    below = min(max(int(pairs), 1), most)
    near = sorted({Fraction(n, whole) for n in (below, min(below + 1, most))})
    raise ValueError(
        f"cbr {cbr} is not possible with {stride} x {stride} pixels per position: it must be "
        f"n/{whole} with n from 1 to {most}; the nearest are {' and '.join(map(str, near))}"
    )


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column until both sides of image [B, C, H, W] fit the stride."""
    down, right = -image.shape[-2] % stride, -image.shape[-1] % stride
    return nn.functional.pad(image, (0, right, 0, down), mode="replicate")


def to_symbols(latent: Tensor) -> Tensor:
    """Pair the first half of the channels (real) with the second (imaginary): [B, 1, K] complex."""
    real, imaginary = latent.float().flatten(2).chunk(2, dim=1)
    return torch.complex(real, imaginary).flatten(1)[:, None]


def to_latent(symbols: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Invert :func:`to_symbols`: [B, channels, height, width] real."""
    pairs = symbols.reshape(symbols.shape[0], channels // 2, height, width)
    return torch.cat([pairs.real, pairs.imag], dim=1)


def strongest_first(count: int, streams: int, device: torch.device) -> Tensor:
    """Return the place of each symbol, [count]: the first symbols lie on the first stream.

    A link puts symbol k on stream k mod S, and an SVD front end's first stream is the strongest.
    """
    return (torch.arange(count, device=device) % streams).argsort(stable=True)


def symbol_trust(n0: Tensor, symbols: int) -> Tensor:
    """Return 1 / (1 + n0) of each symbol, [B, symbols], for n0 [B] or [B, 1, >= symbols].

    A symbol of unit power times this is its LMMSE estimate.
    """
    n0 = n0.reshape(len(n0), -1)[:, :symbols]
    return (1 / (1 + n0)).expand(-1, symbols)
