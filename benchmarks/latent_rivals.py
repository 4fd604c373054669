"""Two other ways to clean a latent, for the comparison in denoisers.py: DnCNN and diffusion.

Both are receivers around a codec's receiver, as ``LatentDenoiser`` is, start from the same LMMSE
estimate, and hand on the noise of the channel; neither predicts what noise it leaves. A codec that
knows the SNR gets unbiased symbols, one that does not gets them at unit power.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from channels.base import CSI
from semsim.codecs.latent_denoiser import LATENT_WEIGHT, similarity
from semsim.codecs.symbols import to_latent, to_symbols
from semsim.phy.power import unit_power
from semsim.types import Receiver, Transmission

STEPS = 1000  # of the diffusion, beta from 1e-4 to 0.02
STRIDE = 50  # of the sampler: 2 evaluations of the U-Net at 15 dB, 10 at -10 dB


class _Around(Receiver):
    """Shrink the symbols, clean them, hand them on."""

    def __init__(self, codec: Any, stage: int = 3) -> None:
        super().__init__()
        self.codec, self.stage = codec, stage
        self.freezes_transmitter = stage == 2
        self.cleaned: Tensor | None = None
        self.spec: dict[str, Any] = {"codec": codec.spec}
        if stage == 2:
            codec.requires_grad_(False)

    def clean(self, latent: Tensor, score: Tensor) -> Tensor:
        """Return a guess of the latent that was sent, for z_0 [B, C, h, w] and s_0 [B]."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it cleans")

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        """Return the codec's estimate, as the receiver of a link."""
        trust = (1 / (1 + csi.n0.reshape(len(y), -1)))[:, None]
        latent = to_latent(y * trust, self.codec.channels, *self.codec.grid(shape))
        latent = self.clean(latent, similarity(csi.n0))
        self.cleaned = latent if self.training else None
        cleaned = to_symbols(latent)
        knows_snr = self.codec.spec["adaptive"] != "none"
        return self.codec(cleaned / trust if knows_snr else unit_power(cleaned), csi, shape)


class DnCNNReceiver(_Around):
    """One pass of DnCNN, blind to the SNR, as in the repository of CDDM.

    17 convolutions of 3 x 3 without bias and 64 features; BatchNorm and ReLU between them. Its
    output is the error of z_0 at unit power.
    """

    def __init__(self, codec: Any, stage: int = 3) -> None:
        super().__init__(codec, stage)
        layers: list[nn.Module] = [nn.Conv2d(codec.channels, 64, 3, padding=1), nn.ReLU()]
        for _ in range(15):
            layers += [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        self.network = nn.Sequential(
            *layers, nn.Conv2d(64, codec.channels, 3, padding=1, bias=False)
        )

    def clean(self, latent: Tensor, score: Tensor) -> Tensor:
        return latent - self.network(latent / score[:, None, None, None])

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor:
        """The latent's error relative to that of z_0, weighed as the residual denoiser's is."""
        error = self.cleaned - to_latent(sent.symbols, *self.cleaned.shape[1:])
        start = error[0].numel() / 2 * self.start
        return LATENT_WEIGHT * (error.square().sum(dim=(1, 2, 3)) / start).mean()

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        self.start = (1 - similarity(csi.n0).square()).clamp_min(1e-6)
        return super().forward(y, csi, shape)


class DiffusionReceiver(_Around):
    """DDIM from the step whose SNR is that of the channel, without noise of its own.

        x_t = z_0 / s_0 at unit variance, abar_t = s_0^2; then t, t - stride, ..., 0

    Stage 2 trains the U-Net on clean latents (:meth:`noise_loss`), the rest frozen. CDDM then
    retrains the decoder behind it, and starts no earlier than the step of 10 dB, having trained its
    codec 3 dB above the channel; here the decoder stays and the step follows the channel.

    Source: Wu and others, CDDM: Channel Denoising Diffusion Models for Wireless Semantic
    Communications, IEEE Trans. Wireless Commun. 23(9), 2024; networks from ``diffusers``.
    """

    def __init__(self, codec: Any, stage: int = 3, stride: int = STRIDE) -> None:
        from diffusers import UNet2DModel

        super().__init__(codec, stage)
        self.stride = stride
        self.network = UNet2DModel(
            sample_size=8, in_channels=codec.channels, out_channels=codec.channels,
            block_out_channels=(64, 128), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        self.network.requires_grad_(stage == 2)
        beta = torch.linspace(1e-4, 0.02, STEPS)
        self.register_buffer("kept", (1 - beta).cumprod(dim=0), persistent=False)

    def noise_loss(self, sent: Tensor, generator: torch.Generator) -> Tensor:
        """Return the error of the noise that the U-Net sees in latents [B, C, h, w]."""
        clean = sent * 2**0.5
        step = torch.randint(STEPS, (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        kept = self.kept[step][:, None, None, None]
        mixed = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        return (self.network(mixed, step).sample - noise).square().mean()

    def scheduler(self) -> Any:
        """Return the deterministic sampler, with a step every ``stride``."""
        from diffusers import DDIMScheduler

        sampler = DDIMScheduler(
            STEPS, beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True,
        )  # fmt: skip
        sampler.set_timesteps(STEPS // self.stride)
        return sampler

    def start(self, score: Tensor) -> Tensor:
        """Return the sampler's step whose signal-to-noise ratio in dB is nearest, [B]."""
        steps = self.scheduler().timesteps
        mine = torch.logit(score.square().clamp(max=1 - 1e-7))
        return steps[(torch.logit(self.kept[steps])[None] - mine[:, None]).abs().argmin(dim=1)]

    def evaluations(self, score: Tensor) -> Tensor:
        """Return how often the U-Net runs for each item, [B]."""
        return self.start(score) // self.stride + 1

    @torch.no_grad()
    def clean(self, latent: Tensor, score: Tensor) -> Tensor:
        sampler, start = self.scheduler(), self.start(score)
        x = latent / score[:, None, None, None] * 2**0.5
        for step in sampler.timesteps:
            active = (step <= start).nonzero()[:, 0]
            if len(active):
                noise = self.network(x[active], step).sample
                x[active] = sampler.step(noise, step, x[active]).prev_sample
        return x / 2**0.5
