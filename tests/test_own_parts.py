"""Parts of a user's own that break what a link asks: each gets a sentence that says which."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_parts import ToyChannel

from channels import AWGN, CSI, Rayleigh
from channels.base import Channel, ChannelState
from channels.cascade import Cascade
from channels.erasure import Erasure
from semsim import Link, Scenario, evaluate, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.links.frames import FramesLink
from semsim.links.multiple_access import MultipleAccessLink
from semsim.metrics.base import Metric
from semsim.metrics.image import PSNR
from semsim.mistakes import SpecError
from semsim.payloads.synthetic import Synthetic
from semsim.spec import resolve
from semsim.sweep.gains import unusual_gains
from semsim.sweep.preflight import preflight_report, untrained
from semsim.types import Receiver, Transmitter


class NoSymbols(Transmitter):
    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return 8

    def forward(self, source: Tensor, csi: CSI, generator: object = None) -> None:
        return None


class NoEstimate(Receiver):
    def forward(
        self, y: Tensor, csi: CSI, shape: tuple[int, ...], generator: object = None
    ) -> None:
        return None


class ForgetsTheBatch(AnalogReceiver):
    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: object) -> Tensor:
        return super().forward(y, csi, shape, *rest)[:1]


class RandomTransmitter(AnalogTransmitter):
    def __init__(self, loaded: bool = False, frozen: bool = False) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1).requires_grad_(not frozen)
        self.brings_weights = loaded


class RandomReceiver(AnalogReceiver):
    pass


class Described(Channel):
    num_tx = num_rx = 1

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        return ChannelState(torch.ones(batch, 1, 1, 1, dtype=torch.complex64), uses)


class OnlyReal(AWGN):
    def forward(self, *given: object) -> Tensor:
        return super().forward(*given).real


class Draws(nn.Module):
    num_tx = num_rx = 1

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> Tensor:
        return torch.ones(batch, 1, 1, uses)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


class Nameless(Metric):
    """Says nothing of itself."""


def send(transmitter: object, channel: object, receiver: object) -> None:
    Link(transmitter, channel, receiver).transmit(torch.rand(2, 3, 8, 8), 10.0, stream(0, "own"))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"transmitter": NoSymbols()}, r"complex symbols \[2, 1, 8\], got NoneType"),
        (
            {"receiver": NoEstimate()},
            r"NoEstimate returns an estimate .* got NoneType",
        ),
        ({"receiver": ForgetsTheBatch()}, r"\[2, \.\.\.\], got \[1, 3, 8, 8\]"),
        ({"channel": Described()}, r"only says what a channel has; write class Described\(torch"),
        ({"channel": OnlyReal()}, r"OnlyReal returns complex y \[B, R, N\], got .* torch.float32"),
        ({"channel": Draws()}, r"draw of channel Draws returns a ChannelState.*, got Tensor"),
        ({"transmitter": AnalogTransmitter}, r"a transmitter is an object, got a class; Analog"),
    ],
)
def test_a_part_that_breaks_a_link_s_contract_is_named(parts: dict, words: str) -> None:
    whole = {"transmitter": AnalogTransmitter(), "channel": AWGN(), "receiver": AnalogReceiver()}
    with pytest.raises(TypeError, match=words):
        send(**{**whole, **parts})


def test_a_module_that_is_no_python_is_named_without_python_s_own_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text("x = 1\nclas Own: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError) as caught:
        resolve("channel", "own_broken:Own")
    assert str(caught.value).endswith("SyntaxError: invalid syntax (own_broken.py, line 2)")


def test_a_forgotten_batch_is_named_in_other_links_too() -> None:
    frames = FramesLink(AnalogTransmitter(), AWGN(), ForgetsTheBatch())
    with pytest.raises(TypeError, match=r"\[4, \.\.\.\], got \[1, 3, 8, 8\]"):
        frames.transmit(torch.rand(2, 2, 3, 8, 8), 10.0, stream(0, "own"))
    shared = MultipleAccessLink(
        AnalogTransmitter(), Rayleigh(num_tx=2, num_rx=2), ForgetsTheBatch()
    )
    with pytest.raises(TypeError, match=r"\[2, \.\.\.\], got \[1, 3, 8, 8\]"):
        shared.transmit(torch.rand(2, 3, 8, 8), 10.0, stream(0, "own"))


@pytest.mark.parametrize(
    ("metric", "words"), [(Nameless(), "Nameless has no name"), (PSNR, r"write PSNR\(\)")]
)
def test_a_metric_that_breaks_its_contract_is_named(metric: object, words: str) -> None:
    link = Link(AnalogTransmitter(), AWGN(), AnalogReceiver())
    with pytest.raises(TypeError, match=words):
        evaluate(link, Synthetic(2, 32), snr_db=[10.0], metrics=[metric])


def test_check_sends_two_items_through_parts_of_one_s_own() -> None:
    scenario = Scenario.parse({
        "name": "own",
        "payload": {"kind": "synthetic", "count": 4, "size": 32},
        "transmitter": {"kind": "analog"},
        "receiver": {"kind": f"{__name__}:ForgetsTheBatch"},
        "channel": {"kind": "awgn"},
        "metrics": ["psnr"],
        "snr_db": [10],
    })  # fmt: skip
    with pytest.raises(SpecError, match=r"\[2, \.\.\.\], got \[1, 3, 32, 32\]"):
        preflight_report(scenario, torch.device("cpu"))


@pytest.mark.parametrize(
    ("options", "told"), [({}, True), ({"loaded": True}, False), ({"frozen": True}, False)]
)
def test_networks_of_one_s_own_that_nothing_trains_are_told(options: dict, told: bool) -> None:
    scenario = Scenario.parse({
        "payload": {"kind": "synthetic", "count": 4, "size": 32},
        "transmitter": {"kind": f"{__name__}:RandomTransmitter", **options},
        "channel": {"kind": "awgn"},
        "metrics": ["psnr"],
        "snr_db": [10],
    })  # fmt: skip
    warnings = preflight_report(scenario, torch.device("cpu"))[1]
    assert bool(warnings) is told
    assert not told or "RandomTransmitter codec is not trained; name weights" in warnings[0]
    assert not told or warnings[0].endswith("a class that loads its own says brings_weights = True")


class Blockage(ToyChannel):
    """Half of the items come with twice the power; ``tells`` is the power that its state names."""

    def __init__(self, gain: float = 1.0, tells: float = 1.0) -> None:
        super().__init__(gain)
        self.tells = tells

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        h = (2 * torch.rand(batch, 1, 1, 1, generator=generator)).sqrt()
        return ChannelState(h.to(torch.complex64) * self.tells**0.5, uses)

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        return super().forward(x * state.h[:, 0] / self.tells**0.5, state, n0, generator)


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (Blockage(), []),
        (Blockage(gain=1.02), []),  # 4 %
        (
            Blockage(gain=2.0, tells=4.0),
            [r"brings (3\.9\d?|4|4\.\d+) times .* 10 dB is 1[56]\.\d dB"],
        ),
        (Blockage(tells=2.0), [r"state.h tells a power of [12]\.\d+, but [01]\.?\d* comes"]),
        (Cascade([Blockage(gain=0.5, tells=0.25), AWGN()]), [r"brings 0\.2[45]"]),
        (Cascade([Blockage(), AWGN()]), []),
        (Erasure(0.5, packet_uses=8, channel=Blockage()), []),  # what is lost on purpose
    ],
)
def test_a_channel_of_one_s_own_with_another_gain_is_told(channel: Any, told: list[str]) -> None:
    link = Link(AnalogTransmitter(), channel, AnalogReceiver())
    lines = unusual_gains(link)
    assert len(lines) == len(told), lines
    for line, pattern in zip(lines, told, strict=True):
        assert re.search(f"channel {__name__}:Blockage: .*{pattern}", line), line


class OneLength(Blockage):
    """Takes 1,600 uses alone, and says so as torch does."""

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        torch.zeros(1600) + torch.zeros(uses)
        return super().draw(batch, uses, generator)


def test_a_channel_that_takes_one_number_of_uses_is_left_alone() -> None:
    link = Link(AnalogTransmitter(), OneLength(gain=2.0), AnalogReceiver())
    assert unusual_gains(link) == []


def test_check_warns_of_an_own_channel_s_gain() -> None:
    scenario = Scenario.parse({
        "payload": {"kind": "synthetic", "count": 4, "size": 32},
        "transmitter": {"kind": "analog"},
        "channel": {"kind": f"{__name__}:Blockage", "gain": 2.0},
        "metrics": ["psnr"],
        "snr_db": [10],
    })  # fmt: skip
    warnings = preflight_report(scenario, torch.device("cpu"))[1]
    assert "by convention E|h|^2 is 1" in warnings[0]
    assert untrained(scenario) == warnings  # which a run ends with
