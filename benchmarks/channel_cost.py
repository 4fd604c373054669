"""What a channel costs beside the raw Sionna block it wraps, and beside hand-written torch.

    python benchmarks/channel_cost.py [--repeats 101] [--threads 1]

All three do the same work on the same x: draw gains, apply them, add noise of a power per item.
Raw Sionna gets x in the layout it likes best. Ratios of interleaved runs in one process, median
and 95 % bootstrap interval. Writes benchmarks/results/channel_cost.{csv,md}.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, ratio
from torch import Tensor

from channels import AWGN, TDL, Rayleigh
from channels.base import Channel
from channels.sionna_bridge import sionna_phy
from semsim import stream

RESULTS = Path(__file__).parent / "results"
AT = {"precision": "single", "device": "cpu"}
SIZES = {
    "64 x 64": (64, 64),
    "CIFAR-10, 64 images, CBR 1/6 (64 x 512)": (64, 512),
    "CIFAR-10, 250 images, CBR 1/6 (250 x 512)": (250, 512),
    "Kodak, 1 photo, CBR 1/16 (1 x 73728)": (1, 73728),
}
Work = Callable[[], object]


def ours(channel: Channel, x: Tensor, n0: Tensor) -> Work:
    """Draw and send, as a link does."""
    generator = stream(1, "ours")

    def work() -> Tensor:
        state = channel.draw(len(x), x.shape[-1], generator)
        return channel(x, state, n0, generator)

    return work


def ours_drawn(channel: Channel, x: Tensor, n0: Tensor) -> Work:
    """Send only, through a state drawn before: the one block's work and nothing else."""
    generator = stream(1, "ours")
    state = channel.draw(len(x), x.shape[-1], generator)
    return lambda: channel(x, state, n0, generator)


def by_hand(x: Tensor, n0: Tensor, num_rx: int, gains: int) -> Work:
    """Draw and send in plain torch; ``gains`` per item, 0 for AWGN."""
    generator = stream(1, "hand")

    def noise(batch: int, uses: int) -> Tensor:
        draw = torch.randn(batch, num_rx, uses, generator=generator, dtype=torch.complex64)
        return n0.sqrt()[:, None, None] * draw

    def work() -> Tensor:
        batch, num_tx, uses = x.shape
        if not gains:
            return x + noise(batch, uses)
        shape = (batch, num_rx, num_tx, gains)
        h = torch.randn(shape, generator=generator, dtype=torch.complex64)
        y = h[..., 0] @ x if gains == 1 else torch.einsum("brtn,btn->brn", h, x)
        return y + noise(batch, uses)

    return work


def raw_awgn(x: Tensor, n0: Tensor) -> Work:
    """Call Sionna's AWGN block."""
    block = sionna_phy().channel.AWGN(**AT)
    return lambda: block(x, n0)


def raw_flat(x: Tensor, n0: Tensor, num_rx: int, coherence: str) -> Work:
    """Call Sionna's flat-fading blocks, which take the antennas last."""
    batch, num_tx, uses = x.shape
    block = sionna_phy().channel.FlatFadingChannel(num_tx, num_rx, return_channel=True, **AT)
    vectors = x.mT.contiguous()
    if coherence == "block":  # one gain for the N vectors of an item, by broadcasting
        return lambda: block.apply(vectors, block.generate(batch)[:, None], n0)
    rows, noise = vectors.reshape(-1, num_tx), n0.repeat_interleave(uses)
    return lambda: block(rows, noise)


