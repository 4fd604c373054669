"""Metrics of real values of any shape, as of channels and features."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from channels.checks import check_finite
from channels.units import db_to_linear, linear_to_db
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
        told, wanted = told_and_wanted(outcome, self.name)
        power = wanted.square().flatten(1).sum(dim=1)
        error = (told - wanted).square().flatten(1).sum(dim=1)
        if not power.all():
            raise ValueError(f"{self.name} divides by the power of an item, and one is all zeros")
        return error / power


class AngleDelayNMSE(ChannelNMSE):
    """Error of the power over angle and delay, the squared 2-D transform of H in each slot, in dB.

    It sees where the power comes from, and not its phase.
    """

    name, label = "angle_delay_nmse", "NMSE of the angle-delay map"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return |error|^2 over |map|^2 of each item, [B], linear."""
        told, wanted = (_map(part) for part in told_and_wanted(outcome, self.name))
        error = (told - wanted).square().flatten(1).sum(dim=1)
        return error / wanted.square().flatten(1).sum(dim=1)


class RateLoss(Metric):
    """What matched-filter precoding to the channel that a task tells loses in rate, in bit/use.

    S transmit antennas serve one receive antenna; each resource element has a precoder of its own.

    Args:
        snr_db: of the link that it is for, before the gain of the antennas.
    """

    name, unit, label = "rate_loss", "bit/use", "Rate lost"
    better: Literal["higher", "lower"] = "lower"

    def __init__(self, snr_db: float = 10.0) -> None:
        check_finite("snr_db", snr_db, "of the link that the metric is for, such as 10")
        self.snr = float(db_to_linear(torch.tensor(snr_db, dtype=torch.float64)))

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the loss of each item, [B], mean over slots and subcarriers."""
        told, wanted = (_complex(part) for part in told_and_wanted(outcome, self.name))
        power = wanted.abs().square().sum(dim=2)
        length = told.abs().square().sum(dim=2).clamp(min=torch.finfo(torch.float32).tiny)
        met = (told.conj() * wanted).sum(dim=2).abs().square() / length
        lost = torch.log2(1 + self.snr * power) - torch.log2(1 + self.snr * met)
        return lost.flatten(1).mean(dim=1)


def told_and_wanted(outcome: Outcome, name: str) -> tuple[Tensor, Tensor]:
    """Return the slots that a task tells and the true ones, [B, t, 2, S, F] both."""
    truth, told = outcome.target, outcome.output
    if truth.dim() != 5 or told.shape[2:] != truth.shape[2:] or told.shape[1] > truth.shape[1]:
        raise ValueError(
            f"{name} compares channels [T, 2, S, F], the task's with the payload's, got "
            f"{list(told.shape[1:])} and {list(truth.shape[1:])}; use a payload of channels, "
            "target: channel, and a task that tells channels"
        )
    return told.detach(), truth[:, -told.shape[1] :].detach()


def _complex(part: Tensor) -> Tensor:
    return torch.complex(part[:, :, 0], part[:, :, 1])


def _map(part: Tensor) -> Tensor:
    return torch.fft.fft2(_complex(part)).abs().square()
