"""DMRS: where the pilots stand, what they cost, and errors that are what they claim to be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from channels.base import CSI, Channel, ChannelState, complex_normal
from channels.cascade import Cascade
from channels.csi import FeedbackCSI, Overhead, PilotCSI
from channels.dmrs import DmrsCSI
from channels.dmrs_grid import windows
from channels.erasure import Erasure
from channels.fading import Rayleigh
from channels.impairments import CarrierOffset, Clipping, PhaseNoise
from channels.interference import Interference
from channels.ofdm import CDL, TDL, GridChannel, UMi
from channels.waveform import Waveform
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.link import Link
from semsim.phy.frontend import LMMSE
from semsim.seeds import stream

SLOT = 48 * 14


def errors(source: DmrsCSI, channel: GridChannel, batch: int, uses: int, n0: float) -> Tensor:
    """Return how far |h - h_hat|^2, mean over antennas, is from what is claimed, in z per use."""
    generator = stream(1, "dmrs")
    state, noise = channel.draw(batch, uses, generator), torch.full((batch,), n0)
    believed = source(state, noise, generator)
    assert believed.n0.shape == (batch, 1, uses)
    claimed = believed.n0[:, 0] - n0
    found = (believed.h - state.h).abs().square().mean(dim=(1, 2))
    gap = (found - claimed).double()
    assert abs(z(gap.mean(dim=1))) < 5
    return gap.mean(dim=0) / (gap.std(dim=0) / math.sqrt(batch))


def z(values: Tensor) -> float:
    return float(values.mean() / (values.std() / math.sqrt(len(values))))


@pytest.mark.parametrize("interpolation", ["lmmse", "linear"])
@pytest.mark.parametrize("speed_mps", [0.0, 30.0, 120.0])
@pytest.mark.parametrize("delay_spread_s", [3e-8, 3e-7, 1e-6])
def test_the_error_is_what_is_claimed(
    delay_spread_s: float, speed_mps: float, interpolation: str
) -> None:
    source = DmrsCSI(1, 2, interpolation=interpolation)
    for snr_db in (0, 25):
        channel = TDL("A", delay_spread_s, speed_mps=speed_mps)
        scores = errors(source, channel, 400, SLOT + 300, 10 ** (-snr_db / 10))
        assert scores.abs().max() < 6  # of 972 uses


@pytest.mark.parametrize("dmrs_type", [1, 2])
@pytest.mark.parametrize("num_tx", [1, 2, 3, 4, 5, 8])
def test_antennas_share_the_pilots_and_err_as_claimed(dmrs_type: int, num_tx: int) -> None:
    channel = TDL("C", 1e-7, speed_mps=10.0, num_tx=num_tx, subcarriers=24)
    for interpolation in ("lmmse", "linear"):
        source = DmrsCSI(dmrs_type, 2, interpolation=interpolation)
        assert errors(source, channel, 300, 24 * 14 + 50, 0.03).abs().max() < 6


@pytest.mark.parametrize(
    "channel",
    [
        TDL("D", 3e-7, speed_mps=30.0, num_rx=2),
        TDL("A", 3e-7, subcarriers=76, speed_mps=30.0),
        CDL("C", 3e-7, speed_mps=30.0, num_tx=2),
        Interference(10.0, channel=TDL("A", 1e-7)),
        Waveform([TDL("A", 1e-7, speed_mps=3.0)]),
    ],
    ids=["sight", "wide", "clusters", "interferer", "in time"],
)
def test_the_error_is_what_is_claimed_elsewhere_too(channel: GridChannel) -> None:
    generator, uses = stream(1, "dmrs"), 600
    state, n0 = channel.draw(300, uses, generator), torch.full((300,), 0.02)
    believed = DmrsCSI()(state, n0, generator)
    claimed = (believed.n0 - n0[:, None, None] - state.interference)[:, 0]
    found = (believed.h - state.h).abs().square().mean(dim=(1, 2))
    assert abs(z((found - claimed).mean(dim=1).double())) < 5


def test_over_many_drops_the_urban_models_err_nearly_as_claimed() -> None:
    generator = stream(1, "dmrs")
    state, n0 = UMi(3.0).draw(300, SLOT, generator), torch.full((300,), 0.01)
    believed = DmrsCSI(1, 2)(state, n0, generator)
    found = (believed.h - state.h).abs().square().mean()
    assert float(found / (believed.n0 - 0.01).mean()) == pytest.approx(1, abs=0.15)


def test_at_rest_and_flat_the_estimate_is_that_of_so_many_pilots() -> None:
    # one gain, measured 24 times per slot: its error is that of the LMMSE from one pilot of 24 / n0
    state = TDL("A", 1e-12).draw(2, SLOT, stream(1, "flat"))
    for n0 in (1.0, 0.01):
        believed = DmrsCSI()(state, torch.full((2,), n0), stream(1, "noise"))
        expected = n0 + (n0 / 24) / (1 + n0 / 24)
        torch.testing.assert_close(
            believed.n0, torch.full((2, 1, SLOT), expected), rtol=1e-4, atol=0
        )


def test_the_error_of_few_pilots_is_that_of_the_closed_form() -> None:
    """One slot of 2 subcarriers, pilot in one: error 1 - |r|^2 / (1 + n0) at each element."""
    channel = TDL("A", 1e-6, speed_mps=60.0, subcarriers=2, subcarrier_spacing_hz=60e3)
    state, n0 = channel.draw(3, 28, stream(1, "few")), torch.tensor([1.0, 0.1, 1e-3])
    believed = DmrsCSI()(state, n0, stream(1, "noise"))
    r = state.grid.correlation(torch.arange(2), torch.arange(14) - 2).T.abs().square().flatten()
    expected = n0[:, None] + 1 - r / (1 + n0[:, None])
    torch.testing.assert_close(believed.n0[:, 0], expected.float(), rtol=1e-4, atol=1e-6)


def test_lmmse_errs_less_than_lines_and_less_with_more_symbols() -> None:
    channel = TDL("A", 3e-7, speed_mps=30.0)
    state, n0 = channel.draw(2, 5 * SLOT, stream(1, "order")), torch.full((2,), 0.05)

    def claim(symbols: int, interpolation: str) -> float:
        source = DmrsCSI(1, symbols, interpolation=interpolation)
        return float(source(state, n0, stream(1, "noise")).n0.mean())

    for symbols in (1, 2, 3, 4):
        assert claim(symbols, "lmmse") < claim(symbols, "linear")
    for interpolation in ("lmmse", "linear"):
        one, two, three = (claim(symbols, interpolation) for symbols in (1, 2, 3))
        assert one > two > three


@pytest.mark.parametrize(
    ("dmrs_type", "symbols", "num_tx", "per_slot"),
    [
        *[(1, 1, 1, 24), (1, 4, 1, 96), (1, 1, 2, 24), (1, 1, 4, 48), (1, 1, 8, 96)],
        *[(1, 2, 8, 192), (2, 1, 1, 16), (2, 1, 2, 16), (2, 2, 4, 64), (2, 1, 6, 48)],
        (2, 1, 12, 96),
    ],
)
def test_the_ledger_charges_each_pilot_once(
    dmrs_type: int, symbols: int, num_tx: int, per_slot: int
) -> None:
    channel, source = TDL(num_tx=num_tx), DmrsCSI(dmrs_type, symbols)
    state = channel.draw(1, 5 * SLOT, stream(1, "cost"))
    assert source.overhead(state, 5 * SLOT, num_tx) == Overhead(pilot_uses=5.0 * per_slot)
    if (dmrs_type, num_tx) == (1, 1):
        assert per_slot / SLOT == pytest.approx(0.0357 * symbols, rel=2e-3)


def test_a_link_pays_for_its_pilots_and_sends_over_what_they_show() -> None:
    ends = AnalogTransmitter("1/6"), AnalogReceiver("1/6")
    link = Link(ends[0], TDL(speed_mps=3.0), ends[1], csi_rx=DmrsCSI(1, 1))
    sent = link.transmit(torch.rand(2, 3, 48, 48), 10.0, stream(1, "link"))
    assert SLOT < sent.ledger.payload == sent.x.shape[-1] < 2 * SLOT  # a slot, and a cut one
    assert sent.ledger.pilots == 48
    noise = (sent.received - sent.symbols).abs().square().median()  # a mean is ruled by fades
    assert 0.05 < float(noise) < 2


@pytest.mark.parametrize("antennas", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_the_noise_left_behind_a_front_end_is_what_it_says(
    antennas: tuple[int, int], dtype: torch.dtype
) -> None:
    num_tx, num_rx = antennas
    channel = TDL("A", 3e-7, speed_mps=30.0, num_tx=num_tx, num_rx=num_rx)
    generator, items, uses = stream(1, "honest"), 300, 960
    with torch.inference_mode():  # what is kept from here still trains
        DmrsCSI(1, 2)(channel.draw(2, uses, generator), torch.ones(2), generator)
    state, n0 = channel.draw(items, uses, generator), torch.full((items,), 0.05)
    streams = complex_normal((items, num_tx, uses), generator, dtype).requires_grad_()
    y = channel(streams / num_tx**0.5, state, n0.to(streams.real.dtype), generator)
    believed = DmrsCSI(1, 2)(state, n0, generator)
    through = CSI(believed.h / num_tx**0.5, believed.n0)
    got, after = LMMSE().combine(y, through)
    ratio = ((got - streams).abs().square() / after.n0).mean(dim=(1, 2))
    assert abs(z(ratio.detach().double() - 1)) < 5
    ratio.mean().backward()
    assert streams.grad is not None
    assert streams.grad.isfinite().all()


@pytest.mark.parametrize("uses", [1, 2, 47, 48, 49, 3 * 48 + 5, SLOT, SLOT + 1, 3 * SLOT + 100])
@pytest.mark.parametrize("subcarriers", [1, 7, 48, 60, 76, 150])
@pytest.mark.parametrize("num_tx", [1, 3, 8])
def test_every_use_is_estimated_once(subcarriers: int, uses: int, num_tx: int) -> None:
    found = windows(subcarriers, uses, num_tx, 1, 2)
    estimated = torch.cat([window.uses.flatten() for window in found]).sort().values
    assert torch.equal(estimated, torch.arange(uses))
    for window in found:
        assert window.pilots.max() < uses
        power = window.layout.codes.abs().square().sum(dim=0)
        torch.testing.assert_close(power, torch.ones_like(power))


def test_odd_items_are_estimated_without_a_fuss() -> None:
    for subcarriers, uses, num_tx in ((1, 1, 1), (1, 30, 2), (7, 3, 3), (60, 700, 8), (5, 72, 4)):
        channel = TDL(speed_mps=10.0, subcarriers=subcarriers, num_tx=num_tx)
        state, n0 = channel.draw(2, uses, stream(1, "odd")), torch.tensor([0.0, 0.1])
        for interpolation in ("lmmse", "linear"):
            believed = DmrsCSI(1, 2, interpolation=interpolation)(state, n0, stream(1, "n"))
            assert believed.h.isfinite().all()
            assert (believed.n0 >= n0[:, None, None]).all()


def test_a_report_of_an_estimate_covers_a_slot_and_the_subcarriers_that_are_alike() -> None:
    channel, generator = TDL("A", 3e-7, speed_mps=30.0, num_tx=2, num_rx=2), stream(1, "told")
    state, n0 = channel.draw(2, 3 * SLOT, generator), torch.full((2,), 0.01)
    receiver = DmrsCSI()
    link = Link(AnalogTransmitter("1/6"), channel, AnalogReceiver("1/6"), csi_rx=receiver)
    assert link.num_streams == 2
    told = FeedbackCSI(6)
    believed = told(state, n0, generator, receiver(state, n0, generator))
    assert believed.n0.shape == (2,)
    blocks = 3 * (48 // state.grid.flat_subcarriers)
    assert told.overhead(state, 3 * SLOT, 2).feedback_bits == 6 * 8 * blocks
    assert (believed.h - state.h).abs().square().mean() < 0.3


def test_where_there_is_no_grid_another_source_is_named() -> None:
    n0 = torch.ones(1)
    state = Rayleigh().draw(1, 96, stream(1, "none"))
    with pytest.raises(ValueError, match="this channel has none; use csi pilots"):
        DmrsCSI()(state, n0, stream(1, "pilots"))
    for channel in (TDL(), Interference(3.0, channel=UMi())):
        state = channel.draw(1, 96, stream(1, "grid"))
        with pytest.raises(ValueError, match="use csi dmrs, whose pilots stand on the grid"):
            PilotCSI()(state, n0, stream(1, "pilots"))
        with pytest.raises(ValueError, match="use csi dmrs"):
            PilotCSI().overhead(state, 96, 1)


@pytest.mark.parametrize(
    "channel",
    [
        Erasure(0.1, channel=TDL()),
        Cascade([TDL(), Rayleigh()]),
        Waveform([PhaseNoise(linewidth_hz=100.0), TDL()]),
        Waveform([CarrierOffset(offset_hz=300.0), TDL()]),
        Waveform([TDL(), TDL("B")]),
    ],
    ids=["lost packets", "fading", "phase noise", "offset", "two channels"],
)
def test_gains_that_the_grid_does_not_know_of_are_not_claimed_to_be_estimated(
    channel: Channel,
) -> None:
    """The error that LMMSE claims would be a part of the true one. No source names the other."""
    state, n0 = channel.draw(1, 96, stream(1, "changed")), torch.ones(1)
    with pytest.raises(ValueError, match=r"another stage changes its gains .* use csi perfect"):
        DmrsCSI()(state, n0, stream(1, "pilots"))
    with pytest.raises(ValueError, match="use csi perfect, for another stage changes its gains"):
        PilotCSI()(state, n0, stream(1, "pilots"))


@pytest.mark.parametrize(
    "stages",
    [[PhaseNoise(linewidth_hz=100.0, tracked=False)], [Clipping(3.0)]],
    ids=["untracked", "clipped"],
)
def test_hardware_that_the_receiver_does_not_see_leaves_the_pilots(stages: list[Channel]) -> None:
    state = Waveform([*stages, TDL()]).draw(1, 96, stream(1, "hidden"))
    assert DmrsCSI()(state, torch.ones(1), stream(1, "pilots")).h.shape == state.h.shape


@pytest.mark.parametrize(
    ("arguments", "num_tx", "says"),
    [
        ({"dmrs_type": 3}, 1, "dmrs_type is 1 or 2, got 3"),
        ({"dmrs_symbols": 5}, 1, "dmrs_symbols is 1 to 4 per slot, got 5"),
        ({"dmrs_symbols": 0}, 1, "dmrs_symbols is a whole number of 1 or more"),
        ({"interpolation": "spline"}, 1, "interpolation is one of lmmse, linear"),
        ({}, 9, "dmrs_type 1 tells 8 transmit antennas apart, got 9"),
        ({"dmrs_symbols": 3}, 8, "dmrs_symbols is 1 or 2 where 8 transmit antennas double each"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, int], num_tx: int, says: str) -> None:
    state = TDL(num_tx=num_tx).draw(1, 48, stream(1, "wrong"))
    with pytest.raises(ValueError, match=says):
        DmrsCSI(**arguments)(state, torch.ones(1), stream(1, "pilots"))


def test_the_generator_alone_decides() -> None:
    state = TDL().draw(2, 96, stream(1, "h"))
    source = DmrsCSI()
    first, again, other = (source(state, torch.ones(2), stream(2, w)).h for w in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert source.state_dict() == {}
    assert isinstance(source(state, torch.ones(2), stream(1, "a")), CSI)
    assert isinstance(state, ChannelState)
