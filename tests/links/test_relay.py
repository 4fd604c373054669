"""A relay forwards what it gets, and both hops are charged."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels import AWGN, CSI, Erasure, Rayleigh
from semsim import Link, Scenario, evaluate, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.hybrid import HybridTransmitter
from semsim.codecs.separate import SeparateTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.links.relay import RelayLink
from semsim.mistakes import SpecError
from semsim.payloads.bits import Bits
from semsim.payloads.photos import Photos
from semsim.sweep.trained import own_weights
from semsim.tasks.base import Prepared, Task
from semsim.types import Receiver, Transmitter


class Keep(Receiver):
    """Hand out symbols as they come, and remember the noise that the receiver was told."""

    def forward(
        self, y: torch.Tensor, csi: CSI, shape: tuple[int, ...], *rest: object
    ) -> torch.Tensor:
        self.n0 = csi.n0.expand(y.shape)
        return torch.view_as_real(y[:, 0]).flatten(1)


def gaussian(batch: int, count: int) -> torch.Tensor:
    return torch.randn(batch, 2 * count, generator=stream(3, "source"))


class Pairs(Transmitter):
    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return shape[0] // 2

    def forward(self, source: torch.Tensor, csi: CSI, *rest: object) -> torch.Tensor:
        symbols = torch.view_as_complex(source.view(len(source), -1, 2)).unsqueeze(1)
        return symbols / symbols.abs().square().mean(dim=(1, 2), keepdim=True).sqrt()


def measured(link: Link, snr_db: float, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the measured and the told noise power after a link, [B] each."""
    source = gaussian(8, count)
    sent = link.transmit(source, snr_db, stream(1, "link"))
    assert sent.symbols is not None
    there = torch.view_as_complex(sent.estimate.view(8, -1, 2))
    noise = (there - sent.symbols[:, 0]).abs().square().mean(dim=1)
    return noise, link.receiver.n0.mean(dim=(1, 2))


@pytest.mark.parametrize("first_db", [-5.0, 0.0, 10.0])
@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_amplify_reaches_the_closed_form_over_awgn(first_db: float, snr_db: float) -> None:
    link = RelayLink(Pairs(), AWGN(), Keep(), first_db=first_db)
    noise, told = measured(link, snr_db)
    g1, g2 = 10 ** ((snr_db + first_db) / 10), 10 ** (snr_db / 10)
    closed = (g1 + g2 + 1) / (g1 * g2)
    # a mean of 32,000 exponential powers strays by 1/sqrt(32,000), five of which are 0.028
    assert noise.mean() / closed == pytest.approx(1, abs=0.03)
    assert told.mean() / closed == pytest.approx(1, abs=0.03)


def test_amplify_over_block_fading_tells_each_item_its_own_noise() -> None:
    link = RelayLink(Pairs(), Rayleigh(), Keep())
    noise, told = measured(link, 10.0)
    assert torch.allclose(noise / told, torch.ones(8), atol=5 / 4000**0.5)


def test_amplify_over_fast_fading_weighs_each_symbol() -> None:
    link = RelayLink(Pairs(), Rayleigh(coherence=1), Keep())
    source = gaussian(8, 4000)
    sent = link.transmit(source, 10.0, stream(1, "link"))
    there = torch.view_as_complex(sent.estimate.view(8, -1, 2))[:, None]
    ratio = (there - sent.symbols).abs().square() / link.receiver.n0
    assert ratio.mean() == pytest.approx(1, abs=5 / 32000**0.5)


def test_an_untrained_process_is_amplify_and_its_network_learns() -> None:
    plain = RelayLink(Pairs(), AWGN(), Keep())
    link = RelayLink(Pairs(), AWGN(), Keep(), relay="process")
    source = gaussian(4, 100)
    one, other = (k.transmit(source, 5.0, stream(1, "x")).estimate for k in (plain, link))
    assert torch.allclose(one, other, atol=1e-5)
    (other - source).square().mean().backward()
    last = link.process.layers[-1]
    assert last.weight.grad is not None and last.weight.grad.abs().sum() > 0


