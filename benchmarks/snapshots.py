"""How fast channels come as sequences H [M, S, F], and against asking moment by moment.

    python benchmarks/snapshots.py [--moments 64] [--batch 64]

Rates are of one thread; the ratio compares the same snapshots, taken in turn in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from channels.base import Channel
from channels.cascade import Cascade
from channels.fading import Rayleigh
from channels.impairments import Clipping
from channels.ofdm import CDL, TDL, UMi
from channels.snapshots import snapshots
from semsim.seeds import stream

INTERVAL_S = 5e-4
SPEED = {"speed_mps": 30.0}
CHANNELS: dict[str, Channel] = {
    "rayleigh 1x1": Rayleigh(**SPEED),
    "rayleigh 4x4": Rayleigh(4, 4, **SPEED),
    "tdl A 1x1, 48 subcarriers": TDL("A", **SPEED),
    "tdl A 2x2, 48 subcarriers": TDL("A", num_tx=2, num_rx=2, **SPEED),
    "cdl C 4x1, 48 subcarriers": CDL("C", num_tx=4, **SPEED),
    "umi 1x1, 48 subcarriers": UMi(**SPEED),
    "cascade of clipping and rayleigh 2x2": Cascade([Clipping(3.0, 2), Rayleigh(2, 2, **SPEED)]),
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_by_one(channel: Channel, batch: int, moments: int) -> None:
    """Ask one state for each moment."""
    generator = stream(0, "snapshots")
    uses = channel.draw(1, 1, generator).symbol_uses
    state = channel.draw(batch, uses, generator)
    for moment in range(moments):
        _ = state.during(0, uses, later_s=moment * INTERVAL_S).h


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = given.moments * given.batch
    print("| channel | snapshots per s | times as fast as one by one |\n|---|---|---|")
    for name, channel in CHANNELS.items():

        def together(channel: Channel = channel) -> None:
            generator = stream(0, "snapshots")
            snapshots(channel, given.batch, generator, moments=given.moments, interval_s=INTERVAL_S)

        together()  # builds Sionna's blocks
        pairs = [
            (
                seconds(together),
                seconds(lambda c=channel: one_by_one(c, given.batch, given.moments)),
            )
            for _ in range(given.repeats)
        ]
        rate = count / statistics.median(pair[0] for pair in pairs)
        ratio = statistics.median(slow / quick for quick, slow in pairs)
        print(f"| {name} | {rate:,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
