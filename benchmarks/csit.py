"""What channel knowledge at the transmitter is worth to a picture, before any network uses it.

    python benchmarks/csit.py [--draws 400]

Closed forms over draws of H, no training and no simulation of symbols. The picture is the DCT chunks
of the five bundled photos at 256 px (variances as ``softcast`` sends them), at one complex symbol per
16 values; n streams of n x n antennas take n times fewer channel uses. Per setting and SNR:

- capacity with and without knowledge (water-filling against equal power);
- spread: strongest over weakest stream in dB, median over draws, behind LMMSE and over eigenmodes;
- a linear analog code, expected PSNR of the mean distortion per draw: ``dealt`` without a precoder,
  every chunk over all streams behind LMMSE, with the powers that are best for the statistics of the
  streams; ``modes`` the same over eigenmodes of equal power; ``matched`` with the largest chunks on
  the strongest modes and the powers that are best for this draw;
- any code whatever that adapts to each draw (reverse water-filling at capacity): what knowledge adds.

Settings: i.i.d. Rayleigh; the same with exponential correlation 0.9 at both ends (Kronecker); and
OFDM, 16 subcarriers with 4 equal taps, where chunks are matched to modes of all subcarriers.

Source: Lee, Petersen, Optimal linear coding for vector channels (1976), for the matched powers;
Loyka, Channel capacity of MIMO architecture using the exponential correlation matrix (2001).
"""  # noqa: E501 - one line of text

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from channels.base import complex_normal
from semsim.codecs.softcast import _colours, layout, to_chunks
from semsim.nn.dct import dct
from semsim.payloads.photos import Photos
from semsim.phy.theory import mimo_capacity, water_filling
from semsim.seeds import stream

RESULTS = Path(__file__).parent / "results"
SNRS = (0.0, 5.0, 10.0, 15.0, 20.0)
CHUNK, VALUES, RHO, TAPS, SUBCARRIERS = 16, 16, 0.9, 4, 16
SIDE = 256


def chunks() -> Tensor:
    """Return the variances of each photo's chunks, descending, [photos, chunks], and of all."""
    shape = (3, SIDE, SIDE)
    cut = layout(shape, CHUNK, 3 * SIDE * SIDE)
    images = torch.stack([Photos(resize=SIDE, crop=SIDE)[i][0].double() for i in range(5)])
    planes = torch.einsum("ij,bjhw->bihw", _colours(images), images)
    planes = planes - planes.mean(dim=(2, 3), keepdim=True)
    return to_chunks(dct(planes), cut).square().mean(dim=2).sort(dim=1, descending=True).values


def draws(setting: str, antennas: int, count: int) -> Tensor:
    """Return channels [B, n, n, F] of unit mean gain per pair of antennas."""
    g = stream(0, "csit", setting, antennas)
    taps = TAPS if setting == "OFDM" else 1
    h = complex_normal((count, antennas, antennas, taps), g, torch.complex128) / math.sqrt(taps)
    if setting == "correlated":
        place = torch.arange(antennas, dtype=torch.float64)
        root = torch.linalg.cholesky(RHO ** (place[:, None] - place).abs()).to(h.dtype)
        h = torch.einsum("ij,bjkf,lk->bilf", root, h, root)
    return torch.fft.fft(h, SUBCARRIERS) if setting == "OFDM" else h


def gains(h: Tensor, n0: float) -> tuple[Tensor, Tensor]:
    """Return the SNR of every stream [B, F, n]: behind LMMSE and on eigenmodes, equal powers."""
    per = h.permute(0, 3, 1, 2)
    size = per.shape[-1]
    gram = per.mH @ per / (size * n0)
    eye = torch.eye(size, dtype=gram.dtype)
    behind = 1 / torch.linalg.inv(eye + gram).diagonal(dim1=-2, dim2=-1).real - 1
    return behind, torch.linalg.eigvalsh(gram).clamp_min(1e-12)


