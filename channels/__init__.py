"""Wireless channels for learned links: torch and Sionna; no image, no task, no YAML.

Every channel is an ``nn.Module`` in two steps, ``draw`` then ``forward``; see ``channels.base``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels.awgn import AWGN
    from channels.base import CSI, Channel, ChannelState
    from channels.cascade import Cascade
    from channels.csi import FeedbackCSI, MismatchedCSI, NoCSI, PerfectCSI, PilotCSI
    from channels.dataset import Measured
    from channels.dmrs import DmrsCSI
    from channels.erasure import Erasure
    from channels.fading import Rayleigh, Rician
    from channels.impairments import CarrierOffset, Clipping, PhaseNoise
    from channels.interference import Interference
    from channels.ofdm import CDL, TDL, UMa, UMi
    from channels.waveform import Waveform

_HOME = {
    "AWGN": "awgn",
    "CSI": "base",
    "Channel": "base",
    "ChannelState": "base",
    "Cascade": "cascade",
    "FeedbackCSI": "csi",
    "MismatchedCSI": "csi",
    "NoCSI": "csi",
    "PerfectCSI": "csi",
    "PilotCSI": "csi",
    "DmrsCSI": "dmrs",
    "Measured": "dataset",
    "Erasure": "erasure",
    "Rayleigh": "fading",
    "Rician": "fading",
    "CarrierOffset": "impairments",
    "Clipping": "impairments",
    "PhaseNoise": "impairments",
    "Interference": "interference",
    "CDL": "ofdm",
    "TDL": "ofdm",
    "UMa": "ofdm",
    "UMi": "ofdm",
    "SilenceCSI": "silence",
    "Waveform": "waveform",
}

__all__ = [
    "AWGN",
    "CDL",
    "CSI",
    "Cascade",
    "CarrierOffset",
    "Channel",
    "ChannelState",
    "Clipping",
    "DmrsCSI",
    "Erasure",
    "FeedbackCSI",
    "Interference",
    "Measured",
    "MismatchedCSI",
    "NoCSI",
    "PerfectCSI",
    "PhaseNoise",
    "PilotCSI",
    "Rayleigh",
    "Rician",
    "SilenceCSI",
    "TDL",
    "UMa",
    "UMi",
    "Waveform",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'channels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"channels.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
