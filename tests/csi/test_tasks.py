"""Tasks on one encoder: what may learn, what is shared, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels import AWGN, Erasure
from semsim import Scenario, zoo
from semsim import train as train_link
from semsim.codecs.observed import Observed, ObservedTransmitter
from semsim.codecs.values import ValuesReceiver, ValuesTransmitter
from semsim.csi.adapt import LowRank
from semsim.csi.heads import ResCNN
from semsim.csi.model import PRESETS
from semsim.csi.patches import patchify
from semsim.csi.pretrain import FillIn
from semsim.csi.recurrent import PredictChannel
from semsim.csi.tasks import ClassifyChannel, EstimateChannel
from semsim.link import Link
from semsim.metrics.base import Outcome
from semsim.metrics.decision import Top3
from semsim.metrics.error import AngleDelayNMSE, RateLoss
from semsim.mistakes import SpecError
from semsim.payloads.channels import parts
from semsim.seeds import stream
from semsim.sweep.preflight import preflight
from semsim.sweep.trained import train_all
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink

TASKS = {
    "estimate": EstimateChannel,
    "estimate by rescnn": lambda **k: EstimateChannel(head="rescnn", pairs=4, **k),
    "classify": lambda **k: ClassifyChannel(5, **k),
}


BEAMS = torch.zeros(3, dtype=torch.long)  # a target of classes


def channels(batch: int = 3, label: str = "h") -> Tensor:
    return torch.randn(batch, 8, 4, 4, dtype=torch.complex64, generator=stream(1, label))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "task.safetensors"
    return str(zoo.export_parts(path, dict(FillIn("tiny").named_children())))


def one_step(task: Any) -> set[str]:
    """Take a gradient step; return which weights it moved."""
    h = channels()
    target = parts(channels(label="another"))
    if isinstance(task, ClassifyChannel):
        target = torch.tensor([0, 1, 4])
    before = {k: v.clone() for k, v in task.state_dict().items()}
    learning = [p for p in task.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.1)
    for _ in range(2):  # heads that begin with zero pass a gradient on only then
        optimiser.zero_grad()
        task.loss(task(parts(h)), parts(h), target).backward()
        optimiser.step()
    return {k for k, v in task.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("name", TASKS)
def test_a_frozen_encoder_stays_and_has_no_gradient(name: str, encoder: str) -> None:
    task = TASKS[name](encoder=encoder)
    before = task.network.encoder.hash()
    moved = one_step(task)
    assert moved and all(key.startswith("network.head") for key in moved)
    assert all(p.grad is None for p in task.network.encoder.parameters())
    assert task.network.encoder.hash() == before


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("tune", ["partial", "lora", "full"])
def test_each_way_of_tuning_moves_its_weights(name: str, tune: str, encoder: str) -> None:
    task = TASKS[name](encoder=encoder, tune=tune, last=1, features="z")
    moved = {key.removeprefix("network.") for key in one_step(task)}
    inside = {key for key in moved if key.startswith("encoder")}
    if tune == "partial":
        assert inside and all(k.startswith(("encoder.blocks.3", "encoder.norm")) for k in inside)
    elif tune == "lora":
        assert inside and all(k.endswith((".narrow", ".wide")) for k in inside)
    else:
        assert any(k.startswith("encoder.enter") for k in inside)
    assert any(key.startswith("head") for key in moved)


def test_low_rank_layers_begin_as_they_were(encoder: str) -> None:
    plain, tuned = (ClassifyChannel(5, encoder, tune=t) for t in ("frozen", "lora"))
    tuned.network.head.load_state_dict(plain.network.head.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(tuned(parts(channels())), plain(parts(channels())))
    layer = torch.nn.Linear(6, 5)
    lora = LowRank(layer, 2)
    lora.wide.data.normal_()
    x = torch.randn(3, 6)
    expected = x @ (layer.weight + lora.wide @ lora.narrow).T + layer.bias
    torch.testing.assert_close(lora(x), expected)


def test_tasks_share_one_encoder(encoder: str) -> None:
    tasks = [EstimateChannel(encoder), *(ClassifyChannel(n, encoder) for n in (2, 4, 6))]
    tasks.append(EstimateChannel(encoder, features="z", head="blocks"))
    assert len({task.network.encoder.hash() for task in tasks}) == 1
    assert FillIn("tiny", weights=encoder).network.hash() == tasks[0].network.encoder.hash()


def test_an_estimate_begins_with_the_observation(encoder: str) -> None:
    seen = parts(channels())
    for features in ("raw", "z", "both"):
        for head in ({}, {"head": "blocks"}, {"head": "rescnn", "pairs": 4}):
            with torch.no_grad():
                told = EstimateChannel(encoder, features=features, **head)(seen)
            torch.testing.assert_close(told, seen)


def test_convolutions_put_every_value_of_a_patch_in_its_place() -> None:
    """Patches over the edge, and a head of one tap: what it sees of an element is that element."""
    h = torch.randn(2, 6, 5, 7, dtype=torch.complex64, generator=stream(1, "h"))
    head = ResCNN(128, 5, (4, 4, 4))
    placed = head._in_place(patchify(h, (4, 4, 4)), (6, 5, 7))
    expected = torch.cat([h.real, h.imag], dim=2).movedim(2, 1)
    torch.testing.assert_close(placed, expected)
    wider = ResCNN(130, 5, (4, 4, 4))._in_place(torch.ones(2, 8, 130), (6, 5, 7))
    assert wider.shape == (2, 3 * 5, 6, 7)


def test_convolutions_know_their_antenna_pairs(encoder: str) -> None:
    task = EstimateChannel(encoder, head="rescnn", pairs=4)
    with pytest.raises(ValueError, match="estimates 4 antenna pairs, got channels of 6; train one"):
        task(parts(torch.ones(1, 8, 6, 4, dtype=torch.complex64)))


def test_classes_see_the_first_slots_alone(encoder: str) -> None:
    task = ClassifyChannel(5, encoder, slots=4)
    h = channels()
    later = h.clone()
    later[:, 4:] = 0
    with torch.no_grad():
        assert torch.equal(task(parts(h)), task(parts(later)))


def test_top_3_forgives_two() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(4, 4)
    target = torch.arange(4)
    values = Top3()(Outcome(logits, logits, target))
    assert values.tolist() == [1, 1, 1, 0]
    few = logits[:3, :3]
    with pytest.raises(ValueError, match="top3 of 3 classes is always 1; use accuracy"):
        Top3()(Outcome(few, few, target[:3]))


def test_the_angle_delay_map_sees_no_phase() -> None:
    h = channels()
    turned = parts(h * torch.exp(torch.tensor(0.7j)))
    later = torch.exp(2j * torch.pi * torch.arange(4) / 4)
    shifted = parts(h * later)
    values = AngleDelayNMSE()(Outcome(turned, parts(h), parts(h)))
    assert values.max() < 1e-9
    assert AngleDelayNMSE()(Outcome(shifted, parts(h), parts(h))).min() > 1e-2


def test_a_precoder_for_the_right_channel_loses_nothing() -> None:
    h = channels()
    metric = RateLoss(10.0)
    assert metric(Outcome(parts(3 * h), parts(h), parts(h))).abs().max() < 1e-5
    one = torch.zeros(1, 1, 2, 1, dtype=torch.complex64)
    one[0, 0, 0] = 1
    skewed = torch.ones_like(one)  # half of the power goes the other way
    lost = metric(Outcome(parts(skewed), parts(one), parts(one)))
    torch.testing.assert_close(lost, torch.tensor([11 / 6]).log2())


SCENARIO = """
payload: {{kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4]{target}}}
transmitter: {{kind: observed}}
channel: {{kind: awgn}}
task: {{kind: {task}, encoder: {encoder}}}
metrics: [{metrics}]
snr_db: [10]
train:
  payload: {{kind: channels, model: tdl-A, count: 4, slots: 8, subcarriers: 4, tx: [1, 4]{target}}}
  steps: 2
  batch_size: 2
