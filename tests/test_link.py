"""The link composes its parts and keeps the accounts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from channels import AWGN, CSI, FeedbackCSI, NoCSI, PerfectCSI, PilotCSI, Rayleigh
from channels.base import ChannelState
from semsim import Link, Scenario, spec, stream
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.links.codecs import check_separated
from semsim.links.multiple_access import MultipleAccessLink
from semsim.phy.frontend import RZF, SVD, ZF, NoFrontEnd
from semsim.types import Receiver, Transmitter, WithNotes, WithSideInfo


class Pairs(Transmitter):
    """Send reals in pairs, as they are; odd lengths are refused by the payload of these tests."""

    uses_csi = False

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        return shape[0] // 2

    def forward(self, source: Tensor, csi: CSI, *rest: Any) -> Tensor:
        symbols = torch.view_as_complex(source.view(len(source), -1, 2)).unsqueeze(1)
        power = symbols.abs().square().mean(dim=(1, 2), keepdim=True)
        return symbols / power.sqrt()


class Unpair(Receiver):
    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        return torch.view_as_real(y[:, 0]).flatten(1)


class Raw(Receiver):
    def forward(self, y: Tensor, csi: CSI, shape: tuple[int, ...], *rest: Any) -> Tensor:
        assert csi.h is not None
        return y


class Recorder(Pairs):
    """Remember what the transmitter was told of the channel."""

    uses_csi = True

    def forward(self, source: Tensor, csi: CSI, *rest: Any) -> Tensor:
        self.seen = csi
        return super().forward(source, csi)


def unit_source(batch: int = 4, length: int = 64) -> Tensor:
    source = torch.randn(batch, length, generator=stream(1, "source"))
    return source / source.square().mean(1, keepdim=True).mul(2).sqrt()


@pytest.mark.parametrize("antennas", [1, 2, 4])
@pytest.mark.parametrize("frontend", [ZF(), SVD()])
def test_at_high_snr_the_estimate_is_the_source(antennas: int, frontend: nn.Module) -> None:
    channel = Rayleigh(num_tx=antennas, num_rx=antennas)
    link = Link(Pairs(), channel, Unpair(), csi_tx=PerfectCSI(), frontend=frontend)
    source = unit_source()
    estimate = link(source, 120.0, stream(2, "link"))
    assert torch.allclose(estimate, source, atol=1e-3)


@pytest.mark.parametrize(("antennas", "symbols", "uses"), [(1, 32, 32), (2, 31, 16), (4, 33, 9)])
def test_symbols_share_channel_uses_over_streams(antennas: int, symbols: int, uses: int) -> None:
    link = Link(Pairs(), Rayleigh(num_tx=antennas, num_rx=antennas), Unpair())
    sent = link.transmit(unit_source(length=2 * symbols), 10.0, stream(1, "link"))
    assert sent.x.shape == (4, antennas, uses)
    assert sent.ledger.total == uses
    assert sent.estimate.shape == (4, 2 * symbols)


def test_encoding_once_gives_the_same_digits() -> None:
    link = Link(Pairs(), Rayleigh(coherence=4), Unpair())
    source = unit_source()
    once = link.transmit(source, 5.0, stream(3, "link"), begun=link.begin(source))
    assert torch.equal(once.estimate, link(source, 5.0, stream(3, "link")))


def test_snr_may_differ_per_item() -> None:
    link = Link(Pairs(), AWGN(), Unpair())
    source = unit_source(batch=3)
    together = link(source, torch.tensor([0.0, 10.0, 100.0]), stream(4, "link"))
    error = (together - source).square().mean(1)
    assert error[0] > error[1] > error[2]
    assert torch.equal(together[:1], link(source, 0.0, stream(4, "link"))[:1])


def test_power_over_antennas_is_one_per_use() -> None:
    link = Link(
        Pairs(), Rayleigh(num_tx=4, num_rx=4), Unpair(), csi_tx=PerfectCSI(), frontend=SVD()
    )
    x = link.transmit(unit_source(length=8192), 10.0, stream(5, "link")).x
    power = x.abs().square().sum(1).mean(1)
    assert torch.allclose(power, torch.ones(4), atol=1e-4)


def test_pilots_and_feedback_enter_the_ledger() -> None:
    link = Link(
        Pairs(),
        Rayleigh(num_tx=2, num_rx=2),
        Unpair(),
        csi_rx=PilotCSI(per_block=4),
        csi_tx=FeedbackCSI(bits=4),
        frontend=SVD(),
    )
    ledger = link.transmit(unit_source(), 0.0, stream(6, "link")).ledger
    assert ledger.payload == 16
    assert ledger.pilots == 4
    # 2 reals x 4 coefficients x 4 bits at log2(1 + 1) = 1 bit per use
    assert ledger.feedback == pytest.approx(32)
    assert ledger.total == pytest.approx(52)


def test_the_transmitter_sees_the_noise_its_front_end_will_leave() -> None:
    transmitter = Recorder()
    channel = Rayleigh(num_tx=2, num_rx=2)
    link = Link(transmitter, channel, Unpair(), csi_tx=PerfectCSI(), frontend=SVD())
    sent = link.transmit(unit_source(), 10.0, stream(7, "link"))
    sigma = torch.linalg.svdvals(sent.state.h[..., 0])  # [B, 2]
    expected = 2 * 0.1 / sigma.square()
    assert torch.allclose(transmitter.seen.n0[:, 0, :2], expected, rtol=1e-4)


def test_without_csi_the_transmitter_knows_the_average_snr_only() -> None:
    transmitter = Recorder()
    Link(transmitter, Rayleigh(), Unpair()).transmit(unit_source(), 10.0, stream(8, "link"))
    assert transmitter.seen.h is None
    assert torch.allclose(transmitter.seen.n0, torch.full((4,), 0.1))


def test_no_front_end_hands_the_raw_signal_and_the_channel_to_the_receiver() -> None:
    link = Link(Pairs(), Rayleigh(num_tx=1, num_rx=3), Raw(), frontend=NoFrontEnd())
    assert link(unit_source(), 10.0, stream(9, "link")).shape == (4, 3, 32)


def test_a_receiver_may_know_nothing_but_the_snr() -> None:
    """As the other front ends advise where csi.rx is none."""
    link = Link(Pairs(), AWGN(), Unpair(), csi_rx=NoCSI(), frontend=NoFrontEnd())
    assert torch.allclose(link(unit_source(), 90.0, stream(9, "link")), unit_source(), atol=1e-3)
    with pytest.raises(ValueError, match="feedback needs a front end that separates streams"):
        check_separated("feedback", CSI(None, torch.ones(4)))


def test_wrong_symbols_are_refused_with_what_came() -> None:
    class Wrong(Pairs):
        def forward(self, source: Tensor, csi: CSI, *rest: Any) -> Tensor:
            return source

    with pytest.raises(ValueError, match=r"\[4, 1, 32\].*got \[4, 64\] torch.float32"):
        Link(Wrong(), AWGN(), Unpair())(unit_source(), 10.0, stream(1, "link"))


def test_gradients_flow_from_estimate_to_source() -> None:
    source = unit_source().requires_grad_()
    link = Link(Pairs(), Rayleigh(num_tx=2, num_rx=2), Unpair())
    link(source, 10.0, stream(1, "link")).square().sum().backward()
    assert source.grad is not None and source.grad.abs().min() > 0


def test_channels_add_nothing_to_the_state_dict() -> None:
    link = Link(Pairs(), Rayleigh(num_tx=2, num_rx=2, tx_correlation=0.5), Unpair())
    link(unit_source(), 10.0, stream(1, "link"))
    assert link.state_dict() == {}


@pytest.mark.parametrize("frontend", [SVD(water_filling=True), SVD(), RZF()])
@pytest.mark.parametrize(("batch", "coherence"), [(4, 8), (1, 32)])
def test_a_front_end_moves_power_within_an_item_and_adds_none(
    frontend: nn.Module, batch: int, coherence: int
) -> None:
    class Loud(Pairs):
        def forward(self, source: Tensor, csi: CSI, *rest: Any) -> Tensor:
            symbols = super().forward(source, csi)
            symbols[..., ::2] *= 2**0.5  # all on the strong stream
            symbols[..., 1::2] = 0
            return symbols / symbols.abs().square().mean(dim=(1, 2), keepdim=True).sqrt()

    channel = Rayleigh(num_tx=2, num_rx=2, coherence=coherence)
    for transmitter in (Pairs(), Loud()):
        link = Link(transmitter, channel, Unpair(), csi_tx=PerfectCSI(), frontend=frontend)
        sent = link.transmit(unit_source(batch), 0.0, stream(10, "link"))
        power = sent.x.abs().square().sum(dim=1).mean(dim=1)
        assert torch.allclose(power, torch.ones(batch), atol=1e-5)


def test_scaling_by_the_front_end_is_undone_at_the_receiver() -> None:
    channel = Rayleigh(num_tx=2, num_rx=2, coherence=8)
    frontend = SVD(water_filling=True)
    link = Link(Pairs(), channel, Unpair(), csi_tx=PerfectCSI(), frontend=frontend)
    assert torch.allclose(link(unit_source(), 90.0, stream(2, "link")), unit_source(), atol=1e-2)


class Teller(Pairs):
    """Send side information for which it declares some bits."""

    def __init__(self, told: Tensor, bits: float | Tensor) -> None:
        super().__init__()
        self.told, self.bits = told, bits

    def forward(self, source: Tensor, csi: CSI, *rest: Any) -> WithSideInfo:
        told = self.told.expand(len(source), -1)
        return WithSideInfo(super().forward(source, csi), told, self.bits)


class Told(Unpair):
    reads_side_info = True

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        side_info: Tensor | None = None,
    ) -> Tensor:
        return super().forward(y, csi, shape)


@pytest.mark.parametrize(
    ("told", "bits", "message"),
    [
        (
            torch.ones(1, 3, dtype=torch.bool),
            0.0,
            "Teller sends .* and declares 0 bits",
        ),
        (torch.ones(1, 3), 24.0, "3 values of torch.float32, which carry 96"),
    ],
)
def test_side_information_is_never_free(told: Tensor, bits: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Link(Teller(told, bits), AWGN(), Told())(unit_source(), 0.0, stream(1, "link"))


def test_side_information_is_charged_at_capacity() -> None:
    told = torch.ones(1, 3, dtype=torch.bool)
    sent = Link(Teller(told, 3.0), AWGN(), Told()).transmit(unit_source(), 0.0, stream(1, "link"))
    assert sent.ledger.side_info == pytest.approx(3.0)


def test_items_may_differ_in_the_bits_of_their_side_information() -> None:
    bits = torch.tensor([1.0, 2.0, 3.0, 6.0])
    told = torch.ones(1, 3, dtype=torch.bool)
    sent = Link(Teller(told, bits), AWGN(), Told()).transmit(unit_source(), 0.0, stream(1, "link"))
    assert sent.ledger.side_info == pytest.approx(3.0)


def test_side_information_that_nobody_reads_is_refused() -> None:
    teller = Teller(torch.ones(1, 3, dtype=torch.bool), 3.0)
    with pytest.raises(ValueError, match=r"which Unpair does not take.*reads_side_info = True"):
        Link(teller, AWGN(), Unpair())(unit_source(), 0.0, stream(1, "link"))


class Drawing(Pairs):
    """Draw at the sender, and at the receiver; note what was drawn."""

    uses_csi = True

    def forward(self, source: Tensor, csi: CSI, generator: Any = None) -> Tensor:
        self.drawn = torch.rand(len(source), generator=generator)
        return super().forward(source, csi)


class Noting(Unpair):
    def forward(
        self, y: Tensor, csi: CSI, shape: tuple[int, ...], generator: Any = None
    ) -> WithNotes:
        drawn = torch.rand(len(y), generator=generator)
        return WithNotes(super().forward(y, csi, shape), {"drawn": drawn})


def test_ends_draw_from_the_generator_and_change_neither_fading_nor_noise() -> None:
    drawing = Link(Drawing(), Rayleigh(), Noting())
    plain = Link(Pairs(), Rayleigh(), Unpair())
    source = unit_source()
    first, again, other = (drawing.transmit(source, 5.0, stream(n, "link")) for n in (1, 1, 2))
    assert torch.equal(first.notes["drawn"], again.notes["drawn"])
    assert not torch.equal(first.notes["drawn"], other.notes["drawn"])
    assert not torch.equal(drawing.transmitter.drawn, other.notes["drawn"])  # a stream for each end
    assert torch.equal(first.estimate, plain(source, 5.0, stream(1, "link")))


def test_a_part_begun_once_per_batch_is_handed_to_the_transmitter() -> None:
    class Halves(Recorder):
        def begin(self, source: Tensor) -> Tensor:
            return super().forward(source, None)

        def forward(self, source: Tensor, csi: CSI, *rest: Any, begun: Any = None) -> Tensor:
            self.begun = begun
            return super().forward(source, csi) if begun is None else begun

    link, source = Link(Halves(), Rayleigh(), Unpair()), unit_source()
    once = link.transmit(source, 5.0, stream(3, "link"), begun=link.begin(source))
    assert link.transmitter.begun is not None
    assert torch.equal(once.estimate, link(source, 5.0, stream(3, "link")))
    assert link.transmitter.begun is None


def test_ends_of_other_kinds_are_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"transmitter derives from .*write class Linear\(Transm"):
        Link(nn.Linear(1, 1), AWGN(), Unpair())
    with pytest.raises(TypeError, match=r"receiver derives from .*write class Linear\(Receiver\)"):
        Link(Pairs(), AWGN(), nn.Linear(1, 1))
    with pytest.raises(ValueError, match="a link needs a receiver for Pairs"):
        Link(Pairs(), AWGN())
    with pytest.raises(ValueError, match="brings both ends and takes no receiver, got Unpair"):
        NoLink(NoLinkTransmitter(), AWGN(), Unpair())
    with pytest.raises(TypeError, match=r"link of its own, got Link; write NoLink\(NoLinkTr"):
        Link(NoLinkTransmitter(), AWGN())


class Overheard(nn.Module):
    """A channel that keeps the noise it added."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.num_tx, self.num_rx = inner, inner.num_tx, inner.num_rx

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        self.state = self.inner.draw(batch, uses, generator)
        return self.state

    def forward(
        self, x: Tensor, state: ChannelState, n0: Tensor, generator: torch.Generator
    ) -> Tensor:
        y = self.inner(x, state, n0, generator)
        self.noise = y - self.inner(x, state, None, generator)
        return y


