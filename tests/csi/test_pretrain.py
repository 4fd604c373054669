"""Pre-training by filling in: what its loss looks at, and that a scenario of it runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from semsim import Scenario
from semsim.codecs.observed import Observed, ObservedTransmitter
from semsim.csi.patches import hide, patchify, unpatchify
from semsim.csi.pretrain import FillIn, cropped, noisy
from semsim.evaluation import evaluate
from semsim.metrics.base import Outcome
from semsim.metrics.error import ChannelNMSE
from semsim.payloads.channels import Channels, parts
from semsim.seeds import stream
from semsim.sweep.trained import train_all
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink

SHAPE = (8, 4, 4)


def task(**options: object) -> FillIn:
    torch.manual_seed(0)
    return FillIn("tiny", **{"noise_db": (200.0, 200.0), **options})


def channels(batch: int = 3, label: str = "h") -> Tensor:
    return torch.randn(batch, *SHAPE, dtype=torch.complex64, generator=stream(1, label))


class Asked(torch.nn.Module):
    """A model that says what it is told to, and keeps what it was asked."""

    def __init__(self, real: Any, says: Tensor) -> None:
        super().__init__()
        self.grid, self.patch, self.says = real.grid, real.patch, says

    def forward(self, h: Tensor, hidden: Tensor) -> Tensor:
        self.seen, self.hidden = h, hidden
        return self.says


class Recording(torch.nn.Module):
    """A model that keeps what it was shown."""

    def __init__(self, real: Any) -> None:
        super().__init__()
        self.grid, self.patch, self.real = real.grid, real.patch, real

    def forward(self, h: Tensor, hidden: Tensor) -> Tensor:
        self.seen = h
        return self.real(h, hidden)


def loss_of(says: Tensor, h: Tensor) -> tuple[Tensor, Asked]:
    pretraining = task()
    pretraining.network = Asked(pretraining.network, says)
    loss = pretraining.own_loss(parts(h), parts(h), 0.0, stream(1, "loss"))
    return loss, pretraining.network


def test_a_crop_is_a_part_of_neighbours_of_every_size() -> None:
    h = torch.arange(2 * 3 * 4 * 16).view(2, 3, 4, 16).to(torch.complex64)
    generator, sizes = stream(1, "crop"), set()
    for _ in range(400):
        part = cropped(h, 1.0, generator)
        sizes.add(part.shape[2:])
        s, f = divmod(int(part[0, 0, 0, 0].real) % 64, 16)
        assert torch.equal(part, h[:, :, s : s + part.shape[2], f : f + part.shape[3]])
    assert {s for s, _ in sizes} == set(range(1, 5))
    assert {f for _, f in sizes} == set(range(1, 17))


def test_a_share_of_the_batches_is_cut() -> None:
    h, generator = channels(), stream(2, "crop")
    cut = [cropped(h, 0.25, generator).shape != h.shape for _ in range(800)]
    # a cut that takes all of both sides is no cut: 0.25 (1 - P(4) P(4)), P(4) = 1 - log 4 / log 5
    expected = 0.25 * (1 - (1 - math.log(4) / math.log(5)) ** 2)
    assert abs(sum(cut) / 800 - expected) < 4 * (expected * (1 - expected) / 800) ** 0.5
    assert torch.equal(cropped(h, 0.0, generator), h)


@pytest.mark.parametrize("slots", [1, 4, 8])
def test_training_sees_parts_and_its_loss_is_a_number(slots: int) -> None:
    h = torch.randn(3, slots, 4, 32, dtype=torch.complex64, generator=stream(1, "wide"))
    sizes = {0.0: set(), 1.0: set()}
    for crop, seen in sizes.items():
        pretraining = task(crop=crop)
        real = pretraining.network
        for seed in range(30):
            pretraining.network = Recording(real)
            assert torch.isfinite(pretraining.own_loss(parts(h), parts(h), 0.0, stream(seed, "p")))
            seen.add(tuple(pretraining.network.seen.shape[2:]))
    assert sizes[0.0] == {(4, 32)}
    assert len(sizes[1.0]) > 5


def test_channels_of_one_patch_are_refused_for_nothing_of_them_could_be_hidden() -> None:
    h = torch.randn(2, 4, 2, 4, 4)
    with pytest.raises(ValueError, match=r"\[4, 4, 4\] is one patch of \[4, 4, 4\]; take more"):
        FillIn("tiny").own_loss(h, h, 0.0, stream(1, "p"))


def test_the_loss_is_of_hidden_patches_alone() -> None:
    h = channels()
    loss, asked = loss_of(h, h)
    assert loss == 0
    wrong = patchify(h, asked.patch) + asked.hidden[..., None] * 1.0
    seen_wrong = patchify(h, asked.patch) + ~asked.hidden[..., None] * 1.0
    assert loss_of(unpatchify(seen_wrong, SHAPE, asked.patch), h)[0] == 0
    power = h.abs().square().mean(dim=(1, 2, 3))
    expected = (2 / power).mean()  # 1 in both parts of each value; as many hidden in each item
    torch.testing.assert_close(loss_of(unpatchify(wrong, SHAPE, asked.patch), h)[0], expected)


class Halving(torch.nn.Module):
    """A model that halves the noise on what it sees, and keeps whether something was hidden."""

    def __init__(self, real: Any, clean: Tensor) -> None:
        super().__init__()
        self.grid, self.patch, self.clean, self.hid = real.grid, real.patch, clean, []

    def forward(self, h: Tensor, hidden: Tensor | None = None) -> Tensor:
        self.hid.append(hidden is not None)
        return (h + self.clean) / 2


def test_where_nothing_is_hidden_the_loss_is_what_is_left_of_the_noise() -> None:
    h = channels() * torch.tensor([1.0, 10.0, 100.0])[:, None, None, None]
    pretraining = task(denoise=1.0, noise_db=(-5.0, 25.0))
    pretraining.network = Halving(pretraining.network, h)
    loss = pretraining.own_loss(parts(h), parts(h), 0.0, stream(1, "loss"))
    torch.testing.assert_close(loss, torch.tensor(0.25))
    assert pretraining.network.hid == [False]


def test_a_share_of_the_batches_hides_nothing() -> None:
    h, generator = channels(), stream(2, "denoise")
    pretraining = task(denoise=0.25)
    pretraining.network = Halving(pretraining.network, h)
    for _ in range(400):
        pretraining.own_loss(parts(h), parts(h), 0.0, generator)
    share = 1 - sum(pretraining.network.hid) / 400
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_a_guess_of_zero_loses_1() -> None:
    h = torch.ones(2, *SHAPE, dtype=torch.complex64)
    torch.testing.assert_close(loss_of(torch.zeros_like(h), h)[0], torch.tensor(1.0))


def test_the_model_sees_noise_and_the_target_is_clean() -> None:
    pretraining, h = task(noise_db=(10.0, 10.0)), channels(500)
    pretraining.network = Asked(pretraining.network, h)
    assert pretraining.own_loss(parts(h), parts(h), 0.0, stream(1, "loss")) == 0
    error = (pretraining.network.seen - h).abs().square().mean(dim=(1, 2, 3)).double()
    ratio = error / h.abs().square().mean(dim=(1, 2, 3)).double()
    assert abs(ratio.mean() - 0.1) < 5 * ratio.std() / 500**0.5


def test_noise_is_at_each_item_s_own_snr() -> None:
    h = channels(2) * torch.tensor([1.0, 100.0])[:, None, None, None]
    seen = noisy(h, torch.tensor([200.0, 0.0]), stream(1, "noise"))
    torch.testing.assert_close(seen[0], h[0])
    assert (seen[1] - h[1]).abs().square().mean() / h[1].abs().square().mean() > 0.5


def test_a_prediction_does_not_look_at_what_it_predicts() -> None:
    pretraining = task().eval()
    source = parts(channels())
    told = pretraining(source)
    assert told.shape == (3, 4, 2, 4, 4)
    later = source.clone()
    later[:, 4:] = 0
    torch.testing.assert_close(pretraining(later), told)


def test_training_fills_in_what_a_flat_channel_hides() -> None:
    class Flat(Channels):
        def __init__(self) -> None:
            self.count, self.target = 64, "channel"

        def records(self, start: int, stop: int) -> Any:
            phase = 2 * torch.pi * torch.rand(1, generator=stream(1, "phase", start))
            return torch.polar(torch.ones(1), phase).expand(1, *SHAPE), {}

    learned = task(noise_db=(20.0, 20.0))
    before = held_out(learned, Flat())
    spec = TrainSpec(steps=40, batch_size=16, lr=3e-3, through="task", ema=0.9)
    with Training(AnyLink(), Flat(), learned, spec) as training:
        training.advance()
        training.finish()
    assert before > 0.9
    assert held_out(learned, Flat()) < 0.5


def held_out(learned: FillIn, payload: Any) -> float:
    h = torch.cat([payload.records(i, i + 1)[0] for i in range(64)])
    hidden = hide(learned.network.grid(h), 64, stream(2, "mask"), kind="random", share=0.25)
    with torch.no_grad():
        error = patchify(learned.network(h, hidden) - h, (4, 4, 4)).square().sum(dim=2)
    return float((error * hidden).sum() / (64 * hidden).sum())


def test_an_observation_has_the_noise_of_its_snr() -> None:
    payload = Channels("tdl-A", 40, slots=4, subcarriers=4, tx=(1, 2))
    link = Observed(ObservedTransmitter(), AWGN())
    (row,) = evaluate(link, payload, snr_db=[10.0], metrics=["nmse"])
    assert abs(row["value"] + 10) < 2.6 * (row["ci_high"] - row["ci_low"]) / 2  # 5 sigma
    assert row["uses_pilots"] == 4 * 2 * 4


def test_the_metric_is_of_the_slots_that_are_told() -> None:
    truth = parts(channels())
    told = truth[:, -2:].clone()
    told[1] = 0
    values = ChannelNMSE()(Outcome(told, truth, truth))
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="use a payload of channels, target: channel"):
        ChannelNMSE()(Outcome(told, truth, torch.zeros(3)))


SCENARIO = """
payload: {kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4]}
transmitter: {kind: observed}
channel: {kind: awgn}
task: {kind: fill_in, size: tiny}
metrics: [channel_nmse]
snr_db: [10]
train:
  through: task
  payload: {kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4], seed: 1}
  steps: 2
  batch_size: 2
  precision: bf16
