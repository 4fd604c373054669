"""Streams do not collide, and a use draws the same whatever comes after it."""

from __future__ import annotations

import hashlib

import pytest
import torch

from channels.streams import fork, forks, gains_by_use, normal_by_use, seeded, uniform_by_use
from semsim.seeds import stream


def digest(*labels: object) -> bytes:
    return hashlib.sha256(repr(labels).encode()).digest()


def test_seeds_that_share_32_bits_do_not_share_a_stream() -> None:
    same, other = (bytes(4) + b"\x80" + bytes([n]) + bytes(26) for n in (1, 2))
    draws = [torch.rand(8, generator=seeded(d)) for d in (same, other)]
    assert not torch.equal(*draws)
    clash = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1 + 2**32)
    assert torch.equal(*(torch.rand(8, generator=g) for g in clash))  # what this is about


def test_no_two_of_many_streams_begin_alike() -> None:
    firsts = {
        tuple(torch.randint(2**62, (2,), generator=stream(7, "link", i)).tolist())
        for i in range(20_000)
    }
    assert len(firsts) == 20_000


def test_a_seeded_stream_is_uniform() -> None:
    draw = torch.cat([torch.rand(10, generator=stream(1, "begin", i)) for i in range(2000)])
    counts = torch.histc(draw, 50, 0, 1)
    chi2 = float(((counts - 400).square() / 400).sum())
    assert abs(chi2 - 49) < 5 * (2 * 49) ** 0.5


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (64, 1)])
def test_a_use_draws_the_same_whatever_comes_after_it(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    whole = normal_by_use(shape, 300, stream(1), dtype)
    gains = gains_by_use(shape, 300, stream(2))
    share = uniform_by_use(shape, 300, stream(3))
    for uses in (1, 31, 32, 33, 257):
        assert torch.equal(normal_by_use(shape, uses, stream(1), dtype), whole[..., :uses])
        assert torch.equal(gains_by_use(shape, uses, stream(2)), gains[..., :uses])
        assert torch.equal(uniform_by_use(shape, uses, stream(3)), share[..., :uses])


def test_a_fork_leaves_its_generator_alone_and_forks_advance_it() -> None:
    generator = stream(1)
    before = generator.get_state()
    first = torch.rand(4, generator=fork(generator, "a"))
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.rand(4, generator=fork(generator, "a")), first)
    assert not torch.equal(torch.rand(4, generator=fork(generator, "b")), first)
    draws = [
        torch.rand(4, generator=g) for _ in range(2) for g in forks(generator, "a", "b", "c", "d")
    ]
    assert len({tuple(d.tolist()) for d in draws}) == 8
