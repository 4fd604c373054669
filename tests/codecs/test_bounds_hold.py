"""No scheme beats the bound of what it knows, over every kind of channel in the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.base import Channel
from channels.cascade import Cascade
from channels.csi import PerfectCSI
from channels.dataset import Measured
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import CDL, TDL, UMa, UMi
from channels.tables import CHANNELS, example
from channels.waveform import Waveform
from semsim import zoo
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.link import Link
from semsim.payloads.photos import Photos
from semsim.phy.frontend import IRC, LMMSE, SVD
from semsim.phy.information import informed, seen_through
from semsim.seeds import stream

ITEMS = 24
SNR_DB = 6.0
N0 = torch.full((ITEMS,), 10 ** (-SNR_DB / 10))
MAKERS: dict[str, Callable[[Path], Channel]] = {
    "awgn": lambda _: AWGN(),
    "rayleigh": lambda _: Rayleigh(2, 2),
    "rician": lambda _: Rician(6.0, coherence=64),
    "tdl": lambda _: TDL("A", 3e-7, speed_mps=30.0),
    "cdl": lambda _: CDL("C", 3e-7, num_rx=2),
    "umi": lambda _: UMi(),
    "uma": lambda _: UMa(),
    "erasure": lambda _: Erasure(0.2, 256),
    "interference": lambda _: Interference(3.0, channel=Rayleigh(1, 2)),
    "carrier_offset": lambda _: CarrierOffset(1e-4),
    "phase_noise": lambda _: PhaseNoise(1e2),
    "clipping": lambda _: Clipping(0.0),
    "cascade": lambda _: Cascade([Clipping(3.0, 2), Interference(5.0, channel=Rayleigh(2, 2))]),
    "waveform": lambda _: Waveform([Clipping(3.0), TDL("A", 3e-7, speed_mps=30.0)]),
    "measured": lambda path: Measured(path),
}
MAKERS |= {kind: lambda _, kind=kind: example(kind) for kind in CHANNELS if kind not in MAKERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bounds")
    draw = np.random.default_rng(1)
    np.save(path / "gains.npy", draw.normal(size=(500, 2, 1, 8, 2)))
    return path


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests, and one for all of them."""
    monkeypatch.setenv("SEMSIM_CACHE", str(folder))


@pytest.fixture(params=MAKERS)
def channel(request: pytest.FixtureRequest, folder: Path) -> Channel:
    return MAKERS[request.param](folder / "gains.npy")


def images(side: int) -> Tensor:
    coarse = torch.rand(4, 3, 6, 6, generator=stream(0, "images"))
    smooth = torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)
    return smooth.repeat(ITEMS // 4, 1, 1, 1)


def psnr_db(link: Link, source: Tensor) -> Tensor:
    estimate = link.transmit(source, SNR_DB, stream(1, "link")).estimate
    return -10 * torch.log10((source - estimate).square().mean(dim=(1, 2, 3)).clamp_min(1e-7))


def check_no_better(value: Tensor, bound: Tensor) -> None:
    gap = value - bound  # paired: the same images and fading
    assert gap.mean() <= 2 * gap.std() / math.sqrt(len(gap)) + 1e-3


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_separate_coding_stays_below(channel: Channel, known: bool) -> None:
    ends = {"csi_tx": PerfectCSI(), "frontend": SVD(water_filling=True)} if known else {}
    if not known and isinstance(channel, Interference):
        ends = {"frontend": IRC()}
    source = images(64)
    separate = SeparateLink(SeparateTransmitter("1/3", codec="webp"), channel, **ends)
    bound = BoundLink(BoundTransmitter("1/3", codec="webp"), channel, **ends)
    check_no_better(psnr_db(separate, source), psnr_db(bound, source))


@pytest.mark.parametrize("frontend", [LMMSE(), IRC()], ids=["lmmse", "irc"])
def test_uncoded_bits_tell_less_than_the_channel_carries(
    channel: Channel, frontend: LMMSE | IRC
) -> None:
    for m in (2, 4):
        link = Link(UncodedTransmitter(m), channel, UncodedReceiver(m), frontend=frontend)
        bits = torch.randint(2, (ITEMS, 4096), generator=stream(2, "bits")).float()
        sent = link.transmit(bits, SNR_DB, stream(2, "link"))
        wrong = (sent.estimate != bits).double().mean(dim=1).clamp(1e-9, 0.5)
        told = 1 + wrong * wrong.log2() + (1 - wrong) * (1 - wrong).log2()
        carried = informed(seen_through(sent.state, N0), sent.x.shape[-1], "shell").bits
        check_no_better(4096 * told, carried)


def test_analog_pixels_obey_rate_and_distortion(channel: Channel) -> None:
    source = 0.5 + 0.1 * torch.randn(ITEMS, 3, 32, 32, generator=stream(3, "gauss"))
    link = Link(AnalogTransmitter("1/2"), channel, AnalogReceiver("1/2").train())
    sent = link.transmit(source.clamp(0, 1), SNR_DB, stream(3, "link"))
    error = (sent.estimate - source).square().mean(dim=(1, 2, 3)).double()
    told = 0.5 * source[0].numel() * torch.log2(0.01 / error)  # least bits for that distortion
    carried = informed(seen_through(sent.state, N0), sent.x.shape[-1], "shell").bits
    check_no_better(told, carried)


def test_a_learned_codec_stays_below_the_image_codec_at_capacity(channel: Channel) -> None:
    photos = Photos(resize=128, crop=128)
    source = torch.stack([photos[i % 4][0] for i in range(8)])
    ends = zoo.build("deepjscc-photo-1-16")
    learned = Link(ends["transmitter"], channel, ends["receiver"]).eval()
    bound = BoundLink(BoundTransmitter("1/16", rate="per_draw"), channel)
    with torch.inference_mode():
        check_no_better(psnr_db(learned, source), psnr_db(bound, source))
