"""Knowledge of the channel that is learned: WirelessGPT, its tasks, and their classical rivals."""

from semsim.csi.model import Encoded, WirelessGPT

__all__ = ["Encoded", "WirelessGPT"]
