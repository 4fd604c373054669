"""Plane projective geometry on batches: homographies, warps, quadrilaterals.

Points are (x, y) in pixels, x to the right and y down; (0, 0) is the outer corner of the top left
pixel, so that the centre of pixel (row i, column j) is (j + 0.5, i + 0.5). Then scaling an image by
a factor scales its points by the same factor. A quadrilateral is [B, 4, 2], clockwise as seen.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_AREA = 1e-3  #: square pixels of a triangle of corners that are not on one line


def homography(source: Tensor, target: Tensor) -> Tensor:
    """Return the H that sends four points to four others: target ~ H (source, 1).

    Args:
        source, target: [B, 4, 2]; no three of the points of either on one line.

    Returns:
        [B, 3, 3] with H[2, 2] = 1, solved in double precision, in the source's dtype.

    Raises:
        ValueError: other shapes, or three points on a line, where no H is determined.
    """
    if source.shape != target.shape or tuple(source.shape[1:]) != (4, 2):
        raise ValueError(
            f"a homography takes two sets of four points [B, 4, 2], got {list(source.shape)} and "
            f"{list(target.shape)}"
        )
    x, y = source.double().unbind(-1)
    u, v = target.double().unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    top = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    bottom = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    matrix = torch.cat([top, bottom], dim=1)  # [B, 8, 8]
    found, info = torch.linalg.solve_ex(matrix, torch.cat([u, v], dim=1))
    if info.any():
        raise ValueError("three of four points lie on one line; they determine no homography")
    return torch.cat([found, torch.ones_like(found[:, :1])], dim=1).view(-1, 3, 3).to(source.dtype)


def transform(h: Tensor, points: Tensor) -> Tensor:
    """Return the points [B, N, 2] after the homography h [B, 3, 3]."""
    moved = points @ h[:, :, :2].mT + h[:, None, :, 2]
    return moved[..., :2] / moved[..., 2:]


def square(side: float, like: Tensor) -> Tensor:
    """Return the corners of the square from the origin to (side, side), clockwise, [4, 2]."""
    corners = [[0, 0], [side, 0], [side, side], [0, side]]
    return torch.tensor(corners, dtype=like.dtype, device=like.device)


def warp(
    image: Tensor,
    h: Tensor,
    size: tuple[int, int],
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    padding: Literal["zeros", "border"] = "zeros",
) -> Tensor:
    """Return the image seen through a homography, differentiable in the image and in h.

    Args:
        image: [B, C, H, W].
        h: [B, 3, 3], from points of the *output* to points of the input.
        size: height and width of the output in pixels.
        mode: how to interpolate.
        padding: what lies outside of the image.

    Returns:
        [B, C, *size].
    """
    rows = torch.arange(size[0], dtype=image.dtype, device=image.device) + 0.5
    columns = torch.arange(size[1], dtype=image.dtype, device=image.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([x, y], dim=-1).view(1, -1, 2).expand(len(image), -1, -1)
    extent = image.new_tensor([image.shape[3], image.shape[2]])
    grid = (transform(h, points) / extent * 2 - 1).view(-1, *size, 2)
    return F.grid_sample(image, grid, mode, padding, align_corners=False)


def rectify(image: Tensor, quad: Tensor, side: int) -> Tensor:
    """Return what lies in the quadrilateral as a square of ``side`` pixels, [B, C, side, side].

    The first corner becomes the top left one. A quadrilateral without area, or with three corners
    on a line, gives a flat image.
    """
    corners = square(side, image).expand(len(image), -1, -1)
    flat = is_flat(quad)
    usable = torch.where(flat[:, None, None], corners, quad.to(image.dtype))
    crops = warp(image, homography(corners, usable), (side, side), padding="border")
    return torch.where(flat[:, None, None, None], crops.mean(dim=(2, 3), keepdim=True), crops)


def is_flat(quad: Tensor) -> Tensor:
    """Tell which quadrilaterals [B, 4, 2] span less than a pixel, or have three corners on a line.

    No homography leads there and back.
    """
    quad = quad.double()  # in single precision three far corners on a line have some area
    threes = [quad.roll(-first, dims=1)[:, :3] for first in range(4)]
    least = torch.stack([area(three).abs() for three in threes]).amin(dim=0)
    return (area(quad).abs() < 1) | (least < LEAST_AREA)


def area(polygon: Tensor) -> Tensor:
    """Return the signed area [B] of polygons [B, N, 2]; positive for clockwise as seen."""
    after = polygon.roll(-1, dims=1)
    cross = polygon[..., 0] * after[..., 1] - polygon[..., 1] * after[..., 0]
    return cross.sum(dim=1) / 2


def order_corners(quad: Tensor) -> Tensor:
    """Return the corners clockwise, [B, 4, 2], beginning with the one of least x + y.

    For a quadrilateral that is not turned by about 45 degrees this is top left, top right, bottom
    right, bottom left; it is a permutation for any.
    """
    middle = quad - quad.mean(dim=1, keepdim=True)
    turn = torch.atan2(middle[..., 1], middle[..., 0]).argsort(dim=1)
    around = quad.gather(1, turn[..., None].expand(-1, -1, 2))
    first = around.sum(dim=-1).argmin(dim=1)
    order = (first[:, None] + torch.arange(4, device=quad.device)) % 4
    return around.gather(1, order[..., None].expand(-1, -1, 2))


def quad_iou(quad: Tensor, convex: Tensor) -> Tensor:
    """Return intersection over union of the areas of two quadrilaterals each, [B].

    The second clips the first, one side after the other. Both are ordered around their middle
    first; the first need not be convex. Where either has no area the result is 0.
    """
    subject, clip = order_corners(quad.double()), order_corners(convex.double())
    own, other = area(subject), area(clip)
    for side in range(4):
        subject = _clip(subject, clip[:, side], clip[:, (side + 1) % 4])
    shared = area(subject).clamp_min(0)
    union = own + other - shared
    return torch.where((own > 0) & (other > 0), shared / union.clamp_min(1e-12), 0).to(quad.dtype)


def _clip(polygon: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Keep what lies to the right of a line as seen: [B, N, 2] to [B, 2 N, 2].

    What lies beyond is folded flat onto the line, where it has no area; so no polygon changes its
    number of corners and all of a batch are clipped at once.
    """
    along = (stop - start)[:, None]
    normal = torch.stack([-along[..., 1], along[..., 0]], dim=-1)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    inside = ((polygon - start[:, None]) * normal).sum(dim=-1)  # signed distance, [B, N]
    folded = polygon - inside.clamp_max(0)[..., None] * normal
    after, ahead = polygon.roll(-1, dims=1), inside.roll(-1, dims=1)
    crosses = inside * ahead < 0
    share = torch.where(crosses, inside / torch.where(crosses, inside - ahead, 1.0), 0.0)
    crossing = polygon + share[..., None] * (after - polygon)
    between = torch.where(crosses[..., None], crossing, folded)
    return torch.stack([folded, between], dim=2).flatten(1, 2)


def region_mask(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Return 1 inside of convex quadrilaterals [B, 4, 2] and 0 outside, [B, H, W]."""
    y = (torch.arange(size[0], device=corners.device) + 0.5).view(1, 1, -1, 1)
    x = (torch.arange(size[1], device=corners.device) + 0.5).view(1, 1, 1, -1)
    edge = (corners.roll(-1, dims=1) - corners)[..., None, None]
    start = corners[..., None, None]
    right = edge[:, :, 0] * (y - start[:, :, 1]) - edge[:, :, 1] * (x - start[:, :, 0]) >= 0
    return right.all(dim=1).to(corners.dtype)
