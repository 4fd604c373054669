"""Pictures that change on disk are read again, though what is read is kept in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semsim.vision.faces import Faces
from semsim.vision.marformer import MetalSlices
from semsim.vision.restore import DegradedFaces
from semsim.vision.sscl import Sites


def write(path: Path, grey: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(path)
    os.utime(path, ns=(grey, grey))


def mean(payload: Any) -> float:
    return float(np.mean([float(payload[i][0].mean()) for i in range(len(payload))]))


@pytest.mark.parametrize(
    ("files", "make"),
    [
        ("p{}/{}.png", lambda path: Faces("train", path=path, size=16)),
        ("p{}/{}.png", lambda path: DegradedFaces("train", path=path, size=16)),
        ("{}/{}.png", lambda path: Sites("train", path=path, size=16, anchors=1.0, labelled=0.5)),
        ("test/{}/{}.png", lambda path: MetalSlices(path=path)),
    ],
)
def test_a_file_that_changes_is_read_again(tmp_path: Path, files: str, make: Any) -> None:
    means = []
    for grey in (50, 200):
        for first in ("clean", "metal") if files.startswith("test") else range(2):
            for second in range(8):
                write(tmp_path / files.format(first, second), grey)
        means.append(mean(make(str(tmp_path))))
    assert means[1] > 2 * means[0]
