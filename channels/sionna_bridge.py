"""The one door to Sionna: imported late, seeded by our generator, one block per device.

Sionna re-seeds torch's default generator when it is imported, draws from its own generator per
device, and pins each block to a device string. Behind this door none of that is seen: the import
keeps torch's generators as they were, blocks are made once per setting and device and belong to no
module (so nothing enters a ``state_dict``, a pickle or a ``deepcopy``), and a draw starts at the
state of the caller's generator and leaves it advanced.
"""

from __future__ import annotations

import threading
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
_SPARE: dict[str, Tensor] = {}  # by device, room to keep the state of Sionna's generator


@cache
def sionna_phy() -> ModuleType:
    """Import ``sionna.phy`` and leave torch's default generators untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        import sionna.phy.channel
        import sionna.phy.channel.tr38901
    return sionna.phy


def device_key(device: torch.device) -> str:
    """Return the name Sionna knows a device by: ``"cuda:0"``, never ``"cuda"``."""
    if device.type != "cuda":
        return device.type
    return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"


def precision_of(dtype: torch.dtype) -> Precision:
    """Return Sionna's word for a complex dtype."""
    if dtype not in _PRECISIONS:
        raise ValueError(f"a channel carries complex64 or complex128, got {dtype}")
    return _PRECISIONS[dtype]


def drawing_from(generator: torch.Generator) -> _Loan:
    """Let Sionna draw from ``generator`` within a ``with``: its state goes in, and comes back.

    Sionna's own generator is put back afterwards, so that neither stream repeats the other.
    """
    return _Loan(generator)


class _Loan:
    """One ``with`` of :func:`drawing_from`.

    Written for speed: it stands before every batch. A generator of contextlib would cost more than
    the copies, and a state allocated here and held over the call would split the memory that
    Sionna's large temporaries are about to reuse; so the space for it is kept between calls.
    """

    __slots__ = ("_kept", "_key", "_ours", "_theirs")

    def __init__(self, generator: torch.Generator) -> None:
        self._ours = generator
        self._key = device_key(generator.device)
        self._theirs = sionna_phy().config.torch_rng(self._key)

    def __enter__(self) -> None:
        _LOCK.acquire()
        if self._key in _SPARE:
            self._kept = _SPARE.pop(self._key).copy_(self._theirs.get_state())
        else:
            with torch.inference_mode(False):  # else it could be filled under inference only
                self._kept = self._theirs.get_state().clone()
        self._theirs.set_state(self._ours.get_state())

    def __exit__(self, *error: object) -> None:
        self._ours.set_state(self._theirs.get_state())
        self._theirs.set_state(self._kept)
        _SPARE[self._key] = self._kept
        _LOCK.release()


def add_noise(y: Tensor, n0: Tensor, generator: torch.Generator) -> Tensor:
    """Add CN(0, n0) to y with Sionna's AWGN block, n0/2 per real part.

    Args:
        y: [B, R, N], complex64 or complex128.
        n0: noise power per complex symbol of each item, [B], linear.
        generator: on the device of y.
    """
    block = _awgn(y.device, y.dtype)
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
def _awgn(device: torch.device, dtype: torch.dtype) -> Any:
    with torch.inference_mode(False):  # a block made under inference would refuse gradients later
        block = sionna_phy().channel.AWGN
        return block(precision=precision_of(dtype), device=device_key(device))


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
