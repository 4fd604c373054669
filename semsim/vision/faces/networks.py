"""Small verifiers of different architecture: faces in, embeddings of unit norm out.

    face ─► network ─► features ─► dense ─► BN ─► unit norm ─► embedding [B, 64]

They are trained here, on the payload ``faces``; none is a public recogniser.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice
from semsim.nn.resnet import BasicBlock

Kind = Literal["plain", "residual", "mobile", "vit"]
RATES = (0.01, 0.001)  #: of false acceptance, of the thresholds
WIDTHS = (16, 32, 64, 128)  #: channels at each scale


class Verifier(nn.Module):
    """One verifier with its thresholds.

    Args:
        kind: ``plain`` convolutions with PReLU, ``residual`` blocks, ``mobile`` (depth-wise,
            inverted), ``vit`` (patches of 8 pixels, attention).
        size: side of a face in pixels, a multiple of 8.
        width: of the embedding.
    """

    threshold: Tensor

    def __init__(self, kind: Kind = "plain", *, size: int = 48, width: int = 64) -> None:
        super().__init__()
        check_choice("verifier", kind, tuple(BODIES))
        if size % 8:
            raise ValueError(f"size is a multiple of 8, got {size}")
        self.kind, self.spec = kind, {"kind": kind, "size": size, "width": width}
        self.written_as = {"kind": "verifier"}  #: the keys of a scenario, for messages
        self.size = size
        self.body, features = BODIES[kind](size)
        self.out = nn.Sequential(
            nn.Linear(features, width, bias=False), nn.BatchNorm1d(width, affine=False)
        )
        #: cosines that an impostor exceeds once in a hundred, and once in a thousand
        self.register_buffer("threshold", torch.ones(2))

    def forward(self, face: Tensor) -> Tensor:
        """Return embeddings of unit norm, [B, width], of faces [B, 3, size, size] in [0, 1]."""
        if face.shape[-1] != self.size or face.shape[-2] != self.size:
            raise ValueError(
                f"the verifier takes faces of {self.size}x{self.size} pixels, got "
                f"{face.shape[-1]}x{face.shape[-2]}; write size: {self.size} in the payload"
            )
        face = face.contiguous(memory_format=torch.channels_last)
        return F.normalize(self.out(self.body(2 * face - 1)), dim=1)

    @torch.no_grad()
    def estimate_thresholds(self, embedded: Tensor, who: Tensor) -> None:
        """Let the thresholds follow the pairs of different people in a batch."""
        cosine = (embedded @ embedded.T)[who[:, None] != who]
        if len(cosine):
            found = torch.quantile(cosine, cosine.new_tensor([1 - rate for rate in RATES]))
            begun = bool((self.threshold < 1).any())
            self.threshold.lerp_(found, 0.05 if begun else 1.0)

    def feature_layers(self) -> list[nn.Module]:
        """Return the layers whose outputs are feature maps, first to last."""
        if self.kind == "vit":
            return [m for m in self.modules() if isinstance(m, nn.Conv2d | Block)]
        return [m for m in self.modules() if isinstance(m, nn.Conv2d)]


def plain(size: int) -> tuple[nn.Module, int]:
    """Return convolutions, two by two, each scale half as large."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((3, *WIDTHS)):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after),
            nn.PReLU(after),
        ]  # fmt: skip
        if before > 3:
            layers += [
                nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after),
                nn.PReLU(after),
            ]  # fmt: skip
    side = -(-size // 16)
    return nn.Sequential(*layers, nn.Flatten()), WIDTHS[-1] * side**2


def residual(size: int) -> tuple[nn.Module, int]:
    """Return residual blocks and the mean over the face."""
    blocks = [BasicBlock(a, b, 2, "none") for a, b in itertools.pairwise(WIDTHS)]
    stem = [nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    side = -(-size // 16)
    return nn.Sequential(*stem, *blocks, nn.Flatten()), WIDTHS[-1] * side**2


class Inverted(nn.Module):
    """Wider, depth-wise, narrower; with a sum where the shape stays."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = 3 * before
        self.sums = stride == 1 and before == after
        self.branch = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.PReLU(wide), nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, after, H / stride, W / stride]."""
        return x + self.branch(x) if self.sums else self.branch(x)


def mobile(size: int) -> tuple[nn.Module, int]:
    """Return inverted blocks, and a depth-wise layer as wide as what is left of the face."""
    stem = [nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16)]
    blocks: list[nn.Module] = []
    for before, after in itertools.pairwise((16, 32, 48, 64)):
        blocks += [Inverted(before, after, 2), Inverted(after, after, 1)]
    side = -(-size // 16)
    last = [nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128), nn.PReLU(128),
            nn.Conv2d(128, 128, side, groups=128, bias=False), nn.BatchNorm2d(128)]  # fmt: skip
    return nn.Sequential(*stem, *blocks, *last, nn.Flatten()), 128


class Block(nn.Module):
    """Attention over patches and a dense pair, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens [B, N, width]."""
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.dense(self.between(x))


class Tokens(nn.Module):
    """Patches of 8 pixels as tokens, with a learned place each, and blocks."""

    def __init__(self, size: int, width: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, stride=8)
        self.place = nn.Parameter(0.02 * torch.randn(1, (size // 8) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, tokens * width]."""
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.norm(self.blocks(tokens)).flatten(1)


def vit(size: int) -> tuple[nn.Module, int]:
    """Return a small vision transformer."""
    return Tokens(size), 96 * (size // 8) ** 2


BODIES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "plain": plain, "residual": residual, "mobile": mobile, "vit": vit,
}  # fmt: skip


class MarginHead(nn.Module):
    """Cosines to a direction per person, the right one lowered by a margin (CosFace).

    Args:
        people: to train on.
        width: of embeddings.
        scale, margin: of the logits.

    Source: Wang and others, CosFace: large margin cosine loss for deep face recognition (2018).
    """

    def __init__(self, people: int, width: int, scale: float = 20.0, margin: float = 0.2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(people, width))
        self.scale, self.margin = scale, margin

    def forward(self, embedding: Tensor, who: Tensor) -> Tensor:
        """Return the cross-entropy in nats, a scalar, of embeddings [B, width]."""
        if int(who.max()) >= len(self.weight):
            raise ValueError(
                f"person {int(who.max())} is none of the {len(self.weight)} of the margin head; "
                f"write people: {int(who.max()) + 1} or more in the task"
            )
        cosine = embedding @ F.normalize(self.weight, dim=1).T
        right = F.one_hot(who, len(self.weight)).to(cosine.dtype)
        return F.cross_entropy(self.scale * (cosine - self.margin * right), who)