def test_both_hops_are_charged_and_have_unit_power() -> None:
    transmitter = AnalogTransmitter("1/6")
    link = RelayLink(transmitter, AWGN(), AnalogReceiver("1/6"))
    image = torch.rand(2, 3, 32, 32, generator=stream(0, "image"))
    sent = link.transmit(image, 10.0, stream(0, "link"))
    uses = transmitter.num_symbols((3, 32, 32))
    assert sent.ledger.payload == 2 * uses and sent.x.shape[-1] == 2 * uses
    for hop in sent.x.split(uses, dim=2):
        assert torch.allclose(hop.abs().square().mean(dim=(1, 2)), torch.ones(2), atol=1e-4)


def test_decoding_removes_the_noise_of_the_first_hop() -> None:
    ends = UncodedTransmitter(), AWGN(), UncodedReceiver()
    payload = Bits(count=200, length=1000, seed=1)
    ber = {}
    for relay in ("amplify", "decode"):
        link = RelayLink(*ends, relay=relay)
        (row,) = evaluate(link, payload, snr_db=[6.0], metrics=["ber"])
        ber[relay] = row["value"]
    q = 0.5 * math.erfc(math.sqrt(10**0.6 / 2))
    both = 2 * q * (1 - q)  # wrong on one hop and not on the other
    assert ber["decode"] == pytest.approx(both, abs=5 * math.sqrt(both / 2e5))
    g = 10**0.6
    amplified = 0.5 * math.erfc(math.sqrt(g * g / (2 * g + 1) / 2))
    assert ber["amplify"] == pytest.approx(amplified, abs=5 * math.sqrt(amplified / 2e5))


def test_a_codec_that_keeps_its_symbols_is_relayed_by_decoding_alone() -> None:
    with pytest.raises(ValueError, match="relay: decode"):
        RelayLink(SeparateTransmitter("1/6"), AWGN())
    link = RelayLink(SeparateTransmitter("1/6", codec="webp"), AWGN(), relay="decode")
    image = torch.rand(1, 3, 32, 32, generator=stream(0, "image"))
    sent = link.transmit(image, 20.0, stream(0, "link"))
    assert sent.estimate.shape == image.shape and sent.ledger.payload == 2 * 512


@pytest.mark.parametrize("first_db", [-40.0, 0.0])
def test_an_item_has_arrived_if_both_hops_decoded_it(first_db: float) -> None:
    settings = {"cbr": "1/2", "mcs": 4, "codec": "jpeg", "chunk": 8}
    link = RelayLink(HybridTransmitter(**settings), AWGN(), relay="decode", first_db=first_db)
    image = torch.rand(1, 3, 8, 8, generator=stream(0, "image"))
    image = torch.nn.functional.interpolate(image, 96, mode="bicubic").clamp(0, 1)
    sent = link.eval().transmit(image, 30.0, stream(0, "link"))
    assert sent.notes["decoded"].tolist() == [float(first_db == 0.0)]


class Told(Task):
    """Tells 8 bits of each image beside it."""

    def prepare(self, source: Tensor) -> Prepared:
        return Prepared(source, torch.zeros(len(source), 1, dtype=torch.uint8), 8.0)

    def forward(self, estimate: Tensor, side_info: Tensor | None = None) -> Tensor:
        return estimate


@pytest.mark.parametrize("relay", ["amplify", "decode"])
def test_what_a_task_tells_beside_passes_both_hops(relay: str) -> None:
    link = RelayLink(
        AnalogTransmitter(), AWGN(), AnalogReceiver(), relay=relay, first_db=10 * math.log10(3)
    )
    (row,) = evaluate(
        link, Photos(["coffee"], crop=32), snr_db=[0.0], metrics=["psnr"], task=Told()
    )
    assert row["uses_side_info"] == pytest.approx(8 / 2 + 8 / 1)  # log2(1 + 3), log2(1 + 1)


