"""The payload: degraded faces, and the same faces as they were."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from semsim.payloads.images import check_counts, refuse_idle, to_float
from semsim.payloads.kept import Kept, written
from semsim.seeds import stream
from semsim.vision.faces.payload import KEEP_BYTES, FacePictures, Picture, Split
from semsim.vision.restore.degrade import Degradation

_KEPT = Kept(KEEP_BYTES)


class DegradedFaces(Dataset[tuple[Tensor, Tensor]]):
    """Items (degraded face, face), [3, size, size] each; decided by index and seed alone.

    People and pictures are those of :class:`semsim.vision.faces.Faces`: nobody of ``train`` is in
    ``val`` or ``test``. One picture of a person will do. Beyond the last picture it begins again,
    degraded otherwise.

    Args:
        split: whose faces.
        count: items; as many as pictures by default.
        path: a folder per person, of one picture or more; None for drawn faces.
        people: drawn people to train on; a quarter as many validate, and a third test.
        shots: pictures of each drawn person.
        size: side in pixels, a multiple of 16.
        blur: standard deviation in pixels, lowest and highest.
        factors: by one of which height and width are divided.
        noise: standard deviation, of values in [0, 1].
        quality: of JPEG.
        seed: decides faces and what happens to them.
    """

    name = "restore"

    def __init__(
        self,
        split: Split = "test",
        *,
        count: int | None = None,
        path: str | None = None,
        people: int = 120,
        shots: int = 16,
        size: int = 48,
        blur: tuple[float, float] = (0.2, 3.0),
        factors: Sequence[int] = (1, 2, 4),
        noise: tuple[float, float] = (0.0, 0.06),
        quality: tuple[int, int] = (40, 95),
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        if path is not None:
            refuse_idle(DegradedFaces, "with the files of a path", people=people, shots=shots)
        self.faces = FacePictures(
            split, path=path, people=people, shots=shots, size=size, seed=seed
        )
        self.degradation = Degradation(blur, tuple(factors), noise, quality)
        self.split, self.seed = split, seed
        self.count = len(self.faces.pictures) if count is None else count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} items, asked for number {index}")
        index %= len(self)
        face = to_float(self.faces.pixels(self._picture(index)))
        return to_float(self._degraded(index, face)), face

    def _picture(self, index: int) -> Picture:
        return self.faces.pictures[index % len(self.faces.pictures)]

    def _degraded(self, index: int, face: Tensor) -> Tensor:
        """Return what is left of a face, uint8, kept for the next time."""

        def degrade() -> tuple[Tensor]:
            generator = stream(self.seed, "degraded", self.split, index)
            return ((255 * self.degradation(face, generator)).round().to(torch.uint8),)

        picture = self._picture(index)
        who = (*self.faces.key, picture, written(picture.file))
        what = (repr(self.degradation), self.seed, self.split, index)
        (found,) = _KEPT.get((*who, *what), degrade)
        return found

    def check_files(self) -> None:
        """Read every file; ValueError names the first that will not do."""
        self.faces.check_files()
