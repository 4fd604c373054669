"""Metrics of real values of any shape, as of channels and features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from channels.units import linear_to_db
from semsim.metrics.base import Metric, Outcome, Pair

_LEAST = 1e-12  # -120 dB: single precision tells no more


class NMSE(Metric):
    """Error power over source power of each item, mean over items in dB: 0 dB is a guess of zero.

    An item may be a sequence; its error is that of all its moments together.
    """

    name, unit = "nmse", "dB"
    better: Literal["higher", "lower"] = "lower"
    judges: Pair = "link"
    worst = 1.0

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return |error|^2 over |source|^2 of each item, [B], linear."""
        link, source = outcome.transmission, outcome.source
        arrived = outcome.output if link is None else link.estimate
        if arrived.shape != source.shape:
            raise ValueError(
                f"nmse compares what arrives with what was sent, {list(source.shape[1:])} per "
                f"item, got {list(arrived.shape[1:])}; use a receiver of the same items"
            )
        power = source.detach().abs().square().flatten(1).sum(dim=1)
        error = (arrived - source).detach().abs().square().flatten(1).sum(dim=1)
        if not power.all():
            raise ValueError("nmse divides by the power of an item, and an item is all zeros")
        return error / power

    def combine(self, mean: float) -> float:
        """Return the mean in dB, at least -120 dB."""
        return float(linear_to_db(torch.tensor(mean, dtype=torch.float64).clamp(min=_LEAST)))


class ChannelNMSE(NMSE):
    """Error power over power of the channel that a task tells, against the true one, in dB.

    Where a task tells fewer slots than there are, such as a prediction, they are the last ones.
    """

    name = "channel_nmse"
    label = "NMSE"
    judges: Pair = "task"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return |error|^2 over |truth|^2 of each item, [B], linear."""
        truth, told = outcome.target, outcome.output
        if truth.dim() != 5 or told.shape[2:] != truth.shape[2:] or told.shape[1] > truth.shape[1]:
            raise ValueError(
                f"channel_nmse compares channels [T, 2, S, F], the task's with the payload's, got "
                f"{list(told.shape[1:])} and {list(truth.shape[1:])}; use a payload of channels, "
                "target: channel, and a task that tells channels"
            )
        wanted = truth[:, -told.shape[1] :].detach()
        power = wanted.square().flatten(1).sum(dim=1)
        error = (told.detach() - wanted).square().flatten(1).sum(dim=1)
        if not power.all():
            raise ValueError("channel_nmse divides by the power of an item, and one is all zeros")
        return error / power
