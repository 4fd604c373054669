"""The task: restore the face that arrives."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim import zoo
from semsim.ranges import clip
from semsim.tasks.base import Task
from semsim.vision.restore.networks import Restorer, autoencoder_loss, denoising_loss, ladder

PARTS = ("autoencoder", "unet")
MEASURED = 512  #: faces whose latents are measured in the end


class Restore(Task):
    """Restore what arrives by a latent diffusion model, in few steps.

    A training of the task alone (``train: {through: task}``) has two stages: the autoencoder, then
    the U-Net on its latents, whose deviation the first stage measures in the end. A scenario that
    trains the U-Net alone names ``weights`` or ``train.start``.

    Args:
        weights: a .safetensors file; None starts a fresh network.
        trainable: train ``part`` of the network.
        part: ``autoencoder``, or ``unet`` on the frozen autoencoder.
        steps: of DDIM; 0 is the autoencoder alone.
        start: share of the noise to begin with; the less, the nearer to what arrives.
        seed: of that noise.
    """

    metric = "task_psnr"
    network: Restorer

    def __init__(
        self,
        *,
        weights: str | None = None,
        trainable: bool = False,
        part: Literal["autoencoder", "unet"] = "unet",
        steps: int = 20,
        start: float = 0.4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("part", part, PARTS)
        if steps:
            ladder(steps, start)
        self.part, self.steps, self.start, self.seed = part, steps, start, seed
        network = Restorer()
        if weights is not None:
            zoo.load_parts(weights, {"network": network}, among_others=True)
        self.use(network, None, trainable=trainable, asked=weights is None)
        self.fresh = weights is None
        if trainable:
            still = network.unet if part == "autoencoder" else network.autoencoder
            still.requires_grad_(False)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return restored faces, [B, 3, H, W] in [0, 1]."""
        return self.network.decode(
            self.network.restored(
                clip(estimate), steps=self.steps, start=self.start, seed=self.seed
            )
        )

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of the part that is trained, of degraded faces and faces."""
        if target.shape != source.shape or source.dim() != 4:
            raise ValueError(
                "restore trains on degraded faces and faces [3, H, W], as payload restore has "
                f"them; these are {list(source.shape[1:])} and {list(target.shape[1:])}"
            )
        if self.part == "autoencoder":
            return autoencoder_loss(self.network.autoencoder, target, generator)
        return denoising_loss(self.network, source, target, generator)

    def check_start(self) -> None:
        """Raise ValueError where the U-Net would learn latents of a random autoencoder."""
        if self.trainable and self.part == "unet" and self.fresh:
            raise ValueError(
                "part: unet is trained on latents of the autoencoder, which has no weights; name "
                "weights or train.start, or begin with train: {stages: [{task: {kind: restore, "
                "part: autoencoder}}, {task: {kind: restore, part: unet}}]}"
            )

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute error, for a codec that is trained through the restoration."""
        return (output - target).abs().mean()

    @torch.no_grad()
    def after_training(self, payload: Any, validation: Any) -> None:
        """Measure the deviation of latents, to which the U-Net's are scaled."""
        if not self.trainable or self.part != "autoencoder":
            return
        if payload is None:
            raise ValueError(
                "validation is missing, on which a federation measures the deviation of latents; "
                "name one, such as {kind: restore, split: val}"
            )
        device = next(self.network.parameters()).device
        some = torch.stack([payload[i][1] for i in range(min(len(payload), MEASURED))])
        means = [self.network.autoencoder.moments(part.to(device))[0] for part in some.split(64)]
        self.network.spread.copy_(torch.cat(means).square().mean().sqrt())
