"""The task: find the hidden code in what arrives, rectify it, read the message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from channels.checks import check_choice
from semsim.nn.geometry import homography, is_flat, rectify, square, transform
from semsim.tasks.base import Prepared, Task
from semsim.vision.dbdh.embedders import (
    SIDE,
    Embedding,
    check_embedding,
    make_embedder,
    read_message,
)
from semsim.vision.dbdh.message import BITS
from semsim.vision.dbdh.network import DBDH, localisation_loss

FOUND, TRUE = (1.0, 0.85, 0.0), (0.0, 0.9, 0.3)  #: colours of outlines, red, green, blue
STEPS = 4  #: of a corner in a pixel, as the sender tells it


class Localise(Task):
    """Find the four corners of the hidden code, rectify, read the message.

    The output is [B, 69]: eight coordinates, 30 bits as read, the 30 bits corrected, and whether
    they pass the code check.

    Args:
        at: ``receiver`` localises in what the link delivers. ``sender`` localises before the link,
            sends only the upright crop of 64 x 64 pixels, and the receiver reads the bits from it;
            the eight coordinates, in quarters of a pixel, are side information and charged (88
            bits for a photo of 256 pixels). ``none`` guesses: a centred square of 0.55 of the side.
        weights: name of shipped weights or a .safetensors file; ``auto`` takes those that were
            trained on the embedder's codes, None starts a fresh network.
        trainable: train the network, with a fresh mask head. A training mirrors no photos, whatever
            ``train.flip`` says, because the corners would stay where they are.
        preset: size of the network.
        views: 4 looks at each photo in four turns, at four times the cost; 1 looks once.
        embedder: whose message is read.
        key: key of ``spread``.
    """

    metric = "iou"
    network: DBDH

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
        super().__init__()
        check_choice("at", at, ("sender", "receiver", "none"))
        if trainable and at != "receiver":
            raise ValueError(f"a trainable localiser is at: receiver, got at: {at}")
        check_choice("views", views, (1, 4))
        self.at, self.views = at, views
        self.method, self._embedding = make_embedder(embedder, key), (embedder, key)
        network = DBDH(preset, segmentation=False)
        named = self.weights_named(weights=weights, embedder=embedder)
        self.use(network, named, trainable=trainable)
        if trainable:
            network.add_mask_head()

    @classmethod
    def weights_named(cls, **arguments: Any) -> str | None:
        """Return the weights; ``auto`` are those of the embedder."""
        name = super().weights_named(**arguments)
        return f"dbdh-{arguments['embedder']}" if name == "auto" else name

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen network and the embedder stay in evaluation mode."""
        super().train(mode)
        self.method.eval()
        return self

    def check_payload(self, payload: Any) -> None:
        """Raise ValueError where the payload's codes are those of another embedder."""
        check_embedding(payload, *self._embedding, "task")

    def prepare(self, source: Tensor) -> Tensor | Prepared:
        """Return what goes into the link: the photo, or at the sender the upright crop."""
        if self.at != "sender":
            return source
        steps = (self.network.locate(source, self.views) * STEPS).round().int()
        most = STEPS * max(source.shape[2:])
        steps = steps.clamp(0, most)
        crop = rectify(source, steps / STEPS, SIDE)
        return Prepared(crop, steps, 8.0 * math.ceil(math.log2(most + 1)))

    def forward(self, estimate: Tensor, side_info: Tensor | None = None) -> Tensor:
        """Return corners, bits, corrected bits and the check, [B, 69]; corner maps in training."""
        if self.network.training:
            return self.network(estimate)
        if self.at == "sender":
            if side_info is None:
                raise ValueError("at: sender needs the corners that prepare(source) tells beside")
            corners, within = side_info / STEPS, whole(estimate)
        else:
            corners = within = (
                self.network.locate(estimate, self.views)
                if self.at == "receiver"
                else guess(estimate)
            )
        bits, word, passed = read_message(self.method, estimate, within)
        return torch.cat([corners.flatten(1), bits, word, passed[:, None].float()], dim=1)

    def picture(self, estimate: Tensor, output: Tensor, target: Tensor) -> Tensor:
        """Return photos with the true outline in green and that found in yellow, [B, 3, H, W].

        At the sender these are the crops, with the true outline where it would lie in them.
        """
        found = quad = output[:, :8].view(-1, 4, 2)
        if self.at == "sender":
            quad = whole(estimate)
        if has_corners(target):
            true = true_corners(target).to(found)
            true = in_crop(true, found, estimate.shape[-1]) if self.at == "sender" else true
            estimate = draw_outline(estimate, true, TRUE)
        return draw_outline(estimate, quad)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the localisation loss of the corner maps; see :func:`localisation_loss`."""
        corners = true_corners(target)
        if output.dim() != 4:
            raise ValueError("localise trains with trainable: true and weights or none")
        return localisation_loss(output, corners)


def has_corners(target: Tensor) -> bool:
    """Tell whether targets are eight coordinates and 30 bits."""
    return target.dim() == 2 and target.shape[1] == 8 + BITS and target.is_floating_point()


def true_corners(target: Tensor) -> Tensor:
    if not has_corners(target):
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


def in_crop(quad: Tensor, cut: Tensor, side: int) -> Tensor:
    """Return where a quadrilateral of the photo lies in the upright crop of another, [B, 4, 2]."""
    corners = square(side, quad).expand(len(quad), -1, -1)
    flat = is_flat(cut)  # as rectify has it: such a crop shows nothing
    usable = torch.where(flat[:, None, None], corners, cut)
    return transform(homography(usable, corners), quad)


def draw_outline(image: Tensor, quad: Tensor, colour: Sequence[float] = FOUND) -> Tensor:
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
