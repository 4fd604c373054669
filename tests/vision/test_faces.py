"""Face verification: payload, verifiers, perturbed probes, the task on a link."""

from __future__ import annotations

import argparse
import hashlib
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from channels import AWGN
from semsim import Link, evaluate, spec, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.metrics.base import Outcome
from semsim.mistakes import SpecError
from semsim.scenario.loading import data_hashes
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.preflight import preflight
from semsim.sweep.trained import own_weights
from semsim.training.loop import Training
from semsim.training.spec import TrainSpec
from semsim.types import AnyLink
from semsim.vision import faces
from semsim.vision.faces.attack import Features, diverse, smoothed
from semsim.vision.faces.payload import everyone
from semsim.vision.faces.thresholds import embeddings

SIZE = 32
FEW: dict[str, Any] = {"people": 8, "shots": 4, "size": SIZE}
PLAIN = faces.Attack(eps=8, iterations=4)


@pytest.fixture(scope="module")
def task() -> faces.Verify:
    """A verifier after a few steps, in evaluation mode."""
    torch.manual_seed(3)
    made = faces.Verify("residual", trainable=True, people=8, size=SIZE)
    spec = TrainSpec(steps=25, batch_size=16, lr=3e-3, through="task", ema=0.5)
    with Training(AnyLink(), faces.Faces("train", **FEW), made, spec, seed=1) as training:
        training.advance()
        training.finish()
    made.network.requires_grad_(False)
    made.network.threshold.copy_(torch.tensor([0.5, 0.8]))
    return made.eval()


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    payload = faces.Faces(count=6, pairs="genuine", **FEW)
    both = torch.stack([payload[i][0] for i in range(len(payload))])
    return both[:, :3], both[:, 3:]


# --- payload ------------------------------------------------------------------------------------


