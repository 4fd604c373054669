"""Late reports: what each predictor makes of them, and that nothing better than hold is lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels.base import CSI, Channel, ChannelState
from channels.blocks import block_means
from channels.csi import CSISource, FeedbackCSI, PerfectCSI, PilotCSI, remember
from channels.dmrs import DmrsCSI
from channels.fading import Rayleigh
from channels.ofdm import CDL, TDL
from semsim import Scenario, zoo
from semsim.csi.kalman import kalman
from semsim.csi.model import WirelessGPT
from semsim.csi.predicted import PredictedCSI, predict
from semsim.csi.pretrain import FillIn
from semsim.seeds import stream

MOVING = {"speed_mps": 15.0}
CHANNELS: dict[str, tuple[Channel, int]] = {
    "flat": (Rayleigh(2, 2, **MOVING), 4),
    "grid": (CDL("C", num_tx=2, num_rx=2, subcarriers=12, **MOVING), 12 * 30),
    "part of a symbol": (TDL("A", 3e-7, num_tx=2, subcarriers=12, **MOVING), 5),
    "a slot and part of a symbol": (TDL("A", 3e-7, subcarriers=12, **MOVING), 12 * 14 + 5),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "task.safetensors"
    return str(zoo.export_parts(path, dict(FillIn("tiny").named_children())))


def told(
    source: FeedbackCSI, name: str, batch: int = 3, rx: CSISource | None = None, noise: float = 0.1
) -> tuple[CSI, ChannelState]:
    channel, uses = CHANNELS[name]
    state, n0 = channel.draw(batch, uses, stream(1, "h")), torch.full((batch,), noise)
    rx = rx or PerfectCSI()
    received = remember(rx, rx(state, n0, stream(1, "rx")), state, n0, stream(1, "rx"))
    return source(state, n0, stream(1, "tx"), received), state


def error(csi: CSI, state: ChannelState) -> Tensor:
    return (csi.h - state.h).abs().square().mean() / state.h.abs().square().mean()


@pytest.mark.parametrize("name", CHANNELS)
def test_hold_is_late_feedback(name: str) -> None:
    held, _ = told(PredictedCSI(1e-3, "hold"), name)
    late, _ = told(FeedbackCSI(delay_s=1e-3), name)
    assert torch.equal(held.h, late.h)
    assert torch.equal(held.n0, late.n0)


@pytest.mark.parametrize("name", CHANNELS)
def test_every_predictor_tells_a_gain_of_each_use(name: str, weights: str) -> None:
    every = (("ar", None), ("kalman", None), ("wirelessgpt", weights), ("combined", weights))
    for by, model in every:
        csi, state = told(PredictedCSI(1e-3, by, model=model, reports=8, order=4), name)
        assert csi.h.shape == state.h.shape
        assert csi.h.dtype == state.h.dtype
        assert csi.h.isfinite().all()
        again, _ = told(PredictedCSI(1e-3, by, model=model, reports=8, order=4), name)
        assert torch.equal(again.h, csi.h)


def test_a_fit_beats_hold_where_many_elements_tell_of_it() -> None:
    held = error(*told(PredictedCSI(1e-3, "hold"), "grid", batch=10))
    for by in ("ar", "kalman", "combined"):
        continued = error(*told(PredictedCSI(1e-3, by), "grid", batch=10))
        assert continued < held / 2


def test_a_perfect_model_tells_each_block_s_own_future(weights: str) -> None:
    """A stand-in that knows the future shows where each value ends up."""
    source = PredictedCSI(1e-3, "wirelessgpt", model=weights, reports=8)
    channel, uses = CHANNELS["grid"]
    state = channel.draw(3, uses, stream(1, "h"))

    class Knows(torch.nn.Module):
        patch = (4, 4, 4)
        hidden_slots = WirelessGPT.hidden_slots
        grid = WirelessGPT.grid

        def forward(self, h: Tensor, hidden: Tensor, valid: Tensor | None) -> Tensor:
            future, _ = source.report(state, CSI(state.h, torch.ones(3)), 0.0)
            slots = len(h) // 3
            now = future.unflatten(-1, (slots, -1)).movedim(3, 1).reshape(len(h), 1, 4, -1)
            return now.expand(-1, h.shape[1], -1, -1)

    source.network = Knows()
    csi, _ = told(source, "grid")
    fresh, _ = told(FeedbackCSI(), "grid")
    torch.testing.assert_close(csi.h, fresh.h)


RECEIVERS: dict[str, tuple[CSISource, str]] = {
    "perfect": (PerfectCSI(), "grid"),
    "pilots": (PilotCSI(), "flat"),
    "dmrs": (DmrsCSI(), "grid"),
}


@pytest.mark.parametrize("rx", RECEIVERS)
def test_every_predictor_hears_the_same_noisy_reports(rx: str, weights: str) -> None:
    """Errors are those that were asked for, whatever the receiver's own are at 0 dB.

    Each report has errors of its own, and no predictor moves them. |e|^2 deviates by as much as its
    mean is, and so does a product of two errors.
    """
    receiver, name = RECEIVERS[rx]
    heard = {}
    for by, model in (("hold", None), ("ar", None), ("kalman", None), ("wirelessgpt", weights)):
        source = PredictedCSI(1e-3, by, model=model, reports=8, report_snr_db=10.0)
        asked: list[Tensor] = heard.setdefault(by, [])

        def spied(*of: Any, report: Any = source.report, asked: list[Tensor] = asked) -> Any:
            came = report(*of)
            asked.append(came[0])
            return came

        source.report = spied
        told(source, name, batch=24, rx=receiver, noise=1.0)
    for by in ("ar", "kalman", "wirelessgpt"):
        assert len(heard[by]) == 8
        assert torch.equal(heard[by][0], heard["hold"][0])
        assert all(torch.equal(a, b) for a, b in zip(heard[by], heard["ar"], strict=True))
    channel, uses = CHANNELS[name]
    state = channel.draw(24, uses, stream(1, "h"))
    truth = [block_means(state.earlier(1e-3 + k * 0.5e-3)) for k in range(8)]
    errors = torch.stack([a - b for a, b in zip(heard["ar"], truth, strict=True)])
    assert abs(errors.abs().square().mean() - 0.1) < 5 * 0.1 / errors.numel() ** 0.5
    flat = errors.flatten(1)
    alike = (flat @ flat.mH).abs() / (0.1 * flat.shape[1])
    assert (alike - torch.eye(8)).abs().max() < 6 / flat.shape[1] ** 0.5


def test_reports_without_noise_are_as_before() -> None:
    plain, _ = told(PredictedCSI(1e-3, "hold"), "grid")
    faint, _ = told(PredictedCSI(1e-3, "hold", report_snr_db=100.0), "grid")
    torch.testing.assert_close(faint.h, plain.h, rtol=0, atol=1e-4)  # ten deviations of the noise
    state = CHANNELS["grid"][0].draw(1, 12 * 28, stream(1, "h"))
    noisy, plain = PredictedCSI(1e-3, report_snr_db=10.0), PredictedCSI(1e-3)
    assert noisy.overhead(state, 12 * 28, 2) == plain.overhead(state, 12 * 28, 2)


def test_the_kalman_filter_is_told_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    told_of = []

    def spy(h: Tensor, horizon: int, **given: Any) -> Tensor:
        told_of.append(given["n0"])
        return kalman(h, horizon, **given)

    monkeypatch.setattr("semsim.csi.predicted.kalman", spy)
    told(PredictedCSI(1e-3, "kalman", report_snr_db=10.0), "flat")
    told(PredictedCSI(1e-3, "kalman", report_snr_db=10.0), "flat", rx=PilotCSI(), noise=1.0)
    told(PredictedCSI(1e-3, "kalman"), "flat")
    told(PredictedCSI(1e-3, "kalman", report_snr_db=10.0, bits=3), "flat")
    for noise in told_of[:2]:
        torch.testing.assert_close(noise, torch.full((3,), 0.1))
    assert told_of[2:] == [None, None]  # of the quantiser's error too, which is not white


def test_an_option_that_came_later_leaves_other_hashes_alone() -> None:
    def uid(**options: object) -> str:
        late = {"kind": "predicted", "delay_s": 1e-3, "by": "hold", **options}
        given = {"payload": "bits", "transmitter": "uncoded", "csi": {"tx": late}, "snr_db": [10]}
        scenario = Scenario.parse({**given, "channel": "awgn", "metrics": ["ber"]})
        part = scenario.csi.tx.model_dump()
        assert ("report_snr_db" in part) == (options.get("report_snr_db") is not None)
        assert type(scenario.csi.tx).model_validate(part) == scenario.csi.tx
        return scenario.points()[0].scenario.uid(10.0)

    assert uid() == uid(report_snr_db=None)
    assert len({uid(), uid(report_snr_db=10.0), uid(report_snr_db=20.0)}) == 3


def test_histories_are_continued_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = told(PredictedCSI(1e-3, "kalman"), "grid")
    monkeypatch.setattr("semsim.csi.predicted.PIECE", 2)
    pieces, _ = told(PredictedCSI(1e-3, "kalman"), "grid")
    torch.testing.assert_close(pieces.h, whole.h)


def test_of_lost_packets_nothing_is_to_come(weights: str) -> None:
    model = FillIn("tiny", weights=weights).network.eval()
    h = torch.randn(2, 8, 4, 4, dtype=torch.complex64, generator=stream(1, "h"))
    with torch.no_grad():
        alone = predict(model, h, 3)
        h[1] = 0
        told = predict(model, h, 3)
    torch.testing.assert_close(told[0], alone[0])
    assert not told[1].any()


def test_a_history_that_fills_no_patch_is_padded_before(weights: str) -> None:
    model = FillIn("tiny", weights=weights).network.eval()
    h = torch.randn(2, 8, 4, 4, dtype=torch.complex64, generator=stream(1, "h"))
    with torch.no_grad():
        three = predict(model, h[:, 1:], 3)
        assert three.shape == (2, 3, 4, 4)
        assert torch.equal(predict(model, h, 4)[:, :2], predict(model, h, 2))


@pytest.mark.parametrize(("spacing_hz", "reports"), [(15e3, 2), (30e3, 1), (60e3, 1)])
def test_reports_within_a_slot_are_paid_for(spacing_hz: float, reports: int) -> None:
    """A slot lasts 1 ms at 15 kHz, and a report comes every half of one."""
    channel = CDL("C", num_tx=2, subcarriers=12, subcarrier_spacing_hz=spacing_hz, **MOVING)
    state = channel.draw(1, 12 * 28, stream(1, "h"))
    latest = FeedbackCSI(delay_s=1e-3).overhead(state, 12 * 28, 2)
    held = PredictedCSI(1e-3, "hold").overhead(state, 12 * 28, 2)
    assert held == latest
    more = PredictedCSI(1e-3, "kalman").overhead(state, 12 * 28, 2)
    assert more.feedback_bits == pytest.approx(reports * latest.feedback_bits)
    flat = Rayleigh(2, 2, **MOVING).draw(1, 4, stream(1, "h"))
    alike = [PredictedCSI(1e-3, by).overhead(flat, 4, 2) for by in ("hold", "ar")]
    assert alike[0] == alike[1]


def test_a_scenario_predicts(weights: str, tmp_path: Path) -> None:
    text = f"""
