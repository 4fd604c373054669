"""Image codecs that ship with Pillow and pillow-heif, on one scale of quality steps each.

| codec    | stream                    | settings, best of those tried at 0.65 bit per pixel   |
|----------|---------------------------|-------------------------------------------------------|
| hevc     | HEVC intra (x265)         | 4:4:4, for PSNR; between two QPs, chroma QP offsets   |
| avif     | AV1 still picture (aom)   | 4:4:4, for PSNR, speed 7                              |
| webp     | lossy WebP                | method 4, half steps of quality                       |
| jpeg2000 | raw codestream (OpenJPEG) | 9/7 wavelet, colour transform, rates 2 % apart        |
| jpeg     | JPEG                      | progressive, optimised Huffman tables, 4:2:0          |

HEVC intra is what BPG holds. Its file format, HEIF, spends some 380 bytes on boxes that depend on
the size and the chroma offsets alone, AVIF some 280. With ``headers="minimal"`` they stay at home:
the receiver encodes a grey image of that size and puts the stream into its container.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CodecName = Literal["jpeg", "jpeg2000", "webp", "avif", "hevc"]
Headers = Literal["minimal", "file"]
Pixels = NDArray[np.uint8]  #: [H, W, 3]

_ROWS = 64  #: of an image in float64 at once
MINIMAL_HEADER_BYTES = 5  #: quality step (2) and length of the stream (3); the shape is known
# (Cb, Cr) offsets to the luma QP, by rising size. Neither may be (0, 0): x265 then takes (6, 6).
_CHROMA_QP = ((2, 2), (1, 2), (1, 1), (-1, 1), (-1, -1), (-2, -1), (-2, -2))


@dataclass(frozen=True)
class ImageCodec:
    """One codec with fixed settings and a scale of quality.

    Args:
        name: as in a scenario.
        steps: quality steps 0 to steps - 1, by rising quality.
        settings: all that decides the bytes of a step, versions included; a cache key.
        save: writes a Pillow image at a step.
        containers: how many different ISO base media containers files of one size have, step s that
            of step s mod containers; 0 where the stream is the file.
    """

    name: str
    steps: int
    settings: str
    save: Callable[[Image.Image, int], bytes]
    containers: int

    def __reduce__(self) -> tuple[Callable[[CodecName], ImageCodec], tuple[str]]:
        """Travel to another process by name."""
        return image_codec, (self.name,)

    def encode(self, image: Pixels, step: int) -> bytes:
        """Return the file of an image [H, W, 3] at a quality step."""
        from PIL import Image

        _check_pixels(image)
        if not 0 <= step < self.steps:
            raise ValueError(f"{self.name} has steps 0 to {self.steps - 1}, got {step}")
        return self.save(Image.fromarray(image), step)

    def decode(self, file: bytes) -> Pixels:
        """Return the image of a file, [H, W, 3]."""
        from PIL import Image

        if self.name == "hevc":
            import pillow_heif

            image = pillow_heif.open_heif(io.BytesIO(file)).to_pillow()
        else:
            image = Image.open(io.BytesIO(file))
        return np.asarray(image.convert("RGB"))

    def strip(self, file: bytes) -> bytes:
        """Return the elementary stream of a file."""
        if not self.containers:
            return file
        start = _media_data(file)
        return file[start + _prefix(self.name) :]

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Return the file again, from its stream, the step and the image's size."""
        if not self.containers:
            return stream
        template = _template(self.name, step % self.containers, height, width)
        start = _media_data(template)
        old = len(template) - start
        if _prefix(self.name):
            stream = len(stream).to_bytes(4, "big") + stream
        head = bytearray(template[:start])
        head[start - 8 : start - 4] = (len(stream) + 8).to_bytes(4, "big")
        location = head.index(b"iloc")
        extent = head.index(old.to_bytes(4, "big"), location)
        head[extent : extent + 4] = len(stream).to_bytes(4, "big")
        return bytes(head) + stream


def charged_bytes(stream_bytes: int, file_bytes: int, headers: Headers) -> int:
    """Return what an image costs: its stream and a 5-byte header, or its whole file."""
    return file_bytes if headers == "file" else stream_bytes + MINIMAL_HEADER_BYTES


@cache
def image_codec(name: str) -> ImageCodec:
    """Return a codec by name; ValueError names those there are or what is missing to use one."""
    if name not in _MAKERS:
        raise ValueError(f"no codec {name!r}; there are {', '.join(_MAKERS)}")
    return _MAKERS[name]()


def psnr(image: Pixels, decoded: Pixels) -> float:
    """Return the PSNR of 8-bit images, dB; infinite where they are equal."""
    return psnr_of_mse(mean_squared_error(image, decoded))


