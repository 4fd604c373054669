"""Time alternatives in turn, so that a drifting machine slows all of them alike; report ratios."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn


def interleaved(
    alternatives: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run every alternative ``repeats`` times, A B C A B C …, and return its seconds by a clock."""
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for round_index in range(-warm_up, repeats):
        for name, work in alternatives.items():
            start = clock()
            work()
            elapsed = clock() - start
            if round_index >= 0:
                seconds[name].append(elapsed)
    return seconds


def ratio(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """Return the median of a / b over rounds and its 95 % bootstrap interval."""
    ratios = np.array(a) / np.array(b)
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return statistics.median(ratios), float(low), float(high)


def machine() -> str:
    """Say what the figures were measured on."""
    flags = torch.backends.cpu.get_cpu_capability()
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, {flags}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Return the multiply-adds of a network, in evaluation mode, for these inputs."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*inputs)
    return counter.get_total_flops() // 2
