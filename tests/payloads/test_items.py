"""Items that are no pairs, or images on another scale, are told before they are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from channels import AWGN
from semsim import Link, evaluate
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.payloads.photos import Photos
from semsim.training.learner import Batches
from semsim.training.loop import train
from semsim.training.spec import TrainSpec

PHOTO = Photos(["coffee"], resize=64, crop=64)[0][0]


class Given(torch.utils.data.Dataset):  # type: ignore[type-arg]
    name = "given"

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return self.item


class Scaled(AnalogReceiver):
    """A receiver whose images are on another scale."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move

    def forward(self, y: Tensor, csi: Any, shape: tuple[int, ...], *rest: Any) -> Tensor:
        return self.move(super().forward(y, csi, shape))


def measured(item: Any, receiver: nn.Module | None = None, snr_db: float = 10.0) -> float:
    link = Link(AnalogTransmitter(), AWGN(), receiver or AnalogReceiver())
    return evaluate(link, Given(item), snr_db=[snr_db], metrics=["psnr"])[0]["value"]


ITEMS = {
    "dict": ({"image": PHOTO, "label": 1}, "item 0 of the payload is a dict with keys 'image'"),
    "three": ((PHOTO, PHOTO, 1), "is a tuple of 3; its __getitem__ must return two values"),
    "alone": (PHOTO, "is a Tensor; its __getitem__ must return two values"),
    "bytes": (((255 * PHOTO).byte(), 1), r"source of torch.uint8; a source is a float32 tensor"),
    "numpy": ((PHOTO.numpy(), 1), "source of ndarray"),
    "signed": ((2 * PHOTO - 1, 1), r"images hold values from .*; give \(x \+ 1\) / 2"),
    "large": ((255 * PHOTO, 1), r"images hold values from .*; divide them by 255"),
    "nan": ((PHOTO + float("nan"), 1), r"holds? NaN or infinity"),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_an_item_of_another_kind_is_told(kind: str, tmp_path: Path) -> None:
    item, said = ITEMS[kind]
    with pytest.raises(ValueError, match=said):
        measured(item)
    sizes = {"width": 16, "depth": 1}
    link = Link(DeepJSCCTransmitter(**sizes), AWGN(), DeepJSCCReceiver(**sizes))
    with pytest.raises(ValueError, match=said):
        train(link, Given(item), spec=TrainSpec(steps=1, batch_size=2), folder=tmp_path)


TARGETS = {
    "class and image": (
        [1, PHOTO],
        r"item 0 .* one number, .* item 1 a tensor \[3, 64, 64\]; give",
    ),
    "image and class": ([PHOTO, torch.tensor(1)], r"item 0 .* a tensor .* item 1 one number"),
    "sizes": ([PHOTO, PHOTO[:, 1:]], r"a tensor \[3, 64, 64\] .* a tensor \[3, 63, 64\]"),
}


class GivenTargets(Given):
    """A photo with each of some targets."""

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, index: int) -> Any:
        return PHOTO, self.item[index]


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_that_make_no_batch_are_told(kind: str) -> None:
    targets, said = TARGETS[kind]
    payload = GivenTargets(targets)
    link = Link(AnalogTransmitter(), AWGN(), AnalogReceiver())
    with pytest.raises(ValueError, match=said):
        evaluate(link, payload, snr_db=[10.0], metrics=["psnr"])
    with pytest.raises(ValueError, match="targets of one batch are of one kind and shape"):
        Batches(payload, TrainSpec(batch_size=2), 0).batch(0)


def test_nan_in_what_is_no_image_is_the_payloads_fault() -> None:
    bits = torch.ones(8)
    bits[3] = float("nan")
    link = Link(UncodedTransmitter(), AWGN(), UncodedReceiver())
    with pytest.raises(ValueError, match="item 0 of the payload holds NaN or infinity"):
        evaluate(link, Given((bits, bits)), snr_db=[10.0], metrics=["ber"])


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_an_estimate_on_another_scale_is_told_at_any_snr(snr_db: float) -> None:
    plain = measured((PHOTO, 1), snr_db=snr_db)
    assert measured((PHOTO, 1), Scaled(lambda x: x), snr_db) == plain
    for move, cure in (
        (lambda x: 2 * x - 1, r"give \(x \+ 1\) / 2"),
        (lambda x: 255 * x, "divide them by 255"),
        (lambda x: (x - 0.45) / 0.225, "undo the normalisation"),
    ):
        if snr_db > 0:
            with pytest.raises(ValueError, match=rf"receiver's images are about .*{cure}"):
                measured((PHOTO, 1), Scaled(move), snr_db)


def test_an_estimate_that_noise_carries_out_of_the_range_is_clipped_and_judged() -> None:
    noise = 0.4 * torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, 64, 64))).float()
    clipped = measured((PHOTO, 1), Scaled(lambda x: (x + noise).clamp(0, 1)))
    assert measured((PHOTO, 1), Scaled(lambda x: x + noise)) == clipped
