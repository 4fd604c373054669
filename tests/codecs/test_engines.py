"""The two engines of ``separate`` against each other: over every channel and every CSI.

Blocks go through the link's own channel and front end and are decoded bit by bit; beside that, the
error-rate engine says how likely each was to arrive. The SNR is the one at which it says "half".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import CSI, Channel
from channels.cascade import Cascade
from channels.csi import CSISource, FeedbackCSI, MismatchedCSI, NoCSI, PerfectCSI, PilotCSI
from channels.dataset import Measured
from channels.dmrs import DmrsCSI
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import CDL, TDL, UMa, UMi
from channels.silence import SilenceCSI
from channels.waveform import Waveform
from semsim import spec
from semsim.codecs.outage import arrived
from semsim.link import Link
from semsim.phy.frontend import LMMSE, SVD
from semsim.phy.ldpc import Segmentation, SoftBlocks, ldpc_demodulate, ldpc_modulate
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_signed_llr
from semsim.seeds import stream
from semsim.tables import CHANNELS, CSI_SOURCES

BLOCKS = 96
RANGE_DB = (-12.0, 36.0)

CHANNEL_KINDS: dict[str, Callable[[Path], Channel]] = {
    "awgn": lambda _: AWGN(),
    "rayleigh": lambda _: Rayleigh(),
    "rayleigh-symbol": lambda _: Rayleigh(coherence="symbol"),
    "rayleigh-2x2": lambda _: Rayleigh(2, 2, coherence=16),
    "rician": lambda _: Rician(6.0),
    "tdl": lambda _: TDL("A", subcarriers=12, speed_mps=30.0),
    "cdl": lambda _: CDL("C", subcarriers=12, speed_mps=30.0),
    "umi": lambda _: UMi(subcarriers=12),
    "uma": lambda _: UMa(3.0, subcarriers=12),
    "erasure": lambda _: Erasure(0.2, 16),
    "interference": lambda _: Interference(5.0),
    "offset-untracked": lambda _: CarrierOffset(2e-4, tracked=False),
    "phase-noise": lambda _: PhaseNoise(1e3),
    "phase-noise-untracked": lambda _: PhaseNoise(100.0, tracked=False),
    "clipping": lambda _: Clipping(1.0),
    "cascade": lambda _: Cascade([Clipping(3.0), Rayleigh(), PhaseNoise(100.0, tracked=False)]),
    "waveform": lambda _: Waveform([TDL("A", subcarriers=12, speed_mps=30.0), Clipping(4.0)]),
    "measured": lambda path: Measured(path),
}
CSI_KINDS: dict[str, tuple[Callable[[], CSISource], Callable[[], CSISource]]] = {
    "perfect": (PerfectCSI, NoCSI),
    "ls": (lambda: PilotCSI(per_block=2), NoCSI),
    "lmmse": (lambda: PilotCSI(per_block=2, estimator="lmmse"), NoCSI),
    "dmrs": (DmrsCSI, NoCSI),
    "silence": (SilenceCSI, NoCSI),
    "feedback": (PerfectCSI, lambda: FeedbackCSI(bits=3)),
    "mismatched": (MismatchedCSI, NoCSI),
}


class Blocks(nn.Module):
    """Both ends of a link that carries one LDPC block per item."""

    uses_csi = True

    def __init__(self, mcs: int, num_symbols: int) -> None:
        super().__init__()
        scheme = mcs_by_index(mcs)
        coded = num_symbols * scheme.bits_per_symbol
        self.plan = Segmentation(scheme, 1, coded, math.floor(coded * scheme.rate), 24)
        generator = stream(3, "payload", mcs)
        shape = (BLOCKS, self.plan.info - 24)
        self.payload = torch.randint(2, shape, generator=generator).float()
        self.x = ldpc_modulate(self.payload, self.plan)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols of a block."""
        return self.plan.symbols_per_block

    def forward(self, source: Tensor, csi: CSI) -> Tensor:
        """Return the symbols."""
        return self.x[:, None]

    def receive(self, y: Tensor, csi: CSI, shape: tuple[int, ...]) -> Tensor:
        """Return y and its noise, as one complex tensor."""
        self.y, self.n0 = y[:, 0], csi.n0[:, 0].expand(len(y), y.shape[-1])
        return source_like(y)

    def chance(self) -> Tensor:
        """Return how likely each block arrives."""
        soft = SoftBlocks(self.plan)
        soft.add(qam_signed_llr(self.y, self.n0, self.x, self.plan.mcs.bits_per_symbol))
        return arrived(soft, self.plan)

    def truth(self) -> Tensor:
        """Return which blocks the decoder gets right."""
        decoded, _ = ldpc_demodulate(self.y, self.n0, self.plan)
        return (decoded == self.payload).all(dim=1)


