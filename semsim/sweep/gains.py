"""Whether a channel of a user's own keeps the convention that gives an SNR its meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from channels.base import complex_normal
from channels.cascade import Cascade
from channels.units import linear_to_db
from semsim.intervals import Moments
from semsim.seeds import stream
from semsim.types import AnyLink

USES, BATCH, MOST = 96, 100, 2000
OFF = 0.05  #: relative; two tenths of a dB
SILENT = 1e-9  #: n0, for a channel may divide by it


def unusual_gains(link: AnyLink) -> list[str]:
    """Return a sentence on each channel of a user's own whose gain is not what others believe.

    Some draws are sent through it, nearly without noise: as many as leave 5 % to chance, or 2,000,
    so that the sentence is the same each time. Nothing is said of a gain within 5 % of the
    convention, or within what so many draws leave open, nor of a channel that takes no 96 uses.
    """
    lines = []
    for name, channel in _own_channels(link):
        came, told = _powers(channel, next(link.buffers()).device)
        if _apart(came, 1.0):
            lines.append(
                f"channel {name}: it brings {came.mean:.3g} times the power that is sent, so 10 dB "
                f"is {10 + linear_to_db(came.mean):.1f} dB here; by convention E|h|^2 is 1: divide "
                f"its output and state.h by {math.sqrt(came.mean):.3g}, or say so beside the "
                "results"
            )
        if _apart(came, told.mean) and _apart(told, came.mean):
            lines.append(
                f"channel {name}: state.h tells a power of {told.mean:.3g}, but {came.mean:.3g} "
                "comes, so a receiver undoes another gain; let state.h be the gain of forward"
            )
    return lines


def _apart(moments: Moments, value: float) -> bool:
    """Tell whether a mean is neither within 5 % of a value nor within reach of chance."""
    if not 0 < moments.mean < math.inf:
        return False
    away = abs(moments.mean - value)
    return away > OFF * max(value, moments.mean) and away > moments.five_sigma()


def _own_channels(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Return channels that are not of semsim, by name, and cascades of which one is a stage."""
    for child in module.children():
        own = [type(part) for part in child.modules() if _is_own_channel(part)]
        if own and (_is_own_channel(child) or isinstance(child, Cascade)):
            yield f"{own[0].__module__}:{own[0].__qualname__}", child
        elif own:
            yield from _own_channels(child)


def _is_own_channel(part: nn.Module) -> bool:
    where = type(part).__module__.partition(".")[0]
    of_a_channel = ("draw", "num_tx", "num_rx")
    return where not in ("channels", "semsim") and all(hasattr(part, n) for n in of_a_channel)


@torch.no_grad()
def _powers(channel: Any, device: torch.device) -> tuple[Moments, Moments]:
    """Return the power that comes for a power of 1, and that which ``state.h`` tells, by draws."""
    came, told = Moments(), Moments()
    generator = stream(0, "gain", device=device)
    while came.n < MOST and (came.n < 3 * BATCH or came.five_sigma() > OFF * came.mean):
        try:
            state = channel.draw(BATCH, USES, generator)
            x = complex_normal((BATCH, channel.num_tx, USES), generator)
            x = x / x.abs() / math.sqrt(channel.num_tx)
            y = channel(x, state, torch.full((BATCH,), SILENT, device=device), generator)
        except Exception:  # it takes other numbers of uses, for an item went through it
            break
        power = y.abs().square().mean(dim=(1, 2)) - state.interference
        came.add(power.double().cpu().numpy())
        told.add(state.h.abs().square().double().mean(dim=(1, 2, 3)).cpu().numpy())
    return came, told
