"""The networks of ADJSCC: convolutions with GDN and PReLU, and AF modules that see the SNR.

    block:   5 x 5 ─► GDN ─► PReLU ─► AF(told)          encoder: 9 x 9 / 2, 5 x 5 / 2, then 5 x 5
                                                       decoder: the mirror, inverse GDN, a sigmoid

Source: Xu, Ai, Chen, Yang, Sun, Rodrigues, Wireless Image Transmission Using Deep Source Channel
Coding With Attention Modules, IEEE TCSVT 32(4), 2022. Sizes, order and the slopes per channel are
those of the authors' code, as is a GDN without PReLU after the last layer of either end. Without AF
modules it is what they call BDJSCC. Ours: the SNR is scaled, see :func:`snr_number`.
"""

from __future__ import annotations

from torch import Tensor, nn

from semsim.nn.gdn import GDN
from semsim.nn.same import Padding, down, up
from semsim.nn.snr import AttentionFeature

WIDTH = 256  #: channels of the published network


class GDNBlock(nn.Module):
    """A convolution, GDN, and unless it is the last one PReLU and an AF module.

    Args:
        conv: the convolution or transposed convolution.
        inverse: inverse GDN, as a decoder has.
        last: neither PReLU nor AF module.
        adaptive: numbers that an AF module sees, 1 for the SNR; 0 for no such module.
    """

    def __init__(
        self, conv: nn.Conv2d | nn.ConvTranspose2d, *, inverse: bool, last: bool, adaptive: int
    ) -> None:
        super().__init__()
        width = conv.out_channels
        self.conv = conv
        self.gdn = GDN(width, inverse=inverse)
        self.slope = None if last else nn.PReLU(width, init=0.0)
        seen = adaptive and not last
        self.snr = AttentionFeature(width, num_told=adaptive) if seen else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return features; ``told`` is [B, adaptive]."""
        x = self.gdn(self.conv(x))
        if self.slope is not None:
            x = self.slope(x)
        return x if self.snr is None else self.snr(x, told)


class EncoderADJSCC(nn.Module):
    """Image [B, 3, H, W] to latent [B, channels, H/4, W/4].

    Args:
        channels: reals per latent position.
        width: channels within; 256 in the paper.
        adaptive: numbers that its AF modules see, 1 for the SNR; 0 for no such modules.
        padding: see :mod:`semsim.nn.same`; the authors' code has ``symmetric``.
    """

    def __init__(self, channels: int, *, width: int, adaptive: int, padding: Padding) -> None:
        super().__init__()
        sizes = [(3, width, 9, 2), (width, width, 5, 2), (width, width, 5, 1),
                 (width, width, 5, 1), (width, channels, 5, 1)]  # fmt: skip
        self.blocks = nn.ModuleList(
            GDNBlock(down(*size, padding), inverse=False, last=i == 4, adaptive=adaptive)
            for i, size in enumerate(sizes)
        )

    def forward(self, image: Tensor, told: Tensor) -> Tensor:
        """Return the latent; ``told`` is [B, adaptive]."""
        for block in self.blocks:
            image = block(image, told)
        return image


class DecoderADJSCC(nn.Module):
    """Latent to image, the mirror of :class:`EncoderADJSCC` in transposed convolutions."""

    def __init__(self, channels: int, *, width: int, adaptive: int, padding: Padding) -> None:
        super().__init__()
        sizes = [(channels, width, 5, 1), (width, width, 5, 1), (width, width, 5, 1),
                 (width, width, 5, 2), (width, 3, 9, 2)]  # fmt: skip
        self.blocks = nn.ModuleList(
            GDNBlock(up(*size, padding), inverse=True, last=i == 4, adaptive=adaptive)
            for i, size in enumerate(sizes)
        )

    def forward(self, latent: Tensor, told: Tensor) -> Tensor:
        """Return the image in [0, 1]; ``told`` is [B, adaptive]."""
        for block in self.blocks:
            latent = block(latent, told)
        return latent.sigmoid()
