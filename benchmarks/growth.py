"""How a sweep grows with its points: CPU time of N and 2 N tiny links, and of resuming both.

    python benchmarks/growth.py [N]        # N = 500: about two minutes

Runs of both sizes alternate, so that a busy machine slows both. Linear is a ratio of 2.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run

ROUNDS = 3


def sweep(points: int) -> Scenario:
    """Return a sweep of uncoded bits over so many channels, one short item at one SNR each."""
    return Scenario.parse(
        {
            "payload": {"kind": "bits", "count": 2, "length": 64},
            "transmitter": {"kind": "uncoded"},
            "channel": {"kind": "rician", "k_db": 0},
            "metrics": ["ber"],
            "snr_db": [5],
            "batch_size": 2,
            "sweep": {"channel.k_db": [k / 1000 for k in range(points)]},
        }
    )


def seconds(points: int, folder: Path) -> float:
    """Return the CPU time of a run."""
    start = time.process_time()
    run(sweep(points), folder, device="cpu")
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    took: dict[str, list[float]] = {"run": [], "resume": []}
    run(sweep(2), Path(tempfile.mkdtemp()), device="cpu")  # imports
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as place:
            small, large = Path(place, "small"), Path(place, "large")
            for what in took:
                one, two = seconds(points, small), seconds(2 * points, large)
                took[what].append(two / one)
                print(f"{what}: {points} points {one:.1f} s, {2 * points} points {two:.1f} s")
    for what, ratios in took.items():
        print(f"{what}: twice the points cost {statistics.median(ratios):.2f} times as much")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
