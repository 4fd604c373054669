"""What each end of a 4x4 link gains by knowing the channel, and what that knowledge costs.

python examples/mimo_csi.py [--quick]  # prints the rate of each front end and CSI
"""

import sys

import pandas as pd
import torch

from channels import FeedbackCSI, NoCSI, PerfectCSI, PilotCSI, Rayleigh
from semsim import Link, Receiver, Transmitter, stream
from semsim.phy import theory
from semsim.phy.frontend import LMMSE, RZF, SVD, ZF

ITEMS = 200 if "--quick" in sys.argv else 5000
USES, SNR_DB, ANTENNAS = 200, 10.0, 4


class Gaussian(Transmitter):
    """Reals in pairs as symbols: a Gaussian source needs nothing else."""

    uses_csi = False

    def num_symbols(self, shape):
        return shape[0] // 2

    def forward(self, source, csi, generator=None):
        x = torch.complex(*source.chunk(2, dim=1))[:, None]
        return x / x.abs().square().mean(dim=-1, keepdim=True).sqrt()


class Rate(Receiver):
    """What the noise after the front end lets through, in bits per symbol."""

    def forward(self, y, csi, shape, generator=None):
        return torch.log2(1 + 1 / csi.n0).mean(dim=(1, 2))


schemes = {
    "ZF, perfect": (ZF(), PerfectCSI(), NoCSI()),
    "LMMSE, perfect": (LMMSE(), PerfectCSI(), NoCSI()),
    "LMMSE, 4 LS pilots": (LMMSE(), PilotCSI(4), NoCSI()),
    "LMMSE, 16 LMMSE pilots": (LMMSE(), PilotCSI(16, "lmmse"), NoCSI()),
    "RZF, perfect": (RZF(), PerfectCSI(), PerfectCSI()),
    "SVD, perfect": (SVD(), PerfectCSI(), PerfectCSI()),
    "SVD with water-filling": (SVD(water_filling=True), PerfectCSI(), PerfectCSI()),
    "SVD, 4 bits fed back": (SVD(), PerfectCSI(), FeedbackCSI(bits=4)),
    "SVD, and 2 ms late": (SVD(), PerfectCSI(), FeedbackCSI(4, delay_s=2e-3)),
}
source, rows = torch.randn(ITEMS, 2 * ANTENNAS * USES, generator=stream(0, "source")), {}
for name, (front_end, csi_rx, csi_tx) in schemes.items():
    channel = Rayleigh(num_tx=ANTENNAS, num_rx=ANTENNAS, speed_mps=4.3)  # 50 Hz
    link = Link(Gaussian(), channel, Rate(), csi_rx=csi_rx, csi_tx=csi_tx, frontend=front_end)
    sent = link.transmit(source, SNR_DB, stream(0, "link"))
    rate = ANTENNAS * sent.estimate.mean().item() * sent.ledger.payload / sent.ledger.total
    rows[name] = {"bit/use": rate, "pilots": sent.ledger.pilots, "feedback": sent.ledger.feedback}
print(pd.DataFrame(rows).T.round(2))
print(f"ergodic capacity: {theory.ergodic_capacity(SNR_DB, ANTENNAS, ANTENNAS):.2f} bit/use")
