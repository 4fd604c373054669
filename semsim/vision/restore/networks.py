"""A restoration latent diffusion model of faces, small: autoencoder, U-Net, deterministic sampler.

degraded ─► encoder ─┬─► condition ──────────┐
                     └─► noised at `start` ─► U-Net, DDIM steps ─► latent ─► decoder ─► face
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semsim.seeds import stream
from semsim.vision.restore.unet import ResidualBlock, UNet

NOISE_STEPS = 1000
BETA = (1e-4, 0.02)  #: of the first and the last step
LEAST = 16  #: pixels that a side is a multiple of: 4 for the latent, 4 for the U-Net
OFF = 0.25  #: variance of a degraded face's latent around the face's, roughly
LOG_VARIANCE = (-20.0, 10.0)
Place = Literal["latent", "unet", "decoder"]


class Autoencoder(nn.Module):
    """Faces to latents of a quarter of the side and back.

        face ─► 2 x 2 to channels ─► widths[0] ─► / 2, widths[1] ─► mean and log variance

    Args:
        channels: of the latent.
        widths: at half and at a quarter of the side.
    """

    def __init__(self, channels: int = 8, widths: tuple[int, int] = (32, 64)) -> None:
        super().__init__()
        a, b = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, a, 3, padding=1), ResidualBlock(a, a),
            nn.Conv2d(a, b, 3, stride=2, padding=1), ResidualBlock(b, b), nn.SiLU(),
            nn.Conv2d(b, 2 * channels, 3, padding=1),
        )  # fmt: skip
        self.first = nn.Sequential(nn.Conv2d(channels, b, 3, padding=1), ResidualBlock(b, b))
        self.rest = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1), ResidualBlock(a, a),
            nn.SiLU(), nn.Conv2d(a, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def moments(self, face: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent, [B, channels, H / 4, W / 4] each."""
        mean, log_variance = self.encoder(2 * face - 1).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def forward(self, latent: Tensor) -> Tensor:
        """Return faces [B, 3, H, W], not clipped."""
        return self.finish(self.first(latent))

    def finish(self, features: Tensor) -> Tensor:
        """Return faces of what the decoder's first block gives."""
        return (self.rest(features) + 1) / 2


