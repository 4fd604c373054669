"""Noise that comes in rare and strong impulses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from channels.awgn import AWGN, add_noise
from channels.base import Channel, ChannelState
from channels.checks import check_count, check_generator, check_range
from channels.interference import heard_beside
from channels.streams import forks, normal_by_use, uniform_by_use
from channels.units import db_to_linear


class Impulsive(nn.Module):
    """Add Bernoulli-Gaussian impulses: few channel uses meet much more noise than the others.

        x ──► channel ──► + ──► y
                          ▲
             b[n] i[n] ───┘      b = 1 in a share ``rate`` of bursts, i ~ CN(0, 10^(-sir_db / 10))

    They come beside the noise of ``snr_db``, white over receive antennas, and are there also where
    n0 is None. Their mean power, rate 10^(-sir_db / 10), stands in ``ChannelState.interference``,
    so that a receiver counts it into n0; pilots and silent uses hear noise of that power. Which
    uses are hit stands in ``covariance``, for ``csi: perfect`` with what whitens (``irc``, ``svd``
    with ``whiten``, ``detect: sic``): a bound that no receiver reaches, and at the
    transmitter one that knows the future. The hits belong to the realisation: a report of its past
    and a round of hybrid ARQ over the same fading meet the same ones.

    Args:
        rate: probability that a burst is hit, 0 to 1.
        sir_db: power of the signal over that of one impulse, per receive antenna, in dB; strong
            impulses have less than 0 dB. On average over all uses it is 10 lg(rate) less of a
            disturbance: 3 % at -12 dB are 3.2 dB.
        burst_uses: channel uses that are hit together; 1 for independent ones.
        channel: what the signal travels through; AWGN where left out.

    Source: Ghosh, Analysis of the effect of impulse noise on multicarrier and single carrier QAM
    systems, IEEE Trans. Commun. 44(2), 1996.
    """

    only_gain = False

    def __init__(
        self, rate: float, sir_db: float, burst_uses: int = 1, *, channel: Channel | None = None
    ) -> None:
        super().__init__()
        check_range("rate", rate, low=0.0, high=1.0, hint="one use in twenty is 0.05")
        check_range("sir_db", sir_db, low=-100.0, high=300.0, hint="ten times the signal is -10")
        check_count("burst_uses", burst_uses, "single uses are burst_uses: 1")
        self.rate, self.sir_db, self.burst_uses = float(rate), float(sir_db), burst_uses
        self.channel = channel if channel is not None else AWGN()
        self.num_tx = self.channel.num_tx
        self.num_rx = self.channel.num_rx

    @classmethod
    def example(cls) -> Impulsive:
        """Return one for tests of all channels."""
        return cls(0.05, -3.0)

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        """Draw the channel of the signal and which uses are hit."""
        (hits,) = forks(generator, "impulses")
        wanted = self.channel.draw(batch, uses, generator)
        amplitudes = self._amplitudes(batch, uses, hits)
        impulses = ChannelState(amplitudes, min(self.burst_uses, uses))
        mean = self.rate * db_to_linear(-self.sir_db)
        return heard_beside(wanted, impulses, mean, _heard)

    def _amplitudes(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        """Draw the amplitude of the impulses, 0 in uses that are not hit, [B, 1, 1, N]."""
        bursts = -(-uses // self.burst_uses)
        hit = uniform_by_use((batch,), bursts, generator) < self.rate
        hit = hit.repeat_interleave(self.burst_uses, dim=1)[:, None, None, :uses]
        return db_to_linear(-self.sir_db) ** 0.5 * hit.to(torch.complex64)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Send x [B, T, N], receive y [B, R, N]."""
        check_generator(x, generator)
        wanted, impulses = state.stages
        others, own = forks(generator, "impulses", "wanted")
        y = self.channel(x, wanted, None, own)
        noise = normal_by_use((len(x), self.num_rx), x.shape[-1], others, y.dtype)
        return add_noise(y + impulses.h[:, 0].to(y.dtype) * noise, n0, generator)

    def extra_repr(self) -> str:
        """Name the settings as they would be written."""
        return f"rate={self.rate}, sir_db={self.sir_db}, burst_uses={self.burst_uses}"


def _heard(stages: tuple[ChannelState, ...]) -> tuple[Tensor, Tensor | None]:
    wanted, impulses = stages
    power = impulses.h.real.double().square()
    eye = torch.eye(wanted.h.shape[1], dtype=torch.complex128, device=wanted.h.device)
    return wanted.h, wanted.coloured() + power * eye[None, ..., None]
