"""Groups of similar pixels: blocks alike, and within them rows alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 32  # reference blocks side by side that are matched at once
CHUNK = 128  # reference blocks transformed at once on a CPU: what a core's cache holds
CHUNK_GPU = 4096


@dataclass(frozen=True)
class Grouping:
    """How similar pixels are found; adjacent values of NLH, the step inferred.

    Args:
        block: height and width of a block, in pixels, 2 to 11: sums stay exact.
        window: side of the square of block positions that are compared, odd.
        blocks: how many similar blocks a reference has, itself included; a power of two.
        rows: how many similar pixels of the block join a group; a power of two. 1 skips row
            matching: each pixel goes with those at its place in the blocks alike.
        step: pixels between reference blocks; 8 is about three times as fast as 4.
    """

    block: int = 8
    window: int = 39
    blocks: int = 16
    rows: int = 4
    step: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.block <= 11:
            raise ValueError(f"block is 2 to 11 pixels, got {self.block}")
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window is odd and at least 3, got {self.window}")
        for name, most in (("blocks", 128), ("rows", self.block**2)):
            value = getattr(self, name)
            if not 1 <= value <= most or value & (value - 1):
                raise ValueError(f"{name} is a power of two up to {most}, got {value}")
        if not 1 <= self.step <= self.block:
            raise ValueError(
                f"step is 1 to block ({self.block}), or pixels stay without a group; got "
                f"{self.step}"
            )


class Groups:
    """Similar pixels of a batch of images: blocks alike, and within them rows alike.

    For each reference block the nearest ``blocks`` blocks of the window around it become the
    columns of a matrix with block² rows, one per pixel position; each row joins the ``rows - 1``
    rows nearest to it. Both matchings look at values rounded to 8 bits: distances are then exact
    integers, so every device finds the same groups; of equal blocks the nearer one counts, of
    equal rows the first. The last block of each line and column lies at the border, nothing is
    padded.

    Args:
        image: what similarity is judged by, [B, 1, H, W] in [0, 1].
        grouping: the sizes.
    """

    def __init__(self, image: Tensor, grouping: Grouping | None = None) -> None:
        self.grouping = grouping or Grouping()
        self.shape = tuple(image.shape)
        _check_fits(self.shape, self.grouping)
        with torch.no_grad():
            levels = (image.detach().clamp(0, 1) * 255).round().float()
            self.corners = _match_blocks(levels, self.grouping)  # [R, m], index into B·H·W
            flat = levels.flatten()
            rows = max(self.grouping.rows, 2)  # the noise level asks for the second
            found = [_nearest_rows(self._cut(flat, c), rows) for c in self._chunks()]
            self.members = torch.cat(found, dim=1)  # [q, R, N²], rows of each pixel's group
            self.overlaps = self._spread(image, lambda c: image.new_ones(1, 1, 1))

    def __len__(self) -> int:
        return len(self.corners)

    def mean(self, image: Tensor) -> Tensor:
        """Return what the lowest coefficient alone rebuilds: the mean of each pixel's groups.

        Args:
            image: any [B, 1, H, W] of the size the groups were found in.
        """
        flat = image.flatten()

        def rebuild(chunk: slice) -> Tensor:
            rows = self._cut(flat, chunk).mean(dim=2)  # [r, N²]
            members = self.members[: self.grouping.rows, chunk]
            group = torch.stack([rows.gather(1, m) for m in members]).mean(dim=0)
            return _to_rows(group.expand(len(members), -1, -1)[..., None], members)

        return self._spread(image, rebuild) / self.overlaps

    def filter(self, image: Tensor, edit: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Return an image rebuilt from Haar coefficients that ``edit`` may change.

        Args:
            image: [B, 1, H, W].
            edit: takes coefficients [q, r, N², m], lowest first on both transformed axes (0 and
                3), and which of the references they belong to; returns coefficients.
        """
        flat = image.flatten()
        along_rows = haar_matrix(self.grouping.rows).to(image)
        along_blocks = haar_matrix(self.grouping.blocks).to(image)

        def rebuild(chunk: slice) -> Tensor:
            members = self.members[: self.grouping.rows, chunk]
            rows = self._cut(flat, chunk) @ along_blocks.T
            group = torch.stack([_take_rows(rows, m) for m in members])
            coefficients = edit(torch.tensordot(along_rows, group, dims=1), chunk)
            group = torch.tensordot(along_rows.T, coefficients, dims=1)
            return _to_rows(group, members) @ along_blocks  # linear, so it may follow the sum

        return self._spread(image, rebuild) / self.overlaps

    def per_block(self, image: Tensor) -> Tensor:
        """Return the mean of an image [B, 1, H, W] over the blocks of each reference, [R]."""
        return torch.cat([rows.mean(dim=(1, 2)) for _, rows in self.cut(image)])

    def map(self, values: Tensor) -> Tensor:
        """Return values [R] of references as a map [B, 1, H, W], aggregated like the image."""
        return self._spread(values, lambda c: values[c, None, None]) / self.overlaps

    def cut(self, image: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield references and the matrices of their blocks in ``image``, [r, N², m]."""
        flat = image.flatten()
        for chunk in self._chunks():
            yield chunk, self._cut(flat, chunk)

    def _chunks(self) -> list[slice]:
        size = CHUNK if self.corners.device.type == "cpu" else CHUNK_GPU
        return [slice(i, i + size) for i in range(0, len(self), size)]

    def _pixels(self, chunk: slice) -> Tensor:
        """Return where each entry of the matrices lies, [r, N², m], index into B·H·W."""
        width, along = self.shape[-1], torch.arange(self.grouping.block, device=self.corners.device)
        offsets = (along[:, None] * width + along).flatten()
        return self.corners[chunk, None] + offsets[:, None]

    def _cut(self, flat: Tensor, chunk: slice) -> Tensor:
        where = self._pixels(chunk)
        return flat.index_select(0, where.flatten()).view(where.shape)

    def _spread(self, like: Tensor, rebuild: Callable[[slice], Tensor]) -> Tensor:
        """Add the entries that ``rebuild`` returns per chunk to their pixels, [B, 1, H, W].

        Entries are [r, N², m], or 1 along an axis where they do not differ.
        """
        total = like.new_zeros(math.prod(self.shape))
        for chunk in self._chunks():
            where = self._pixels(chunk)
            entries = rebuild(chunk).expand(where.shape)
            total = total.index_add(0, where.flatten(), entries.flatten())
        return total.view(self.shape)


def haar_matrix(size: int) -> Tensor:
    """Return the orthonormal Haar matrix [size, size], float64; row 0 is constant.

    Args:
        size: a power of two.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        sums = torch.kron(matrix, torch.tensor([[1.0, 1.0]], dtype=torch.float64))
        unit = torch.eye(len(matrix), dtype=torch.float64)
        differences = torch.kron(unit, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
        matrix = torch.cat([sums, differences]) / math.sqrt(2)
    return matrix


def _check_fits(shape: tuple[int, ...], grouping: Grouping) -> None:
    if len(shape) != 4 or shape[1] != 1:
        raise ValueError(f"groups are found in one channel, [B, 1, H, W], got {list(shape)}")
    reach = grouping.window // 2 + 1  # positions that a corner block can choose from, per axis
    at_corner = math.prod(max(0, min(reach, side - grouping.block + 1)) for side in shape[2:])
    if at_corner < grouping.blocks:
        raise ValueError(
            f"a block in the corner of {shape[3]}x{shape[2]} pixels meets {at_corner} blocks of "
            f"{grouping.block}x{grouping.block} in its window, fewer than blocks: "
            f"{grouping.blocks}; use larger images, a larger window or fewer blocks"
        )


def _match_blocks(levels: Tensor, grouping: Grouping) -> Tensor:
    """Return the corners [R, m] of the nearest blocks, references in order of image, row, column.

    Args:
        levels: [B, 1, H, W], whole numbers 0 to 255: all sums stay below 2^24 and so exact.
        grouping: the sizes.
    """
    n, half = grouping.block, grouping.window // 2
    batch, _, height, width = levels.shape
    rows, columns = (_positions(side, n, grouping.step) for side in (height, width))
    padded = F.pad(levels, (half,) * 4)
    inside = F.pad(levels.new_ones(batch, 1, height - n + 1, width - n + 1), (half,) * 4)
    offsets = _offsets(half).to(levels.device)  # [K, 2], nearest first
    parts = []
    for i in range(0, len(columns), TILE):
        tile = columns[i : i + TILE]
        span = slice(tile[0], tile[-1] + 2 * half + 1)
        blocks = F.unfold(padded[..., span.start : span.stop + n - 1], n)
        blocks = blocks.view(batch, n * n, height - n + 1 + 2 * half, -1)
        squares = blocks.square().sum(dim=1)
        squares[inside[:, 0, :, span] == 0] = torch.inf
        parts.append([_match_line(blocks, squares, row, tile, offsets, grouping) for row in rows])
    found = torch.stack([torch.cat(line, dim=1) for line in zip(*parts, strict=True)], dim=1)
    here = torch.tensor([[y * width + x for x in columns] for y in rows], device=levels.device)
    first = torch.arange(batch, device=levels.device) * height * width  # pixel of each image
    moves = offsets[:, 0] * width + offsets[:, 1]
    corners = moves[found] + here[..., None] + first.view(-1, 1, 1, 1)
    return corners.view(-1, grouping.blocks)


def _match_line(
    blocks: Tensor, squares: Tensor, row: int, tile: list[int], offsets: Tensor, grouping: Grouping
) -> Tensor:
    """Return which offsets lead from the references of one line to their nearest, [B, r, m].

    Args:
        blocks: all blocks around the tile, [B, N², H', W'], padded by half a window.
        squares: their squared norms, [B, H', W'], infinite where a block leaves the image.
        row: line of the references; tile: their columns, from tile[0] on.
        offsets: [K, 2], nearest first.
        grouping: the sizes.
    """
    half, width = grouping.window // 2, blocks.shape[-1]
    strip = blocks[:, :, row : row + grouping.window].flatten(2)
    at = torch.tensor([x - tile[0] + half for x in tile], device=blocks.device)
    references = blocks[:, :, row + half, at]  # [B, N², r]
    cross = references.mT @ strip
    distance = squares[:, row : row + grouping.window].flatten(1)[:, None] - 2 * cross
    where = (offsets[:, 0] + half) * width + offsets[:, 1] + at[:, None]  # [r, K]
    distance = distance.gather(2, where.expand(len(blocks), -1, -1))
    distance = distance + references.square().sum(dim=1)[..., None]
    count = len(offsets)
    order = torch.arange(count, device=blocks.device)
    key = distance.clamp(max=2.0**24).long() * count + order  # of equal blocks the nearer one
    return key.topk(grouping.blocks, largest=False).values % count


def _positions(side: int, block: int, step: int) -> list[int]:
    """Return where blocks start along an axis, the last one at the border."""
    last = side - block
    return [*range(0, last, step), last]


def _offsets(half: int) -> Tensor:
    """Return all (dy, dx) of a window, [K, 2], nearest first."""
    along = range(-half, half + 1)
    pairs = sorted(((y, x) for y in along for x in along), key=lambda p: p[0] ** 2 + p[1] ** 2)
    return torch.tensor(pairs)


def _nearest_rows(levels: Tensor, count: int) -> Tensor:
    """Return for each row of each matrix the nearest rows, itself first, [count, r, N²].

    Args:
        levels: [r, N², m], whole numbers 0 to 255, so that distances are exact.
        count: how many.
    """
    rows = levels.shape[1]
    squares = levels.square().sum(dim=2)
    distance = squares[:, None] + squares[..., None] - 2 * levels @ levels.mT
    number = torch.arange(rows, device=levels.device, dtype=torch.int32)
    key = distance.int() * rows + number[:, None]  # at most 2^31: m N² is at most 2^15
    key.diagonal(dim1=1, dim2=2).copy_(number - rows)  # below all others
    found = []
    for _ in range(count):
        nearest = (key.amin(dim=1) % rows).long()
        key.scatter_(1, nearest[:, None], torch.iinfo(torch.int32).max)
        found.append(nearest)
    return torch.stack(found)


def _take_rows(rows: Tensor, members: Tensor) -> Tensor:
    """Return rows [r, N², m] at members [r, N²]."""
    return rows.gather(1, members[..., None].expand(-1, -1, rows.shape[2]))


def _to_rows(group: Tensor, members: Tensor) -> Tensor:
    """Add groups [q, r, N², m] back to their rows and divide by how many each row got."""
    total, count = group.new_zeros(group.shape[1:]), group.new_zeros(group.shape[1:3])
    for values, member in zip(group, members, strict=True):
        total = total.scatter_add(1, member[..., None].expand_as(values), values)
        count = count.scatter_add(1, member, torch.ones_like(count))
    return total / count[..., None]
