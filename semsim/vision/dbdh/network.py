"""The network of DBDH, how its maps are read, and its loss."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice
from semsim.nn.geometry import region_mask
from semsim.nn.resnet import BasicBlock
from semsim.vision.dbdh.filters import FilterBank


def conv_bn_relu(before: int, after: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class AdditionSE(nn.Module):
    """Channel attention that adds: u + u * sigmoid(W2 relu(W1 mean(u))).

    Name found, form inferred.
    """

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(width // reduction, 4)
        self.gate = nn.Sequential(
            nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Sigmoid()
        )

    def forward(self, u: Tensor) -> Tensor:
        """Return u with channels amplified by 1 to 2."""
        return u + u * self.gate(u.mean(dim=(2, 3), keepdim=True))


class Rise(nn.Module):
    """One step up: twice the size, plus what a convolution makes of it and of a finer stage."""

    def __init__(self, finer: int, width: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(finer, width, 1)
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)  # begins as plain scaling

    def forward(self, coarse: Tensor, finer: Tensor) -> Tensor:
        """Return features [B, width, 2 H, 2 W] of [B, width, H, W] and [B, finer, 2 H, 2 W]."""
        up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return up + self.norm(self.conv(torch.relu(up + self.lateral(finer))))


class Context(nn.Module):
    """C1 to C3: ResNet18 stages, pooled context, additive attention, and the way up to a quarter.

        image ─► /2 ─► /4 ─(+ texture)─► stages /4, /8, /16, /32 ─► mean ─► 1 x 1 ──┐
                                           /16 ─► 1 x 1 ─► ASE ─► + ◄─ x2 ─ ASE ◄───+
                                          /4, /8 ─► 1 x 1 ─────►  └─► 3 x 3 ─► x2 ─► x2 ─► [B, width, H/4, W/4]

    Args:
        base: width of the first stage; it doubles at each.
        width: channels of the output.
        ase: whether attention is in.
        texture: channels of the texture features that enter at a quarter (inferred), or 0.
    """  # noqa: E501 - the diagram

    def __init__(self, base: int, width: int, ase: bool, texture: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn_relu(3, base, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.enter = nn.Conv2d(texture, base, 1, bias=False) if texture else None
        widths = [base, base, 2 * base, 4 * base, 8 * base]
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(a, b, 1 if i == 0 else 2, "none"), BasicBlock(b, b, 1, "none"))
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.pooled = nn.Conv2d(widths[4], width, 1)
        self.deep, self.middle = nn.Conv2d(widths[4], width, 1), nn.Conv2d(widths[3], width, 1)
        self.deep_gate, self.middle_gate = (
            AdditionSE(width) if ase else nn.Identity() for _ in range(2)
        )
        self.merge = conv_bn_relu(width, width, 3)
        self.rise8, self.rise4 = Rise(widths[2], width), Rise(widths[1], width)

    def forward(self, image: Tensor, texture: Tensor | None) -> Tensor:
        """Return context features [B, width, H/4, W/4]."""
        x, found = self.stem(image - 0.5), []
        if self.enter is not None and texture is not None:
            x = x + self.enter(texture)
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        deep = self.deep(found[3]) + self.pooled(found[3].mean(dim=(2, 3), keepdim=True))
        up = F.interpolate(self.deep_gate(deep), scale_factor=2, mode="nearest")
        merged = self.merge(up + self.middle_gate(self.middle(found[2])))
        return self.rise4(self.rise8(merged, found[1]), found[0])


PRESETS: dict[str, dict[str, Any]] = {
    "paper_size": {"texture": (64, 64, 128), "width": 128, "base": 64},
    "tiny": {"texture": (16, 32, 64), "width": 64, "base": 32},
}
Filters = Literal["all", "srm", "gabor", "none"]


class DBDH(nn.Module):
    """Photos to heat maps of the four corners of the embedded region, at a quarter of the size.

        image ─► 62 filters ─► 1 x 1 ─► 3 x 3 /2 ─► 3 x 3 /2 ─┐
              └► ResNet18 context, ASE ──────────────────────┴─► 1 x 1 ─► ASE ─┬─► corners [B, 4, H/4, W/4]
                                                                               └─► mask, in training

    Heights and widths are multiples of 32. ``paper_size`` has the widths of ResNet18 (the rest of
    it is inferred), ``tiny`` half of them.

    Args:
        preset: the widths.
        filters: which fixed filters, or ``none`` for no texture branch (ablation).
        luma: whether Y is filtered beside R, G and B.
        ase: whether channel attention is in.
        segmentation: whether the mask head is there; :meth:`deployed` removes it.
        cross: whether texture features also enter the context branch (inferred).
        zero_dc_gabor, trunc: see :class:`FilterBank`.
    """  # noqa: E501 - the diagram

    def __init__(
        self,
        preset: Literal["tiny", "paper_size"] = "tiny",
        *,
        filters: Filters = "all",
        luma: bool = True,
        ase: bool = True,
        segmentation: bool = True,
        cross: bool = True,
        zero_dc_gabor: bool = True,
        trunc: float | None = None,
    ) -> None:
        super().__init__()
        self.spec: dict[str, Any] = {"preset": preset, "filters": filters, "luma": luma, "ase": ase,
                     "segmentation": segmentation, "cross": cross, "zero_dc_gabor": zero_dc_gabor,
                     "trunc": trunc}  # fmt: skip
        check_choice("preset", preset, tuple(PRESETS))
        (mixed, half, fine), width, base = (
            PRESETS[preset][k] for k in ("texture", "width", "base")
        )
        self.texture: nn.Sequential | None = None
        if filters != "none":
            bank = FilterBank(
                mixed, filters=filters, luma=luma, zero_dc_gabor=zero_dc_gabor, trunc=trunc
            )
            self.texture = nn.Sequential(
                bank, nn.BatchNorm2d(mixed), nn.ReLU(inplace=True),
                conv_bn_relu(mixed, half, 3, 2), conv_bn_relu(half, fine, 3, 2),
            )  # fmt: skip
        fine = fine if self.texture is not None else 0
        self.context = Context(base, width, ase, fine if cross else 0)
        self.fuse = nn.Sequential(
            conv_bn_relu(width + fine, width, 1), AdditionSE(width) if ase else nn.Identity()
        )
        self.corners = nn.Sequential(conv_bn_relu(width, width, 3), nn.Conv2d(width, 4, 1))
        self.mask: nn.Sequential | None = None
        if segmentation:
            self.add_mask_head(width)

    def add_mask_head(self, width: int | None = None) -> None:
        """Put the training-only head on, untrained."""
        width = width or PRESETS[str(self.spec["preset"])]["width"]
        self.mask = nn.Sequential(conv_bn_relu(width, width // 2, 3), nn.Conv2d(width // 2, 1, 1))

    def deployed(self) -> DBDH:
        """Return the same network without the mask head, in evaluation mode."""
        network = DBDH(**{**self.spec, "segmentation": False})
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("mask.")}
        network.load_state_dict(state)
        return network.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return corner logits and, with the mask head, the mask's: [B, 4 or 5, H/4, W/4]."""
        if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % 32 or image.shape[3] % 32:
            raise ValueError(
                "DBDH reads images [B, 3, H, W] with H and W multiples of 32, got "
                f"{list(image.shape)}; crop or pad them"
            )
        fine = None if self.texture is None else self.texture(image)
        found = self.context(image, fine)
        fused = self.fuse(found if fine is None else torch.cat([fine, found], dim=1))
        maps = [self.corners(fused)] + ([] if self.mask is None else [self.mask(fused)])
        return torch.cat(maps, dim=1)

    def locate(self, image: Tensor, views: int = 1) -> Tensor:
        """Return the corners, clockwise from the top left, [B, 4, 2], in pixels.

        Args:
            image: [B, 3, H, W].
            views: 1, or 4 to look at the photo in all four turns and multiply the heat maps.
        """
        total = torch.zeros(())
        for turn in range(views):
            maps = self(image.rot90(turn, (2, 3)))[:, :4]
            heat = maps.flatten(2).log_softmax(dim=2).view_as(maps)
            total = total + heat.rot90(-turn, (2, 3)).roll(turn, dims=1)  # corners turn along
        return read_out(total)


