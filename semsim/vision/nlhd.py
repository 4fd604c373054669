"""NLHD: a low-light photo brightened by a Retinex model of non-local groups of similar pixels.

    V = max(R, G, B) ──► groups of similar pixels ──Haar──┬─ C00 ──► L ──► min(exp, log) ──► L' ─┐
                                                          └─ rest ─► D ──► R = 1 + D / (L + ε) ──┴─► V' = L' R

Found in the paper: pixel groups as in NLH, a separable Haar transform, the lowest coefficient as
illumination and all others as reflectance, the minimum of an exponential and a logarithmic curve,
noise suppression by the local noise level, and non-local saturation reduction. Its parameters and
tables could not be read. Adjacent, from the published code of NLH: grouping and noise estimator.
Inferred: every default of :class:`Enhance` and the rules in whose text this is said.

Source: Hou, Hou, Shi, Wei, Xu, NLHD: a pixel-level non-local Retinex model for low-light image
enhancement (2021); Hou, Xu, Liu, Liu, Liu, Zhu, Shao, NLH: a blind pixel-level non-local method for
real-world image denoising (2020).
"""  # noqa: E501 - the diagram

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from semsim.metrics.base import Metric, Outcome
from semsim.metrics.image import TaskPSNR, images
from semsim.payloads.folder import Folder
from semsim.payloads.images import ImagePayload, check_counts, to_float, window
from semsim.payloads.photos import Photos
from semsim.seeds import stream
from semsim.tasks.processing import Place, Processing

EPSILON = 1 / 255  #: one step of 8 bits: keeps the ratio finite in black
NEAREST = 0.8  #: distance to the nearest of the other rows, over sigma, as NLH has it
TILE = 32  # reference blocks side by side that are matched at once
CHUNK = 128  # reference blocks transformed at once on a CPU: what a core's cache holds
CHUNK_GPU = 4096
PIXELS = 2**18  # pixels of a batch that are enhanced at once


# ---- groups of similar pixels ------------------------------------------------------------------


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


# ---- decomposition, noise, curves, saturation ----------------------------------------------------


