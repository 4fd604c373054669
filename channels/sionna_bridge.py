"""The one door to Sionna: imported late, seeded by our generator, one block per device.

Sionna re-seeds torch's default generator when it is imported, draws from its own generator per
device, and pins each block to a device string. Behind this door none of that is seen: the import
keeps torch's generators as they were, blocks are made once per setting and device and belong to no
module (so nothing enters a ``state_dict``, a pickle or a ``deepcopy``), and a draw starts at the
state of the caller's generator and leaves it advanced.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from types import ModuleType

Precision = Literal["single", "double"]
_PRECISIONS: dict[torch.dtype, Precision] = {
    torch.complex64: "single",
    torch.complex128: "double",
}
_LOCK = threading.RLock()  # Sionna's generators belong to the process, not to the thread


@cache
def sionna_phy() -> ModuleType:
    """Import ``sionna.phy`` and leave torch's default generators untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        import sionna.phy.channel
        import sionna.phy.channel.tr38901
    return sionna.phy


def device_key(device: torch.device) -> str:
    """Return the name Sionna knows a device by: ``"cuda:0"``, never ``"cuda"``."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def precision_of(dtype: torch.dtype) -> Precision:
    """Return Sionna's word for a complex dtype."""
    if dtype not in _PRECISIONS:
        raise ValueError(f"a channel carries complex64 or complex128, got {dtype}")
    return _PRECISIONS[dtype]


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let Sionna draw from ``generator``: its state goes in, the advanced state comes back.

    Sionna's own generator is put back afterwards, so that neither stream repeats the other.
    """
    theirs = sionna_phy().config.torch_rng(device_key(generator.device))
    with _LOCK:
        kept = theirs.get_state()
        theirs.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(theirs.get_state())
            theirs.set_state(kept)


def add_noise(y: Tensor, n0: Tensor, generator: torch.Generator) -> Tensor:
    """Add CN(0, n0) to y with Sionna's AWGN block, n0/2 per real part.

    Args:
        y: [B, R, N], complex64 or complex128.
        n0: noise power per complex symbol of each item, [B], linear.
        generator: on the device of y.
    """
    block = _awgn(device_key(y.device), precision_of(y.dtype))
    with drawing_from(generator):
        return block(y, n0)


def flat_gains(
    count: int,
    num_tx: int,
    num_rx: int,
    *,
    tx_correlation: float,
    rx_correlation: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw ``count`` independent flat-fading matrices, [count, R, T], E|h|^2 = 1, complex64.

    Args:
        count: number of matrices.
        num_tx: T.
        num_rx: R.
        tx_correlation: correlation of neighbouring transmit antennas, exponential with distance.
        rx_correlation: the same at the receiver.
        generator: decides the draw and the device.
    """
    key = device_key(generator.device)
    block = _flat_fading(num_tx, num_rx, tx_correlation, rx_correlation, key)
    with drawing_from(generator):
        return block(count)


@cache
def _awgn(device: str, precision: Precision) -> Any:
    with torch.inference_mode(False):  # a block made under inference would refuse gradients later
        return sionna_phy().channel.AWGN(precision=precision, device=device)


@cache
def _flat_fading(
    num_tx: int, num_rx: int, tx_correlation: float, rx_correlation: float, device: str
) -> Any:
    channel = sionna_phy().channel
    at: dict[str, Any] = {"precision": "single", "device": device}
    with torch.inference_mode(False):
        correlation = None
        if tx_correlation or rx_correlation:
            correlation = channel.KroneckerModel(
                channel.exp_corr_mat(tx_correlation, num_tx, **at),
                channel.exp_corr_mat(rx_correlation, num_rx, **at),
                **at,
            )
        return channel.GenerateFlatFadingChannel(num_tx, num_rx, correlation, **at)
