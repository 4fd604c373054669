"""The task: brighten a low-light photo."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.tasks.processing import Place, Processing
from semsim.vision.nlhd.groups import Grouping, Groups
from semsim.vision.nlhd.retinex import (
    EPSILON,
    Fusion,
    brighten,
    decompose,
    desaturate,
    noise_level,
)

PIXELS = 2**18  # pixels of a batch that are enhanced at once


Reflectance = Literal["ratio", "log"]
Colour = Literal["rgb", "hsv"]


class Enhance(Processing):
    """Brighten low-light images by NLHD, a non-local Haar Retinex.

    Alone, ``Enhance()(dark)`` takes and returns images [B, 3, H, W] in [0, 1].

    All defaults are inferred, or adjacent where :class:`Grouping` says so: curves, noise rules and
    colour were chosen on photos of BSDS500 train, darkened by :func:`darken`.

    Args:
        at: at which end of a link; ``process`` does not ask.
        gamma: exponent of the power curve, below 1.
        alpha: bend of the logarithmic curve; with gamma it says where the two cross.
        fusion: ``min`` of both curves, or one of them alone.
        reflectance: ``ratio``, R = 1 + D / (L + ε); or ``log``, where the same groups decompose
            ln(S + ε) and so L is a geometric mean.
        colour: ``rgb``, each channel by itself in groups found on V; or ``hsv``, V alone, with R, G
            and B scaled as V is, about twice as fast, but colour noise stays.
        threshold: coefficients below so many sigma of noise are dropped; 0 for no suppression.
        dark: mean V below which all of an image is suppressed.
        noisy: elsewhere, ratio of noise to illumination above which a block is.
        desaturate_below: illumination below which saturation is reduced; 0 for nowhere.
        block, window, blocks, rows, step: see :class:`Grouping`; step 8 is the fast mode.
    """

    def __init__(
        self,
        at: Place = "receiver",
        *,
        gamma: float = 0.3,
        alpha: float = 100.0,
        fusion: Fusion = "min",
        reflectance: Reflectance = "ratio",
        colour: Colour = "rgb",
        threshold: float = 2.7,
        dark: float = 0.12,
        noisy: float = 0.1,
        desaturate_below: float = 0.1,
        block: int = 8,
        window: int = 39,
        blocks: int = 16,
        rows: int = 4,
        step: int = 4,
    ) -> None:
        super().__init__(at)
        check_choice("fusion", fusion, get_args(Fusion))
        check_choice("colour", colour, get_args(Colour))
        check_choice("reflectance", reflectance, get_args(Reflectance))
        if not 0 < gamma < 1 or not 0 < alpha < math.inf:
            raise ValueError(
                f"0 < gamma < 1 and finite alpha > 0 brighten; got {gamma} and {alpha}"
            )
        for name, value in (("threshold", threshold), ("desaturate_below", desaturate_below)):
            if value < 0:
                raise ValueError(f"{name} is 0 (off) or more, got {value}")
        self.gamma, self.alpha, self.fusion = gamma, alpha, fusion
        self.reflectance, self.colour = reflectance, colour
        self.threshold, self.dark, self.noisy = threshold, dark, noisy
        self.desaturate_below = desaturate_below
        self.grouping = Grouping(block, window, blocks, rows, step)

    def process(self, image: Tensor) -> Tensor:
        """Return the brightened image [B, 3, H, W] of an image [B, 3, H, W] in [0, 1]."""
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(f"images are [B, 3, H, W] in [0, 1], got {list(image.shape)}")
        at_once = max(1, PIXELS // math.prod(image.shape[2:]))
        return torch.cat([self._process(part) for part in image.clamp(0, 1).split(at_once)])

    def _process(self, image: Tensor) -> Tensor:
        value = image.amax(dim=1, keepdim=True)
        groups = Groups(value, self.grouping)
        everywhere = value.mean(dim=(1, 2, 3)) < self.dark
        if self.colour == "rgb":
            channels = [self._brighten(c, groups, everywhere) for c in image.split(1, dim=1)]
            bright = torch.cat(channels, dim=1)
        else:
            out = self._brighten(value, groups, everywhere)
            share = image / value.clamp(min=torch.finfo(value.dtype).tiny)
            bright = out * torch.where(value > 0, share, 1)  # black has no hue: grey
        if self.desaturate_below:
            bright = desaturate(bright, groups.mean(value), groups, self.desaturate_below)
        return bright

    def _brighten(self, channel: Tensor, groups: Groups, everywhere: Tensor) -> Tensor:
        """Return one channel [B, 1, H, W] after enhancement, in [0, 1]."""
        limits = self._limits(channel, groups, everywhere) if self.threshold else None
        if self.reflectance == "ratio":
            illumination, detail = decompose(channel, groups, limits)
            reflectance = 1 + detail / (illumination + EPSILON)
        else:
            if limits is not None:  # d ln(S + ε) = dS / (S + ε)
                limits = limits / (groups.per_block(channel) + EPSILON)
            of_log = decompose((channel + EPSILON).log(), groups, limits)
            illumination, reflectance = of_log[0].exp() - EPSILON, of_log[1].exp()
        curve = brighten(illumination, self.gamma, self.alpha, self.fusion)
        return (curve * reflectance).clamp(0, 1)

    def _limits(self, channel: Tensor, groups: Groups, everywhere: Tensor) -> Tensor:
        """Return the least coefficient that is no noise, for each reference, [R].

        Inferred: no block counts as noisier than the refined level of its image, since what lies
        above it is texture.
        """
        noise = noise_level(channel, groups)
        per_image = len(groups) // len(channel)
        sigma = torch.minimum(noise.blocks, noise.overall.repeat_interleave(per_image))
        light = groups.per_block(channel).clamp(min=EPSILON)
        active = everywhere.repeat_interleave(per_image) | (sigma > self.noisy * light)
        return self.threshold * sigma * active
