"""The task: find the hidden code in what arrives, rectify it, read the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from semsim.nn.geometry import rectify, square
from semsim.tasks.base import Task
from semsim.vision.dbdh.embedders import (
    SIDE,
    Embedding,
    check_embedding,
    make_embedder,
    read_message,
)
from semsim.vision.dbdh.message import BITS
from semsim.vision.dbdh.network import DBDH, localisation_loss


class Localise(Task):
    """Find the four corners of the hidden code, rectify, read the message.

    The output is [B, 69]: eight coordinates, 30 bits as read, the 30 bits corrected, and whether
    they pass the code check.

    Args:
        at: ``receiver`` localises in what the link delivers. ``sender`` localises before the link,
            sends only the upright crop of 64 x 64 pixels, and the receiver reads the bits from it;
            the eight coordinates reach the receiver without errors and cost nothing here (at 10
            bits each they are 80 bits). ``none`` guesses: a centred square of 0.55 of the side.
        weights: name of shipped weights or a .safetensors file; ``auto`` takes those that were
            trained on the embedder's codes, None starts a fresh network.
        trainable: train the network, with a fresh mask head; mirror no photos then
            (``train: {flip: false}``), because the corners would stay where they are.
        preset: size of the network.
        views: 4 looks at each photo in four turns, at four times the cost; 1 looks once.
        embedder: whose message is read.
        key: key of ``spread``.
    """

    def __init__(
        self,
        at: Literal["sender", "receiver", "none"] = "receiver",
        *,
        weights: str | None = "auto",
        trainable: bool = False,
        preset: Literal["tiny", "paper_size"] = "tiny",
        views: Literal[1, 4] = 4,
        embedder: Embedding = "pimog",
        key: int = 0,
    ) -> None:
        from semsim import zoo

        super().__init__()
        if at not in ("sender", "receiver", "none"):
            raise ValueError(f"at is sender, receiver or none, got {at!r}")
        if weights is None and not trainable:
            raise ValueError("weights null is a fresh network; train it with trainable: true")
        if trainable and at != "receiver":
            raise ValueError(f"a trainable localiser is at: receiver, got at: {at}")
        if views not in (1, 4):
            raise ValueError(f"views is 1 or 4, got {views}")
        self.at, self.trainable, self.views = at, trainable, views
        self.method, self._embedding = make_embedder(embedder, key), (embedder, key)
        self.network = DBDH(preset, segmentation=False)
        if weights is not None:
            name = f"dbdh-{embedder}" if weights == "auto" else weights
            zoo.load_parts(name, {"network": self.network})
        if trainable:
            self.network.add_mask_head()
        self.network.requires_grad_(trainable)
        self._sent: Tensor | None = None
        self.train(self.training)

    def train(self, mode: bool = True) -> Localise:
        """Set training mode; a frozen network and the embedder stay in evaluation mode."""
        super().train(mode)
        self.network.train(mode and self.trainable)
        self.method.eval()
        return self

    def check_payload(self, payload: Any) -> None:
        """Raise ValueError where the payload's codes are those of another embedder."""
        check_embedding(payload, *self._embedding, "task")

    def prepare(self, source: Tensor) -> Tensor:
        """Return what goes into the link: the photo, or at the sender the upright crop."""
        if self.at != "sender":
            return source
        self._sent = self.network.locate(source, self.views)
        return rectify(source, self._sent, SIDE)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return corners, bits, corrected bits and the check, [B, 69]; corner maps in training."""
        if self.network.training:
            return self.network(estimate)
        if self.at == "sender":
            if self._sent is None or len(self._sent) != len(estimate):
                raise ValueError("at: sender needs prepare(source) before the link, per batch")
            corners, within = self._sent, whole(estimate)
        else:
            corners = within = (
                self.network.locate(estimate, self.views)
                if self.at == "receiver"
                else guess(estimate)
            )
        bits, word, passed = read_message(self.method, estimate, within)
        return torch.cat([corners.flatten(1), bits, word, passed[:, None].float()], dim=1)

    def picture(self, estimate: Tensor, output: Tensor) -> Tensor:
        """Return photos with the outline found in them, [B, 3, H, W]; at the sender the crops."""
        quad = whole(estimate) if self.at == "sender" else output[:, :8].view(-1, 4, 2)
        return draw_outline(estimate, quad)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the localisation loss of the corner maps; see :func:`localisation_loss`."""
        corners = true_corners(target)
        if output.dim() != 4:
            raise ValueError("localise trains with trainable: true and weights or none")
        return localisation_loss(output, corners)


def true_corners(target: Tensor) -> Tensor:
    if target.dim() != 2 or target.shape[1] != 8 + BITS or not target.is_floating_point():
        raise ValueError(
            "hidden codes are judged against eight coordinates and 30 bits, as payload dbdh has "
            f"them; this payload's target is {target.dtype} {list(target.shape)}"
        )
    return target[:, :8].view(-1, 4, 2)


def guess(image: Tensor) -> Tensor:
    """Return the middle square of 0.55 of the side: what is known without looking, [B, 4, 2]."""
    side = image.shape[-1]
    corners = 0.225 * side + square(0.55 * side, image)
    return corners.expand(len(image), -1, -1)


def whole(crop: Tensor) -> Tensor:
    return square(crop.shape[-1], crop).expand(len(crop), -1, -1)


def draw_outline(image: Tensor, quad: Tensor, colour: Sequence[float] = (1, 0.85, 0)) -> Tensor:
    """Return images with the outline of a quadrilateral, one and a half pixels wide."""
    height, width = image.shape[2:]
    y = (torch.arange(height, device=image.device) + 0.5).view(1, 1, -1, 1)
    x = (torch.arange(width, device=image.device) + 0.5).view(1, 1, 1, -1)
    start, edge = quad[..., None, None], (quad.roll(-1, dims=1) - quad)[..., None, None]
    along = (x - start[:, :, 0]) * edge[:, :, 0] + (y - start[:, :, 1]) * edge[:, :, 1]
    share = (along / edge.square().sum(dim=2).clamp_min(1e-6)).clamp(0, 1)
    dx = x - start[:, :, 0] - share * edge[:, :, 0]
    dy = y - start[:, :, 1] - share * edge[:, :, 1]
    on = ((dx.square() + dy.square()).sqrt() <= 0.75).any(dim=1)[:, None]
    return torch.where(on, image.new_tensor(colour).view(1, 3, 1, 1), image)
