"""What both ends know of an image file before it travels: its container strips it and rebuilds it.

| container  | stays at home                                                                     |
|------------|-----------------------------------------------------------------------------------|
| IsoMedia   | all boxes of HEIF and AVIF files: they depend on the size and the chroma offsets   |
| Jpeg       | all segments to the frame header; the standard Huffman tables with the scan header |
| Jpeg2000   | main header, tile-part header and end marker                                      |
| Webp       | the RIFF header, the start code and the size                                      |
| Whole      | nothing                                                                           |

The receiver knows the codec's settings, the image's size and the quality step. A rebuilt file is
the file that was stripped, byte for byte. Jpeg goes further than the abbreviated format of ITU-T
T.81 B.4, which leaves out tables alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Save = Callable[["Image.Image", int], bytes]  #: writes an image at a quality step

_END = b"\xff\xd9"  #: of a JPEG file and of a JPEG 2000 codestream
_VP8_TAG, _VP8_HEADER = 3, 10  #: bytes of the frame tag; of the tag, the start code and the size


class Container(Protocol):
    """Knows the part of a file that does not have to travel."""

    def strip(self, file: bytes) -> bytes:
        """Return the elementary stream of a file."""

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Return the file again, from its stream, the quality step and the image's size."""


class Whole:
    """No container: the stream is the file, as where whole files are charged."""

    def strip(self, file: bytes) -> bytes:
        """Return the file."""
        return file

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Return the stream."""
        return stream


@dataclass(frozen=True)
class IsoMedia:
    """An ISO base media file (HEIF, AVIF) whose last box holds the stream.

    Args:
        save: writes a file; of a grey image it gives the boxes.
        kinds: how many different boxes files of one size have, step s those of s mod kinds.
        prefix: bytes of the length field before the only NAL unit: 4 in HEVC.
    """

    save: Save
    kinds: int
    prefix: int

    def strip(self, file: bytes) -> bytes:
        """Return what follows the boxes."""
        return file[_media_data(file) + self.prefix :]

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Put the stream into the boxes of a grey image and write its length into them."""
        template = _grey(self.save, step % self.kinds, height, width)
        start = _media_data(template)
        old = len(template) - start
        if self.prefix:
            stream = len(stream).to_bytes(self.prefix, "big") + stream
        head = bytearray(template[:start])
        head[start - 8 : start - 4] = (len(stream) + 8).to_bytes(4, "big")
        location = head.index(b"iloc")
        extent = head.index(old.to_bytes(4, "big"), location)
        head[extent : extent + 4] = len(stream).to_bytes(4, "big")
        return bytes(head) + stream


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file, baseline or progressive.

    A stream is one byte, 0 for a scan with the standard Huffman tables, 1 for tables and one scan,
    2 for tables and progressive scans, and what follows the part that the receiver knows.

    Args:
        save: writes a baseline file with the standard tables.
    """

    save: Save

    def strip(self, file: bytes) -> bytes:
        """Return the byte and what has to travel."""
        marker, after = _frame(file)
        known = self._tables()
        if marker == 0xC0 and file.startswith(known, after):
            return b"\x00" + file[after + len(known) : -len(_END)]
        return (b"\x01" if marker == 0xC0 else b"\x02") + file[after : -len(_END)]

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Put the stream behind the segments of a small grey image, with the size written in."""
        template = _grey(self.save, step, 8, 8)
        _, after = _frame(template)
        head = bytearray(template[:after])
        frame = next(at for marker, at, _ in _segments(template) if marker in (0xC0, 0xC2))
        head[frame + 1] = 0xC2 if stream[0] == 2 else 0xC0
        head[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
        tables = b"" if stream[0] else self._tables()
        return bytes(head) + tables + stream[1:] + _END

    def _tables(self) -> bytes:
        """Return the standard Huffman tables and the scan header, the same for all steps."""
        template = _grey(self.save, 0, 8, 8)
        scan = next(end for marker, _, end in _segments(template) if marker == 0xDA)
        return template[_frame(template)[1] : scan]


@dataclass(frozen=True)
class Jpeg2000:
    """A raw codestream of one tile part.

    Args:
        save: writes a codestream.
    """

    save: Save

    def strip(self, file: bytes) -> bytes:
        """Return the packets."""
        return file[self._data(file) : -len(_END)]

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Put the packets behind the main header and write the length of the tile part."""
        template = _grey(self.save, 0, height, width)  # the step is in the packets
        head = bytearray(template[: self._data(template)])
        tile = len(head) - 14  # the markers SOT, 12 bytes, and SOD, 2 bytes
        head[tile + 6 : tile + 10] = (14 + len(stream)).to_bytes(4, "big")
        return bytes(head) + stream + _END

    def _data(self, file: bytes) -> int:
        """Return where the packets start."""
        for marker, at, end in _segments(file):
            if marker == 0x90 and file[end : end + 2] == b"\xff\x93":
                if int.from_bytes(file[at + 6 : at + 10], "big") == len(file) - at - len(_END):
                    return end + 2
                break
        raise ValueError("the encoder wrote a codestream of several parts; use headers 'file'")


@dataclass(frozen=True)
class Webp:
    """A lossy WebP file of one VP8 frame."""

    def strip(self, file: bytes) -> bytes:
        """Return the frame without start code and size."""
        if file[12:16] != b"VP8 ":
            raise ValueError("the encoder wrote a WebP file of several chunks; use headers 'file'")
        frame = file[20 : 20 + int.from_bytes(file[16:20], "little")]
        return frame[:_VP8_TAG] + frame[_VP8_HEADER:]

    def rebuild(self, stream: bytes, step: int, height: int, width: int) -> bytes:
        """Write start code and size, and RIFF's header; the step is in the frame."""
        size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
        frame = stream[:_VP8_TAG] + b"\x9d\x01\x2a" + size + stream[_VP8_TAG:]
        chunk = b"WEBPVP8 " + len(frame).to_bytes(4, "little") + frame + bytes(len(frame) % 2)
        return b"RIFF" + len(chunk).to_bytes(4, "little") + chunk


@cache
def _grey(save: Save, step: int, height: int, width: int) -> bytes:
    """Return the file of a grey image."""
    from PIL import Image

    return save(Image.fromarray(np.full((height, width, 3), 128, np.uint8)), step)


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


def _segments(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield code, start and end of each marker segment before the first entropy-coded data."""
    at, code = 2, 0
    while at + 4 <= len(file) and code not in (0xDA, 0x90):
        code, end = file[at + 1], at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        yield code, at, end
        at = end


def _frame(file: bytes) -> tuple[int, int]:
    """Return the code of a JPEG file's frame header and where it ends."""
    for marker, _, end in _segments(file):
        if marker in (0xC0, 0xC2):
            return marker, end
    raise ValueError("the encoder wrote neither baseline nor progressive JPEG; use headers 'file'")
