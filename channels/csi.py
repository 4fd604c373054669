"""What each end of a link knows of the channel: all, an estimate from pilots, feedback, nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState
from channels.blocks import block_means, block_middles, count_blocks, over_grid, per_use
from channels.checks import check_choice, check_count, check_range
from channels.streams import beside, gains_by_use

UNQUANTISED_BITS = 32  #: charged per real coefficient that is fed back without quantisation


@dataclass(frozen=True)
class Overhead:
    """What knowing the channel costs one item.

    Args:
        pilot_uses: channel uses spent on pilots.
        feedback_bits: bits sent back to the transmitter.
    """

    pilot_uses: float = 0.0
    feedback_bits: float = 0.0


class CSISource(Protocol):
    """How one end comes to know the channel."""

    def __call__(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return what this end believes.

        Args:
            state: the channel's realisation.
            n0: noise power per complex symbol, [B], linear.
            generator: draws estimation errors and the like, on the device of ``state.h``.
            received: the receiver's belief, for a transmitter that is told.
        """
        ...

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return what that knowledge costs an item of ``uses`` channel uses."""
        ...


def remember(
    source: CSISource, csi: CSI, state: ChannelState, n0: Tensor, generator: torch.Generator
) -> CSI:
    """Return ``csi``, from ``source``, with its past: what the source would have said earlier.

    Errors of earlier estimates are drawn beside ``generator``, and only when the past is asked for.
    """
    seed = partial(beside, generator.get_state(), generator.device)
    return replace(csi, past=partial(_recall, source, state, n0, seed))


def _recall(
    source: CSISource,
    state: ChannelState,
    n0: Tensor,
    seed: Callable[..., torch.Generator],
    delay_s: float,
) -> CSI:
    return source(state.earlier(delay_s), n0, seed(delay_s))


class Observer(nn.Module):
    """An end that asks nobody, at no cost unless it says so: a subclass gives ``believe``."""

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return what this end makes of the channel; n0 [B], linear."""
        raise NotImplementedError(f"{type(self).__name__} gives no believe(state, n0, generator)")

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return what :meth:`believe` does, whatever the other end has received."""
        return self.believe(state, n0, generator)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost: nothing is measured or sent."""
        return Overhead()


class PerfectCSI(Observer):
    """Know the channel exactly, at no cost: the upper bound."""

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return the true gain and the true noise power, interference included; n0 [B], linear."""
        if state.covariance is None:
            return CSI(state.h, n0 + state.interference)
        eye = torch.eye(state.h.shape[1], dtype=torch.float64, device=n0.device)
        white = n0[:, None, None, None] * eye[..., None]
        return CSI(state.h, n0 + state.interference, covariance=state.covariance + white)


class NoCSI(Observer):
    """Know the long-term SNR and nothing of the realisation."""

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return no gain and the mean noise power, interference included; n0 [B], linear."""
        return CSI(None, n0 + state.interference)


class PilotCSI(Observer):
    """Estimate the channel from orthogonal pilots, sent at the power and SNR of the symbols.

        h_ls = h + e,  e ~ CN(0, n0 T / per_block),  h_lmmse = h_ls / (1 + n0 T / per_block)

    Each coherence block has its own ``per_block`` channel uses for pilots, beside the payload; with
    ``coherence=1`` every symbol pays for them. Where the gain drifts within a block (an oscillator
    that is tracked), pilots show it in the middle and that gain is believed throughout. The
    shrinkage is the linear MMSE estimate for E|h|^2 = 1. The believed n0 contains interference, the
    drift that the channel's statistics let expect, and the power of the estimation error: e's
    variance for "ls" and what shrinkage leaves of it for "lmmse". A lost packet (h = 0) is known to
    be lost. Over an OFDM grid use :class:`channels.dmrs.DmrsCSI`.

    Args:
        per_block: pilots per coherence block, at least the number of transmit antennas.
        estimator: "ls" (least squares) or "lmmse".

    Source: Hassibi, Hochwald, How much training is needed in multiple-antenna wireless links?
        (2003).
    """

    def __init__(self, per_block: int = 4, estimator: Literal["ls", "lmmse"] = "ls") -> None:
        super().__init__()
        check_count("per_block", per_block, "each transmit antenna needs at least one pilot")
        check_choice("estimator", estimator, ("ls", "lmmse"))
        self.per_block = per_block
        self.estimator = estimator

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"per_block={self.per_block}, estimator={self.estimator!r}"

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return the estimate, constant per block, and the noise it leaves; n0 [B], linear."""
        _refuse_grid(state)
        num_tx = state.h.shape[2]
        self._check_pilots(num_tx)
        noise = n0 + state.interference
        variance = noise * num_tx / self.per_block
        middle = block_middles(state)
        shape = tuple(middle.shape[:3])
        error = gains_by_use(shape, middle.shape[3], generator).to(middle.dtype)
        h = middle + variance.sqrt()[:, None, None, None] * error
        missed = variance + state.drift
        if self.estimator == "lmmse":
            h = h / (1 + variance)[:, None, None, None]
            missed = missed / (1 + variance)
        h = torch.where((middle == 0).all(dim=2, keepdim=True), 0, h)
        return CSI(per_use(h, state), noise + missed)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return ``per_block`` channel uses for each coherence block."""
        _refuse_grid(state)
        self._check_pilots(num_tx)
        return Overhead(pilot_uses=float(self.per_block * count_blocks(state, uses)))

    def _check_pilots(self, num_tx: int) -> None:
        if self.per_block < num_tx:
            raise ValueError(
                f"per_block={self.per_block} pilots cannot tell {num_tx} transmit antennas apart; "
                f"set per_block to {num_tx} or more"
            )