def source_like(y: Tensor) -> Tensor:
    """Return what stands in for an estimate."""
    return torch.zeros(len(y), 1)


def engines_differ_by(
    channel: Channel, csi_rx: CSISource, csi_tx: CSISource, mcs: int, label: str
) -> tuple[float, float, float]:
    """Return z of the difference and both shares, at the SNR where the quick engine says half."""
    blocks = Blocks(mcs, 384)
    frontend = SVD() if isinstance(csi_tx, FeedbackCSI) else LMMSE()
    link = Link(blocks, channel, blocks.receive, csi_rx=csi_rx, csi_tx=csi_tx, frontend=frontend)

    def chance(snr_db: float) -> Tensor:
        link.transmit(source_like(blocks.x), snr_db, stream(4, "engines", label))
        return blocks.chance()

    low, high = RANGE_DB
    for _ in range(8):
        snr_db = (low + high) / 2
        quick = float(chance(snr_db).mean())
        low, high = (low, snr_db) if quick > 0.5 else (snr_db, high)
    true = float(blocks.truth().float().mean())
    middle = min(max((quick + true) / 2, 1 / BLOCKS), 1 - 1 / BLOCKS)
    return (quick - true) / math.sqrt(2 * middle * (1 - middle) / BLOCKS), quick, true


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write measured gains of one antenna."""
    path = tmp_path_factory.mktemp("measured") / "gains.npy"
    np.save(path, np.random.default_rng(1).normal(size=(500, 1, 1, 8, 2)) / math.sqrt(2))
    return path


def test_every_row_of_the_tables_is_here(gains: Path) -> None:
    kinds = {type(make(gains)) for make in CHANNEL_KINDS.values()}
    assert kinds == {spec.resolve("channel", kind) for kind in CHANNELS}
    sources = {type(make()) for pair in CSI_KINDS.values() for make in pair}
    assert sources == {spec.resolve("csi", kind) for kind in CSI_SOURCES}


def test_a_receiver_that_knows_no_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the channel at the receiver"):
        engines_differ_by(AWGN(), NoCSI(), NoCSI(), 7, "none")


@pytest.mark.slow
@pytest.mark.parametrize("csi", CSI_KINDS)
@pytest.mark.parametrize("channel", CHANNEL_KINDS)
def test_the_engines_agree(channel: str, csi: str, gains: Path) -> None:
    csi_rx, csi_tx = (make() for make in CSI_KINDS[csi])
    label = f"{channel} {csi}"
    try:
        z, quick, true = engines_differ_by(CHANNEL_KINDS[channel](gains), csi_rx, csi_tx, 7, label)
    except ValueError as refused:  # this CSI cannot be had on this channel
        assert str(refused).startswith("csi ")
        pytest.skip(str(refused))
    assert abs(z) < 3, f"{label}: {quick:.2f} by error rates, {true:.2f} decoded"
    if csi != "mismatched":  # behind another channel's CSI nothing may arrive at any SNR
        assert 0.05 < quick < 0.95, f"{label}: nothing to compare at {quick:.2f}"
