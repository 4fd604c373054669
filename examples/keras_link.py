"""A Keras encoder and decoder in a torch link, and the same network in torch, trained alike.

python examples/keras_link.py [--quick]  # needs pip install "semsim-wireless[tensorflow]"

It prints the PSNR and leaves encoder.keras and decoder.keras.
"""

import sys

import pandas as pd
import torch
from torch import nn

from channels import AWGN
from semsim import Link, evaluate, stream
from semsim.codecs.keras.codec import KerasReceiver, KerasTransmitter
from semsim.codecs.keras.convert import convert
from semsim.codecs.keras.loading import keras_model
from semsim.metrics.image import PSNR
from semsim.payloads.synthetic import Synthetic

QUICK = "--quick" in sys.argv
torch.set_num_threads(1)  # TensorFlow then takes as many


def train(link: Link, images: torch.Tensor) -> None:
    """The same batches, noise and optimiser for TensorFlow's variables and for torch's."""
    adam = torch.optim.Adam(link.train().parameters(), lr=1e-3)
    for step in range(20 if QUICK else 1000):
        batch = images[torch.randint(len(images), (16,), generator=stream(0, "batch", step))]
        adam.zero_grad()
        nn.functional.mse_loss(link(batch, 10.0, stream(0, "noise", step)), batch).backward()
        adam.step()


torch.manual_seed(0)
builder = {"model": "semsim.codecs.keras.models:bourtsoulatze2019", "arguments": {"channels": 8}}
models = [keras_model(end=end, backend="tensorflow", **builder) for end in ("encoder", "decoder")]
for name, model in zip(("encoder", "decoder"), models, strict=True):
    model.save(f"{name}.keras")  # or the files of a codec that somebody else trained

keras = Link(
    KerasTransmitter(".", pairing="channels"), AWGN(), KerasReceiver(".", pairing="channels")
)
transmitter, receiver, checks = convert(*models)  # the same weights in deepjscc
print(f"the two differ by {max(check.error for check in checks):.0e} before they are trained")
images = torch.stack([source for source, _ in Synthetic(512, size=32, seed=1)])
rows = []
for name, link in {"Keras": keras, "torch": Link(transmitter, AWGN(), receiver)}.items():
    train(link, images)
    payload = Synthetic(10 if QUICK else 200, size=32, seed=2)
    found = evaluate(link, payload, snr_db=[0, 5, 10, 15, 20], metrics=[PSNR()])
    rows += [{"codec": name} | row for row in found]
print(pd.DataFrame(rows).pivot_table("value", "snr_db", "codec").round(2))
