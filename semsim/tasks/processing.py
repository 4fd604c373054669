"""Process an image before it is sent, after it has arrived, or not at all."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from channels.checks import check_choice
from semsim.ranges import check_range, clip
from semsim.tasks.base import Task

Place = Literal["sender", "receiver", "none"]


class Processing(Task):
    """An image in, an image out, at one end of the link; a subclass gives ``process``.

        at: sender      source ─► process ─► link ─► output
        at: receiver    source ─► link ─► process ─► output
        at: none        source ─► link ─► output

    Args:
        at: where the image is processed.
    """

    metric = "task_psnr"
    restores = True

    def __init__(self, at: Place = "receiver") -> None:
        super().__init__()
        check_choice("at", at, get_args(Place))
        self.at = at

    def process(self, image: Tensor) -> Tensor:
        """Return the processed image [B, C, H, W] of an image [B, C, H, W] in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} gives no process(image)")

    def prepare(self, source: Tensor) -> Tensor:
        """Return what is sent: the processed image in [0, 1] at the sender, else the source."""
        if self.at != "sender":
            return source
        check_range(source, "the payload's images")
        return clip(self.process(source))

    def forward(self, estimate: Tensor) -> Tensor:
        """Return the output: the processed estimate at the receiver, else the estimate."""
        return self.process(estimate) if self.at == "receiver" else estimate
