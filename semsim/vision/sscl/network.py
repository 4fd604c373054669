"""The encoder of tiles with its linear head, and what is beside it in training alone."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_choice
from semsim.nn.resnet import BasicBlock

Base = Literal["byol", "simsiam"]
WIDTHS = {"tiny": (16, 32, 64, 128), "resnet18": (64, 128, 256, 512)}  #: channels at each scale


class SiteNet(nn.Module):
    """Tiles to embeddings, embeddings to scores.

        tile ─► 3 x 3 / 2 ─► residual blocks, halved at each width ─► mean ─► BN ─► unit rms ─► embedding
        embedding ─► dense ─► score ─► less two thresholds ─► [B, 2]

    An embedding has unit root mean square, so that it can be sent as it is; normalised over tiles
    before, so that no power goes into what all tiles share.

    Args:
        preset: ``tiny`` (inferred) or the widths of ``resnet18``.
        blocks: residual blocks per width.
    """  # noqa: E501 - the diagram

    offset: Tensor

    def __init__(self, preset: Literal["tiny", "resnet18"] = "tiny", *, blocks: int = 1) -> None:
        super().__init__()
        check_choice("preset", preset, tuple(WIDTHS))
        self.spec = {"preset": preset, "blocks": blocks}
        widths = WIDTHS[preset]
        self.width = widths[-1]
        self.encoder = Encoder(widths, blocks)
        self.head = nn.Linear(self.width, 1)
        #: thresholds on the score: of the best balanced accuracy, and of a fixed specificity
        self.register_buffer("offset", torch.zeros(2))

    def embed(self, image: Tensor) -> Tensor:
        """Return embeddings of unit rms, [B, width], of tiles [B, 3, H, W] in [0, 1]."""
        return unit_rms(self.encoder(image))

    def score(self, embedding: Tensor) -> Tensor:
        """Return scores less both thresholds, [B, 2], of embeddings [B, width]."""
        return self.head(embedding) - self.offset

    def forward(self, image: Tensor) -> Tensor:
        """Return scores [B, 2]: above 0 there is a site."""
        return self.score(self.embed(image))


class Encoder(nn.Module):
    """Residual blocks and the mean over the tile; see :class:`SiteNet`."""

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        layers = [BasicBlock(widths[0], widths[0], 1, "none") for _ in range(blocks)]
        for before, after in itertools.pairwise(widths):
            layers.append(BasicBlock(before, after, 2, "none"))
            layers += [BasicBlock(after, after, 1, "none") for _ in range(blocks - 1)]
        self.body = nn.Sequential(*layers)
        self.centre = nn.BatchNorm1d(widths[-1], affine=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return features [B, widths[-1]]."""
        image = image.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        return self.centre(self.body(self.stem(2 * image - 1)).mean(dim=(2, 3)))


class Learner(nn.Module):
    """What learns beside the encoder: projector, predictor, target network, queue.

    Args:
        network: whose encoder the target network follows.
        base: ``byol`` with a target network that follows, or ``simsiam`` without.
        queue: embeddings of unlabelled tiles that are kept for the ranking.
        hidden, width: of projector and predictor.
    """

    queue: Tensor
    filled: Tensor
    place: Tensor
    ran: Tensor

    def __init__(
        self,
        network: SiteNet,
        base: Base = "byol",
        *,
        queue: int = 4096,
        hidden: int = 256,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.projector = mlp(network.width, hidden, width)
        self.predictor = mlp(width, hidden, width)
        self.target: nn.ModuleList | None = None
        if base == "byol":
            self.target = nn.ModuleList(copy.deepcopy(m) for m in self._online(network))
            self.target.requires_grad_(False)
        self.register_buffer("queue", torch.zeros(queue, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        #: 1 once it took part in a loss; a buffer, for a training that goes on at its last step
        self.register_buffer("ran", torch.zeros((), dtype=torch.long))

    def _online(self, network: SiteNet) -> list[nn.Module]:
        return [network.encoder, self.projector]

    @torch.no_grad()
    def aims(self, network: SiteNet, images: Tensor, projected: Tensor) -> Tensor:
        """Return what predictions aim at, unit norm [B, width]: the target network's view.

        Args:
            network: the online one.
            images: views, [B, 3, H, W].
            projected: what the online projector made of them, which SimSiam takes.
        """
        if self.target is None:
            return F.normalize(projected.detach(), dim=1)
        encoder, projector = self.target
        return F.normalize(projector(unit_rms(encoder(images))), dim=1)

    @torch.no_grad()
    def follow(self, network: SiteNet, progress: float) -> None:
        """Let the target network follow the online one; slower towards the end of the training."""
        if self.target is None:
            return
        momentum = 1 - 0.01 * (math.cos(math.pi * min(progress, 1.0)) + 1) / 2
        for mine, theirs in zip(self.target, self._online(network), strict=True):
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                a.lerp_(b, 1 - momentum)

    @torch.no_grad()
    def keep(self, embeddings: Tensor) -> None:
        """Let embeddings [N, width] replace the oldest of the queue."""
        size = len(self.queue)
        embeddings = embeddings[-size:]
        at = (self.place + torch.arange(len(embeddings), device=self.queue.device)) % size
        self.queue[at] = embeddings
        self.place.copy_((self.place + len(embeddings)) % size)
        self.filled.copy_((self.filled + len(embeddings)).clamp(max=size))

    def kept(self) -> Tensor:
        """Return what the queue holds, [n, width]."""
        return self.queue[: int(self.filled)]


def mlp(before: int, hidden: int, after: int) -> nn.Sequential:
    """Return a dense layer, normalisation, ReLU and a dense layer."""
    return nn.Sequential(
        nn.Linear(before, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, after),
    )  # fmt: skip


def unit_rms(x: Tensor) -> Tensor:
    """Return items [B, D] scaled to a root mean square of 1."""
    return F.normalize(x, dim=1) * math.sqrt(x.shape[1])
