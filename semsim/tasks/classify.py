"""Recognise what was sent."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from semsim.tasks.base import Task, check_classes


class Classify(Task):
    """Logits of a ResNet that looks at the estimate; its loss reaches the codec through it.

    The network judges as it was trained on clean images: it is frozen, its batch statistics too,
    unless ``trainable``.

    Args:
        weights: name of shipped weights or a .safetensors file; None starts a fresh network.
        trainable: also train the network, together with the link.
        classes: number of classes.
    """

    metric = "accuracy"

    def __init__(
        self,
        weights: str | None = "resnet-cifar10",
        *,
        trainable: bool = False,
        classes: int = 10,
    ) -> None:
        from semsim.nn.resnet import ResNet

        super().__init__()
        if classes < 2:
            raise ValueError(f"classes is at least 2, got {classes}")
        self.use(ResNet(classes), weights, trainable=trainable)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return logits [B, classes] of images [B, 3, H, W] in [0, 1]."""
        return self.network(estimate)

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the logits, in nats.

        Raises:
            ValueError: the payload has no classes, or others.
        """
        check_classes("classify", output, target)
        return F.cross_entropy(output, target)
