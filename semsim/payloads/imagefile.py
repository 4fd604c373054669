"""One image file to 8-bit RGB: depth scaled, transparency shown on white, camera turned upright.

What Pillow would do in silence is done here aloud: it cuts 16-bit colours to their high byte, drops
transparency (and with it sends colours that nobody sees) and leaves photos lying on their side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semsim.files.incoming import check_regular, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".ppm", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "PPM", "TIFF")
#: the content decides, not the name: what else Pillow knows is refused (EPS starts Ghostscript)
DIM = 4095  #: a 16-bit image that stays below is one of 10 or 12 bits that nobody scaled
_ORIENTATION, _BITS, _PLANES = 0x0112, 0x0102, 0x011C  # tags of EXIF and TIFF
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def open_image(path: Path) -> Image:
    """Read an image file as RGB of 8 bits per value.

    Values of 16 bits are scaled and rounded, transparency is laid over white, and the orientation
    that a camera noted is applied.

    Raises:
        ValueError: the file is damaged, no image of a known format, or has pixels of another kind.
    """
    with _opened(path) as image:
        values = _sixteen_bits(image)
        return _flat(image if values is None else _eight_bits(values, image))


def look(path: Path) -> tuple[int, int]:
    """Return width and height from a file's header; ValueError where it cannot be an image."""
    with _opened(path) as image:
        lying = image.format != "TIFF"  # whose size Pillow gives as it will stand
        turned = lying and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def read_grey(path: Path) -> NDArray[Any]:
    """Return a grey image of 8 or 16 bits, or the luma of a colour one, [H, W] in [0, 1]."""
    import numpy as np

    with _opened(path) as image:
        values = _sixteen_bits(image)
        if values is not None and values.shape[2] == 1:
            return values[:, :, 0].astype(np.float32) / 65535
    return np.asarray(open_image(path).convert("L"), dtype=np.float32) / 255


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """Open a file whose pixels have a known white; all that goes wrong within is one sentence."""
    from PIL import Image

    check_regular(path, "an image file")
    cure = "convert it to PNG of 8 or 16 bits per value, or remove the file"
    with reading(path, "an image", cure), Image.open(path, formats=FORMATS) as image:
        _check_kind(image)
        yield image


def _check_kind(image: ImageFile) -> None:
    """Refuse pixels without a known white, and layouts that Pillow misreads."""
    grey_ppm = image.format == "PPM" and image.mode == "I"  # scaled to 16 bits by Pillow
    if image.mode in ("F", "I") and not grey_ppm:
        raise ValueError(f"{image.mode!r} pixels of 32 bits, whose white is not known")
    if image.mode in ("LAB", "HSV"):
        raise ValueError(f"{image.mode} pixels")
    tags = getattr(image, "tag_v2", {})
    if max(tags.get(_BITS, (8,))) > 8 and not (
        image.mode.startswith("I;16") or (";16" in _layout(image) and tags.get(_PLANES, 1) == 1)
    ):
        raise ValueError("more than 8 bits per value in a TIFF of separate planes")
    if ";16" in _layout(image) and _layout(image)[:-1] not in _DEEP:
        raise ValueError(f"{_layout(image)} pixels")


_DEEP = ("I;16", "RGB;16", "RGBX;16", "RGBA;16", "LA;16", "I;1")  # less the byte order


def _sixteen_bits(image: ImageFile) -> NDArray[Any] | None:
    """Return the values of a 16-bit image exactly, [H, W, C]; None for one of 8 bits.

    Pillow knows no 16-bit colours and keeps one of each value's two bytes. Which one follows from
    the byte order that it is told, so the same file read in both orders gives both.
    """
    import numpy as np
    from PIL import Image

    layout = _layout(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)[:, :, None]
    elif ";16" not in layout:
        return None
    elif layout == "LA;16B":  # as two bytes of L and two of A it is an RGBA image of 8 bits
        pixels = _read_as(image, "LA;16B", "RGBA")
        values = pixels[:, :, ::2] << 8 | pixels[:, :, 1::2]
    else:
        with Image.open(image.filename, formats=FORMATS) as again:
            low = _read_as(again, f";16{layout[-1]}", f";16{_OTHER_BYTE[layout[-1]]}")
        values = np.asarray(image).astype(np.uint16) << 8 | low
    if 0 < values.max() <= DIM and image.format != "PPM":  # whose header says what white is
        raise ValueError(
            f"16-bit values of at most {values.max()} where white is 65535, as 10- or 12-bit "
            f"pictures have that were not scaled: multiply them by {65535 // values.max()}"
        )
    return values


def _layout(image: ImageFile) -> str:
    """Return how the file's bytes make pixels, Pillow's rawmode; empty where it does not say."""
    args = image.tile[0].args if getattr(image, "tile", None) else ""
    return str(args if isinstance(args, str) else (args or ("",))[0])


def _read_as(image: ImageFile, old: str, new: str) -> NDArray[Any]:
    """Decode an image whose bytes are said to be laid out in another way."""
    import numpy as np

    for number, tile in enumerate(image.tile):
        args: Any = tile.args
        if isinstance(args, str):
            args = args.replace(old, new)
        else:
            args = (args[0].replace(old, new), *args[1:])
        image.tile[number] = tile._replace(args=args)
    return np.asarray(image).astype(np.uint16)


def _eight_bits(values: NDArray[Any], image: ImageFile) -> Image:
    """Return 16-bit values [H, W, C] as an 8-bit image that turns as the file does."""
    import numpy as np
    from PIL import Image as PillowImage

    scaled = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if (key := image.info.get("transparency")) is not None:  # the one colour that is not seen
        seen = (values != np.asarray(key, np.uint16)).any(axis=2, keepdims=True)
        grey = scaled if scaled.shape[2] == 3 else scaled.repeat(3, axis=2)
        scaled = np.concatenate([grey, np.where(seen, 255, 0).astype(np.uint8)], axis=2)
    pixels = PillowImage.fromarray(scaled[:, :, 0] if scaled.shape[2] == 1 else scaled)
    pixels.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    return pixels


def _flat(image: Image) -> Image:
    """Return the image upright, without transparency, as RGB."""
    from PIL import Image as PillowImage
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = PillowImage.new("RGBA", image.size, (255, 255, 255, 255))
    return PillowImage.alpha_composite(white, image).convert("RGB")
