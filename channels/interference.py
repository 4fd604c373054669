"""Another transmitter on the same resource."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from channels.awgn import AWGN, add_noise
from channels.base import Channel, ChannelState
from channels.checks import check_generator, check_range
from channels.fading import Rayleigh
from channels.streams import forks, normal_by_use
from channels.units import db_to_linear


class Interference(nn.Module):
    """Add a co-channel signal that arrives weaker than the wanted one by the SIR, on average.

        x ──► channel ──► + ──► y
                          ▲
        s ──► g ──────────┘      E|g|^2 = 10^(-sir_db / 10), s ~ CN(0, 1) white

    The interferer has one antenna and Gaussian symbols, and reaches each receive antenna through
    its own flat Rayleigh gain, constant over the item. It is a signal, not noise: it is there also
    where n0 is None. Its mean power stands in ``ChannelState.interference``, so that a receiver
    counts it into n0; ``covariance``, g g^H, is for one that whitens it, and g is in ``stages[1]``.

    Args:
        sir_db: signal to interference ratio per receive antenna, averaged over fading, in dB.
        channel: what the wanted signal travels through; AWGN where left out.
    """

    only_gain = False

    def __init__(self, sir_db: float, *, channel: Channel | None = None) -> None:
        super().__init__()
        check_range("sir_db", sir_db, low=-100.0, high=300.0, hint="equal powers have 0 dB")
        self.sir_db = float(sir_db)
        self.channel = channel if channel is not None else AWGN()
        self.num_tx = self.channel.num_tx
        self.num_rx = self.channel.num_rx

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw the channel of the wanted signal and the gain of the interferer, [B, R, 1, 1]."""
        (others,) = forks(generator, "interferer")
        gain = Rayleigh(num_rx=self.num_rx).draw(batch, uses, others)
        wanted = self.channel.draw(batch, uses, generator)
        power = db_to_linear(-self.sir_db)
        other = ChannelState(power**0.5 * gain.h, uses)
        return heard_beside(wanted, other, power, _heard)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        check_generator(x, generator)
        wanted, interferer = state.stages
        others, own = forks(generator, "interferer", "wanted")
        y = self.channel(x, wanted, None, own)
        symbols = normal_by_use((len(x), 1), x.shape[-1], others, y.dtype)
        return add_noise(y + interferer.h[:, :, 0].to(y.dtype) * symbols, n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"sir_db={self.sir_db}"


def heard_beside(
    wanted: ChannelState,
    other: ChannelState,
    power: float,
    join: Callable[[tuple[ChannelState, ...]], tuple[Tensor, Tensor | None]],
) -> ChannelState:
    """Return the state of a wanted signal that arrives beside something else.

    Args:
        wanted: what the signal travels through.
        other: what is there beside it.
        power: mean power of that per receive antenna, linear.
        join: as in :class:`ChannelState`, for the two.
    """
    h, covariance = join((wanted, other))
    return ChannelState(
        h=h,
        coherence=wanted.coherence,
        interference=wanted.interference + power,
        stages=(wanted, other),
        join=join,
        grid=wanted.grid,
        correlation=wanted.correlation,
        covariance=covariance,
        waveform=wanted.waveform,
    )


def _heard(stages: tuple[ChannelState, ...]) -> tuple[Tensor, Tensor]:
    wanted, other = stages
    g = other.h[..., 0].to(torch.complex128)
    return wanted.h, wanted.coloured() + (g @ g.mH)[..., None]
