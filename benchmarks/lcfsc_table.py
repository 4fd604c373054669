"""The tables of lcfsc.py: its CSV, and what the Markdown says of it."""

from __future__ import annotations

from pathlib import Path

import pandas
from attention import is_there

SEEDS = (0, 1, 2)
SNRS = [1.0, 10.0, 19.0]
STUDENT_T = 4.303  # 97.5 % point for two degrees of freedom
FEEDBACK = (", LS", ", NPN", ", true")  # what the transmitter knows of H, in the second table
HEADING = (
    "PSNR in dB on 119 crops of 64 x 64 from held-out photos, CBR 1/16 over all antennas, i.i.d. "
    "block Rayleigh fading; mean over the seeds, in brackets the paired difference to plain with "
    "its 95 % interval. {:.0f} steps of 8 crops for the plain backbone, then {:.0f} for each "
    "variant; LMMSE at the receiver, H known at both ends.\n"
)
ESTIMATES = (
    "\n## What the transmitter believes of H\n\nSeed 0, trained with H known; the receiver knows "
    "H. LS: from as many pilots as antennas, at the SNR of the symbols; NPN: the same estimate, "
    "cleaned by an estimator that was trained on fading before; true: H itself. All three take the "
    "estimate's error for noise, so that H alone differs; channels and noise are the same.\n\n"
    "| antennas | codec | H | {} | {} |\n|---|---|---|" + 2 * len(SNRS) * "---|"
)


def table(path: Path) -> pandas.DataFrame:
    """The rows so far."""
    return pandas.read_csv(path) if path.is_file() else pandas.DataFrame()


def done(path: Path, run: tuple[int, str, int], steps: dict[str, int]) -> bool:
    """Tell whether a run is in the table.

    Args:
        path: of the table.
        run: antennas, variant and seed.
        steps: of the backbone, ``start``, and in all, ``steps``; classical rows have none.
    """
    antennas, variant, seed = run
    wanted: dict[str, object] = {"antennas": antennas, "seed": seed, "variant": variant, **steps}
    if variant == "classical":
        wanted |= {"variant": "bound, SVD", "start": 0, "steps": 0}
    return is_there(table(path), wanted)


def report(rows: pandas.DataFrame) -> str:
    """Markdown: for each number of steps what was measured, and beside it what has none."""
    classical, parts = rows["steps"] == 0, []
    for (start, steps), _ in rows[~classical].groupby(["start", "steps"], sort=False):
        own = rows[((rows["start"] == start) & (rows["steps"] == steps)) | classical]
        parts.append(HEADING.format(start, steps - start) + summary(own))
    return "\n".join(parts)


def summary(rows: pandas.DataFrame) -> str:
    """Markdown: per number of antennas, means and paired differences to plain; then estimates."""
    head, text = " | ".join(f"{s:g} dB" for s in SNRS), []
    estimated = rows["variant"].str.endswith(FEEDBACK)
    for antennas, part in rows[~estimated].groupby("antennas"):
        text += [
            f"\n## {antennas} x {antennas}\n",
            f"| variant | seeds | parameters | CPU s | {head} |",
            "|---|---|---|---|" + "---|" * len(SNRS),
        ]
        psnr = part.pivot_table(index=["variant", "seed"], columns="snr_db", values="psnr_db")
        for variant in part["variant"].unique():
            own = part[part["variant"] == variant]
            cells = [cell(psnr, variant, snr) for snr in SNRS]
            text.append(
                f"| {variant} | {own['seed'].nunique()} | {own['parameters'].iloc[0]:,} | "
                f"{own['cpu_seconds'].mean():.0f} | " + " | ".join(cells) + " |"
            )
    if estimated.any():
        errors = " | ".join(f"NMSE at {s:g} dB" for s in SNRS)
        psnrs = " | ".join(f"PSNR at {s:g} dB" for s in SNRS)
        text += [ESTIMATES.format(errors, psnrs), *estimates(rows[estimated])]
    return "\n".join(text) + "\n"


def cell(psnr: pandas.DataFrame, variant: str, snr: float) -> str:
    """The mean, and the paired difference to plain with its interval where seeds allow one."""
    own, plain = psnr.xs(variant)[snr], psnr.xs("plain")[snr]  # by seed
    gain = (own - plain).dropna()
    if variant == "plain" or not len(gain):
        return f"{own.mean():.2f}"
    if len(gain) < len(SEEDS):
        return f"{own.mean():.2f} ({gain.mean():+.3f})"
    half = STUDENT_T * gain.std() / len(gain) ** 0.5
    return f"{own.mean():.2f} ({gain.mean():+.3f} ± {half:.3f})"


def estimates(found: pandas.DataFrame) -> list[str]:
    """Lines of the second table."""
    lines = []
    for (antennas, variant), part in found.groupby(["antennas", "variant"], sort=False):
        codec, kind = variant.rsplit(", ", 1)
        own = part.set_index("snr_db")
        cells = [f"{own['nmse_db'][s]:.1f} dB" if kind != "true" else "none" for s in SNRS]
        cells += [f"{own['psnr_db'][s]:.3f}" for s in SNRS]
        lines.append(f"| {antennas} x {antennas} | {codec} | {kind} | " + " | ".join(cells) + " |")
    return lines