"""


@pytest.mark.parametrize(
    ("task", "target", "metrics"),
    [
        ("estimate_channel", "", "channel_nmse, angle_delay_nmse, rate_loss, nmse"),
        ("estimate_channel, head: rescnn, pairs: 4", "", "channel_nmse"),
        ("classify_channel, classes: 4", ", target: beam", "accuracy, top3"),
    ],
)
def test_a_scenario_tunes_and_measures(
    task: str, target: str, metrics: str, encoder: str, tmp_path: Path
) -> None:
    text = SCENARIO.format(task=task, target=target, metrics=metrics, encoder=encoder)
    (tmp_path / "csi.yaml").write_text(text)
    scenario = Scenario.load(tmp_path / "csi.yaml")
    (line,) = train_all(scenario, tmp_path / "out")
    built = scenario.points()[0].scenario.build("cpu", Path(line.partition(": ")[2]))
    rows = scenario.points()[0].scenario.check(built)
    assert [row["metric"] for row in rows] == metrics.split(", ")


def a_scenario(task: Any, **changes: Any) -> Scenario:
    own = {
        "payload": {"kind": "channels", "model": "tdl-A", "count": 4, "slots": 8,
                    "subcarriers": 4, "tx": [1, 4], "target": changes.pop("target", "channel")},
        "transmitter": "observed", "channel": "awgn", "snr_db": [10],
        "metrics": ["accuracy" if task["kind"] == "classify_channel" else "channel_nmse"],
        "task": task,
    }  # fmt: skip
    return Scenario.parse({**own, **changes})


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ({"kind": "estimate_channel"}, "channel"),
        ({"kind": "classify_channel", "classes": 4}, "beam"),
        ({"kind": "fill_in"}, "channel"),
        ({"kind": "predict_channel", "subcarriers": 4, "width": 8}, "channel"),
    ],
)
def test_a_head_that_nobody_trained_is_not_measured(task: Any, target: str) -> None:
    size = {} if task["kind"] == "predict_channel" else {"size": "tiny"}
    with pytest.raises(SpecError, match=r"^task.weights: are not given, and nothing trains .* her"):
        preflight(a_scenario({**task, **size}, target=target).points(), torch.device("cpu"))


def test_through_task_needs_an_error_to_learn_from(tmp_path: Path) -> None:
    given = {"kind": "estimate_channel", "size": "tiny"}
    train = {"payload": a_scenario(given).to_dict()["payload"], "steps": 2, "batch_size": 2}
    with pytest.raises(SpecError, match=r"^train.through: task trains on items that nothing sent"):
        alone = a_scenario(given, train={**train, "through": "task"})
        preflight(alone.points(), torch.device("cpu"))
    preflight(a_scenario(given, train=train).points(), torch.device("cpu"))
    classes = {**train, "payload": {**train["payload"], "target": "beam"}, "through": "task"}
    told = {"kind": "classify_channel", "size": "tiny", "classes": 4}
    preflight(a_scenario(told, target="beam", train=classes).points(), torch.device("cpu"))
    h = parts(channels(4))
    spoiled = [(noisy, clean) for noisy, clean in zip(h + 0.1, h, strict=True)]
    task, spec = EstimateChannel(size="tiny"), TrainSpec(steps=1, batch_size=2, through="task")
    train_link(Observed(ObservedTransmitter(), AWGN()), spoiled, task, spec, folder=tmp_path)


def test_a_task_that_spoils_items_itself_learns_from_clean_ones(tmp_path: Path) -> None:
    class Denoiser(EstimateChannel):
        def own_loss(self, source: Any, target: Any, progress: float, generator: Any) -> Any:
            noisy = source + torch.randn(source.shape, generator=generator)
            return super().own_loss(noisy, target, progress, generator)

    h = parts(channels(4))
    spec = TrainSpec(steps=1, batch_size=2, through="task")
    train_link(AnyLink(), [*zip(h, h, strict=True)], Denoiser(size="tiny"), spec, folder=tmp_path)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda e: EstimateChannel("no-such-weights"), "no weights are called"),
        (lambda e: EstimateChannel("resnet-cifar10"), "holds no WirelessGPT"),
        (lambda e: EstimateChannel(e, tune="half"), "tune"),
        (lambda e: EstimateChannel(e, features="some"), "features"),
        (lambda e: EstimateChannel(e, head="cnn"), "head is"),
        (lambda e: EstimateChannel(e, head="rescnn"), "pairs goes with head: rescnn"),
        (lambda e: EstimateChannel(e, pairs=4), "pairs goes with head: rescnn"),
        (lambda e: EstimateChannel(e, head="rescnn", pairs=0), "pairs"),
        (lambda e: EstimateChannel(e, tune="partial", last=9), "at most the encoder's 4 blocks"),
        (lambda e: ClassifyChannel(1, e), "classes is at least 2"),
        (lambda e: ClassifyChannel(2, e)(torch.zeros(1, 3, 8, 8)), "use payload: {kind: channels}"),
        (
            lambda e: ClassifyChannel(2, e).loss(torch.zeros(1, 2), None, torch.tensor([2])),
            "classify_channel has 2 classes and the payload class 2; write classes: 3",
        ),
        (
            lambda e: ClassifyChannel(2, e).loss(torch.zeros(1, 2), None, torch.zeros(1, 4)),
            "needs a payload with classes",
        ),
        (lambda e: ClassifyChannel(2, e, slots=9)(parts(channels())), "slots 9 are to be seen"),
        (lambda e: EstimateChannel(e).loss(*[parts(channels())] * 2, BEAMS), "got .. as target"),
        (lambda e: FillIn("tiny").loss(*[parts(channels())] * 2, BEAMS), "got .. as target"),
        (lambda e: PredictChannel(4).loss(*[parts(channels())] * 2, BEAMS), "got .. as target"),
    ],
)
def test_what_does_not_fit_is_said(call: Any, says: str, encoder: str) -> None:
    with pytest.raises(ValueError, match=says):
        call(encoder)


def test_a_fresh_encoder_has_the_size_asked_for() -> None:
    task = ClassifyChannel(2, size="tiny", tune="full")
    assert task.network.encoder.width == PRESETS["tiny"]["width"]


def test_weights_of_another_patch_are_refused_by_what_differs(tmp_path: Path) -> None:
    """Of an encoder within a task too, and a task's weights are none of an encoder alone."""
    files = {}
    for name, patch in (("own", (4, 4, 4)), ("other", (2, 4, 4))):
        path = tmp_path / f"{name}.safetensors"
        files[name] = str(
            zoo.export_parts(path, dict(FillIn("tiny", patch=patch).named_children()))
        )
    task = EstimateChannel(files["own"])
    path = tmp_path / "task.safetensors"
    trained = str(zoo.export_parts(path, dict(task.named_children())))
    says = r"trained for encoder.patch \[4, 4, 4\], this network has encoder.patch \[2, 4, 4\]"
    with pytest.raises(ValueError, match=says):
        EstimateChannel(files["other"], weights=trained)
    with pytest.raises(ValueError, match=r"another kind of network: theirs takes encoder, "):
        FillIn("tiny", weights=trained)


