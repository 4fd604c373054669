"""Your own transmitter and receiver over two channels: trained a little, swept and plotted."""

import sys

import pandas as pd
import torch
from torch import Tensor, nn

from channels import AWGN, CSI, Rayleigh
from semsim import Link, Receiver, Transmitter, evaluate, stream
from semsim.metrics.image import PSNR, SSIM
from semsim.payloads.synthetic import Synthetic
from semsim.plots.drawing import plot_rows

QUICK = "--quick" in sys.argv
SYMBOLS = 6  # complex symbols per patch of 4x4 pixels: CBR = 6 / 48 = 1/8


class PatchTransmitter(Transmitter):
    uses_csi = False  # x does not depend on the channel, so a sweep encodes once

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 2 * SYMBOLS, kernel_size=4, stride=4)

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return SYMBOLS * (shape[1] // 4) * (shape[2] // 4)

    def forward(self, source: Tensor, csi: CSI, generator=None) -> Tensor:
        i, q = self.project(source - 0.5).flatten(2).chunk(2, dim=1)
        x = torch.complex(i, q).flatten(1).unsqueeze(1)
        return x / x.abs().square().mean(dim=(1, 2), keepdim=True).sqrt()


class PatchReceiver(Receiver):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(2 * SYMBOLS, 3, kernel_size=4, stride=4)

    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], generator=None) -> Tensor:
        y = y.view(len(y), SYMBOLS, shape[1] // 4, shape[2] // 4)
        return self.expand(torch.cat([y.real, y.imag], dim=1)) + 0.5


torch.manual_seed(0)
link = Link(PatchTransmitter(), AWGN(), PatchReceiver())
adam = torch.optim.Adam(link.parameters(), lr=3e-3)
images = torch.stack([source for source, _ in Synthetic(256, seed=1)])
for step in range(50 if QUICK else 1000):
    batch = images[torch.randint(256, (32,), generator=stream(0, "batch", step))]
    adam.zero_grad()
    nn.functional.mse_loss(link(batch, 10.0, stream(0, "train", step)), batch).backward()
    adam.step()
rows = []
for name, channel in {"AWGN": AWGN(), "Rayleigh": Rayleigh()}.items():
    link.channel, about = channel, {"transmitter": "linear patches", "channel": name}
    found = evaluate(link, Synthetic(100), snr_db=[0, 5, 10, 15, 20], metrics=[PSNR(), SSIM()])
    rows += [about | row for row in found]
plot_rows(table := pd.DataFrame(rows), "sweep_plot.png")
print(table.pivot_table("value", "snr_db", ["metric", "channel"]).round(3))
