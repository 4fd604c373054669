"""The 62 fixed high-pass filters of DBDH, and the layer that applies and mixes them."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice

AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
SQUARE3 = ((-1, 2, -1), (2, -4, 2), (-1, 2, -1))
SQUARE5 = (
    (-1, 2, -2, 2, -1), (2, -6, 8, -6, 2), (-2, 8, -12, 8, -2), (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)  # fmt: skip
LUMA = (0.299, 0.587, 0.114)


def srm_bank() -> Tensor:
    """Return the 30 SRM residual filters, [30, 5, 5], each of sum 0.

    Eight of first, four of second, eight of third order, four 3 x 3 and four 5 x 5 edges, and the
    two squares. Adjacent: the public front end of UCNet, after Fridrich and Kodovsky, Rich models
    for steganalysis of digital images (2012).
    """

    def line(taps: dict[int, float], d: tuple[int, int], scale: float) -> Tensor:
        kernel = torch.zeros(5, 5)
        for steps, value in taps.items():
            kernel[2 + steps * d[0], 2 + steps * d[1]] = value / scale
        return kernel

    three = F.pad(torch.tensor(SQUARE3, dtype=torch.float32) / 4, (1, 1, 1, 1))
    five = torch.tensor(SQUARE5, dtype=torch.float32) / 12
    edge3, edge5 = three.clone(), five.clone()
    edge3[3], edge5[3:] = 0, 0
    bank = [line({0: -1, 1: 1}, d, 1) for d in AROUND]
    bank += [line({-1: 1, 0: -2, 1: 1}, d, 2) for d in AROUND[:4]]
    bank += [line({2: -1, 1: 3, 0: -3, -1: 1}, d, 3) for d in AROUND]
    bank += [edge.rot90(k) for edge in (edge3, edge5) for k in range(4)]
    return torch.stack([*bank, three, five])


def gabor_bank(zero_dc: bool = True) -> Tensor:
    """Return the 32 Gabor filters, [32, 5, 5]: 8 directions, 2 scales, 2 phases.

    Args:
        zero_dc: subtract each filter's mean; without, as in UCNet, the cosine ones pass constants.
    """
    axis = torch.arange(-2.0, 3.0)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bank = []
    for turn, sigma, phase in itertools.product(range(8), (0.5, 1.0), (0.0, math.pi / 2)):
        c, s = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
        along, across = x * c + y * s, -x * s + y * c
        wave = (2 * math.pi * along * 0.56 / sigma + phase).cos()
        bank.append(torch.exp(-(along**2 + 0.25 * across**2) / (2 * sigma**2)) * wave)
    kernels = torch.stack(bank)
    return kernels - kernels.mean(dim=(1, 2), keepdim=True) if zero_dc else kernels


class FilterBank(nn.Module):
    """T1 and T2: fixed high-pass filters on R, G, B and Y, mixed by 1 x 1, [B, 3, H, W] to [B, C, H, W].

    Filtering and mixing are linear and Y is linear in R, G and B, so both are one 5 x 5 convolution
    from three channels, made anew from the mixing weights at each step; with ``trunc`` the
    responses are clamped between the two and the filters run for themselves.

    Args:
        width: channels after mixing.
        filters: which of the fixed filters: ``all``, ``srm`` or ``gabor``.
        luma: whether Y is filtered too.
        zero_dc_gabor: see :func:`gabor_bank`.
        trunc: clamp responses to +- this, on the scale 0 to 255 (UCNet: 2 or 4), or None.
    """  # noqa: E501 - one sentence

    bank: Tensor
    planes: Tensor

    def __init__(
        self,
        width: int,
        *,
        filters: str = "all",
        luma: bool = True,
        zero_dc_gabor: bool = True,
        trunc: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("filters", filters, ("all", "srm", "gabor"))
        srm, gabor = srm_bank(), gabor_bank(zero_dc_gabor)
        bank = {"all": torch.cat([srm, gabor]), "srm": srm, "gabor": gabor}[filters]
        self.register_buffer("bank", bank, persistent=False)  # a constant: not in the weights
        planes = torch.eye(3) if not luma else torch.cat([torch.eye(3), torch.tensor([LUMA])])
        self.register_buffer("planes", planes, persistent=False)
        self.mix = nn.Conv2d(len(bank) * len(planes), width, 1, bias=False)
        self.trunc = trunc

    def responses(self, image: Tensor) -> Tensor:
        """Return T1: all filters on all planes, plane by plane, [B, 248, H, W]."""
        planes = torch.einsum("pc,bchw->bphw", self.planes, 255 * image)
        flat = F.pad(planes.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
        return F.conv2d(flat, self.bank[:, None]).view(len(image), -1, *image.shape[2:])

    def forward(self, image: Tensor) -> Tensor:
        """Return the mixed responses, [B, width, H, W]."""
        if self.trunc is not None:
            return self.mix(self.responses(image).clamp(-self.trunc, self.trunc))
        mix = self.mix.weight.view(-1, len(self.planes), len(self.bank))
        kernel = torch.einsum("opf,pc,fyx->ocyx", mix, 255 * self.planes, self.bank)
        return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel)
