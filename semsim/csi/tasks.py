"""What a channel is good to know for: tasks that share one encoder."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice
from semsim import zoo
from semsim.csi.adapt import Tune, encoder_of, freeze, prepare
from semsim.csi.heads import ClassHead, PatchHead, ResCNN
from semsim.csi.model import WirelessGPT
from semsim.csi.patches import patchify, unpatchify
from semsim.csi.pretrain import ChannelTask, check_channels, error_over_power
from semsim.payloads.channels import joined, parts
from semsim.tasks.base import Task, check_classes

Features = Literal["raw", "z", "both"]


class Adapted(nn.Module):
    """An encoder and a head that reads what it makes of a channel.

    Args:
        encoder: WirelessGPT.
        head: what comes after it.
        features: what the head sees.
        spec: what weights of both belong to.
    """

    def __init__(
        self, encoder: WirelessGPT, head: nn.Module, features: Features, spec: dict[str, Any]
    ) -> None:
        super().__init__()
        check_choice("features", features, get_args(Features))
        self.encoder, self.head, self.features = encoder, head, features
        self.spec = {"encoder": encoder.spec, "features": features, **spec}

    def _quietly(self) -> contextlib.AbstractContextManager[Any]:
        """Keep nothing for a backward pass that changes nothing."""
        learns = any(p.requires_grad for p in self.encoder.parameters())
        return contextlib.nullcontext() if learns else torch.no_grad()

    def tokens(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head's features [B, P, n], the patches [B, P, 2 t s f], their scale [B]."""
        patches = patchify(h, self.encoder.patch)
        if self.features == "raw":
            self.encoder.check(h)
            gain = h.abs().square().mean(dim=(1, 2, 3)).sqrt()
            patches = patches / gain[:, None, None]
            return patches, patches, gain
        with self._quietly():
            encoded = self.encoder.encode(h)
        gain = 10**encoded.log_gain
        patches = patches / gain[:, None, None]
        seen = torch.cat([patches, encoded.z], dim=2) if self.features == "both" else encoded.z
        return seen, patches, gain

    def whole(self, h: Tensor) -> Tensor:
        """Return features of the whole channel, [B, n]: means over patches, and the scale."""
        seen, _, gain = self.tokens(h)
        return torch.cat([seen.mean(dim=1), gain.log10()[:, None]], dim=1)


class _OfEncoder(ChannelTask):
    """A task on top of an encoder; a subclass gives ``_head``, ``forward`` and ``loss``."""

    def _take(
        self,
        model: WirelessGPT,
        head: nn.Module,
        features: Features,
        spec: dict[str, Any],
        *,
        tune: Tune,
        last: int,
        rank: int,
        weights: str | None,
    ) -> None:
        prepare(model, tune, last, rank)
        own = {"tune": tune, "rank": rank if tune == "lora" else None, **spec}
        self.use(Adapted(model, head, features, own), weights, trainable=True)
        freeze(model, tune, last)

    @classmethod
    def weights_named(cls, **arguments: Any) -> str | None:
        """Return the weights that a task of these arguments loads, by name or file."""
        return arguments.get("weights") or arguments.get("encoder")


class EstimateChannel(_OfEncoder):
    """The channel behind a noisy observation of it: what to add to the observation, patch by patch.

    Args:
        encoder: weights of a pre-training; None for an encoder that knows nothing.
        size: of that one.
        tune: which of the encoder's weights learn: none (``frozen``), the ``last`` blocks
            (``partial``), low-rank additions (``lora``) or all (``full``).
        last: blocks that ``partial`` trains.
        rank: of ``lora``.
        features: what the head sees of a patch: its values, the encoder's vector, or both.
        head: ``linear``, which on raw patches is the linear MMSE estimate of each patch;
            ``blocks``: two of a transformer before it; or ``rescnn``: residual convolutions over
            slots and subcarriers, see :class:`semsim.csi.heads.ResCNN`.
        pairs: antenna pairs S of the channels, which ``rescnn`` has to know.
        weights: encoder and head as an earlier training left them.
        relative_to: what the loss divides an item's error by: its power where null, which is ruled
            by low SNR and by items in a fade; ``source``, by the error of a source that is an
            estimate, such as payload ``pilot_estimates`` has, so that each item counts alike. For
            csi.rx learned take ``source``.
    """

    metric = "channel_nmse"
    restores = True
    later_options: ClassVar = ("relative_to",)

    def __init__(
        self,
        encoder: str | None = None,
        *,
        size: str = "small",
        tune: Tune = "frozen",
        last: int = 2,
        rank: int = 4,
        features: Features = "both",
        head: Literal["linear", "blocks", "rescnn"] = "linear",
        pairs: int | None = None,
        weights: str | None = None,
        relative_to: Literal["source"] | None = None,
    ) -> None:
        super().__init__()
        check_choice("relative_to", relative_to, (None, "source"))
        self.relative_to = relative_to
        model = encoder_of(encoder, size)
        self._take(
            model, _estimator_head(model, features, head, pairs), features,
            {"task": "estimate", "head": head, "pairs": pairs},
            tune=tune, last=last, rank=rank, weights=weights,
        )  # fmt: skip

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the channel, [B, T, 2, S, F], behind the observation, [B, T, 2, S, F]."""
        check_channels(estimate, "estimate_channel")
        net: Any = self.network
        h = joined(estimate)
        seen, patches, gain = net.tokens(h)
        if isinstance(net.head, ResCNN):
            scale = gain[:, None, None, None]
            return parts(h) + net.head(seen, tuple(h.shape[1:])) * scale[..., None]  # type: ignore[no-any-return]
        told = (patches + net.head(seen)) * gain[:, None, None]
        return parts(unpatchify(told, tuple(h.shape[1:]), net.encoder.patch))  # type: ignore[arg-type]

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the mean over items of error power over power, or over the source's error."""
        check_channels(target, "estimate_channel", "target")
        if self.relative_to is None:
            return error_over_power(output, target)
        power = (source - target).square().flatten(1).sum(dim=1)
        if not bool(power.all()):
            raise ValueError(
                "relative_to: source needs a payload whose source is an estimate of its target, "
                "such as pilot_estimates, and here they are equal; leave relative_to out"
            )
        error = (output - target).square().flatten(1).sum(dim=1)
        return (error / power).mean()


