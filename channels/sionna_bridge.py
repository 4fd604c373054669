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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from types import ModuleType

_LOCK = threading.RLock()  # Sionna's generators belong to the process, not to the thread
_SPARE: dict[str, Tensor] = {}  # by device, room to keep the state of Sionna's generator


@cache
def sionna_phy() -> ModuleType:
    """Import ``sionna.phy`` and leave torch's default generators untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        import sionna.phy.channel
        import sionna.phy.channel.tr38901
    return sionna.phy


def sionna_version() -> str:
    """Return the version of Sionna that draws here."""
    sionna_phy()
    import sionna

    return str(sionna.__version__)


def device_key(device: torch.device) -> str:
    """Return the name Sionna knows a device by: ``"cuda:0"``, never ``"cuda"``."""
    if device.type != "cuda":
        return device.type
    return f"cuda:{torch.cuda.current_device() if device.index is None else device.index}"


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
