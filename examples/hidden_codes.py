"""Hide a message in a picture, take a photo of it, send the photo, find and read the message."""

import sys

import torch
from torch import Tensor

from channels import AWGN
from semsim import Link, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.nn.geometry import order_corners, quad_iou, square
from semsim.payloads.photos import Photos
from semsim.vision import dbdh

SNRS_DB = [10.0, 30.0] if "--quick" in sys.argv else [0.0, 10.0, 20.0, 30.0]
TEXT = "Hi"  # 12 bits: two letters of a 64-letter alphabet
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ."


def to_bits(text: str) -> Tensor:
    numbers = [LETTERS.index(letter) for letter in text]
    return torch.tensor([[n >> (5 - i) & 1 for n in numbers for i in range(6)]]).float()


def to_text(bits: Tensor) -> str:
    halves = bits[0, :12].long().view(2, 6) @ torch.tensor([32, 16, 8, 4, 2, 1])
    return "".join(LETTERS[n] for n in halves.tolist())


cover, background = (Photos([name], resize=128, crop=128)[0][0][None] for name in
                     ("chelsea", "coffee"))  # fmt: skip
box = torch.tensor([34.0, 40.0]) + square(64, cover)[None]  # where the message hides
hidden, finder = dbdh.make_embedder("pimog"), dbdh.Localise().eval()
container = dbdh.embed(hidden, cover, box, dbdh.encode_message(to_bits(TEXT)), strength=5.0)
print(f"the message changes the picture by {255 * (container - cover).abs().mean():.2f} of 255")
photo, corners = dbdh.shoot(container, box, background, "screen", stream(3, "camera"))
link = Link(AnalogTransmitter("1/2"), AWGN(), AnalogReceiver("1/2"))
for snr_db in [None, *SNRS_DB]:
    with torch.no_grad():
        seen = photo if snr_db is None else link(photo, snr_db, stream(1, "noise"))
        output = finder(seen)
    overlap = float(quad_iou(output[:, :8].view(1, 4, 2), order_corners(corners)))
    message = to_text(output[:, 38:50]) if output[0, -1] else "(check failed)"
    name = "no link" if snr_db is None else f"{snr_db:4.0f} dB"
    print(f"{name}: overlap {overlap:.3f}, message {message}")
