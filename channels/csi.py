"""What each end of a link knows of the channel: all, an estimate from pilots, feedback, nothing."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from channels.base import CSI, ChannelState, complex_normal
from channels.checks import check_choice, check_count, check_range

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


class PerfectCSI(nn.Module):
    """Know the channel exactly, at no cost: the upper bound."""

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the true gain and the true noise power, interference included; n0 [B], linear."""
        return CSI(state.h, n0 + state.interference)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost: nothing is measured or sent."""
        return Overhead()


class NoCSI(nn.Module):
    """Know the long-term SNR and nothing of the realisation."""

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return no gain and the mean noise power, interference included; n0 [B], linear."""
        return CSI(None, n0 + state.interference)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost: nothing is measured or sent."""
        return Overhead()


class PilotCSI(nn.Module):
    """Estimate the channel from orthogonal pilots, sent at the power and SNR of the symbols.

        h_ls = h_mean + e,  e ~ CN(0, n0 T / per_block),  h_lmmse = h_ls / (1 + n0 T / per_block)

    Each coherence block has its own ``per_block`` channel uses for pilots, beside the payload; with
    ``coherence=1`` every symbol pays for them. Where the gain drifts within a block (OFDM), pilots
    measure its mean over the block and that mean is believed throughout. The shrinkage is the
    linear MMSE estimate for E|h|^2 = 1. The believed n0 contains interference, the item's mean
    drift, and the power of the estimation error: e's variance for "ls" and what shrinkage leaves of
    it for "lmmse". A lost packet (h = 0) is known to be lost.

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

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the estimate, constant per block, and the noise it leaves; n0 [B], linear."""
        num_tx = state.h.shape[2]
        self._check_pilots(num_tx)
        noise = n0 + state.interference
        variance = noise * num_tx / self.per_block
        mean = _block_means(state)
        error = complex_normal(tuple(mean.shape), generator, mean.dtype)
        h = mean + variance.sqrt()[:, None, None, None] * error
        if self.estimator == "lmmse":
            h = h / (1 + variance)[:, None, None, None]
            variance = variance / (1 + variance)
        h = torch.where((mean == 0).all(dim=2, keepdim=True), 0, h)
        return CSI(_per_use(h, state), noise + variance + _drift(mean, state))

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return ``per_block`` channel uses for each coherence block."""
        self._check_pilots(num_tx)
        return Overhead(pilot_uses=float(self.per_block * _count_blocks(state, uses)))

    def _check_pilots(self, num_tx: int) -> None:
        if self.per_block < num_tx:
            raise ValueError(
                f"per_block={self.per_block} pilots cannot tell {num_tx} transmit antennas apart; "
                f"set per_block to {num_tx} or more"
            )


