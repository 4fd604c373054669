"""Draw Swin JSCC beside DeepJSCC, the classical envelope, the bound and published points.

    python benchmarks/swin_figures.py

Reads results/zoo_psnr.csv (zoo_psnr.py) and results/kodak_baseline.csv (kodak_baseline.py); writes
docs/swin_kodak.png and docs/swin_cifar.png. Published values are those of published.csv.
"""

from __future__ import annotations

from pathlib import Path

import pandas
from pandas import DataFrame

from semsim.plots.drawing import plot_rows, published

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
CHANNELS = {"awgn": "AWGN", "rayleigh block": "Rayleigh block fading"}
KODAK = {
    "swin-photo-1-16": "Swin JSCC",
    "deepjscc-photo-1-16": "DeepJSCC",
}
CIFAR = {
    "swin-cifar-1-6": "Swin JSCC 1/6",
    "deepjscc-cifar-1-6": "DeepJSCC 1/6",
    "swin-cifar-1-12": "Swin JSCC 1/12",
    "deepjscc-cifar-1-12": "DeepJSCC 1/12",
}
CLASSICAL = {"bound": "HEVC at capacity (bound)", "separate": "HEVC + LDPC"}
SYSTEMS = ("WITT", "DeepJSCC (CNN)", "BPG + LDPC", "BPG + 5G LDPC")


def learned(labels: dict[str, str]) -> DataFrame:
    """The measured curves of weights, under the names of the figure."""
    rows = pandas.read_csv(RESULTS / "zoo_psnr.csv")
    rows = rows[rows["weights"].isin(labels) & rows["channel"].isin(CHANNELS)]
    return rows.assign(
        transmitter=rows["weights"].map(labels), channel=rows["channel"].map(CHANNELS)
    )


def classical() -> DataFrame:
    """HEVC over AWGN on Kodak."""
    rows = pandas.read_csv(RESULTS / "kodak_baseline.csv")
    rows = rows[(rows["codec"] == "hevc") & rows["scheme"].isin(CLASSICAL)]
    rows = rows.rename(columns={"psnr_db": "value", "images": "n"})
    return rows.assign(transmitter=rows["scheme"].map(CLASSICAL), channel="AWGN")


def reference(payload: str, cbrs: list[float]) -> DataFrame:
    """Published values over AWGN; the published Rayleigh fading changes with every symbol."""
    rows = published(HERE / "published.csv", payload=payload, cbrs=cbrs)
    rows = rows[rows["system"].isin(SYSTEMS) & rows["snr_db"].between(0, 16)]
    return rows[rows["channel"] == "awgn"].assign(channel="AWGN")


def main() -> None:
    """Draw both figures."""
    for name, rows, values in (
        ("kodak", pandas.concat([learned(KODAK), classical()]), reference("kodak", [1 / 16])),
        ("cifar", learned(CIFAR), reference("cifar10", [1 / 6, 1 / 12])),
    ):
        rows = rows[rows["snr_db"].between(0, 16)].assign(metric="psnr", unit="dB")
        path = DOCS / f"swin_{name}.png"
        plot_rows(rows, path, reference=values)
        print(path)


if __name__ == "__main__":
    main()
