"""What knowledge of the channel is worth in a link: late and noisy reports, learned estimates.

    python benchmarks/csi_links.py late receiver
        [--model wirelessgpt-small] [--tuned WEIGHTS] [--items 64] [--delays 2]
        [--reports clean 20 10] [--links coded psnr] [--subcarriers 48 192] [--steps 300]
        [--out results/csi_links]

``late``: UMi with OFDM, 4 antennas at the transmitter, mostly 1 at the receiver, and SVD of
what the transmitter makes of reports that are some ms old and as noisy as --reports says, in dB.
``AR(8) and Kalman`` and ``all three`` are weighed by how well each foretells the latest reports.
How much of what holding the last report loses is recovered stands with half of its 95 % interval,
and beside it what each has less WirelessGPT and what all three have less each, paired by item. 48
subcarriers of 30 kHz are 6 groups to report of, 192 are 24. WEIGHTS is task.safetensors of a
training of ``fill_in`` that started from --model.

``receiver``: PSNR of a shipped codec over SNR where the receiver estimates from the same pilots by
LS and linear interpolation, by LMMSE, or betters LMMSE by a network: residual convolutions on the
estimate alone, or on it and on what a frozen WirelessGPT makes of it. Both learn from as many
estimates in as many steps, over as many OFDM symbols as the link sends: LMMSE estimates each slot
by itself. Differences to LMMSE are paired.

Each section prints a table and writes it to OUT/SECTION.md. Ten
to twenty minutes of a core each.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset
from wirelessgpt_tools import write_table

from semsim import Scenario, zoo
from semsim.comparison.paired import difference, mean_of
from semsim.csi.tasks import EstimateChannel
from semsim.evaluation import Evaluation, Stop
from semsim.payloads.pilot_estimates import PilotEstimates
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec

Array = NDArray[np.float64]
Rows = Iterator[tuple[Any, ...]]
ARRAY = {"channel": {"kind": "umi", "num_tx": 4, "num_rx": 1}, "frontend": {"kind": "svd"}}
LINKS: dict[str, dict[str, Any]] = {
    "coded": {
        **ARRAY,
        "title": "BER, LDPC of rate 0.30, QPSK, -5 dB",
        "payload": {"kind": "bits", "length": 380},
        "transmitter": {"kind": "coded", "mcs": 2},
        "metrics": ["ber"],
        "snr_db": [-5],
    },
    "uncoded": {
        **ARRAY,
        "title": "BER, QPSK, 6 dB",
        "payload": {"kind": "bits", "length": 2 * 48 * 14},
        "transmitter": {"kind": "uncoded"},
        "metrics": ["ber"],
        "snr_db": [6],
    },
    "psnr": {
        **ARRAY,
        "title": "PSNR of deepjscc-photo-1-16, dB, at 4 dB",
        "payload": {"kind": "photos", "crop": 64},
        "transmitter": {"kind": "deepjscc", "weights": "deepjscc-photo-1-16"},
        "metrics": ["psnr"],
        "snr_db": [4],
    },
    "psnr-4x4": {
        "channel": {"kind": "umi", "num_tx": 4, "num_rx": 4},
        "frontend": {"kind": "svd", "water_filling": True},
        "title": "PSNR of deepjscc-photo-1-16, dB, 4x4, at 10 dB",
        "payload": {"kind": "photos", "crop": 64},
        "transmitter": {"kind": "deepjscc", "weights": "deepjscc-photo-1-16"},
        "metrics": ["psnr"],
        "snr_db": [10],
    },
}
RECEIVER: dict[str, Any] = {
    "payload": {"kind": "photos", "crop": 64},
    "transmitter": {"kind": "deepjscc", "weights": "deepjscc-photo-1-16"},
    "channel": {"kind": "umi", "speed_mps": 8.3},
    "metrics": ["psnr"],
    "snr_db": [1, 4, 7, 10, 13],
}
ALL = "all three"
DMRS = {"kind": "dmrs", "dmrs_symbols": 1}


def per_item(scenario: dict[str, Any], items: int) -> dict[float, Array]:
    """Return the first metric of each item by SNR; the same items whatever the ends know."""
    built = Scenario.parse(scenario).points()[0].scenario.build("cpu")
    made = Evaluation(
        built.link, built.payload, snr_db=scenario["snr_db"], metrics=built.metrics, seed=7,
        batch_size=32, stop=Stop(1, items),
    )  # fmt: skip
    found: dict[float, list[Array]] = {}
    made.keep = lambda place, _, values: found.setdefault(place.snr_db, []).append(values[0])
    made.run()
    return {snr: np.concatenate(parts) for snr, parts in found.items()}


def sources(delay: float, report: str, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return what the transmitter may know, by name."""
    late: dict[str, Any] = {"kind": "predicted", "delay_s": 1e-3 * delay}
    if report != "clean":
        late["report_snr_db"] = float(report)
    asked = late | {"by": "wirelessgpt", "reports": 16 if delay < 4 else 12}
    named = {
        "hold": late | {"by": "hold"},
        "AR(8)": late | {"by": "ar", "order": 8},
        "Kalman": late | {"by": "kalman"},
        "WirelessGPT": asked | {"model": arguments.model},
    }
    if delay <= 2:  # longer ones would need more than 16 reports
        both = late | {"by": "combined", "order": 8}
        named |= {"AR(8) and Kalman": both, ALL: both | {"model": arguments.model}}
    if arguments.tuned is not None:
        named["WirelessGPT, tuned"] = asked | {"model": arguments.tuned}
    return named


