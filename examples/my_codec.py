"""A codec of one's own beside HEVC with LDPC over fading; my_codec.yaml trains it."""

import torch
from torch import Tensor, nn

from channels import CSI, Rayleigh
from semsim import Link, Receiver, Stop, Transmitter, evaluate
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.metrics.image import PSNR
from semsim.payloads.photos import Photos
from semsim.phy.power import unit_power

STRIDE, SYMBOLS = 4, 3  # complex symbols of a patch of 4 x 4 pixels: CBR = 3 / 48 = 1/16


class MyTransmitter(Transmitter):
    uses_csi = False  # the symbols depend on the source alone: a sweep encodes once

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 5, STRIDE, padding=2), nn.PReLU(),
            nn.Conv2d(width, 2 * SYMBOLS, 3, padding=1),
        )  # fmt: skip

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return SYMBOLS * (shape[1] // STRIDE) * (shape[2] // STRIDE)

    def forward(self, source: Tensor, csi: CSI, generator=None) -> Tensor:
        real, imag = self.net(source).flatten(1).chunk(2, dim=1)
        return unit_power(torch.complex(real, imag).unsqueeze(1))  # [B, 1, K]


class MyReceiver(Receiver):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2 * SYMBOLS, width, 3, padding=1), nn.PReLU(),
            nn.Conv2d(width, 3 * STRIDE**2, 3, padding=1), nn.PixelShuffle(STRIDE),
        )  # fmt: skip

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], generator=None) -> Tensor:
        grid = (shape[1] // STRIDE, shape[2] // STRIDE)
        return self.net(torch.cat([y.real, y.imag], dim=2).view(len(y), -1, *grid))


if __name__ == "__main__":
    channel = Rayleigh(coherence="block")
    links = {
        "mine, untrained": Link(MyTransmitter(), channel, MyReceiver()),
        "HEVC + LDPC": SeparateLink(SeparateTransmitter(cbr="1/16", codec="hevc"), channel),
    }
    for name, link in links.items():
        for row in evaluate(
            link, Photos(crop=128), snr_db=[1, 13], metrics=[PSNR()], stop=Stop(max_items=10)
        ):
            print(f"{name}, {row['snr_db']:g} dB: {row['value']:.2f} dB at CBR {row['cbr']:.4f}")
