"""Where things lie: each test runs on the CPU, and where a GPU is at hand on that as well."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from channels import AWGN
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.csi.pretrain import FillIn
from semsim.csi.recurrent import PredictChannel
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.results import read_provenance
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.sweep import run
from semsim.tables import FAMILIES
from semsim.tasks.base import Task
from semsim.training.loop import train
from semsim.training.spec import TrainSpec
from semsim.vision import faces, restore, sscl
from semsim.vision.dbdh.learning import LearnToHide

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
CODEC = {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1}
VALUES: dict[str, Any] = {
    "payload": {"kind": "synthetic", "count": 4, "size": 16}, "transmitter": CODEC,
    "channel": {"kind": "rayleigh", "num_rx": 2}, "metrics": ["psnr"], "snr_db": [10],
    "batch_size": 2,
}  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("csi", ["perfect", "pilots"])
def test_all_of_a_link_lies_on_its_device(device: str, csi: str) -> None:
    built = Scenario.parse({**VALUES, "csi": {"rx": csi}}).build(device)
    source = torch.rand(2, 3, 16, 16, device=device)
    sent = built.link.transmit(source, 10.0, stream(0, "link", device=device))
    tensors = {"x": sent.x, "estimate": sent.estimate, **dict(built.link.named_parameters())}
    tensors |= dict(built.link.named_buffers())
    assert {name: t.device.type for name, t in tensors.items()} == dict.fromkeys(tensors, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES["frontend"] if kind != "none"])
def test_front_ends_stay_on_the_device_of_the_link(device: str, kind: str) -> None:
    channel: Any = {"kind": "rayleigh", "num_tx": 2, "num_rx": 2}
    values = {**VALUES, "channel": channel, "frontend": kind, "csi": {"tx": "perfect"}}
    built = Scenario.parse(values).build(device)
    source = torch.rand(2, 3, 16, 16, device=device)
    sent = built.link.transmit(source, 10.0, stream(0, "link", device=device))
    assert sent.estimate.device.type == device and bool(torch.isfinite(sent.estimate).all())


@pytest.mark.parametrize("device", DEVICES)
def test_a_sweep_trains_and_measures_on_its_device(device: str, tmp_path: Path) -> None:
    train = {"payload": {"kind": "synthetic", "count": 4, "size": 16}, "steps": 2, "batch_size": 2}
    few = Scenario.parse({**VALUES, "train": train, "snr_db": [100], "channel": "awgn"})
    rows = run(few, tmp_path / device, device=device)
    (weights,) = (tmp_path / device / "training").glob("*/weights.safetensors")
    assert weights.stat().st_size > 0
    assert read_provenance(tmp_path / device)["device"].startswith(device)
    value = float(rows["value"].iloc[0])
    assert math.isfinite(value)
    built = few.build("cpu", weights)
    sources: Tensor = torch.stack([built.payload[i][0] for i in range(4)])
    with torch.inference_mode():
        sent = built.link.eval().transmit(sources, 100.0, stream(0, "cpu"))
    mse = (sent.estimate - sources).square().flatten(1).mean(1)
    # noise at 100 dB moves the error by 1e-5 of itself, rounding of products to TF32 by 1e-3
    assert value == pytest.approx(float((-10 * mse.log10()).mean()), abs=0.02)


@pytest.mark.parametrize("device", DEVICES)
def test_evaluate_and_train_work_where_the_link_is(device: str, tmp_path: Path) -> None:
    free = Link(AnalogTransmitter("1/2"), AWGN(), AnalogReceiver("1/2")).to(device)
    verify = faces.Verify("plain", people=2, size=32, weights=None, trainable=True)  # on the CPU
    pairs = faces.Faces(people=2, shots=2, size=32, count=2)
    rows = evaluate(free, pairs, snr_db=[10], metrics=["psnr"], task=verify, batch_size=2)
    assert math.isfinite(rows[0]["value"]) and next(verify.parameters()).device.type == device
    built = Scenario.parse(VALUES).build("cpu")
    link = built.link.to(device)
    train(link, built.payload, spec=TrainSpec(steps=2, batch_size=2), folder=tmp_path)
    assert next(link.parameters()).device.type == device


FRESH: dict[str, Any] = {"weights": None, "trainable": True}
CHANNELS = (4, 8, 2, 2, 16)
LEARNERS: dict[str, tuple[Callable[[], Task], tuple[int, ...]]] = {
    "codes": (LearnToHide, (4, 3, 64, 64)),
    "faces": (lambda: faces.Verify("plain", people=2, size=32, adversarial=8, **FRESH),
              (4, 3, 32, 32)),
    "autoencoder": (lambda: restore.Restore(trainable=True, part="autoencoder"), (4, 3, 32, 32)),
    "unet": (lambda: restore.Restore(trainable=True, part="unet"), (4, 3, 32, 32)),
    "sites": (lambda: sscl.FindSites(queue=8, choice="random", warmup=0.0, channel_db=(0.0, 10.0),
                                     **FRESH), (4, 3, 32, 32)),
    "fill_in": (lambda: FillIn("tiny"), CHANNELS),
    "predict_channel": (PredictChannel, CHANNELS),
}  # fmt: skip


class DrawsWhereAsked(TorchFunctionMode):
    """Refuses draws that name no device: a generator on a GPU has none on the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (torch.rand, torch.randn, torch.randint, torch.randperm):
            assert given.get("device") is not None, f"{func.__name__} draws without a device"
        return func(*args, **given)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LEARNERS)
def test_own_losses_draw_on_the_device_of_their_generator(name: str, device: str) -> None:
    make, shape = LEARNERS[name]
    torch.manual_seed(1)
    task = make().to(device).train()
    source = torch.rand(shape, generator=stream(0, "items")).to(device)
    classes = torch.tensor([0, 1, -1, -1] if name == "sites" else [0, 1, 0, 1], device=device)
    target = classes if name in ("faces", "sites") else source
    for _ in range(2):  # what the first leaves in a queue, the second uses
        with DrawsWhereAsked():
            loss = task.own_loss(source, target, 0.5, stream(0, "own", device=device))
        assert loss.device.type == device and bool(torch.isfinite(loss))