@pytest.mark.parametrize("features", ["raw", "z", "both"])
def test_a_task_refuses_what_is_no_channel(features: Any) -> None:
    task = EstimateChannel(size="tiny", features=features)
    h = torch.randn(2, 4, 4, 4, dtype=torch.complex64, generator=stream(1, "h"))
    for value, says in ((0.0, "zero throughout"), (float("nan"), "NaN or infinity")):
        spoiled = h.clone()
        spoiled[1] = value
        with pytest.raises(ValueError, match=says):
            task(parts(spoiled))


def test_an_estimator_s_loss_can_be_over_the_source_s_error() -> None:
    """Half of each item's error is left, whatever its power: a quarter of the error power."""
    task = EstimateChannel(size="tiny", relative_to="source")
    target = torch.randn(3, 4, 2, 4, 4, generator=stream(1, "h"))
    error = torch.randn(3, 4, 2, 4, 4, generator=stream(1, "e"))
    error = error * torch.tensor([0.01, 1.0, 100.0]).view(3, 1, 1, 1, 1)
    loss = task.loss(target + error / 2, target + error, target)
    assert float(loss) == pytest.approx(0.25, rel=1e-3)  # of float32, where the error is small
    with pytest.raises(ValueError, match="here they are equal; leave relative_to out"):
        task.loss(target, target, target)
    with pytest.raises(ValueError, match="relative_to is one of"):
        EstimateChannel(size="tiny", relative_to="power")


