"""Perturbed faces against a verifier of one's own: how robust is it, and do they carry over?

    probe ─► network, features perturbed so that the loss rises ─► loss ─► gradient ─► sign step ─► probe
                          ▲                                            │
                          └────────── gradients on features ◄──────────┘

For evaluation only, of the verifiers of this room. BPFA (found in the abstract): gradients on
chosen feature maps are recorded in each backward pass, and in the next forward pass the same maps
are moved along them, so that the surrogate is harder every time. Adjacent (the first author's later
release): all convolutions, step times sign, squared distance of unit embeddings, a step of 8e-4.
All other numbers are inferred.

Sources: Zhou, Ling, Shi, Chen, Li, Li, Improving the transferability of adversarial attacks on face
recognition with beneficial perturbation feature augmentation, arXiv 2210.16117 (2023); Kurakin and
others (I-FGSM, 2017); Dong and others (MI-FGSM, 2018; TI-FGSM, 2019); Xie and others (DI, 2019);
Zhong, Deng, DFANet (2021).
"""  # noqa: E501 - the diagram

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice
from semsim.seeds import stream

Goal = Literal["dodging", "impersonation"]
Layers = Literal["all", "early", "middle", "late"]


@dataclass(frozen=True)
class Attack:
    """How a probe is perturbed; the fields of ``attack:`` in a scenario.

    Args:
        eps: largest change of a pixel, on the scale to 255.
        iterations: steps.
        step: of a pixel per iteration, to 255; max(1, eps / 10) where None.
        eta: step of features along their recorded gradient; 0 is I-FGSM.
        eta_mode: ``absolute``, or ``relative`` to the rms of each feature map.
        layers: which feature maps; thirds of the layers from the first to the last, or all.
        raw: move features along the gradient itself, scaled to an rms of ``eta``, not its sign.
        stale: iterations that recorded gradients are old, at least 1.
        noise: control: random signs instead of recorded ones.
        dropout: share of features that are dropped, as DFANet does.
        momentum: of the gradient, 1 for MI-FGSM, 0 for none.
        diversity: how often the probe is shrunk and moved before the network sees it (DI).
        smoothing: taps of the Gaussian that smooths the gradient (TI), odd; 0 for none.
    """

    eps: float = 8.0
    iterations: int = 20
    step: float | None = None
    eta: float = 0.0
    eta_mode: Literal["absolute", "relative"] = "absolute"
    layers: Layers = "all"
    raw: bool = False
    stale: int = 1
    noise: bool = False
    dropout: float = 0.0
    momentum: float = 0.0
    diversity: float = 0.0
    smoothing: int = 0

    def __post_init__(self) -> None:
        check_choice("layers", self.layers, ("all", "early", "middle", "late"))
        check_choice("eta_mode", self.eta_mode, ("absolute", "relative"))
        if not 0 <= self.eps <= 255 or (self.step is not None and not self.step > 0):
            raise ValueError(
                f"eps lies between 0 and 255 and step above 0, got {self.eps} and {self.step}"
            )
        if self.iterations < 1 or self.stale < 1:
            raise ValueError(
                f"iterations and stale are at least 1, got {self.iterations} and {self.stale}"
            )
        if not (0 <= self.dropout < 1 and 0 <= self.diversity <= 1 and self.momentum >= 0):
            raise ValueError(
                "dropout and diversity are shares and momentum is at least 0, got "
                f"{[self.dropout, self.diversity, self.momentum]}"
            )
        if self.smoothing < 0 or (self.smoothing and self.smoothing % 2 == 0):
            odd = max(self.smoothing + 1, 3)
            raise ValueError(f"smoothing is odd, got {self.smoothing}; write {odd}, or 0 for none")
        if not self.eta and (self.raw or self.noise or self.stale > 1):
            raise ValueError("eta is 0, so raw, noise and stale change nothing; write eta: 0.01")
        if self.raw and self.noise:
            raise ValueError("noise stands for gradients, so raw does nothing; leave it out")
        if 1 < self.stale >= self.iterations:
            raise ValueError(
                f"stale is below iterations, or no feature is ever moved, got {self.stale} and "
                f"{self.iterations}"
            )

    @property
    def pixel_step(self) -> float:
        """Step of a pixel, to 255."""
        return max(1.0, self.eps / 10) if self.step is None else self.step


