"""What workers bring, and what they cost.

    python benchmarks/workers.py speed [--repeats 3] [--data DATA]
    python benchmarks/workers.py points [300]
    python benchmarks/workers.py memory [1000 5000 20000]

- speed: two processes against one with one thread, on a sweep of a CNN and, with DATA
  (kodak24.npz), on the classical baseline over Kodak: runs in turn, each about a minute, by the
  clock and by processor time (Linux);
- points: time per point of empty links: here, in two processes, on Ray where it is installed;
- memory: of the driver as empty links become more, in processes of their own. Links of an empty
  run mean some files each: let TMPDIR name a fast disk.

Meant for two free cores. Writes benchmarks/results/workers_*.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import machine

from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run
from semsim.sweep.workers import Engine, Job, Processes, measure

RESULTS = Path(__file__).parent / "results"
CNN = {
    "payload": {"kind": "synthetic", "count": 3200, "size": 32},
    "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 64},
    "channel": "awgn", "metrics": ["psnr"], "snr_db": [1, 4, 7, 10, 13, 16, 19], "batch_size": 50,
}  # fmt: skip


def kodak(data: Path) -> dict[str, Any]:
    """Return the classical baseline over Kodak, images of 256 x 256, each link once."""
    from make_pool import read_pack

    folder = Path(tempfile.mkdtemp())
    for number, image in enumerate(read_pack(data / "kodak24.npz")[0]):
        image.save(folder / f"{number:02}.png")
    return {
        "payload": {"kind": "folder", "path": str(folder), "crop": 256},
        "transmitter": {"kind": "separate", "codec": "hevc", "cbr": "1/16"},
        "channel": "awgn", "metrics": ["psnr"], "snr_db": [1, 4, 7, 10, 13], "batch_size": 2,
        "stop": {"max_items": 360},
    }  # fmt: skip


def empty(points: int) -> Scenario:
    """Return a sweep of so many links that cost next to nothing."""
    return Scenario.parse(
        {
            "payload": {"kind": "bits", "count": 1, "length": 8}, "transmitter": "uncoded",
            "channel": {"kind": "rician", "k_db": 0}, "metrics": ["ber"], "snr_db": [5],
            "batch_size": 1, "sweep": {"channel.k_db": [k / 1000 for k in range(points)]},
        }
    )  # fmt: skip


def seconds(scenario: Scenario, engine: Callable[[], Engine] | None) -> float:
    """Return how long a run of its own takes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run(scenario, folder, device="cpu", engine=engine)
        return time.perf_counter() - start


@dataclass
class Took:
    """Seconds of a run by the clock, and of processors: of this process and of each worker."""

    clock: float
    here: float
    workers: list[float]

    @property
    def work(self) -> float:
        """Processor seconds of all together."""
        return self.here + sum(self.workers)


class Warm(Processes):
    """Processes that have already imported everything, and live on after a run."""

    def __init__(self, count: int, scenario: Scenario) -> None:
        super().__init__(count)
        first, point = [], scenario.points()[0].scenario
        for index in range(4 * count):  # until each has had one
            job = Job("warm", point.to_dict(), None, "cpu", (point.snr_db[0],), index, (0,))
            first.append(self._pool.submit(measure, job))
        for future in first:
            future.result()

    def close(self, *, at_once: bool) -> None:
        if at_once:
            super().close(at_once=True)

    def busy(self) -> list[float]:
        """Return the processor seconds of each worker so far, as Linux counts them."""
        ticks = os.sysconf("SC_CLK_TCK")
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in sorted(self._pool._processes)]
        fields = [stat.rpartition(")")[2].split() for stat in stats]
        return [(int(f[11]) + int(f[12])) / ticks for f in fields]


def taken(scenario: Scenario, warm: Warm | None) -> Took:
    """Run in two processes that live already, or here where there are none."""
    before, start = warm.busy() if warm else [], time.process_time()
    clock = seconds(scenario, None if warm is None else lambda: warm)
    here, after = time.process_time() - start, warm.busy() if warm else []
    return Took(clock, here, [b - a for a, b in zip(before, after, strict=True)])


