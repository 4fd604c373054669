"""Processing at either end of a link, and a link that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from toy_parts import ToyGain, ToyPairs

from channels import AWGN
from semsim import evaluate, stream, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.link import Link
from semsim.metrics.image import PSNR
from semsim.scenario.scenario import Scenario
from semsim.sweep.strips import CAPTION, take_pictures
from semsim.tasks.processing import Place, Processing
from semsim.training.learner import Batches
from semsim.training.loop import train
from semsim.training.spec import TrainSpec


class Invert(Processing):
    """1 - image."""

    def process(self, image: Tensor) -> Tensor:
        return 1 - image


def links() -> dict[str, Link]:
    none = NoLink(NoLinkTransmitter(), AWGN())
    return {"analog": Link(AnalogTransmitter(), AWGN(), AnalogReceiver()), "none": none}


@pytest.mark.parametrize("at", ["sender", "receiver", "none"])
def test_the_image_is_processed_where_it_should_be(at: Place) -> None:
    task, image = Invert(at), torch.rand(2, 3, 8, 8, generator=stream(2))
    assert torch.equal(task.prepare(image), 1 - image if at == "sender" else image)
    assert torch.equal(task(image), 1 - image if at == "receiver" else image)


def test_another_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at is one of sender, receiver, none, got 'middle'"):
        Invert("middle")  # type: ignore[arg-type]


def test_the_links_psnr_is_taken_on_what_was_sent_and_the_tasks_on_the_output() -> None:
    rows = {}
    for at in ("sender", "receiver"):
        for name, link in links().items():
            measured = evaluate(
                link, ToyPairs(), snr_db=[20], metrics=["psnr", "task_psnr"], task=Invert(at)
            )
            rows[at, name] = {row["metric"]: row for row in measured}
    for place in ("sender", "receiver"):
        free = rows[place, "none"]["psnr"]
        assert (free["cbr"], free["power"], free["n"]) == (0, 0, 4)
        assert free["value"] == pytest.approx(58.92, abs=0.01)
    # 1 - image against image / 2: E(1 - 3u/2)^2 = 1/4 for u uniform, that is 6.0 dB
    assert rows["receiver", "none"]["task_psnr"]["value"] == pytest.approx(6.0, abs=0.5)
    assert rows["sender", "none"]["task_psnr"]["value"] == pytest.approx(
        rows["receiver", "none"]["task_psnr"]["value"], abs=1e-6
    )
    # an analog link of 20 dB does not care which of the two images it carries
    of_link = [rows[at, "analog"]["psnr"]["value"] for at in ("sender", "receiver")]
    assert of_link[0] == pytest.approx(of_link[1], abs=1.0) and of_link[0] < 58


def test_no_link_takes_no_receiver() -> None:
    with pytest.raises(ValueError, match="takes no receiver, got AnalogReceiver"):
        NoLink(NoLinkTransmitter(), AWGN(), AnalogReceiver())


def test_without_a_link_the_task_works_once_for_all_snrs() -> None:
    class Counted(Invert):
        calls = 0

        def process(self, image: Tensor) -> Tensor:
            self.calls += 1
            return super().process(image)

    calls = {}
    for name, link in links().items():
        task = Counted()
        rows = evaluate(link, ToyPairs(), snr_db=[0, 5, 9], metrics=["task_psnr"], task=task)
        calls[name], values = task.calls, {row["value"] for row in rows}
        assert len(values) == (1 if name == "none" else 3) and all(row["n"] == 4 for row in rows)
    assert calls == {"none": 1, "analog": 3}


def test_a_crop_and_a_mirror_hit_the_reference_too() -> None:
    batches = Batches(ToyPairs(), TrainSpec(batch_size=4, crop=8), seed=5)
    sources, targets = batches.batch(3)
    assert sources.shape == (4, 3, 8, 8)
    assert torch.equal(sources / 2, targets)


def test_a_target_that_a_mirror_would_move_leaves_the_image_as_it_is() -> None:
    class Corners(ToyPairs):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return super().__getitem__(index)[0], torch.arange(8.0)

    sources, targets = Batches(Corners(), TrainSpec(batch_size=4), seed=5).batch(0)
    whole = [Corners()[i][0] for i in range(4)]
    assert all(any(torch.equal(s, image) for image in whole) for s in sources)
    assert targets.shape == (4, 8)
    with pytest.raises(ValueError, match=r"targets \[8\]; leave train.crop out"):
        Batches(Corners(), TrainSpec(batch_size=4, crop=8), seed=5).batch(0)
    for change in ({"shift": 2}, {"turn": True}):
        with pytest.raises(
            ValueError, match=r"(turns|moves) images, .*; leave train.(turn|shift) out"
        ):
            Batches(Corners(), TrainSpec(batch_size=4, **change), seed=5).batch(0)


def test_a_class_may_be_a_number_or_a_tensor() -> None:
    class Classes(ToyPairs):
        def __init__(self, turn: type) -> None:
            super().__init__()
            self.turn = turn

        def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
            return super().__getitem__(index)[0], self.turn(torch.tensor(index))

    spec = TrainSpec(batch_size=4, crop=8)
    found = [Batches(Classes(t), spec, seed=5).batch(0) for t in (int, Tensor.clone)]
    assert found[0][0].shape == (4, 3, 8, 8)
    assert all(map(torch.equal, *found))


def test_a_task_is_trained_over_no_link_and_its_weights_are_kept(tmp_path: Path) -> None:
    task, link = ToyGain(), links()["none"]
    spec = TrainSpec(steps=200, batch_size=4, lr=0.05, ema=0, val_every=200)
    result = train(link, ToyPairs(), task, spec, folder=tmp_path, validation=ToyPairs())
    assert torch.allclose(task.network.weight, torch.tensor(0.5), atol=0.05)
    assert {row["metric"] for row in result.curve} == {"task_psnr"}
    again = ToyGain()
    zoo.load_parts(tmp_path / zoo.OF_TASK, {"network": again.network})
    assert torch.equal(again.network.weight, task.network.weight)


def test_a_task_with_parameters_outside_of_a_module_is_refused(tmp_path: Path) -> None:
    task = ToyGain()
    task.gain = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="ToyGain trains parameters of its own; hold them in"):
        train(links()["none"], ToyPairs(), task, TrainSpec(steps=1), folder=tmp_path)


@pytest.mark.parametrize(("at", "captions"), [("sender", 2), ("receiver", 2), ("none", 0)])
def test_a_picture_without_reference_is_captioned_where_psnr_would_mislead(
    at: Place, captions: int, tmp_path: Path
) -> None:
    link, photo = links()["analog"], [(torch.rand(3, 16, 16),) * 2]
    cpu = torch.device("cpu")
    take_pictures(
        link, photo, Invert(at), PSNR(), [5.0, 9.0], seed=1, folder=tmp_path, device=cpu
    )  # fmt: skip
    kept = [Image.open(tmp_path / f"{snr}.png").info for snr in (5, 9)]
    assert sum("PSNR" in info.get(CAPTION, "") for info in kept) == captions
    assert (tmp_path / "sent.png").is_file()


def test_a_scenario_evaluates_the_task_that_it_trained(tmp_path: Path) -> None:
    from semsim.sweep.sweep import run

    pairs = {"kind": "toy_parts:ToyPairs"}
    scenario = Scenario.parse(
        {
            "payload": pairs, "transmitter": "no_link", "channel": "awgn", "snr_db": 0,
            "task": {"kind": "toy_parts:ToyGain"}, "metrics": ["task_psnr"],
            "train": {"payload": pairs, "steps": 200, "lr": 0.05, "ema": 0, "batch_size": 4},
        }
    )  # fmt: skip
    values = []
    for number in range(2):  # what happened before in the process decides nothing
        torch.manual_seed(number)
        values.append(run(scenario, tmp_path / str(number))["value"].iloc[0])
    assert values[0] == values[1]
    assert values[0] > 30  # an untrained gain is off by a factor of its random weight
