"""The LSTM that predicts channels: what it begins with, what it may see, that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semsim import Scenario
from semsim.csi.recurrent import PredictChannel, Recurrent
from semsim.payloads.channels import joined, parts
from semsim.seeds import stream
from semsim.sweep.trained import train_all


def channels(batch: int = 3, slots: int = 8) -> Tensor:
    generator = stream(1, "h")
    return torch.randn(batch, slots, 2, 4, dtype=torch.complex64, generator=generator)


def task(**options: Any) -> PredictChannel:
    torch.manual_seed(0)
    return PredictChannel(4, width=8, **options)


def test_it_begins_with_the_last_slot_and_sees_none_that_is_to_come() -> None:
    h = channels()
    told = joined(task()(parts(h)))
    torch.testing.assert_close(told, h[:, 3:4].expand(-1, 4, -1, -1))
    learned = task()
    torch.nn.init.normal_(learned.network.linear.weight)
    later = h.clone()
    later[:, 4:] = 0
    assert torch.equal(learned(parts(later)), learned(parts(h)))
    earlier = h.clone()
    earlier[:, 0] = 0
    assert not torch.equal(learned(parts(earlier)), learned(parts(h)))


def test_each_pair_and_each_item_stands_alone_and_scale_changes_nothing() -> None:
    network = Recurrent(4, 8)
    torch.nn.init.normal_(network.linear.weight)
    h = channels()
    told = network(h)
    assert told.shape == (3, 4, 2, 4)
    torch.testing.assert_close(network(h[1:2]), told[1:2])
    torch.testing.assert_close(network(7 * h), 7 * told)
    torch.testing.assert_close(network(h.flip(2)), told.flip(2))


SCENARIO = """
payload: {kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4]}
transmitter: {kind: observed}
channel: {kind: awgn}
task: {kind: predict_channel, subcarriers: 4, width: 8}
metrics: [channel_nmse]
snr_db: [10]
train:
  through: task
  payload: {kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4], seed: 1}
  steps: 2
  batch_size: 2
"""


def test_a_scenario_trains_and_measures(tmp_path: Path) -> None:
    (tmp_path / "lstm.yaml").write_text(SCENARIO)
    scenario = Scenario.load(tmp_path / "lstm.yaml")
    (line,) = train_all(scenario, tmp_path / "out")
    weights = Path(line.partition(": ")[2])
    (row,) = scenario.points()[0].scenario.check(
        scenario.points()[0].scenario.build("cpu", weights)
    )
    assert row["metric"] == "channel_nmse"
    again = PredictChannel(
        4, width=8, weights=str(weights.with_name("task.safetensors")), trainable=False
    )
    assert not again.network.training
    assert again.network.linear.weight.abs().max() > 0  # it has learned something


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: task()(parts(channels(slots=4))), "leaves none of 4 slots to predict from"),
        (lambda: task()(torch.zeros(1, 8, 2, 2, 5)), "predicts 4 subcarriers, got 5"),
        (lambda: task()(torch.zeros(1, 3, 8, 8)), "use payload: {kind: channels}"),
        (lambda: task(noise_db=(3.0, 1.0)), "noise_db goes from low to high"),
        (lambda: task(noise_db=(3.0, float("inf"))), "got inf; write two finite numbers"),
        (lambda: task(layers=0), "layers"),
        (lambda: task(horizon=0), "horizon"),
    ],
)
def test_what_it_cannot_predict_is_refused(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
