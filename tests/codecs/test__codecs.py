"""The contract of all codecs, over the table: a new one is a file and a row, and is met here."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from channels import AWGN, CSI, PerfectCSI, Rayleigh
from semsim import spec, zoo
from semsim.csi.pretrain import FillIn
from semsim.link import Link
from semsim.phy.power import TOLERANCE, most_power
from semsim.scenario import fields
from semsim.seeds import stream
from semsim.tables import TRANSMITTERS
from semsim.types import Receiver, Transmission, Transmitter, WithSideInfo

ENCODER = tempfile.TemporaryDirectory()  # it goes with the process


def encoder_of_channels() -> str:
    """Return weights of a small WirelessGPT that has learned nothing."""
    torch.manual_seed(1)
    path = Path(ENCODER.name) / "encoder.safetensors"
    return str(zoo.export_parts(path, dict(FillIn("tiny").named_children())))


def short(value: object) -> str:
    """Return a setting as it stands in a test's name: the same in each process."""
    return "encoder" if str(value).endswith(".safetensors") else str(value)


#: further settings of a kind, beside its defaults; the first of those that cannot do without
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "analog": [{"cbr": "1/12"}],
    "coded": [{"mcs": 8}],
    "deepjscc": [
        {"preset": "bourtsoulatze2019"},
        {"preset": "adjscc", "width": 8},
        {"width": 8, "csi_weights": encoder_of_channels()},
    ],
    "flsc": [{"cbr": "1/96", "fine": None, "num_streams": 2}],
    "keras": [{"model": "semsim.codecs.keras.models:bourtsoulatze2019", "pairing": "channels"}],
    "lcfsc": [{"num_tx": 2, "num_rx": 2}, {"facts": "streams", "per_head": True}],
    "softcast": [{"cbr": "1/2"}],
    "swin_jscc": [{"cbr": "1/12", "rates": ["1/24", "1/12"]}],
    "uncoded": [{"bits_per_symbol": m} for m in (4, 6, 8)],
}
NEEDS_SETTINGS = {"keras"}
CASES = [
    pytest.param({"kind": kind, **own}, id=" ".join([kind, *map(short, own.values())]))
    for kind in TRANSMITTERS
    for own in ([] if kind in NEEDS_SETTINGS else [{}]) + SETTINGS.get(kind, [])
]
SHAPES = ((3, 64, 64), (960,))  #: of what is sent: the first that a codec takes
SIZES = ((40, 56), (33, 47))


