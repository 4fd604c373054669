"""Generalised divisive normalisation, the activation of many learned image codecs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_BETA = 1e-6


class GDN(nn.Module):
    """Divide each channel by the root of a weighted energy of all channels at the same place.

        y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2);   inverse: times instead of divided by

    beta and gamma are squares of free parameters, so they stay non-negative and have a gradient
    everywhere but at zero. Starts close to the identity.

    Args:
        channels: channels of ``x``.
        inverse: multiply, as a decoder does.

    Source: Ballé, Laparra, Simoncelli, Density Modeling of Images Using a Generalized
    Normalization Transformation, ICLR 2016.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.root_beta = nn.Parameter(torch.ones(channels))
        gamma = 0.1 * torch.eye(channels) + 1e-4
        self.root_gamma = nn.Parameter(gamma.sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, H, W] normalised, or with the normalisation undone."""
        gamma = self.root_gamma.square()[:, :, None, None]
        energy = nn.functional.conv2d(x.square(), gamma, self.root_beta.square() + LEAST_BETA)
        return x * energy.sqrt() if self.inverse else x * energy.rsqrt()

    @torch.no_grad()
    def set(self, beta: Tensor, gamma: Tensor) -> None:
        """Take over beta [C] and gamma [C, C] (to, from), both non-negative."""
        if min(beta.min(), gamma.min()) < 0:
            raise ValueError("beta and gamma of a GDN are at least 0; some of these are negative")
        self.root_beta.copy_((beta - LEAST_BETA).clamp_min(0).sqrt())
        self.root_gamma.copy_(gamma.sqrt())
