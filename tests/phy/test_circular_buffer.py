"""Rate matching by the circular buffer, against Sionna's where that goes, and by its own facts."""

from __future__ import annotations

import pytest
import torch

from channels.sionna_bridge import sionna_phy
from semsim.phy.circular_buffer import (
    VERSIONS,
    base_graph,
    code_buffer,
    deinterleave,
    interleave,
    read_places,
)
from semsim.phy.ldpc import SoftBlocks, ldpc_modulate, segment
from semsim.phy.mcs import mcs_by_index
from semsim.phy.qam import qam_llr
from semsim.seeds import stream

CODES = [(116, 512, 2), (500, 1000, 4), (1998, 3072, 6), (3996, 6144, 6), (900, 1000, 8)]


@pytest.mark.parametrize(("info", "coded", "bits"), CODES)
@pytest.mark.parametrize("version", VERSIONS)
def test_it_reads_what_sionna_sends(info: int, coded: int, bits: int, version: int) -> None:
    graph = base_graph(info, info / coded)
    u = torch.randint(2, (2, info), generator=stream(1, "u", info)).float()
    encoder = sionna_phy().fec.ldpc.LDPC5GEncoder(info, coded, num_bits_per_symbol=bits)
    places = read_places(info, graph, version, coded)
    buffer = code_buffer(info, graph, int(places.max()) + 1, "cpu")
    sent = interleave(buffer.write(u)[:, places], bits)
    assert torch.equal(sent, encoder(u, rv=[version])[:, 0])


def test_the_interleaver_is_undone() -> None:
    values = torch.arange(24.0).view(2, 12)
    assert interleave(values, 3)[0, :3].tolist() == [0, 4, 8]
    assert torch.equal(deinterleave(interleave(values, 3), 3), values)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("num_symbols", [128, 300, 1536])
def test_below_rate_one_fifth_bits_are_repeated(index: int, num_symbols: int) -> None:
    plan = segment(num_symbols, mcs_by_index(index))
    places = read_places(plan.info, plan.graph, 0, plan.coded)
    size = int(places.max()) + 1
    assert plan.graph == "bg2"
    if plan.coded > 5 * plan.info * 1.5:
        assert torch.equal(places[size:], torch.arange(plan.coded - size))
    payload = torch.randint(2, (2, plan.payload), generator=stream(2, index)).float()
    soft = SoftBlocks(plan)
    x = ldpc_modulate(payload, plan)
    soft.add(qam_llr(x, torch.full(x.shape, 0.01), plan.mcs.bits_per_symbol))
    decoded, good = soft.decode()
    assert bool(good.all())
    assert torch.equal(decoded, payload)


def test_sending_twice_is_sending_once_with_half_the_noise() -> None:
    plan = segment(300, mcs_by_index(3))
    payload = torch.randint(2, (4, plan.payload), generator=stream(3, "twice")).float()
    x = ldpc_modulate(payload, plan)
    n0, twice, once = torch.full(x.shape, 2.5), SoftBlocks(plan), SoftBlocks(plan)
    y = [
        x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=stream(3, i)) for i in (0, 1)
    ]
    for received in y:
        twice.add(qam_llr(received, n0, plan.mcs.bits_per_symbol))
    once.add(qam_llr((y[0] + y[1]) / 2, n0 / 2, plan.mcs.bits_per_symbol))
    torch.testing.assert_close(twice.llr, once.llr, rtol=1e-3, atol=1e-3)  # exact for QPSK


def test_further_versions_fill_the_buffer_and_decode_what_one_cannot() -> None:
    plan = segment(600, mcs_by_index(9))
    payload = torch.randint(2, (8, plan.payload), generator=stream(4, "more")).float()
    soft = SoftBlocks(plan)
    noise = stream(4, "noise")
    right = []
    for version in VERSIONS:
        x = ldpc_modulate(payload, plan, version)
        n0 = torch.full(x.shape, 0.4)  # 4 dB; row 9 needs about 8
        y = x + n0.sqrt() * torch.randn(x.shape, dtype=x.dtype, generator=noise)
        soft.add(qam_llr(y, n0, plan.mcs.bits_per_symbol), version)
        right.append(int((soft.decode()[0] == payload).all(dim=1).sum()))
    assert right[0] == 0
    assert right[-1] == 8
