"""How many streams to send: powers, unused streams, and the closed forms behind each way."""

import math

import pytest
import torch
from torch import Tensor, nn

from channels.base import CSI, complex_normal
from semsim.phy.frontend import IRC, LMMSE, RZF, SVD, ZF, FrontEnd, NoFrontEnd
from semsim.phy.rank import behind, left_behind, of_streams, ways
from semsim.phy.theory import mimo_capacity, water_filling
from semsim.seeds import stream

BATCH = 40
CASES = [
    (front_end, tx, rx)
    for front_end in (LMMSE(), IRC(), ZF(), SVD(), SVD(True), RZF())
    for tx, rx in ((1, 1), (2, 2), (4, 2), (2, 4), (8, 8))
    if not (tx > rx and isinstance(front_end, LMMSE | ZF))
    and not (rx > tx and isinstance(front_end, RZF))
]


def belief(tx: int, rx: int, uses: int = 1, snr_db: float = 5.0) -> CSI:
    """Return channels of unit mean power and the noise of an SNR, in double precision."""
    h = complex_normal((BATCH, rx, tx, uses), stream(1, "h", tx, rx), torch.complex128)
    return CSI(h, torch.full((BATCH,), 10 ** (-snr_db / 10), dtype=torch.float64))


def noise_of(front_end: FrontEnd, csi: CSI, way: object) -> Tensor:
    """Return what is left per used stream, [B, rank, N]."""
    return of_streams(left_behind(front_end, behind(csi, way.precoder())).n0, way.streams)


@pytest.mark.parametrize("uses", [1, 3])
@pytest.mark.parametrize(("front_end", "tx", "rx"), CASES)
def test_each_way_has_power_one_and_silent_unused_streams(
    front_end: FrontEnd, tx: int, rx: int, uses: int
) -> None:
    csi = belief(tx, rx, uses)
    choices = ways(front_end, csi, tx, rx)
    assert {way.rank for way in choices} == set(range(1, front_end.num_streams(tx, rx) + 1))
    for way in choices:
        energy = way.precoder().abs().square().sum(dim=1)  # [B, S, N]
        torch.testing.assert_close(energy.sum(dim=1), torch.ones_like(energy[:, 0]))
        used = of_streams(energy, way.streams).sum(dim=1)
        torch.testing.assert_close(used, torch.ones_like(used))
        assert way.streams.sort(dim=1).values.diff(dim=1).gt(0).all()


@pytest.mark.parametrize("front_end", [LMMSE(), ZF(), IRC()])
def test_without_knowledge_the_first_antennas_are_taken(front_end: FrontEnd) -> None:
    csi = CSI(None, torch.full((3,), 0.1))
    choices = ways(front_end, csi, 4, 4)
    assert [way.streams[0].tolist() for way in choices] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_one_antenna_is_the_strongest_with_the_snr_of_maximum_ratio_combining() -> None:
    csi = belief(4, 4)
    one = ways(LMMSE(), csi, 4, 4)[0]
    energy = csi.h[..., 0].abs().square().sum(dim=1)
    left = noise_of(LMMSE(), csi, one)[:, 0, 0]
    torch.testing.assert_close(left, csi.n0 / energy.max(dim=1).values)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_modes_leave_what_their_singular_values_say(size: int) -> None:
    csi = belief(size, size)
    gains = torch.linalg.svdvals(csi.h[..., 0]).square()
    choices = ways(SVD(water_filling=True), csi, size, size)
    for way in choices[:size]:
        expected = csi.n0[:, None] * way.rank / gains[:, : way.rank]
        torch.testing.assert_close(noise_of(SVD(), csi, way)[..., 0], expected)
    for way in choices[size:]:
        snr = gains[:, : way.rank] / csi.n0[:, None]
        share = water_filling(snr)
        left, used = noise_of(SVD(), csi, way)[..., 0], share > 1e-9
        torch.testing.assert_close(left[used], (1 / (share * snr))[used], rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_all_modes_with_water_filling_reach_capacity_and_no_way_exceeds_it(size: int) -> None:
    csi = belief(size, size)
    capacity = mimo_capacity(csi.h, csi.n0, csi_tx=True)[..., 0]
    for front_end in (SVD(water_filling=True), RZF(), LMMSE()):
        rates = [
            torch.log2(1 + 1 / noise_of(front_end, csi, way)[..., 0]).sum(dim=1)
            for way in ways(front_end, csi, size, size)
        ]
        assert all(bool((rate <= capacity * (1 + 1e-6)).all()) for rate in rates)
        if isinstance(front_end, SVD):
            torch.testing.assert_close(rates[-1], capacity, rtol=1e-4, atol=1e-4)


def test_one_receive_antenna_served_alone_gets_all_of_its_channel() -> None:
    csi = belief(4, 4)
    one = ways(RZF(), csi, 4, 4)[0]
    best = csi.h[..., 0].abs().square().sum(dim=2).max(dim=1).values
    torch.testing.assert_close(noise_of(RZF(), csi, one)[:, 0, 0], csi.n0 / best)


def test_a_front_end_of_ones_own_has_one_way() -> None:
    class Mine(NoFrontEnd):
        pass

    (way,) = ways(Mine(), belief(2, 2), 2, 2)
    assert way.rank == 2
    assert math.isclose(float(way.precoder()[0].abs().square().sum()), 1, rel_tol=1e-6)
    assert isinstance(Mine(), nn.Module)
