"""Restoration of faces: payload, networks, sampler, task, and perturbed restorations."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from channels import AWGN
from semsim import Link, evaluate, zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.mistakes import SpecError
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.preflight import preflight
from semsim.sweep.trained import own_weights
from semsim.vision import faces, restore
from semsim.vision.restore.networks import NOISE_STEPS, OFF, autoencoder_loss, denoising_loss
from semsim.vision.restore.unet import waves

SIZE = 32
FEW: dict[str, Any] = {"people": 4, "shots": 2, "size": SIZE}
QUICK = restore.RestoreAttack(iterations=4, steps=2)


def drawn(*shape: int, label: str = "images") -> Tensor:
    return torch.rand(shape, generator=stream(1, label))


@pytest.fixture(scope="module")
def restorer() -> restore.Restorer:
    """A fresh one, but for the U-Net's last layer, which is zero in a fresh one."""
    torch.manual_seed(2)
    made = restore.Restorer().eval().requires_grad_(False)
    made.unet.out[-1].weight.normal_(std=0.02)
    return made


@pytest.fixture(scope="module")
def verifier() -> faces.Verifier:
    torch.manual_seed(3)
    return faces.Verifier("plain", size=SIZE).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    payload = faces.Faces(count=3, pairs="genuine", **FEW)
    both = torch.stack([payload[i][0] for i in range(3)])
    return both[:, :3], both[:, 3:]


# --- payload ------------------------------------------------------------------------------------


def test_items_are_a_degraded_face_and_the_face_by_index_alone() -> None:
    payload = restore.DegradedFaces("train", count=20, **FEW)
    again = restore.DegradedFaces("train", count=20, **FEW)
    degraded, face = payload[9]
    assert torch.equal(again[9][0], degraded) and torch.equal(payload[9][0], degraded)
    assert degraded.shape == face.shape == (3, SIZE, SIZE)
    assert torch.equal(payload[1][1], face) and not torch.equal(payload[1][0], degraded)  # of 8
    assert torch.equal(payload[-1][0], payload[19][0]) and len(payload) == 20
    with pytest.raises(IndexError, match="asked for number 20"):
        payload[20]
    assert len(restore.DegradedFaces("train", **FEW)) == 8
    other = restore.DegradedFaces("train", count=20, seed=1, **FEW)
    assert not torch.equal(other[9][0], degraded)


def test_one_picture_of_a_person_will_do(tmp_path: Path) -> None:
    assert len(restore.DegradedFaces(people=4, shots=1, size=SIZE)) == 2
    for who in range(4):
        (tmp_path / f"s{who}").mkdir()
        Image.new("RGB", (40, 40), (60 * who, 0, 0)).save(tmp_path / f"s{who}" / "1.png")
    for split, reds in (("train", [0, 60]), ("val", [120]), ("test", [180])):
        payload = restore.DegradedFaces(split, path=str(tmp_path), size=SIZE)  # type: ignore[arg-type]
        payload.check_files()
        found = [round(255 * float(payload[i][1][0].max())) for i in range(len(payload))]
        assert found == reds
    for who in (2, 3):
        (tmp_path / f"s{who}" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"split test has nobody: of the people .*; add people"):
        restore.DegradedFaces("test", path=str(tmp_path), size=SIZE)
    with pytest.raises(ValueError, match="shots does nothing with the files of a path, got 8"):
        restore.DegradedFaces("test", path=str(tmp_path), size=SIZE, shots=8)
    with pytest.raises(ValueError, match="pairs need two people and one with two pictures"):
        faces.Faces("val", path=str(tmp_path), size=SIZE)


def test_nobody_is_in_two_splits() -> None:
    who = [
        {p.who for p in restore.DegradedFaces(split, **FEW).faces.pictures}  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    ]
    assert not who[0] & who[1] and not who[0] & who[2] and not who[1] & who[2]


@pytest.mark.parametrize(
    ("milder", "harder"),
    [
        ({"blur": (0.3, 0.3)}, {"blur": (2.0, 2.0)}),
        ({"factors": (1,)}, {"factors": (4,)}),
        ({"noise": (0.0, 0.0)}, {"noise": (0.06, 0.06)}),
        ({"quality": (95, 95)}, {"quality": (10, 10)}),
    ],
)
def test_each_step_of_the_chain_takes_something_away(milder: Any, harder: Any) -> None:
    usual = {"blur": (0.3, 0.3), "factors": (1,), "noise": (0.0, 0.0), "quality": (95, 95)}
    face = faces.Faces("train", **FEW)[0][0]
    near, far = (
        restore.Degradation(**{**usual, **change})(face, stream(1, "chain"))
        for change in (milder, harder)
    )
    assert (far - face).square().mean() > 2 * (near - face).square().mean()