def estimator_of(weights: str) -> EstimateChannel:
    """Return the task that a training of ``estimate_channel`` left in weights.

    Args:
        weights: a name, or a .safetensors file.
    """
    spec = zoo.specs(weights).get("network", {})
    if spec.get("task") != "estimate":
        raise ValueError(
            f"model {weights!r} estimates no channel; name the task.safetensors of a training of "
            "task estimate_channel"
        )
    model, features, pairs = WirelessGPT(**spec["encoder"]), spec["features"], spec.get("pairs")
    task = EstimateChannel.__new__(EstimateChannel)
    Task.__init__(task)
    task.relative_to = None
    task._take(
        model, _estimator_head(model, features, spec["head"], pairs), features,
        {"task": "estimate", "head": spec["head"], "pairs": pairs},
        tune=spec["tune"], last=1, rank=spec["rank"] or 1, weights=weights,
    )  # fmt: skip
    return task


def _estimator_head(
    model: WirelessGPT, features: Features, head: str, pairs: int | None
) -> nn.Module:
    check_choice("head", head, ("linear", "blocks", "rescnn"))
    if (head == "rescnn") != (pairs is not None):
        raise ValueError(
            f"pairs goes with head: rescnn, got head {head!r} and pairs {pairs!r}; write how many "
            "antenna pairs the channels have, or leave it out"
        )
    seen = _values(model, features)
    if pairs is not None:
        return ResCNN(seen, pairs, model.patch)
    return PatchHead(seen, model.enter.in_features, 2 if head == "blocks" else 0)


def _values(model: WirelessGPT, features: Features) -> int:
    """Return how many values of a patch a head sees."""
    raw = model.enter.in_features
    return {"raw": raw, "z": model.width, "both": raw + model.width}.get(features, raw)


class ClassifyChannel(_OfEncoder):
    """A class told by a noisy observation of a channel: line of sight, best beam, activity.

    What the classes are is the payload's ``target``.

    Args:
        classes: how many.
        encoder, size, tune, last, rank, features, weights: as for ``estimate_channel``.
        slots: how many slots are seen, the first ones; all where null. The target of a beam is
            that of the last slot.
        hidden: width of a layer before the last one; 0 for a linear head.
    """

    metric = "accuracy"

    def __init__(
        self,
        classes: int = 2,
        encoder: str | None = None,
        *,
        size: str = "small",
        tune: Tune = "frozen",
        last: int = 2,
        rank: int = 4,
        features: Features = "z",
        slots: int | None = None,
        hidden: int = 0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if classes < 2 or hidden < 0 or (slots is not None and slots < 1):
            raise ValueError(
                f"classes is at least 2, slots at least 1, hidden at least 0, got {classes}, "
                f"{slots}, {hidden}"
            )
        self.classes, self.slots = classes, slots
        model = encoder_of(encoder, size)
        self._take(
            model, ClassHead(_values(model, features) + 1, classes, hidden), features,
            {"task": "classify", "classes": classes, "hidden": hidden},
            tune=tune, last=last, rank=rank, weights=weights,
        )  # fmt: skip

    def forward(self, estimate: Tensor) -> Tensor:
        """Return logits [B, classes] for an observation [B, T, 2, S, F]."""
        check_channels(estimate, "classify_channel")
        net: Any = self.network
        if self.slots is not None and self.slots > estimate.shape[1]:
            raise ValueError(
                f"slots {self.slots} are to be seen, but a channel has {estimate.shape[1]}; write "
                "fewer, or leave slots out"
            )
        return net.head(net.whole(joined(estimate[:, : self.slots])))  # type: ignore[no-any-return]

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the logits, in nats."""
        if target.dim() != 1 or target.is_floating_point():
            raise ValueError(
                "classify_channel needs a payload with classes, such as {kind: channels, target: "
                f"los}}; this one's target is {target.dtype} {list(target.shape)}"
            )
        check_classes("classify_channel", output, target)
        return F.cross_entropy(output, target)