class FeedbackCSI(nn.Module):
    """Tell the transmitter what the receiver believes: late, and in few bits, over a clean line.

        h_old = rho h + sqrt(1 - rho^2) w,  rho = J0(2 pi doppler_hz delay_s),  w ~ CN(0, 1)

    The transmitter takes the quantised h_old for the channel. Real and imaginary parts are
    quantised uniformly over +-1.4 sigma sqrt(bits), sigma^2 = 1/2, which for Gaussian gains errs at
    most 4 % more than the best range does (1 to 12 bits); values beyond are clipped. One report per
    coherence block, of its mean gain.

    Args:
        bits: bits per real coefficient; None reports floats and charges 32 bits for each.
        delay_s: age of the report when it is used, in s.
        doppler_hz: maximum Doppler shift, in Hz.

    Source: Clarke, A statistical theory of mobile-radio reception (1968); Max, Quantizing for
        minimum distortion (1960).
    """

    def __init__(
        self, bits: int | None = None, *, delay_s: float = 0.0, doppler_hz: float = 0.0
    ) -> None:
        super().__init__()
        if bits is not None:
            check_count("bits", bits, "for a report without quantisation leave bits out")
        check_range("delay_s", delay_s, low=0.0, high=math.inf, hint="5 ms is 0.005")
        check_range("doppler_hz", doppler_hz, low=0.0, high=math.inf, hint="speed / wavelength")
        self.bits = bits
        self.delay_s = float(delay_s)
        self.doppler_hz = float(doppler_hz)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"bits={self.bits}, delay_s={self.delay_s}, doppler_hz={self.doppler_hz}"

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return the receiver's belief as it arrives at the transmitter."""
        if received is None or received.h is None:
            raise ValueError(
                "csi feedback reports what the receiver knows, and it knows no channel; set csi.rx "
                "to perfect or pilots, and use feedback for csi.tx only"
            )
        h = _block_means(ChannelState(received.h, state.coherence))
        correlation = self._correlation()
        if correlation < 1:
            drift = complex_normal(tuple(h.shape), generator, h.dtype)
            h = correlation * h + math.sqrt(1 - correlation**2) * drift
        if self.bits is not None:
            h = _quantise(h, self.bits)
        return CSI(_per_use(h, state), received.n0)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return the bits of one report per coherence block: 2 R T real coefficients each."""
        bits = UNQUANTISED_BITS if self.bits is None else self.bits
        coefficients = 2 * state.h.shape[1] * num_tx
        return Overhead(feedback_bits=float(bits * coefficients * _count_blocks(state, uses)))

    def _correlation(self) -> float:
        phase = torch.tensor(2 * math.pi * self.doppler_hz * self.delay_s, dtype=torch.float64)
        return float(torch.special.bessel_j0(phase))


class MismatchedCSI(nn.Module):
    """Believe in a channel that is not there: h ~ CN(0, 1) of another draw, with the true noise.

    A control: what a link gains by CSI it must lose by this. h is drawn beside ``generator``, from
    a seed made of its state, so fading and noise are those of the same link with another source.
    """

    def forward(
        self,
        state: ChannelState,
        n0: Tensor,
        generator: torch.Generator,
        received: CSI | None = None,
    ) -> CSI:
        """Return white gains [B, R, T, 1 or N], constant per block, and n0 [B], linear."""
        digest = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
        beside = torch.Generator(generator.device)
        beside.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        blocks = _block_means(state)
        h = complex_normal(tuple(blocks.shape), beside, blocks.dtype)
        return CSI(_per_use(h, state), n0 + state.interference)

    def overhead(self, state: ChannelState, uses: int, num_tx: int) -> Overhead:
        """Return no cost, as for the truth that it stands against."""
        return Overhead()


def _count_blocks(state: ChannelState, uses: int) -> int:
    return 1 if state.h.shape[-1] == 1 else math.ceil(uses / state.coherence)


def _block_means(state: ChannelState) -> Tensor:
    """Return the mean gain of each coherence block, [B, R, T, blocks]."""
    h, uses = state.h, state.h.shape[-1]
    if uses == 1 or state.coherence == 1:
        return h
    coherence = min(state.coherence, uses)
    whole = uses - uses % coherence
    means = h[..., :whole].unflatten(-1, (-1, coherence)).mean(dim=-1)
    if whole == uses:
        return means
    return torch.cat([means, h[..., whole:].mean(dim=-1, keepdim=True)], dim=-1)


def _per_use(h: Tensor, state: ChannelState) -> Tensor:
    """Repeat [B, R, T, blocks] to the uses of ``state.h``."""
    uses = state.h.shape[-1]
    if uses == 1 or state.coherence == 1:
        return h
    return h.repeat_interleave(state.coherence, dim=-1)[..., :uses]


def _drift(mean: Tensor, state: ChannelState) -> Tensor | float:
    """Return the mean power by which the gain of each item leaves its block's mean, [B]."""
    if state.h.shape[-1] == mean.shape[-1]:
        return 0.0
    return (state.h - _per_use(mean, state)).abs().square().mean(dim=(1, 2, 3))


def _quantise(h: Tensor, bits: int) -> Tensor:
    """Round real and imaginary part to the middle of the nearest of 2^bits equal cells."""
    levels = 2**bits
    largest = 1.4 * math.sqrt(0.5 * bits)
    step = 2 * largest / levels
    parts = torch.view_as_real(h.resolve_conj())
    cell = (parts / step).floor().clamp(-levels // 2, levels // 2 - 1)
    return torch.view_as_complex((cell + 0.5) * step)
