"""Metal artefacts of a jaw: simulated, bridged in the sinogram, and taken out by MARformer.

python examples/metal_artefacts.py [--quick]  # prints PSNRs, writes metal_artefacts.png
"""

import sys

import pandas as pd
import torch
from PIL import Image

from semsim import stream, zoo
from semsim.ct.phantoms import FIELD_CM, dental_metal, dental_phantom
from semsim.ct.scanner import Scanner

COUNT = 2 if "--quick" in sys.argv else 16
PIECES = {"Ti": 1, "Fe": 3, "Zr": 2, "Ag": 2}
SIZE, PIXEL_CM = 128, FIELD_CM / 128

network = zoo.build("marformer-t")["network"]
scanner = Scanner(SIZE, PIXEL_CM, views=180, photons=2e5)


def jaw(number: int, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Attenuation in 1/cm, and the share of each pixel that is metal."""
    generator = stream(0, "jaw", number)
    mu, teeth = dental_phantom(SIZE, PIXEL_CM, generator)
    return mu, dental_metal(SIZE, PIXEL_CM, teeth, pieces, generator)


def psnr(image: torch.Tensor, clean: torch.Tensor) -> float:
    """Mean PSNR of slices [N, S, S] in [0, 1], in dB."""
    return float(-10 * (image - clean).square().mean(dim=(1, 2)).log10().mean())


rows, strips = {}, []
for material, pieces in PIECES.items():
    jaws = [jaw(n, pieces) for n in range(COUNT)]
    mu, metal = (torch.stack(part) for part in zip(*jaws, strict=True))
    scan = scanner.scan(mu, metal, [material] * COUNT, stream(0, "noise", material))
    with torch.no_grad():
        cleaned = network(scan.corrupted[:, None])[:, 0].clamp(0, 1)
    ways = {"corrupted": scan.corrupted, "LI": scan.interpolated, "MARformer": cleaned}
    rows[f"{material} x {pieces}"] = {way: psnr(x, scan.clean) for way, x in ways.items()}
    strips.append(torch.cat([x[0] for x in (*ways.values(), scan.clean)], dim=1))
print(pd.DataFrame(rows).T.round(1).to_string())
picture = (torch.cat(strips) * 255).round().byte()
Image.fromarray(picture.numpy()).save("metal_artefacts.png")