SPREAD_CELLS = 1.0  # standard deviation of a target heat map, in its cells of four pixels


def _centres(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [1, 1, 1, w] and y [1, 1, h, 1] of the cells of heat maps, in pixels."""
    x = (torch.arange(maps.shape[3], device=maps.device, dtype=maps.dtype) + 0.5) * 4
    y = (torch.arange(maps.shape[2], device=maps.device, dtype=maps.dtype) + 0.5) * 4
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def read_out(maps: Tensor, reach: float = 14.0) -> Tensor:
    """Return corners [B, 4, 2] in pixels: the mean of each map around its peak (inferred).

    Args:
        maps: corner logits [B, 4, h, w]; their softmax over positions is the heat map.
        reach: half the side of the window around the peak, in pixels.
    """
    x, y = _centres(maps)
    heat = maps.flatten(2).softmax(dim=2)
    peak = heat.argmax(dim=2)[..., None, None]
    width = maps.shape[3]
    px, py = (peak % width + 0.5) * 4, (peak // width + 0.5) * 4
    near = ((x - px).abs() <= reach) & ((y - py).abs() <= reach)
    heat = heat.view(maps.shape) * near
    heat = heat / heat.sum(dim=(2, 3), keepdim=True)
    return torch.stack([(heat * x).sum(dim=(2, 3)), (heat * y).sum(dim=(2, 3))], dim=-1)


def localisation_loss(maps: Tensor, corners: Tensor, mask_weight: float = 1.0) -> Tensor:
    """Return the training loss, a scalar: corner heat maps and, where it is there, the mask.

    The heat map of a corner is a distribution over positions. Its cross-entropy to a Gaussian
    around the true corner plus the distance of its mean from it, in cells; for the mask BCE and
    1 - Dice. Found: corners from heat maps, pixel-level supervision by a mask. Inferred: the forms.

    Args:
        maps: [B, 4 or 5, h, w] from the network.
        corners: true ones, [B, 4, 2], in pixels.
        mask_weight: weight of the mask's loss.
    """
    x, y = _centres(maps)
    at = corners[..., None, None]  # [B, 4, 2, 1, 1]
    squared = (x - at[:, :, 0]).square() + (y - at[:, :, 1]).square()
    wanted = (-squared.flatten(2) / (2 * (4 * SPREAD_CELLS) ** 2)).softmax(dim=2)
    logits = maps[:, :4].flatten(2).log_softmax(dim=2)
    loss = -(wanted * logits).sum(dim=2).mean()
    heat = logits.exp().view_as(maps[:, :4])
    mean = torch.stack([(heat * x).sum(dim=(2, 3)), (heat * y).sum(dim=(2, 3))], dim=-1)
    loss = loss + (mean - corners).abs().mean() / 4
    if maps.shape[1] == 4:
        return loss
    size = (4 * maps.shape[2], 4 * maps.shape[3])
    logit = F.interpolate(maps[:, 4:], size, mode="bilinear", align_corners=False)[:, 0]
    mask = region_mask(corners, size)
    overlap = 2 * (logit.sigmoid() * mask).sum(dim=(1, 2)) + 1
    dice = overlap / (logit.sigmoid().sum(dim=(1, 2)) + mask.sum(dim=(1, 2)) + 1)
    bce = F.binary_cross_entropy_with_logits(logit, mask)
    return loss + mask_weight * (bce + 1 - dice.mean())