class Case:
    """A link of a codec over a channel that loses little, and what it sends."""

    def __init__(self, settings: dict[str, Any]) -> None:
        if settings["kind"] == "keras":
            pytest.importorskip("tensorflow", reason="the Keras codec needs TensorFlow")
        torch.manual_seed(1)
        self.kind: str = settings["kind"]
        written = spec.parse("transmitter", settings)
        half = fields.receiver_of(spec.parse("transmitter", {**settings, "weights": None}), None)
        self.transmitter: Transmitter = spec.build(written)
        self.receiver: Receiver | None = None if half is None else spec.build(half)
        antennas = getattr(written, "num_tx", 1)
        channel = Rayleigh(num_tx=antennas, num_rx=antennas) if antennas > 1 else AWGN()
        own: Any = self.transmitter.link_class or Link
        self.link = own(self.transmitter, channel, receiver=self.receiver, csi_tx=PerfectCSI())
        self.link.eval()
        self.shape = next(shape for shape in SHAPES if self.takes(shape))

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the codec sends items of this shape."""
        try:
            self.transmitter.num_symbols(shape)
        except ValueError:
            return False
        return True

    def source(self, batch: int = 3) -> Tensor:
        """Return bits, or images: noise, dark noise, a ramp, and what lies between them."""
        if len(self.shape) == 1:
            return torch.randint(2, (batch, *self.shape), generator=stream(0, "bits")).float()
        noise = torch.rand(self.shape, generator=stream(0, "image"))
        ramp = torch.linspace(0, 1, self.shape[-1]).expand(self.shape)
        every = [noise, noise / 100, ramp, (noise + ramp) / 2]
        return torch.stack([every[n % 4] for n in range(batch)])

    def send(self, source: Tensor) -> Transmission:
        """Send at an SNR at which everything arrives."""
        sent: Transmission = self.link.transmit(source, 20.0, stream(1, "link"))
        return sent

    def calls(self) -> dict[Any, tuple[tuple[Any, ...], dict[str, Any]]]:
        """Send a batch, and return what each end was called with."""
        calls: dict[Any, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        hooks = [
            end.register_forward_pre_hook(
                lambda end, given, named: calls.update({end: (given, named)}), with_kwargs=True
            )
            for end in self.link.ends().values()
        ]
        self.send(self.source())
        for hook in hooks:
            hook.remove()
        return calls


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_no_item_has_more_than_its_power(case: Case) -> None:
    source = case.source(4)
    if source.dim() == 4:
        source = torch.cat([source, source[:1] * 0, source[:1] * 0 + 1])  # black, white
    symbols = case.send(source).symbols
    if symbols is None:  # no link at all
        assert case.transmitter.num_symbols(case.shape) == 0
        return
    power = symbols.abs().square().mean(dim=(1, 2))
    constellation = case.link.constellation
    assert (power <= most_power(symbols.shape[-1], constellation=constellation)).all()
    if not constellation:
        assert (power[:4] > 1 - TOLERANCE).all()  # black may be silence


def test_an_item_costs_as_many_symbols_as_promised(case: Case) -> None:
    sent = case.send(case.source())
    promised = case.transmitter.num_symbols(case.shape)
    assert sent.ledger.payload == math.ceil(promised / getattr(case.link, "num_streams", 1))
    if sent.symbols is not None:
        assert sent.symbols.shape == (3, 1, promised)


def second(csi: CSI) -> CSI:
    """Return what is known of the second item of a batch."""
    later = csi.foreseen
    return CSI(
        csi.h if csi.h is None else csi.h[1:2], csi.n0[1:2],
        foreseen=None if later is None else lambda: second(later()),
    )  # fmt: skip


def test_one_item_alone_is_sent_and_received_as_within_a_batch(case: Case) -> None:
    if case.transmitter.link_class is not None:
        pytest.skip("its ends are one; what is lost is drawn for a batch")
    calls = case.calls()
    for end in case.link.ends().values():
        (source, csi, *rest), named = calls[end]
        own = second(csi)
        told = {key: value[1:2] for key, value in named.items()}
        together, alone = end(source, csi, *rest, **named), end(source[1:2], own, *rest, **told)
        if isinstance(together, WithSideInfo):
            assert torch.equal(together.side_info[1:2], alone.side_info)
            together, alone = together.symbols, alone.symbols
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_the_same_generator_sends_and_receives_the_same(case: Case) -> None:
    source = case.source()
    one, again = case.send(source), case.send(source)
    assert torch.equal(one.estimate, again.estimate) and torch.equal(one.x, again.x)
    begun = case.link.transmit(source, 20.0, stream(1, "link"), case.link.begin(source))
    torch.testing.assert_close(begun.estimate, one.estimate, rtol=1e-5, atol=1e-5)


def test_images_of_any_size_come_back_in_their_size_and_type(case: Case) -> None:
    if case.kind in NEEDS_SETTINGS:
        pytest.skip("the model that is named decides on the sizes")
    source = case.source()
    crops = [source[..., :h, :w] for h, w in SIZES] if source.dim() == 4 else [source[:, :77]]
    for crop in crops:
        estimate = case.send(crop).estimate
        assert estimate.shape == crop.shape and estimate.dtype == crop.dtype
        assert estimate.device == crop.device
        if not case.takes((7, 7)):  # it knows images, which end at black and white
            assert estimate.min() >= 0 and estimate.max() <= 1


def test_gradients_reach_every_parameter(case: Case) -> None:
    if not any(True for _ in case.link.parameters()):
        pytest.skip("it has no parameters")
    case.link.train()
    with torch.no_grad():
        for parameter in case.link.parameters():  # many a block begins at zero, and lets none pass
            parameter.add_(0.02 * torch.randn_like(parameter))
    source = case.source()
    sent = case.link.transmit(source, 5.0, stream(2, "link"))
    loss = (sent.estimate - source).square().mean() + case.link.auxiliary_loss(1.0, sent)
    loss.backward()
    silent = [n for n, p in case.link.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_ends_make_nothing_on_another_device(case: Case) -> None:
    if case.transmitter.link_class is not None or case.kind in NEEDS_SETTINGS:
        pytest.skip("image codecs, and models of other frameworks, compute on the CPU")
    calls = case.calls()
    for end in case.link.ends().values():
        given, named = calls[end]
        expected = end(*given, **named)
        with torch.device("meta"):  # where a tensor lands that does not say its device
            again = end(*given, **named)
        if isinstance(expected, WithSideInfo):
            expected, again = expected.symbols, again.symbols
        assert torch.equal(again, expected)
