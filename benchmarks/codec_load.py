"""HEVC links under load: cold caches, many threads, one process after the other.

    python benchmarks/codec_load.py RUNS

Each process sends photos over a link whose cache of encoded images is empty, and encodes, strips,
rebuilds and decodes images of 40 sizes in 8 to 32 threads at once, with Python's fault handler on.
Every second one ends without destructors. Prints what failed, and how many runs did not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ONE = "--one"


def one(seed: int, threads: int) -> None:
    """Load the codec once, in this process."""
    import numpy as np
    import torch

    from channels import AWGN
    from semsim import stream
    from semsim.codecs.image_codecs import image_codec
    from semsim.codecs.separate import SeparateLink, SeparateTransmitter
    from semsim.payloads.photos import Photos

    os.cpu_count = lambda: threads  # as many threads as the link's pool takes
    rng = np.random.default_rng(seed)
    size = int(rng.choice([32, 64, 96, 128]))
    photos = Photos(resize=size, crop=size)
    source = torch.stack([photos[i % 5][0].roll(int(rng.integers(size)), -1) for i in range(8)])
    link = SeparateLink(SeparateTransmitter("1/6", codec="hevc"), AWGN())
    link.transmit(source, float(rng.choice([0, 5, 10, 15])), stream(seed, "load"))
    codec = image_codec("hevc")

    def work(index: int) -> None:
        draw = np.random.default_rng([seed, index])
        height, width = (int(n) for n in draw.integers(8, 160, 2))
        step = int(draw.integers(codec.steps))
        file = codec.encode(draw.integers(0, 256, (height, width, 3), np.uint8), step)
        codec.decode(codec.rebuild(codec.strip(file), step, height, width))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(40)))
    if seed % 2:
        os._exit(0)


def main() -> None:
    if sys.argv[1] == ONE:
        one(int(sys.argv[2]), int(sys.argv[3]))
        return
    runs, failed = int(sys.argv[1]), 0
    for seed in range(runs):
        threads = str(8 * (seed % 4 + 1))
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [sys.executable, "-X", "faulthandler", __file__, ONE, str(seed), threads],
                env={**os.environ, "SEMSIM_CACHE": cache},
                capture_output=True,
                text=True,
            )
        if done.returncode:
            failed += 1
            print(f"run {seed} in {threads} threads: {done.returncode}\n{done.stderr[-4000:]}")
    print(f"{runs - failed} of {runs} runs ended well")


if __name__ == "__main__":
    main()