def dealt(variance: Tensor, snr: Tensor) -> Tensor:
    """Return the mean distortion of chunks that see all streams alike, [B, photos].

    The sender knows the SNR and the statistics of the streams, and takes the powers that are best
    for them. That the powers of other streams move the interference behind LMMSE is left out.

    Args:
        variance: of all chunks, [photos, chunks], descending.
        snr: of the streams at equal power, [B, streams].
    """
    sent = variance[:, : variance.shape[1] * 2 // VALUES]
    power = best_on_average(sent, snr.flatten().quantile((torch.arange(32).double() + 0.5) / 32))
    left = (sent / (1 + power * snr[:, :, None, None])).mean(dim=1).sum(dim=2)
    return (left + variance.sum(dim=1) - sent.sum(dim=1)) / variance.shape[1]


def best_on_average(sent: Tensor, snr: Tensor) -> Tensor:
    """Return powers of mean 1, [photos, chunks], of the least mean distortion over stream SNRs [Q].

    mean over q of v_i g_q / (1 + p_i g_q)^2 = mu wherever p_i > 0
    """

    def slope(power: Tensor) -> Tensor:
        return (sent[..., None] * snr / (1 + power[..., None] * snr).square()).mean(dim=-1)

    low, high = torch.full((2, len(sent), 1), 1e-12, dtype=torch.float64)
    high = high + slope(torch.zeros_like(sent)).amax(dim=1, keepdim=True)
    for _ in range(32):  # bisect mu, and for each mu the powers, in logarithms
        mu = (low * high).sqrt()
        least, most = torch.full_like(sent, 1e-9), torch.full_like(sent, 1e6)
        for _ in range(36):
            power = (least * most).sqrt()
            more = slope(power) > mu
            least, most = torch.where(more, power, least), torch.where(more, most, power)
        much = power.mean(dim=1, keepdim=True) > 1
        low, high = torch.where(much, mu, low), torch.where(much, high, mu)
    return power / power.mean(dim=1, keepdim=True)


def matched(variance: Tensor, snr: Tensor) -> Tensor:
    """Return the same with the largest chunks on the best streams and the best powers.

    minimise sum v_i / (1 + p_i g_i), mean p_i = 1:  p_i = (sqrt(v_i g_i / mu) - 1)+ / g_i
    """
    sent = variance[:, : variance.shape[1] * 2 // VALUES]
    count = sent.shape[1]
    order = snr.sort(dim=1, descending=True).values
    place = torch.arange(count) * order.shape[1] // count  # each stream takes as many chunks
    g = order[:, None, place]
    low, high = torch.full((2, len(snr), len(sent), 1), 1e-12, dtype=torch.float64)
    high = high + (sent * g).amax(dim=2, keepdim=True)
    for _ in range(60):  # bisect mu, in logarithms
        mu = (low * high).sqrt()
        power = ((sent * g / mu).sqrt() - 1).clamp_min(0) / g
        much = power.mean(dim=2, keepdim=True) > 1
        low, high = torch.where(much, mu, low), torch.where(much, high, mu)
    left = (sent / (1 + power * g)).sum(dim=2)
    return (left + variance.sum(dim=1) - sent.sum(dim=1)) / variance.shape[1]


def any_code(variance: Tensor, capacity: Tensor, streams: int) -> Tensor:
    """Return the least distortion at a capacity in bits per use, [B, photos]."""
    bits = capacity[:, None] / streams / VALUES  # per source value
    low, high = torch.zeros(2, len(capacity), len(variance), 1, dtype=torch.float64)
    high = high + variance.amax()
    for _ in range(60):
        level = (low + high) / 2
        rate = 0.5 * torch.log2(variance / torch.minimum(variance, level)).mean(dim=2)
        much = (rate > bits)[..., None]
        low, high = torch.where(much, level, low), torch.where(much, high, level)
    return torch.minimum(variance, level).mean(dim=2)


def psnr(distortion: Tensor) -> Tensor:
    """Return PSNR in dB, mean over photos, [B]."""
    return (-10 * distortion.log10()).mean(dim=1)


def row(
    setting: str, antennas: int, snr_db: float, variance: Tensor, count: int
) -> dict[str, object]:
    """Return what is known of one setting at one SNR."""
    h, n0 = draws(setting, antennas, count), 10 ** (-snr_db / 10)
    behind, modes = gains(h, n0)
    noise = torch.full((count,), n0, dtype=torch.float64)
    none = mimo_capacity(h, noise).mean(dim=1)
    if setting == "OFDM":  # power moves between subcarriers too
        flat = (modes * antennas).flatten(1)
        filled = water_filling(flat, power=SUBCARRIERS)
        full = torch.log2(1 + filled * flat).sum(dim=1) / SUBCARRIERS
    else:
        full = mimo_capacity(h, noise, csi_tx=True).mean(dim=1)
    plain, mixed, best = (
        psnr(code(variance, snr.flatten(1)))
        for code, snr in ((dealt, behind), (dealt, modes), (matched, modes))
    )
    bounds = [psnr(any_code(variance, c, antennas)) for c in (none, full)]
    gain, bound = best - plain, bounds[1] - bounds[0]

    def spread(snr: Tensor) -> float:
        return float((snr.amax(dim=-1) / snr.amin(dim=-1)).log10().mul(10).median())

    return {
        "setting": setting, "antennas": f"{antennas}x{antennas}", "snr_db": snr_db,
        "capacity": float(none.mean()), "capacity_csit": float(full.mean()),
        "spread_lmmse_db": spread(behind), "spread_modes_db": spread(modes),
        "dealt": float(plain.mean()), "modes": float(mixed.mean()), "matched": float(best.mean()),
        "gain": float(gain.mean()), "gain_half": float(1.96 * gain.std() / math.sqrt(count)),
        "any_code": float(bounds[1].mean()), "any_code_gain": float(bound.mean()),
    }  # fmt: skip


def main() -> None:
    """Compute, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    count, variance = parser.parse_args().draws, chunks()
    rows = [
        row(setting, antennas, snr, variance, count)
        for setting in ("i.i.d.", "correlated", "OFDM")
        for antennas in (2, 4, 8)
        for snr in SNRS
    ]
    with (RESULTS / "csit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        f"{count} draws; five bundled photos, 256 px; PSNR in dB, half a 95 % interval over draws.",
        "",
        "| setting | SNR | bits/use, unknown / known | spread dB, LMMSE / modes | dealt | modes | "
        "matched | matched - dealt | any code, known - unknown |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            "| {setting} {antennas} | {snr_db:g} | {capacity:.2f} / {capacity_csit:.2f} | "
            "{spread_lmmse_db:.1f} / {spread_modes_db:.1f} | {dealt:.2f} | {modes:.2f} | "
            "{matched:.2f} | {gain:+.2f} ± {gain_half:.2f} | {any_code_gain:+.2f} |".format(**r)
        )
    (RESULTS / "csit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
