"""Training: it learns, it resumes bit for bit, it refuses what makes no sense."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from channels import AWGN, Rayleigh
from semsim import Link, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.files.disk import Damaged, check_seal, sealed_file
from semsim.links.multiple_access import MultipleAccessLink
from semsim.mistakes import sentence
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.learner import Batches, draw_snr, networks_in_bf16
from semsim.training.loop import Training, train
from semsim.training.screen import Screen
from semsim.training.spec import TrainSpec, rate
from semsim.types import Transmission

SMALL = {"cbr": "1/6", "width": 16, "depth": 1}


class Blobs(torch.utils.data.Dataset):
    """Smooth random images, 12 x 16."""

    name = "blobs"

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        coarse = torch.rand(1, 3, 3, 4, generator=stream(1, "blob", index))
        image = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")[0]
        return image, image


def small_link(channel: torch.nn.Module | None = None) -> Link:
    torch.manual_seed(3)
    return Link(DeepJSCCTransmitter(**SMALL), channel or AWGN(), DeepJSCCReceiver(**SMALL))


def spec(**changes: object) -> TrainSpec:
    settings = {"steps": 8, "batch_size": 4, "save_every": 3, "val_every": 4, **changes}
    return TrainSpec(**settings)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[k], other[k]) for k in one) and one.keys() == other.keys()


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_training_lowers_the_loss(tmp_path: Path, optimiser: str) -> None:
    link = small_link()
    source = torch.stack([Blobs()[i][0] for i in range(24)])

    def mse() -> float:
        with torch.no_grad():
            estimate = link(source, 10.0, stream(2, "check"))
        return float((estimate - source).square().mean())

    link.eval()
    before = mse()
    result = train(
        link, Blobs(), Reconstruct("log_mse"), spec(steps=40, optimiser=optimiser, lr=3e-3),
        folder=tmp_path,
    )  # fmt: skip
    assert result.steps == 40
    assert mse() < 0.7 * before


class Asks(DeepJSCCReceiver):
    """A receiver with a loss of its own: its one weight, by way of its latest forward pass."""

    def __init__(self) -> None:
        super().__init__(**SMALL)
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.seen: list[float] = []

    def forward(self, y: Tensor, *rest: Any) -> Tensor:
        self.kept = self.weight.square()
        return super().forward(y, *rest)

    def auxiliary_loss(self, progress: float, sent: Transmission) -> Tensor:
        self.seen.append(progress)
        return self.kept


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_an_end_may_add_a_loss_that_knows_the_progress(tmp_path: Path, precision: str) -> None:
    asks = Asks()
    link = Link(DeepJSCCTransmitter(**SMALL), AWGN(), asks)
    settings = spec(precision=precision, lr=1e-2, ema=0.0)
    train(link, Blobs(), spec=settings, folder=tmp_path)
    assert asks.seen == [step / 8 for step in range(8)]
    assert asks.weight < 2  # nothing else reaches it


def link_of_rates(channel: torch.nn.Module) -> Link:
    """A link that draws a rate in each step."""
    arguments = {"rates": ("1/24", "1/6"), "widths": (32,), "depths": (1,), "decoder_depths": (1,)}
    torch.manual_seed(3)
    return Link(SwinTransmitter(**arguments), channel, SwinReceiver(**arguments))


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("make", [small_link, link_of_rates])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, optimiser: str, make: Callable[..., Link]
) -> None:
    whole = make(Rayleigh())
    train(whole, Blobs(), spec=spec(optimiser=optimiser), folder=tmp_path / "whole")

    class Stops(Blobs):
        seen = 0

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            Stops.seen += 1
            if Stops.seen == 4 * 5 + 2:  # in the batch of step 5, after the checkpoint of step 3
                raise RuntimeError("power cut")
            return super().__getitem__(index)

    folder = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        train(make(Rayleigh()), Stops(), spec=spec(optimiser=optimiser), folder=folder)
    resumed = make(Rayleigh())
    result = train(resumed, Blobs(), spec=spec(optimiser=optimiser), folder=folder)
    assert result.steps == 8
    assert same(whole.state_dict(), resumed.state_dict())


def test_ctrl_c_saves_the_step_at_hand_and_the_next_call_goes_on(tmp_path: Path) -> None:
    class Interrupts(Blobs):
        seen = 0

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            Interrupts.seen += 1
            if Interrupts.seen == 10:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        train(small_link(), Interrupts(), spec=spec(), folder=tmp_path)
    stopped = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["steps"]
    assert 2 <= stopped < 8
    assert train(small_link(), Blobs(), spec=spec(), folder=tmp_path).steps == 8


def test_training_writes_validation_and_weights_that_the_zoo_reads(tmp_path: Path) -> None:
    from semsim import zoo

    link = small_link()
    result = train(link, Blobs(), spec=spec(), folder=tmp_path, validation=Blobs())
    assert [row["step"] for row in result.curve] == [4, 4, 4, 8, 8, 8]
    assert (tmp_path / "validation.csv").is_file()
    fresh = small_link()
    zoo.load(str(result.weights), fresh.transmitter, fresh.receiver)
    assert same(link.state_dict(), fresh.state_dict())


def test_a_training_killed_in_a_validation_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = spec(steps=4, save_every=2, val_every=2, val_snr_db=(0.0,))
    done, validate = list[int](), Training.validate

    def killed(training: Training) -> None:
        done.append(training.state.steps)
        if len(done) in (1, 3):
            raise KeyboardInterrupt
        validate(training)

    monkeypatch.setattr(Training, "validate", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    result = train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    assert done == [2, 2, 4, 4]
    assert [row["step"] for row in result.curve] == [2, 4]


@pytest.mark.parametrize("content", ["junk", "", None])
def test_a_resumed_training_needs_no_file_of_its_validations(
    tmp_path: Path, content: str | None
) -> None:
    settings = spec(steps=4, val_every=2, val_snr_db=(0.0,))
    whole = train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    file = tmp_path / "validation.csv"
    before = file.read_text()
    (tmp_path / "checkpoint.pt").unlink()  # that of step 3 is left
    file.unlink() if content is None else file.write_text(content)
    again = train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    assert [row["step"] for row in again.curve] == [2, 4] and again.curve == whole.curve
    assert file.read_text() == before


def test_a_training_goes_on_under_another_validation(tmp_path: Path) -> None:
    link, whole = small_link(), small_link()
    train(whole, Blobs(), spec=spec(steps=3), folder=tmp_path / "whole")
    first = spec(steps=3, val_every=2, val_snr_db=(0.0,))
    folder = tmp_path / "cut"
    with Training(small_link(), Blobs(), spec=first, folder=folder, validation=Blobs()) as begun:
        begun.advance(2)
    then = spec(steps=3, val_every=1, val_snr_db=(3.0, 6.0), val_items=7, save_every=1)
    curve = train(link, Blobs(), spec=then, folder=folder, validation=Blobs()).curve
    assert [(r["step"], r["snr_db"], r["n"]) for r in curve] == [(2, 0, 24), (3, 3, 7), (3, 6, 7)]
    assert same(link.state_dict(), whole.state_dict())


def without_curve(path: Path) -> None:
    """Turn a checkpoint into one from before it held the validations."""
    content = torch.load(path, weights_only=True)
    del content["curve"], content["before"]
    with sealed_file(path) as file:
        torch.save(content, file)


def test_a_checkpoint_from_before_it_held_the_validations_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = spec(steps=4, val_every=2, val_snr_db=(0.0,))
    link, file = small_link(), tmp_path / "validation.csv"
    whole = train(link, Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    before = file.read_text()
    without_curve(tmp_path / "checkpoint.pt")  # a finished training keeps its file
    done = train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    values = pytest.approx([row["value"] for row in whole.curve], rel=1e-12)
    assert [row["step"] for row in done.curve] == [2, 4] and file.read_text() == before
    assert [row["value"] for row in done.curve] == values  # pandas may round as it reads
    without_curve(tmp_path / "checkpoint.old.pt")
    (tmp_path / "checkpoint.pt").unlink()
    resumed = small_link()
    result = train(resumed, Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    assert same(link.state_dict(), resumed.state_dict())
    assert [row["step"] for row in result.curve] == [2, 4] and not caplog.text
    assert [row["value"] for row in result.curve] == values


@pytest.mark.parametrize("content", ["junk", "", "step\nmany"])
def test_an_earlier_checkpoint_beside_an_unreadable_file_says_that_it_begins_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = spec(steps=4, val_every=2, val_snr_db=(0.0,))
    train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    for name in ("checkpoint.pt", "checkpoint.old.pt"):
        without_curve(tmp_path / name)
    (tmp_path / "validation.csv").write_text(content)
    train(small_link(), Blobs(), spec=settings, folder=tmp_path)
    assert not caplog.text  # nothing would be written
    (tmp_path / "checkpoint.pt").unlink()
    result = train(small_link(), Blobs(), spec=settings, folder=tmp_path, validation=Blobs())
    assert [row["step"] for row in result.curve] == [4] and "begins anew" in caplog.text


def test_validations_by_a_metric_that_gives_numbers_of_numpy_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such numbers are no plain ones, which alone a checkpoint may hold."""
    monkeypatch.setattr("semsim.metrics.image.PSNR.combine", lambda _, mean: np.float64(mean))
    first = spec(steps=2, val_every=1, val_snr_db=(0.0,))
    whole = train(small_link(), Blobs(), spec=first, folder=tmp_path, validation=Blobs())
    again = train(small_link(), Blobs(), spec=first, folder=tmp_path, validation=Blobs())
    assert again.curve == whole.curve and len(whole.curve) == 2