payload: {{kind: bits, length: 32, count: 2}}
transmitter: {{kind: uncoded}}
channel: {{kind: cdl, model: C, num_tx: 2, num_rx: 2, subcarriers: 12, speed_mps: 10}}
frontend: {{kind: svd}}
metrics: [ber]
snr_db: [10]
sweep:
  csi.tx:
    hold: {{kind: predicted, delay_s: 1.0e-3, by: hold}}
    AR: {{kind: predicted, delay_s: 1.0e-3, reports: 8}}
    Kalman: {{kind: predicted, delay_s: 1.0e-3, by: kalman, reports: 8}}
    WirelessGPT: {{kind: predicted, delay_s: 1.0e-3, by: wirelessgpt, reports: 8, model: {weights}}}
    all: {{kind: predicted, delay_s: 1.0e-3, by: combined, reports: 10, model: {weights}}}
    two: {{kind: predicted, delay_s: 1.0e-3, by: combined}}
"""
    (tmp_path / "late.yaml").write_text(text)
    points = Scenario.load(tmp_path / "late.yaml").points()
    assert [math.isfinite(p.scenario.check()[0]["value"]) for p in points] == [True] * 6
    assert points[3].scenario.content["data"].keys() == {weights}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"delay_s": 0.7e-3}, "delay_s is a multiple of interval_s = 0.0005, got 0.0007"),
        ({"delay_s": math.inf}, "delay_s lies in .* got inf"),
        ({"delay_s": 1e-3, "interval_s": 1e-320}, "delay_s is a multiple of interval_s"),
        ({"delay_s": 0.0}, "for fresh reports use csi feedback"),
        (
            {"delay_s": 1e-3, "order": 15},
            "order 15 and the 2 slots to come, got 16; write reports: 17",
        ),
        (
            {"delay_s": 2e-3, "by": "combined", "order": 9},
            "order 9 and twice the 4 slots .* write reports: 17 or more",
        ),
        ({"delay_s": 1e-3, "by": "wirelessgpt"}, "model goes with by: wirelessgpt"),
        ({"delay_s": 1e-3, "model": "x"}, "leave model out"),
        ({"delay_s": 1e-3, "by": "hope"}, "by is one of"),
        ({"delay_s": math.inf}, "delay_s lies in .*, got inf; 5 ms is 0.005"),
        ({"delay_s": 1e-3, "report_snr_db": math.inf}, "lies in .-200, 200., got inf; leave it"),
        ({"delay_s": 1e-3, "report_snr_db": -400}, "report_snr_db lies in .-200, 200., got -400"),
        ({"delay_s": 1e-3, "by": "wirelessgpt", "model": "resnet-cifar10"}, "no WirelessGPT"),
    ],
)
def test_a_prediction_that_cannot_be_is_refused(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PredictedCSI(**arguments)


def test_a_channel_that_stands_still_has_no_late_reports() -> None:
    state = Rayleigh().draw(1, 4, stream(1, "h"))
    csi = CSI(state.h, torch.ones(1))
    with pytest.raises(ValueError, match="this channel stands still"):
        PredictedCSI(1e-3)(state, torch.ones(1), stream(1, "tx"), csi)
