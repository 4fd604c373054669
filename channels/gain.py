"""Gains applied to symbols: y = Hx + n."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from channels.awgn import add_noise
from channels.base import ChannelState, check_symbols


class GainChannel(nn.Module):
    """A channel of which the state says all, y = Hx + n: a subclass draws the state."""

    num_tx: int
    num_rx: int

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        check_symbols(x, self.num_tx)
        exact = state.coherence if state.grid is None else 1  # over a grid h only stays alike
        return add_noise(
            apply_gain(x, state.h, block_uses=exact, offset=state.offset), n0, generator
        )


def apply_gain(x: Tensor, h: Tensor, *, block_uses: int = 1, offset: int = 0) -> Tensor:
    """Return y[r] = sum over t of h[r, t] x[t], as one batched product.

    Args:
        x: [B, T, N], complex.
        h: [B, R, T, N], or [B, R, T, 1] where constant; it takes the dtype of x.
        block_uses: uses over which h is exactly constant, counted from the first; where more than
            one, the product runs over blocks and touches each gain once.
        offset: uses of the first block that lie before the first use.

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
    room = (offset, -(offset + uses) % block_uses)
    blocks = functional.pad(x, room).unflatten(-1, (-1, block_uses))
    each = h[..., ::block_uses]
    if offset:
        each = torch.cat([h[..., :1], h[..., block_uses - offset :: block_uses]], dim=-1)
    y = torch.einsum("brtk,btkn->brkn", each, blocks)
    return y.flatten(-2)[..., offset : offset + uses]


def common_coherence(uses: int, *coherences: int) -> int:
    """Return over how many uses gains stay that each stay for one of ``coherences``.

    Blocks start at the first use; what lasts for the whole item does not cut any.
    """
    return math.gcd(*(coherence for coherence in coherences if coherence < uses)) or uses
