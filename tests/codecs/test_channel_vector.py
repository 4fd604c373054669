"""A codec that is told of the channel by a frozen encoder: what it sees, and what it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels import CSI, PerfectCSI
from channels.fading import Rayleigh
from channels.ofdm import TDL
from semsim import Link, Scenario, spec, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.csi.model import WirelessGPT
from semsim.csi.patches import spans
from semsim.csi.pretrain import FillIn
from semsim.csi.vector import ChannelVector
from semsim.mistakes import SpecError
from semsim.payloads.pilot_estimates import on_grid
from semsim.phy.frontend import LMMSE, SVD, FrontEnd
from semsim.scenario import fields
from semsim.seeds import stream
from semsim.sweep.trained import train_all


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "task.safetensors"
    return str(zoo.export_parts(path, dict(FillIn("tiny").named_children())))


def codec(weights: str, **options: Any) -> DeepJSCCTransmitter:
    """Return a transmitter whose blocks have something to scale, as after a training."""
    torch.manual_seed(1)
    told = {"csi_weights": weights, "csi_subcarriers": 16, **options}
    made = DeepJSCCTransmitter("1/6", width=8, depth=1, **told)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def gains(label: str, uses: int = 128) -> Tensor:
    generator = stream(1, label)
    return torch.randn(2, 2, 2, uses, dtype=torch.complex64, generator=generator)


def image() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=stream(1, "image"))


@pytest.mark.parametrize("preset", ["residual", "adjscc"])
def test_another_channel_of_the_same_snr_changes_the_symbols(preset: str, weights: str) -> None:
    sender = codec(weights, preset=preset)
    one = gains("one")
    turned = one.flip(1)  # the receive antennas swapped: nothing that an SNR could tell
    n0 = torch.full((2,), 0.1)
    assert torch.equal(CSI(one, n0).effective_snr_db(), CSI(turned, n0).effective_snr_db())
    with torch.no_grad():
        symbols = [sender(image(), CSI(h, n0)) for h in (one, one, turned)]
    assert torch.equal(symbols[0], symbols[1])
    assert not torch.allclose(symbols[0], symbols[2], atol=1e-4)


def test_another_noise_changes_the_symbols(weights: str) -> None:
    sender, h = codec(weights), gains("one")
    with torch.no_grad():
        low, high = (sender(image(), CSI(h, torch.full((2,), n0))) for n0 in (1.0, 0.01))
    assert not torch.allclose(low, high, atol=1e-4)


def test_of_many_slots_so_many_are_seen_at_once(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 symbols of 16 subcarriers in parts of 8, 8 and 4: means over the uses that are there.

    Of an item whose last symbol is not full the last part counts 61 uses of 317, not 64 of 320.
    """
    monkeypatch.setattr("semsim.csi.patches.SPAN", 8)
    monkeypatch.setattr("semsim.csi.patches.WHOLE", 4)
    vector, h = ChannelVector(weights, 16), gains("long", 20 * 16)
    (encoder,) = vector._frozen
    for missing in (0, 3):
        uses = 320 - missing
        grid, valid = vector._snapshots(h[..., :uses])
        known = [None] * 3 if valid is None else valid.split((8, 8, 4), dim=1)
        with torch.no_grad():
            seen = zip(grid.split((8, 8, 4), dim=1), known, strict=True)
            each = [encoder.encode(part, valid=own) for part, own in seen]
            whole, log_gain = vector._encoded(grid, valid)
        shares = (128 / uses, 128 / uses, (64 - missing) / uses)
        expected = sum(w * one.whole for w, one in zip(shares, each, strict=True))
        torch.testing.assert_close(whole, expected)
        power = h[..., :uses].abs().square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(log_gain, 0.5 * power.log10())


@pytest.mark.parametrize(
    ("symbols", "sizes"),
    [(1, [1]), (252, [252]), (253, [140, 113]), (504, [252, 252]), (505, [196, 196, 113])],
)
def test_an_encoder_sees_whole_slots_and_no_lone_symbol(symbols: int, sizes: list[int]) -> None:
    assert spans(symbols) == sizes


def test_a_lost_packet_is_told_by_zeros(weights: str) -> None:
    vector, h = ChannelVector(weights, 16), gains("one")
    with torch.no_grad():
        alone = vector(CSI(h, torch.ones(2)))
        h[1] = 0
        told = vector(CSI(h, torch.ones(2)))
    torch.testing.assert_close(told[0], alone[0])
    rest = told[1] - vector.linear.bias
    slope = vector.linear.weight[:, -1]  # of the SNR alone
    torch.testing.assert_close(rest, slope * (rest @ slope) / (slope @ slope))


