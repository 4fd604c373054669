"""Rate matching of 5G LDPC: a circular buffer that is read from, and soft bits that return to it.

    bits ─► mother code ─► buffer of size N ─► n bits from start(rv) on, round and round ─► interleaver

A first transmission reads from version 0. Hybrid ARQ reads the same place again (chase combining)
or goes on elsewhere (incremental redundancy); where n exceeds N, bits are repeated. The receiver
adds up the LLRs of each place. Sionna's encoder refuses rates below 1/5, so longer buffers are put
together from its redundancy versions.

Source: 3GPP TS 38.212, sections 5.3.2 and 5.4.2.
"""  # noqa: E501 - the diagram

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from channels.sionna_bridge import sionna_phy

Graph = Literal["bg1", "bg2"]
VERSIONS = (0, 2, 3, 1)  #: redundancy versions in the order in which 5G sends them
DECODER_ITERATIONS = 20
_MOST_PER_BIT: dict[Graph, int] = {"bg1": 3, "bg2": 5}  # coded bits that Sionna gives per bit


def base_graph(info: int, rate: float) -> Graph:
    """Return the base graph for k information bits at the rate of the first transmission.

    Source: 3GPP TS 38.212, section 6.2.2.
    """
    if info <= 292 or (info <= 3824 and rate <= 0.67) or rate <= 0.25:
        return "bg2"
    return "bg1"


def read_places(info: int, graph: Graph, version: int, coded: int) -> Tensor:
    """Return which places of the buffer a transmission of n bits reads, [n].

    Args:
        info: k.
        graph: base graph.
        version: redundancy version, 0 to 3.
        coded: n.
    """
    size, starts = _layout(info, graph)
    return (starts[version] + torch.arange(coded, device="cpu")) % size


def interleave(bits: Tensor, bits_per_symbol: int) -> Tensor:
    """Spread [..., n] so that a symbol's m bits lie n / m apart in the buffer."""
    return bits.unflatten(-1, (bits_per_symbol, -1)).transpose(-1, -2).flatten(-2)


def deinterleave(values: Tensor, bits_per_symbol: int) -> Tensor:
    """Undo :func:`interleave`."""
    return values.unflatten(-1, (-1, bits_per_symbol)).transpose(-1, -2).flatten(-2)


class Buffer:
    """The first ``extent`` places of one code's circular buffer.

    Args:
        info: k.
        graph: base graph.
        extent: places in use; what lies beyond is never sent, and left out of the decoding.
        device: key of a torch device.
    """

    def __init__(self, info: int, graph: Graph, extent: int, device: str) -> None:
        ldpc = sionna_phy().fec.ldpc
        coded = min(extent, _MOST_PER_BIT[graph] * info)
        self._whole = coded < extent
        with torch.inference_mode(False):
            self._encoder = ldpc.LDPC5GEncoder(info, coded, bg=graph, device=device)
            self._decoder = ldpc.LDPC5GDecoder(
                self._encoder,
                cn_update="boxplus",  # the exact rule is also the fastest here
                num_iter=DECODER_ITERATIONS,
                harq_mode=self._whole,
                device=device,
            )
        if self._whole:
            self._pieces = _pieces(info, graph, coded).to(self._encoder.device)[:extent]

    def write(self, bits: Tensor) -> Tensor:
        """Encode [B, k] to the places [B, extent]."""
        if not self._whole:
            return self._encoder(bits)
        return self._encoder(bits, rv=list(range(4))).flatten(1)[:, self._pieces]

    def decode(self, llr: Tensor) -> Tensor:
        """Return the bits [B, k] behind the soft places [B, extent]; 0 where nothing came."""
        if not self._whole:
            return self._decoder(llr)
        spread = llr.new_zeros(len(llr), 4 * self._encoder.n)
        spread[:, self._pieces] = llr
        return self._decoder(spread.view(len(llr), 4, -1), rv=list(range(4)))


@cache
def code_buffer(info: int, graph: Graph, extent: int, device: str) -> Buffer:
    """Return the buffer, made once."""
    return Buffer(info, graph, extent, device)


@cache
def _layout(info: int, graph: Graph) -> tuple[int, list[int]]:
    """Return the size of the circular buffer and where each redundancy version starts."""
    coded = _MOST_PER_BIT[graph] * info
    with torch.inference_mode(False):
        encoder = sionna_phy().fec.ldpc.LDPC5GEncoder(info, coded, bg=graph, device="cpu")
    return encoder.n_cb_comp, encoder.get_start_positions_comp(list(range(4)))


def _pieces(info: int, graph: Graph, coded: int) -> Tensor:
    """Return, for each place of the buffer, where it lies among all versions of n bits, [N]."""
    size, _ = _layout(info, graph)
    found = torch.full((size,), -1)
    for version in reversed(range(4)):
        places = read_places(info, graph, version, coded)
        found[places] = version * coded + torch.arange(coded)
    if int(found.min()) < 0:
        raise ValueError(f"a code of {info} bits has places that no version of {coded} bits reads")
    return found
