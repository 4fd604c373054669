"""What a task asks of a link, prepare, transmit, forward, and what it tells beside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from channels import AWGN
from semsim import Link, Scenario, evaluate, stream, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.payloads.photos import Photos
from semsim.tables import TASKS
from semsim.tasks.base import Prepared, Task


class Shift(Task):
    """Send images without their mean, and tell it beside, in 8 bits."""

    bits: float | Tensor = 8.0

    def prepare(self, source: Tensor) -> Prepared:
        mean = (source.mean(dim=(1, 2, 3)) * 255).round().to(torch.uint8)
        return Prepared((source - self._of(mean)).clamp(0, 1), mean[:, None], self.bits)

    def forward(self, estimate: Tensor, side_info: Tensor | None = None) -> Tensor:
        assert side_info is not None
        return estimate + self._of(side_info[:, 0])

    @staticmethod
    def _of(mean: Tensor) -> Tensor:
        return mean[:, None, None, None] / 255


def analog() -> Link:
    return Link(AnalogTransmitter(), AWGN(), AnalogReceiver())


def test_what_a_task_tells_beside_reaches_its_other_end_and_is_charged() -> None:
    photos = Photos(["coffee"], crop=32)
    plain, told = (
        evaluate(analog(), photos, snr_db=[0.0], metrics=["papr"], task=task)[0]
        for task in (None, Shift())
    )
    assert plain["uses_side_info"] == 0 and told["uses_side_info"] == pytest.approx(8)
    values = 3 * 32 * 32
    assert told["cbr"] - plain["cbr"] == pytest.approx(8 / values)
    nothing = NoLink(NoLinkTransmitter(), AWGN())
    (free,) = evaluate(nothing, photos, snr_db=[0.0], metrics=["psnr"], task=Shift())
    assert free["cbr"] == 0


def test_what_a_task_tells_is_never_free() -> None:
    task = Shift()
    task.bits = 0.0
    with pytest.raises(ValueError, match="Shift sends side information and declares 0 bits"):
        task.begin(analog(), [torch.rand(2, 3, 16, 16)])


def test_a_task_of_another_class_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"write class Identity\(Task\)"):
        evaluate(
            analog(), Photos(["coffee"], crop=32), snr_db=[0], metrics=["psnr"], task=nn.Identity()
        )


def test_a_frozen_network_stays_in_evaluation_mode_and_a_fresh_one_is_refused() -> None:
    task = Task()
    with pytest.raises(ValueError, match="weights are not given; name some, or train"):
        task.use(nn.BatchNorm2d(3), None, trainable=False)
    task.use(nn.BatchNorm2d(3), None, trainable=False, asked=False)
    assert not task.train().network.training
    assert not any(p.requires_grad for p in task.parameters())
    task.use(nn.BatchNorm2d(3), None, trainable=True)
    assert task.train().network.training and not task.eval().network.training


@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind != "dbdh"])
def test_the_metric_of_a_task_is_one_of_the_table(kind: str) -> None:
    from semsim import spec
    from semsim.tables import METRICS

    assert spec.resolve("task", kind).metric in METRICS  # type: ignore[union-attr]


@pytest.mark.skipif("dbdh" not in TASKS, reason="the folder of vision papers is deleted")
def test_weights_that_auto_finds_enter_the_hash_of_results() -> None:
    scenario = {
        "payload": {"kind": "dbdh", "count": 2}, "transmitter": {"kind": "analog", "cbr": "1/6"},
        "channel": "awgn", "metrics": ["iou"], "snr_db": [10], "task": {"kind": "dbdh"},
    }  # fmt: skip
    auto = Scenario.parse(scenario)
    assert auto.content["task_weights"] == zoo.card("dbdh-pimog")["sha256"]
    named = Scenario.parse({**scenario, "task": {"kind": "dbdh", "weights": "dbdh-pimog"}})
    assert named.content["task_weights"] == auto.content["task_weights"]
    own = Scenario.parse({**scenario, "task": {"kind": "dbdh", "weights": None, "trainable": True}})
    assert "task_weights" not in own.content


def test_training_sends_as_evaluation_does() -> None:
    link, task, source = analog(), Shift(), torch.rand(2, 3, 16, 16, generator=stream(0, "s"))
    outputs = [
        task.send(link, task.begin(link, [source], once=once), 10.0, stream(1, "link"))[1][0]
        for once in (True, False)
    ]
    assert torch.equal(*outputs)