class Features:
    """Hooks on feature maps: what they are moved by, and the gradients that they get.

    Args:
        layers: whose outputs are moved.
        attack: how.
        generator: of noise and dropout.
    """

    def __init__(
        self, layers: Sequence[nn.Module], attack: Attack, generator: torch.Generator
    ) -> None:
        self.layers, self.attack, self.generator = list(layers), attack, generator
        self.outputs: list[Tensor] = []
        self.old: list[list[Tensor]] = []  #: recorded gradients, the latest first

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Move features while this holds."""
        handles = [
            layer.register_forward_hook(self._hook(number))
            for number, layer in enumerate(self.layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def record(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients of the outputs; forget the outputs."""
        self.old = [list(gradients), *self.old][: self.attack.stale]
        self.outputs = []

    def _hook(self, number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def moved(_layer: nn.Module, _given: Any, output: Tensor) -> Tensor:
            output = output + self._shift(number, output.detach())
            if self.attack.dropout:
                keep = self._draw(output) >= self.attack.dropout
                output = output * keep / (1 - self.attack.dropout)
            self.outputs.append(output)
            return output

        return moved

    def _draw(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, device=like.device)

    def _shift(self, number: int, output: Tensor) -> Tensor:
        """Return what a feature map is moved by; zero while nothing is recorded."""
        attack = self.attack
        if len(self.old) < attack.stale or self.old[-1][number].shape != output.shape:
            return torch.zeros_like(output)
        eta: float | Tensor = attack.eta
        axes = tuple(range(1, output.dim()))
        if attack.eta_mode == "relative":
            eta = attack.eta * output.square().mean(dim=axes, keepdim=True).sqrt()
        if attack.noise:
            return eta * (self._draw(output) - 0.5).sign()
        gradient = self.old[-1][number]
        if not attack.raw:
            return eta * gradient.sign()
        rms = gradient.square().mean(dim=axes, keepdim=True).sqrt()
        return eta * gradient / rms.clamp(min=1e-30)


def chosen_layers(network: Any, layers: Layers) -> list[nn.Module]:
    """Return a third of a network's feature layers, or all."""
    found: list[nn.Module] = network.feature_layers()
    a, b = round(len(found) / 3), round(2 * len(found) / 3)
    return {"all": found, "early": found[:a], "middle": found[a:b], "late": found[b:]}[layers]


def craft(
    network: Any,
    probe: Tensor,
    reference: Tensor,
    attack: Attack,
    goal: Goal = "dodging",
    *,
    seed: int = 0,
    through: Callable[[Tensor], Tensor] | None = None,
    trace: list[float] | None = None,
) -> Tensor:
    """Return perturbed probes, [B, 3, H, W] in [0, 1], at most ``eps`` from the probes.

    Args:
        network: the surrogate, in evaluation mode; its weights stay as they are.
        probe: faces [B, 3, H, W] in [0, 1].
        reference: of the same person for ``dodging``, of whom the probe should pass for otherwise.
        attack: how.
        goal: away from the reference, or towards it.
        seed: of what is random in it.
        through: a differentiable way from the sender to the network, such as a link: a worst case.
        trace: gets the mean loss of each iteration.
    """
    check_choice("goal", goal, ("dodging", "impersonation"))
    generator = stream(seed, "attack", device=probe.device)
    features = Features(chosen_layers(network, attack.layers), attack, generator)
    away = -1.0 if goal == "dodging" else 1.0
    with torch.inference_mode(False), torch.enable_grad():
        probe, reference = probe.clone(), reference.clone()  # inference tensors take no gradient
        with torch.no_grad():
            aim = network(reference)
        image, mean = probe, torch.zeros_like(probe)
        for _ in range(attack.iterations):
            image = image.detach().requires_grad_()
            seen = diverse(image, attack.diversity, generator)
            with features.hooked():
                embedded = network(seen if through is None else through(seen))
            each = away * (embedded - aim).square().sum(dim=1)
            loss, outputs = each.sum(), features.outputs
            gradient, *recorded = torch.autograd.grad(loss, [image, *outputs])
            features.record(recorded)
            if trace is not None:
                trace.append(float(each.detach().mean()))
            mean = _averaged(gradient, mean, attack)
            image = _stepped(image.detach(), mean, probe, attack)
    return image


def _averaged(gradient: Tensor, mean: Tensor, attack: Attack) -> Tensor:
    """Return the direction of a step: the gradient, smoothed and with momentum where asked."""
    if attack.smoothing:
        gradient = smoothed(gradient, attack.smoothing)
    if not attack.momentum:
        return gradient
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-30)
    return attack.momentum * mean + gradient / size


def _stepped(image: Tensor, direction: Tensor, probe: Tensor, attack: Attack) -> Tensor:
    eps, step = attack.eps / 255, attack.pixel_step / 255
    image = image - step * direction.sign()
    return image.clamp(probe - eps, probe + eps).clamp(0, 1)


def smoothed(gradient: Tensor, taps: int) -> Tensor:
    """Return a gradient [B, 3, H, W] after a Gaussian of so many taps."""
    at = torch.arange(taps, device=gradient.device, dtype=gradient.dtype) - taps // 2
    window = torch.softmax(-at.square() / (2 * (taps / 6) ** 2), dim=0)
    kernel = (window[:, None] * window).expand(3, 1, taps, taps)
    return F.conv2d(gradient, kernel, padding=taps // 2, groups=3)


def diverse(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return faces of which a share is shrunk by up to a tenth and moved, as DI does."""
    if not share:
        return image
    u = torch.rand(4, len(image), generator=generator, device=image.device)
    scale = torch.where(u[0] < share, 1 + 0.1 * u[1], torch.ones_like(u[1]))
    shift = (2 * u[2:] - 1) * (scale - 1)
    zero = torch.zeros_like(scale)
    rows = [torch.stack([scale, zero, shift[0]], 1), torch.stack([zero, scale, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
