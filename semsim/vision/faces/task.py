"""The task: does the face that arrives belong to the person it claims to be?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim import spec, zoo
from semsim.metrics.base import Outcome
from semsim.metrics.image import PSNR, SSIM
from semsim.metrics.scores import UNSET, check_held_out, check_set
from semsim.mistakes import SpecError, known
from semsim.seeds import seed_of
from semsim.tasks.base import Begun, Prepared, Task
from semsim.types import AnyLink, Transmission
from semsim.vision.faces.attack import Attack, Goal, craft
from semsim.vision.faces.defences import DEFENCES, Defence, defended
from semsim.vision.faces.networks import Kind, MarginHead, Verifier
from semsim.vision.faces.payload import Faces
from semsim.vision.faces.thresholds import set_thresholds


@dataclass(frozen=True)
class BegunPairs(Begun):
    """A batch of pairs before the channel, with facts about each probe."""

    notes: list[dict[str, Tensor]] = field(default_factory=list)


class Verify(Task):
    """Accept or reject the probe of each pair, by its cosine to the enrolled face.

        probe ─► (attack) ─► link ─► (defence) ─► verifier ─► cosine ─► less two thresholds
        enrolled face, at the receiver since before ─► verifier ───┘

    The output is [B, 3], the cosine less the thresholds that impostors exceed once in a hundred and
    once in a thousand, and the cosine. The enrolled face is not sent and not charged. Rows say what
    the attack did to the probe: ``face_psnr``, ``face_ssim`` and ``face_change``, the largest
    change of a pixel, to 255.

    A training of the task alone (``train: {through: task}``, payload split ``train``) minimises the
    cross-entropy of a margin head over the people. In the end it sets the thresholds on all
    impostor pairs of ``train.validation``, ``faces`` with ``split: val``; without one they are not
    known, and metrics that need them refuse. Until then they follow the people trained on.

    Args:
        verifier: architecture.
        weights: a .safetensors file or shipped weights; None starts a fresh network.
        trainable: train the network.
        size: side of faces in pixels.
        people: to train on, for the margin head.
        adversarial: train on faces perturbed by one step of so much, to 255; 0 for clean ones.
        attack: perturb every probe before it is sent; the fields of :class:`Attack`, or those of
            :class:`semsim.vision.restore.RestoreAttack` with ``restorer_weights``.
        goal: of the attack: genuine pairs dodge, impostors impersonate.
        surrogate: architecture that the attack sees; the verifier itself where None.
        surrogate_weights: its weights.
        restorer_weights: of task ``restore``; the attack then perturbs features of a restoration.
        defence: what the receiver does to the face first.
        seed: of what is random in the attack.
    """

    metric = "tar"
    network: Verifier

    def __init__(
        self,
        verifier: Kind = "plain",
        *,
        weights: str | None = None,
        trainable: bool = False,
        size: int = 48,
        people: int = 120,
        adversarial: float = 0.0,
        attack: dict[str, Any] | None = None,
        goal: Goal = "dodging",
        surrogate: Kind | None = None,
        surrogate_weights: str | None = None,
        restorer_weights: str | None = None,
        defence: Defence = "none",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("goal", goal, ("dodging", "impersonation"))
        check_choice("defence", defence, DEFENCES)
        if not 0 <= adversarial <= 255:
            raise ValueError(f"adversarial lies between 0 and 255, got {adversarial}")
        if (surrogate is None) != (surrogate_weights is None):
            raise ValueError("surrogate goes with surrogate_weights; give both or neither")
        of_attack = {"restorer_weights": restorer_weights, "surrogate_weights": surrogate_weights}
        for name, given in of_attack.items():
            if given is not None and attack is None:
                raise ValueError(f"{name} belong to an attack; write attack: {{}} beside them")
        self.attack: Any = attack  # checked, once it is known which
        if attack is not None:
            self.attack = _attack(attack, restored=restorer_weights is not None)
        self.goal, self.defence = goal, defence
        self.adversarial, self.seed = adversarial, seed
        network = Verifier(verifier, size=size)
        if weights is not None:
            zoo.load_parts(weights, {"network": network}, among_others=True)
        self.use(network, None, trainable=trainable, asked=weights is None)
        self.head = MarginHead(people, 64) if trainable else None
        self._surrogate: list[Verifier] = []  # in a list, so that it is no part of what is trained
        if surrogate is not None and surrogate_weights is not None:
            other = Verifier(surrogate, size=size)
            other.written_as = {"kind": "surrogate"}
            zoo.load_parts(surrogate_weights, {"network": other}, among_others=True)
            self._surrogate = [other.eval().requires_grad_(False)]
        self._restorer = [] if restorer_weights is None else [_restorer(restorer_weights)]

    def begin(self, link: AnyLink, sources: Sequence[Tensor], *, once: bool = True) -> Begun:
        """Return probes, perturbed where asked, and what was enrolled."""
        begun = super().begin(link, sources, once=once)
        if self.attack is None:
            return begun
        clean = [probe_of(source) for source in sources]
        notes = [_facts(a, b) for a, b in zip(begun.sources, clean, strict=True)]
        return BegunPairs(begun.sources, begun.told, begun.bits, begun.link, notes)

    def send(
        self, link: AnyLink, begun: Begun, snr_db: float | Tensor, generator: torch.Generator
    ) -> tuple[tuple[Transmission, ...], list[Tensor]]:
        """Return the transmission and the output of each user, with facts about the probes."""
        sent, outputs = super().send(link, begun, snr_db, generator)
        if isinstance(begun, BegunPairs):
            pairs = zip(sent, begun.notes, strict=True)
            sent = tuple(replace(own, notes={**own.notes, **notes}) for own, notes in pairs)
        return sent, outputs

    def _prepared(self, source: Tensor) -> Prepared:
        """Return the probe, and the embedding of the enrolled face, which costs nothing."""
        probe, enrolled = probe_of(source), source[:, 3:]
        if self.attack is not None:
            probe = self.perturbed(probe, enrolled)
        return Prepared(probe, self.network(enrolled), 0.0)

    def perturbed(self, probe: Tensor, enrolled: Tensor) -> Tensor:
        """Return what the attack makes of probes; what it draws follows from them and the seed."""
        if self.attack is None:
            return probe
        network = self._surrogate[0].to(probe.device) if self._surrogate else self.network
        if not self._restorer:
            content = hashlib.sha256(probe.detach().cpu().numpy().tobytes()).hexdigest()
            seed = seed_of(self.seed, content)  # else each batch would draw alike
            return craft(network, probe, enrolled, self.attack, self.goal, seed=seed)
        from semsim.vision.restore import craft_restored

        restorer = self._restorer[0].to(probe.device)
        return craft_restored(
            network, restorer, probe, enrolled, self.attack, self.goal, seed=self.seed
        )

    def forward(self, estimate: Tensor, side_info: Tensor | None = None) -> Tensor:
        """Return cosines less both thresholds and as they are, [B, 3]; above 0 is accepted."""
        if side_info is None:
            raise ValueError("verify needs what was enrolled, which prepare keeps beside the probe")
        found = self.network(defended(estimate, self.defence))
        cosine = (found * side_info).sum(dim=1, keepdim=True)
        return torch.cat([cosine - self.network.threshold, cosine], 1)

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the margin head's cross-entropy of faces and who they are."""
        if self.head is None or target.dim() != 1 or target.is_floating_point():
            raise ValueError(
                "verify trains alone, train: {through: task}, on people: payload faces with "
                f"split: train; this target is {target.dtype} {list(target.shape)}"
            )
        if source.shape[1] != 3:
            raise ValueError("verify trains on faces, got pairs; write split: train in the payload")
        if self.adversarial:
            source = self._hardened(source, target, generator)
        embedded = self.network(source)
        self.network.estimate_thresholds(embedded.detach(), target)
        return self.head(embedded, target)

    def _hardened(self, source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Return faces after one step that raises the loss, from a random start."""
        eps = self.adversarial / 255
        start = 2 * torch.rand(source.shape, generator=generator, device=source.device) - 1
        with torch.enable_grad():  # a rehearsal asks for the loss without gradients
            moved = (source + eps * start).clamp(0, 1).requires_grad_()
            loss = self.head(self.network(moved), target)  # type: ignore[misc]
        (gradient,) = torch.autograd.grad(loss, moved)
        return (
            (moved.detach() + eps * gradient.sign()).clamp(source - eps, source + eps).clamp(0, 1)
        )

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of pairs, for a codec that is trained through the verifier."""
        check_set(output[:, 0], "training through verify")
        scaled = 20 * output[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(scaled, target.to(scaled))

    @torch.no_grad()
    def after_training(self, payload: Any, validation: Any) -> None:
        """Set the thresholds on the people of the validation; without one they are not known."""
        if not self.trainable:
            return
        if validation is None:
            self.network.threshold.fill_(UNSET)
        elif isinstance(validation, Faces):
            check_held_out(validation)
            set_thresholds(self.network, validation)
        else:
            raise ValueError(
                "validation sets the thresholds of verify on people, got "
                f"{type(validation).__name__}; write validation: {{kind: faces, split: val}}"
            )


def _attack(values: dict[str, Any], *, restored: bool) -> Any:
    kind: Any = Attack
    if restored:
        from semsim.vision.restore import RestoreAttack as kind
    names = [each.name for each in fields(kind)]
    for name in values:
        if name not in names:
            raise ValueError(f"attack has no {name!r}; {known(names, name)}")
    try:
        return spec.build_settings(kind, spec.parse_settings(kind, values))
    except SpecError as error:
        raise error.under("attack") from error


def _restorer(weights: str) -> Any:
    """Return a restoration in evaluation mode."""
    from semsim.vision.restore import Restorer

    restorer = Restorer()
    zoo.load_parts(weights, {"network": restorer}, among_others=True)
    return restorer.eval().requires_grad_(False)


def probe_of(source: Tensor) -> Tensor:
    """Return the probes of pairs [B, 6, H, W]."""
    if source.dim() != 4 or source.shape[1] != 6:
        raise ValueError(
            f"verify takes pairs of faces [6, H, W], got {list(source.shape[1:])}; use payload "
            "faces with split: test or val"
        )
    return source[:, :3]


def _facts(sent: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Return how far probes are from what they were, [B] each."""
    outcome = Outcome(sent, clean, clean)
    change = 255 * (sent - clean).abs().flatten(1).amax(dim=1)
    return {"face_psnr": PSNR()(outcome), "face_ssim": SSIM()(outcome), "face_change": change}
