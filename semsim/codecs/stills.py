"""Between a link and an image codec: pixels, budgets in bits, what stands in for a lost image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from semsim.codecs.cbr import cbr_fraction
from semsim.codecs.image_codecs import (
    MINIMAL_HEADER_BYTES,
    CodecName,
    Headers,
    Pixels,
    image_codec,
    mean_squared_error,
    measured_psnr,
)
from semsim.codecs.rd_cache import Coded, RateDistortion
from semsim.files.disk import cache_folder
from semsim.hop import check_tensor
from semsim.ranges import check_range, clip

Fallback = Literal["mean", "grey"]
_COLOUR_BYTES = 3
T = TypeVar("T")
S = TypeVar("S")


class Stills:
    """One image codec within a budget of bits.

    Args:
        codec: image codec.
        headers: "minimal" charges the elementary stream and 5 bytes (quality step, length), from
            which the file is rebuilt exactly; "file" charges the whole file.
        fallback: what an undecodable image becomes: "mean", its mean colour, charged 3 bytes that
            are taken to arrive always, or "grey", mid-grey for nothing.
    """

    bytes_per_pixel = 50  #: beside tensors; hevc takes 40 and avif 46 for a pass there and back

    def __init__(self, codec: CodecName, headers: Headers, fallback: Fallback) -> None:
        if fallback not in ("mean", "grey"):
            raise ValueError(f"fallback is mean or grey, got {fallback!r}")
        self.codec = image_codec(codec, headers)
        self.headers = headers
        self.fallback = fallback

    def fit(self, image: Pixels, budget_bits: float) -> Coded | None:
        """Return the image at the best quality that the budget holds; None if it holds none."""
        budget_bytes = math.floor(budget_bits / 8)
        if self.fallback == "mean":
            budget_bytes -= _COLOUR_BYTES
        if budget_bytes <= 0:
            return None
        return self._rates().largest_fit(image, budget_bytes)

    def decode(self, coded: Coded, image: Pixels) -> Pixels:
        """Return the decoded image; ``image`` lends its size."""
        height, width = image.shape[:2]
        return self.codec.decode(self.codec.rebuild(coded.stream, coded.step, height, width))

    def lost(self, image: Pixels) -> Pixels:
        """Return what stands in for an image that did not arrive."""
        colour: np.ndarray | int = 128
        if self.fallback == "mean":
            colour = image.mean(axis=(0, 1)).round().astype(np.uint8)
        return np.full_like(image, colour)

    def lost_psnr(self, image: Pixels) -> float:
        """Return the PSNR of what stands in for a lost image as it is measured, dB."""
        return measured_psnr(mean_squared_error(image, self.lost(image)))

    def pack(self, coded: Coded, image: Pixels) -> bytes:
        """Return the bytes that travel."""
        if self.headers == "file":
            height, width = image.shape[:2]
            return self.codec.rebuild(coded.stream, coded.step, height, width)
        return coded.step.to_bytes(2, "big") + len(coded.stream).to_bytes(3, "big") + coded.stream

    def unpack(self, received: bytes, height: int, width: int) -> Pixels:
        """Return the image in received bytes; zeros may follow them."""
        if self.headers == "file":
            return self.codec.decode(received)
        step, length = int.from_bytes(received[:2], "big"), int.from_bytes(received[2:5], "big")
        stream = received[MINIMAL_HEADER_BYTES : MINIMAL_HEADER_BYTES + length]
        return self.codec.decode(self.codec.rebuild(stream, step, height, width))

    def _rates(self) -> RateDistortion:
        return _rates(self.codec.name, self.headers, cache_folder())


@cache
def _rates(codec: str, headers: Headers, folder: Path) -> RateDistortion:
    return RateDistortion(image_codec(codec, headers), folder)


def symbols_at(cbr: float | str | Fraction, shape: Sequence[int]) -> int:
    """Return K, the complex symbols that a CBR gives to a source of this shape without batch."""
    values = math.prod(shape)
    symbols = math.floor(cbr_fraction(cbr) * values)
    if symbols < 1:
        raise ValueError(f"cbr {cbr} leaves no symbol for {values} source values; raise it")
    return symbols


def pixels_of(source: Tensor) -> list[Pixels]:
    """Return images [B, 1 or 3, H, W] in [0, 1] as 8-bit pixels; grey is repeated."""
    check_tensor(source)
    if source.dim() != 4 or source.shape[1] not in (1, 3):
        raise ValueError(
            f"an image codec carries images of shape [B, 3, H, W] or [B, 1, H, W], "
            f"got {list(source.shape)}"
        )
    check_range(source, "the images sent")
    bytes_ = (clip(source.detach()) * 255).round().to(torch.uint8).cpu()
    images = bytes_.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return list(images)


def sources_of(images: Sequence[Pixels], like: Tensor) -> Tensor:
    """Return pixels as a tensor in [0, 1] with the shape, type and device of ``like``."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(like) / 255
    return stacked if like.shape[1] == 3 else stacked.mean(dim=1, keepdim=True)


def each(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Call a function on each item, in as many threads as torch has: codecs leave Python's lock.

    So a worker among many keeps to its share of the machine.
    """
    if (threads := min(torch.get_num_threads(), len(items))) < 2:
        return list(map(function, items))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
