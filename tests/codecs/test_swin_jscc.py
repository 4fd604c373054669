"""Swin JSCC: rate, power, any size, what each end sees, several rates, low precision."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from channels import AWGN, Rayleigh
from channels.base import CSI
from channels.csi import PerfectCSI
from semsim import Link, Stop, evaluate, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.metrics.image import PSNR
from semsim.payloads.synthetic import Synthetic
from semsim.phy.frontend import SVD, ZF
from semsim.scenario.scenario import Scenario

SMALL = {"widths": (32,), "depths": (1,), "decoder_depths": (2,), "window": 4}
KINDS = [
    {**SMALL},
    {**SMALL, "linear": 0, "adaptive": "receiver"},
    {**SMALL, "widths": (32, 64), "depths": (1, 2), "decoder_depths": (1, 1), "patch": 2},
    {**SMALL, "rates": ("1/24", "1/12", "1/6")},
    {**SMALL, "preset": "cifar", "patch": 4, "adaptive": "none"},
    {**SMALL, "preset": "cifar", "patch": 4, "heatmap": True},
    {**SMALL, "heatmap": "receiver", "num_streams": 2},
]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream(1, "images", shape))


def pair(cbr: str = "1/6", **arguments: object) -> tuple[SwinTransmitter, SwinReceiver]:
    torch.manual_seed(2)
    return SwinTransmitter(cbr, **arguments), SwinReceiver(cbr, **arguments)


def shake(*modules: torch.nn.Module) -> None:
    """Fill weights that start at zero, so that every path carries something."""
    generator = stream(3, "shake")
    for module in modules:
        for p in module.parameters():
            if not p.any():
                p.data.copy_(0.05 * torch.randn(p.shape, generator=generator))


def csi(batch: int, snr_db: float = 10.0) -> CSI:
    return CSI(None, torch.full((batch,), 10 ** (-snr_db / 10)))


def symbols_of(sent: object) -> torch.Tensor:
    return sent[0] if isinstance(sent, tuple) else sent


@pytest.mark.parametrize("arguments", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 9)])
def test_any_size_goes_through_at_unit_power(arguments: dict, size: tuple[int, int]) -> None:
    link = Link(*[*pair(**arguments)[:1], AWGN(), pair(**arguments)[1]]).eval()
    source = images(2, 3, *size)
    sent = link.transmit(source, 10.0, stream(4, "noise"))
    assert sent.symbols.shape == (2, 1, link.transmitter.num_symbols((3, *size)))
    torch.testing.assert_close(sent.symbols.abs().square().mean(dim=(1, 2)), torch.ones(2))
    assert sent.estimate.shape == source.shape


@pytest.mark.parametrize("arguments", KINDS)
def test_sizes_that_fit_the_stride_cost_exactly_the_cbr(arguments: dict) -> None:
    transmitter = pair("1/12", **arguments)[0].eval()
    assert transmitter.num_symbols((3, 64, 96)) == 3 * 64 * 96 // 12


@pytest.mark.parametrize("arguments", KINDS)
def test_gradients_reach_every_parameter_through_a_fading_channel(arguments: dict) -> None:
    transmitter, receiver = pair(**arguments)
    shake(transmitter, receiver)
    link = Link(transmitter, Rayleigh(num_tx=2, num_rx=2), receiver).train()
    source = images(4, 3, 32, 32)
    (link(source, 10.0, stream(4, "noise")) - source).square().mean().backward()
    silent = [n for n, p in link.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("arguments", KINDS)
def test_items_of_a_batch_do_not_see_each_other(arguments: dict) -> None:
    transmitter, _ = pair(**arguments)
    shake(transmitter.eval())
    source = images(3, 3, 32, 32)
    with torch.no_grad():
        together = symbols_of(transmitter(source, csi(3)))
        alone = symbols_of(transmitter(source[1:2], csi(1)))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_the_snr_changes_what_an_adaptive_end_does() -> None:
    for adaptive, changes in (("both", True), ("none", False)):
        transmitter, _ = pair(**SMALL, adaptive=adaptive, heatmap=False)
        shake(transmitter.eval())
        for p in transmitter.encoder.parameters():
            p.data *= 3  # a fresh ModNet hardly moves
        source = images(1, 3, 32, 32)
        with torch.no_grad():
            low, high = (transmitter(source, csi(1, snr)) for snr in (0.0, 20.0))
        assert transmitter.uses_csi is changes
        assert bool((low - high).abs().max() > 1e-6) is changes


@pytest.mark.parametrize("frontend", [SVD, ZF])
def test_the_heatmap_tells_streams_of_unequal_gain_apart(frontend: type) -> None:
    transmitter, receiver = pair(**SMALL)
    seen = []
    transmitter.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    receiver.decoder.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    known = PerfectCSI() if frontend is SVD else None
    link = Link(transmitter, Rayleigh(num_tx=2, num_rx=2), receiver, csi_tx=known,
                frontend=frontend()).eval()  # fmt: skip
    with torch.no_grad():
        link(images(2, 3, 32, 32), 10.0, stream(5, "noise"))
    at_tx, at_rx = seen
    assert at_rx.shape == (2, 16 * 3 // 6, 8, 8) and at_rx[0].unique().numel() == 2
    if frontend is SVD:  # the transmitter knows H, so both ends see the same map
        torch.testing.assert_close(at_tx, at_rx, rtol=1e-4, atol=1e-5)
    else:
        assert at_tx[0].unique().numel() == 1


@pytest.mark.parametrize("heatmap", [True, "receiver"])
def test_the_first_channels_go_on_the_strongest_streams(heatmap: object) -> None:
    transmitter, receiver = pair(**SMALL, num_streams=4, heatmap=heatmap)
    seen = []
    transmitter.encoder.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    receiver.decoder.register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
    link = Link(transmitter, Rayleigh(num_tx=4, num_rx=4), receiver, csi_tx=PerfectCSI(),
                frontend=SVD()).eval()  # fmt: skip
    with torch.no_grad():
        link(images(2, 3, 32, 32), 10.0, stream(5, "noise"))
    at_tx, at_rx = (heat.flatten(1) for heat in seen)
    assert bool((at_rx.diff(dim=1) <= 1e-6).all()) and at_rx[0].unique().numel() == 4
    if heatmap == "receiver":
        at_rx = at_rx.mean(dim=1, keepdim=True).expand_as(at_rx)
    torch.testing.assert_close(at_tx, at_rx, rtol=1e-4, atol=1e-5)


def test_one_network_serves_several_rates_and_pays_for_its_mask() -> None:
    rates = {**SMALL, "rates": ("1/24", "1/12", "1/6")}
    states = []
    for cbr in ("1/24", "1/6"):
        transmitter, receiver = pair(cbr, **rates)
        states.append((transmitter.state_dict(), transmitter.spec))
        link = Link(transmitter, AWGN(), receiver).eval()
        ledger = link.transmit(images(1, 3, 32, 32), 10.0, stream(6, "noise")).ledger
        channels = transmitter.channels
        assert ledger.payload == channels // 2 * 64
        bits = math.log2(math.comb(32, channels))
        assert ledger.side_info == pytest.approx(bits / math.log2(11), rel=1e-5)
    assert states[0][0].keys() == states[1][0].keys() and states[0][1] == states[1][1]


def test_weights_of_several_rates_come_back_by_their_spec(tmp_path: Path) -> None:
    ends = pair("1/12", **SMALL, rates=("1/24", "1/12"))
    path = zoo.export(tmp_path / "rates.safetensors", *ends)
    again = zoo.pair(path, SwinTransmitter, SwinReceiver)
    assert again[0].channels == ends[0].channels  # the largest rate is the default
    assert torch.equal(again[0].rate.enter.weight, ends[0].rate.enter.weight)


def test_only_a_receiver_with_rates_takes_what_a_transmitter_with_rates_sends() -> None:
    transmitter, _ = pair("1/6", **SMALL, rates=("1/24", "1/6"))
    source, noise = images(1, 3, 32, 32), stream(7, "noise")
    for receiver, said in (
        (SwinReceiver("1/6", **SMALL), "the two ends of one codec differ: .*rates is"),
        (DeepJSCCReceiver("1/6"), "DeepJSCCReceiver does not take"),
    ):
        with pytest.raises(ValueError, match=said):
            Link(transmitter, AWGN(), receiver).eval()(source, 10.0, noise)


def test_equal_gates_are_chosen_in_their_order() -> None:
    transmitter, _ = pair("1/24", **SMALL, rates=("1/24", "1/6"))
    for p in transmitter.rate.parameters():
        torch.nn.init.zeros_(p)
    _, chosen, _ = transmitter.eval()(images(2, 3, 32, 32), csi(2))
    assert chosen.nonzero()[:, 1].tolist() == [0, 1, 2, 3] * 2


def test_the_receiver_sees_only_the_channels_that_were_sent() -> None:
    _, receiver = pair("1/24", **SMALL, rates=("1/24", "1/6"))
    chosen = torch.zeros(1, 32, dtype=torch.bool)
    chosen[0, [3, 7, 20, 31]] = True
    latent = images(1, 4, 8, 8)
    placed = receiver._place(latent, chosen)
    assert torch.equal(placed[0, [3, 7, 20, 31]], latent[0])
    assert placed.abs().sum() == latent.abs().sum()


def test_training_on_rates_spends_the_power_of_the_channels_it_sends() -> None:
    transmitter, _ = pair("1/24", **SMALL, rates=("1/24", "1/6"))
    x, chosen, _ = transmitter.train()(images(2, 3, 32, 32), csi(2))
    share = chosen.float().mean(dim=1)
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), share)


@pytest.mark.parametrize("arguments", KINDS)
def test_bf16_stays_close_and_sends_full_precision_symbols(arguments: dict) -> None:
    transmitter, receiver = pair(**arguments)
    shake(transmitter.eval(), receiver.eval())
    source = images(2, 3, 32, 32)
    with torch.no_grad():
        sent = transmitter(source, csi(2))
        with torch.autocast("cpu", torch.bfloat16):
            sent_low = transmitter(source, csi(2))
    full, low = symbols_of(sent), symbols_of(sent_low)
    assert low.dtype == torch.complex64
    if "rates" in arguments:  # gates that are nearly equal choose other channels, but few
        assert (sent.side_info == sent_low.side_info).float().mean() > 0.9
        return
    assert (low - full).abs().square().mean() < 1e-2  # -20 dB; bf16 keeps 8 bits of each product


def test_both_ends_compile() -> None:
    pytest.importorskip("torch._dynamo")
    transmitter, receiver = pair(**SMALL)
    shake(transmitter.eval(), receiver.eval())
    snr, trust = torch.full((1,), 10.0), torch.full((1, 8, 8, 8), 0.9)
    for net, given in (
        (transmitter.encoder, images(1, 3, 32, 32)),
        (receiver.decoder, images(1, 16, 8, 8)),
    ):
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(given, snr, trust), net(given, snr, trust))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "huge"}, "preset is one of tiny, cifar"),
        ({"adaptive": "yes"}, "adaptive is one of"),
        ({"rates": ("1/12",)}, "must be one of rates"),
        ({"rates": ("1/6",), "heatmap": True}, "heatmap needs a fixed rate"),
        ({"rates": ("1/6",), "linear": 0}, "linear needs a fixed rate"),
        ({"rates": ("1/6",), "num_streams": 2}, "num_streams needs a fixed rate"),
        ({"num_streams": 0}, "num_streams is a whole number of 1 or more"),
        ({"num_streams": 1.5}, "num_streams is a whole number"),
        ({"heatmap": "reciever"}, "heatmap is one of None, True, False, receiver"),
        ({"rates": ("1/6", "1/7")}, "rates: cbr 1/7 is not possible"),
        ({"widths": (32, 40)}, "one number per scale"),
        ({"linear": -1}, "linear must be at least 0"),
        ({"linear": 13}, "linear must be at least 0 and at most 12, or null for no path, got 13"),
        ({"patch": 32}, "set linear: 0, or a smaller patch"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SwinTransmitter("1/6", **arguments)


def test_a_receiver_behind_no_front_end_says_what_to_use() -> None:
    _, receiver = pair(**SMALL)
    with pytest.raises(ValueError, match="front end such as lmmse"):
        receiver(torch.zeros(1, 2, 5, dtype=torch.complex64), csi(1), (3, 32, 32))


def test_a_sweep_computes_the_features_once_and_gets_the_same_digits() -> None:
    transmitter, receiver = pair(**SMALL, heatmap=False)
    link = Link(transmitter, AWGN(), receiver).eval()
    calls = []
    transmitter.encoder.stages[0].register_forward_hook(lambda *_: calls.append(1))
    arguments = {"metrics": [PSNR()], "batch_size": 4, "stop": Stop(4, 4)}
    together = evaluate(link, Synthetic(count=4, size=32), snr_db=[0.0, 10.0], **arguments)
    assert len(calls) == 1
    alone = evaluate(link, Synthetic(count=4, size=32), snr_db=[10.0], **arguments)
    assert together[1]["value"] == alone[0]["value"]


def test_an_option_that_came_later_leaves_old_hashes_alone() -> None:
    link = {"payload": "synthetic", "channel": "awgn", "metrics": ["psnr"], "snr_db": [3]}

    def uid(**later: object) -> str:
        codec = {"kind": "swin_jscc", "weights": "swin-cifar-1-6", **later}
        return Scenario.parse({**link, "transmitter": codec}).points()[0].scenario.uid(3.0)

    assert uid() == uid(num_streams=1) != uid(num_streams=2)
