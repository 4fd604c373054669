"""The tables of lcfsc.py: its CSV, and what the Markdown says of it."""

from __future__ import annotations

from pathlib import Path

import pandas

SEEDS = (0, 1, 2)
SNRS = [1.0, 10.0, 19.0]
STUDENT_T = 4.303  # 97.5 % point for two degrees of freedom
FEEDBACK = (", LS pilots", ", NPN")  # what the transmitter knows of H, in the second table
HEADING = (
    "PSNR in dB on 119 crops of 64 x 64 from held-out photos, CBR 1/16 over all antennas, i.i.d. "
    "block Rayleigh fading; mean over the seeds, in brackets the paired difference to plain with "
    "its 95 % interval. {} steps of 8 crops for the plain backbone, then {} for each variant; "
    "LMMSE at the receiver, H known at both ends.\n"
)
ESTIMATES = (
    "\n## What the transmitter believes of H\n\nSeed 0, trained with H known; the receiver knows "
    "H. LS: as many pilots as antennas at the SNR of the symbols; NPN: the same estimate, cleaned "
    "by an estimator that was trained on fading before. NMSE at 1, 10 and 19 dB.\n\n"
    "| antennas | codec | H | NMSE | {} |\n|---|---|---|---|" + "---|" * len(SNRS)
)


def table(path: Path) -> pandas.DataFrame:
    """The rows so far."""
    return pandas.read_csv(path) if path.is_file() else pandas.DataFrame()


def done(path: Path, antennas: int, variant: str, seed: int) -> bool:
    """Tell whether a run is in the table."""
    rows, name = table(path), "bound, SVD" if variant == "classical" else variant
    if not len(rows):
        return False
    same = (rows["antennas"] == antennas) & (rows["seed"] == seed) & (rows["variant"] == name)
    return bool(same.any())


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
        text += [ESTIMATES.format(head), *estimates(rows, rows[estimated])]
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


def estimates(rows: pandas.DataFrame, found: pandas.DataFrame) -> list[str]:
    """Lines of the second table: each codec with H estimated, cleaned and known."""
    lines = []
    codecs = found["variant"].str.rsplit(", ", n=1).str[0]
    for (antennas, codec), part in found.groupby([found["antennas"], codecs]):
        known = rows[(rows["antennas"] == antennas) & (rows["variant"] == codec)]
        known = known[known["seed"] == part["seed"].iloc[0]]
        for variant in [*part["variant"].unique(), codec]:
            own = (known if variant == codec else part[part["variant"] == variant]).set_index(
                "snr_db"
            )
            errors = [f"{own['nmse_db'][s]:.1f}" for s in SNRS] if variant != codec else []
            lines.append(
                f"| {antennas} x {antennas} | {codec} | "
                f"{variant.rsplit(', ', 1)[1] if errors else 'known'} | "
                f"{' / '.join(errors) + ' dB' if errors else '0'} | "
                + " | ".join(f"{own['psnr_db'][s]:.4f}" for s in SNRS)
                + " |"
            )
    return lines
