"""5G LDPC: segmentation, decoding, and the measured block error rates."""

from __future__ import annotations

import math

import pytest
import torch

from channels.units import snr_db_to_n0
from semsim.phy.bler import (
    Count,
    belief_loss_db,
    block_error_rate,
    fit_waterfall,
    measured_mcs,
    read_counts,
    waterfall,
)
from semsim.phy.circular_buffer import base_graph
from semsim.phy.ldpc import (
    MAX_CODED_BITS,
    Segmentation,
    ldpc_demodulate,
    ldpc_modulate,
    segment,
)
from semsim.phy.mcs import MCS_TABLE, mcs_by_index
from semsim.phy.qam import (
    llr_information,
    qam_information,
    qam_points,
    qam_signed_llr,
    qam_snr_db,
)
from semsim.seeds import stream


def send(plan: Segmentation, snr_db: float, generator: torch.Generator) -> torch.Tensor:
    """Send random blocks over AWGN; return which arrive right, and check that the CRC knows."""
    payload = torch.randint(2, (plan.blocks, plan.info - plan.crc), generator=generator).float()
    x = ldpc_modulate(payload, plan)
    n0 = torch.full(x.shape, snr_db_to_n0(snr_db))
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    decoded, good = ldpc_demodulate(x + n0.sqrt() * noise, n0, plan)
    right = (decoded == payload).all(dim=1)
    assert bool((right == good).all())  # a CRC of 16 bits misses one wrong block in 65536
    return right


@pytest.mark.parametrize("index", sorted(MCS_TABLE))
@pytest.mark.parametrize("num_symbols", [256, 512, 1111, 73728])
def test_blocks_use_the_symbols_and_keep_the_limits(num_symbols: int, index: int) -> None:
    mcs = mcs_by_index(index)
    plan = segment(num_symbols, mcs)
    used = plan.blocks * plan.symbols_per_block
    assert num_symbols - plan.blocks < used <= num_symbols
    assert plan.coded <= MAX_CODED_BITS
    assert plan.info <= mcs.rate * plan.coded < plan.info + 1
    assert plan.payload == plan.blocks * (plan.info - plan.crc)


def test_too_few_symbols_make_no_block() -> None:
    assert segment(5, mcs_by_index(2)).payload == 0


@pytest.mark.parametrize("index", [0, 2, 7, 13, 27])
@pytest.mark.parametrize("num_symbols", [256, 1500])
def test_blocks_arrive_where_there_is_hardly_any_noise(num_symbols: int, index: int) -> None:
    assert bool(send(segment(num_symbols, mcs_by_index(index)), 40.0, stream(1, index)).all())


def test_no_block_arrives_below_capacity() -> None:
    plan = segment(1500, mcs_by_index(11))
    snr = torch.arange(-10.0, 30.0, 0.1)
    limit = float(snr[qam_information(snr, 6) > plan.mcs.efficiency][0])
    assert not bool(send(plan, limit - 1, stream(1, "below")).any())


@pytest.mark.parametrize("index", [3, 9])
@pytest.mark.parametrize("coded_bits", [1024, 1536])
def test_decoding_errs_as_often_as_the_curves_say(index: int, coded_bits: int) -> None:
    mcs = mcs_by_index(index)
    coded = coded_bits // mcs.bits_per_symbol * mcs.bits_per_symbol
    plan = Segmentation(mcs, 64, coded, math.floor(coded * mcs.rate), 24)
    snr_db = waterfall(index, coded)[0]
    lost = 64 - int(send(plan, snr_db, stream(2, "curve", index, coded_bits)).sum())
    # the curve has an uncertainty of its own, as from 100 blocks at this point, and 0.05 dB
    spread = math.sqrt(64 * 0.25 * (1 + 64 / 100)) + 64 * 0.1
    assert abs(lost - 32) < 4 * spread
    assert float(block_error_rate(torch.tensor(snr_db), index, coded)) == pytest.approx(0.5)


def test_the_waterfalls_lie_above_capacity_and_rise_with_the_rate() -> None:
    rows = measured_mcs()
    assert rows == tuple(sorted(MCS_TABLE))
    grid = torch.arange(-10.0, 35.0, 0.01)
    for index in rows:
        mcs = mcs_by_index(index)
        limit = float(grid[qam_information(grid, mcs.bits_per_symbol) > mcs.efficiency][0])
        for coded, most in ((6144, 1.5), (1024, 2.5)):
            middle, width = waterfall(index, coded)
            assert 0.2 < middle - limit < most
            assert 0.05 < width < 1.0
    middles = [waterfall(index, 6144)[0] for index in rows]
    assert middles == sorted(middles)


