"""Homographies, warps and the overlap of quadrilaterals against second roads."""

from __future__ import annotations

import pytest
import torch

from semsim.nn.geometry import (
    area,
    homography,
    order_corners,
    quad_iou,
    rectify,
    square,
    transform,
    warp,
)
from semsim.seeds import stream


def quads(count: int, label: str, size: float = 100.0) -> torch.Tensor:
    """Convex quadrilaterals: squares of random place and side, each corner moved by at most 15 %"""
    draw = torch.rand(count, 4, 2, generator=stream(1, label), dtype=torch.float64)
    place = torch.rand(count, 1, 3, generator=stream(2, label), dtype=torch.float64)
    side = size * (0.3 + 0.3 * place[..., 2:])
    return place[..., :2] * (size - side) + side * (square(1, draw) + 0.3 * (draw - 0.5))


def test_a_homography_sends_its_four_points_where_it_should() -> None:
    a, b = quads(50, "a"), quads(50, "b")
    h = homography(a, b)
    assert torch.allclose(transform(h, a), b, atol=1e-8)
    assert torch.allclose(transform(homography(b, a), transform(h, a)), a, atol=1e-8)


def test_points_on_a_line_and_wrong_shapes_are_refused() -> None:
    line = torch.tensor([[[0.0, 0], [1, 1], [2, 2], [0, 3]]])
    with pytest.raises(ValueError, match="one line"):
        homography(line, square(1, line)[None])
    with pytest.raises(ValueError, match="four points"):
        homography(line[:, :3], line)


def test_the_identity_warps_nothing() -> None:
    image = torch.rand(2, 3, 9, 7, generator=stream(1, "image"))
    eye = torch.eye(3).expand(2, 3, 3)
    assert torch.allclose(warp(image, eye, (9, 7)), image, atol=1e-5)


def test_rectifying_an_upright_square_cuts_it_out() -> None:
    image = torch.rand(1, 3, 20, 24, generator=stream(1, "image"))
    quad = square(8, image)[None] + torch.tensor([5.0, 3.0])
    assert torch.allclose(rectify(image, quad, 8), image[..., 3:11, 5:13], atol=1e-5)
    turned = rectify(image, quad.roll(-1, dims=1), 8)  # the top right corner comes first
    assert torch.allclose(turned, image[..., 3:11, 5:13].rot90(1, (2, 3)), atol=1e-5)


def test_warping_is_differentiable_in_image_and_homography() -> None:
    image = torch.rand(1, 1, 5, 5, generator=stream(1, "g"), dtype=torch.float64)
    quad = square(3, image)[None] + torch.tensor([[[0.63, 0.71], [0.8, 1.2], [1.1, 0.9], [1, 1]]])
    image.requires_grad_(), quad.requires_grad_()
    assert torch.autograd.gradcheck(lambda i, q: rectify(i, q, 2), (image, quad))


def test_overlap_equals_that_counted_on_a_grid() -> None:
    a, b = quads(12, "c"), quads(12, "d")
    b = torch.cat([a[:4] + 3, a[4:6], b[6:]])
    steps = (torch.arange(700, dtype=torch.float64) + 0.5) / 700 * 140 - 20
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x, y], dim=-1).view(-1, 2)

    def covers(quad: torch.Tensor) -> torch.Tensor:
        edges = quad.roll(-1, dims=0) - quad
        rays = points[:, None] - quad
        return (edges[:, 0] * rays[..., 1] - edges[:, 1] * rays[..., 0] >= 0).all(dim=1)

    for one, two, found in zip(a, b, quad_iou(a, b), strict=True):
        both, either = covers(one) & covers(two), covers(one) | covers(two)
        # a grid of step 0.2 misplaces at most half a step along both outlines, about 4 x 60 long
        assert abs(found - both.sum() / either.sum()) < 0.01


def test_overlap_is_symmetric_whole_for_the_same_and_zero_for_strangers() -> None:
    a, b = quads(30, "e"), quads(30, "f")
    assert torch.allclose(quad_iou(a, b), quad_iou(b, a), atol=1e-9)
    assert torch.allclose(quad_iou(a, a.roll(1, dims=1)), torch.ones(30, dtype=a.dtype))
    assert (quad_iou(a, a + 500) < 1e-12).all()
    assert (quad_iou(a[:, :1].expand(-1, 4, -1), a) == 0).all()


def test_a_half_covers_a_half() -> None:
    whole = square(4, torch.zeros(()))[None]
    half = whole * torch.tensor([0.5, 1.0])
    assert quad_iou(half, whole) == 0.5 and quad_iou(whole, whole + 2) == pytest.approx(4 / 28)


def test_ordered_corners_are_a_permutation_from_the_top_left() -> None:
    a = order_corners(quads(30, "g"))
    shuffled = torch.stack(
        [q[torch.randperm(4, generator=stream(i, "p"))] for i, q in enumerate(a)]
    )
    assert torch.equal(order_corners(shuffled), a) and (area(a) > 0).all()
    upright = square(3, torch.zeros(()))[None]
    assert torch.equal(order_corners(upright.flip(1)), upright)
    diamond = torch.tensor([[[2.0, 0], [4, 2], [2, 4], [0, 2]]])
    assert sorted(order_corners(diamond)[0].tolist()) == sorted(diamond[0].tolist())


@pytest.mark.parametrize(
    "corners",
    [
        [(12, 8), (0, 0), (12, 16), (12, 16)],
        [(0, 0), (10, 0), (20, 0), (0, 20)],
        [(398.703125, 10.25), (146.484375, 500.3), (444.1875, 500.3), (282.0625, 500.3)],
    ],
    ids=["two are one", "three on a line", "three whose area is rounding in float32"],
)
def test_what_no_homography_leads_to_is_rectified_to_a_flat_image(
    corners: list[tuple[float, float]],
) -> None:
    image = torch.rand(1, 3, 24, 24, generator=stream(1, "image"))
    flat = rectify(image, torch.tensor([corners], dtype=torch.float32), 8)
    assert torch.isfinite(flat).all() and torch.equal(flat, flat[:, :, :1, :1].expand_as(flat))
