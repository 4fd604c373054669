"""The classical baseline over several antennas, and with limited knowledge at the transmitter.

    python benchmarks/mimo_baseline.py [--rounds 20] [--only rank knowledge]

The five everyday photos of scikit-image at 256 x 256, HEVC, CBR 1/16, once per round and draw of
the channel. First table: the number of streams chosen per draw against each fixed one, channel
known at both ends. Second: what csi.tx brings over none. Differences are paired: same photos,
fading and noise; with 95 % intervals of a mean.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from channels.base import Channel
from channels.csi import CSISource, FeedbackCSI, MismatchedCSI, NoCSI, PerfectCSI, PilotCSI
from channels.fading import Rayleigh
from channels.ofdm import TDL
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.payloads.photos import Photos
from semsim.phy.frontend import LMMSE, RZF, SVD, FrontEnd
from semsim.seeds import stream

RESULTS = Path(__file__).with_name("results") / "mimo_baseline.md"
SNRS_DB = (1.0, 4.0, 7.0, 13.0)
FRONT_ENDS: tuple[tuple[str, FrontEnd], ...] = (("svd", SVD(water_filling=True)), ("rzf", RZF()))
KNOWLEDGE: dict[str, CSISource] = {
    "none": NoCSI(),
    **{f"feedback, {bits} bit": FeedbackCSI(bits) for bits in (1, 2, 3, 4, 6, 8)},
    "feedback, 8 bit, 2 ms late": FeedbackCSI(8, delay_s=2e-3),
    "feedback, 8 bit, 5 ms late": FeedbackCSI(8, delay_s=5e-3),
    "pilots": PilotCSI(2),
    "another channel": MismatchedCSI(),
    "perfect": PerfectCSI(),
}


def photos() -> Tensor:
    """Return the images [5, 3, 256, 256] in [0, 1]."""
    payload = Photos(resize=256, crop=256)
    return torch.stack([payload[index][0] for index in range(len(payload))])


def values(link: SeparateLink, snr_db: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Return the PSNR of every image in every round, dB, and the number of streams."""
    source, found, ranks = photos(), [], []
    for index in range(rounds):
        sent = link.transmit(source, snr_db, stream(0, "mimo", index))
        error = (source - sent.estimate).square().mean(dim=(1, 2, 3))
        found.append(-10 * torch.log10(error))
        ranks.append(sent.notes["rank"].float())
    return torch.cat(found), torch.cat(ranks)


def difference(values_db: Tensor, other_db: Tensor) -> str:
    """Return the mean paired difference with its interval, dB."""
    gain = values_db - other_db
    half = 1.96 * float(gain.std()) / math.sqrt(len(gain))
    return f"{float(gain.mean()):+.2f} +-{half:.2f}"


def rank_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare the choice per draw with each fixed number of streams."""
    lines = [
        "## Streams and rates chosen per draw, channel known at both ends, block Rayleigh",
        "",
        "| antennas | front end | SNR | chosen, PSNR | streams | over 1 | over half | over all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        channel = Rayleigh(num_tx=size, num_rx=size)
        for name, frontend in FRONT_ENDS[: 2 if size < 8 else 1]:

            def psnr(
                rank: str | int, snr_db: float, channel: Rayleigh, frontend: FrontEnd
            ) -> tuple[Tensor, Tensor]:
                transmitter = SeparateTransmitter("1/16", rank=rank)
                ends = {"csi_tx": PerfectCSI(), "frontend": frontend}
                return values(SeparateLink(transmitter, channel, **ends), snr_db, rounds)

            for snr_db in SNRS_DB:
                best, ranks = psnr("best", snr_db, channel, frontend)
                fixed = [
                    difference(best, psnr(rank, snr_db, channel, frontend)[0])
                    for rank in (1, size // 2, size)
                ]
                lines.append(
                    f"| {size}x{size} | {name} | {snr_db:g} dB | {float(best.mean()):.2f} | "
                    f"{float(ranks.mean()):.1f} | {' | '.join(fixed)} |"
                )
                print(lines[-1], flush=True)
    return [*lines, ""]


def knowledge_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare what the transmitter may know with knowing nothing."""
    settings: list[tuple[str, Channel, FrontEnd, float]] = [
        ("1x1 block Rayleigh", Rayleigh(speed_mps=5.0), LMMSE(), 13.0),
        ("1x1 block Rayleigh", Rayleigh(speed_mps=5.0), LMMSE(), 4.0),
        ("1x1 TDL-A, 100 ns, OFDM", TDL("A", 1e-7, speed_mps=5.0), LMMSE(), 10.0),
        ("2x2 block Rayleigh", Rayleigh(2, 2, speed_mps=5.0), SVD(water_filling=True), 7.0),
    ]
    settings = [setting for setting in settings if setting[1].num_tx in (1, *sizes)]
    heads = [f"{name}, {snr_db:g} dB" for name, _, _, snr_db in settings]
    lines = [
        "## What knowledge at the transmitter brings over none",
        "",
        "PSNR in dB and its paired difference to csi.tx: none; 5 m/s at 3.5 GHz, SVD with",
        "water-filling on 2x2 where the channel is known, LMMSE where it is not.",
        "",
        f"| csi.tx | {' | '.join(heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    none: dict[int, Tensor] = {}
    for name, csi_tx in KNOWLEDGE.items():
        cells = []
        for column, (_, channel, frontend, snr_db) in enumerate(settings):
            known = LMMSE() if name == "none" else frontend
            link = SeparateLink(SeparateTransmitter("1/16"), channel, csi_tx=csi_tx, frontend=known)
            found, _ = values(link, snr_db, rounds)
            none.setdefault(column, found)
            gain = "" if name == "none" else f" ({difference(found, none[column])})"
            cells.append(f"{float(found.mean()):.2f}{gain}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="draws of the channel per photo")
    parser.add_argument("--only", nargs="+", default=["rank", "knowledge"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 4, 8], help="of the arrays")
    args = parser.parse_args()
    tables = {"rank": rank_table, "knowledge": knowledge_table}
    lines = [
        "# Classical baseline: several antennas, limited knowledge",
        "",
        f"HEVC, CBR 1/16, five photos at 256 x 256, {args.rounds} draws each. "
        f"`python benchmarks/mimo_baseline.py --rounds {args.rounds}`",
        "",
    ]
    for name in args.only:
        lines += tables[name](args.rounds, args.sizes)
    RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
