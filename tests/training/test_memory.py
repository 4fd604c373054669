"""Training with ``memory: low``: less is kept, and what comes out is an ordinary network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from channels import AWGN
from semsim import Link, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.files.disk import sealed_file
from semsim.nn.lowmem import low_memory
from semsim.nn.lowmem_layers import MSLayerNorm, ReGELU2
from semsim.training.loop import train
from semsim.training.spec import TrainSpec

SMALL = {"widths": (32,), "depths": (1,), "decoder_depths": (1,), "window": 4}


class Blobs(torch.utils.data.Dataset):
    """Smooth random images, 16 x 16."""

    name = "blobs"

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        coarse = torch.rand(1, 3, 4, 4, generator=stream(1, "blob", index))
        image = nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")[0]
        return image, image


def swin_link() -> Link:
    torch.manual_seed(3)
    return Link(SwinTransmitter("1/6", **SMALL), AWGN(), SwinReceiver("1/6", **SMALL))


def spec(**changes: object) -> TrainSpec:
    settings = {"steps": 6, "batch_size": 4, "save_every": 3, "memory": "low", **changes}
    return TrainSpec(**settings)


def test_the_weights_fit_an_ordinary_network_with_the_same_output(tmp_path: Path) -> None:
    link = swin_link()
    keys = link.state_dict().keys()
    result = train(link, Blobs(), spec=spec(), folder=tmp_path, validation=Blobs())
    assert link.state_dict().keys() == keys
    assert not any(isinstance(m, MSLayerNorm | ReGELU2) for m in link.modules())
    fresh = swin_link().eval()
    zoo.load(str(result.weights), fresh.transmitter, fresh.receiver)
    source = torch.stack([Blobs()[i][0] for i in range(4)])
    with torch.no_grad():
        assert torch.equal(link(source, 10.0, stream(2, "x")), fresh(source, 10.0, stream(2, "x")))
    report = (tmp_path / "low_memory.txt").read_text()
    assert "ReGELU2" in report
    assert "kept link.transmitter.encoder.norm: nothing says" in report


def test_it_keeps_less_and_follows_the_ordinary_training(tmp_path: Path) -> None:
    from semsim.nn.saved import saved_bytes
    from semsim.tasks.reconstruct import Reconstruct
    from semsim.training.learner import step_loss
    from semsim.training.state import State

    plain, low = swin_link(), swin_link()
    low_memory(low)
    source = torch.stack([Blobs()[i][0] for i in range(4)])
    kept, losses = [], []
    for link in (plain, low):
        state = State(link, Reconstruct(), spec(), seed=0)
        kept.append(saved_bytes(lambda s=state: step_loss(s, source, source, 0), state.nets))
        losses.append(float(step_loss(state, source, source, 0).detach()))
    assert kept[1] < 0.85 * kept[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    results = [
        train(swin_link(), Blobs(), spec=spec(steps=30, memory=m, lr=3e-3), folder=tmp_path / m)
        for m in ("normal", "low")
    ]
    assert results[1].loss == pytest.approx(results[0].loss, rel=0.05)


def test_it_resumes_bit_for_bit_and_leaves_ordinary_networks_when_stopped(tmp_path: Path) -> None:
    whole = swin_link()
    train(whole, Blobs(), spec=spec(), folder=tmp_path / "whole")

    class Interrupts(Blobs):
        seen = 0

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            Interrupts.seen += 1
            if Interrupts.seen == 10:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    cut, folder = swin_link(), tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(cut, Interrupts(), spec=spec(), folder=folder)
    assert cut.state_dict().keys() == whole.state_dict().keys()
    resumed = swin_link()
    train(resumed, Blobs(), spec=spec(), folder=folder)
    ours = resumed.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in whole.state_dict().items())


def test_a_convolutional_codec_trains_as_before_and_hears_that_it_gains_nothing(
    tmp_path: Path,
) -> None:
    sizes = {"cbr": "1/6", "width": 16, "depth": 1}
    states = []
    for memory in ("normal", "low"):
        torch.manual_seed(4)
        link = Link(DeepJSCCTransmitter(**sizes), AWGN(), DeepJSCCReceiver(**sizes))
        train(link, Blobs(), spec=spec(steps=2, memory=memory), folder=tmp_path / memory)
        states.append(link.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert "nothing to gain" in (tmp_path / "low" / "low_memory.txt").read_text()


def test_a_checkpoint_from_before_this_setting_goes_on(tmp_path: Path) -> None:
    settings = spec(memory="normal", steps=2)
    train(swin_link(), Blobs(), spec=settings, folder=tmp_path)
    path = tmp_path / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    del content["spec"]["memory"]
    with sealed_file(path) as file:
        torch.save(content, file)
    assert train(swin_link(), Blobs(), spec=settings, folder=tmp_path).steps == 2
    assert not list(tmp_path.glob("*.damaged"))
    with pytest.raises(ValueError, match="other settings"):
        train(swin_link(), Blobs(), spec=spec(steps=2), folder=tmp_path)