def decompose(
    image: Tensor, groups: Groups | None = None, limits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return illumination L and detail D of an image [B, 1, H, W]; without limits, L + D = image.

    L is what the lowest Haar coefficient of every group rebuilds, D what all others do. Transform
    and aggregation are linear, so without limits D is the image less L.

    Args:
        image: one channel, in [0, 1] where the groups are to be found in it.
        groups: similar pixels; found in the image itself where None.
        limits: [R], for each reference the magnitude below which a coefficient counts as noise.
    """
    groups = groups or Groups(image)
    illumination = groups.mean(image)
    if limits is None:
        return illumination, image - illumination

    def shrink(coefficients: Tensor, chunk: slice) -> Tensor:
        kept = coefficients * (coefficients.abs() >= limits[chunk, None, None])
        kept[0, :, :, 0] = 0
        return kept

    return illumination, groups.filter(image, shrink)


@dataclass(frozen=True)
class NoiseLevel:
    """Standard deviations of noise, in units of the image's range [0, 1].

    Args:
        overall: of each image, refined, [B].
        unrefined: the same before refinement, [B].
        local: a map, [B, 1, H, W].
        blocks: of each reference block, [R].
    """

    overall: Tensor
    unrefined: Tensor
    local: Tensor
    blocks: Tensor


def noise_level(image: Tensor, groups: Groups | None = None) -> NoiseLevel:
    """Estimate noise by the distance of each row to the nearest other one, as NLH does.

        sigma = mean of sqrt(d² / m) / 0.8

    Refined, the mean is over blocks whose rows lie as near as noise alone would have them, which
    leaves texture out. Adjacent: all of it; the limit is scaled from m = 16 to any m here.

    Args:
        image: [B, 1, H, W] in [0, 1].
        groups: where blocks alike lie; found in the image itself where None.
    """
    groups = groups or Groups(image)
    squared = [_nearest_distance(rows) for _, rows in groups.cut(image)]
    distance = torch.cat(squared)  # [R, N²], mean over m
    blocks = distance.sqrt().mean(dim=1) / NEAREST
    unrefined = overall = blocks.view(len(image), -1).mean(dim=1)
    mean_square = distance.mean(dim=1).view(len(image), -1)
    for number in range(2):
        level = 255 * overall
        k = 0.95 + 0.05 * (level > 20) + 0.05 * (level > 50)
        limit = overall.square() * (1.74e-4 * 255**2 / 16) * k
        kept = (mean_square <= limit[:, None]).to(blocks)
        sums, count = (kept * blocks.view_as(kept)).sum(dim=1), kept.sum(dim=1)
        again = (count > 0) & (level <= (70 if number else math.inf))
        overall = torch.where(again, sums / count.clamp(min=1), overall)
    return NoiseLevel(overall, unrefined, groups.map(blocks), blocks)


def _nearest_distance(rows: Tensor) -> Tensor:
    """Return the mean squared distance of each row to the nearest other one, [r, N²]."""
    levels = (rows.detach().clamp(0, 1) * 255).round().float()
    nearest = _nearest_rows(levels, 2)[1]
    return (rows - _take_rows(rows, nearest)).square().mean(dim=2)


Fusion = Literal["min", "exp", "log"]


def brighten(illumination: Tensor, gamma: float, alpha: float, fusion: Fusion = "min") -> Tensor:
    """Return the enhanced illumination L' of L in [0, 1].

        L_exp = L^gamma      L_log = ln(1 + alpha L) / ln(1 + alpha)      L' = min(L_exp, L_log)

    Where the curves cross, the logarithm rules below and the power above.
    """
    power = illumination.clamp(0, 1).pow(gamma)
    logarithm = torch.log1p(alpha * illumination.clamp(0, 1)) / math.log1p(alpha)
    if fusion == "min":
        return torch.minimum(power, logarithm)
    return power if fusion == "exp" else logarithm


def saturation(image: Tensor) -> Tensor:
    """Return the HSV saturation [B, 1, H, W] of images [B, 3, H, W]; 0 where black."""
    most, least = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    return (most - least) / most.clamp(min=torch.finfo(image.dtype).tiny)


def desaturate(image: Tensor, dark: Tensor, groups: Groups, below: float = 0.1) -> Tensor:
    """Pull the saturation of very dark places down to that of their groups; never up.

        S_out = S + w (min(S, κ S_nl) - S),   S_nl the mean of S over the pixel's groups

    Hue and value stay. Inferred: κ = clip(2 mean(dark) / below, 0.4, 1), and w, which falls from 1
    to 0 where the dark image rises from below / 2 to below.

    Args:
        image: after enhancement, [B, 3, H, W].
        dark: illumination before it, [B, 1, H, W].
        groups: those of the dark image.
        below: illumination from which on nothing is changed.
    """
    tiny = torch.finfo(image.dtype).tiny
    before = saturation(image)
    kappa = (2 / below * dark.mean(dim=(1, 2, 3), keepdim=True)).clamp(0.4, 1)
    weight = (2 - 2 / below * dark).clamp(0, 1)
    goal = torch.minimum(before, kappa * groups.mean(before)) / before.clamp(min=tiny)
    value = image.amax(dim=1, keepdim=True)
    return value - (value - image) * torch.lerp(torch.ones_like(goal), goal, weight)


# ---- task ----------------------------------------------------------------------------------------

Reflectance = Literal["ratio", "log"]
Colour = Literal["rgb", "hsv"]


class Enhance(Processing):
    """Brighten low-light images by NLHD, a non-local Haar Retinex.

    Alone, ``Enhance()(dark)`` takes and returns images [B, 3, H, W] in [0, 1].

    All defaults are inferred, or adjacent where :class:`Grouping` says so: curves, noise rules and
    colour were chosen on photos of BSDS500 train, darkened by :func:`darken`.

    Args:
        at: at which end of a link; ``process`` does not ask.
        gamma: exponent of the power curve, below 1.
        alpha: bend of the logarithmic curve; with gamma it says where the two cross.
        fusion: ``min`` of both curves, or one of them alone.
        reflectance: ``ratio``, R = 1 + D / (L + ε); or ``log``, where the same groups decompose
            ln(S + ε) and so L is a geometric mean.
        colour: ``rgb``, each channel by itself in groups found on V; or ``hsv``, V alone, with R, G
            and B scaled as V is, about twice as fast, but colour noise stays.
        threshold: coefficients below so many sigma of noise are dropped; 0 for no suppression.
        dark: mean V below which all of an image is suppressed.
        noisy: elsewhere, ratio of noise to illumination above which a block is.
        desaturate_below: illumination below which saturation is reduced; 0 for nowhere.
        block, window, blocks, rows, step: see :class:`Grouping`; step 8 is the fast mode.
    """

    def __init__(
        self,
        at: Place = "receiver",
        *,
        gamma: float = 0.3,
        alpha: float = 100.0,
        fusion: Fusion = "min",
        reflectance: Reflectance = "ratio",
        colour: Colour = "rgb",
        threshold: float = 2.7,
        dark: float = 0.12,
        noisy: float = 0.1,
        desaturate_below: float = 0.1,
        block: int = 8,
        window: int = 39,
        blocks: int = 16,
        rows: int = 4,
        step: int = 4,
    ) -> None:
        super().__init__(at)
        _check_one_of(fusion=(fusion, Fusion), colour=(colour, Colour))
        _check_one_of(reflectance=(reflectance, Reflectance))
        if not 0 < gamma < 1 or not alpha > 0:
            raise ValueError(f"0 < gamma < 1 and alpha > 0 brighten; got {gamma} and {alpha}")
        for name, value in (("threshold", threshold), ("desaturate_below", desaturate_below)):
            if value < 0:
                raise ValueError(f"{name} is 0 (off) or more, got {value}")
        self.gamma, self.alpha, self.fusion = gamma, alpha, fusion
        self.reflectance, self.colour = reflectance, colour
        self.threshold, self.dark, self.noisy = threshold, dark, noisy
        self.desaturate_below = desaturate_below
        self.grouping = Grouping(block, window, blocks, rows, step)

    def process(self, image: Tensor) -> Tensor:
        """Return the brightened image [B, 3, H, W] of an image [B, 3, H, W] in [0, 1]."""
        if image.dim() != 4 or image.shape[1] != 3:
            raise ValueError(f"images are [B, 3, H, W] in [0, 1], got {list(image.shape)}")
        at_once = max(1, PIXELS // math.prod(image.shape[2:]))
        return torch.cat([self._process(part) for part in image.clamp(0, 1).split(at_once)])

    def _process(self, image: Tensor) -> Tensor:
        value = image.amax(dim=1, keepdim=True)
        groups = Groups(value, self.grouping)
        everywhere = value.mean(dim=(1, 2, 3)) < self.dark
        if self.colour == "rgb":
            channels = [self._brighten(c, groups, everywhere) for c in image.split(1, dim=1)]
            bright = torch.cat(channels, dim=1)
        else:
            out = self._brighten(value, groups, everywhere)
            share = image / value.clamp(min=torch.finfo(value.dtype).tiny)
            bright = out * torch.where(value > 0, share, 1)  # black has no hue: grey
        if self.desaturate_below:
            bright = desaturate(bright, groups.mean(value), groups, self.desaturate_below)
        return bright

    def _brighten(self, channel: Tensor, groups: Groups, everywhere: Tensor) -> Tensor:
        """Return one channel [B, 1, H, W] after enhancement, in [0, 1]."""
        limits = self._limits(channel, groups, everywhere) if self.threshold else None
        if self.reflectance == "ratio":
            illumination, detail = decompose(channel, groups, limits)
            reflectance = 1 + detail / (illumination + EPSILON)
        else:
            if limits is not None:  # d ln(S + ε) = dS / (S + ε)
                limits = limits / (groups.per_block(channel) + EPSILON)
            of_log = decompose((channel + EPSILON).log(), groups, limits)
            illumination, reflectance = of_log[0].exp() - EPSILON, of_log[1].exp()
        curve = brighten(illumination, self.gamma, self.alpha, self.fusion)
        return (curve * reflectance).clamp(0, 1)

    def _limits(self, channel: Tensor, groups: Groups, everywhere: Tensor) -> Tensor:
        """Return the least coefficient that is no noise, for each reference, [R].

        Inferred: no block counts as noisier than the refined level of its image, since what lies
        above it is texture.
        """
        noise = noise_level(channel, groups)
        per_image = len(groups) // len(channel)
        sigma = torch.minimum(noise.blocks, noise.overall.repeat_interleave(per_image))
        light = groups.per_block(channel).clamp(min=EPSILON)
        active = everywhere.repeat_interleave(per_image) | (sigma > self.noisy * light)
        return self.threshold * sigma * active


def _check_one_of(**choices: tuple[str, object]) -> None:
    for name, (value, known) in choices.items():
        if value not in get_args(known):
            raise ValueError(f"{name} is one of {', '.join(get_args(known))}, got {value!r}")


# ---- payload -------------------------------------------------------------------------------------

DARKNESS = (0.05, 0.4)
NOISE = (0.001, 0.004)
Split = Literal["train", "val", "test"]
LOL_FOLDERS = {"train": ("our485", "train"), "val": ("val",), "test": ("eval15", "test")}


def darken(
    image: Tensor,
    generator: torch.Generator,
    *,
    darkness: tuple[float, float] = DARKNESS,
    noise: tuple[float, float] = NOISE,
) -> Tensor:
    """Return a photo as a camera might see it at night, rounded to 8 bits.

        S = k m I^1.5 + n,   variance of n = shot k m I^1.5 + read²

    Inferred: log k is uniform; m is a smooth map between 0.5 and 1, all channels alike.

    Args:
        image: a normally lit photo I, [3, H, W] in [0, 1].
        generator: draws k, m and n, on the CPU.
        darkness: least and largest k.
        noise: shot, in units of full scale, and read, a standard deviation; (0, 0) for none.
    """
    low, high = (math.log(k) for k in darkness)
    k = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
    lamps = 0.5 + 0.5 * torch.rand(1, 1, 3, 3, generator=generator)
    light = F.interpolate(lamps, size=image.shape[1:], mode="bilinear", align_corners=True)[0]
    clean = k * light * image.pow(1.5)
    sigma = (noise[0] * clean + noise[1] ** 2).sqrt()
    dark = clean + sigma * torch.randn(image.shape, generator=generator)
    return (dark.clamp(0, 1) * 255).round() / 255


class LowLight(ImagePayload):
    """Low-light photos, and as target the same scene in good light.

    Without ``path`` the bundled photos, darkened by :func:`darken`. A ``path`` may be a copy of
    LOL, {our485,eval15}/{low,high} or {train,val,test}/{low,high}; a folder with low and high of
    its own; or a folder of low-light images without any reference, such as LIME, NPE, DICM, MEF, VV
    or NASA: its targets are empty, so that metrics that need a reference refuse it.

    Args:
        path: the folder.
        split: of a copy of LOL; test, which is eval15, where None.
        darkness: least and largest factor of :func:`darken`. Given with ``path``, the folder holds
            well-lit photos, which are darkened.
        noise: shot and read noise of :func:`darken`; inferred (0.001, 0.004) where None.
        resize: scale the shorter side to this many pixels, before anything is darkened.
        crop: cut a square with this side in pixels from the centre.
        count: how many items; more than there are photos only where they are darkened, each time
            differently.
        seed: decides the darkening, together with the index.

    Source: Wei, Wang, Yang, Liu, Deep Retinex decomposition for low-light enhancement (2018), LOL.
    """

    name = "lowlight"

    def __init__(
        self,
        path: str | None = None,
        *,
        split: Split | None = None,
        darkness: tuple[float, float] | None = None,
        noise: tuple[float, float] | None = None,
        resize: int | None = None,
        crop: int | None = None,
        count: int | None = None,
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        self._darkens = path is None or darkness is not None
        if self._darkens and split is not None:
            raise ValueError(f"split {split} is of a copy of LOL, whose photos are dark already")
        if not self._darkens and noise is not None:
            raise ValueError("noise is of photos that are darkened; give darkness, or no noise")
        self.seed, self._darkness, self._noise = seed, darkness or DARKNESS, noise or NOISE
        _check_darkness(self._darkness, self._noise)
        self._dark: ImagePayload
        self._bright: ImagePayload | None
        if path is None:
            self._dark = self._bright = Photos(resize=resize, crop=crop)
        elif self._darkens:
            self._dark = self._bright = Folder(path, resize=resize, crop=crop)
        else:
            found = [Folder(str(f), resize=resize, crop=crop) for f in _folders(Path(path), split)]
            _check_pairs(found)
            self._dark, self._bright = found[0], found[1] if len(found) > 1 else None
        total = len(self._dark)
        self._count = count or total
        if not self._darkens:
            window(total, 0, count, self.name)

    def __len__(self) -> int:
        return self._count

    def check_files(self) -> tuple[int, int] | None:
        """Return the size of the largest image after looking at the header of every file."""
        largest = None
        for folder in (self._bright, self._dark):
            if look := getattr(folder, "check_files", None):
                largest = look()
        return largest

    def pixels(self, index: int) -> Tensor:
        """Return one low-light image, uint8 [3, H, W]."""
        pixels = self._dark.pixels(index % len(self._dark))
        if not self._darkens:
            return pixels
        generator = stream(self.seed, "lowlight", index)
        dark = darken(to_float(pixels), generator, darkness=self._darkness, noise=self._noise)
        return (dark * 255).round().to(torch.uint8)

    def _item(self, source: Tensor, index: int) -> tuple[Tensor, Tensor]:
        if self._bright is None:
            return source, source.new_empty(0)
        target = to_float(self._bright.pixels(index % len(self._bright)))
        if target.shape != source.shape:
            raise ValueError(
                f"item {index} is {list(source.shape)} in low and {list(target.shape)} in high "
                "light; a pair shows the same pixels"
            )
        return source, target


def _check_darkness(darkness: tuple[float, float], noise: tuple[float, float]) -> None:
    if not 0 < darkness[0] <= darkness[1] <= 1:
        raise ValueError(
            f"darkness is [least, largest], 0 < least <= largest <= 1, got {list(darkness)}"
        )
    if min(noise) < 0:
        raise ValueError(f"noise is [shot, read], neither below 0, got {list(noise)}")


def _folders(path: Path, split: Split | None) -> list[Path]:
    """Return the folder of dark images, and that of their references where there is one."""
    if not path.is_dir():
        return [path]  # Folder says what is wrong
    known = [name for names in LOL_FOLDERS.values() for name in names]
    there = [name for name in known if (path / name / "low").is_dir()]
    if there:
        wanted = [path / n for n in LOL_FOLDERS[split or "test"] if n in there]
        if not wanted:
            raise ValueError(f"split {split or 'test'}: {path} has only {', '.join(there)}")
        return [wanted[0] / "low", wanted[0] / "high"]
    if split is not None:
        raise ValueError(
            f"split {split}: {path} is no copy of LOL, which has {' or '.join(LOL_FOLDERS[split])} "
            "with low and high inside"
        )
    return [path / "low", path / "high"] if (path / "low").is_dir() else [path]


def _check_pairs(folders: list[Folder]) -> None:
    stems = [{file.stem for file in folder.files} for folder in folders]
    alone = sorted(stems[0] ^ stems[-1])
    if alone:
        where = "low" if alone[0] in stems[0] else "high"
        raise ValueError(
            f"images in low and high have the same names, but {alone[0]} is only in {where} "
            f"of {folders[0].files[0].parents[1]}"
        )


# ---- metrics -------------------------------------------------------------------------------------


class MatchedPSNR(TaskPSNR):
    """PSNR of the task after one gain has made the image's mean that of the reference.

    Plain PSNR of brightened images mostly says how far the brightness is off.
    """

    name, label = "matched_psnr", ""

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the PSNR of each image in dB, [B]."""
        image, _ = matched(*images(outcome, self.name, of="task"))
        return super().__call__(replace(outcome, output=image / 255))


class FlatNoise(Metric):
    """Noise where the reference is flat: standard deviation of grey, in units of the last bit.

    Mean over the flattest fifth of the reference's blocks of 8x8 pixels, after the gain of
    :class:`MatchedPSNR`, or a dark image would look clean.
    """

    name = "flat_noise"
    better = "lower"

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the standard deviation of each image, [B]."""
        pair = matched(*images(outcome, self.name, 8, of="task"))
        spread, flatness = (_block_std(image.mean(dim=1)) for image in pair)
        fifth = flatness.argsort(dim=1)[:, : math.ceil(flatness.shape[1] / 5)]
        return spread.gather(1, fifth).mean(dim=1)


class LightnessOrder(Metric):
    """Lightness order error: share of pairs of pixels whose order differs from the reference's.

    Lightness is max(R, G, B); the pixels are a grid of about 50 x 50.

    Source: Wang, Zheng, Hu, Li, Naturalness preserved enhancement algorithm for non-uniform
    illumination images (2013), where it is counted against the dark input.
    """

    name = "lightness_order"
    better = "lower"
    worst = 0.5

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return the share for each image, [B]."""
        return lightness_order(*images(outcome, self.name, of="task"))


def matched(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image [B, 3, H, W] in 0 .. 255 with the mean of the reference, and that."""
    means = (x.mean(dim=(1, 2, 3), keepdim=True) for x in (reference, image.clamp(min=1e-3)))
    return (image * (next(means) / next(means))).clamp(max=255), reference


def lightness_order(image: Tensor, reference: Tensor) -> Tensor:
    """Return the share of pixel pairs that two images [B, 3, H, W] order differently, [B]."""
    stride = max(1, min(image.shape[2:]) // 50)
    grids = (x[:, :, ::stride, ::stride].amax(dim=1).flatten(1) for x in (image, reference))
    orders = [grid[:, :, None] >= grid[:, None] for grid in grids]
    return (orders[0] != orders[1]).float().mean(dim=(1, 2))


def _block_std(grey: Tensor) -> Tensor:
    """Return the standard deviation in each block of 8x8 pixels, [B, blocks]."""
    blocks = grey.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    return blocks.std(dim=3, correction=0).flatten(1)
