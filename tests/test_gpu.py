"""Where things lie: each test runs on the CPU, and where a GPU is at hand on that as well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semsim.results import read_provenance
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.sweep import run
from semsim.tables import FAMILIES

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
