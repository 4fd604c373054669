"""Ship a pre-trained WirelessGPT: half-precision weights, and a card that says what they predict.

    python benchmarks/wirelessgpt_card.py TRAINING/task.safetensors --name wirelessgpt-small
        --machine "1 of 2 CPU cores, shared" [--drops 512] [--out semsim/weights]

Beside the weights lies the card that the training left, with steps and minutes. Of the next 4 of 20
slots, UMi at 40 to 100 km/h, the card says the NMSE and that of hold, AR(16) and Kalman on the same
drops; and by how much half precision moved it. Takes about 2 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from wirelessgpt_tools import COMMON, DROPS, HORIZON, SEEN, batches, drawn, nmse, seen_at

from channels.sionna_bridge import sionna_version
from semsim import zoo
from semsim.csi import WirelessGPT
from semsim.csi.adapt import encoder_of
from semsim.csi.kalman import kalman
from semsim.csi.predicted import predict
from semsim.csi.rivals import Autoregression, hold

SEED, FEW = 100, 32  #: of the drops; and how many of them a test looks at
SNRS_DB = (0.0, 10.0, 20.0, 40.0)
MOST_DB = 0.01  #: that half precision may move a mean


def mean_db(told: Tensor, truth: Tensor) -> float:
    return 10 * math.log10(float(nmse(told, truth).double().mean()))


def halved(model: WirelessGPT) -> WirelessGPT:
    half = WirelessGPT(**model.spec).eval()
    half.load_state_dict({k: v.half().float() for k, v in model.state_dict().items()})
    return half


def measured(model: WirelessGPT, half: WirelessGPT, drops: int) -> tuple[dict[str, Any], float]:
    """Return the NMSE in dB by rival and SNR, and the largest move by half precision."""
    own = DROPS["UMi (trained on)"]
    h = drawn(drops, SEED, **own)[0]
    fitted_to = drawn(2048, 50, **own)[0]
    table: dict[str, dict[str, float]] = {}
    move = 0.0
    for snr in SNRS_DB:
        seen, truth = seen_at(h[:, :SEEN], snr, SEED), h[:, SEEN:]
        n0 = torch.full((len(h),), 10 ** (-snr / 10))
        fit = Autoregression.fit(seen_at(fitted_to[:, :SEEN], snr, 9), fitted_to[:, SEEN:], SEEN)
        told = {
            "WirelessGPT": batches(lambda x: predict(half, x, HORIZON), seen),
            "Kalman, the likeliest Doppler": kalman(seen, HORIZON, None, n0),
            "AR(16) fitted to 2,048 drops at this SNR": fit(seen),
            "hold": hold(seen, HORIZON),
        }
        for rival, channel in told.items():
            table.setdefault(rival, {})[f"{snr:g}"] = round(mean_db(channel, truth), 2)
        single = batches(lambda x: predict(model, x, HORIZON), seen)
        move = max(move, abs(mean_db(single, truth) - mean_db(told["WirelessGPT"], truth)))
    return table, move


def few(half: WirelessGPT) -> float:
    """Return what a test measures again, in dB: the first drops at 20 dB."""
    h = drawn(FEW, SEED, **DROPS["UMi (trained on)"])[0]
    return mean_db(predict(half, seen_at(h[:, :SEEN], 20.0, SEED), HORIZON), h[:, SEEN:])


def facts(arguments: argparse.Namespace, model: WirelessGPT) -> dict[str, Any]:
    """Return what the card says beside hash, spec and size."""
    making = json.loads(arguments.weights.with_suffix(".json").read_text())
    training = making["training"]
    half = halved(model)
    table, move = measured(model, half, arguments.drops)
    if move > MOST_DB:
        raise SystemExit(f"half precision moves a mean by {move:.3f} dB, more than {MOST_DB}")
    shape = (SEEN + HORIZON, 16, COMMON["subcarriers"])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        half.encode(torch.ones(1, *shape, dtype=torch.complex64))
    return {
        "about": "WirelessGPT, preset small: fills in what it does not see of a channel",
        "data": "65,536 users in UMi and UMa at 2.4 and 3.5 GHz, 1 to 28 m/s, 20 slots of 0.5 ms, "
        "16 antenna pairs, 16 subcarriers (scenarios/train/channels-urban.yaml)",
        "seed": training["seed"],
        "steps": making["steps"],
        "batch": training.get("batch_size", 64),
        "minutes": making["minutes"],
        "machine": arguments.machine,
        "multiply_adds": counter.get_total_flops() // 2,
        "multiply_adds_of": list(shape),
        "command": "semsim train scenarios/train/wirelessgpt-small.yaml",
        "training": training,
        "stored": f"float16; no mean NMSE moved by more than {max(move, 0.001):.3f} dB",
        "measured": {
            "on": f"{arguments.drops} UMi drops nobody trained on, 40 to 100 km/h: slots 17 to 20 "
            "from 1 to 16",
            "metric": "NMSE in dB of the mean over drops, by SNR of what is seen",
            "by_snr_db": table,
        },
        "channels": {
            "drops": FEW, "seed": SEED, "snr_db": 20.0, "nmse_db": round(few(half), 3),
            "sionna": sionna_version(),
        },
    }  # fmt: skip


def main() -> None:
    """Write weights and card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", default="wirelessgpt-small")
    parser.add_argument("--machine", required=True, help="on which it was trained, in words")
    parser.add_argument("--drops", type=int, default=512)
    parser.add_argument("--out", type=Path, default=zoo.WEIGHTS)
    arguments = parser.parse_args()
    model = encoder_of(str(arguments.weights), "small").eval()
    card = facts(arguments, model)
    path = zoo.export_parts(
        arguments.out / f"{arguments.name}.safetensors", {"network": model.half()}, card
    )
    print(path, json.dumps(card["measured"]["by_snr_db"], indent=1), sep="\n")


if __name__ == "__main__":
    main()
