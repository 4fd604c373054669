"""What a transmitter makes of reports that come late: the channel as it will be by now."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from channels.base import CSI, ChannelState
from channels.blocks import block_means, per_use
from channels.checks import check_choice, check_count, check_positive, check_range
from channels.csi import FeedbackCSI, Overhead
from channels.grid import SLOT
from channels.streams import beside, gains_by_use
from channels.units import snr_db_to_n0
from semsim.csi.adapt import encoder_of
from semsim.csi.combined import combined
from semsim.csi.kalman import kalman
from semsim.csi.model import WirelessGPT, heard
from semsim.csi.rivals import own_autoregression

PIECE = 1024  #: histories that are continued together, so that memory does not grow with an item
By = Literal["hold", "ar", "kalman", "wirelessgpt", "combined"]


class PredictedCSI(FeedbackCSI):
    """Tell the transmitter late, as ``feedback`` does, and let it predict the channel of now.

        reports of delay_s ago, and of each interval_s before ─► predictor ─► H now ─► precoder

    Each coherence block has a history of its own; over an OFDM grid one per slot of an item, over
    antenna pairs and groups of subcarriers. Reports have come all along, before the first item of a
    sweep too: an item is charged for those of its own time alone, one every ``interval_s``, and at
    least one per slot, also where ``interval_s`` is longer. ``hold`` needs the latest one of each
    slot alone. Of blocks without a grid the duration is not known, and one report each is charged:
    where they are longer than ``interval_s``, all but ``hold`` know more than they pay for.

    Args:
        delay_s: age of the latest report when it is used, in s; a multiple of interval_s.
        by: ``hold`` takes the latest report for the channel of now, which is ``feedback``; ``ar``
            continues each item's history by a linear recursion fitted to it; ``kalman`` by the
            filter of the Doppler shift and noise that fit its history best, see
            :func:`semsim.csi.kalman.kalman`; ``wirelessgpt`` asks a pre-trained model;
            ``combined`` weighs ar, kalman and, where ``model`` is given, wirelessgpt by how well
            each foretells the latest reports, see :func:`semsim.csi.combined.combined`.
        interval_s: from one report to the next, in s.
        reports: how many are looked at. What the model has learned has 20 slots in all: 12
            reports where 8 are to come. ``combined`` needs order + 2 delay_s / interval_s of them.
        order: reports that ``ar`` weighs.
        model: weights of WirelessGPT: a name, or task.safetensors of a training of ``fill_in``.
        bits: bits per real coefficient; None reports floats.
        report_snr_db: SNR of the pilots that the reports rest on, in dB, from -200 to 200: each
            reported gain is the true one and an error CN(0, 1 / SNR), whatever the link's own SNR
            and csi.rx are, and every ``by`` hears the same. Each slot of an item has errors of its
            own. ``kalman`` knows their power (with ``bits`` it finds that of both errors itself),
            ``ar`` is fitted to reports as noisy as those it weighs. None reports what the receiver
            believes: the truth with csi.rx perfect, an estimate at the link's SNR with pilots.
    """

    later_options: ClassVar = ("report_snr_db",)

    def __init__(
        self,
        delay_s: float,
        by: By = "ar",
        *,
        interval_s: float = 0.5e-3,
        reports: int = 16,
        order: int = 6,
        model: str | None = None,
        bits: int | None = None,
        report_snr_db: float | None = None,
    ) -> None:
        super().__init__(bits, delay_s=delay_s)
        check_choice("by", by, get_args(By))
        check_positive("interval_s", interval_s, "every half millisecond is 5e-4")
        check_count("reports", reports, "the published models look at 16")
        check_count("order", order, "four waves need 4")
        self.by, self.interval_s, self.reports, self.order = by, float(interval_s), reports, order
        ratio = delay_s / interval_s
        self.horizon = round(ratio) if math.isfinite(ratio) else 0
        if self.horizon < 1 or not math.isclose(self.horizon * interval_s, delay_s, rel_tol=1e-6):
            raise ValueError(
                f"delay_s is a multiple of interval_s = {interval_s:g}, got {delay_s:g}; for fresh "
                "reports use csi feedback"
            )
        needed = order + self.horizon * (2 if by == "combined" else 1)
        if by in ("ar", "combined") and needed > reports:
            twice = "twice " if by == "combined" else ""
            raise ValueError(
                f"by: {by} needs as many reports as order {order} and {twice}the {self.horizon} "
                f"slots to come, got {reports}; write reports: {needed} or more, or a smaller order"
            )
        if by != "combined" and (by == "wirelessgpt") != (model is not None):
            raise ValueError(
                f"model goes with by: wirelessgpt or combined, got by {by!r} and model {model!r}; "
                "name weights of a training of fill_in, or leave model out"
            )
        if report_snr_db is not None:
            hint = "leave it out for reports without noise"
            check_range("report_snr_db", report_snr_db, low=-200, high=200, hint=hint)
        self.report_snr_db = report_snr_db
        self.network = None
        if model is not None:
            self.network = encoder_of(model, "small").eval().requires_grad_(False)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        noise = "" if self.report_snr_db is None else f", report_snr_db={self.report_snr_db}"
        return f"by={self.by!r}, interval_s={self.interval_s}, {super().extra_repr()}{noise}"

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the channel of now as predicted from late reports."""
        if received is not None and received.past is not None and self.report_snr_db is not None:
            seed = partial(beside, generator.get_state(), generator.device, "report")
            past = partial(self._measured, received.past, state, seed)
            received = replace(received, past=past)
        latest, noise = self.report(state, received, self.delay_s)
        if self.by == "hold":
            return CSI(per_use(latest, state), noise)
        ages = [self.delay_s + self.interval_s * k for k in range(1, self.reports)]
        older = [self.report(state, received, age)[0] for age in ages]
        history = torch.stack([*older[::-1], latest], dim=1)  # [B, M, R, T, blocks]
        return CSI(per_use(self._now(history, state), state), noise)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return the bits of the reports that are sent while an item is, see the class."""
        own = super().overhead(state, uses, num_tx)
        if self.by == "hold" or state.grid is None:
            return own
        slot_s = SLOT / state.grid.symbol_rate_hz
        reports = max(1.0, slot_s / self.interval_s)
        return replace(own, feedback_bits=own.feedback_bits * reports)

    def _measured(
        self,
        past: Callable[[float], CSI],
        state: ChannelState,
        seed: Callable[[float], torch.Generator],
        age_s: float,
    ) -> CSI:
        """Return what the receiver knew, its own estimate of h replaced by that of the reports."""
        csi = past(age_s)
        if csi.h is None:
            return csi
        h = block_means(state.earlier(age_s))
        error = gains_by_use(tuple(h.shape[:3]), h.shape[3], seed(age_s)).to(h.dtype)
        return replace(csi, h=per_use(h + self._noise() ** 0.5 * error, state))

    def _noise(self) -> float:
        """Return the power of a report's error, linear."""
        return 0.0 if self.report_snr_db is None else snr_db_to_n0(self.report_snr_db)

    def _now(self, history: Tensor, state: ChannelState) -> Tensor:
        """Return the channel of now, [B, R, T, blocks], of reports [B, M, R, T, blocks]."""
        groups = 1
        if state.grid is not None:
            groups = min(state.grid.subcarriers // state.grid.flat_subcarriers, history.shape[-1])
        rest = history.shape[-1] % groups  # of a last slot that has less than a symbol
        whole, cut = history.tensor_split([history.shape[-1] - rest], dim=-1)
        now = self._of_slots(whole, groups)
        return torch.cat([now, self._of_slots(cut, rest)], dim=-1) if rest else now

    def _of_slots(self, history: Tensor, groups: int) -> Tensor:
        """Return the same of slots that have so many groups of subcarriers each."""
        batch, moments, rx, tx = history.shape[:4]
        slots = history.unflatten(-1, (-1, groups)).movedim(4, 1)  # [B, slots, M, R, T, groups]
        h = slots.reshape(-1, moments, rx * tx, groups)
        told = torch.cat([self._predicted(some)[:, self.horizon - 1] for some in h.split(PIECE)])
        return told.view(batch, -1, rx, tx, groups).movedim(1, 3).flatten(3).to(history.dtype)

    def _predicted(self, h: Tensor) -> Tensor:
        """Return the next slots, [B, horizon or more, S, F], of histories h [B, M, S, F]."""
        known = {"ar": self._by_ar, "kalman": self._by_kalman, "wirelessgpt": self._by_model}
        if self.by != "combined":
            return known[self.by](h)
        if self.network is None:
            del known["wirelessgpt"]
        return combined(h, self.horizon, list(known.values()))

    def _by_ar(self, h: Tensor) -> Tensor:
        return own_autoregression(h, self.horizon, self.order)

    def _by_kalman(self, h: Tensor) -> Tensor:
        known = None
        if self.report_snr_db is not None and self.bits is None:
            known = torch.full((len(h),), self._noise(), device=h.device)
        return kalman(h, self.horizon, n0=known, order=self.reports)

    def _by_model(self, h: Tensor) -> Tensor:
        assert self.network is not None  # for mypy: by wirelessgpt has one
        return predict(self.network, h, self.horizon)


def predict(model: WirelessGPT, h: Tensor, horizon: int) -> Tensor:
    """Return the next slots of h [B, M, S, F] as a model predicts them, [B, horizon, S, F].

    Where nothing was received, as of lost packets, nothing is to come.
    """
    h, lost = heard(h)
    patch = model.patch[0]
    slots = -(-horizon // patch) * patch
    late = -(-h.shape[1] // patch) * patch - h.shape[1]  # zeros before, so that patches fit
    seen = torch.nn.functional.pad(h, (0, 0, 0, 0, late, slots))
    valid = None
    if late:
        valid = torch.ones(seen.shape, dtype=torch.bool, device=h.device)
        valid[:, :late] = False
    told: Tensor = model(seen, model.hidden_slots(seen, slots), valid)
    told = torch.where(lost, 0, told)
    return told[:, late + h.shape[1] :][:, :horizon]