def speed_up(name: str, values: dict[str, Any], repeats: int) -> list[str]:
    """Return a line for each round on two processes against one thread here."""
    scenario = Scenario.parse(values)
    warm, lines = Warm(2, scenario), []
    few = Scenario.parse({**values, "stop": {"min_items": 1, "max_items": 24}})
    seconds(few, None)  # imports, and images that are kept once they are encoded
    for _ in range(repeats):
        one, two = taken(scenario, None), taken(scenario, warm)
        most, least = max(two.workers), min(two.workers)
        lines.append(
            f"| {name} | {one.clock:.0f} / {two.clock:.0f} = {one.clock / two.clock:.2f} | "
            f"{one.work:.1f} | {two.here:.1f} | {least:.1f}, {most:.1f} | "
            f"{one.work / two.work:.2f} | {one.work / (two.here + most):.2f} |"
        )
        print(lines[-1], flush=True)
    warm.close(at_once=True)
    return lines


def speed(data: Path | None, repeats: int) -> list[str]:
    """Return lines on sweeps in two processes against one thread here."""
    lines = [
        "By the clock other work on the machine counts as well. Efficiency is the processor time "
        "of one process over that of driver and workers together. The last column is what two free "
        "cores would give at least: as if the driver worked while no worker does.",
        "",
        "| sweep | by the clock, s | one process, CPU s | driver | two workers | efficiency | "
        "at least |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += speed_up("HEVC + LDPC, Kodak", kodak(data), repeats) if data else []
    return lines + speed_up("CNN, 7 SNRs, 3,200 images", CNN, repeats)


def per_point(points: int) -> list[str]:
    """Return lines on what an empty link costs, beyond the first hundred."""
    ways: dict[str, Callable[[], Engine] | None] = {"here": None}
    ways["two processes"] = partial(Processes, 2)
    if importlib.util.find_spec("ray"):
        from semsim.sweep.on_ray import OnRay

        ways["Ray, two cores"] = partial(OnRay, 2)
    seconds(empty(2), None)  # imports
    lines = ["| empty links | ms per point in two rounds, building and writing included |"]
    lines += ["|---|---|"]
    for name, engine in ways.items():
        rounds = [[seconds(empty(n), engine) for n in (100, 100 + points)] for _ in range(2)]
        found = sorted(1000 * (many - few) / points for few, many in rounds)
        lines.append(f"| {name} | {found[0]:.1f} to {found[1]:.1f} |")
    return lines


def memory(counts: Sequence[int]) -> list[str]:
    """Return lines on the peak memory of drivers, each a process of its own, by empty links."""
    lines = [
        "| empty links | driver of | peak MB | kB for each more | CPU ms of the driver per link |"
    ]
    lines += ["|---|---|---|---|---|"]
    for jobs in (1, 2):
        name, before = "itself" if jobs == 1 else "two processes", None
        for points in counts:
            command = [sys.executable, __file__, "drive", str(points), "--jobs", str(jobs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peak, cpu = map(float, done.stdout.split())
            more = (
                "" if before is None else f"{1024 * (peak - before[1]) / (points - before[0]):.1f}"
            )
            lines.append(f"| {points} | {name} | {peak:.0f} | {more} | {1000 * cpu / points:.1f} |")
            print(lines[-1], flush=True)
            before = points, peak
    return lines


def drive(points: int, jobs: int) -> None:
    """Run so many empty links; print the peak memory of this process in MB and its CPU time."""
    seconds(empty(points), None if jobs == 1 else partial(Processes, jobs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.1f} {time.process_time():.1f}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "points", "memory", "drive"])
    parser.add_argument("links", type=int, nargs="*", help="of points, memory and drive")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="of drive")
    parser.add_argument("--data", type=Path, help="folder of kodak24.npz, for speed")
    arguments = parser.parse_args()
    what, links = arguments.what, arguments.links
    torch.set_num_threads(1)
    if what == "drive":
        drive(links[0], arguments.jobs)
        return
    lines = [f"{machine()}; one thread per process, runs in turn.", ""]
    if what == "speed":
        lines += speed(arguments.data, arguments.repeats)
    elif what == "points":
        lines += per_point(*links or [300])
    else:
        lines += memory(links or [1000, 5000, 20_000])
    (RESULTS / f"workers_{what}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
