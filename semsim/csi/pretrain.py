"""Pre-training: WirelessGPT fills in what it does not see of a channel, without any label."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from channels.base import complex_normal
from channels.checks import check_span
from semsim.csi.model import WirelessGPT
from semsim.csi.patches import hide, patchify
from semsim.payloads.channels import joined, parts
from semsim.tasks.base import Task


def check_channels(source: Tensor, task: str, what: str = "source") -> None:
    """Raise ValueError unless a source or target is a batch of channels, real [B, T, 2, S, F]."""
    if source.dim() != 5 or source.shape[2] != 2 or source.is_complex():
        raise ValueError(
            f"task {task} needs a payload of channels, float [T, 2, S, F] per item (real and "
            f"imaginary part), got {list(source.shape[1:])} as {what}; use payload: {{kind: "
            "channels}" + (" without another target" if what == "target" else "")
        )


def noisy(h: Tensor, snr_db: Tensor, generator: torch.Generator) -> Tensor:
    """Return h [B, ...] with noise at an SNR over each item's own power, in dB, [B]."""
    shape = (-1, *[1] * (h.dim() - 1))
    power = h.abs().square().flatten(1).mean(dim=1)
    n0 = power * 10 ** (-snr_db.to(h.device) / 10)
    return h + n0.sqrt().view(shape) * complex_normal(tuple(h.shape), generator)


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Return numbers between low and high, [count], on the generator's device."""
    draw = torch.rand(count, generator=generator, device=generator.device)
    return low + (high - low) * draw