class FeedbackCSI(nn.Module):
    """Tell the transmitter what the receiver believes: late, and in few bits, over a clean line.

    A report that is ``delay_s`` old says what the receiver knew then, of the channel as it was: the
    channel's own motion ages it (its ``speed_mps``), and one that stands still is refused. The
    transmitter takes the quantised report for the channel of now. Real and imaginary parts are
    quantised uniformly over +-1.4 sigma sqrt(bits), sigma^2 = 1/2, which for Gaussian gains errs at
    most 4 % more than the best range does (1 to 12 bits); values beyond are clipped. One report per
    coherence block, of its mean gain; over an OFDM grid one per slot and group of subcarriers that
    stay correlated by 0.9, and one per group for all slots where nothing moves.

    Args:
        bits: bits per real coefficient, 1 to 32; None reports floats and charges 32 bits for each.
        delay_s: age of the report when it is used, in s.

    Source: Max, Quantizing for minimum distortion (1960).
    """

    def __init__(self, bits: int | None = None, *, delay_s: float = 0.0) -> None:
        super().__init__()
        if bits is not None:
            hint = "for a report without quantisation leave bits out"
            check_count("bits", bits, hint)
            check_range("bits", bits, low=1, high=UNQUANTISED_BITS, hint=hint)
        check_range("delay_s", delay_s, low=0.0, high=1e6, hint="5 ms is 0.005")
        self.bits = bits
        self.delay_s = float(delay_s)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"bits={self.bits}, delay_s={self.delay_s}"

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the receiver's belief as it arrives at the transmitter."""
        h, n0 = self.report(state, received, self.delay_s)
        return CSI(per_use(h, state), n0)

    def report(
        self, state: ChannelState, received: CSI | None, delay_s: float
    ) -> tuple[Tensor, Tensor]:
        """Return what the receiver reported so long ago, [B, R, T, blocks], and its noise [B]."""
        if received is not None and delay_s:
            received = self._as_it_was(received, state, delay_s)
        if received is None or received.h is None:
            raise ValueError(
                "csi feedback reports what the receiver knows, and it knows no channel; set csi.rx "
                "to perfect or pilots, and use feedback for csi.tx only"
            )
        h = block_means(replace(state, h=received.h))
        if self.bits is not None:
            h = _quantise(h, self.bits)
        n0 = received.n0
        return h, n0 if n0.dim() == 1 else n0.mean(dim=(1, 2))

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return the bits of one report per coherence block: 2 R T real coefficients each."""
        bits = UNQUANTISED_BITS if self.bits is None else self.bits
        coefficients = 2 * state.h.shape[1] * num_tx
        return Overhead(feedback_bits=float(bits * coefficients * count_blocks(state, uses)))

    @staticmethod
    def _as_it_was(received: CSI, state: ChannelState, delay_s: float) -> CSI:
        if not state.moves:
            raise ValueError(
                f"delay_s={delay_s} has no effect, for this channel stands still and a report "
                "of it does not age; set speed_mps of the channel above 0, or leave delay_s out"
            )
        if received.past is None:
            raise ValueError(
                "this receiver's CSI has no past to report; add it with channels.csi.remember"
            )
        return received.past(delay_s)


class MismatchedCSI(Observer):
    """Believe in a channel that is not there: h ~ CN(0, 1) of another draw, with the true noise.

    A control: what a link gains by CSI it must lose by this. h is drawn beside ``generator``, from
    a seed made of its state, so fading and noise are those of the same link with another source.
    """

    def believe(self, state: ChannelState, n0: Tensor, generator: torch.Generator) -> CSI:
        """Return white gains [B, R, T, 1 or N], constant per block, and n0 [B], linear."""
        unheard = beside(generator.get_state(), generator.device)
        blocks = block_means(state)
        h = gains_by_use(tuple(blocks.shape[:3]), blocks.shape[3], unheard).to(blocks.dtype)
        return CSI(per_use(h, state), n0 + state.interference)


def _refuse_grid(state: ChannelState) -> None:
    if over_grid(state):
        instead = (
            "csi perfect, for another stage changes its gains"
            if state.grid is None
            else "csi dmrs, whose pilots stand on the grid"
        )
        raise ValueError(
            "csi pilots measures one gain per coherence block, and over an OFDM grid none lasts "
            f"that long; use {instead}"
        )


def _quantise(h: Tensor, bits: int) -> Tensor:
    """Round real and imaginary part to the middle of the nearest of 2^bits equal cells."""
    levels = 2**bits
    largest = 1.4 * math.sqrt(0.5 * bits)
    step = 2 * largest / levels
    parts = torch.view_as_real(h.resolve_conj())
    cell = (parts / step).floor().clamp(-levels // 2, levels // 2 - 1)
    return torch.view_as_complex((cell + 0.5) * step)
