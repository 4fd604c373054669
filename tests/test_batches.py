"""The plan of batches: the same whether items are loaded for it or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toy_parts import ToyPayload

from semsim.batches import Batches
from semsim.payloads.bits import Bits
from semsim.payloads.folder import Folder
from semsim.payloads.synthetic import Synthetic


def folder(path: Path, **options: Any) -> Folder:
    for number, size in enumerate([(40, 30), (30, 40), (36, 36)]):
        Image.new("RGB", size, (90, 60, 30)).save(path / f"{number}.png")
    return Folder(str(path), **options)


def payloads(path: Path) -> list[Any]:
    cut = {"crop": 16, "shrink": (1.0, 1.5), "patches": 5}
    return [
        Synthetic(5, 16), Synthetic(3, 16, frames=2), Bits(5, 24), folder(path, crop=16),
        folder(path, **cut), folder(path), folder(path, resize=20), ToyPayload(7, mixed=True),
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(8))
def test_batches_are_planned_alike_and_shapes_are_as_promised(which: int, tmp_path: Path) -> None:
    payload = payloads(tmp_path)[which]
    batches = Batches(payload, max_items=8, batch_size=3, device=torch.device("cpu"))
    assert list(batches.numbers()) == [(i, numbers) for i, numbers, _ in batches.plan()]
    shape = getattr(payload, "item_shape", None)
    if shape is not None:
        assert {tuple(payload[i][0].shape) for i in range(len(payload))} == {tuple(shape)}
