"""A receiver that has learned to estimate: where its numbers end up, and what it costs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from channels.csi import NoCSI, PerfectCSI
from channels.dmrs import DmrsCSI
from channels.fading import Rayleigh
from channels.ofdm import TDL
from semsim import Scenario, zoo
from semsim.csi.learned import LearnedCSI
from semsim.csi.tasks import ClassifyChannel, EstimateChannel
from semsim.payloads.channels import joined, parts
from semsim.payloads.pilot_estimates import PilotEstimates, off_grid, on_grid
from semsim.seeds import stream
from semsim.sweep.trained import train_all

CHANNEL = TDL("A", num_tx=2, num_rx=3, subcarriers=12, speed_mps=5.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    task = EstimateChannel(size="tiny", tune="lora")
    torch.nn.init.normal_(task.network.head.linear.weight, std=0.1)
    path = tmp_path_factory.mktemp("model") / "task.safetensors"
    return str(zoo.export_parts(path, dict(task.named_children())))


def test_uses_go_to_the_grid_and_back() -> None:
    h = torch.arange(2 * 3 * 2 * 24).view(2, 3, 2, 24)
    grid = on_grid(h, 12)
    assert grid.shape == (2, 2, 6, 12)
    assert grid[1, 1, 2 * 2 + 1, 5] == h[1, 2, 1, 12 + 5]
    assert torch.equal(off_grid(grid, 3), h)


@pytest.mark.parametrize("uses", [28 * 12, 14 * 12 + 5])
def test_the_network_betters_each_element_in_its_place(uses: int, weights: str) -> None:
    learned, state = LearnedCSI(PerfectCSI(), weights), CHANNEL.draw(2, uses, stream(1, "h"))
    task = learned.network
    h = torch.nn.functional.pad(state.h, (0, -uses % 12))
    expected = task(parts(on_grid(h, 12)))
    csi = learned(state, torch.full((2,), 0.1), stream(1, "rx"))
    assert csi.h.shape == state.h.shape
    symbol, pair, subcarrier = 3, 2 * 2 + 1, 7
    use = csi.h[1, 2, 1, 12 * symbol + subcarrier]
    torch.testing.assert_close(torch.view_as_real(use), expected[1, symbol, :, pair, subcarrier])
    assert csi.n0.tolist() == pytest.approx([0.1, 0.1])


def test_of_many_symbols_so_many_are_seen_at_once(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 symbols in parts of at most 16 that are whole by 4: 12 and 8, never 16 and a lone 4."""
    monkeypatch.setattr("semsim.csi.patches.SPAN", 16)
    monkeypatch.setattr("semsim.csi.patches.WHOLE", 4)
    learned, state = LearnedCSI(PerfectCSI(), weights), CHANNEL.draw(2, 20 * 12, stream(1, "h"))
    task = learned.network
    pieces = [task(parts(some)) for some in on_grid(state.h, 12).split((12, 8), dim=1)]
    csi = learned(state, torch.full((2,), 0.1), stream(1, "rx"))
    torch.testing.assert_close(csi.h, off_grid(joined(torch.cat(pieces, dim=1)), 3))


def test_a_head_of_convolutions_comes_back_from_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = EstimateChannel(size="tiny", head="rescnn", pairs=6)
    torch.nn.init.normal_(task.network.head.linear.weight, std=0.1)
    path = zoo.export_parts(tmp_path / "task.safetensors", dict(task.named_children()))
    state = CHANNEL.draw(2, 14 * 12, stream(1, "h"))
    csi = LearnedCSI(PerfectCSI(), str(path))(state, torch.full((2,), 0.1), stream(1, "rx"))
    expected = off_grid(joined(task(parts(on_grid(state.h, 12)))), 3)
    torch.testing.assert_close(csi.h, expected)


def test_pilots_cost_what_they_cost(weights: str) -> None:
    state = CHANNEL.draw(1, 28 * 12, stream(1, "h"))
    pilots = DmrsCSI()
    learned = LearnedCSI(pilots, weights)
    assert learned.overhead(state, 336, 2) == pilots.overhead(state, 336, 2)


def test_estimates_come_with_the_truth() -> None:
    payload = PilotEstimates(CHANNEL, DmrsCSI(), 20, snr_db=(60.0, 60.0))
    source, target = payload[17]
    assert source.shape == target.shape == (14, 2, 6, 12)
    assert (source - target).square().mean() < 0.05 * target.square().mean()
    noisier = PilotEstimates(CHANNEL, DmrsCSI(), 20, snr_db=(0.0, 0.0))
    assert torch.equal(noisier[17][1], target)
    assert (noisier[17][0] - target).square().mean() > 0.05 * target.square().mean()
    assert torch.equal(pickle.loads(pickle.dumps(payload))[-3][0], source)
    with pytest.raises(IndexError, match="20 items"):
        payload[20]


SCENARIO = """
payload: {{kind: pilot_estimates, count: 4, {of}}}
transmitter: {{kind: no_link}}
channel: {{kind: awgn}}
task: {{kind: estimate_channel, size: tiny, tune: full}}
metrics: [channel_nmse]
snr_db: [10]
train:
  payload: {{kind: pilot_estimates, count: 4, seed: 1, {of}}}
  steps: 2
  batch_size: 2
"""
OF = "channel: {kind: tdl, subcarriers: 12}, csi: {kind: dmrs}"
LINK = """
payload: {{kind: bits, length: 64, count: 2}}
transmitter: {{kind: uncoded}}
channel: {{kind: tdl, subcarriers: 12}}
csi: {{rx: {{kind: learned, of: {{kind: dmrs}}, model: {model}}}}}
metrics: [ber]
snr_db: [10]
"""


def test_a_scenario_trains_it_and_a_link_has_it(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(SCENARIO.format(of=OF))
    scenario = Scenario.load(tmp_path / "train.yaml")
    (line,) = train_all(scenario, tmp_path / "out")
    model = Path(line.partition(": ")[2]).with_name("task.safetensors")
    (tmp_path / "link.yaml").write_text(LINK.format(model=model))
    (row,) = Scenario.load(tmp_path / "link.yaml").points()[0].scenario.check()
    assert row["uses_pilots"] > 0


def test_what_it_cannot_stand_on_is_refused(weights: str, tmp_path: Path) -> None:
    n0, generator = torch.ones(1), stream(1, "rx")
    for source, channel in ((NoCSI(), CHANNEL), (PerfectCSI(), Rayleigh())):
        with pytest.raises(ValueError, match="learned betters an estimate over an OFDM grid"):
            LearnedCSI(source, weights)(channel.draw(1, 12, stream(1, "h")), n0, generator)
    path = zoo.export_parts(
        tmp_path / "c.safetensors", dict(ClassifyChannel(2, size="tiny").named_children())
    )
    with pytest.raises(ValueError, match="estimates no channel"):
        LearnedCSI(PerfectCSI(), str(path))
    with pytest.raises(ValueError, match="Rayleigh has no OFDM grid"):
        PilotEstimates(Rayleigh(), DmrsCSI())
    with pytest.raises(ValueError, match="from low to high, got 3 to 1"):
        PilotEstimates(CHANNEL, DmrsCSI(), snr_db=(3, 1))
    with pytest.raises(ValueError, match=r"snr_db .*write two finite numbers"):
        PilotEstimates(CHANNEL, DmrsCSI(), snr_db=(0.0, float("inf")))