def late_reports(arguments: argparse.Namespace) -> Rows:
    """Links whose transmitter hears of the channel late."""
    yield (
        "link", "subcarriers", "km/h", "ms", "SNR of reports, dB", "CSI", "value",
        "of hold's loss recovered", "less WirelessGPT", "all three less this",
    )  # fmt: skip
    for link, width, speed in itertools.product(arguments.links, arguments.subcarriers, (30, 60)):
        values = copy.deepcopy(LINKS[link])
        title = values.pop("title")
        values["channel"] |= {"speed_mps": speed / 3.6, "subcarriers": width}

        def heard(csi: dict[str, Any], values: dict[str, Any] = values) -> Array:
            (own,) = per_item({**values, "csi": {"tx": csi}}, arguments.items).values()
            return own

        true = heard({"kind": "perfect"})
        for delay, report in itertools.product(arguments.delays, arguments.reports):
            named = sources(delay, report, arguments)
            found = {"true": true} | {name: heard(csi) for name, csi in named.items()}
            for name, own in found.items():
                back = recovered(own, found["hold"], true)
                apart = [paired(own, found["WirelessGPT"])]
                apart += [paired(found[ALL], own) if ALL in found else ""]
                yield (
                    title,
                    width,
                    speed,
                    f"{delay:g}",
                    report,
                    name,
                    with_interval(own),
                    back,
                    *apart,
                )


def recovered(own: Array, held: Array, true: Array) -> str:
    """Return the share of a loss that is recovered, and half of its interval (delta method)."""
    loss = float((held - true).mean())
    if not loss:
        return "nothing lost"
    share = float((held - own).mean()) / loss
    away = mean_of((held - own) - share * (held - true))
    return f"{share:.2f} ± {(away.high - away.low) / 2 / abs(loss):.2f}"


def paired(own: Array, other: Array) -> str:
    """Return the mean difference over the same items, with its interval."""
    gain = difference(own, other)
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def with_interval(values: Array) -> str:
    found = mean_of(values)
    return f"{found.value:.4f} ± {(found.high - found.low) / 2:.4f}"


def receivers(arguments: argparse.Namespace) -> Rows:
    """The same pilots, estimated in several ways."""
    yield ("receiver's CSI", "SNR dB", "PSNR dB", "over LMMSE, dB")
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = {
        "LMMSE": DMRS,
        "LS, linear interpolation": {**DMRS, "interpolation": "linear"},
        "true": {"kind": "perfect"},
    }
    for features, name in (("raw", "learned on LMMSE"), ("both", "learned on LMMSE and z")):
        weights = taught(features, arguments)
        known[name] = {"kind": "learned", "of": DMRS, "model": str(weights)}
    found = {
        name: per_item({**RECEIVER, "csi": {"rx": csi}}, arguments.items)
        for name, csi in known.items()
    }
    for name, own in found.items():
        for snr, values in own.items():
            yield name, f"{snr:g}", with_interval(values), paired(values, found["LMMSE"][snr])


def taught(features: Any, arguments: argparse.Namespace) -> Path:
    """Train what betters LMMSE, through the one loop, and return its weights."""
    scenario = {**RECEIVER, "csi": {"rx": DMRS}}
    built = Scenario.parse(scenario).points()[0].scenario.build("cpu")
    image, _ = built.payload[0]
    symbols = -(-built.link.transmitter.num_symbols(image.shape) // built.link.channel.subcarriers)
    payload = PilotEstimates(
        built.link.channel, built.link.csi_rx, arguments.pool, symbols=symbols,
        snr_db=(0.0, 15.0), seed=60,
    )  # fmt: skip
    pairs = [payload[i] for i in range(len(payload))]  # in order, for blocks are drawn together
    drawn = TensorDataset(*(torch.stack(part) for part in zip(*pairs, strict=True)))
    torch.manual_seed(0)
    task = EstimateChannel(
        arguments.model, features=features, head="rescnn", pairs=1, relative_to="source"
    )
    spec = TrainSpec(
        steps=arguments.steps, batch_size=16, lr=3e-3, optimiser="muon", precision="bf16",
        ema=0.98, flip=False,
    )  # fmt: skip
    nothing_sent: dict[str, Any] = {
        "payload": "photos", "transmitter": "no_link", "channel": "awgn", "metrics": ["psnr"],
        "snr_db": [10],
    }  # fmt: skip
    link = Scenario.parse(nothing_sent).points()[0].scenario.build("cpu").link
    with Training(link, drawn, task, spec) as training:
        training.advance()
        training.finish()
    path = arguments.out / f"estimator-{features}.safetensors"
    return zoo.export_parts(path, dict(task.named_children()))


SECTIONS = {"late": late_reports, "receiver": receivers}


def main() -> None:
    """Run the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--model", default="wirelessgpt-small", help="weights of WirelessGPT")
    parser.add_argument("--tuned", help="further weights, tuned to such channels")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--delays", type=float, nargs="+", default=[2.0], help="ms")
    parser.add_argument("--reports", nargs="+", default=["clean", "20", "10"], help="clean, or dB")
    parser.add_argument("--links", nargs="+", choices=LINKS, default=["coded", "psnr"])
    parser.add_argument("--subcarriers", type=int, nargs="+", default=[48, 192])
    parser.add_argument(
        "--pool", type=int, default=1024, help="estimates that receivers learn from"
    )
    parser.add_argument("--steps", type=int, default=300, help="of their training")
    parser.add_argument("--out", type=Path, default=Path("results/csi_links"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for section in arguments.sections:
        write_table(SECTIONS[section](arguments), arguments.out / f"{section}.md")


if __name__ == "__main__":
    main()
