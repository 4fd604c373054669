"""A photo taken at night, brightened by NLHD before it is sent or after it has arrived.

python examples/lowlight.py [--quick]  # prints what each way gives, writes lowlight.png
"""

import sys

import pandas as pd
import torch
from PIL import Image

from channels import AWGN
from semsim import Link, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.metrics.base import Outcome
from semsim.metrics.image import TaskPSNR, TaskSSIM
from semsim.vision.nlhd import Enhance, FlatNoise, LowLight, MatchedPSNR, noise_level

QUICK = "--quick" in sys.argv
photos = LowLight(resize=256, crop=128 if QUICK else 256, darkness=(0.15, 0.15), count=2)
dark, bright = (torch.stack(part) for part in zip(*photos, strict=True))
enhance = Enhance(step=8 if QUICK else 4)

ends = zoo.pair("deepjscc-photo-1-16", DeepJSCCTransmitter, DeepJSCCReceiver)
link = Link(ends[0], AWGN(), ends[1])


@torch.no_grad()
def sent(source: torch.Tensor, snr_db: float = 10.0) -> torch.Tensor:
    return link(source, snr_db, stream(1, "noise")).clamp(0, 1)


enhanced = enhance.process(dark)
outputs = {
    "as it is": dark,
    "gamma": dark.pow(enhance.gamma),
    "NLHD": enhanced,
    "sent, NLHD": enhance.process(sent(dark)),
    "NLHD, sent": sent(enhanced),
    "reference": bright,
}
metrics = [TaskPSNR(), TaskSSIM(), MatchedPSNR(), FlatNoise()]
rows = {
    name: {m.name: float(m(Outcome(output, dark, bright)).mean()) for m in metrics}
    for name, output in outputs.items()
}
print(pd.DataFrame(rows).T.round(2).to_string())
sigma = noise_level(dark.amax(dim=1, keepdim=True)).overall
print(
    "noise of the dark photos, in units of the last bit:", (255 * sigma).round(decimals=2).tolist()
)
strips = [torch.cat([output[i] for output in outputs.values()], dim=2) for i in range(len(dark))]
picture = (torch.cat(strips, dim=1) * 255).round().byte().permute(1, 2, 0)
Image.fromarray(picture.numpy()).save("lowlight.png")