def test_a_blur_keeps_the_mean_and_widens_a_point() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    found = restore.blurred(point, 2.0)[0, 0]
    at = torch.arange(41.0) - 20
    assert found.sum() == pytest.approx(1, abs=1e-5)
    # a Gaussian cut at three deviations has 0.973 of its variance
    assert (found.sum(dim=0) * at.square()).sum() == pytest.approx(4 * 0.973, rel=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blur": (2.0, 1.0)}, "blur goes from low to high"),
        ({"blur": (1.0, float("inf"))}, "blur is a finite number, got inf"),
        ({"noise": (-1.0, 1.0)}, "noise is at least 0"),
        ({"blur": (0.0, 1.0)}, "blur is above 0"),
        ({"quality": (0, 50)}, "quality lies between 1 and 100"),
        ({"factors": ()}, "factors are whole numbers"),
    ],
)
def test_void_degradations_are_refused(change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        restore.DegradedFaces(**FEW, **change)


# --- networks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 64])
def test_latents_are_a_quarter_as_wide_and_faces_come_back(
    restorer: restore.Restorer, size: int
) -> None:
    face = drawn(2, 3, size, size)
    latent = restorer.encode(face)
    assert latent.shape == (2, 8, size // 4, size // 4)
    assert restorer.decode(latent).shape == face.shape
    assert restorer.unet(torch.cat([latent, latent], dim=1), 7).shape == latent.shape
    with pytest.raises(ValueError, match="multiples of 16, got 40x40; write size: 48"):
        restorer.encode(drawn(1, 3, 40, 40))


def test_faces_of_a_batch_do_not_see_each_other(restorer: restore.Restorer) -> None:
    face = drawn(3, 3, SIZE, SIZE)
    together = restorer.decode(restorer.restored(face, steps=2, start=0.4))
    alone = restorer.decode(restorer.restored(face[1:2], steps=2, start=0.4))
    # float32 sums of a batch of another size may round otherwise in each of some hundred layers
    assert torch.allclose(together[1:2], alone, atol=1e-3)


def test_steps_are_told_apart() -> None:
    like = torch.zeros(1, 1)
    found = torch.cat([waves(step, 48, like) for step in (1, 2, 400, 1000)])
    assert found.shape == (4, 48)
    apart = torch.cdist(found, found) + 9 * torch.eye(4)
    assert apart.min() > 0.1


def test_the_ladder_of_noise_falls_to_none() -> None:
    assert restore.ladder(4, 0.4) == [400, 300, 200, 100, 0]
    assert len(set(restore.ladder(20, 1.0))) == 21
    with pytest.raises(ValueError, match=r"between 1 and start times 1000, got 20 and start 0\.01"):
        restore.ladder(20, 0.01)
    with pytest.raises(ValueError, match=r"between 1 and start times 1000, got 20 and start inf"):
        restore.ladder(20, math.inf)


def test_noise_keeps_the_power_of_a_latent(restorer: restore.Restorer) -> None:
    assert restorer.kept[0] == 1 and (restorer.kept.diff() < 0).all()
    beta = torch.linspace(1e-4, 0.02, NOISE_STEPS, dtype=torch.float64)
    assert restorer.kept[-1] == pytest.approx(float((1 - beta).log().sum().exp()), rel=1e-5)
    draws = [torch.randn(1, 1, 400, 500, generator=stream(1, k)) for k in "ab"]
    found = restorer.noised(draws[0], torch.tensor([400]), draws[1])
    # a variance of n draws has the standard error sqrt(2 / n)
    assert abs(found.var() - 1) < 5 * math.sqrt(2 / 200_000)


@pytest.mark.parametrize(("steps", "start"), [(20, 0.4), (3, 1.0)])
def test_a_perfect_network_leads_to_the_clean_latent(steps: int, start: float) -> None:
    """And it runs once per step."""
    model = restore.Restorer()
    face = torch.randn(2, 8, 8, 8, generator=stream(1, "clean"))
    asked: list[int] = []

    def perfect(both: Tensor, step: int) -> Tensor:
        asked.append(step)
        known, deviation = model.guess(*both.chunk(2, dim=1), step)
        return (face - known) / deviation

    model.unet.forward = perfect  # type: ignore[method-assign]
    rungs = restore.ladder(steps, start)
    found = model.sampled(model.begun(face / 2, rungs, 0), torch.zeros_like(face), rungs)
    # rounding of float32, of values up to 5 divided by a kept amplitude of 0.0063 in the guess
    assert torch.allclose(found, face, atol=1e-3)
    assert asked == rungs[:-1] and len(asked) == steps


def test_the_guess_is_the_best_mean_of_both() -> None:
    """Of a noised latent and one that is off by the variance OFF: nothing linear is nearer."""
    model, count = restore.Restorer(), 100_000
    face, off, noise = (torch.randn(1, 1, 1, count, generator=stream(1, k)) for k in "abc")
    condition = face + OFF**0.5 * off
    for step in (50, 400, 900):
        noised = model.noised(face, torch.tensor([step]), noise)
        known, deviation = model.guess(noised, condition, step)
        error = (known - face).square().mean()
        # the mean of n squares has the standard error sqrt(2 / n) of itself
        assert error / deviation.square() == pytest.approx(1, abs=5 * (2 / count) ** 0.5)


def test_a_fresh_network_adds_nothing_to_the_guess(restorer: restore.Restorer) -> None:
    fresh = restore.Restorer()
    latent, condition = (torch.randn(1, 8, 8, 8, generator=stream(1, k)) for k in "lc")
    assert torch.equal(fresh.clean(latent, condition, 300), fresh.guess(latent, condition, 300)[0])
    assert not torch.equal(restorer.clean(latent, condition, 300),
                           restorer.guess(latent, condition, 300)[0])  # fmt: skip


def test_the_sampler_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra diffusion is not installed")
    model = restore.Restorer()
    theirs = diffusers.DDIMScheduler(
        NOISE_STEPS, beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True,
        prediction_type="sample",
    )  # fmt: skip
    theirs.set_timesteps(10)
    latent = torch.randn(1, 8, 8, 8, generator=stream(1, "latent"))
    cleans = torch.randn(10, 1, 8, 8, 8, generator=stream(1, "clean"))
    # they count from 0 and end each stride at its first step; ours names how many are done
    rungs = [int(t) + 1 for t in theirs.timesteps] + [0]
    mine, other = latent, latent
    for now, after, step, clean in zip(rungs, rungs[1:], theirs.timesteps, cleans, strict=False):
        mine = model.stepped(mine, clean, now, after)
        other = theirs.step(clean, step, other).prev_sample
    assert torch.allclose(mine, other, atol=1e-4, rtol=1e-4)


def test_losses_reach_every_weight_of_their_part() -> None:
    model = restore.Restorer()
    face = drawn(2, 3, SIZE, SIZE)
    autoencoder_loss(model.autoencoder, face, stream(1, "a")).backward()
    assert [n for n, p in model.autoencoder.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in model.unet.parameters())
    model.zero_grad()
    nn.init.normal_(model.unet.out[-1].weight)  # type: ignore[arg-type]
    denoising_loss(model, face / 2, face, stream(1, "u")).backward()
    assert [n for n, p in model.unet.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in model.autoencoder.parameters())


# --- the task -----------------------------------------------------------------------------------


def test_a_restoration_sits_behind_a_link() -> None:
    payload = restore.DegradedFaces(count=4, **FEW)
    task = restore.Restore(trainable=True, steps=2).eval()
    link = Link(AnalogTransmitter("1/2"), AWGN(), AnalogReceiver("1/2"))
    rows = evaluate(link, payload, snr_db=[5, 20], task=task, metrics=["task_psnr", "psnr"])
    assert len(rows) == 4 and rows[0]["value"] != rows[2]["value"]


def test_a_scenario_trains_the_autoencoder_then_the_unet(tmp_path: Path) -> None:
    payload = {"kind": "restore", **FEW}
    scenario = Scenario.parse({
        "name": "restore", "payload": {**payload, "count": 2}, "transmitter": "no_link",
        "channel": "awgn", "snr_db": [0], "metrics": ["task_psnr"],
        "task": {"kind": "restore", "trainable": True, "steps": 2},
        "train": {
            "payload": {**payload, "split": "train"}, "through": "task", "batch_size": 4,
            "stages": [
                {"task": {"kind": "restore", "part": "autoencoder"}, "steps": 2},
                {"task": {"kind": "restore", "part": "unet"}, "steps": 2},
            ],
        },
    })  # fmt: skip
    preflight(scenario.points(), torch.device("cpu"))
    weights = own_weights(scenario, tmp_path, torch.device("cpu"))
    assert weights is not None
    first, last = (
        zoo.tensors(str(folder / zoo.OF_TASK))
        for folder in (weights.parent / "stage-1", weights.parent)
    )
    moved = {key for key in last if not torch.equal(first[key], last[key])}
    assert moved and all(key.startswith("network.unet.") for key in moved)
    assert first["network.spread"] != 1
    task = restore.Restore(weights=str(weights.parent / zoo.OF_TASK))
    trained_on = restore.DegradedFaces("train", **FEW)
    faces_seen = torch.stack([trained_on[i][1] for i in range(8)])
    means = task.network.autoencoder.moments(faces_seen)[0]
    assert task.network.spread == pytest.approx(float(means.square().mean().sqrt()), rel=1e-4)


@pytest.mark.parametrize("stages", [[], [{"task": {"kind": "restore", "part": "unet"}}]])
def test_the_unet_is_not_trained_on_a_random_autoencoder(stages: list[Any], tmp_path: Path) -> None:
    payload = {"kind": "restore", **FEW}
    train = {"payload": {**payload, "split": "train"}, "through": "task", "batch_size": 4}
    values = {
        "name": "restore", "payload": {**payload, "count": 2}, "transmitter": "no_link",
        "channel": "awgn", "snr_db": [0], "metrics": ["task_psnr"],
        "task": {"kind": "restore", "trainable": True, "steps": 2},
    }  # fmt: skip
    own = train | {"steps": 2, "stages": stages}
    where = "train.stages[0].task.part" if stages else "task.part"
    says = re.escape(where) + ": unet is .*, which has no weights; name"
    with pytest.raises(SpecError, match=says):
        preflight(Scenario.parse({**values, "train": own}).points(), torch.device("cpu"))
    begun = {"network": restore.Restorer()}
    zoo.export_parts(tmp_path / "task.safetensors", begun, {"about": "a stage before"})
    own = {**train, "steps": 2, "start": str(tmp_path / "task.safetensors")}
    preflight(Scenario.parse({**values, "train": own}).points(), torch.device("cpu"))


def test_a_federation_without_a_validation_cannot_measure_latents() -> None:
    task = restore.Restore(trainable=True, part="autoencoder")
    with pytest.raises(ValueError, match="validation is missing, on which a federation measures"):
        task.after_training(None, None)


def test_only_faces_with_their_clean_ones_train() -> None:
    task = restore.Restore(trainable=True)
    with pytest.raises(ValueError, match="trains on degraded faces and faces"):
        task.own_loss(drawn(2, 3, SIZE, SIZE), torch.tensor([0, 1]), 0.0, stream(1, "t"))
    with pytest.raises(ValueError, match="fresh network"):
        restore.Restore()
    with pytest.raises(ValueError, match="part"):
        restore.Restore(trainable=True, part="decoder")  # type: ignore[arg-type]


# --- perturbed restorations ---------------------------------------------------------------------


@pytest.mark.parametrize("place", ["latent", "unet", "decoder"])
def test_no_budget_gives_the_restoration_bit_for_bit(
    restorer: restore.Restorer, verifier: faces.Verifier, pairs: Any, place: Any
) -> None:
    attack = dataclasses.replace(QUICK, eps=0.0, place=place)
    found = restore.craft_restored(verifier, restorer, *pairs, attack)
    with torch.no_grad():
        feature, finish = restorer.feature(pairs[0], place, steps=2, start=0.4)
        plain = restorer.decode(restorer.restored(pairs[0], steps=2, start=0.4))
    assert torch.equal(found, finish(feature)) and torch.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("place", ["latent", "unet", "decoder"])
@pytest.mark.parametrize("goal", ["dodging", "impersonation"])
def test_the_loss_of_recognition_falls_and_weights_stay(
    restorer: restore.Restorer, verifier: faces.Verifier, pairs: Any, place: Any, goal: Any
) -> None:
    attack = dataclasses.replace(QUICK, eps=0.5, step=0.01, place=place, sibling=0.0)
    trace: list[tuple[float, float]] = []
    before = {k: v.clone() for k, v in restorer.state_dict().items()}
    found = restore.craft_restored(verifier, restorer, *pairs, attack, goal, trace=trace)
    assert len(trace) == 4 and trace[-1][0] < trace[0][0]
    assert found.min() >= 0 and found.max() <= 1 and found.shape == pairs[0].shape
    assert all(torch.equal(v, before[k]) for k, v in restorer.state_dict().items())
    assert all(p.grad is None for p in (*restorer.parameters(), *verifier.parameters()))


def test_the_perturbation_lies_in_the_latent_within_its_budget(
    restorer: restore.Restorer, verifier: faces.Verifier, pairs: Any
) -> None:
    seen: list[Tensor] = []
    keep = restorer.autoencoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    attack = dataclasses.replace(QUICK, eps=0.1, step=0.08)
    found = restore.craft_restored(verifier, restorer, *pairs, attack)
    keep.remove()
    first, last = seen[0], seen[-1]  # the first iteration's is not perturbed
    unit = first.std(dim=(1, 2, 3), keepdim=True)
    assert ((last - first).abs() <= 0.1 * unit + 1e-5).all() and not torch.equal(first, last)
    with torch.no_grad():
        assert torch.equal(found, restorer.autoencoder(last).clamp(0, 1))


def test_the_sibling_keeps_the_face_nearer_to_the_probe(
    restorer: restore.Restorer, verifier: faces.Verifier, pairs: Any
) -> None:
    ends = []
    for sibling in (0.0, 1000.0):
        trace: list[tuple[float, float]] = []
        attack = dataclasses.replace(QUICK, eps=0.5, step=0.01, sibling=sibling, iterations=6)
        restore.craft_restored(verifier, restorer, *pairs, attack, trace=trace)
        ends.append(trace[-1][1])
    assert ends[1] < ends[0]


def test_pixels_may_be_held_near_the_probe(
    restorer: restore.Restorer, verifier: faces.Verifier, pairs: Any
) -> None:
    attack = dataclasses.replace(QUICK, pixels=6.0)
    found = restore.craft_restored(verifier, restorer, *pairs, attack)
    assert 255 * (found - pairs[0]).abs().max() <= 6 + 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": -1.0}, "eps and sibling are at least 0"),
        ({"iterations": 0}, "iterations is at least 1"),
        ({"pixels": 300.0}, "pixels lies between"),
        ({"steps": 0, "place": "unet"}, "write steps: 1 or more"),
        ({"place": "pixels"}, "place"),
        ({"steps": 20, "start": 0.001}, "between 1 and start times"),
    ],
)
def test_void_attacks_are_refused(change: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        restore.RestoreAttack(**change)


def test_a_verifier_meets_perturbed_restorations_behind_a_link(
    restorer: restore.Restorer, verifier: faces.Verifier, tmp_path: Path
) -> None:
    files = {name: str(tmp_path / f"{name}.safetensors") for name in ("own", "restorer")}
    zoo.export_parts(files["own"], {"network": verifier})
    zoo.export_parts(files["restorer"], {"network": restorer})
    attack = {"iterations": 2, "steps": 2}
    task = faces.Verify("plain", weights=files["own"], size=SIZE, attack=attack,
                        restorer_weights=files["restorer"])  # fmt: skip
    assert not any("restorer" in name or "unet" in name for name in task.state_dict())
    payload = faces.Faces(count=3, pairs="genuine", **FEW)
    link = Link(AnalogTransmitter("1/2"), AWGN(), AnalogReceiver("1/2"))
    rows = evaluate(link, payload, snr_db=[5], task=task.eval(), metrics=["face_ssim", "psnr"])
    with torch.no_grad():
        both = torch.stack([payload[i][0] for i in range(3)])
    found = restore.craft_restored(
        verifier, restorer, both[:, :3], both[:, 3:], restore.RestoreAttack(**attack)
    )
    assert torch.equal(task.perturbed(both[:, :3], both[:, 3:]), found)
    assert 0 < rows[0]["value"] < 1
    with pytest.raises(ValueError, match="attack has no 'eta'"):
        faces.Verify(weights=files["own"], size=SIZE, attack={"eta": 0.1},
                     restorer_weights=files["restorer"])  # fmt: skip
    with pytest.raises(ValueError, match="belong to an attack"):
        faces.Verify(weights=files["own"], size=SIZE, restorer_weights=files["restorer"])
