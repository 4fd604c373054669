"""The masks of one end of LCFSC: in which blocks they sit, what scores them, how much they take."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from semsim.codecs.lcfsc.arguments import MASKS
from semsim.codecs.lcfsc.ends import Ends
from semsim.codecs.lcfsc.facts import STREAM_NUMBERS, Facts
from semsim.codecs.lcfsc.fusion import CSIFusion, mask_logits, random_scores
from semsim.codecs.lcfsc.ratio import RatioGenerator
from semsim.nn.swin import Attend
from semsim.nn.swin_codec import HEAD_WIDTH
from semsim.types import Transmission


class MaskedEnd(Ends):
    """An end whose network masks attention logits in every second block of one scale."""

    decodes: ClassVar[bool] = False  #: True at the receiver, whose coarsest scale comes first
    how: dict[str, Any]  #: how to mask, by names of arguments of ``LCFSCTransmitter``
    fusions: nn.ModuleDict
    ratios: RatioGenerator | None

    def _add_masks(self, how: dict[str, Any]) -> None:
        size, self.how = self.size, how
        self.fusions, self.ratios = nn.ModuleDict(), None
        streams = how["facts"] == "streams"
        if how["fusion"] == "masked":
            width = size.swin.widths[size.stage]
            for block in size.masked_blocks(decoder=self.decodes):
                self.fusions[str(block)] = CSIFusion(
                    width, None if streams else self.num_facts, window=size.swin.window,
                    hidden=size.fusion, sources=how["sources"],
                    heads=width // HEAD_WIDTH if how["per_head"] else None,
                )  # fmt: skip
        if how["fusion"] in MASKS and how["ratio"] == "learned":
            self.ratios = RatioGenerator(
                self.channels, STREAM_NUMBERS if streams else self.num_facts,
                candidates=how["candidates"], hidden=size.posterior, start_open=how["start_open"],
            )  # fmt: skip
        self.learns_whole_batches = self.ratios is not None  # its loss is of the latest pass

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor | float:
        """Return what the learned ratio asks of itself."""
        return 0.0 if self.ratios is None else self.ratios.auxiliary_loss(progress)

    def _attend(self, facts: Facts, ratio: Tensor) -> Attend:
        """Return what the network adds to the logits of the masked blocks."""
        size, coarsest = self.size, len(self.size.swin.widths) - 1

        def logits(stage: int, block: int, x: Tensor) -> Tensor | None:
            scale = coarsest - stage if self.decodes else stage
            if scale != size.stage or block not in size.masked_blocks(decoder=self.decodes):
                return None
            window = size.swin.window
            if min(x.shape[1:3]) < window:
                least = window * self.stride // 2 ** (coarsest - scale)
                without = "masked: false" if self.decodes else "fusion: none"
                raise ValueError(
                    f"lcfsc masks windows of {window} x {window} tokens and needs images of at "
                    f"least {least} x {least} pixels; scale them up or set {without}"
                )
            return mask_logits(self._scores(block, x, facts), ratio, sink=self.how["sink"])

        return logits

    def _scores(self, block: int, x: Tensor, facts: Facts) -> Tensor:
        if self.how["fusion"] == "random":
            tokens = torch.cat([x.mean(dim=(1, 2)), facts.numbers], dim=1)
            return random_scores(tokens, self.size.swin.window**2)
        return self.fusions[str(block)](x, facts.for_scores())
