"""A channel of your own: a path that something blocks now and then, beside AWGN and Rayleigh.

python examples/custom_channel.py [--quick]  # prints bit error rates
"""

import sys

import pandas as pd
import torch
from torch import nn

from channels import AWGN, ChannelState, Rayleigh
from channels.units import db_to_linear
from semsim import Link, Receiver, Transmitter, evaluate
from semsim.metrics.signal import BER
from semsim.payloads.bits import Bits


class Blockage(nn.Module):
    """A share of the blocks loses loss_db; E|h|^2 stays 1, as every channel here has it."""

    num_tx = num_rx = 1

    def __init__(self, share: float = 0.2, loss_db: float = 15.0, coherence: int = 64) -> None:
        super().__init__()
        self.share, self.loss, self.coherence = share, db_to_linear(-loss_db), coherence

    def draw(self, batch, uses, generator):
        blocks = -(-uses // self.coherence)
        draws = torch.rand(batch, blocks, generator=generator, device=generator.device)
        power = torch.where(draws < self.share, self.loss, 1.0)
        power /= 1 - self.share + self.share * self.loss
        h = power.sqrt().repeat_interleave(self.coherence, dim=1)[:, None, None, :uses]
        return ChannelState(h.to(torch.complex64), self.coherence)

    def forward(self, x, state, n0, generator):
        return AWGN()(state.h[:, 0] * x, state, n0, generator)  # the noise comes from AWGN


class QPSKTransmitter(Transmitter):
    uses_csi = False

    def num_symbols(self, shape):
        return shape[0] // 2

    def forward(self, source, csi, generator=None):
        return torch.complex(*(1 - 2 * source).chunk(2, dim=1))[:, None] / 2**0.5


class QPSKReceiver(Receiver):
    def forward(self, y, csi, shape, generator=None):
        return torch.cat([y.real < 0, y.imag < 0], dim=-1)[:, 0].float()


payload, rows = Bits(20 if "--quick" in sys.argv else 2000, length=2048), []
for channel in (AWGN(), Rayleigh(coherence=64), Blockage()):
    link = Link(QPSKTransmitter(), channel, QPSKReceiver())
    for row in evaluate(link, payload, snr_db=[0, 4, 8, 12], metrics=[BER()]):
        rows.append({"channel": type(channel).__name__} | row)
print(pd.DataFrame(rows).pivot_table("value", "snr_db", "channel").map("{:.2e}".format))
