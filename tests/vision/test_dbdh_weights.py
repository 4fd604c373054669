"""What the shipped weights do, on the bundled photos, which nobody trained on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semsim.nn.geometry import order_corners, quad_iou
from semsim.vision import dbdh
from semsim.vision.dbdh.camera import jpeg

COUNT = 40


@pytest.fixture(scope="module")
def network() -> dbdh.DBDH:
    return dbdh.Localise().eval().network  # of the embedder pimog


@pytest.fixture(scope="module")
def batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def make(**options: object) -> tuple[Tensor, Tensor, Tensor]:
        key = repr(sorted(options.items()))
        if key not in kept:
            photos = dbdh.MarkedPhotos(COUNT, **options)
            source, target = (torch.stack(part) for part in zip(*photos, strict=True))
            kept[key] = source, target[:, :8].view(-1, 4, 2), target[:, 8:]
        return kept[key]

    return make


def overlap(network: dbdh.DBDH, photos: Tensor, corners: Tensor) -> Tensor:
    with torch.no_grad():
        return quad_iou(network.locate(photos), corners)


def test_codes_are_found_and_nothing_else_gives_them_away(network, batch) -> None:
    photos, corners, _ = batch()
    assert overlap(network, photos, corners).mean() > 0.85
    plain, same, _ = batch(strength=0.0)
    assert torch.equal(corners, same)
    guessed = quad_iou(dbdh.guess(plain), same).mean()
    assert overlap(network, plain, same).mean() < guessed + 0.05


def test_strong_codes_of_spread_are_found_by_its_own_weights(batch) -> None:
    network = dbdh.Localise(embedder="spread").eval().network
    found, plain = (
        overlap(network, *batch(embedder="spread", strength=s)[:2]).mean() for s in (12.0, 0.0)
    )
    assert found > 0.55 and plain < 0.45


def test_corners_move_with_the_photo(network, batch) -> None:
    photos, corners, _ = batch(strength=6.0)
    with torch.no_grad():
        found = network.locate(photos)
        mirrored = network.locate(photos.flip(3))
        turned = network.locate(photos.rot90(1, (2, 3)))
        lower = network.locate(photos.roll(8, dims=2))
    sure = quad_iou(found, corners) > 0.9
    sure &= corners[..., 1].amax(dim=1) < 118  # still whole after the shift
    assert sure.sum() > 10
    back = order_corners(torch.stack([128 - mirrored[..., 0], mirrored[..., 1]], dim=-1))
    unturned = order_corners(torch.stack([128 - turned[..., 1], turned[..., 0]], dim=-1))
    for moved in (back, unturned, lower - torch.tensor([0.0, 8.0])):
        assert (moved - found)[sure].norm(dim=-1).flatten().quantile(0.8) < 2


def test_the_network_leans_on_its_texture_features(network, batch) -> None:
    photos, corners, _ = batch()
    blind = network.deployed()
    blind.texture.register_forward_hook(lambda _module, _in, out: torch.zeros_like(out))
    assert overlap(blind, photos, corners).mean() < overlap(network, photos, corners).mean() - 0.2


def test_jpeg_hides_codes_before_it_spoils_the_photo(network, batch) -> None:
    photos, corners, _ = batch()
    coded = jpeg(photos, [60] * COUNT)
    psnr = -10 * (coded - photos).square().mean(dim=(1, 2, 3)).log10()
    assert psnr.mean() > 29.5
    kept = overlap(network, coded, corners).mean()
    assert kept < overlap(network, photos, corners).mean() - 0.2


def test_bits_follow_the_corners(network, batch) -> None:
    photos, corners, bits = batch()
    kind = dbdh.make_embedder("pimog")
    with torch.no_grad():
        found = network.locate(photos)
        at_found, at_true = (
            (dbdh.read_message(kind, photos, quad)[0] == bits).float().mean(dim=1)
            for quad in (found, corners)
        )
    near = quad_iou(found, corners)
    assert at_found.mean() <= at_true.mean() + 0.01 and at_true.mean() > 0.9
    assert torch.corrcoef(torch.stack([near, at_found]))[0, 1] > 0.5
    close = near > 0.93
    assert close.sum() >= 4 and at_true[close].mean() - at_found[close].mean() < 0.03


@pytest.mark.parametrize("embedder", ["spread", "pimog"])
def test_embedders_read_strong_marks_through_the_camera(batch, embedder) -> None:
    photos, corners, bits = batch(embedder=embedder, strength=8.0)
    kind = dbdh.make_embedder(embedder)
    with torch.no_grad():
        read, word, passed = dbdh.read_message(kind, photos, corners)
    assert (read == bits).float().mean() > 0.9
    right = (word == bits).all(dim=1)
    assert (right & passed).float().mean() > 0.75
    assert (passed & ~right).sum() <= 2  # a wrong turn passes once in 560 times
