"""What a report of very many rows costs: file size, time and memory.

python benchmarks/many_rows.py [ROWS]     # 1,000,000 by default: about two minutes, 2 GB free
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from semsim.evaluation import Row
from semsim.plots.report import write_report
from semsim.results import frame, write_rows


def rows(count: int) -> Iterator[Row]:
    """Yield rows as a sweep of 1,000 links gives them."""
    for k in range(count):
        row: Row = {"scenario": "many", "transmitter": f"scheme {k % 1000}", "channel": "rayleigh"}
        row |= {"payload": "photos", "snr_db": k / 1000, "metric": "psnr", "value": 30 + k / count}
        row |= {"ci_low": 29.0, "ci_high": 31.0, "n": 100, "cbr": 1 / 16, "power": 1.0, "seed": 0}
        yield row | {"seconds": 0.1, "unit": "dB", "better": "higher", "uid": f"{k:016x}"}


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as place:
        start = time.process_time()
        table = frame(rows(count))
        write_rows(Path(place), table)
        middle = time.process_time()
        report = write_report(table, Path(place) / "report.html", title="many")
        end, size = time.process_time(), report.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} rows: gathered and written in {middle - start:.1f} s")
    print(f"report {size:.2f} MB in {end - middle:.2f} s; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