def test_pairs_are_of_people_that_nobody_trained_on_and_half_are_genuine() -> None:
    sets = {split: faces.Faces(split, **FEW) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    who = {split: {p.who for p in s.pictures} for split, s in sets.items()}
    assert not who["train"] & who["test"] and not who["val"] & who["test"]
    assert who["train"] == set(range(8)) and len(sets["train"]) == 32
    targets = [sets["test"][i][1] for i in range(len(sets["test"]))]
    assert sum(targets) == 200 and len(targets) == 400
    for first, second in sets["test"].pairs:
        assert first != second


@pytest.mark.parametrize(("kind", "target"), [("genuine", 1), ("impostor", 0)])
def test_one_kind_of_pairs_can_be_asked_for(kind: Any, target: int) -> None:
    payload = faces.Faces(count=9, pairs=kind, **FEW)
    assert [payload[i][1] for i in range(9)] == [target] * 9
    assert payload[0][0].shape == (6, SIZE, SIZE)


def test_a_face_depends_on_person_shot_and_seed_alone() -> None:
    one, same = faces.Faces("train", **FEW), faces.Faces("train", **FEW)
    assert torch.equal(one[5][0], same[5][0]) and one[5][1] == 1
    assert not torch.equal(one[5][0], faces.Faces("train", **FEW, seed=1)[5][0])
    shots = [one[i][0] for i in range(8)]
    own = (shots[0] - shots[1]).abs().mean()
    assert own > 0.01 and (shots[0] - shots[4]).abs().mean() > 0.01


def write(path: Path, value: int, size: tuple[int, int] = (112, 92)) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def test_att_folders_are_split_by_person(tmp_path: Path) -> None:
    for who in range(1, 21):
        for shot in range(1, 4):
            write(tmp_path / f"s{who}" / f"{shot}.png", 10 * who + shot)
    sets = {s: faces.Faces(s, path=str(tmp_path), size=16) for s in ("train", "val", "test")}  # type: ignore[arg-type]
    assert [sets[s].people for s in ("train", "val", "test")] == [12, 3, 5]
    # s10 comes after s9
    assert sets["train"].pictures[-1].file == tmp_path / "s12" / "3.png"
    assert sets["train"][0][0].shape == (3, 16, 16)
    sets["test"].check_files()


def test_lfw_has_its_own_pairs_and_nobody_in_them_trains(tmp_path: Path) -> None:
    for name, count in {"Ann": 3, "Bob": 2, "Cy": 1, "Di": 2, "Ed": 2, "Flo": 2}.items():
        for shot in range(1, count + 1):
            write(tmp_path / "lfw" / name / f"{name}_{shot:04d}.jpg", 40 * shot, (50, 50))
    (tmp_path / "pairs.txt").write_text("1\t1\nAnn\t1\t3\nBob\t2\tCy\t1\n")
    path = str(tmp_path / "lfw")
    test = faces.Faces("test", path=path, size=16)
    assert [test[i][1] for i in range(len(test))] == [1, 0]
    assert test.pairs[0][1].file == tmp_path / "lfw" / "Ann" / "Ann_0003.jpg"
    train = faces.Faces("train", path=path, size=16)
    names = {p.file.parent.name for p in train.pictures if p.file}
    assert names <= {"Di", "Ed", "Flo"} and sorted({p.who for p in train.pictures}) == [0, 1]
    (tmp_path / "pairs.txt").write_text("Ann\t1\t3\n")
    with pytest.raises(ValueError, match="pairs impostor are none of those in"):
        faces.Faces("test", path=path, pairs="impostor")
    (tmp_path / "pairs.txt").write_text("Ann\t1\t9\n")
    with pytest.raises(ValueError, match="line 1 names picture 9 of Ann"):
        faces.Faces("test", path=path)


def test_wrong_payloads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shots is at least 2"):
        faces.Faces(shots=1)
    with pytest.raises(ValueError, match="is no folder"):
        faces.Faces(path=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="people does nothing with the files of a path, got 60"):
        faces.Faces(path=str(tmp_path), people=60)
    with pytest.raises(ValueError, match="no two folders"):
        faces.Faces(path=str(tmp_path))


# --- verifiers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", faces.BODIES)
def test_every_verifier_gives_unit_embeddings_and_trains_every_parameter(kind: Any) -> None:
    task = faces.Verify(kind, trainable=True, people=5, size=SIZE).train()
    source = torch.rand(6, 3, SIZE, SIZE, generator=stream(1, "f"))
    loss = task.own_loss(source, torch.arange(6) % 5, 0.0, stream(1, "l"))
    loss.backward()
    assert [n for n, p in task.named_parameters() if p.grad is None] == []
    embedded = task.eval().network(source)
    assert embedded.shape == (6, 64) and embedded.norm(dim=1).allclose(torch.ones(6), atol=1e-5)
    assert len(task.network.feature_layers()) >= 3
    with pytest.raises(ValueError, match="takes faces of 32x32 pixels, got 48x48"):
        task.network(torch.rand(1, 3, 48, 48))


def test_the_margin_lowers_the_right_cosine_alone() -> None:
    head = faces.MarginHead(3, 4, scale=2.0, margin=0.3)
    embedded = nn.functional.normalize(torch.randn(2, 4, generator=stream(1, "e")))
    who = torch.tensor([0, 2])
    cosine = embedded @ nn.functional.normalize(head.weight, dim=1).T
    cosine[0, 0] -= 0.3
    cosine[1, 2] -= 0.3
    assert torch.allclose(head(embedded, who), nn.functional.cross_entropy(2 * cosine, who))
    with pytest.raises(ValueError, match="write people: 8 or more"):
        head(embedded, torch.tensor([0, 7]))


def test_thresholds_let_one_impostor_in_a_hundred_pass() -> None:
    network = faces.Verifier("plain", size=SIZE).eval()
    val = faces.Faces("val", people=60, shots=6, size=SIZE)
    faces.set_thresholds(network, val)
    cosines = faces.impostors(network, val)
    for rate, threshold in zip((0.01, 0.001), network.threshold.tolist(), strict=True):
        share = float((cosines > threshold + 1e-6).float().mean())
        assert rate - 2 / len(cosines) <= share + 1e-9 and share <= rate
    with pytest.raises(ValueError, match="say nothing of one in 1000"):
        faces.set_thresholds(network, faces.Faces("val", people=8, shots=4, size=SIZE))


def test_impostors_are_all_pairs_of_different_people_and_take_no_embedding_each() -> None:
    class Sizes(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.largest = max(self.largest, out.nbytes)
            return out

    network = faces.Verifier("plain", size=16).eval()
    val = faces.Faces("val", people=160, shots=4, size=16)
    with Sizes() as sizes:
        cosines = faces.impostors(network, val)
    pixels, who = everyone(val)
    found = embeddings(network, pixels)
    a, b = torch.triu_indices(len(who), len(who), 1)
    a, b = a[who[a] != who[b]], b[who[a] != who[b]]
    assert torch.allclose(cosines, (found[a] * found[b]).sum(dim=1), atol=1e-5)
    assert sizes.largest < cosines.nbytes * 64 / 2


def test_faces_too_small_for_ssim_are_verified_where_nothing_perturbs_them() -> None:
    verify = faces.Verify("plain", trainable=True, size=8).eval()
    begun = verify.begin(NoLink(NoLinkTransmitter(), AWGN()), [torch.rand(2, 6, 8, 8)])
    assert begun.sources[0].shape == (2, 3, 8, 8)


def test_a_training_estimates_thresholds_on_pairs_of_different_people() -> None:
    network = faces.Verifier("plain", size=SIZE)
    embedded = nn.functional.normalize(torch.randn(40, 64, generator=stream(1, "t")))
    who = torch.arange(40) % 4
    network.estimate_thresholds(embedded, who)
    cosine = (embedded @ embedded.T)[who[:, None] != who].sort().values
    first = network.threshold.clone()
    assert cosine[-14] <= first[0] <= cosine[-11] and cosine[-4] <= first[1] <= cosine[-1]
    network.estimate_thresholds(embedded, who)  # 1,200 pairs, each twice
    assert torch.allclose(network.threshold, first, atol=1e-6)
    network.estimate_thresholds(embedded[:1], who[:1])
    assert torch.allclose(network.threshold, first, atol=1e-6)


def test_adversarial_training_sees_faces_within_its_budget() -> None:
    task = faces.Verify("plain", trainable=True, people=4, size=SIZE, adversarial=8).train()
    source = torch.rand(4, 3, SIZE, SIZE, generator=stream(1, "f"))
    hard = task._hardened(source, torch.arange(4), stream(1, "h"))
    assert (hard - source).abs().max() <= 8 / 255 + 1e-6 and hard.min() >= 0 and hard.max() <= 1
    assert not torch.equal(hard, source)
    assert torch.isfinite(task.own_loss(source, torch.arange(4), 0.0, stream(1, "h")))


VAL = {"kind": "faces", "split": "val", "people": 60, "shots": 4, "size": SIZE}


def trained_by(task: dict[str, Any], validation: dict[str, Any] | None) -> Scenario:
    """A scenario that trains a verifier for two steps."""
    payload = {"kind": "faces", **FEW}
    train: dict[str, Any] = {"payload": {**payload, "split": "train"}, "steps": 2, "batch_size": 8}
    train |= {"through": "task", "val_items": 4}
    train |= {"validation": validation} if validation else {}
    return Scenario.parse({
        "name": "faces", "payload": {**payload, "count": 4}, "transmitter": "no_link",
        "channel": "awgn", "snr_db": [0], "metrics": ["tar_strict", "tar_recalibrated"],
        "task": {"kind": "faces", "trainable": True, "people": 8, "size": SIZE, **task},
        "train": train,
    })  # fmt: skip


def test_a_scenario_hardens_a_verifier_and_sets_its_thresholds_on_the_validation(
    tmp_path: Path,
) -> None:
    scenario = trained_by({"adversarial": 8.0}, VAL)
    preflight(scenario.points(), torch.device("cpu"))
    weights = own_weights(scenario, tmp_path, torch.device("cpu"))
    assert weights is not None
    task = faces.Verify(weights=str(weights.parent / zoo.OF_TASK), size=SIZE).eval()
    found = task.network.threshold.clone()
    faces.set_thresholds(task.network, spec.build(scenario.train.validation))  # type: ignore[union-attr]
    # anew over the same pairs; a batch of another size may round cosines otherwise
    assert torch.allclose(found, task.network.threshold, atol=1e-5)


def test_thresholds_that_nobody_sets_are_refused_before_the_training() -> None:
    with pytest.raises(SpecError, match="tar_strict needs a threshold of the task"):
        preflight(trained_by({}, None).points(), torch.device("cpu"))
    with pytest.raises(SpecError, match=r"train.validation: has too few people"):
        preflight(trained_by({}, {**VAL, "people": 8}).points(), torch.device("cpu"))
    no_split = {key: value for key, value in VAL.items() if key != "split"}  # so it is test
    with pytest.raises(SpecError, match=r"train.validation: sets thresholds.*: test; write split"):
        preflight(trained_by({}, no_split).points(), torch.device("cpu"))


# --- perturbed probes ---------------------------------------------------------------------------


def written_out(network: Any, probe: Tensor, enrolled: Tensor, attack: faces.Attack) -> Tensor:
    """I-FGSM and MI-FGSM, dodging, without any hook."""
    aim, image, mean = network(enrolled), probe, torch.zeros_like(probe)
    for _ in range(attack.iterations):
        image = image.detach().requires_grad_()
        loss = -(network(image) - aim).square().sum()
        (gradient,) = torch.autograd.grad(loss, image)
        if attack.momentum:
            size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
            gradient = mean = attack.momentum * mean + gradient / size
        image = image.detach() - attack.pixel_step / 255 * gradient.sign()
        eps = attack.eps / 255
        image = image.clamp(probe - eps, probe + eps).clamp(0, 1)
    return image


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_eta_zero_is_the_plain_attack_bit_for_bit(
    task: faces.Verify, pairs: tuple[Tensor, Tensor], momentum: float
) -> None:
    attack = replace(PLAIN, momentum=momentum)
    made = faces.craft(task.network, *pairs, attack)
    assert torch.equal(made, written_out(task.network, *pairs, attack))
    assert not torch.equal(made, faces.craft(task.network, *pairs, replace(attack, eta=0.05)))


@pytest.mark.parametrize("change", [
    {}, {"eta": 0.1}, {"eta": 0.05, "eta_mode": "relative"}, {"eta": 0.1, "raw": True},
    {"eta": 0.1, "stale": 2}, {"eta": 0.1, "noise": True}, {"dropout": 0.2}, {"momentum": 1.0},
    {"diversity": 0.8}, {"smoothing": 5}, {"eps": 0.0},
])  # fmt: skip
@pytest.mark.parametrize("goal", ["dodging", "impersonation"])
def test_probes_stay_within_the_budget_and_the_range(
    task: faces.Verify, pairs: tuple[Tensor, Tensor], change: dict[str, Any], goal: Any
) -> None:
    attack = replace(PLAIN, **change)
    made = faces.craft(task.network, *pairs, attack, goal)
    # a difference of two numbers in [0, 1] is rounded by at most 2^-24 each
    assert (made - pairs[0]).abs().max() <= attack.eps / 255 + 2e-7
    assert made.min() >= 0 and made.max() <= 1
    if attack.eps == 0:
        assert torch.equal(made, pairs[0])


def test_the_loss_falls_and_the_cosine_moves_to_the_goal(
    task: faces.Verify, pairs: tuple[Tensor, Tensor]
) -> None:
    probe, enrolled = pairs
    before = (task.network(probe) * task.network(enrolled)).sum(dim=1).mean()
    for goal, sign in (("dodging", -1), ("impersonation", 1)):
        trace: list[float] = []
        made = faces.craft(task.network, probe, enrolled, PLAIN, goal, trace=trace)  # type: ignore[arg-type]
        after = (task.network(made) * task.network(enrolled)).sum(dim=1).mean()
        assert sign * (after - before) > 0 and trace[-1] < trace[0] and len(trace) == 4


def hardened_loss(network: Any, pairs: tuple[Tensor, Tensor], eta: float, steps: int = 2) -> float:
    """Loss of the probes themselves, with features moved along the gradient of the first pass."""
    trace: list[float] = []
    # a pixel step so small that the image stands still for all that matters
    attack = faces.Attack(eps=1e-4, iterations=steps, step=1e-6, eta=eta)
    faces.craft(network, *pairs, attack, trace=trace)
    return trace[-1]


def test_moved_features_raise_the_loss_of_an_image_and_the_other_way_lower_it(
    task: faces.Verify, pairs: tuple[Tensor, Tensor]
) -> None:
    plain = hardened_loss(task.network, pairs, 0.0)
    assert hardened_loss(task.network, pairs, 1e-3) > plain
    assert hardened_loss(task.network, pairs, -1e-3) < plain
    assert hardened_loss(task.network, pairs, 1e-3, steps=1) == pytest.approx(plain, abs=1e-6)


def test_the_trace_of_bpfa_lies_above_that_of_the_plain_attack_and_noise_does_less(
    task: faces.Verify,
) -> None:
    payload, means = faces.Faces(count=6, pairs="impostor", **FEW), {}
    both = torch.stack([payload[i][0] for i in range(6)])
    for name, change in {
        "plain": {}, "small": {"eta": 5e-3}, "large": {"eta": 2e-2},
        "noise": {"eta": 2e-2, "noise": True},
    }.items():  # fmt: skip
        trace: list[float] = []
        attack = replace(PLAIN, **change)  # type: ignore[arg-type]
        faces.craft(task.network, both[:, :3], both[:, 3:], attack, "impersonation", trace=trace)
        means[name] = float(np.mean(trace[1:]))
    assert means["plain"] < means["small"] < means["large"]
    assert means["noise"] < means["large"]


@pytest.mark.parametrize("kind", faces.BODIES)
def test_hooks_are_one_per_layer_see_its_shape_and_leave_no_trace(kind: Any) -> None:
    network = faces.Verifier(kind, size=SIZE).eval().requires_grad_(False)
    before = digest(network)
    layers = faces.chosen_layers(network, "all")
    features = Features(layers, replace(PLAIN, eta=0.1), stream(1, "f"))
    image = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    with features.hooked():
        first = network(image)
        assert sum(len(m._forward_hooks) for m in network.modules()) == len(layers)
    assert len(features.outputs) == len(layers) and torch.equal(first, network(image))
    shapes = [f.shape for f in features.outputs]
    features.record(torch.autograd.grad(first.sum(), features.outputs))
    assert [g.shape for g in features.old[0]] == shapes and features.outputs == []
    with features.hooked():
        assert not torch.equal(network(image), first)
    assert not any(m._forward_hooks for m in network.modules()) and digest(network) == before
    thirds = [faces.chosen_layers(network, part) for part in ("early", "middle", "late")]  # type: ignore[arg-type]
    assert [*thirds[0], *thirds[1], *thirds[2]] == layers and all(thirds)


def digest(module: nn.Module) -> str:
    parts = (v.numpy().tobytes() for v in module.state_dict().values())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_features_of_another_shape_are_left_alone() -> None:
    network = faces.Verifier("plain", size=SIZE).eval().requires_grad_(False)
    features = Features(
        faces.chosen_layers(network, "all"), replace(PLAIN, eta=9.0), stream(1, "f")
    )
    with features.hooked():
        many = network(torch.rand(3, 3, SIZE, SIZE, requires_grad=True))
    features.record(torch.autograd.grad(many.sum(), features.outputs))
    image = torch.rand(2, 3, SIZE, SIZE)
    with features.hooked():
        assert torch.equal(network(image), network(image)) and features.old
        moved = network(image)
    assert torch.equal(moved, network(image))


def test_items_do_not_see_each_other(task: faces.Verify, pairs: tuple[Tensor, Tensor]) -> None:
    attack = replace(PLAIN, eta=0.05, momentum=1.0)
    together = faces.craft(task.network, *pairs, attack)
    alone = faces.craft(task.network, pairs[0][:1], pairs[1][:1], attack)
    # a sign flips where a gradient is nearly zero and sums are ordered otherwise
    assert ((together[:1] - alone).abs() < 1e-6).float().mean() > 0.95


def test_input_diversity_shrinks_and_smoothing_keeps_a_constant() -> None:
    image = torch.rand(4, 3, 16, 16, generator=stream(1, "i"))
    assert diverse(image, 0.0, stream(1, "d")) is image
    moved = diverse(image, 1.0, stream(1, "d"))
    assert not torch.allclose(moved, image) and moved.shape == image.shape
    flat = smoothed(torch.ones(1, 3, 16, 16), 5)
    assert flat[..., 3:-3, 3:-3].allclose(torch.ones(10, 10), atol=1e-6)


def test_a_probe_is_crafted_through_a_link(
    task: faces.Verify, pairs: tuple[Tensor, Tensor]
) -> None:
    link = Link(AnalogTransmitter("1/6"), AWGN(), AnalogReceiver("1/6"))
    link.train()  # a receiver that is trained does not clip, so that gradients pass

    def carried(image: Tensor) -> Tensor:
        return link(image, 15.0, stream(1, "noise"))

    made = {way: faces.craft(task.network, *pairs, PLAIN, through=way) for way in (None, carried)}
    aim = task.network(pairs[1])
    cosine = {w: float((task.network(carried(m)) * aim).sum(dim=1).mean()) for w, m in made.items()}
    assert cosine[carried] < cosine[None]


def test_wrong_attacks_are_refused() -> None:
    for change, words in {
        "eps": "eps lies between 0 and 255", "dropout": "dropout and diversity are shares",
        "iterations": "iterations and stale are at least 1",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=words):
            replace(PLAIN, **{change: -1})
    with pytest.raises(ValueError, match="smoothing is odd, got 4; write 5"):
        replace(PLAIN, smoothing=4)
    with pytest.raises(ValueError, match="attack has no 'etta'; did you mean 'eta'"):
        faces.Verify(trainable=True, attack={"etta": 1})
    for attack, words in (
        ({"iterations": 2.5}, "attack.iterations: must be an integer, got 2.5"),
        ({"noise": "no"}, "attack.noise: must be true or false, got 'no'"),
        ({"eta": float("nan")}, "attack.eta: must be a number"),
        ({"smoothing": -3}, "smoothing: is odd, got -3; write 3, or 0 for none"),
        ({"raw": True}, "eta: is 0, so raw, noise and stale change nothing"),
        ({"eta": 0.1, "raw": True, "noise": True}, "so raw does nothing"),
        ({"eta": 0.1, "stale": 4, "iterations": 4}, "or no feature is ever moved, got 4 and 4"),
    ):
        with pytest.raises(ValueError, match=words):
            faces.Verify(trainable=True, attack=attack)
    with pytest.raises(ValueError, match="surrogate_weights belong to an attack; write attack"):
        faces.Verify(trainable=True, surrogate="plain", surrogate_weights="own.safetensors")
    with pytest.raises(ValueError, match="goal is one of"):
        faces.Verify(trainable=True, goal="hide")  # type: ignore[arg-type]


# --- on a link ----------------------------------------------------------------------------------


def rows_of(task: faces.Verify, metrics: list[str], **about: Any) -> dict[str, dict[str, Any]]:
    payload = faces.Faces(count=24, **{**FEW, **about})
    link = NoLink(NoLinkTransmitter(), AWGN())
    return {
        r["metric"]: r for r in evaluate(link, payload, snr_db=[0.0], metrics=metrics, task=task)
    }


def test_rates_follow_from_cosines_and_thresholds(task: faces.Verify) -> None:
    payload = faces.Faces(count=24, **FEW)
    source = torch.stack([payload[i][0] for i in range(24)])
    genuine = torch.tensor([payload[i][1] for i in range(24)]) == 1
    cosine = (task.network(source[:, :3]) * task.network(source[:, 3:])).sum(dim=1)
    task.network.threshold.copy_(torch.tensor([float(cosine.median()), float(cosine.max())]))
    rows = rows_of(task, ["tar", "tar_strict", "false_rejection", "false_acceptance",
                          "tar_recalibrated"])  # fmt: skip
    accepted = cosine > task.network.threshold[0]
    assert rows["tar"]["value"] == pytest.approx(float(accepted[genuine].float().mean()))
    assert rows["false_acceptance"]["value"] == pytest.approx(
        float(accepted[~genuine].float().mean())
    )
    assert rows["tar"]["value"] + rows["false_rejection"]["value"] == pytest.approx(1)
    assert rows["tar_strict"]["value"] == 0
    # of 12 impostors none may pass
    best = float((cosine[genuine] > cosine[~genuine].max()).float().mean())
    assert rows["tar_recalibrated"]["value"] == pytest.approx(best)
    for row in rows.values():
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_the_enrolled_face_is_not_sent_and_the_attack_is_told(task: faces.Verify) -> None:
    link = Link(AnalogTransmitter("1/6"), AWGN(), AnalogReceiver("1/6"))
    payload = faces.Faces(count=6, pairs="genuine", **FEW)
    (clean,) = evaluate(link, payload, snr_db=[10.0], metrics=["tar"], task=task)
    assert clean["uses_side_info"] == 0 and "face_psnr" not in clean
    assert clean["uses_payload"] == 64 + 3 * SIZE**2 / 6
    task.attack = replace(PLAIN, eta=0.02)
    try:
        rows = evaluate(link, payload, snr_db=[10.0], task=task,
                        metrics=["false_rejection", "face_psnr", "face_ssim", "psnr"])  # fmt: skip
        source = torch.stack([payload[i][0] for i in range(6)])
        made = task.perturbed(source[:, :3], source[:, 3:])
    finally:
        task.attack = None
    error = (255 * (made - source[:, :3])).round().square().mean(dim=(1, 2, 3))
    psnr = (10 * (255**2 / error).log10()).mean()
    assert rows[1]["value"] == pytest.approx(float(psnr), abs=0.05)
    # four steps of one
    assert rows[0]["face_change"] == pytest.approx(4, abs=0.01) and 0 < rows[2]["value"] < 1
    with pytest.raises(ValueError, match="verify with an attack"):
        evaluate(link, payload, snr_db=[10.0], metrics=["face_psnr"], task=task)


@pytest.mark.parametrize("defence", ["jpeg", "bit_depth", "denoise"])
def test_a_defence_keeps_the_face_and_changes_what_is_fine(defence: Any) -> None:
    face = faces.Faces("train", **FEW)[0][0][None]
    noisy = (face + 0.03 * torch.randn(face.shape, generator=stream(1, "n"))).clamp(0, 1)
    seen = faces.defended(noisy, defence)
    assert seen.shape == face.shape and seen.min() >= 0 and seen.max() <= 1
    assert not torch.equal(seen, noisy) and (seen - face).abs().mean() < 0.1
    assert faces.defended(noisy, "none") is noisy
    flat = torch.full((1, 3, 16, 16), 3 / 7)
    # JPEG keeps a flat grey within a step of its coarsest quantiser and rounding
    assert (faces.defended(flat, defence) - flat).abs().max() < 0.02


def test_an_attack_draws_anew_for_other_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = {"diversity": 1.0, "iterations": 1}
    task = faces.Verify("plain", trainable=True, size=SIZE, people=8, attack=attack)
    seeds: list[int] = []
    monkeypatch.setattr(
        "semsim.vision.faces.task.craft", lambda *_given, seed: seeds.append(seed) or _given[1]
    )
    first, other = torch.rand(2, 2, 6, SIZE, SIZE, generator=stream(1, "batches"))
    for pairs in (first, other, first):
        task.perturbed(pairs[:, :3], pairs[:, 3:])
    assert seeds[0] == seeds[2] != seeds[1]


def test_a_surrogate_of_its_own_is_loaded_and_never_scores(
    task: faces.Verify, tmp_path: Path
) -> None:
    file = zoo.export_parts(tmp_path / "v.safetensors", {"network": task.network})
    other = faces.Verify("plain", trainable=True, size=SIZE, people=8, attack={"iterations": 2},
                         surrogate="residual", surrogate_weights=str(file)).eval()  # fmt: skip
    assert not any("surrogate" in name for name in other.state_dict())
    payload = faces.Faces(count=4, pairs="genuine", **FEW)
    source = torch.stack([payload[i][0] for i in range(4)])
    made = other.perturbed(source[:, :3], source[:, 3:])
    attack = faces.Attack(iterations=2)
    assert torch.equal(made, faces.craft(task.network, source[:, :3], source[:, 3:], attack))
    again = faces.Verify("residual", weights=str(file), size=SIZE)
    assert digest(again.network) == digest(task.network)
    with pytest.raises(ValueError, match="trained for verifier residual, this network has verif"):
        faces.Verify("mobile", weights=str(file), size=SIZE)
    with pytest.raises(ValueError, match="trained for surrogate residual, this network has surr"):
        faces.Verify(trainable=True, size=SIZE, attack={}, surrogate="vit",
                     surrogate_weights=str(file))  # fmt: skip
    with pytest.raises(ValueError, match="surrogate goes with surrogate_weights"):
        faces.Verify(trainable=True, surrogate="plain")


def test_a_training_s_file_is_loaded_without_its_head(tmp_path: Path) -> None:
    task = faces.Verify("plain", trainable=True, people=8, size=SIZE)
    spec = TrainSpec(steps=2, batch_size=8, through="task")
    with Training(AnyLink(), faces.Faces("train", **FEW), task, spec, folder=tmp_path) as training:
        training.advance()
        training.finish()
    again = faces.Verify("plain", weights=str(tmp_path / "task.safetensors"), size=SIZE)
    assert digest(again.network) == digest(task.network) and again.head is None


def test_other_sources_and_targets_are_refused(task: faces.Verify) -> None:
    with pytest.raises(ValueError, match=r"takes pairs of faces \[6, H, W\]"):
        rows_of(task, ["tar"], split="train")
    with pytest.raises(ValueError, match="split: train in the payload"):
        task.own_loss(torch.rand(2, 6, SIZE, SIZE), torch.tensor([0, 1]), 0.0, stream(1, "x"))
    with pytest.raises(ValueError, match="verify trains alone"):
        task.own_loss(torch.rand(2, 3, SIZE, SIZE), torch.rand(2), 0.0, stream(1, "x"))
    outcome = Outcome(torch.rand(2, 2), torch.rand(2), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="payload of two classes"):
        faces.TAR()(outcome)


# --- results and the benchmark ------------------------------------------------------------------


def test_other_weights_of_a_surrogate_are_other_results(tmp_path: Path) -> None:
    file = tmp_path / "surrogate.safetensors"
    for key, beside in {"surrogate_weights": {}, "encoder": {"weights": "other"}}.items():
        found = []
        for content in (b"one", b"another"):
            file.write_bytes(content)
            found.append(data_hashes({"task": {key: str(file), **beside}}))
        assert found[0].keys() == {str(file)} and found[0] != found[1]


@pytest.fixture
def benchmark_faces(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("faces")


def test_the_benchmark_s_loss_is_of_all_pairs(
    benchmark_faces: Any, task: faces.Verify, pairs: tuple[Tensor, Tensor]
) -> None:
    trace: list[float] = []
    attack = replace(PLAIN, iterations=1)  # later ones hang on signs of rounded gradients
    faces.craft(task.network, *pairs, attack, trace=trace)
    made, loss = benchmark_faces.crafted(task.network, *pairs, attack, "dodging", size=4)
    assert made.shape == pairs[0].shape and loss == pytest.approx(trace[-1], abs=1e-5)


def test_the_benchmark_unpacks_anew_what_was_stopped(
    benchmark_faces: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "faces_att.npz", x=images, y=np.array([1, 1, 2, 2]))
    args = argparse.Namespace(out=tmp_path / "out", data=tmp_path)
    made, count = Image.fromarray, iter(range(2))
    with monkeypatch.context() as stopped, pytest.raises(StopIteration):
        stopped.setattr(Image, "fromarray", lambda pixels: (next(count), made(pixels))[1])
        benchmark_faces.unpacked(args)
    folder = Path(benchmark_faces.unpacked(args))
    assert len(list(folder.glob("*/*.png"))) == 4
