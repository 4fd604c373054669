"""Measured channels: windows within recordings, and each packet's phase taken out."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semsim import spec
from semsim.payloads.channels import joined
from semsim.payloads.measured import MeasuredChannels
from semsim.scenario.scenario import Scenario
from semsim.seeds import stream
from semsim.sweep.preflight import preflight_report

GROUPS = np.repeat(np.arange(5), [7, 4, 3, 9, 6])
WIFI = Path(os.environ.get("SEMSIM_DATA", "data")) / "wifi_intel5300.npz"


def gains() -> torch.Tensor:
    return torch.randn(29, 6, 2, 3, dtype=torch.complex64, generator=stream(1, "h"))


def written(folder: Path, h: torch.Tensor | None = None, **arrays: Any) -> str:
    h = gains() if h is None else h
    parts = (100 * torch.view_as_real(h)).round().clamp(-127, 127).to(torch.int8).numpy()
    np.savez(folder / "m.npz", h=parts, **{"log": GROUPS, "what": GROUPS % 2, **arrays})
    return str(folder / "m.npz")


def test_an_item_is_packets_in_a_row_of_one_recording(tmp_path: Path) -> None:
    payload = MeasuredChannels(written(tmp_path), "h", slots=3, groups="log", align=False)
    assert len(payload) == 2 + 1 + 1 + 3 + 2
    h, facts = payload.records(0, len(payload))
    assert h.shape == (9, 3, 6, 6)
    assert facts["group"].tolist() == [0, 0, 1, 2, 3, 3, 3, 4, 4]
    torch.testing.assert_close(h.abs().square().mean(dim=(1, 2, 3)), torch.ones(9))
    first = torch.view_as_complex((100 * torch.view_as_real(gains())).round().clamp(-127, 127))
    expected = first[11:14].permute(0, 2, 3, 1).flatten(1, 2)  # r T + t, then f
    expected = expected / expected.abs().square().mean().sqrt()
    torch.testing.assert_close(h[3], expected)
    torch.testing.assert_close(joined(payload[3][0]), expected)


def test_recordings_are_shared_out_whole(tmp_path: Path) -> None:
    path = written(tmp_path)
    options = {"slots": 3, "groups": "log", "labels": "what", "target": "activity"}
    train, test = (MeasuredChannels(path, "h", split=s, **options) for s in ("train", "test"))
    assert set(test.records(0, len(test)).facts["group"].tolist()) == {3}
    assert set(train.records(0, len(train)).facts["group"].tolist()) == {0, 1, 2, 4}
    assert [test[i][1] for i in range(3)] == [1, 1, 1]
    few = MeasuredChannels(path, "h", split="test", **{**options, "slots": 7})
    assert few.records(0, len(few)).facts["group"].tolist() == [3]  # of 0 and 3, long enough


def test_check_says_how_the_axes_of_files_were_read(tmp_path: Path) -> None:
    draw = np.random.default_rng(1).normal(size=(40, 3, 2, 6, 2))
    np.save(tmp_path / "h.npy", draw[..., 0] + 1j * draw[..., 1])
    np.save(tmp_path / "real.npy", draw[:, :, 0])
    path, pairs = str(tmp_path / "h.npy"), str(tmp_path / "real.npy")
    scenario = Scenario.parse({
        "payload": {"kind": "measured", "path": pairs, "axes": "nrf", "slots": 8},
        "transmitter": "values", "channel": {"kind": "measured", "path": path},
        "csi": {"tx": "perfect"}, "frontend": {"kind": "svd"}, "metrics": ["nmse"], "snr_db": [10],
    })  # fmt: skip
    lines, _ = preflight_report(scenario, torch.device("cpu"))
    assert lines[2:4] == [
        f"  payload: {pairs} has packets 40, receive antennas 3, transmit antennas 1, "
        "subcarriers 6",
        f"  channel: {path} has snapshots 40, receive antennas 3, transmit antennas 2, "
        "subcarriers 6",
    ]


def test_a_packet_s_own_phase_and_timing_do_not_matter(tmp_path: Path) -> None:
    base = torch.randn(29, 1, 2, 3, dtype=torch.complex64, generator=stream(1, "h"))
    h = base.expand(-1, 64, -1, -1) + 0.1 * torch.randn(29, 64, 2, 3, dtype=torch.complex64)
    offset, slope = 2 * math.pi * torch.rand(2, 29, 1, 1, 1, generator=stream(1, "phase"))
    turn = offset + (slope - math.pi) / 2 * torch.arange(64)[:, None, None]
    turned = h * torch.polar(torch.ones_like(turn), turn)
    found = []
    for number, values in enumerate((h, turned)):
        np.save(tmp_path / f"{number}.npy", values.numpy())
        payload = MeasuredChannels(str(tmp_path / f"{number}.npy"), slots=1)
        found.append(payload.records(0, 29).h)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"array": "g"}, "array is one of h, log, what in .*m.npz, got 'g'"),
        ({"array": None}, "array is one of h, log, what"),
        ({"groups": "fil"}, "groups is one of"),
        ({"groups": "h"}, r"h is whole numbers \[29\]"),
        ({"axes": "nfx"}, "axes is n, f and maybe r and t"),
        ({"axes": "nf"}, "but axes 'nf' are 2 and a last axis of 2"),
        ({"split": "train"}, "name their array in groups"),
        ({"target": "activity"}, "name their array in labels"),
        ({"slots": 30}, "holds no 30 packets in a row"),
        ({"slots": 0}, "slots is a whole number"),
    ],
)
def test_what_the_file_does_not_hold_is_said(options: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        MeasuredChannels(written(tmp_path), **{"array": "h", **options})


def test_void_measurements_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packets without any power"):
        MeasuredChannels(written(tmp_path, gains() * 0), "h")
    np.save(tmp_path / "nan.npy", gains().numpy() * np.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        MeasuredChannels(str(tmp_path / "nan.npy"))
    np.save(tmp_path / "none_left.npy", gains().numpy()[:0])
    with pytest.raises(ValueError, match="holds no packets"):
        MeasuredChannels(str(tmp_path / "none_left.npy"))
    with pytest.raises(ValueError, match="does not exist"):
        MeasuredChannels(str(tmp_path / "none.npy"))
    (tmp_path / "text.npz").write_text("no array")
    with pytest.raises(ValueError, match="cannot be read as an array file"):
        MeasuredChannels(str(tmp_path / "text.npz"))


@pytest.mark.skipif(not WIFI.is_file(), reason="SEMSIM_DATA names no folder with wifi_intel5300")
def test_the_wifi_pack_is_read() -> None:
    content = {"kind": "measured", "path": str(WIFI), "array": "csi_3x1", "groups": "file_3x1"}
    payload = spec.build(spec.parse("payload", content))
    assert payload[0][0].shape == (16, 2, 3, 30)
