"""The classical baseline over several antennas, and with limited knowledge at the transmitter.

    python benchmarks/mimo_baseline.py [--rounds 12] [--only rank engines] [--sizes 2 4 8]

The five everyday photos of scikit-image at 256 x 256, HEVC, CBR 1/16, once per round and draw of
the channel. First table: the number of streams chosen per draw against each fixed one, channel
known at both ends. Second: what csi.tx brings over none; third: the same where it is weak, on
average over fading. Fourth: what the error-rate engine lets arrive, beside true decoding.
Differences are paired: same photos, fading and noise; with their 95 % intervals. Half an hour
of one core, most of it for 8x8.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from channels.base import CSI, Channel
from channels.csi import CSISource, FeedbackCSI, MismatchedCSI, NoCSI, PerfectCSI, PilotCSI
from channels.doppler import doppler_hz
from channels.fading import Rayleigh
from semsim import __version__
from semsim.codecs.image_codecs import psnr_of_mse
from semsim.codecs.outage import delivered, separated
from semsim.codecs.passage import Passage
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.stills import pixels_of
from semsim.comparison.paired import mean_of
from semsim.hop import n0_of
from semsim.payloads.photos import Photos
from semsim.phy.frontend import LMMSE, RZF, SVD, FrontEnd
from semsim.phy.rank import behind, left_behind
from semsim.seeds import stream

RESULTS = Path(__file__).with_name("results") / "mimo_baseline.md"
SNRS_DB = (1.0, 4.0, 7.0)
SPEED_MPS, DELAY_S = 5.0, 5e-3
FADES = 400  #: draws of fading by which a plan is judged
FRONT_ENDS: dict[str, FrontEnd] = {
    "svd": SVD(),
    "svd, water-filling": SVD(water_filling=True),
    "rzf": RZF(),
}
OLD_DB = {1.0: (20.90, 25.37), 4.0: (24.28, 27.65), 7.0: (27.51, 29.22)}  # all streams, one stream
KNOWLEDGE: dict[str, CSISource] = {
    "none": NoCSI(),
    **{f"feedback, {bits} bit": FeedbackCSI(bits) for bits in (1, 3, 8)},
    "feedback, 8 bit, 5 ms late": FeedbackCSI(8, delay_s=DELAY_S),
    "pilots": PilotCSI(2),
    "another channel": MismatchedCSI(),
    "perfect": PerfectCSI(),
}
SETTINGS: tuple[tuple[str, Channel, FrontEnd, float], ...] = (
    ("1x1, 4 dB", Rayleigh(speed_mps=SPEED_MPS), LMMSE(), 4.0),
    ("1x1, 13 dB", Rayleigh(speed_mps=SPEED_MPS), LMMSE(), 13.0),
    ("2x2, 7 dB", Rayleigh(2, 2, speed_mps=SPEED_MPS), SVD(water_filling=True), 7.0),
)


def photos() -> Tensor:
    """Return the images [5, 3, 256, 256] in [0, 1]."""
    payload = Photos(resize=256, crop=256)
    return torch.stack([payload[index][0] for index in range(len(payload))])


def values(
    link: SeparateLink, snr_db: float, rounds: int, *, note: str = "rank"
) -> tuple[Tensor, Tensor]:
    """Return the PSNR of every image in every round, dB, and what the link notes, as streams."""
    source, found, noted = photos(), [], []
    for index in range(rounds):
        sent = link.transmit(source, snr_db, stream(0, "mimo", index))
        error = (source - sent.estimate).square().mean(dim=(1, 2, 3))
        found.append(-10 * torch.log10(error))
        noted.append(sent.notes[note].float())
    return torch.cat(found), torch.cat(noted)


def difference(values_db: Tensor, other_db: Tensor) -> str:
    """Return the mean paired difference with its 95 % interval, dB."""
    gain = (values_db - other_db).double().numpy()
    if not gain.any():
        return "equal"
    mean = mean_of(gain)
    return f"{mean.value:+.2f} [{mean.low:+.2f}, {mean.high:+.2f}]"


def rank_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare the choice per draw with each fixed number of streams."""
    ranks = range(1, max(sizes) + 1)
    over = " | ".join(f"over {rank}" for rank in ranks)
    lines = [
        "## Streams and rates chosen per draw, channel known at both ends, block Rayleigh",
        "",
        "PSNR in dB; `over 2` is the paired difference to `rank: 2`. Old values, 2x2 and svd with",
        "water-filling, from an earlier version's draws: all streams, one MCS; and one stream.",
        "",
        f"| antennas | front end | SNR | old: all, one | streams | chosen | `rank: 1` | {over} |",
        "|---|---|---|---|---|---|---|" + "---|" * len(ranks),
    ]
    for size in sizes:
        for name, frontend in FRONT_ENDS.items():
            for snr_db in SNRS_DB:
                lines.append(rank_line(size, name, frontend, snr_db, rounds))
                lines[-1] += " – |" * (max(sizes) - size)
                print(lines[-1], flush=True)
    return [*lines, ""]


