"""The tables of denoisers.md."""

from __future__ import annotations

from typing import Any

import pandas
from denoiser_rivals import PLANS
from timing import machine


def table(rows: pandas.DataFrame, value: str, spread: str | None = None) -> str:
    """A markdown table of systems over SNR."""
    snrs = sorted(rows["snr_db"].unique())
    lines = [
        "| system | " + " | ".join(f"{s:g} dB" for s in snrs) + " |",
        "|---|" + "---|" * len(snrs),
    ]
    for system in dict.fromkeys(rows["system"]):
        own = rows[rows["system"] == system].set_index("snr_db")
        cells = [
            f"{own[value][s]:.2f}"
            if spread is None
            else f"{own[value][s]:+.2f} ± {own[spread][s]:.2f}"
            for s in snrs
        ]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curves(rows: pandas.DataFrame, system: str, beside: tuple[str, ...]) -> dict[str, Any]:
    """The measured curves of one codec for a card: those of a system, and others beside it."""
    found: dict[str, dict] = {}
    for name in (system, *beside):
        found[name] = {
            channel: {str(r["snr_db"]): round(r["psnr_db"], 2) for r in part.to_dict("records")}
            for channel, part in rows[rows["system"] == name].groupby("channel", sort=False)
        }
    on = f"CIFAR-10, first {rows['images'].iloc[0]} of the last 1,000 lossless images"
    metric = "mean per-image PSNR in dB, 8-bit"
    measured = {"on": on, "metric": metric, "by_snr_db": found.pop(system)}
    return {"measured": measured, "beside": found}


def report(rows: pandas.DataFrame, clocks: pandas.DataFrame, walks: pandas.DataFrame) -> str:
    """The whole of denoisers.md."""
    text = []
    for codec in dict.fromkeys(rows["codec"]):
        for channel in dict.fromkeys(rows["channel"]):
            own = rows[(rows["codec"] == codec) & (rows["channel"] == channel)]
            text.append(f"## {codec}, {channel}: PSNR in dB, {own['images'].iloc[0]} images\n")
            text.append(table(own, "psnr_db"))
            for system, images in own.groupby("system", sort=False)["images"].first().items():
                if images != own["images"].iloc[0]:
                    text.append(f"{system}: the first {images} of them, and so its gains.\n")
            text.append("Gain over the codec as it was, in dB:\n")
            text.append(table(own, "over_codec_db", "over_codec_ci95"))
            if own["over_control_db"].notna().any():
                text.append(
                    f"Gain over the codec trained on for {2 * PLANS[codec].steps} steps without a "
                    "denoiser, on the same SNRs and channels, in dB:\n"
                )
                text.append(table(own, "over_control_db", "over_control_ci95"))
        own = rows[(rows["codec"] == codec) & (rows["channel"] == "awgn")]
        text.append(f"## {codec}, awgn: MS-SSIM in dB, 24 Kodak photos, middle 192 x 192\n")
        text.append(table(own.dropna(subset="kodak_ms_ssim_db"), "kodak_ms_ssim_db"))
        text.append(f"## {codec}: time of the cleaning alone, {machine()}\n")
        clock = clocks[clocks["codec"] == codec]
        text.append(_clock_table(clock))
        walk = walks[walks["codec"] == codec]
        text.append(f"## {codec}: the trajectory over AWGN, predicted / true score, latent MSE\n")
        text.append(_walk_table(walk))
    return "\n".join(text)


def _clock_table(rows: pandas.DataFrame) -> str:
    lines = [
        "| system | SNR | runs of the network | ms per image | times the residual denoiser |",
        "|---|---|---|---|---|",
    ]
    for row in rows.to_dict("records"):
        lines.append(
            f"| {row['system']} | {row['snr_db']:g} dB | {row['steps']} | "
            f"{row['ms_per_image']:.2f} | "
            + (
                f"{row['times_residual']:.1f} ({row['low']:.1f} to {row['high']:.1f}) |"
                if row["times_residual"] < 200
                else "it takes no step here |"
            )
        )
    return "\n".join(lines) + "\n"


def _walk_table(rows: pandas.DataFrame) -> str:
    steps = sorted(rows["step"].unique())
    lines = [
        "| SNR | steps planned | "
        + " | ".join(f"z_{t}" for t in steps)
        + " | last, score of +10 dB |",
        "|---|---|" + "---|" * (len(steps) + 1),
    ]
    for snr in dict.fromkeys(rows["snr_db"]):
        own = rows[rows["snr_db"] == snr].set_index("step")
        cells = [
            f"{own['predicted'][t]:.2f} / {own['true'][t]:.2f}, {own['mse'][t]:.3f}" for t in steps
        ]
        lines.append(
            f"| {snr:g} dB | {own['planned'].iloc[0]} | "
            + " | ".join(cells)
            + f" | {own['mse_wrong_score'].iloc[-1]:.3f} |"
        )
    return "\n".join(lines) + "\n"