def test_the_gradient_reaches_the_numbers_and_not_the_encoder(weights: str) -> None:
    sender = codec(weights)
    (frozen,) = sender.channel._frozen
    before = frozen.hash()
    sender(image(), CSI(gains("one"), torch.ones(2))).abs().sum().backward()
    assert sender.channel.linear.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in frozen.parameters())
    assert not any(key.startswith("channel._frozen") for key in sender.state_dict())
    assert sender.channel.state_dict().keys() == {"linear.weight", "linear.bias"}
    sender.to(torch.float64), sender.to(torch.float32)  # it goes along
    assert frozen.hash() == before


def test_weights_with_a_token_tell_by_the_mean_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = WirelessGPT.preset("tiny", whole=True)
    path = zoo.export_parts(tmp_path / "task.safetensors", {"network": net})
    assert FillIn("tiny", whole=True, weights=str(path)).network.hash() == net.hash()
    csi, vector = CSI(gains("one"), torch.full((2,), 0.1)), ChannelVector(str(path), 16)
    before = vector(csi)
    vector._frozen[0].encode = lambda h, valid: net.encode(h, valid=valid)._replace(whole=None)
    assert torch.equal(vector(csi), before)


def test_the_encoder_sees_uses_in_their_place_on_the_grid(weights: str) -> None:
    vector = ChannelVector(weights, subcarriers=12)
    h = gains("one", 36)
    whole, valid = vector._snapshots(h)
    assert valid is None and torch.equal(whole, on_grid(h, 12))
    part, valid = vector._snapshots(h[..., :29])  # five uses of the third symbol
    assert part.shape == (2, 3, 4, 12)
    assert torch.equal(part[valid], whole[valid])
    assert valid[:, 2, :, :5].all() and not valid[:, 2, :, 5:].any()
    told = vector(CSI(h[..., :29], torch.ones(2)))
    assert told.shape == (2, 16) and told.isfinite().all()
    flat, valid = vector._snapshots(h[..., :1])
    assert flat.shape == (2, 1, 4, 1) and valid is None


def test_fading_that_differs_at_each_use_without_a_grid_is_refused(weights: str) -> None:
    vector = ChannelVector(weights)
    assert vector(CSI(gains("one", 1), torch.ones(2))).isfinite().all()
    with pytest.raises(ValueError, match="got 128 gains without a grid; write rayleigh"):
        vector(CSI(gains("one"), torch.ones(2)))


@pytest.mark.parametrize(("subcarriers", "grid"), [(1, 12), (7, 12), (12, 1)])
def test_another_number_of_subcarriers_is_refused_by_the_right_one(
    subcarriers: int, grid: int, weights: str
) -> None:
    channel = Rayleigh() if grid == 1 else TDL("A", subcarriers=grid)
    sender = codec(weights, csi_subcarriers=subcarriers)
    link = Link(sender, channel, DeepJSCCReceiver("1/6", width=8, depth=1), csi_tx=PerfectCSI())
    with pytest.raises(ValueError, match=f"got {subcarriers}; write csi_subcarriers: {grid}$"):
        link.transmit(image(), 10.0, stream(1, "link"))


@pytest.mark.parametrize("frontend", [LMMSE(), SVD()])
def test_the_snr_is_that_which_a_plain_adaptive_codec_sees(
    frontend: FrontEnd, weights: str
) -> None:
    seen: list[Tensor] = []
    told, plain = codec(weights, csi_subcarriers=1), DeepJSCCTransmitter("1/6", width=8, depth=1)
    told.channel.linear.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, -1]))
    plain.register_forward_pre_hook(lambda _, given: seen.append(given[1].effective_snr_db() / 20))
    for sender in (told, plain):
        receiver = DeepJSCCReceiver("1/6", width=8, depth=1)
        channel = Rayleigh(num_tx=2, num_rx=2)
        link = Link(sender, channel, receiver, csi_tx=PerfectCSI(), frontend=frontend)
        with torch.no_grad():
            link.transmit(image(), 10.0, stream(1, "link"))
    assert torch.equal(seen[0], seen[1])


def keep(path: Path, sender: DeepJSCCTransmitter) -> Path:
    return zoo.export(path, sender, DeepJSCCReceiver("1/6", width=8, depth=1))


