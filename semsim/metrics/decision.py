"""Metrics of decisions."""

from __future__ import annotations

from torch import Tensor

from semsim.metrics.base import Metric, Outcome


class Accuracy(Metric):
    """Share of items whose largest logit is at the right class."""

    name, label = "accuracy", "Accuracy"
    worst = 0.0
    of_classes = True

    def __call__(self, outcome: Outcome) -> Tensor:
        """Return 1 for each right item, else 0, [B]."""
        logits, target = outcome.output, outcome.target
        if logits.dim() != 2:
            raise ValueError(
                f"accuracy needs a task that outputs logits [B, classes], got "
                f"{list(logits.shape)}; use task: {{kind: classify}}"
            )
        if target.dim() != 1 or target.is_floating_point():
            raise ValueError(
                "accuracy needs a payload with classes, such as cifar10 or a folder with "
                f"classes: true; this one's target is {target.dtype} {list(target.shape)}"
            )
        least, largest = (int(end) for end in target.aminmax()) if len(target) else (0, 0)
        if least < 0 or largest >= logits.shape[1]:
            raise ValueError(
                f"{self.name} needs a logit for each class, but class "
                f"{least if least < 0 else largest} of the payload is none of the task's "
                f"{logits.shape[1]}; use a task of as many classes, counted from 0"
            )
        return self._right(logits, target.to(logits.device))

    def _right(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits.argmax(dim=1) == target).float()


class Top3(Accuracy):
    """Share of items whose right class is among the three largest logits, of at least four."""

    name, label = "top3", "Top-3 accuracy"

    def _right(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape[1] < 4:
            raise ValueError(
                f"top3 of {logits.shape[1]} classes is always 1; use accuracy, or four classes"
            )
        best = logits.topk(3, dim=1).indices
        return (best == target[:, None]).any(dim=1).float()