def psnr_of_mse(mse: float) -> float:
    """Return the PSNR of a mean squared error on the 8-bit scale, dB."""
    return float(10 * np.log10(255.0**2 / mse)) if mse > 0 else float("inf")


def mean_squared_error(image: Pixels, decoded: Pixels) -> float:
    """Return the mean squared error of 8-bit images, on the 8-bit scale."""
    total = 0.0  # sums of whole numbers below 2^53 are exact, so parts give the same digits
    for start in range(0, len(image), _ROWS):
        part = slice(start, start + _ROWS)
        total += float(np.sum((image[part].astype(np.float64) - decoded[part]) ** 2))
    return total / image.size


def _check_pixels(image: Pixels) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"a codec encodes uint8 pixels of shape [H, W, 3], got {image.dtype} "
            f"{list(image.shape)}; repeat a grey channel three times"
        )


def _media_data(file: bytes) -> int:
    """Return where the payload of the last box, mdat, starts."""
    at = 0
    while at < len(file):
        size, kind = int.from_bytes(file[at : at + 4], "big"), file[at + 4 : at + 8]
        if kind == b"mdat" and at + size == len(file):
            return at + 8
        if size < 8:
            break
        at += size
    raise ValueError("the encoder wrote a container whose last box is not mdat; use headers 'file'")


def _prefix(name: str) -> int:
    """Return the bytes of the length field before the only NAL unit of an HEVC still picture."""
    return 4 if name == "hevc" else 0


@cache
def _template(name: str, step: int, height: int, width: int) -> bytes:
    grey = np.full((height, width, 3), 128, np.uint8)
    return image_codec(name).encode(grey, step)


def _pillow(name: str, settings: str, steps: int, options: Callable[[int], dict]) -> ImageCodec:
    """Make a codec of a format that Pillow itself writes."""
    from PIL import features

    feature = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}[name]
    if not features.check(feature):
        raise ValueError(f"codec {name!r} needs a Pillow built with {feature}; this one is not")
    version = features.version(feature)

    def save(image: Image.Image, step: int) -> bytes:
        file = io.BytesIO()
        image.save(file, format=name.upper(), **options(step))
        return file.getvalue()

    return ImageCodec(name, steps, f"{name} {version} {settings}", save, int(name == "avif"))


def _jpeg() -> ImageCodec:
    fixed = {"subsampling": 2, "optimize": True, "progressive": True}
    return _pillow("jpeg", str(fixed), 95, lambda step: {"quality": step + 1, **fixed})


def _jpeg2000() -> ImageCodec:
    fixed = {"quality_mode": "rates", "irreversible": True, "mct": 1, "no_jp2": True}
    return _pillow(
        "jpeg2000",
        f"{fixed} 2000 / 1.02^step",
        345,
        lambda step: {"quality_layers": [2000 / 1.02**step], **fixed},
    )


def _webp() -> ImageCodec:
    fixed = {"method": 4}
    return _pillow("webp", f"{fixed} step / 2", 201, lambda step: {"quality": step / 2, **fixed})


def _avif() -> ImageCodec:
    fixed = {"subsampling": "4:4:4", "speed": 7, "advanced": {"tune": "psnr"}}
    return _pillow("avif", str(fixed), 101, lambda step: {"quality": step, **fixed})


def _hevc() -> ImageCodec:
    import pillow_heif

    fixed = {"preset": "veryfast", "tune": "psnr"}
    x265 = pillow_heif.libheif_info()["encoders"].get("x265")
    if x265 is None:
        raise ValueError("codec 'hevc' needs a pillow-heif built with x265; this one is not")

    def save(image: Image.Image, step: int) -> bytes:
        level, offsets = divmod(step, len(_CHROMA_QP))
        blue, red = _CHROMA_QP[offsets]
        chroma = {"x265:cbqpoffs": str(blue), "x265:crqpoffs": str(red)}
        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(
            file, quality=2 * level, chroma=444, enc_params={**fixed, **chroma}
        )
        return file.getvalue()

    version = f"libheif {pillow_heif.libheif_version()} {x265}"
    settings = f"hevc {version} 4:4:4 {fixed} {_CHROMA_QP}"
    return ImageCodec("hevc", 51 * len(_CHROMA_QP), settings, save, len(_CHROMA_QP))


_MAKERS: dict[str, Callable[[], ImageCodec]] = {
    "jpeg": _jpeg,
    "jpeg2000": _jpeg2000,
    "webp": _webp,
    "avif": _avif,
    "hevc": _hevc,
}