def test_the_fit_finds_the_curve_behind_counts() -> None:
    middle, width, blocks = 3.0, 0.25, 4000
    generator = stream(4, "fit")
    points = []
    for snr_db in (2.5, 2.75, 3.0, 3.25, 3.5):
        rate = 0.5 * math.erfc((snr_db - middle) / (width * math.sqrt(2)))
        errors = int((torch.rand(blocks, generator=generator) < rate).sum())
        points.append(Count(3, 6144, snr_db, blocks, errors))
    found = fit_waterfall(points)
    # five points of 4000 blocks fix middle and width to about 0.004 dB
    assert found == pytest.approx((middle, width), abs=0.02)
    assert fit_waterfall(points[:1]) is None


def test_each_curve_passes_through_its_counts() -> None:
    counts = [count for count in read_counts() if count.mcs in measured_mcs()]
    far = 0
    for count in counts:
        if count.belief != 1:
            continue
        p = float(block_error_rate(torch.tensor(count.snr_db), count.mcs, count.coded_bits))
        p = min(max(p, 1e-3), 1 - 1e-3)
        z = (count.errors - count.blocks * p) / math.sqrt(count.blocks * p * (1 - p))
        far += abs(z) > 5
    assert far <= 0.02 * len(counts)  # a Q curve is a model, not the truth


def test_a_row_without_a_curve_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="measure_bler"):
        waterfall(99, 6144)


@pytest.mark.parametrize(("index", "coded"), [(15, 3072), (10, 3072), (20, 3072)])
def test_curves_do_not_mix_base_graphs(index: int, coded: int) -> None:
    """Row 15 has base graph 1 at 6144 bits and 2 below 5883; a line between them is 0.1 dB off."""
    measured = [c for c in read_counts() if (c.mcs, c.coded_bits, c.belief) == (index, coded, 1)]
    own = fit_waterfall(measured)
    assert own is not None
    assert waterfall(index, coded) == pytest.approx(own)
    graphs = {base_graph(math.floor(n * mcs_by_index(index).rate), 0.65) for n in (coded, 6144)}
    assert len(graphs) == 2


@pytest.mark.parametrize("index", [3, 5, 7, 10, 12, 14, 15, 17, 20, 23])
def test_a_length_that_was_not_measured_is_found_by_its_neighbours(index: int) -> None:
    """Without its own counts the curve of 3072 bits lies where they say, within one base graph."""
    counts = [c for c in read_counts() if c.mcs == index and c.belief == 1]
    graph = base_graph(math.floor(3072 * mcs_by_index(index).rate), mcs_by_index(index).rate)
    middles = {}
    for length in {c.coded_bits for c in counts}:
        own = fit_waterfall([c for c in counts if c.coded_bits == length])
        info = math.floor(length * mcs_by_index(index).rate)
        if own is not None and base_graph(info, mcs_by_index(index).rate) == graph:
            middles[length] = own[0]
    above = min(length for length in middles if length > 3072)
    share = (3072**-0.5 - above**-0.5) / (1536**-0.5 - above**-0.5)
    line = middles[above] + share * (middles[1536] - middles[above])
    # 0.05 dB, and 0.015 dB of chance in each of three middles (width 0.25 dB, 400 blocks)
    assert abs(middles[3072] - line) < 0.05 + 2 * 0.015 * math.sqrt(2)


@pytest.mark.parametrize("index", [3, 9, 15, 22])
@pytest.mark.parametrize("off_db", [-0.3, 0.0, 0.3])
def test_counting_the_noise_that_came_changes_no_mean(index: int, off_db: float) -> None:
    bits, blocks, symbols = mcs_by_index(index).bits_per_symbol, 400, 256
    snr_db = waterfall(index, symbols * bits)[0] + off_db
    generator, points = stream(6, "realised", index), qam_points(bits)
    x = points[torch.randint(len(points), (blocks, symbols), generator=generator)]
    n0 = torch.full(x.shape, snr_db_to_n0(snr_db))
    y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    carried = bits * llr_information(qam_signed_llr(y, n0, x, bits))
    realised = block_error_rate(qam_snr_db(carried, bits), index, symbols * bits, realised=True)
    expected = float(block_error_rate(torch.tensor(snr_db), index, symbols * bits))
    # 0.02: the width that is left is at least 0.3 of the whole
    assert abs(float(realised.mean()) - expected) < 4 * float(realised.std()) / blocks**0.5 + 0.02


def test_a_wrong_idea_of_the_noise_costs_what_was_measured() -> None:
    beliefs = torch.tensor([0.125, 0.25, 0.5, 1.0, 2.0, 4.0])
    for rate in (0.3, 0.5, 0.75):
        losses = belief_loss_db(beliefs, rate)
        assert float(losses[3]) == 0
        assert bool((losses[:3].diff() < 0).all())
        assert bool((losses[3:].diff() > 0).all())
        # LLRs that are too timid carry less, and that is nearly all that they lose
        assert float(belief_loss_db(beliefs, rate, beyond_llr=True)[4].abs()) < 0.3