def raw_tdl(x: Tensor, n0: Tensor, channel: TDL) -> Work:
    """Chain Sionna's TDL, its OFDM response and its application to the grid."""
    phy, grid = sionna_phy().channel, channel.grid
    symbols = -(-x.shape[-1] // grid.subcarriers)
    model = phy.tr38901.TDL(
        "A", 1e-7, grid.carrier_hz, min_speed=grid.speed_mps, num_tx_ant=1, num_rx_ant=1, **AT
    )
    frequencies = phy.subcarrier_frequencies(grid.subcarriers, grid.subcarrier_spacing_hz, **AT)
    apply = phy.ApplyOFDMChannel(**AT)
    x_grid = torch.nn.functional.pad(x, (0, symbols * grid.subcarriers - x.shape[-1]))
    x_grid = x_grid.reshape(len(x), 1, 1, symbols, grid.subcarriers)

    def work() -> Tensor:
        impulse = model(len(x), symbols, grid.symbol_rate_hz)
        return apply(x_grid, phy.cir_to_ofdm_channel(frequencies, *impulse), n0)

    return work


def cases(batch: int, uses: int) -> dict[str, dict[str, Work]]:
    """Return the alternatives of each channel at one size; hand-written ones where short."""
    n0 = torch.linspace(0.01, 1, batch)

    def signal(antennas: int) -> Tensor:
        return torch.randn(batch, antennas, uses, generator=stream(1, "x"), dtype=torch.complex64)

    works: dict[str, dict[str, Work]] = {}
    for name, work in (("AWGN", ours_drawn), ("AWGN, with draw", ours)):
        works[name] = {
            "semsim": work(AWGN(), signal(1), n0),
            "sionna": raw_awgn(signal(1), n0),
            "torch": by_hand(signal(1), n0, 1, 0),
        }
    for antennas, coherence in ((1, "block"), (1, "symbol"), (4, "block"), (4, "symbol")):
        x = signal(antennas)
        channel = Rayleigh(antennas, antennas, coherence=coherence)
        works[f"Rayleigh {antennas}x{antennas}, {coherence}"] = {
            "semsim": ours(channel, x, n0),
            "sionna": raw_flat(x, n0, antennas, coherence),
            "torch": by_hand(x, n0, antennas, 1 if coherence == "block" else uses),
        }
    tdl = TDL("A", 1e-7, speed_mps=10.0)
    works["TDL-A, 10 m/s"] = {
        "semsim": ours(tdl, signal(1), n0),
        "sionna": raw_tdl(signal(1), n0, tdl),
    }
    return works


def in_random_order(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each, in rounds; who runs after whom would decide what is cached."""
    order, seconds = list(works), {name: [] for name in works}
    shuffle = random.Random(0).shuffle
    for round_index in range(-2, repeats):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            works[name]()
            if round_index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(repeats: int) -> list[dict[str, object]]:
    """Time every channel at every size."""
    rows: list[dict[str, object]] = []
    for size, (batch, uses) in SIZES.items():
        for channel, works in cases(batch, uses).items():
            costly = batch * uses > 50_000 and ("4x4, symbol" in channel or "TDL" in channel)
            seconds = in_random_order(works, max(11, repeats // 10) if costly else repeats)
            row: dict[str, object] = {"channel": channel, "size": size}
            row["semsim_ms"] = 1e3 * sorted(seconds["semsim"])[len(seconds["semsim"]) // 2]
            for other in ("sionna", "torch"):
                if other in seconds:
                    against = ratio(seconds["semsim"], seconds[other])
                    names = (other, f"{other}_low", f"{other}_high")
                    row |= dict(zip(names, against, strict=True))
            rows.append(row)
            print(as_line(row), flush=True)
    return rows


def as_line(row: dict[str, object]) -> str:
    """Return one line of the markdown table."""

    def interval(other: str) -> str:
        if other not in row:
            return ""
        return f"{row[other]:.2f} [{row[other + '_low']:.2f}, {row[other + '_high']:.2f}]"

    cells = (row["channel"], row["size"], f"{row['semsim_ms']:.3f}")
    return "| " + " | ".join((*cells, interval("sionna"), interval("torch"))) + " |"


def write(rows: list[dict[str, object]]) -> None:
    """Write the rows as CSV and as a table."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "channel_cost.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    head = "| channel | batch x uses | semsim, ms | over raw Sionna | over plain torch |"
    lines = [head, "|---|---|---|---|---|", *map(as_line, rows), "", machine(), ""]
    (RESULTS / "channel_cost.md").write_text("\n".join(lines))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=101)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    write(measure(arguments.repeats))


if __name__ == "__main__":
    main()