def cropped(h: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return h [B, T, S, F], by a chance of ``share`` cut to neighbours along S and F.

    Each side is from 1 to all of it, the same for all items, and each doubling is equally likely.
    """
    draws = torch.rand(5, generator=generator, device=generator.device).tolist()
    if draws[0] >= share:
        return h
    for axis, size_draw, place_draw in ((2, *draws[1:3]), (3, *draws[3:5])):
        whole = h.shape[axis]
        size = min(int((whole + 1) ** size_draw), whole)
        h = h.narrow(axis, int(place_draw * (whole - size + 1)), size)
    return h


class ChannelTask(Task):
    """A task that tells something of channels; of an item that was lost on its way it tells zeros.

    Such an item arrives as zeros alone, and the networks refuse a channel without power.
    """

    def _output(self, estimate: Tensor, told: Tensor | None) -> Tensor:
        lost = ~estimate.flatten(1).any(dim=1)
        output = super()._output(torch.where(_beside(lost, estimate), 1, estimate), told)
        return torch.where(_beside(lost, output), 0, output)


def _beside(flags: Tensor, like: Tensor) -> Tensor:
    """Return flags [B] with as many axes as a tensor [B, ...] has."""
    return flags.view(-1, *[1] * (like.dim() - 1))


def error_over_power(output: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean over items of error power over power, a scalar; [B, ...] both.

    Raises:
        ValueError: an item has no power.
    """
    power = wanted.square().flatten(1).sum(dim=1)
    if not bool(power.all()):
        raise ValueError(
            "an error is divided by the power of its channel, and one of the payload's channels "
            "is all zeros; leave it out"
        )
    return ((output - wanted).square().flatten(1).sum(dim=1) / power).mean()


class FillIn(ChannelTask):
    """Fill in the hidden part of a channel that is seen through noise.

    In training a part is hidden, of four kinds in turn by chance: random patches, the last slots,
    the upper subcarriers, or antenna pairs; the loss is the error power on the hidden patches over
    the power of the channel. In a share of the batches nothing is hidden, and the loss is the error
    power that is left over that of the noise. Otherwise the last slots are predicted from those
    before.

    Args:
        size: of the model: tiny, lwm, small or base80.
        patch: slots, antenna pairs and subcarriers of a patch.
        mode, attention, time_causal, temporal_pe: as for WirelessGPT.
        whole: of ``weights`` that have a token for the whole channel. A fresh model takes none,
            for filling in trains nothing of what comes out of it.
        weights: name of shipped weights or a .safetensors file; None for a fresh model.
        trainable: whether the model is trained.
        share: of random patches that are hidden.
        noise_db: lowest and highest SNR of what is seen in training.
        horizon: slots that are predicted.
        crop: share of training batches that are cut to a random part of the antenna pairs and of
            the subcarriers, so that smaller arrays and narrower bands are met too.
        denoise: share of training batches in which nothing is hidden. Without any, z tells little
            of the patch that it stands for.
    """

    metric = "channel_nmse"
    later_options: ClassVar = ("crop", "denoise")

    def __init__(
        self,
        size: str = "small",
        *,
        patch: tuple[int, int, int] = (4, 4, 4),
        mode: Literal["bert", "mae"] = "bert",
        attention: Literal["joint", "factorised"] = "joint",
        time_causal: bool = False,
        temporal_pe: bool = True,
        whole: bool = False,
        weights: str | None = None,
        trainable: bool = True,
        share: float = 0.4,
        noise_db: tuple[float, float] = (5.0, 25.0),
        horizon: int = 4,
        crop: float = 0.0,
        denoise: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share is between 0 and 1, got {share}; LWM hides 0.4")
        check_span("noise_db", noise_db)
        if horizon < 1:
            raise ValueError(f"horizon is at least 1 slot, got {horizon}")
        for name, batches in (("crop", crop), ("denoise", denoise)):
            if not 0 <= batches <= 1:
                raise ValueError(
                    f"{name} is a share of the batches, 0 to 1, got {batches}; write a number such "
                    "as 0.5"
                )
        if whole and weights is None:
            raise ValueError(
                "whole adds a token of which filling in trains nothing that comes out, got true "
                "for a fresh model; leave it out, and the mean of z tells of the whole channel"
            )
        self.share, self.noise_db, self.horizon = share, noise_db, horizon
        self.crop, self.denoise = crop, denoise
        model = WirelessGPT.preset(
            size, patch=tuple(patch), mode=mode, attention=attention, time_causal=time_causal,
            temporal_pe=temporal_pe, whole=whole,
        )  # fmt: skip
        self.use(model, weights, trainable=trainable)

    def forward(self, estimate: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the last slots as predicted, [B, horizon, 2, S, F]; all slots where hidden is."""
        check_channels(estimate, "fill_in")
        model: Any = self.network
        h = joined(estimate)
        if hidden is not None:
            return parts(model(h, hidden))
        return parts(model(h, model.hidden_slots(h, self.horizon))[:, -self.horizon :])

    def own_loss(
        self, source: Tensor, target: Tensor, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the error power on hidden patches over the power of the channel, a scalar.

        In a batch of which nothing is hidden: the error power over that of the noise.
        """
        check_channels(source, "fill_in")
        model: Any = self.network
        h = joined(source)
        if self.crop:
            part = cropped(h, self.crop, generator)
            h = part if model.grid(part).total > 1 else h
        if model.grid(h).total == 1:
            raise ValueError(
                f"fill_in hides some patches of a channel, and {list(h.shape[1:])} is one patch of "
                f"{list(model.patch)}; take more slots, antennas or subcarriers, or a smaller patch"
            )
        if self.denoise and float(uniform(0, 1, 1, generator)) < self.denoise:
            seen = noisy(h, uniform(*self.noise_db, len(h), generator), generator)
            noise = (seen - h).abs().square().mean(dim=(1, 2, 3))
            return ((model(seen) - h).abs().square().mean(dim=(1, 2, 3)) / noise).mean()
        hidden = hide(model.grid(h), len(h), generator, share=self.share)
        seen = noisy(h, uniform(*self.noise_db, len(h), generator), generator)
        believed = joined(self(parts(seen), hidden=hidden))
        power = h.abs().square().mean(dim=(1, 2, 3))
        error = patchify(believed - h, model.patch).square().sum(dim=2) / power[:, None]
        values = patchify(torch.ones_like(h), model.patch).sum(dim=2)  # of patches over the edge
        return (error * hidden).sum() / (values * hidden).sum()

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the error power of the prediction over the power of what came, a scalar."""
        check_channels(target, "fill_in", "target")
        return error_over_power(output, target[:, -output.shape[1] :])