@pytest.mark.parametrize(
    "task",
    [
        FillIn("tiny", horizon=4),
        EstimateChannel(size="tiny"),
        EstimateChannel(size="tiny", head="rescnn", pairs=4),
        ClassifyChannel(5, size="tiny"),
    ],
    ids=["fill_in", "estimate", "rescnn", "classify"],
)
def test_items_that_a_link_lost_are_told_as_zeros_and_end_no_run(task: Any) -> None:
    """Half of the items arrive as zeros; the others give what they give alone."""
    link = Link(ValuesTransmitter(), Erasure(0.5, packet_uses=10_000), ValuesReceiver())
    begun = task.eval().begin(link, [parts(channels(8))])
    (sent,), (output,) = task.send(link, begun, 20.0, stream(3, "link"))
    lost = ~sent.estimate.flatten(1).any(dim=1)
    assert 0 < lost.sum() < 8
    assert not output[lost].any()
    with torch.no_grad():
        assert torch.allclose(output[~lost], task(sent.estimate[~lost]), atol=1e-5)


def test_a_class_below_0_is_told() -> None:
    with pytest.raises(ValueError, match="classify_channel counts classes from 0"):
        ClassifyChannel(2, size="tiny").loss(torch.rand(2, 2), torch.rand(2), torch.tensor([0, -1]))


def test_a_loss_over_the_power_of_a_channel_without_any_is_refused() -> None:
    target = parts(channels())
    target[1] = 0
    for task in (FillIn("tiny"), EstimateChannel(size="tiny"), PredictChannel(4)):
        with pytest.raises(ValueError, match="one of the payload's channels is all zeros"):
            task.loss(target, target, target)
