"""The contract of all payloads: deterministic by index, batches equal items, values in range."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from semsim import spec, tables
from semsim.payloads.arrays import Arrays
from semsim.payloads.bits import Bits
from semsim.payloads.channel_activity import ChannelActivity
from semsim.payloads.channel_files import ChannelFiles
from semsim.payloads.channel_history import ChannelHistory
from semsim.payloads.channels import ChannelMix, Channels
from semsim.payloads.cifar import CIFAR10
from semsim.payloads.folder import Folder
from semsim.payloads.images import StackedImages
from semsim.payloads.measured import MeasuredChannels
from semsim.payloads.mix import Mix
from semsim.payloads.photos import Photos
from semsim.payloads.pilot_estimates import PilotEstimates
from semsim.payloads.pool import Pool
from semsim.payloads.synthetic import Synthetic

Make = Callable[[Path], Any]


def arrays(folder: Path) -> Arrays:
    rng = np.random.default_rng(1)
    np.savez(folder / "a.npz", x=rng.integers(0, 256, (5, 8, 9, 3), np.uint8), y=np.arange(5))
    return Arrays(str(folder / "a.npz"))


def photo_folder(folder: Path, **options: Any) -> Folder:
    from PIL import Image

    rng = np.random.default_rng(2)
    for name in "cab":
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return Folder(str(folder), **options)


def pool(folder: Path, **options: Any) -> Pool:
    rng = np.random.default_rng(1)
    parts = {f"part{i}": rng.integers(0, 256, (300, 3, 8, 8), np.uint8) for i in range(2)}
    weights = {"weights": np.array([1.0, 3.0]), "valid": parts["part0"][:3]}
    np.savez(folder / "pool.npz", **parts, **weights)
    return Pool(str(folder / "pool.npz"), **{"count": 9, **options})


PAYLOADS: dict[str, Make] = {
    "photos": lambda _: Photos(resize=32, crop=32),
    "folder": lambda folder: photo_folder(folder, crop=16),
    "patches": lambda folder: photo_folder(folder, crop=8, shrink=(1.0, 3.0), patches=4),
    "arrays": arrays,
    "pool": pool,
    "held out": lambda folder: pool(folder, split="valid", count=None),
    "mix": lambda _: Mix([Synthetic(4, 16), Photos(resize=16, crop=16)], shares=(1, 3), count=9),
    "bits": lambda _: Bits(6, 20),
    "dead leaves": lambda _: Synthetic(4, 16),
    "pink": lambda _: Synthetic(4, 16, texture="pink"),
}


def test_every_row_of_the_table_is_tested_here_or_in_a_file_of_its_own(tmp_path: Path) -> None:
    tested: set[Any] = {CIFAR10, ChannelHistory, PilotEstimates}
    tested |= {Channels, ChannelActivity, ChannelFiles, ChannelMix, MeasuredChannels}
    for number, build in enumerate(PAYLOADS.values()):
        (tmp_path / str(number)).mkdir()
        tested.add(type(build(tmp_path / str(number))))
    core = [kind for kind, row in tables.PAYLOADS.items() if ".vision." not in row]
    assert tested == {spec.resolve("payload", kind) for kind in core}


@pytest.fixture(params=PAYLOADS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    return lambda: PAYLOADS[request.param](tmp_path)


def test_an_item_depends_on_its_index_alone(make: Callable[[], Any]) -> None:
    forward, backward = make(), make()
    ahead = [forward[i][0] for i in range(len(forward))]
    behind = [backward[i][0] for i in reversed(range(len(backward)))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(ahead, behind, strict=True))


def test_a_batch_equals_its_items(make: Callable[[], Any]) -> None:
    payload = make()
    for (source, target), index in zip(payload.__getitems__([2, 0, 1]), [2, 0, 1], strict=True):
        assert torch.equal(source, payload[index][0])
        assert target is source or target == payload[index][1]


def test_values_are_float32_from_0_to_1_and_items_differ(make: Callable[[], Any]) -> None:
    payload = make()
    sources = [payload[i][0] for i in range(len(payload))]
    assert all(s.dtype == torch.float32 and s.min() >= 0 and s.max() <= 1 for s in sources)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(sources))
    assert payload.name and list(payload)[-1][0].equal(payload[-1][0])


def test_an_index_out_of_range_is_refused(make: Callable[[], Any]) -> None:
    payload = make()
    with pytest.raises(IndexError, match=str(len(payload))):
        payload[len(payload)]


def test_a_dataloader_takes_it(make: Callable[[], Any]) -> None:
    payload = make()
    sources, targets = next(iter(DataLoader(payload, batch_size=2)))
    assert len(sources) == len(targets) == 2


def test_pixels_are_kept_exactly() -> None:
    photo = Photos(["coffee"])
    assert torch.equal((photo[0][0] * 255).round().byte(), photo.pixels(0))


def test_bits_are_fair_and_independent_between_seeds() -> None:
    bits = torch.cat([Bits(50, 1000, seed=s)[i][0] for s in (1, 2) for i in range(50)])
    z = (bits.sum() - len(bits) / 2) / (len(bits) / 4) ** 0.5
    assert abs(z) < 5
    assert not torch.equal(Bits(1, 64, seed=1)[0][0], Bits(1, 64, seed=2)[0][0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Photos(["mona lisa"]), "astronaut, coffee"),
        (lambda: Photos(crop=0), "crop is at least 1"),
        (lambda: Photos(crop=400), "crop 400 does not fit"),
        (lambda: Bits(0), "count is at least 1"),
        (lambda: Synthetic(texture="plaid"), "one of dead_leaves, pink"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_argument_is_named(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_mix_draws_as_often_as_its_shares_say_and_names_what_is_wrong() -> None:
    of = [Synthetic(4, 16), Photos(resize=16, crop=16)]
    drawn = Mix(of, shares=(1, 3), count=4000)
    first = sum(part == 0 for part, _ in drawn.places.tolist()) / 4000
    assert abs(first - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5  # four standard deviations
    for shares in [(1,), (0, 0), (-1, 2), (1, float("inf"))]:
        with pytest.raises(ValueError, match="shares are 2 weights"):
            Mix(of, shares=shares)
    with pytest.raises(ValueError, match="of is a list of payloads"):
        Mix([])
    told = StackedImages("told", torch.zeros(4, 3, 16, 16, dtype=torch.uint8), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"numbers \[2\] of its list have some and \[0, 1\] none"):
        Mix([*of, told])
    asked = spec.parse("payload", {"kind": "mix", "of": [{"kind": "photos"}], "count": 7})
    assert len(spec.build(asked)) == 7


def pool_of(folder: Path, sizes: list[int], weights: list[float], **options: Any) -> Pool:
    """A pool whose patches hold the number of their part."""
    parts = {f"part{i}": np.full((n, 3, 4, 4), i, np.uint8) for i, n in enumerate(sizes)}
    held_out = np.zeros((sizes[0], 3, 4, 4), np.uint8)
    np.savez(folder / "pool.npz", weights=weights, valid=held_out, **parts)
    return Pool(str(folder / "pool.npz"), **{"count": 20, **options})


def test_weights_of_a_pool_are_in_the_order_of_its_parts_numbers(tmp_path: Path) -> None:
    drawn = pool_of(tmp_path, [2] * 12, [0, 0, 1, *[0] * 9])
    assert {int(drawn.pixels(i).max()) for i in range(20)} == {2}


def test_a_part_of_a_pool_without_patches_has_no_weight(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path: part1 holds no patches to draw; make its weight 0"):
        pool_of(tmp_path, [2, 0], [1, 1])
    assert len(pool_of(tmp_path, [2, 0], [1, 0])) == 20
    with pytest.raises(ValueError, match="path: valid holds no patches"):
        pool_of(tmp_path, [0, 2], [0, 1], split="valid")
    with pytest.raises(ValueError, match=r"path: 2 parts need as many weights .* got 1"):
        pool_of(tmp_path, [2, 2], 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([1.0, float("inf")], "as many weights of 0 or more, finite, got"),
        (["a", "b"], "weights are numbers, got <U1"),
    ],
)
def test_weights_of_a_pool_that_are_no_shares_are_told(
    tmp_path: Path, weights: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        pool_of(tmp_path, [2, 2], weights)
