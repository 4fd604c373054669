"""Flat fading: Rayleigh and Rician, one antenna to many, constant over ``coherence`` uses.

All gains have E|h[r, t]|^2 = 1 in expectation and are never normalised per draw: a deep fade stays
a deep fade, also at batch 1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from channels import sionna_bridge
from channels.awgn import add_noise
from channels.base import ChannelState, check_symbols
from channels.checks import check_count, check_draw, check_range
from channels.units import db_to_linear

Coherence = Literal["block", "symbol"] | int


def apply_gain(x: Tensor, h: Tensor, *, block_uses: int = 1) -> Tensor:
    """Return y[r] = sum over t of h[r, t] x[t], as one batched product.

    Args:
        x: [B, T, N], complex.
        h: [B, R, T, N], or [B, R, T, 1] where constant; it takes the dtype of x.
        block_uses: uses over which h is exactly constant, counted from the first; where more than
            one, the product runs over blocks and touches each gain once.

    Returns:
        [B, R, N].
    """
    h = h.to(x.dtype)
    if h.shape[2] == 1:
        return h[:, :, 0] * x  # one transmit antenna: no sum to form
    if h.shape[-1] == 1:
        return h[..., 0] @ x
    if block_uses == 1:
        return torch.einsum("brtn,btn->brn", h, x)
    uses = x.shape[-1]
    blocks = functional.pad(x, (0, -uses % block_uses)).unflatten(-1, (-1, block_uses))
    y = torch.einsum("brtk,btkn->brkn", h[..., ::block_uses], blocks)
    return y.flatten(-2)[..., :uses]


def common_coherence(uses: int, *coherences: int) -> int:
    """Return over how many uses gains stay that each stay for one of ``coherences``.

    Blocks start at the first use; what lasts for the whole item does not cut any.
    """
    return math.gcd(*(coherence for coherence in coherences if coherence < uses)) or uses


class Rayleigh(nn.Module):
    """Rich scattering without line of sight: y = Hx + n, h[r, t] ~ CN(0, 1).

    With correlation, H = R_rx^(1/2) W R_tx^(1/2), W white and R[i, j] = correlation^|i - j| (the
    exponential Kronecker model). Sionna draws the gains.

    Args:
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
        coherence: uses over which a gain stays; "block" for the whole item, "symbol" for one use.
        tx_correlation: correlation of neighbouring transmit antennas, 0 to below 1.
        rx_correlation: correlation of neighbouring receive antennas, 0 to below 1.

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), sections 2.4 and 7.3.
    """

    def __init__(
        self,
        num_tx: int = 1,
        num_rx: int = 1,
        *,
        coherence: Coherence = "block",
        tx_correlation: float = 0.0,
        rx_correlation: float = 0.0,
    ) -> None:
        super().__init__()
        check_count("num_tx", num_tx, "one transmit antenna is num_tx: 1")
        check_count("num_rx", num_rx, "one receive antenna is num_rx: 1")
        _check_coherence(coherence)
        _check_correlation("tx_correlation", tx_correlation)
        _check_correlation("rx_correlation", rx_correlation)
        self.num_tx = num_tx
        self.num_rx = num_rx
        self.coherence = coherence
        self.tx_correlation = float(tx_correlation)
        self.rx_correlation = float(rx_correlation)

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw h [B, R, T, 1], or [B, R, T, N] where it changes within the item."""
        check_draw(batch, uses)
        coherence = _coherent_uses(self.coherence, uses)
        return ChannelState(self._gains(batch, uses, coherence, generator), coherence)

    def _gains(self, batch: int, uses: int, coherence: int, generator: torch.Generator) -> Tensor:
        blocks = -(-uses // coherence)
        h = sionna_bridge.flat_gains(
            batch * blocks,
            self.num_tx,
            self.num_rx,
            tx_correlation=self.tx_correlation,
            rx_correlation=self.rx_correlation,
            generator=generator,
        )
        h = h.unflatten(0, (batch, blocks)).movedim(1, -1)  # [B, R, T, blocks]
        if blocks == 1 or coherence == 1:
            return h
        return h.repeat_interleave(coherence, dim=-1)[..., :uses]

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        check_symbols(x, self.num_tx)
        return add_noise(apply_gain(x, state.h, block_uses=state.coherence), n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        text = f"num_tx={self.num_tx}, num_rx={self.num_rx}, coherence={self.coherence!r}"
        if self.tx_correlation or self.rx_correlation:
            text += f", tx_correlation={self.tx_correlation}, rx_correlation={self.rx_correlation}"
        return text


class Rician(Rayleigh):
    """Scattering around a line of sight: H = sqrt(K / (K + 1)) L + sqrt(1 / (K + 1)) H_scattered.

    L is all ones: both arrays face each other broadside, so the line of sight has rank one, phase
    zero and does not fade. At K -> inf one antenna gives AWGN; at K -> 0 all is Rayleigh.
    Correlation acts on the scattered part alone.

    Args:
        k_db: power of the line of sight over the scattered power, in dB; .inf leaves no scattering.
        num_tx: transmit antennas T.
        num_rx: receive antennas R.
        coherence: uses over which a gain stays; "block" for the whole item, "symbol" for one use.
        tx_correlation: correlation of neighbouring transmit antennas, 0 to below 1.
        rx_correlation: correlation of neighbouring receive antennas, 0 to below 1.

    Source: Tse, Viswanath, Fundamentals of Wireless Communication (2005), section 2.4.2.
    """

    def __init__(
        self,
        k_db: float,
        *,
        num_tx: int = 1,
        num_rx: int = 1,
        coherence: Coherence = "block",
        tx_correlation: float = 0.0,
        rx_correlation: float = 0.0,
    ) -> None:
        if not (isinstance(k_db, float) and math.isinf(k_db)):
            check_range("k_db", k_db, low=-300.0, high=300.0, hint="no scattering is .inf")
        super().__init__(
            num_tx,
            num_rx,
            coherence=coherence,
            tx_correlation=tx_correlation,
            rx_correlation=rx_correlation,
        )
        self.k_db = float(k_db)

    def _gains(self, batch: int, uses: int, coherence: int, generator: torch.Generator) -> Tensor:
        scattered = super()._gains(batch, uses, coherence, generator)
        scatter_power = 1 / (1 + db_to_linear(self.k_db))  # 1 / (K + 1), also at K = inf
        return math.sqrt(1 - scatter_power) + math.sqrt(scatter_power) * scattered

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"k_db={self.k_db}, {super().extra_repr()}"


def _coherent_uses(coherence: Coherence, uses: int) -> int:
    if coherence == "block":
        return uses
    return 1 if coherence == "symbol" else min(int(coherence), uses)


def _check_coherence(coherence: Coherence) -> None:
    if coherence in ("block", "symbol"):
        return
    if isinstance(coherence, bool) or not isinstance(coherence, int) or coherence < 1:
        raise ValueError(
            "coherence is 'block' (one gain per item), 'symbol' (one per use) or a whole number of "
            f"uses, got {coherence!r}"
        )


def _check_correlation(name: str, value: float) -> None:
    hint = "antennas without correlation have 0.0"
    check_range(name, value, low=0.0, high=1.0, hint=hint)
    if value == 1:
        raise ValueError(f"{name} stays below 1, got {value}; {hint}, nearly equal ones 0.999")
