"""Line integrals of an image, and the image again: parallel-beam tomography on sparse matrices."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import torch
from torch import Tensor


class Projector:
    """Parallel-beam line integrals of square images, and filtered back-projection.

    The weight of a pixel in a detector bin is the area of the pixel that the bin's strip covers,
    exactly. Views at θ and θ + 90° share a matrix, applied to the image and to its rotation.

    Args:
        size: side of the image in pixels.
        views: projections over 180°, even.
    """

    def __init__(self, size: int, views: int) -> None:
        if size < 1 or views < 2 or views % 2:
            raise ValueError(
                f"an image has pixels and views are even and at least 2, got {size} and {views}"
            )
        self.size, self.views = size, views
        self.bins = 2 * math.ceil(size / math.sqrt(2)) + 1  # the image's diagonal fits
        matrix = _strip_areas(size, views, self.bins)
        self._forward, self._back = _to_torch(matrix), _to_torch(matrix.T.tocsr())
        self._ramp = _ramp(self.bins)

    def project(self, images: Tensor) -> Tensor:
        """Return line integrals [N, views, bins] in pixels of images [N, size, size]."""
        both = torch.cat([images, torch.rot90(images, -1, (1, 2))])
        flat = self._forward @ both.flatten(1).T.contiguous()
        halves = flat.T.reshape(2, len(images), self.views // 2, self.bins)
        return torch.cat([halves[0], halves[1]], dim=1)

    def backproject(self, sinograms: Tensor) -> Tensor:
        """Return the sum over views of what each pixel's strip holds, [N, size, size]."""
        halves = sinograms.unflatten(1, (2, -1)).transpose(0, 1)
        flat = self._back @ halves.flatten(0, 1).flatten(1).T.contiguous()
        first, second = flat.T.reshape(2, len(sinograms), self.size, self.size)
        return first + torch.rot90(second, 1, (1, 2))

    def fbp(self, sinograms: Tensor) -> Tensor:
        """Return images per pixel [N, size, size] of line integrals [N, views, bins]; Ram-Lak."""
        length = 2 * (len(self._ramp) - 1)
        filtered = torch.fft.irfft(torch.fft.rfft(sinograms, length) * self._ramp, length)
        filtered = filtered[..., : self.bins]
        return self.backproject(filtered.contiguous()) * (math.pi / self.views)


@functools.lru_cache(maxsize=2)
def projector(size: int, views: int) -> Projector:
    """Return the projector of this geometry; building one takes a second or more, so it is kept."""
    return Projector(size, views)


def _strip_areas(size: int, views: int, bins: int) -> Any:
    """Return the areas as scipy CSR [views / 2 · bins, size²], views in [0, 90°)."""
    import numpy as np
    from scipy import sparse

    centre, pixels = np.arange(size) - (size - 1) / 2, np.arange(size * size, dtype=np.int32)
    blocks = []
    for angle in np.pi * np.arange(views // 2) / views:
        a, b = math.cos(angle), max(math.sin(angle), 1e-4)
        t = (centre[None, :] * math.cos(angle) - centre[:, None] * math.sin(angle)).ravel()
        nearest = np.rint(t)
        # the area to the left of a line at u from the pixel's centre, in closed form
        corners = ((a + b) / 2, 1), (abs(a - b) / 2, -1), (-abs(a - b) / 2, -1), (-(a + b) / 2, 1)
        left = [
            sum(sign * np.maximum(nearest - t + u + h, 0) ** 2 for h, sign in corners) / (2 * a * b)
            for u in (-1.5, -0.5, 0.5, 1.5)
        ]
        area = np.diff(np.stack(left), axis=0)
        row = (nearest + np.array([[-1], [0], [1]]) + bins // 2).astype(np.int32)
        keep = area > 1e-6
        entries = row[keep], np.broadcast_to(pixels, area.shape)[keep]
        shape = (bins, size * size)
        blocks.append(sparse.csr_matrix((area[keep].astype(np.float32), entries), shape=shape))
    return sparse.vstack(blocks, format="csr")


def _to_torch(matrix: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "CSR support is in beta state"
        rows, columns = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
        return torch.sparse_csr_tensor(rows, columns, torch.from_numpy(matrix.data), matrix.shape)


def _ramp(bins: int) -> Tensor:
    """Return the response of the band-limited ramp, from its samples in space (Kak, Slaney)."""
    length = 1 << (2 * bins - 1).bit_length()
    n = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    taps = torch.where(n.remainder(2) == 1, -1 / (math.pi * n).square(), 0.0)
    taps[0] = 0.25
    return torch.fft.rfft(taps).real.float()


def bridge(sinograms: Tensor, trace: Tensor) -> Tensor:
    """Replace the trace by straight lines along the detector, view by view (LI).

    Args:
        sinograms: [..., D].
        trace: what to replace, [..., D], bool; a view that is all trace is left as it is.
    """
    bins = sinograms.shape[-1]
    place = torch.arange(bins, device=sinograms.device).expand_as(trace)
    before = torch.where(trace, -1, place).cummax(dim=-1).values
    after = torch.where(trace, bins, place).flip(-1).cummin(dim=-1).values.flip(-1)
    left, right = torch.where(before < 0, after, before), torch.where(after == bins, before, after)
    left, right = left.clamp(0, bins - 1), right.clamp(0, bins - 1)
    low, high = sinograms.gather(-1, left), sinograms.gather(-1, right)
    share = (place - left) / (right - left).clamp(min=1)
    known = ~trace.all(dim=-1, keepdim=True)
    return torch.where(trace & known, low + share * (high - low), sinograms)