class Restorer(nn.Module):
    """The model: latents have deviation 1 outside of the autoencoder.

    Inferred throughout but for the idea, a latent diffusion model that restores faces; see
    :mod:`semsim.vision.restore`.

    Args:
        channels: of the latent.
        widths: of the U-Net, at 1/4, 1/8 and 1/16 of the side.
    """

    kept: Tensor
    spread: Tensor

    def __init__(self, channels: int = 8, widths: tuple[int, ...] = (48, 96, 144)) -> None:
        super().__init__()
        self.spec = {"channels": channels, "widths": list(widths)}
        self.autoencoder = Autoencoder(channels)
        self.unet = UNet(2 * channels, channels, widths)
        beta = torch.linspace(*BETA, NOISE_STEPS, dtype=torch.float64)
        #: share of the power of the latent that is left after each step, 1 before the first
        kept = torch.cat([beta.new_ones(1), (1 - beta).cumprod(dim=0)])
        self.register_buffer("kept", kept.float(), persistent=False)
        self.register_buffer("spread", torch.ones(()))

    def encode(self, face: Tensor) -> Tensor:
        """Return latents of faces [B, 3, H, W] in [0, 1]."""
        height, width = face.shape[-2:]
        if height % LEAST or width % LEAST:
            raise ValueError(
                f"faces are restored at sides that are multiples of {LEAST}, got {width}x{height}; "
                f"write size: {math.ceil(max(height, width) / LEAST) * LEAST} in the payload"
            )
        return self.autoencoder.moments(face)[0] / self.spread

    def decode(self, latent: Tensor) -> Tensor:
        """Return faces [B, 3, H, W] in [0, 1]."""
        return self.autoencoder(latent * self.spread).clamp(0, 1)

    def noised(self, latent: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Return latents after so many of the 1000 steps, [B]: 0 leaves them as they are."""
        kept = self.kept[step].view(-1, 1, 1, 1)
        return kept.sqrt() * latent + (1 - kept).sqrt() * noise

    def guess(self, latent: Tensor, condition: Tensor, step: Tensor | int) -> tuple[Tensor, Tensor]:
        """Return a clean latent without a network, and how far it is off, [B, 1, 1, 1].

        The mean of what the noised latent says, z / sqrt(k) with variance (1 - k) / k, and of the
        degraded face's latent, with variance ``OFF``, each by the inverse of its variance.
        """
        kept = self.kept[step].view(-1, 1, 1, 1)
        noisy = (1 - kept) / kept
        trust = OFF / (OFF + noisy)
        deviation = (OFF * noisy / (OFF + noisy)).sqrt()
        return trust * latent / kept.sqrt() + (1 - trust) * condition, deviation

    def clean(self, latent: Tensor, condition: Tensor, step: Tensor | int) -> Tensor:
        """Return the clean latent that the model sees in a noised one: the guess, corrected."""
        known, deviation = self.guess(latent, condition, step)
        return known + deviation * self.unet(torch.cat([latent, condition], dim=1), step)

    def sampled(
        self, latent: Tensor, condition: Tensor, ladder: list[int], stop: int = 0
    ) -> Tensor:
        """Return latents after the steps of a ladder down to its rung ``stop``, by DDIM, eta 0.

        z' = sqrt(k') z_0 + sqrt(1 - k') e, with z_0 the model's and e = (z - sqrt(k) z_0) / sqrt(1 - k)

        Args:
            latent: at the noise of the first rung.
            condition: latents of the degraded faces.
            ladder: see :func:`ladder`.
            stop: rungs from the end at which to stop.
        """  # noqa: E501 - the equation
        for now, after in itertools.pairwise(ladder[: len(ladder) - stop]):
            latent = self.stepped(latent, self.clean(latent, condition, now), now, after)
        return latent

    def stepped(self, latent: Tensor, clean: Tensor, now: int, after: int) -> Tensor:
        """Return latents one rung further down, for the clean ones that the model sees."""
        k, next_k = self.kept[now], self.kept[after]
        noise = (latent - k.sqrt() * clean) / (1 - k).sqrt()
        return next_k.sqrt() * clean + (1 - next_k).sqrt() * noise

    def begun(self, condition: Tensor, rungs: list[int], seed: int) -> Tensor:
        """Return the latent of the degraded face, noised as the first rung says; alike for all."""
        generator = stream(seed, "restore", *condition.shape[1:])
        noise = torch.randn(condition.shape[1:], generator=generator).to(condition)
        step = torch.full((len(condition),), rungs[0], device=condition.device)
        return self.noised(condition, step, noise.expand_as(condition))

    def restored(self, face: Tensor, *, steps: int, start: float, seed: int = 0) -> Tensor:
        """Return latents of restored faces.

        Args:
            face: degraded, [B, 3, H, W] in [0, 1].
            steps: of DDIM; 0 gives the latent of the degraded face, a plain autoencoder.
            start: share of the noise to begin with, 1 for all of it.
            seed: of that noise.
        """
        condition = self.encode(face)
        if not steps:
            return condition
        rungs = ladder(steps, start)
        return self.sampled(self.begun(condition, rungs, seed), condition, rungs)

    def feature(
        self, face: Tensor, place: Place, *, steps: int, start: float, seed: int = 0
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return an intermediate feature of a restoration, and what makes a face of it.

        Args:
            face, steps, start, seed: as for :meth:`restored`.
            place: ``latent`` before the decoder, ``decoder`` after its first block, or ``unet``,
                the middle of the U-Net in the last step.
        """
        if place != "unet":
            latent = self.restored(face, steps=steps, start=start, seed=seed)
            if place == "latent":
                return latent, self.decode
            first = self.autoencoder.first(latent * self.spread)
            return first, lambda features: self.autoencoder.finish(features).clamp(0, 1)
        if not steps:
            raise ValueError("place: unet needs a step of it; write steps: 1 or more")
        condition, rungs = self.encode(face), ladder(steps, start)
        latent, last = self.begun(condition, rungs, seed), rungs[-2]
        latent = self.sampled(latent, condition, rungs, stop=1)
        known, deviation = self.guess(latent, condition, last)
        middle, skips, embedded = self.unet.down(torch.cat([latent, condition], dim=1), last)

        def finish(features: Tensor) -> Tensor:
            clean = known + deviation * self.unet.up(features, skips, embedded)
            return self.decode(self.stepped(latent, clean, last, rungs[-1]))

        return middle, finish


def ladder(steps: int, start: float) -> list[int]:
    """Return how many of the 1000 noise steps are left before and after each step of DDIM."""
    first = round(start * NOISE_STEPS) if math.isfinite(start) else 0
    if not 1 <= steps <= first:
        raise ValueError(
            f"steps lie between 1 and start times {NOISE_STEPS}, got {steps} and start {start:g}"
        )
    return [round(first * (steps - i) / steps) for i in range(steps + 1)]


def autoencoder_loss(network: Autoencoder, face: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean absolute error, and 1e-6 of the divergence from a normal distribution."""
    mean, log_variance = network.moments(face)
    draws = torch.randn(mean.shape, generator=generator, device=mean.device)
    found = network(mean + (0.5 * log_variance).exp() * draws)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return (found - face).abs().mean() + 1e-6 * divergence.flatten(1).sum(dim=1).mean()


def denoising_loss(
    network: Restorer, degraded: Tensor, face: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the squared error of clean latents, in units of how far the guess is off."""
    with torch.no_grad():
        latent, condition = network.encode(face), network.encode(degraded)
    device = latent.device
    step = torch.randint(1, NOISE_STEPS + 1, (len(face),), generator=generator, device=device)
    noise = torch.randn(latent.shape, generator=generator, device=device)
    noised = network.noised(latent, step, noise)
    known, deviation = network.guess(noised, condition, step)
    found = network.unet(torch.cat([noised, condition], dim=1), step)
    return F.mse_loss(found, (latent - known) / deviation)
