"""What ``compile: true`` brings: CPU time of a sweep with and without, in turn.

    python benchmarks/compile.py [--repeats 5]

Two shipped codecs for CIFAR-10, 128 procedural images, two SNRs, batches of 32, one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from timing import machine

from channels import AWGN
from semsim import Link, Stop, evaluate, zoo
from semsim.payloads.synthetic import Synthetic
from semsim.scenario.loading import compile_ends

COUNT = 128


def link_of(name: str, *, compiled: bool) -> Link:
    """Return a shipped codec over AWGN."""
    parts = zoo.build(name)
    link = Link(parts["transmitter"].eval(), AWGN(), parts["receiver"].eval())
    if compiled:
        compile_ends(link)
    return link


def seconds(link: Link) -> tuple[float, float]:
    """Return CPU time and PSNR at the higher SNR of a sweep."""
    payload, start = Synthetic(count=COUNT, size=32), time.process_time()
    stop = Stop(COUNT, COUNT)
    rows = evaluate(link, payload, snr_db=[1, 10], metrics=["psnr"], stop=stop, batch_size=32)
    return time.process_time() - start, rows[-1]["value"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{machine()}; one thread")
    for name in ("deepjscc-cifar-1-6", "swin-cifar-1-6"):
        links = [link_of(name, compiled=compiled) for compiled in (False, True)]
        moved = abs(seconds(links[0])[1] - seconds(links[1])[1])  # and the compiler runs
        ratios = [seconds(links[0])[0] / seconds(links[1])[0] for _ in range(repeats)]
        print(
            f"{name}: {statistics.median(ratios):.2f} times faster ({min(ratios):.2f} to "
            f"{max(ratios):.2f}); PSNR moves by {moved:.1e} dB"
        )


if __name__ == "__main__":
    main()