def test_a_validation_of_few_items_sees_more_than_the_first_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InOrder(Blobs):
        labels = tuple(i // 16 for i in range(64))

        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> Any:
            return index, index

    seen: list[list[int]] = []
    monkeypatch.setattr(
        "semsim.training.validation.evaluate",
        lambda link, payload, **_: seen.append([payload[i][0] for i in range(8)]) or [],
    )  # fmt: skip
    few = spec(val_items=8)
    with Training(small_link(), Blobs(), spec=few, validation=InOrder()) as training:
        training.validate()
        training.validation = type(
            "Mixed", (InOrder,), {"labels": tuple(i % 4 for i in range(64))}
        )()
        training.validate()
    assert seen[0] == sorted(set(seen[0])) and len({i // 16 for i in seen[0]}) > 1
    assert seen[1] == list(range(8))  # of any other payload the first


def test_a_validation_tells_users_apart(tmp_path: Path) -> None:
    torch.manual_seed(3)
    ends = [DeepJSCCTransmitter(**SMALL), Rayleigh(num_tx=2, num_rx=2), DeepJSCCReceiver(**SMALL)]
    both = MultipleAccessLink(*ends, users=2)
    settings = spec(steps=1, val_snr_db=(0.0, 9.0))
    curve = train(both, Blobs(), spec=settings, folder=tmp_path, validation=Blobs()).curve
    assert [(row["snr_db"], row["user"]) for row in curve] == [(0, 1), (0, 2), (9, 1), (9, 2)]


class Tied(DeepJSCCReceiver):
    """A receiver of which two layers share their weights."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.one, self.other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.other.weight = self.one.weight

    def forward(self, *given: Any) -> Tensor:
        image = super().forward(*given).movedim(1, -1)
        return self.other(self.one(image)).movedim(-1, 1)


def test_tied_weights_are_averaged_once_and_kept(tmp_path: Path) -> None:
    link = Link(DeepJSCCTransmitter(**SMALL), AWGN(), Tied(**SMALL))
    with Training(link, Blobs(), spec=spec(), folder=tmp_path) as training:
        training.advance(1)
        names = [f"link.receiver.{layer}.weight" for layer in ("one", "other")]
        before = training.state.average[names[0]].clone()
        training.advance(1)
        after = before.lerp(link.receiver.one.weight.detach(), 1 - 3 / 12)  # the decay of step 2
        for name in names:
            torch.testing.assert_close(training.state.average[name], after)
        kept = training.finish().weights
    assert kept is not None
    again = Tied(**SMALL)
    zoo.load(kept, DeepJSCCTransmitter(**SMALL), again)
    assert torch.equal(again.one.weight, link.receiver.one.weight)


def test_bf16_leaves_channel_and_outputs_in_fp32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Spy(AWGN):
        def forward(self, x: Tensor, *rest: object) -> Tensor:
            seen.append(x.dtype)
            return super().forward(x, *rest)

    link = small_link(Spy())
    train(link, Blobs(), spec=spec(steps=2, precision="bf16"), folder=tmp_path)
    assert seen == [torch.complex64] * 2
    layer = torch.nn.Linear(4, 4)
    with networks_in_bf16([layer], torch.device("cpu")):
        rounded = layer(torch.ones(1, 4))
    assert rounded.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_batches_depend_on_seed_and_step_alone() -> None:
    settings = spec(crop=8)
    early = Batches(Blobs(), settings, seed=5)
    batches = [early.batch(step)[0] for step in range(5)]
    assert torch.equal(Batches(Blobs(), settings, seed=5).batch(4)[0], batches[4])
    assert batches[0].shape == (4, 3, 8, 8)
    assert not torch.equal(Batches(Blobs(), settings, seed=6).batch(4)[0], batches[4])


def test_a_turn_moves_a_square_by_quarters_and_its_reference_alike() -> None:
    class Pairs(Blobs):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            image, _ = super().__getitem__(index)
            return image, 1 - image

    plain = Batches(Pairs(), spec(crop=None, flip=False, batch_size=24), seed=5)
    images = plain.batch(0)[0][..., :12]
    turned = Batches(Pairs(), spec(crop=12, turn=True, batch_size=24), seed=5)
    source, target = turned.batch(0)
    assert torch.equal(target, 1 - source)
    assert images.shape == source.shape
    quarters = [torch.equal(s.rot90(k, (1, 2)).flip(-1), s) for s in source for k in range(4)]
    assert not all(quarters)


def test_a_shift_moves_an_image_and_mirrors_what_comes_in() -> None:
    settings = spec(shift=3, flip=False, batch_size=24)
    moved = Batches(Blobs(), settings, seed=5).batch(0)[0]
    still = Batches(Blobs(), spec(flip=False, batch_size=24), seed=5).batch(0)[0]
    wide = torch.nn.functional.pad(still, (3, 3, 3, 3), mode="reflect")
    places = [
        [(a, b) for a in range(7) for b in range(7) if torch.equal(w[:, a:, b:][:, :12, :16], m)]
        for w, m in zip(wide, moved, strict=True)
    ]
    assert all(places) and len({found[0] for found in places}) > 10
    with pytest.raises(ValueError, match=r"too far .* write at most 11"):
        Batches(Blobs(), spec(shift=12), seed=5).batch(0)


def test_rate_rises_and_falls_to_zero() -> None:
    rates = [rate(p / 100, 0.1) for p in range(101)]
    assert rates[0] == 0
    assert max(rates) == max(rates[8:13])
    assert rates[100] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": 0.0}, "lr must be a finite number > 0"),
        ({"ema": 1.0}, "ema must be in"),
        ({"snr_db": (20.0, 0.0)}, "swap them"),
        ({"lr": math.inf}, "lr must be a finite number > 0"),
        ({"minutes": -1.0}, "minutes must be a finite number > 0"),
        ({"minutes": math.inf}, "minutes must be a finite number > 0"),
        ({"snr_db": math.inf}, "snr_db must lie between -200 and 200 dB, got inf"),
        ({"snr_db": (0.0, math.inf)}, "snr_db must lie between"),
        ({"val_snr_db": (math.nan,)}, "val_snr_db must lie between"),
        ({"val_snr_db": ()}, "val_snr_db must lie between"),
        ({"val_snr_db": (5.0, 5)}, "val_snr_db names an SNR twice"),
        ({"decay": 0.1}, "decay belongs to schedule: constant"),
        ({"decay": 1.0}, "decay must be in"),
        ({"warmup": -0.1}, "warmup must be a share below 1, or steps"),
        ({"rates": {"transmitter": -1.0}}, "rates must be finite numbers of at least 0"),
        ({"cut": True}, "name weights in start"),
        ({"shift": 2, "crop": 8}, "leave one of them out"),
        ({"crop": 0}, "crop must be at least 1, got 0"),
        ({"optimiser": "sgd"}, "optimiser 'sgd' is not one of adamw, muon"),
        ({"precision": "16"}, "precision '16' is not one of 32, bf16"),
        ({"start": ("a.safetensors", "b.pt")}, "start takes one checkpoint alone"),
        ({"snr_peak": (10.0, 2.0, 30.0)}, "such as .10, 2, 0.3."),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSpec(**changes)


def test_a_crop_larger_than_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop 64 is larger than an image"):
        train(small_link(), Blobs(), spec=spec(crop=64), folder=tmp_path)


class Untold(Blobs):
    """Images without a target."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0], None


def test_what_cannot_be_trained_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin: Any = partial(train, folder=tmp_path)
    with pytest.raises(TypeError, match=r"a link derives from .*, got Identity; write class"):
        begin(torch.nn.Identity(), Blobs())
    with pytest.raises(TypeError, match=r"a task derives from .*write class Identity\(Task\)"):
        begin(small_link(), Blobs(), torch.nn.Identity())
    with pytest.raises(ValueError, match=r"item .* has a target of NoneType; a target is a class"):
        begin(small_link(), Untold(), spec=spec())
    with pytest.raises(ValueError, match=r"^through: task trains a task alone, but this one has"):
        begin(small_link(), Blobs(), spec=spec(through="task"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^log: tensorboard is not installed; write log: csv"):
        begin(small_link(), Blobs(), spec=spec(log="tensorboard"))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train(small_link(), Blobs(), spec=spec(steps=2, snr_db=[0.0, 20.0]), folder=tmp_path)
    assert train(small_link(), Blobs(), spec=spec(steps=2), folder=tmp_path).steps == 2  # the same
    with pytest.raises(ValueError, match="other settings"):
        train(small_link(), Blobs(), spec=spec(steps=3), folder=tmp_path)
    wide = {**SMALL, "width": 24}
    link = Link(DeepJSCCTransmitter(**wide), AWGN(), DeepJSCCReceiver(**wide))
    with pytest.raises(ValueError, match="belongs to a training of other networks"):
        train(link, Blobs(), spec=spec(steps=2), folder=tmp_path)


def test_a_damaged_checkpoint_is_set_aside_and_training_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, again = small_link(), small_link()
    train(whole, Blobs(), spec=spec(steps=2), folder=tmp_path)
    path = tmp_path / "checkpoint.pt"
    sound = path.read_bytes()
    draw = random.Random(1)
    for place in (draw.randrange(len(sound)) for _ in range(400)):
        changed = bytearray(sound)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            check_seal(path)
    train(again, Blobs(), spec=spec(steps=2), folder=tmp_path)
    assert "checkpoint.pt is damaged" in caplog.text and "starts anew" in caplog.text
    assert (tmp_path / "checkpoint.pt.damaged").read_bytes() == changed
    assert path.read_bytes() != changed
    assert same(whole.state_dict(), again.state_dict())


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, resumed = small_link(), small_link()
    train(whole, Blobs(), spec=spec(save_every=2), folder=tmp_path)  # at 8 once, not twice
    path, older = tmp_path / "checkpoint.pt", tmp_path / "checkpoint.old.pt"
    assert torch.load(older, weights_only=True)["steps"] == 6
    path.write_bytes(path.read_bytes()[:-100])
    result = train(resumed, Blobs(), spec=spec(save_every=2), folder=tmp_path)
    assert "the one before it" in caplog.text
    assert result.steps == 8
    assert same(whole.state_dict(), resumed.state_dict())
    path.write_bytes(b"no checkpoint")
    older.write_bytes(b"none either")
    train(resumed := small_link(), Blobs(), spec=spec(save_every=2), folder=tmp_path)
    assert "starts anew" in caplog.text
    assert same(whole.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("pieces", [[8], [1, 3, 4], [5, 100]])
def test_a_training_in_pieces_equals_one_in_a_whole(tmp_path: Path, pieces: list[int]) -> None:
    whole, client = small_link(), small_link()
    train(whole, Blobs(), spec=spec(), folder=tmp_path, seed=2)
    with Training(client, Blobs(), spec=spec(), seed=2) as training:
        losses = [training.advance(steps) for steps in pieces]
        result = training.finish()
    assert all(math.isfinite(loss) for loss in losses)
    assert result.steps == 8 and result.weights is None
    assert same(whole.state_dict(), client.state_dict())


def test_a_client_goes_on_from_the_weights_of_a_server() -> None:
    server, client = small_link(), small_link()
    with torch.no_grad():
        for parameter in server.parameters():
            parameter.add_(0.01)
    with Training(client, Blobs(), spec=spec(steps=100)) as training:
        training.advance(2)
        given = {f"link.{name}": value for name, value in server.state_dict().items()}
        training.take(given)
        assert same(training.weights(), given)
        training.advance(1)
        assert not same(training.weights(), given)
        training.finish()  # the mean of what the server gave and of one step
        with pytest.raises(ValueError, match="these weights are not those of this link and task"):
            training.take(server.state_dict())
    assert not same(client.state_dict(), server.state_dict())


def test_a_constant_rate_rises_stays_and_falls_in_a_line() -> None:
    shape = TrainSpec(steps=100, schedule="constant", warmup=10, decay=0.2)
    rates = [shape.rate(step / 100, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == pytest.approx([1.0] * 71)
    assert rates[81:] == pytest.approx([(100 - step) / 20 for step in range(81, 100)])


def test_a_training_goes_on_from_the_state_before_its_decay(tmp_path: Path) -> None:
    settings = {"schedule": "constant", "warmup": 1, "optimiser": "muon"}
    longer = small_link()
    train(longer, Blobs(), spec=spec(steps=6, **settings), folder=tmp_path / "constant")
    train(small_link(), Blobs(), spec=spec(steps=8, decay=0.25, **settings), folder=tmp_path / "a")
    undecayed = tmp_path / "a" / "undecayed.pt"
    kept = torch.load(undecayed, weights_only=True)
    alike = torch.load(tmp_path / "constant" / "checkpoint.pt", weights_only=True)
    assert kept["steps"] == 6
    assert same(kept["nets"], alike["nets"])  # the decay has not begun
    torch.manual_seed(9)
    other = Link(DeepJSCCTransmitter(**SMALL), AWGN(), DeepJSCCReceiver(**SMALL))
    with Training(other, Blobs(), spec=spec(start=str(undecayed), **settings)) as training:
        assert same(training.weights(), kept["nets"])
        moments = training.state.optimiser.state_dict()["state"]
        assert torch.equal(moments[0]["mean"], kept["optimiser"]["state"][0]["mean"])
    for old in ("checkpoint.pt", "checkpoint.old.pt"):
        (tmp_path / "a" / old).unlink(missing_ok=True)
    anew = spec(steps=8, decay=0.25, lr=1e-4, **settings)
    train(small_link(), Blobs(), spec=anew, folder=tmp_path / "a")
    assert torch.load(undecayed, weights_only=True)["spec"]["lr"] == 1e-4  # no older training's
    wide = {**SMALL, "width": 24}
    link = Link(DeepJSCCTransmitter(**wide), AWGN(), DeepJSCCReceiver(**wide))
    with pytest.raises(ValueError, match="of other networks or another optimiser"):
        train(link, Blobs(), spec=spec(start=str(undecayed), **settings), folder=tmp_path / "b")


def test_the_average_of_a_checkpoint_is_not_forgotten_at_once(tmp_path: Path) -> None:
    still = {"steps": 40, "schedule": "constant", "warmup": 0.0, "save_every": 2}
    with Training(small_link(), Blobs(), spec=spec(**still), folder=tmp_path / "a") as training:
        training.advance(30)
    start = tmp_path / "a" / "checkpoint.pt"
    kept = torch.load(start, weights_only=True)
    later = spec(lr=1e-12, start=str(start), **still)
    apart = torch.cat([(v - kept["nets"][k]).flatten() for k, v in kept["average"].items()])
    shares = []
    for _ in range(2):  # the second goes on from where the first was stopped
        with Training(small_link(), Blobs(), spec=later, folder=tmp_path / "b") as training:
            training.advance(2)
            average = training.state.average
        left = torch.cat([(v - kept["nets"][k]).flatten() for k, v in average.items()])
        shares.append(float(left @ apart / (apart @ apart)))
    # of an average (1 + n) / (10 + n) are left in step n
    assert shares[0] == pytest.approx(32 / 41 * 33 / 42, rel=1e-3)
    assert shares[1] == pytest.approx(32 / 41 * 33 / 42 * 34 / 43 * 35 / 44, rel=1e-3)


def test_start_takes_over_what_fits_and_cut_its_leading_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = {**SMALL, "width": 24}
    torch.manual_seed(4)
    large = Link(DeepJSCCTransmitter(**wide), AWGN(), DeepJSCCReceiver(**wide))
    begun = str(train(large, Blobs(), spec=spec(steps=1), folder=tmp_path).weights)
    for cut in (False, True):
        link = small_link()
        with Training(link, Blobs(), spec=spec(start=begun, cut=cut)):
            taken = [
                torch.equal(value, large.state_dict()[key][tuple(map(slice, value.shape))])
                for key, value in link.state_dict().items()
            ]
        assert all(taken) == cut and any(taken)
    assert f"tensors of {begun} fit; write width: 24 to take all" in caplog.text
    assert caplog.text.count("to take all") == 1  # with cut that is meant
    with pytest.raises(ValueError, match="no tensor whose name and shape"):
        train(small_link(), Blobs(), spec=spec(start="resnet-cifar10"), folder=tmp_path / "b")
    with pytest.raises(ValueError, match="no weights are called"):
        train(small_link(), Blobs(), spec=spec(start="resnet-cifar"), folder=tmp_path / "b")


def test_a_checkpoint_to_start_from_leaves_the_rates_as_they_are_written(tmp_path: Path) -> None:
    train(small_link(), Blobs(), spec=spec(rates={"transmitter": 0.1}), folder=tmp_path)
    start = str(tmp_path / "checkpoint.pt")
    for rates in ({"transmitter": 0.5}, {"receiver": 0.1}):
        with Training(
            small_link(), Blobs(), spec=spec(start=start, rates=rates, warmup=0.0)
        ) as training:
            training.state.set_rate()
            names = {id(p): n for n, p in training.state.nets.named_parameters()}
            groups = training.state.optimiser.param_groups
            found = {names[id(p)].split(".")[1]: g["lr"] for g in groups for p in g["params"]}
        ratio = found["transmitter"] / found["receiver"]
        assert ratio == pytest.approx(rates.get("transmitter", 1) / rates.get("receiver", 1))
    with pytest.raises(ValueError, match="or its rates split them otherwise"):
        train(small_link(), Blobs(), spec=spec(start=start), folder=tmp_path / "b")


def test_the_card_says_what_weights_began_with(tmp_path: Path) -> None:
    first = train(small_link(), Blobs(), spec=spec(steps=2, lr=1e-2), folder=tmp_path / "a")
    later = spec(steps=3, start=first.weights)
    train(small_link(), Blobs(), spec=later, folder=tmp_path / "b", seed=4)
    card = json.loads((tmp_path / "b" / "weights.json").read_text())
    assert card["steps"] == 3 and card["training"]["seed"] == 4
    (before,) = card["before"]
    assert before["weights"] == str(first.weights)
    assert before["steps"] == 2 and before["training"]["lr"] == 1e-2
    first.weights.with_suffix(".json").write_text("5")  # what is damaged says nothing
    train(small_link(), Blobs(), spec=later, folder=tmp_path / "c")
    assert json.loads((tmp_path / "c" / "weights.json").read_text())["before"] == [
        {"weights": str(first.weights)}
    ]


def test_a_rate_of_zero_freezes_and_others_scale(tmp_path: Path) -> None:
    plain, scaled = small_link(), small_link()
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    settings = {"steps": 1, "ema": 0.0, "warmup": 0.0, "clip": 1e9}
    train(plain, Blobs(), spec=spec(**settings), folder=tmp_path / "a")
    rates = {"transmitter": 0.0, "receiver": 0.5}
    train(scaled, Blobs(), spec=spec(**settings, rates=rates), folder=tmp_path / "b")
    assert all(p.requires_grad for p in scaled.parameters())  # when it is over
    for name, old in before.items():
        moved = plain.state_dict()[name] - old
        factor = 0.5 if name.startswith("receiver") else 0.0
        # of one Adam step, up to the rounding of float32 weights near 1
        assert torch.allclose(scaled.state_dict()[name] - old, factor * moved, atol=2e-7), name
    with pytest.raises(ValueError, match="rates of 0 leave nothing to train"):
        train(plain, Blobs(), spec=spec(rates=dict.fromkeys(rates, 0.0)), folder=tmp_path / "c")
    with pytest.raises(ValueError, match="did you mean 'receiver'"):
        train(plain, Blobs(), spec=spec(rates={"reciever": 0.1}), folder=tmp_path / "c")


class Noted(DeepJSCCReceiver):
    """A receiver whose batch norm counts the batches that it learns from."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, *given: Any) -> Tensor:
        return self.norm(super().forward(*given))

    @property
    def count(self) -> int:
        return int(self.norm.num_batches_tracked)


def noted_link() -> Link:
    torch.manual_seed(3)
    return Link(DeepJSCCTransmitter(**SMALL), AWGN(), Noted(**SMALL))


def test_a_validation_wakes_no_frozen_part(tmp_path: Path) -> None:
    rates = {"receiver.norm": 0.0}
    for name, validation in {"a": None, "b": Blobs()}.items():
        link = noted_link()
        settings = spec(rates=rates, ema=0.0, val_every=2)
        train(link, Blobs(), spec=settings, folder=tmp_path / name, validation=validation)
        assert link.receiver.count == 0


def test_a_part_with_a_rate_of_its_own_trains_within_a_frozen_one(tmp_path: Path) -> None:
    link = noted_link()
    train(
        link, Blobs(), folder=tmp_path,
        spec=spec(steps=2, ema=0.0, rates={"receiver": 0.0, "receiver.norm": 1.0}),
    )  # fmt: skip
    assert link.receiver.count == 2


def test_a_link_that_was_evaluated_trains_in_training_mode(tmp_path: Path) -> None:
    """But for a part that its owner froze."""
    link = noted_link()
    still = link.transmitter.encoder.requires_grad_(False).eval()
    for number, folder in enumerate(("a", "b"), start=1):
        train(link, Blobs(), spec=spec(steps=2, ema=0.0), folder=tmp_path / folder)
        assert link.receiver.count == 2 * number
        assert not link.receiver.norm.training
    with Training(link, Blobs(), spec=spec(steps=2)):
        assert link.receiver.norm.training
        assert not any(module.training for module in still.modules())


def test_snrs_gather_around_a_peak() -> None:
    settings = TrainSpec(snr_db=(-2.0, 22.0), snr_peak=(10.0, 2.0, 0.3))
    snr_db = draw_snr(settings, 20_000, 1, (0,))
    near = ((snr_db - 10).abs() < 2).double().mean()
    share = 0.3 * math.erf(1 / math.sqrt(2)) + 0.7 * 4 / 24
    assert abs(near - share) < 5 * math.sqrt(share * (1 - share) / 20_000)
    assert torch.equal(draw_snr(settings, 5, 1, (0,)), draw_snr(settings, 5, 1, (0,)))


def test_a_loss_of_the_task_alone_needs_no_link(tmp_path: Path) -> None:
    class Halves(Reconstruct):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Conv2d(3, 3, 1)

        def forward(self, estimate: Tensor) -> Tensor:
            return self.network(estimate)

        def loss(self, output: Tensor, source: Tensor, target: Tensor) -> Tensor:
            return (output - target / 2).square().mean()

    class Deaf(AWGN):
        def forward(self, x: Tensor, *rest: object) -> Tensor:
            raise AssertionError("nothing is sent")

    link, task = small_link(Deaf()), Halves()
    before = {k: v.clone() for k, v in link.state_dict().items()}
    settings = spec(through="task", steps=200, lr=3e-2)
    result = train(link, Blobs(), task, settings, folder=tmp_path)
    assert result.loss < 1e-2
    assert same(before, link.state_dict())
    assert (tmp_path / "task.safetensors").is_file()


def test_off_a_terminal_a_line_says_that_a_training_begins_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_link(), Blobs(), spec=spec(), folder=tmp_path, progress="training blobs")
    begin, end = capsys.readouterr().err.splitlines()
    assert begin == f"training blobs: 8 steps of 4 items, kept in {tmp_path}"
    assert end.startswith("training blobs: 100%, step 8, loss 0.")
    train(small_link(), Blobs(), spec=spec(), folder=tmp_path, progress="training blobs")
    assert capsys.readouterr().err == ""  # nothing is left to do


def test_a_training_of_minutes_says_how_many_items_a_step_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen("training blobs").begin(TrainSpec(minutes=2, batch_size=8), 0, None)
    assert capsys.readouterr().err == "training blobs: 2 min in steps of 8 items\n"


def test_two_trainings_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    class Again(Blobs):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            with pytest.raises(ValueError, match="another run or training is writing to"):
                train(small_link(), Blobs(), spec=spec(steps=1), folder=tmp_path)
            return super().__getitem__(index)

    assert train(small_link(), Again(), spec=spec(steps=1), folder=tmp_path).steps == 1


def test_the_variables_of_slurm_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert train(small_link(), Blobs(), spec=spec(steps=1), folder=tmp_path).steps == 1


def test_a_full_disk_says_so_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_link(), Blobs(), spec=spec(steps=1), folder=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(path: str, mode: str) -> IO[bytes]:
        return open("/dev/full", mode)

    monkeypatch.setattr("semsim.files.disk.open", full, raising=False)
    for content in ({"small": 1}, {"large": torch.zeros(10**6)}):
        with pytest.raises(OSError) as caught, sealed_file(tmp_path / "checkpoint.pt") as file:
            torch.save(content, file)
        assert sentence(caught.value).startswith(f"the disk is full at {tmp_path}/checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".semsim*"))


@pytest.mark.slow
def test_two_processes_share_every_batch_and_can_be_resumed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link, resumed = small_link(), small_link()
    settings = {"processes": 2, "save_every": 6}
    result = train(link, Blobs(), spec=spec(**settings), folder=tmp_path)
    assert result.steps == 8 and result.weights is not None
    assert not same(link.state_dict(), small_link().state_dict())
    (tmp_path / "checkpoint.pt").unlink()
    assert torch.load(tmp_path / "checkpoint.old.pt", weights_only=True)["steps"] == 6
    assert train(resumed, Blobs(), spec=spec(**settings), folder=tmp_path).steps == 8
    assert share_apart(link, resumed) < 0.01
    said = capfd.readouterr().err
    assert "reducer.cpp" not in said and "distributed" not in said  # of torch and Lightning


@pytest.mark.slow
def test_what_one_of_two_processes_refuses_is_told_in_its_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = spec(processes=2, lr=1e30, clip=math.inf, warmup=0.0)
    with pytest.raises(ValueError, match=r"^the loss became nan at step 2; lower lr"):
        train(small_link(), Blobs(), spec=settings, folder=tmp_path)
    said = capfd.readouterr().err
    assert "Traceback" not in said and "Terminating" not in said


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_their_batches_together(tmp_path: Path) -> None:
    links = small_link(), small_link()
    silent = {"snr_db": (100.0, 100.0), "flip": False}  # or each would meet noise of its own
    for count, link in enumerate(links, start=1):
        train(link, Blobs(), spec=spec(processes=count, **silent), folder=tmp_path / str(count))
    assert not same(links[0].state_dict(), small_link().state_dict())
    assert share_apart(*links) < 0.01


def share_apart(one: Link, other: Link) -> float:
    """Return the share of weights that differ by more than a hundredth of the learning rate.

    Lost moments or other draws move most weights by about the rate; sums that round otherwise only
    those whose gradient is next to nothing, which Adam's step makes as large as any other.
    """
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    apart = torch.cat([(a - b).abs().flatten() for a, b in pairs])
    return float((apart > 0.01 * spec().lr).float().mean())


def test_shares_of_a_batch_make_the_batch() -> None:
    settings = spec(flip=False, batch_size=6)
    whole = Batches(Blobs(), settings, seed=5).batch(1)[0]
    parts = [Batches(Blobs(), settings, seed=5, share=(rank, 3)).batch(1)[0] for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="processes must split batch_size 4 evenly, got 3"):
        spec(processes=3)
