"""What it costs to let TensorFlow compute inside a torch link: DLPack road against native torch.

    python benchmarks/keras_bridge.py [--repeats 15]

The same encoder and decoder, weights included, on three roads: torch, Keras on TensorFlow by
DLPack, and, in a process of its own, Keras on torch. ``crossing`` is the road without a network: an
identity in TensorFlow, so what remains is DLPack, the tape and the call. Ratios of interleaved runs
with 95 % intervals, one thread in each framework, noise images, since their content does not change
the cost. Writes benchmarks/results/keras_bridge.{csv,md}.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import pandas
import torch
from timing import interleaved, machine, ratio
from torch import Tensor, nn

from channels import CSI
from semsim.codecs.keras.codec import KerasReceiver, KerasTransmitter
from semsim.codecs.keras.convert import convert
from semsim.codecs.keras.loading import keras_model
from semsim.codecs.keras.networks import TensorFlowNetwork

RESULTS = Path(__file__).parent / "results"
BUILDERS = "semsim.codecs.keras.models:"
CODECS = {
    "DeepJSCC 2019": ("bourtsoulatze2019", {"channels": 8}, (1, 4, 16, 64)),
    "ADJSCC, width 64": ("adjscc", {"channels": 8, "width": 64}, (1, 4, 16)),
}
SIZE = 32


class Both(nn.Module):
    """Transmitter and receiver with a little noise between."""

    def __init__(self, transmitter: nn.Module, receiver: nn.Module) -> None:
        super().__init__()
        self.transmitter, self.receiver = transmitter, receiver

    def forward(self, image: Tensor) -> Tensor:
        """Return the reconstruction."""
        csi = CSI(None, torch.full((len(image),), 0.1))
        return self.receiver(self.transmitter(image, csi), csi, tuple(image.shape[1:]))


def pair(codec: str, backend: str) -> dict[str, Both]:
    """Return the codec in torch and in Keras on this backend, with the same weights."""
    name, arguments, _ = CODECS[codec]
    builder = {"model": BUILDERS + name, "arguments": arguments, "backend": backend}
    torch.manual_seed(0)
    models = [keras_model(end=end, **builder) for end in ("encoder", "decoder")]
    ours = Both(*convert(*models)[:2])
    torch.manual_seed(0)
    made = [cls(pairing="channels", **builder) for cls in (KerasTransmitter, KerasReceiver)]
    theirs = Both(*made)
    image = torch.rand(2, 3, SIZE, SIZE)
    worst = (infer(ours, image) - infer(theirs, image)).abs().max()
    if worst > 1e-4:
        raise SystemExit(f"{codec}: not the same network, off by {worst:.2g}")
    return {"torch": ours, f"Keras on {backend}": theirs}


def infer(net: nn.Module, image: Tensor) -> Tensor:
    """One forward pass of both ends."""
    with torch.inference_mode():
        return net.eval()(image)


def train_step(net: nn.Module, image: Tensor, adam: torch.optim.Optimizer) -> None:
    """Forward, backward and optimiser step of both ends."""
    adam.zero_grad()
    (net.train()(image) - image).square().mean().backward()
    adam.step()


def compare(codec: str, backend: str, repeats: int) -> list[dict[str, object]]:
    """Ratios of one Keras road to native torch."""
    nets, rows = pair(codec, backend), []
    other = f"Keras on {backend}"
    for batch in CODECS[codec][2]:
        image = torch.rand(batch, 3, SIZE, SIZE)
        adams = {n: torch.optim.Adam(net.parameters(), lr=1e-5) for n, net in nets.items()}
        works = {
            "forward": {n: partial(infer, net, image) for n, net in nets.items()},
            "training step": {
                n: partial(train_step, net, image, adams[n]) for n, net in nets.items()
            },
        }
        for what, work in works.items():
            seconds = interleaved(work, repeats, warm_up=3)
            median, low, high = ratio(seconds[other], seconds["torch"])
            rows.append({"codec": codec, "batch": batch, "what": what, "ratio": f"{other} / torch",
                         "median": median, "low": low, "high": high, "n": repeats})  # fmt: skip
    return rows


def crossing(repeats: int) -> list[dict[str, object]]:
    """The road alone, relative to the forward pass of the 2019 network in torch."""
    nets = pair("DeepJSCC 2019", "tensorflow")
    road = TensorFlowNetwork(
        lambda inputs, training: inputs[0], ([], []), trainable=False, shape=None, num_inputs=1
    )
    rows = []
    for batch in CODECS["DeepJSCC 2019"][2]:
        image = torch.rand(batch, 3, SIZE, SIZE)
        learned = image.clone().requires_grad_()
        adam = torch.optim.Adam(nets["torch"].parameters(), lr=1e-5)
        works = {
            "forward": {
                "crossing": lambda image=image: (road(image), road(image)),
                "torch": partial(infer, nets["torch"], image),
            },
            "training step": {
                "crossing": lambda x=learned: road(road(x)).sum().backward(),
                "torch": partial(train_step, nets["torch"], image, adam),
            },
        }
        for what, work in works.items():
            seconds = interleaved(work, repeats, warm_up=3)
            median, low, high = ratio(seconds["crossing"], seconds["torch"])
            rows.append({"codec": "DeepJSCC 2019", "batch": batch, "what": what,
                         "ratio": "two crossings / torch", "median": median, "low": low,
                         "high": high, "n": repeats})  # fmt: skip
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--backend", choices=("tensorflow", "torch"), default="tensorflow")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    backend, repeats = arguments.backend, arguments.repeats
    rows = [row for codec in CODECS for row in compare(codec, backend, repeats)]
    if backend == "torch":
        pandas.DataFrame(rows).to_csv(arguments.out, index=False)
        return
    rows += crossing(repeats)
    part = RESULTS / "keras_bridge.part.csv"
    command = [sys.executable, __file__, "--backend", "torch", "--repeats", str(repeats)]
    subprocess.run([*command, "--out", str(part)], check=True)
    rows += pandas.read_csv(part).to_dict("records")
    part.unlink()
    lines = [machine(), "", f"| codec | {SIZE} px images | what | ratio | median | 95 % interval |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {r['codec']} | {r['batch']} | {r['what']} | {r['ratio']} | {r['median']:.2f} | "
        f"{r['low']:.2f} to {r['high']:.2f} |"
        for r in rows
    ]
    lines.append(f"\nMedians over {repeats} runs in turn.")
    pandas.DataFrame(rows).round(3).to_csv(RESULTS / "keras_bridge.csv", index=False)
    (RESULTS / "keras_bridge.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
