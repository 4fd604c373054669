"""A sequence is one item: a channel's history, or a video, through codec, link and evaluator."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from channels.awgn import AWGN
from channels.base import CSI, Channel, complex_normal
from channels.csi import PerfectCSI
from channels.fading import Rayleigh
from channels.ofdm import TDL
from channels.snapshots import snapshots
from channels.units import linear_to_db
from semsim import Scenario, spec
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser
from semsim.codecs.separate import SeparateTransmitter
from semsim.codecs.values import (
    ValuesReceiver,
    ValuesTransmitter,
    octave_words,
    read_scale,
    scale_header,
)
from semsim.evaluation import evaluate
from semsim.link import Link
from semsim.links.frames import FramesLink
from semsim.metrics.base import Outcome
from semsim.metrics.error import NMSE
from semsim.payloads.arrays import Arrays
from semsim.payloads.channel_history import ChannelHistory
from semsim.payloads.synthetic import Synthetic
from semsim.phy.frontend import SVD
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0, "subcarriers": 12}


def test_an_item_is_the_channel_s_history() -> None:
    channel = TDL("A", num_tx=2, num_rx=2, **MOVING)
    payload = ChannelHistory(channel, 5, moments=6, interval_s=2e-4, seed=3)
    item, target = payload[4]
    assert target is item
    assert item.shape == (6, 2, 4, 12)
    assert item.dtype == torch.float32
    generator = stream(3, "channel_history", 4)
    h = snapshots(channel, 1, generator, moments=6, interval_s=2e-4)[0]
    assert torch.equal(torch.complex(item[:, 0], item[:, 1]), h)
    again = ChannelHistory(channel, 9, moments=6, interval_s=2e-4, seed=3)
    assert torch.equal(again.__getitems__([1, 4])[1][0], item)
    assert not torch.equal(payload[0][0], item)
    assert payload[-1][0].equal(item)
    with pytest.raises(IndexError, match="5 items"):
        payload[5]


def test_a_history_has_power_1_over_items() -> None:
    payload = ChannelHistory(Rayleigh(2, 2, speed_mps=30.0), 2000, moments=2, interval_s=0.5)
    power = torch.stack([item.square().sum(dim=1).mean() for item, _ in payload]).double()
    assert abs(power.mean() - 1) < 5 * power.std() / math.sqrt(2000)


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_a_history_arrives_with_the_closed_form_s_error(snr_db: float) -> None:
    payload = ChannelHistory(TDL("A", **MOVING), 40, moments=8, interval_s=5e-4)
    link = Link(ValuesTransmitter(), AWGN(), ValuesReceiver())
    (row,) = evaluate(link, payload, snr_db=[snr_db], metrics=[NMSE()])
    n0 = 10 ** (-snr_db / 10)
    scale = (math.log(2) / math.pi) ** 2 * n0 / 8  # of the phase that names it, sent four times
    power = (n0 + scale) / (1 + n0)
    half = (row["ci_high"] - row["ci_low"]) / 2
    assert abs(row["value"] - float(linear_to_db(torch.tensor(power)))) < 2.6 * half  # 5 sigma
    assert row["cbr"] == pytest.approx((8 * 12 + 64) / (8 * 2 * 12))


@pytest.mark.parametrize("size", [1e-37, 1e-4, 1.0, 50.0, 1e37])
@pytest.mark.parametrize("snr_db", [10.0, 40.0])
def test_numbers_of_any_size_arrive_with_the_promised_error(size: float, snr_db: float) -> None:
    source = torch.randn(8, 20_000, generator=stream(1, "numbers"))
    link, n0 = Link(ValuesTransmitter(), AWGN(), ValuesReceiver()), 10 ** (-snr_db / 10)
    estimate = link.transmit(size * source, snr_db, stream(2, "link")).estimate / size
    error = float((estimate - source).square().sum() / source.square().sum())
    # 1 / sqrt(160,000) of a standard error, and an error of the scale of at most five of its own
    most = 1 + 5 / 400 + 25 * (math.log(2) / math.pi) ** 2 / 8
    assert 1 - 5 / 400 < error / (n0 / (1 + n0)) < most


def test_zeros_arrive_as_zeros() -> None:
    link = Link(ValuesTransmitter(), AWGN(), ValuesReceiver())
    assert link.transmit(torch.zeros(2, 9), 10.0, stream(2, "link")).estimate.abs().max() < 1e-30


@pytest.mark.parametrize("believed", [1.0, 1e-3])
def test_the_octave_of_a_scale_near_1_survives_noise(believed: float) -> None:
    """At -3 dB, also at a receiver that believes in 27 dB."""
    scale = 0.5 + torch.rand(400, generator=stream(1, "scales"))
    x, n0 = scale_header(scale), torch.full((400, 64), 2.0)
    y = x + n0.sqrt() * complex_normal(tuple(x.shape), stream(2, "noise"))
    assert ((read_scale(y, believed * n0) / scale).log2().abs() < 1).all()  # 0.16 by the phases


def test_words_of_octaves_differ_in_at_least_56_bits() -> None:
    words = torch.view_as_real(octave_words(torch.device("cpu"))).flatten(1)
    bits = (words[:, None] != words).sum(dim=2)
    assert int(bits.fill_diagonal_(120).min()) == 56


CLIPS = Synthetic(6, 16, frames=4)


def test_a_video_is_one_item() -> None:
    link = Link(ValuesTransmitter(), AWGN(), ValuesReceiver())
    nmse, psnr = evaluate(link, CLIPS, snr_db=[60.0], metrics=["nmse", "psnr"])
    assert nmse["n"] == 6
    assert nmse["value"] < -59  # n0 and 0.6 % more
    source = torch.stack([CLIPS[0][0]])
    estimate = link.transmit(source, 60.0, stream(1, "link")).estimate
    assert estimate.shape == (1, 4, 3, 16, 16)
    torch.testing.assert_close(estimate, source, atol=0.05, rtol=0)
    assert psnr["value"] > 30


@pytest.mark.parametrize("name", ["psnr", "psnr_of_mse", "ssim"])
def test_a_clip_s_quality_is_that_of_its_frames_together(name: str) -> None:
    metric = spec.build(spec.parse("metric", name))
    source = torch.stack([item for item, _ in CLIPS])
    noisy = (source + 0.1 * torch.randn(source.shape, generator=stream(1, "x"))).clamp(0, 1)
    together = metric(Outcome(noisy, source, source))
    frames = metric(Outcome(noisy.flatten(0, 1), source.flatten(0, 1), source.flatten(0, 1)))
    frames = frames.view(6, 4)
    if name == "psnr":  # of the mean error
        expected = -10 * torch.log10((10 ** (-frames / 10)).mean(dim=1))
    else:
        expected = frames.mean(dim=1)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)


def test_a_camera_moves_a_pixel_per_frame() -> None:
    clip = CLIPS[2][0]
    assert clip.shape == (4, 3, 16, 16)
    assert torch.equal(clip[1:, :, :-1, :-1], clip[:-1, :, 1:, 1:])
    assert not torch.equal(clip[0], clip[1])


def test_a_file_may_hold_clips(tmp_path: Path) -> None:
    clips = np.random.default_rng(1).integers(0, 256, (3, 5, 6, 7, 3), np.uint8)
    np.savez(tmp_path / "clips.npz", x=clips)
    item, _ = Arrays(str(tmp_path / "clips.npz"))[2]
    assert item.shape == (5, 3, 6, 7)
    expected = torch.from_numpy(clips[2]).permute(0, 3, 1, 2)
    assert torch.equal((item * 255).round().byte(), expected)


def analog(channel: Channel, *, frames: bool = True) -> Link:
    kind = FramesLink if frames else Link
    return kind(AnalogTransmitter("1/2", block=8), channel, AnalogReceiver("1/2", block=8))


def test_a_clip_of_one_frame_is_that_image() -> None:
    image = Synthetic(3, 16)[1][0][None]
    one = analog(Rayleigh()).transmit(image[:, None], 10.0, stream(1, "link"))
    alone = analog(Rayleigh(), frames=False).transmit(image, 10.0, stream(1, "link"))
    assert torch.equal(one.estimate[:, 0], alone.estimate)
    assert one.ledger == alone.ledger


def test_a_frame_meets_its_own_stretch_of_the_channel() -> None:
    link = analog(Rayleigh(coherence=32, symbol_rate_hz=1e5, speed_mps=30.0))
    source = torch.stack([CLIPS[0][0], CLIPS[1][0]])
    told = []
    decode = link.receiver.codec.forward
    link.receiver.codec.forward = lambda y, csi, *rest: told.append(csi) or decode(y, csi, *rest)
    sent = link.transmit(source, 10.0, stream(1, "link"))
    each = link.transmitter.num_symbols((4, 3, 16, 16)) // 4
    assert sent.estimate.shape == source.shape
    for frame in range(4):
        part = sent.state.during(frame * each, (frame + 1) * each)
        expected = 0.1 / part.h[:, 0, 0].abs().square()
        noise = told[0].n0.view(2, 4, each)[:, frame]
        torch.testing.assert_close(noise, expected, rtol=1e-3, atol=1e-6)


def test_weights_of_images_carry_clips(tmp_path: Path) -> None:
    built = []
    for place, sizes in enumerate(({"frames": "", "link": ""}, CLIP)):
        path = tmp_path / f"{place}.yaml"
        path.write_text(LEARNED.format(**sizes))
        built.append(Scenario.load(path).build("cpu"))
    image, clip = built
    weights = {name: part.state_dict() for name, part in image.link.parts().items()}
    for name, part in clip.link.parts().items():
        part.load_state_dict(weights[name])
    source = torch.stack([clip.payload[0][0]])
    frames = clip.link.eval().transmit(source, 200.0, stream(1, "link")).estimate
    alone = image.link.eval().transmit(source[0], 200.0, stream(1, "link")).estimate
    torch.testing.assert_close(frames[0], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", [2, 3])
def test_an_end_learns_from_the_symbols_of_each_frame(stage: int) -> None:
    transmitter = DeepJSCCTransmitter("1/6", width=8, depth=1)
    denoiser = LatentDenoiser(
        DeepJSCCReceiver("1/6", width=8, depth=1), width=8, depth=3, stage=stage
    )
    source, losses = CLIPS[0][0][None], []
    for kind, items in ((FramesLink, source), (Link, source[0])):
        link = kind(transmitter, AWGN(), denoiser).train()
        sent = link.transmit(items, 200.0, stream(1, "link"))
        losses.append(link.auxiliary_loss(0.0, sent))
    torch.testing.assert_close(*losses)


CLIP = {"frames": ", frames: 4", "link": "link: frames"}
LEARNED = """
payload: {{kind: synthetic, count: 4, size: 16{frames}}}
transmitter: {{kind: deepjscc, width: 8, cbr: 1/6}}
channel: awgn
snr_db: [10]
metrics: [psnr]
{link}
"""


def test_an_odd_number_of_values_goes_as_well() -> None:
    source = torch.randn(3, 5, generator=stream(1, "x"))
    sender, receiver = ValuesTransmitter(), ValuesReceiver()
    symbols = sender(source, CSI(None, torch.ones(3)))
    assert symbols.shape == (3, 1, sender.num_symbols((5,)))
    csi = CSI(None, torch.full((3, 1, symbols.shape[-1]), 1e-9))
    torch.testing.assert_close(receiver(symbols, csi, (5,)), source, rtol=0.02, atol=1e-6)


def test_frames_go_over_streams_that_do_not_divide_them() -> None:
    torch.manual_seed(0)
    ends = DeepJSCCTransmitter(adaptive="both"), DeepJSCCReceiver(adaptive="both")
    link = FramesLink(
        ends[0], Rayleigh(num_tx=3, num_rx=3), ends[1], csi_tx=PerfectCSI(), frontend=SVD()
    )
    sent = link.transmit(torch.rand(2, 5, 3, 32, 32), 10.0, stream(1, "link"))
    assert sent.symbols.shape[-1] % 3 and sent.estimate.shape == (2, 5, 3, 32, 32)


def test_a_link_of_frames_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(ValueError, match="keeps to SeparateLink; use an open codec"):
        FramesLink(SeparateTransmitter(), AWGN())
    with pytest.raises(ValueError, match=r"got \[20\] per item; leave link out"):
        analog(AWGN()).transmit(torch.zeros(1, 20), 10.0, stream(1, "link"))


def test_what_cannot_be_sent_or_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="its speed_mps, or that of a stage"):
        ChannelHistory(Rayleigh())
    with pytest.raises(ValueError, match="real numbers, got a complex source"):
        ValuesTransmitter()(torch.zeros(1, 4, dtype=torch.complex64), CSI(None, torch.ones(1)))
    with pytest.raises(ValueError, match=r"float32, got torch.int64; write source.float\(\)"):
        ValuesTransmitter()(torch.zeros(1, 4, dtype=torch.int64), CSI(None, torch.ones(1)))
    with pytest.raises(ValueError, match="equalised symbols"):
        ValuesReceiver()(torch.zeros(1, 1, 4), CSI(None, torch.ones(1)), (4,))
    with pytest.raises(ValueError, match="an item is all zeros"):
        NMSE()(Outcome(torch.zeros(1, 4), torch.zeros(1, 4), torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="use a receiver of the same items"):
        NMSE()(Outcome(torch.zeros(1, 4), torch.zeros(1, 5), torch.zeros(1, 5)))
