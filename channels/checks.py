"""What a channel's constructor asks of its arguments, said in one wording."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_count(name: str, value: int, hint: str) -> None:
    """Raise ValueError unless ``value`` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a whole number of 1 or more, got {value!r}; {hint}")


def check_range(name: str, value: float, *, low: float, high: float, hint: str) -> None:
    """Raise ValueError unless low <= value <= high; infinite bounds are open to any number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or math.isnan(value) or not low <= value <= high:
        raise ValueError(f"{name} lies in [{low:g}, {high:g}], got {value!r}; {hint}")


def check_finite(name: str, value: float, hint: str) -> None:
    """Raise ValueError unless ``value`` is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"{name} is a finite number, got {value!r}; {hint}")


def check_positive(name: str, value: float, hint: str) -> None:
    """Raise ValueError unless ``value`` is finite and above zero."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is finite and above 0, got {value!r}; {hint}")


def check_span(name: str, ends: tuple[float, float]) -> None:
    """Raise ValueError unless two finite numbers go from low to high."""
    for end in ends:
        check_finite(name, end, "write two finite numbers, low and high")
    if ends[0] > ends[1]:
        raise ValueError(f"{name} goes from low to high, got {list(ends)}; swap them")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(str, choices))}, got {value!r}")


def check_draw(batch: int, uses: int) -> None:
    """Raise ValueError unless there is something to draw a channel for."""
    if type(batch) is type(uses) is int and batch > 0 < uses:
        return  # the rule, without the cost of two calls before every batch
    check_count("batch", batch, "one realisation is drawn per item")
    check_count("uses", uses, "an item needs at least one channel use")


def check_noise(y: Tensor, n0: Tensor) -> None:
    """Raise ValueError unless n0 is real, [B], on the device of y."""
    if not isinstance(n0, Tensor) or n0.is_complex() or n0.shape != y.shape[:1]:
        came = list(n0.shape) if isinstance(n0, Tensor) else repr(n0)
        raise ValueError(
            f"n0 is the noise power of each item, a real tensor of shape [{y.shape[0]}], got "
            f"{came}; write torch.full(({y.shape[0]},), n0), or None for no noise"
        )


def check_generator(x: Tensor, generator: torch.Generator) -> None:
    """Raise ValueError unless the generator draws where x lives."""
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"a channel draws from an explicit torch.Generator, got {generator!r}; "
            "write torch.Generator(x.device).manual_seed(7)"
        )
    if generator.device.type != x.device.type:
        raise ValueError(
            f"x is on {x.device} but the generator draws on {generator.device}; "
            f"write torch.Generator({str(x.device)!r})"
        )
