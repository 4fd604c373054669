"""The tables of this package: kind -> "module:Class". A new channel is one file and one row here.

What is in the tables can be written in a scenario, imported from ``channels`` and is held to the
contract of the family in ``tests/channels/test_family.py``, which builds it without arguments or,
where it has that, by its class method ``example``.
"""

from __future__ import annotations

import importlib
from typing import Any

CHANNELS = {
    "awgn": "channels.awgn:AWGN",
    "rayleigh": "channels.fading:Rayleigh",
    "rician": "channels.fading:Rician",
    "tdl": "channels.ofdm:TDL",
    "cdl": "channels.ofdm:CDL",
    "umi": "channels.ofdm:UMi",
    "uma": "channels.ofdm:UMa",
    "erasure": "channels.erasure:Erasure",
    "interference": "channels.interference:Interference",
    "impulsive": "channels.impulsive:Impulsive",
    "carrier_offset": "channels.impairments:CarrierOffset",
    "phase_noise": "channels.impairments:PhaseNoise",
    "clipping": "channels.impairments:Clipping",
    "cascade": "channels.cascade:Cascade",
    "waveform": "channels.waveform:Waveform",
    "mixed": "channels.mixed:Mixed",
    "one_of": "channels.one_of:OneOf",
    "measured": "channels.dataset:Measured",
}

CSI_SOURCES = {
    "perfect": "channels.csi:PerfectCSI",
    "pilots": "channels.csi:PilotCSI",
    "silence": "channels.silence:SilenceCSI",
    "dmrs": "channels.dmrs:DmrsCSI",
    "feedback": "channels.csi:FeedbackCSI",
    "mismatched": "channels.csi:MismatchedCSI",
    "none": "channels.csi:NoCSI",
}

BASICS = ("channels.base:CSI", "channels.base:Channel", "channels.base:ChannelState")


def exports() -> dict[str, str]:
    """Return the module of each class that ``channels`` offers, by name."""
    rows = (row.split(":") for row in (*BASICS, *CHANNELS.values(), *CSI_SOURCES.values()))
    return {name: module for module, name in rows}


def example(kind: str) -> Any:
    """Return a channel of a kind as its tests build it."""
    module, _, name = CHANNELS[kind].partition(":")
    channel = getattr(importlib.import_module(module), name)
    return getattr(channel, "example", channel)()
