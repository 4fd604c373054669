"""What a receiver may do to a face before it verifies it."""

from __future__ import annotations

import io
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Defence = Literal["none", "jpeg", "bit_depth", "denoise"]
DEFENCES = ("none", "jpeg", "bit_depth", "denoise")
QUALITY, BITS = 50, 3  #: of JPEG, and of each value


def defended(image: Tensor, defence: Defence) -> Tensor:
    """Return faces [B, 3, H, W] in [0, 1] after JPEG, fewer bits, or a median of 3 x 3 pixels."""
    if defence == "none":
        return image
    image = image.clamp(0, 1)
    if defence == "bit_depth":
        levels = 2**BITS - 1
        return (levels * image).round() / levels
    if defence == "denoise":
        patches = F.unfold(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3)
        columns = patches.view(len(image), 3, 9, -1)
        return columns.median(dim=2).values.view_as(image)
    return torch.stack([jpeg(one, QUALITY) for one in image.cpu()]).to(image.device)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Return an image [3, H, W] in [0, 1] after JPEG."""
    import numpy as np
    from PIL import Image

    pixels = (255 * image).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    back = np.array(Image.open(buffer).convert("RGB"))
    return torch.from_numpy(back).permute(2, 0, 1).float() / 255