def test_a_relay_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="relay is one of amplify, process, decode, got 'decod'"):
        RelayLink(UncodedTransmitter(), AWGN(), UncodedReceiver(), relay="decod")


SCENARIO = {
    "payload": "photos",
    "transmitter": {"kind": "analog", "cbr": "1/6"},
    "channel": "awgn",
    "metrics": ["psnr"],
    "snr_db": [10],
    "stop": {"max_items": 2},
}


def test_a_scenario_names_its_relay() -> None:
    plain = Scenario.parse(SCENARIO)
    relayed = Scenario.parse({**SCENARIO, "link": {"kind": "relay", "second": "rayleigh"}})
    assert isinstance(relayed.build().link, RelayLink)
    assert plain.uid(10.0) != relayed.uid(10.0)
    assert "link" not in plain.content
    assert Scenario.parse({**SCENARIO, "link": "direct"}).uid(10.0) == plain.uid(10.0)


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ({"kind": "rely"}, "link.kind"),
        ({"kind": "relay", "relay": "guess"}, "link.relay"),
        ({"kind": "relay", "relay": "process", "width": 0}, "link"),
        ({"kind": "relay", "transmitter": "analog"}, "link.transmitter"),
    ],
)
def test_a_mistake_in_a_link_names_its_key(link: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        Scenario.parse({**SCENARIO, "link": link}).build()
    assert caught.value.path.startswith(path)


def test_weights_of_a_trained_relay_come_back(tmp_path: Path) -> None:
    train = {"payload": "synthetic", "steps": 2, "batch_size": 2, "crop": 32}
    scenario = Scenario.parse(
        {
            **SCENARIO,
            "transmitter": {"kind": "deepjscc", "cbr": "1/6"},
            "link": {"kind": "relay", "relay": "process"},
            "train": train,
        }
    )
    weights = own_weights(scenario, tmp_path, torch.device("cpu"))
    assert weights is not None
    process = scenario.build(weights=weights).link.process
    assert all(p.abs().sum() > 0 for p in process.parameters())


@pytest.mark.parametrize("relay", ["amplify", "process"])
def test_an_item_that_the_relay_never_heard_arrives_as_nothing(relay: str) -> None:
    link = RelayLink(Pairs(), Erasure(0.5, 1000), Keep(), relay=relay)
    source = gaussian(16, 50)
    sent = link.transmit(source, 10.0, stream(1, "link"))
    first, second = (turn.state.h[:, 0, 0, 0] != 0 for turn in sent.turns)
    assert 0 < first.sum() < 16
    arrived = (sent.estimate != 0).any(dim=1)
    assert torch.equal(arrived, first & second)
    assert (link.receiver.n0[~arrived] >= 1e6).all() and link.receiver.n0.isfinite().all()
    if relay == "process":
        sent.estimate.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in link.process.parameters())


@pytest.mark.parametrize("first_db", [-4000, 4000.0, math.nan, "loud"])
def test_a_hop_s_snr_that_no_float_holds_is_refused(first_db: object) -> None:
    with pytest.raises(ValueError, match=r"first_db lies in \[-200, 200\], got .*equal hops"):
        RelayLink(Pairs(), AWGN(), Keep(), first_db=first_db)


def test_a_relay_that_decodes_takes_the_snrs_of_items_as_a_direct_link_does() -> None:
    link = RelayLink(Pairs(), AWGN(), Keep(), relay="decode", first_db=3.0)
    source = gaussian(2, 50)
    told = torch.tensor([1.0, 2.0])
    listed, tensor = (link.transmit(source, s, stream(1, "x")).estimate for s in ([1.0, 2.0], told))
    assert torch.equal(listed, tensor)
    with pytest.raises(ValueError, match="one for each of 2 items, got "):
        link.transmit(source, [1.0, 2.0, 3.0], stream(1, "x"))
