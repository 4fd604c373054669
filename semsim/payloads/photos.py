"""Real photos that scikit-image carries inside its wheel: no download, no licence form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from semsim.payloads.images import ImagePayload, check_counts, fit, to_tensor

#: all are colour photos inside the wheel; the first five are everyday scenes
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle", "hubble", "retina")


class Photos(ImagePayload):
    """A handful of real photos for a first run anywhere.

    Args:
        names: which ones and in which order; by default the five everyday scenes. Too few to
            compare schemes on: use ``folder`` with a published set for that.
        resize: scale the shorter side to this many pixels.
        crop: cut a square with this side in pixels from the centre.
    """

    name = "photos"

    def __init__(
        self,
        names: Sequence[str] = PHOTOS[:5],
        *,
        resize: int | None = None,
        crop: int | None = None,
    ) -> None:
        check_counts(resize=resize, crop=crop)
        unknown = [name for name in names if name not in PHOTOS]
        if unknown or not names:
            raise ValueError(f"names are out of {', '.join(PHOTOS)}; got {list(names)}")
        self.names = tuple(names)
        self._images = [_photo(name, resize, crop) for name in names]

    def __len__(self) -> int:
        return len(self._images)

    def pixels(self, index: int) -> Tensor:
        """Return one photo, uint8 [3, H, W]."""
        return self._images[index]


def _photo(name: str, resize: int | None, crop: int | None) -> Tensor:
    from PIL import Image
    from skimage import data

    if name == "motorcycle":
        pixels = data.stereo_motorcycle()[0]
    else:
        pixels = getattr(data, "hubble_deep_field" if name == "hubble" else name)()
    return to_tensor(fit(Image.fromarray(pixels), resize, crop, name))