"""


def test_a_scenario_pretrains_and_measures(tmp_path: Path) -> None:
    (tmp_path / "csi.yaml").write_text(SCENARIO)
    scenario = Scenario.load(tmp_path / "csi.yaml")
    (line,) = train_all(scenario, tmp_path / "out")
    weights = Path(line.partition(": ")[2])
    task_file = weights.with_name("task.safetensors")
    built = scenario.points()[0].scenario.build("cpu", weights)
    again = FillIn("tiny", weights=str(task_file), trainable=False)
    assert again.network.hash() == built.task.network.hash()
    with pytest.raises(ValueError, match=r"trained for mode bert, this network has mode mae"):
        FillIn("tiny", mode="mae", weights=str(task_file), trainable=False)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: FillIn("tinny"), "no size of WirelessGPT is called 'tinny'"),
        (lambda: task(share=1.0), "share is between 0 and 1"),
        (lambda: task(noise_db=(3.0, 1.0)), "noise_db goes from low to high"),
        (lambda: task(horizon=0), "horizon is at least 1 slot"),
        (
            lambda: task(whole=True),
            "whole adds a token .* got true for a fresh model; leave it out",
        ),
        (lambda: task(horizon=8)(parts(channels())), "slots hides the last of 8 slots"),
        (lambda: task()(torch.zeros(1, 3, 8, 8)), "use payload: {kind: channels}"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(call: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