def rank_line(size: int, name: str, frontend: FrontEnd, snr_db: float, rounds: int) -> str:
    """Return one line of the table: the choice, and its difference to every fixed number."""

    def psnr(rank: str | int) -> tuple[Tensor, Tensor]:
        link = SeparateLink(
            SeparateTransmitter("1/16", rank=rank),
            Rayleigh(num_tx=size, num_rx=size),
            csi_tx=PerfectCSI(),
            frontend=frontend,
        )
        return values(link, snr_db, rounds)

    best, streams = psnr("best")
    fixed = [psnr(rank)[0] for rank in range(1, size + 1)]
    before = size == 2 and name == "svd, water-filling"
    old = "{:.2f}, {:.2f}".format(*OLD_DB[snr_db]) if before else "–"
    cells = [
        f"{size}x{size}",
        name,
        f"{snr_db:g} dB",
        old,
        f"{float(streams.mean()):.1f}",
        f"{float(best.mean()):.2f}",
        f"{float(fixed[0].mean()):.2f}",
        *(difference(best, other) for other in fixed),
    ]
    return f"| {' | '.join(cells)} |"


def knowledge_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare what the transmitter may know with knowing nothing."""
    lines = [
        "## What knowledge at the transmitter brings over none, block Rayleigh",
        "",
        "PSNR in dB and its paired difference to csi.tx: none; 5 m/s at 3.5 GHz, SVD with",
        "water-filling on 2x2 where the channel is known, LMMSE where it is not.",
        "",
        f"| csi.tx | {' | '.join(name for name, *_ in SETTINGS)} |",
        "|---|" + "---|" * len(SETTINGS),
    ]
    none: dict[str, Tensor] = {}
    for name, csi_tx in KNOWLEDGE.items():
        cells = []
        for setting, channel, frontend, snr_db in SETTINGS:
            known = LMMSE() if name == "none" else frontend
            link = SeparateLink(SeparateTransmitter("1/16"), channel, csi_tx=csi_tx, frontend=known)
            found, _ = values(link, snr_db, rounds)
            gain = difference(found, none.setdefault(setting, found))
            cells.append(f"{float(found.mean()):.2f}" + ("" if name == "none" else f", {gain}"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def given_belief(link: SeparateLink, snr_db: float, rounds: int, correlation: float) -> Tensor:
    """Return the PSNR that each image has on average over fading, given what was believed, dB.

    Args:
        link: over flat fading, its receiver knows the channel.
        snr_db: of all items.
        rounds: beliefs of each photo.
        correlation: of the channel with what the transmitter believes it to be.
    """
    source = photos().repeat(rounds, 1, 1, 1)
    total = link.transmitter.num_symbols(tuple(source.shape[1:]))
    passage = Passage(link.transmitter, link, pixels_of(source), total, link.outlook)
    air = link.draw(total, n0_of(snr_db, source), stream(0, "belief"))
    precoder = passage.steer(air.csi_tx, [snr_db] * len(source))
    generator, found = stream(1, "belief"), []
    for item, plan in enumerate(passage.plans):
        h = torch.randn(FADES, *air.state.h.shape[1:], dtype=precoder.dtype, generator=generator)
        if air.csi_tx.h is not None:
            h = correlation * air.csi_tx.h[item] + math.sqrt(1 - correlation**2) * h
        met = behind(CSI(h, air.n0[:1].expand(FADES)), precoder[item : item + 1])
        left = separated(left_behind(link.frontend, met))
        odds = torch.ones(FADES, dtype=torch.float64)
        for word in plan.offer.words:
            odds *= delivered(left[:, list(word.streams)].transpose(1, 2).flatten(1), word.cut)
        lost = passage.transmitter.stills.lost_psnr(plan.image)
        psnr = lost if plan.coded is None else psnr_of_mse(plan.coded.mse)
        found.append(float(odds.mean()) * (psnr - lost) + lost)
    return torch.tensor(found)


def truth_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare weak knowledge with none, on average over all that the fading may be."""
    lines = [
        "## Weak knowledge beside none, averaged over fading",
        "",
        f"As the table above, but each plan is judged by {FADES} draws of fading, given what the",
        "transmitter believed, at the error rates of the blocks: no luck with noise and outages.",
        "Difference of the mean PSNR to csi.tx: none, over beliefs, dB.",
        "",
        "| csi.tx | setting | difference |",
        "|---|---|---|",
    ]
    turns = doppler_hz(SPEED_MPS, Rayleigh(speed_mps=SPEED_MPS).carrier_hz) * DELAY_S
    late = float(torch.special.bessel_j0(torch.tensor(2 * math.pi * turns)))
    weak: tuple[tuple[str, CSISource, int, float], ...] = (
        ("feedback, 8 bit, 5 ms late", FeedbackCSI(8, delay_s=DELAY_S), 1, late),
        ("feedback, 8 bit, 5 ms late", FeedbackCSI(8, delay_s=DELAY_S), 2, late),
        ("another channel", MismatchedCSI(), 2, 0.0),
    )
    for name, csi_tx, setting, correlation in weak:
        title, channel, frontend, snr_db = SETTINGS[setting]
        told, none = (
            given_belief(
                SeparateLink(SeparateTransmitter("1/16"), channel, csi_tx=tx, frontend=end),
                snr_db, 8 * rounds, correlation,
            )
            for tx, end in ((csi_tx, frontend), (NoCSI(), LMMSE()))
        )  # fmt: skip
        usual = none.view(-1, 5).mean(dim=0).repeat(len(told) // 5)
        lines.append(f"| {name} | {title} | {difference(told, usual)} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def engines_table(rounds: int, sizes: list[int]) -> list[str]:
    """Compare the error-rate engine with true decoding of the same symbols."""
    lines = [
        "## The two engines, block Rayleigh, channel known at both ends, svd with water-filling",
        "",
        "Difference: `engine: bler` minus `engine: ldpc`. Row 16 on both streams is an extreme:",
        "one codeword whose symbols are good and bad in turn.",
        "",
        "| setting | arrived, bler | arrived, ldpc | PSNR, bler | PSNR, ldpc | difference |",
        "|---|---|---|---|---|---|",
    ]
    settings: list[tuple[str, int, float, dict[str, Any]]] = [
        *((f"{n}x{n}, {snr:g} dB, best", n, snr, {}) for n in sizes for snr in SNRS_DB),
        ("2x2, 19 dB, row 16 on both streams", 2, 19.0, {"rank": 2, "mcs": 16}),
    ]
    for name, size, snr_db, more in settings:
        found, arrived = [], []
        for engine in ("bler", "ldpc"):
            link = SeparateLink(
                SeparateTransmitter("1/16", engine=engine, **more),
                Rayleigh(num_tx=size, num_rx=size),
                csi_tx=PerfectCSI(),
                frontend=SVD(water_filling=True),
            )
            psnr, decoded = values(link, snr_db, rounds, note="decoded")
            found.append(psnr)
            arrived.append(float(decoded.mean()))
        shown = [*(f"{share:.3f}" for share in arrived), *(f"{f.mean():.2f}" for f in found)]
        lines.append(f"| {name} | {' | '.join(shown)} | {difference(*found)} |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="draws of the channel per photo")
    parser.add_argument("--only", nargs="+", default=["rank", "knowledge", "truth", "engines"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 4, 8], help="of the arrays")
    args = parser.parse_args()
    tables = {
        "rank": rank_table,
        "knowledge": knowledge_table,
        "truth": truth_table,
        "engines": engines_table,
    }
    lines = [
        "# Classical baseline: several antennas, limited knowledge",
        "",
        f"`python benchmarks/mimo_baseline.py --rounds {args.rounds}`, semsim {__version__}.",
        f"HEVC, CBR 1/16, the five photos of scikit-image at 256 x 256, {args.rounds} draws each: "
        f"{5 * args.rounds} items. Run on a CPU",
        f"({platform.machine()}, {platform.system()}); another gives the same but for rounding.",
        "",
    ]
    for name in args.only:
        lines += tables[name](args.rounds, args.sizes)
    RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
