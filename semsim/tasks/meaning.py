"""Tasks whose answer the receiver itself gives: what was said, and not how it looked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channels.checks import check_positive
from semsim.tasks.base import Task, check_classes


def _check_vectors(kind: str, output: Tensor, meant: str, task: str) -> None:
    if output.dim() != 2:
        raise ValueError(
            f"{kind} needs a receiver that outputs {meant}, got {list(output.shape)}; write task: "
            f"{task} in transmitter and receiver of kind flsc"
        )


class Recognise(Task):
    """The receiver's estimate are scores of classes, [B, classes]."""

    metric = "accuracy"

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the scores, in nats."""
        _check_vectors("recognise", output, "scores [B, classes]", "classify")
        check_classes("recognise", output, target)
        return F.cross_entropy(output, target)

    def picture(self, estimate: Tensor, output: Tensor, target: Tensor) -> Tensor:
        """Return a grey image: there is none to show."""
        return _no_picture(output)


class Centres(nn.Module):
    """A gallery of one learned entry per class, each of length 1."""

    def __init__(self, classes: int, embedding: int) -> None:
        super().__init__()
        self.spec = {"classes": classes, "embedding": embedding}
        self.entries = nn.Parameter(torch.randn(classes, embedding))

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the cosine between embeddings [B, D] and each entry, [B, classes]."""
        return F.normalize(embedding, dim=1) @ F.normalize(self.entries, dim=1).T


class Retrieve(Task):
    """The receiver's estimate is an embedding; the nearest entry of a gallery should be its class.

    The gallery holds one entry per class, which is learned with the link, so that what an item
    finds does not depend on the items beside it; accuracy is how often the first hit is right.

    Args:
        classes: entries of the gallery.
        embedding: numbers in an embedding, as the receiver says.
        temperature: of the softmax over the gallery in training.

    Source: Movshovitz-Attias and others, No fuss distance metric learning using proxies (2017);
    with a softmax over all entries and a temperature.
    """

    metric = "accuracy"

    def __init__(self, classes: int = 10, *, embedding: int = 64, temperature: float = 0.1) -> None:
        super().__init__()
        if classes < 2 or embedding < 2:
            name = "classes" if classes < 2 else "embedding"
            raise ValueError(f"{name} is at least 2, got {min(classes, embedding)}")
        check_positive("temperature", temperature, "of the softmax, 0.1 is usual")
        self.temperature = temperature
        self.use(Centres(classes, embedding), None, trainable=True)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the similarity to each entry of the gallery, [B, classes]."""
        _check_vectors("retrieve", estimate, "embeddings [B, D]", "retrieve")
        return self.network(estimate)  # type: ignore[no-any-return]

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the similarities over the temperature, in nats."""
        check_classes("retrieve", output, target)
        return F.cross_entropy(output / self.temperature, target)

    def picture(self, estimate: Tensor, output: Tensor, target: Tensor) -> Tensor:
        """Return a grey image: there is none to show."""
        return _no_picture(output)


def _no_picture(output: Tensor) -> Tensor:
    return output.new_full((len(output), 3, 8, 8), 0.5)
