"""The task: take the artefacts out, at the scanner or where a slice is read."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from semsim.tasks.processing import Place, Processing
from semsim.tasks.reconstruct import Reconstruct
from semsim.vision.marformer.network import SIZES, MARformer

CHARBONNIER_EPS = 1e-6  # added to the squared error


class ReduceMetal(Processing):
    """Take the metal artefacts out of a slice, at the scanner or where it is read.

    A slice is grey: of what arrives the mean of the three channels counts, wherever the network
    works. The classical baseline (linear interpolation) needs the sinogram, so it is not a task but
    ``corrupted: li`` of the payload ``mar``: only the scanner can do it.

    Args:
        weights: name of shipped weights or a .safetensors file; None starts a fresh network.
        at: where the slice is processed.
        trainable: also train the network, together with the link.
        size: T or L, what the weights were trained for.
        reduction, kernel: as in :class:`MARformer`.
        loss: ``charbonnier``, mean √(error² + 1e-6) (inferred), or ``log_mse``, the mean PSNR up to a
            factor.
    """  # noqa: E501 - one line of an argument

    def __init__(
        self,
        weights: str | None = "marformer-t",
        *,
        at: Place = "receiver",
        trainable: bool = False,
        size: Literal["T", "L"] = "T",
        reduction: int = 2,
        kernel: int = 7,
        loss: Literal["charbonnier", "log_mse"] = "charbonnier",
    ) -> None:
        super().__init__(at)
        if size not in SIZES or loss not in ("charbonnier", "log_mse"):
            raise ValueError(
                f"size is T or L and loss charbonnier or log_mse, got {size!r} and {loss!r}"
            )
        if trainable and at == "none":
            raise ValueError(
                "a trainable network works at: sender or at: receiver, got at: none, which leaves "
                "it out"
            )
        self._loss = loss
        network = MARformer(**SIZES[size], reduction=reduction, kernel=kernel)
        self.use(network, weights, trainable=trainable, asked=at != "none")

    def process(self, image: Tensor) -> Tensor:
        """Return slices [B, 3, H, W], not clipped, of slices in [0, 1]."""
        return self.network(image.mean(dim=1, keepdim=True)).expand(-1, 3, -1, -1)

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the output [B, 3, H, W]: the grey estimate, processed at the receiver."""
        return super().forward(estimate.mean(dim=1, keepdim=True).expand_as(estimate))

    def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return the loss between the output and the clean slice."""
        if output.shape != target.shape:
            raise ValueError(
                f"metal is reduced towards clean slices, such as those of payload mar; this "
                f"payload's target is {list(target.shape)} for an output of {list(output.shape)}"
            )
        if self._loss == "log_mse":
            return Reconstruct("log_mse").loss(output, target, target)
        return ((output - target).square() + CHARBONNIER_EPS).sqrt().mean()
