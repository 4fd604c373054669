"""Image codecs that ship with Pillow and pillow-heif, on one scale of quality steps each.

| codec    | stream                    | settings, good and quick at 0.65 bit per pixel        |
|----------|---------------------------|-------------------------------------------------------|
| hevc     | HEVC intra (x265)         | 4:4:4, for PSNR; between two QPs, chroma QP offsets   |
| avif     | AV1 still picture (aom)   | 4:4:4, for PSNR, speed 7                              |
| webp     | lossy WebP                | method 4, half steps of quality                       |
| jpeg2000 | raw codestream (OpenJPEG) | 9/7 wavelet, colour transform, rates 2 % apart        |
| jpeg     | JPEG, the shortest of 3   | 4:2:0; baseline, optimised tables, progressive        |

HEVC intra is what BPG holds. x265 runs at its preset ``veryfast``; slower ones code a little
better at about twice the time. The file format, HEIF, spends some 380 bytes on boxes that depend on
the size and the chroma offsets alone, AVIF some 280, JPEG up to 624, JPEG 2000 up to 157, WebP 27.
With ``headers="minimal"`` they stay at home (:mod:`semsim.codecs.containers`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from semsim.codecs.containers import Container, IsoMedia, Jpeg, Jpeg2000, Save, Webp, Whole
from semsim.metrics.image import ROUNDING_MSE

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
        container: what of a file does not have to travel.
        headers: "minimal" where streams are charged, "file" where whole files are: "jpeg" then
            writes the shortest file, not that of the shortest stream.
    """

    name: str
    steps: int
    settings: str
    save: Save
    container: Container
    headers: Headers

    def __reduce__(self) -> tuple[Callable[..., ImageCodec], tuple[str, Headers]]:
        """Travel to another process by name."""
        return image_codec, (self.name, self.headers)

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
        return self.container.strip(file)

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Return the file again, from its stream, the step and the image's size."""
        return self.container.rebuild(stream, step, height, width)

    def charged(self, stream_bytes: int, file_bytes: int) -> int:
        """Return what an image costs: its stream and a 5-byte header, or its whole file, bytes."""
        return file_bytes if self.headers == "file" else stream_bytes + MINIMAL_HEADER_BYTES


@cache
def image_codec(name: str, headers: Headers = "minimal") -> ImageCodec:
    """Return a codec by name; ValueError names those there are or what is missing to use one."""
    if name not in _MAKERS:
        raise ValueError(f"no codec {name!r}; there are {', '.join(_MAKERS)}")
    if headers not in ("minimal", "file"):
        raise ValueError(f"headers is minimal or file, got {headers!r}")
    codec = _MAKERS[name](headers)
    if headers == "minimal":
        return codec
    return replace(codec, container=Whole(), settings=f"{codec.settings}, whole files")


def psnr(image: Pixels, decoded: Pixels) -> float:
    """Return the PSNR of 8-bit images, dB; infinite where they are equal."""
    return psnr_of_mse(mean_squared_error(image, decoded))


def psnr_of_mse(mse: float) -> float:
    """Return the PSNR of a mean squared error on the 8-bit scale, dB."""
    return float(10 * np.log10(255.0**2 / mse)) if mse > 0 else float("inf")


def measured_psnr(mse: float) -> float:
    """Return the PSNR that metrics make of it, dB: an exact image counts as one that was rounded.

    So no exactness beyond what is measured is worth a risk.
    """
    return psnr_of_mse(max(mse, ROUNDING_MSE))


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


def _pillow(name: str, options: Callable[[int], dict]) -> tuple[str, Save]:
    """Return name and version of a format that Pillow itself writes, and what writes it."""
    from PIL import features

    feature = {"jpeg": "jpg", "jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}[name]
    if not features.check(feature):
        raise ValueError(f"codec {name!r} needs a Pillow built with {feature}; this one is not")

    def save(image: Image.Image, step: int) -> bytes:
        file = io.BytesIO()
        image.save(file, format=name.upper(), **options(step))
        return file.getvalue()

    return f"{name} {features.version(feature)}", save


def _jpeg(headers: Headers) -> ImageCodec:
    """Make JPEG; all three files of a step hold the same coefficients, so the same picture."""
    from PIL import features

    tables: tuple[dict, ...] = ({}, {"optimize": True}, {"optimize": True, "progressive": True})

    def saves(options: dict) -> tuple[str, Save]:
        return _pillow("jpeg", lambda step: {"quality": step + 1, "subsampling": 2, **options})

    made = [saves(options) for options in tables]
    container = Jpeg(made[0][1])
    length = len if headers == "file" else lambda file: len(container.strip(file))

    def save(image: Image.Image, step: int) -> bytes:
        return min((write(image, step) for _, write in made), key=length)

    # what is rebuilt has the tables of the encoder that is at work: its library is in the key
    library = features.version("libjpeg_turbo"), features.check("mozjpeg")
    settings = f"{made[0][0]} {library} 4:2:0 shortest {headers} of {tables}"
    return ImageCodec("jpeg", 95, settings, save, container, headers)


def _jpeg2000(headers: Headers) -> ImageCodec:
    fixed = {"quality_mode": "rates", "irreversible": True, "mct": 1, "no_jp2": True}
    version, save = _pillow(
        "jpeg2000", lambda step: {"quality_layers": [2000 / 1.02**step], **fixed}
    )
    settings = f"{version} {fixed} 2000 / 1.02^step, packets"
    return ImageCodec("jpeg2000", 345, settings, save, Jpeg2000(save), headers)


def _webp(headers: Headers) -> ImageCodec:
    fixed = {"method": 4}
    version, save = _pillow("webp", lambda step: {"quality": step / 2, **fixed})
    settings = f"{version} {fixed} step / 2, frame"
    return ImageCodec("webp", 201, settings, save, Webp(), headers)


def _avif(headers: Headers) -> ImageCodec:
    fixed = {"subsampling": "4:4:4", "speed": 7, "advanced": {"tune": "psnr"}}
    version, save = _pillow("avif", lambda step: {"quality": step, **fixed})
    return ImageCodec("avif", 101, f"{version} {fixed}", save, IsoMedia(save, 1, 0), headers)


def _hevc(headers: Headers) -> ImageCodec:
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
    container = IsoMedia(save, kinds=len(_CHROMA_QP), prefix=4)
    return ImageCodec("hevc", 51 * len(_CHROMA_QP), settings, save, container, headers)


_MAKERS: dict[str, Callable[[Headers], ImageCodec]] = {
    "jpeg": _jpeg,
    "jpeg2000": _jpeg2000,
    "webp": _webp,
    "avif": _avif,
    "hevc": _hevc,
}