def test_a_codec_belongs_to_the_bytes_of_its_encoder_and_not_to_their_place(
    weights: str, tmp_path: Path
) -> None:
    mine = tmp_path / "encoder.safetensors"
    mine.write_bytes(Path(weights).read_bytes())
    path = keep(tmp_path / "codec.safetensors", codec(str(mine)))
    elsewhere = codec(weights)
    zoo.load(path, elsewhere, DeepJSCCReceiver("1/6", width=8, depth=1))
    torch.manual_seed(9)
    zoo.export_parts(mine, dict(FillIn("tiny").named_children()))  # another one in its place
    with pytest.raises(ValueError, match=r"with csi_weights of SHA-256 .*; name the file"):
        zoo.pair(path, DeepJSCCTransmitter, DeepJSCCReceiver)
    with pytest.raises(
        ValueError, match=r"were trained for .*csi_weights .*, this transmitter has"
    ):
        plain = DeepJSCCTransmitter("1/6", width=8, depth=1)
        zoo.load(path, plain, DeepJSCCReceiver("1/6", width=8, depth=1))


def test_the_receiver_takes_nothing_of_the_channel_told(weights: str) -> None:
    receiver = spec.model_of("receiver", "deepjscc").model_fields
    assert not [name for name in receiver if name.startswith("csi_")]
    sent = spec.parse("transmitter", {"kind": "deepjscc", "csi_weights": weights})
    half = fields.receiver_of(sent, None)
    assert spec.build(half).spec.keys() == receiver.keys() - {"kind"}
    with pytest.raises(SpecError, match="csi_values"):
        spec.parse("receiver", {"kind": "deepjscc", "csi_values": 16})


def test_it_rides_over_mimo_ofdm_and_comes_back_from_its_weights(
    weights: str, tmp_path: Path
) -> None:
    sender, receiver = codec(weights, csi_subcarriers=12), DeepJSCCReceiver("1/6", width=8, depth=1)
    channel = TDL("A", num_tx=2, num_rx=2, subcarriers=12)
    link = Link(sender, channel, receiver, csi_tx=PerfectCSI()).eval()
    with torch.no_grad():
        sent = link.transmit(image(), 10.0, stream(1, "link"))
        assert sent.estimate.shape == (2, 3, 16, 16)
        path = keep(tmp_path / "codec.safetensors", sender)
        again, other = zoo.pair(path, DeepJSCCTransmitter, DeepJSCCReceiver)
        assert other.spec.items() <= again.spec.items() and again.spec == sender.spec
        csi = CSI(gains("one"), torch.ones(2))
        assert torch.equal(again(image(), csi), sender.eval()(image(), csi))


SCENARIO = """
payload: {{kind: synthetic, count: 2, size: 16}}
transmitter: {{kind: deepjscc, width: 8, depth: 1, cbr: 1/6, csi_weights: {weights}}}
channel: {{kind: rayleigh, num_tx: 2, num_rx: 2}}
csi: {{tx: {{kind: {csi}}}}}
frontend: {{kind: svd}}
metrics: [psnr]
snr_db: [10]
train: {{payload: {{kind: synthetic, count: 2, size: 16}}, steps: 1, batch_size: 2}}
"""


def test_a_scenario_trains_it_and_names_its_encoder(weights: str, tmp_path: Path) -> None:
    (tmp_path / "csi.yaml").write_text(SCENARIO.format(weights=weights, csi="perfect"))
    scenario = Scenario.load(tmp_path / "csi.yaml")
    (line,) = train_all(scenario, tmp_path / "out")
    own = scenario.points()[0].scenario
    assert own.content["data"].keys() == {weights}
    (row,) = own.check(own.build("cpu", Path(line.partition(": ")[2])))
    assert row["metric"] == "psnr"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adaptive": "receiver"}, "csi_weights tells the modules of the transmitter .* both"),
        ({"preset": "bourtsoulatze2019"}, "with adaptive 'none' there are none"),
        ({"csi_subcarriers": 0}, "csi_subcarriers"),
        ({"csi_values": 0}, "csi_values"),
        ({"csi_weights": None, "csi_subcarriers": 12}, "go with csi_weights, got"),
        ({"csi_weights": "resnet-cifar10"}, "holds no WirelessGPT"),
    ],
)
def test_what_cannot_be_told_is_refused(options: dict, says: str, weights: str) -> None:
    with pytest.raises(ValueError, match=says):
        DeepJSCCTransmitter("1/6", **{"csi_weights": weights, **options})


def test_a_transmitter_that_knows_no_channel_is_told_so(weights: str) -> None:
    link = Link(codec(weights, csi_subcarriers=1), Rayleigh(), DeepJSCCReceiver("1/6", width=8))
    with pytest.raises(ValueError, match=r"knows none; write csi: \{tx: \{kind: perfect\}\}"):
        link.transmit(image(), 10.0, stream(1, "link"))
