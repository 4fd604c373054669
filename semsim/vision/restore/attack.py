"""Perturbed faces that a restoration makes: the perturbation lies in its features, not in pixels.

    probe ─► restoration ─► feature + δ ─► rest of the restoration ─► face ─► verifier ─► loss
                                 ▲                                     └─► like the probe? ─┤
                                 └────────────── sign step, |δ| ≤ eps ◄─────────────────────┘

For evaluation only, of the verifiers of :mod:`semsim.vision.faces`. Found in the abstract: the
perturbation lies on intermediate features of the inference of a restoration latent diffusion model,
and restoration is a sibling task of recognition. Adjacent: squared distance of unit embeddings.
Which feature, the sibling's form, budgets and steps are inferred.

Source: Zhou, Ling, Shi, Chen, Li, Improving visual quality and transferability of adversarial
attacks on face recognition simultaneously with adversarial restoration, arXiv 2309.01582 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.vision.faces.attack import Goal
from semsim.vision.restore.networks import Place, Restorer, ladder

PLACES = ("latent", "unet", "decoder")
PERCEPTUAL = 0.1  #: weight of latents beside pixels in the sibling's loss


@dataclass(frozen=True)
class RestoreAttack:
    """How a feature is perturbed.

    Args:
        eps: largest change of a feature, in standard deviations of the face's features.
        iterations: of sign steps.
        step: of a feature per iteration, in the same unit; eps / 20 where None.
        sibling: weight of the restoration's own loss, λ_r; 0 for recognition alone.
        place: ``latent`` before the decoder, ``decoder`` after its first block, ``unet`` in the
            middle of the U-Net in the last step.
        steps: of DDIM; 0 is a plain autoencoder.
        start: share of the noise that DDIM begins with.
        pixels: largest change of a pixel at the end, to 255; None for no such limit.
    """

    eps: float = 0.2
    iterations: int = 50
    step: float | None = None
    sibling: float = 0.5
    place: Place = "latent"
    steps: int = 20
    start: float = 0.4
    pixels: float | None = None

    def __post_init__(self) -> None:
        check_choice("place", self.place, PLACES)
        if self.eps < 0 or self.sibling < 0 or (self.step is not None and not self.step > 0):
            raise ValueError(
                "eps and sibling are at least 0 and step above 0, got "
                f"{[self.eps, self.sibling, self.step]}"
            )
        if self.iterations < 1:
            raise ValueError(f"iterations is at least 1, got {self.iterations}")
        if self.pixels is not None and not 0 <= self.pixels <= 255:
            raise ValueError(f"pixels lies between 0 and 255, got {self.pixels}")
        if self.steps:
            ladder(self.steps, self.start)
        elif self.place == "unet":
            raise ValueError("place: unet needs a step of it; write steps: 1 or more")


def craft_restored(
    network: Any,
    restorer: Restorer,
    probe: Tensor,
    reference: Tensor,
    attack: RestoreAttack,
    goal: Goal = "dodging",
    *,
    seed: int = 0,
    trace: list[tuple[float, float]] | None = None,
) -> Tensor:
    """Return perturbed probes, [B, 3, H, W] in [0, 1].

    Args:
        network: the surrogate, in evaluation mode; its weights stay as they are.
        restorer: likewise.
        probe: faces [B, 3, H, W] in [0, 1].
        reference: of the same person for ``dodging``, of whom the probe should pass for otherwise.
        attack: how.
        goal: away from the reference, or towards it.
        seed: of the noise that the restoration begins with.
        trace: gets the mean of both losses in each iteration, recognition's and the sibling's.
    """
    check_choice("goal", goal, ("dodging", "impersonation"))
    away = -1.0 if goal == "dodging" else 1.0
    with torch.inference_mode(False), torch.enable_grad():
        probe, reference = probe.clone(), reference.clone()  # inference tensors take no gradient
        with torch.no_grad():
            aim, own = network(reference), restorer.encode(probe)
            feature, finish = restorer.feature(
                probe, attack.place, steps=attack.steps, start=attack.start, seed=seed
            )
            unit = feature.std(dim=(1, 2, 3), keepdim=True)
        step = attack.eps / 20 if attack.step is None else attack.step
        shift = torch.zeros_like(feature)
        for _ in range(attack.iterations):
            shift = shift.detach().requires_grad_()
            face = finish(feature + shift)
            recognition = away * (network(face) - aim).square().sum(dim=1)
            sibling = _sibling(restorer, face, probe, own)
            loss = (recognition + attack.sibling * sibling).sum()
            (gradient,) = torch.autograd.grad(loss, shift)
            if trace is not None:
                trace.append(tuple(float(x.detach().mean()) for x in (recognition, sibling)))  # type: ignore[arg-type]
            shift = shift.detach() - step * unit * gradient.sign()
            shift = shift.clamp(-attack.eps * unit, attack.eps * unit)
        with torch.no_grad():
            face = finish(feature + shift)
            if attack.pixels is not None:
                eps = attack.pixels / 255
                face = face.clamp(probe - eps, probe + eps).clamp(0, 1)
    return face


def _sibling(restorer: Restorer, face: Tensor, probe: Tensor, own: Tensor) -> Tensor:
    """Return the loss of the restoration: pixels and latents like the probe's, [B]."""
    pixels = (face - probe).abs().mean(dim=(1, 2, 3))
    latents = (restorer.encode(face) - own).square().mean(dim=(1, 2, 3))
    return pixels + PERCEPTUAL * latents
