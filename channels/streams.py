"""Random numbers: generators seeded in full width, forks by name, draws in order of channel uses.

Two things decide whether schemes meet the same channel. What is drawn for one purpose must not
shift what is drawn for another, so each purpose has a fork of its own. And use n of item b must be
drawn alike whatever comes after it, so draws run over uses first, then over items.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

PIECE = 32  #: channel uses drawn together on a CPU, for runs in memory as long as a cache line
PIECE_CUDA = 256  #: the same on a GPU, where a draw depends on its own length and is a kernel
_WORDS = slice(24, 24 + 624 * 8)  # the Mersenne twister within the state of a CPU generator


def seeded(digest: bytes, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that all bits of ``digest`` decide.

    ``manual_seed`` keeps 32 bits on a CPU, of which 300,000 seeds share some eleven.
    """
    generator = torch.Generator(device)
    seed = int.from_bytes(digest[:8], "little") >> 1
    generator.manual_seed(seed)  # a GPU's Philox takes all 63 bits
    if generator.device.type != "cpu":
        return generator
    words = np.frombuffer(hashlib.shake_256(digest).digest(624 * 4), dtype="<u4")
    state = _fresh_state().clone()
    state[_WORDS] = torch.from_numpy(words.astype("<u8").view(np.uint8))
    return generator.set_state(state)


@cache
def _fresh_state() -> Tensor:
    """Return the state of a CPU generator with seed 0; RuntimeError where it is laid out anew."""
    with torch.inference_mode(False):
        state = torch.Generator().manual_seed(0).get_state()
    words = state[_WORDS].numpy().view("<u8")
    if words[:3].tolist() != [0, 1, 1812433255] or words.max() >= 2**32:
        raise RuntimeError(
            f"torch {torch.__version__} keeps its generator's state in another way than 2.11 to "
            "2.13; install one of these"
        )
    return state


def beside(state: Tensor, device: torch.device, *labels: object) -> torch.Generator:
    """Return a generator made of another one's state and labels, which leaves that one alone."""
    digest = hashlib.sha256(state.cpu().numpy().tobytes())
    for label in labels:
        digest.update(repr(label).encode())
    return seeded(digest.digest(), device)


def fork(generator: torch.Generator, *labels: object) -> torch.Generator:
    """Return a generator that ``generator`` as it is and the labels decide; it is not advanced."""
    check_generator(generator)
    return beside(generator.get_state(), generator.device, *labels)


def check_generator(generator: object) -> None:
    """Refuse what is no generator of torch, such as a seed or one of NumPy."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"a generator is a torch.Generator, got {type(generator).__name__}; write "
            "torch.Generator().manual_seed(7)"
        )


def on_cpu(generator: torch.Generator) -> torch.Generator:
    """Return this generator, or one made of its state that draws on the CPU."""
    if generator.device.type == "cpu":
        return generator
    return beside(generator.get_state(), torch.device("cpu"))


def forks(generator: torch.Generator, *names: str) -> tuple[torch.Generator, ...]:
    """Return a fork for each purpose, and advance the generator, so that the next ones differ."""
    check_generator(generator)
    state = generator.get_state()
    torch.rand(1, generator=generator, device=generator.device)
    return tuple(beside(state, generator.device, name) for name in names)


def gains_by_use(shape: tuple[int, ...], blocks: int, generator: torch.Generator) -> Tensor:
    """Draw CN(0, 1) gains, [*shape, blocks], of which few blocks cost little."""
    piece = 8 // math.gcd(8, math.prod(shape))
    return normal_by_use(shape, blocks, generator, piece=piece)


def normal_by_use(
    shape: tuple[int, ...],
    uses: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.complex64,
    *,
    piece: int = PIECE,
) -> Tensor:
    """Draw N(0, 1), or CN(0, 1) for a complex ``dtype``, [*shape, uses].

    Use n has the same numbers for any ``uses`` beyond it.

    Args:
        shape: what each use draws, such as [B, R].
        uses: channel uses N.
        generator: decides the draw and the device.
        dtype: of the result.
        piece: uses drawn together on a CPU; torch fills normal numbers in sixteens, so a piece over
            ``shape`` has a multiple of 16 reals.
    """
    device = generator.device

    def draw(size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype, device=device)

    return _by_use(draw, shape, uses, device, piece)


def uniform_by_use(
    shape: tuple[int, ...],
    uses: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw numbers in [0, 1), [*shape, uses], as :func:`normal_by_use` does."""
    device = generator.device

    def draw(size: tuple[int, ...]) -> Tensor:
        return torch.rand(size, generator=generator, dtype=dtype, device=device)

    return _by_use(draw, shape, uses, device, PIECE)


def _by_use(
    draw: Callable[[tuple[int, ...]], Tensor],
    shape: tuple[int, ...],
    uses: int,
    device: torch.device,
    piece: int,
) -> Tensor:
    if device.type == "cpu":
        drawn = draw((-(-uses // piece), *shape, piece))
    else:
        pieces = range(-(-uses // PIECE_CUDA))
        drawn = torch.stack([draw((*shape, PIECE_CUDA)) for _ in pieces])
    return drawn.movedim(0, -2).flatten(-2)[..., :uses]
