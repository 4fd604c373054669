"""Classification as a task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semsim import zoo
from semsim.metrics.base import Outcome
from semsim.metrics.decision import Accuracy
from semsim.nn.resnet import ResNet
from semsim.tasks.classify import Classify


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(zoo.export_parts(tmp_path / "net.safetensors", {"network": ResNet()}))


def test_weights_are_loaded_and_frozen(weights: str) -> None:
    task = Classify(weights)
    assert not any(p.requires_grad for p in task.parameters())
    same = Classify(weights)
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(task(image), same(image)) and task(image).shape == (2, 10)


def test_training_leaves_the_batch_statistics_of_a_frozen_network(weights: str) -> None:
    task = Classify(weights).train()
    before = {k: v.clone() for k, v in task.state_dict().items()}
    task(torch.rand(8, 3, 8, 8))
    assert task.training and not task.network.training
    assert all(torch.equal(v, before[k]) for k, v in task.state_dict().items())


def test_the_loss_reaches_the_estimate_through_the_frozen_network(weights: str) -> None:
    task, estimate = Classify(weights), torch.rand(4, 3, 8, 8, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3])
    loss = task.loss(task(estimate), estimate, target)
    loss.backward()
    assert estimate.grad is not None and estimate.grad.abs().sum() > 0
    expected = -task(estimate).log_softmax(dim=1)[range(4), target].mean()
    assert torch.allclose(loss, expected)


def test_a_fresh_network_trains_with_the_link() -> None:
    task = Classify(None, trainable=True, classes=3).train()
    assert task.network.training and all(p.requires_grad for p in task.parameters())
    assert not task.eval().network.training
    assert task(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def test_void_choices_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match="trainable: true"):
        Classify(None)
    with pytest.raises(ValueError, match="at least 2"):
        Classify(weights, classes=1)
    with pytest.raises(ValueError, match="trained for classes 10"):
        Classify(weights, classes=7)
    task, images = Classify(weights), torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="payload with classes"):
        task.loss(task(images), images, images)


@pytest.mark.parametrize(
    ("wrong", "says"), [(12, r"10 classes and the payload class 12; write classes: 13"),
                        (-1, "counts classes from 0, and the payload has class -1"),
                        (-100, "counts classes from 0, and the payload has class -100")]
)  # fmt: skip
def test_classes_that_the_network_cannot_have_are_told(wrong: int, says: str) -> None:
    """PyTorch leaves out -100 in silence, and ends with an IndexError at the others."""
    target = torch.tensor([0, 1, wrong])
    with pytest.raises(ValueError, match=says):
        Classify(None, trainable=True).loss(torch.rand(3, 10), torch.rand(3, 3, 8, 8), target)
    with pytest.raises(ValueError, match=f"but class {wrong} of the payload is none"):
        Accuracy()(Outcome(torch.rand(3, 10), torch.rand(3), target))
