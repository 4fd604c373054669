"""Projection and filtered back-projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semsim.nn.tomography import Projector, bridge, projector
from semsim.seeds import stream


def disc(size: int, radius: float) -> torch.Tensor:
    at = torch.arange(size) - (size - 1) / 2
    fine = (torch.arange(8) - 3.5) / 8
    sub = (at[:, None] + fine).flatten()
    inside = (sub[:, None] ** 2 + sub[None, :] ** 2 <= radius**2).float()
    return torch.nn.functional.avg_pool2d(inside[None, None], 8)[0, 0]


def test_a_discs_projection_is_the_chord() -> None:
    system = Projector(65, 12)
    sinogram = system.project(disc(65, 20.0)[None])[0]
    t = torch.arange(system.bins) - system.bins // 2
    chord = 2 * (20.0**2 - t.square()).clamp(min=0).sqrt()
    inner = t.abs() < 18  # the chord's slope is steep at the rim
    # the rim is drawn in eighths of a pixel, and the chord crosses it twice
    assert (sinogram - chord)[:, inner].abs().max() < 0.25
    assert (sinogram - chord)[:, inner].mean().abs() < 0.02
    # no area is lost in any view; areas below 1e-6 of a pixel are left out
    assert torch.allclose(sinogram.sum(dim=1), disc(65, 20.0).sum().expand(12), rtol=1e-5)


def test_backprojection_is_the_adjoint() -> None:
    system = Projector(24, 10)
    image = torch.rand(2, 24, 24, generator=stream(1, "image"))
    sinogram = torch.rand(2, 10, system.bins, generator=stream(1, "sinogram"))
    left = (system.project(image) * sinogram).sum()
    right = (image * system.backproject(sinogram)).sum()
    assert torch.allclose(left, right, rtol=1e-5)


def test_projections_and_reconstruction_agree_with_scikit_image() -> None:
    from skimage.transform import iradon, radon

    system, angles = Projector(65, 60), np.arange(60) * 3.0
    at = np.arange(65) - 32
    image = ((at / 20) ** 2 + ((at[:, None] - 4) / 12) ** 2 < 1) * 1.0
    image += ((at - 8) ** 2 + at[:, None] ** 2 < 25) * 0.5
    theirs = radon(image, angles, circle=False).T
    ours = system.project(torch.from_numpy(image).float()[None])
    width = theirs.shape[1]  # theirs has one bin less beyond the image
    # theirs interpolates between rotated pixels; ours takes the exact area of each
    assert np.abs(ours[0, :, :width].numpy() - theirs).mean() < 0.002 * theirs.mean()
    again = iradon(theirs.T, angles, circle=False, output_size=65)
    mine = system.fbp(torch.nn.functional.pad(torch.from_numpy(theirs).float(), (0, 1))[None])
    inside = slice(10, -10)
    gap = np.abs(mine[0].numpy() - again)[inside, inside].mean()
    assert gap < 0.1 * np.abs(again - image)[inside, inside].mean()


def test_filtered_backprojection_undoes_the_projection() -> None:
    system, image = Projector(65, 180), disc(65, 20.0)
    again = system.fbp(system.project(image[None]))[0]
    inner = disc(65, 16.0) == 1
    assert (again - image)[inner].abs().mean() < 0.01


def test_a_trace_is_bridged_by_a_straight_line() -> None:
    ramp = torch.arange(9.0).expand(2, 9)
    hole = torch.zeros(2, 9, dtype=torch.bool)
    hole[0, 3:6], hole[1, :2] = True, True
    broken = torch.where(hole, 99.0, ramp)
    fixed = bridge(broken, hole)
    assert torch.equal(fixed[0], ramp[0])
    assert fixed[1, :2].tolist() == [2.0, 2.0]  # at the edge the nearest ray goes on
    assert torch.equal(bridge(ramp, torch.ones(2, 9, dtype=torch.bool)), ramp)


@pytest.mark.parametrize(("size", "views"), [(16, 9), (0, 10), (16, 0)])
def test_void_geometries_are_refused(size: int, views: int) -> None:
    with pytest.raises(ValueError, match="views are even"):
        projector(size, views)