def test_all_schemes_meet_the_same_fading_and_noise_whatever_they_send_or_know() -> None:
    heard = []
    for length, rx, frontend in (
        (64, PerfectCSI(), None),
        (200, PilotCSI(), None),
        (64, PilotCSI(per_block=8), SVD()),
        (120, PerfectCSI(), SVD(water_filling=True)),
        (64, PerfectCSI(), NoFrontEnd()),
    ):
        channel = Overheard(Rayleigh(num_tx=2, num_rx=2, coherence=4))
        receiver = Raw() if isinstance(frontend, NoFrontEnd) else Unpair()
        link = Link(
            Pairs(), channel, receiver, csi_rx=rx, csi_tx=FeedbackCSI(bits=4), frontend=frontend
        )
        link.transmit(unit_source(length=length), 5.0, stream(1, "link"))
        heard.append((channel.state.h[..., :16], channel.noise[..., :16]))
    for h, noise in heard[1:]:
        assert torch.equal(h, heard[0][0])
        torch.testing.assert_close(noise, heard[0][1], rtol=1e-4, atol=1e-5)


KINDS = ["analog", "separate", "bound", "softcast", "hybrid", "no_link", "observed"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_no_link_can_send_is_told_in_a_sentence(kind: str) -> None:
    """In NumPy's arrays, and with anything but torch's generators and an SNR for each item."""
    sizes = {} if kind in ("no_link", "observed") else {"cbr": "1/6"}
    transmitter = spec.parse("transmitter", {"kind": kind, **sizes})
    values = {"transmitter": transmitter, "channel": "awgn", "metrics": ["psnr"]}
    link = Scenario(payload="photos", snr_db=[5], **values).build("cpu").link
    images = torch.rand(2, 3, 32, 32, generator=stream(1, "images"))
    with pytest.raises(
        TypeError, match=r"sends a tensor \[B, ...\], got ndarray; write torch.as_te"
    ):
        link.transmit(images.numpy(), 5.0, stream(1, "link"))
    if kind == "no_link":
        return
    for snr_db in (torch.zeros(3), "5", None):
        with pytest.raises(
            ValueError, match="snr_db is a number in dB, or one for each of 2 items"
        ):
            link.transmit(images, snr_db, stream(1, "link"))
    for generator in (7, None, np.random.default_rng(7)):
        with pytest.raises(TypeError, match=r"torch.Generator"):
            link.transmit(images, 5.0, generator)


def test_double_precision_is_refused_at_networks() -> None:
    class Learned(Pairs):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, source: Tensor, csi: CSI, *rest: Any) -> Tensor:
            return super().forward(self.layer(source), csi)

    link = Link(Learned(), AWGN(), Unpair())
    with pytest.raises(ValueError, match=r"sources of float32, got float64; write source\.float"):
        link(unit_source().double(), 0.0, stream(1, "link"))
    with pytest.raises(ValueError, match=r"has float64 weights; write \.float"):
        link.double()(unit_source(), 0.0, stream(1, "link"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_link_without_weights_takes_single_precision_too(dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    link, source = Link(Pairs(), AWGN(), Unpair()), unit_source().to(dtype)
    for send in (link.begin, lambda source: link(source, 0.0, stream(1, "link"))):
        with pytest.raises(ValueError, match=f"sources of float32, got {kind}; write source"):
            send(source)


def test_an_end_that_a_link_could_not_call_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"write forward\(self, source, csi, generator=None\)"):

        class Old(Transmitter):
            def forward(self, source: Tensor, csi: CSI) -> Tensor:
                return source


def test_ends_of_one_codec_with_other_options_are_refused() -> None:
    sent = SwinTransmitter("1/6", num_streams=4)
    Link(sent, AWGN(), SwinReceiver("1/6", num_streams=4, decoder_depths=(2,)))
    with pytest.raises(ValueError, match=r"differ: num_streams is 4 and 1; give both the same"):
        Link(sent, AWGN(), SwinReceiver("1/6"))


@pytest.mark.parametrize(
    ("kind", "module"), [(Link, "link"), (MultipleAccessLink, "links.multiple_access")]
)
def test_weights_are_looked_through_once_where_a_batch_goes_at_several_snrs(
    kind: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Tensor] = []
    monkeypatch.setattr(f"semsim.{module}.check_precision", lambda _, source: looks.append(source))
    link = kind(UncodedTransmitter(), Rayleigh(num_tx=2, num_rx=2), UncodedReceiver())
    bits = torch.randint(2, (3, 8), generator=stream(1, "bits")).float()
    begun = link.begin(bits)
    before = len(looks)
    for snr_db in (0.0, 10.0):
        link.transmit(bits, snr_db, stream(1, "link"), begun)
    assert len(looks) == before > 0
    link.transmit(bits, 0.0, stream(1, "link"))
    assert len(looks) == 2 * before


class Mute:
    """A channel that can be drawn, but not sent over."""

    num_tx = num_rx = 2
    draw = AWGN.draw


class MuteModule(nn.Module):
    """The same, as a module."""

    num_tx = num_rx = 2
    draw = AWGN.draw


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"channel": AWGN}, r"channel is an object, got a class; channel=AWGN\(...\)"),
        ({"channel": Rayleigh}, r"channel is an object, got a class; channel=Rayleigh\("),
        ({"channel": Mute()}, r"channel is an .* such as Rayleigh\(\), got .* without __call__"),
        ({"channel": MuteModule()}, r"channel is an .* such as .*, got .* without forward"),
        ({"csi_rx": PerfectCSI}, r"csi_rx is an object, got a class; csi_rx=PerfectCSI\("),
        ({"csi_rx": "perfect"}, r"csi_rx is an .* such as PerfectCSI\(\), got 'perfect' without"),
        ({"csi_tx": ZF()}, "csi_tx is an object with __call__, overhead, .* without overhead"),
        ({"frontend": SVD}, r"frontend is an object, got a class; frontend=SVD\("),
        (
            {"frontend": "svd"},
            r"frontend is an .* such as LMMSE\(\), got 'svd' without num_streams",
        ),
    ],
)
@pytest.mark.parametrize("kind", [Link, MultipleAccessLink])
def test_parts_that_are_none_are_refused_with_what_to_write(
    kind: Any, parts: dict[str, Any], message: str
) -> None:
    parts = {"channel": Rayleigh(num_tx=2, num_rx=2), **parts}
    with pytest.raises(TypeError, match=message):
        kind(UncodedTransmitter(), parts.pop("channel"), UncodedReceiver(), **parts)
