"""Flat fading against its textbook."""

from __future__ import annotations

import math

import pytest
import torch

from channels.awgn import AWGN
from channels.fading import Rayleigh, Rician
from channels.gain import apply_gain
from channels.units import db_to_linear
from semsim.seeds import stream


def z_of_mean(values: torch.Tensor, expected: float | torch.Tensor) -> torch.Tensor:
    """Return how many standard errors the mean over the first axis is off."""
    values = values.double()
    error = values.std(dim=0) / math.sqrt(len(values))
    return ((values.mean(dim=0) - expected) / error).abs().max()


@pytest.mark.parametrize("coherence", ["block", "symbol", 3])
def test_rician_without_scattering_is_awgn(coherence: str | int) -> None:
    x = torch.randn(3, 1, 10, dtype=torch.complex64, generator=stream(1, "x"))
    n0 = torch.tensor([0.1, 0.2, 0.3])
    received = []
    for channel in (Rician(math.inf, coherence=coherence), AWGN()):
        state = channel.draw(3, 10, stream(1, "state"))
        received.append(channel(x, state, n0, stream(1, "noise")))
    assert torch.equal(*received)


def test_rician_without_line_of_sight_is_rayleigh() -> None:
    rician = Rician(-math.inf, num_tx=2, num_rx=2).draw(5, 4, stream(1, "h")).h
    assert torch.equal(rician, Rayleigh(2, 2).draw(5, 4, stream(1, "h")).h)


@pytest.mark.parametrize("coherence", [8, 100, 10**9])
def test_coherence_beyond_the_item_is_one_draw(coherence: int) -> None:
    block = Rayleigh(2, 2).draw(3, 8, stream(1, "h"))
    long = Rayleigh(2, 2, coherence=coherence).draw(3, 8, stream(1, "h"))
    assert torch.equal(block.h, long.h)
    assert block.coherence == long.coherence == 8


def test_gains_stay_for_coherence_uses_and_then_change() -> None:
    state = Rayleigh(coherence=4).draw(2, 10, stream(1, "h"))
    blocks = state.h[0, 0, 0].tolist()
    assert len(set(blocks)) == 3
    assert blocks == [blocks[0]] * 4 + [blocks[4]] * 4 + [blocks[8]] * 2


@pytest.mark.parametrize("uses", [8, 10, 3])
@pytest.mark.parametrize("antennas", [(1, 1), (4, 2), (1, 3), (3, 1), (8, 8)])
def test_the_product_per_block_is_the_product_per_use(antennas: tuple[int, int], uses: int) -> None:
    channel = Rayleigh(*antennas, coherence=4)
    state = channel.draw(2, uses, stream(1, "h"))
    x = torch.randn(2, antennas[0], uses, dtype=torch.complex64, generator=stream(1, "x"))
    expected = (state.h * x[:, None]).sum(dim=2)
    torch.testing.assert_close(channel(x, state, None, stream(1, "n")), expected)
    torch.testing.assert_close(apply_gain(x, state.h), expected)


@pytest.mark.parametrize(("tx", "rx"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.8)])
def test_antennas_are_correlated_as_kronecker_says(tx: float, rx: float) -> None:
    num_tx, num_rx, draws = 3, 2, 40_000
    channel = Rayleigh(num_tx, num_rx, tx_correlation=tx, rx_correlation=rx)
    h = channel.draw(draws, 1, stream(1, "h", tx, rx)).h[..., 0].mT.flatten(1)  # columns stacked
    products = h[:, :, None] * h[:, None].conj()

    def exponential(correlation: float, antennas: int) -> torch.Tensor:
        place = torch.arange(antennas)
        distance = (place[:, None] - place).abs().double()
        return torch.where(distance == 0, 1.0, correlation**distance)

    expected = torch.kron(exponential(tx, num_tx), exponential(rx, num_rx))
    assert z_of_mean(products.real, expected) < 5
    assert z_of_mean(products.imag[:, *torch.triu_indices(6, 6, 1)], 0.0) < 5


def test_the_envelope_is_rayleigh() -> None:
    draws = 100_000
    envelope = Rayleigh().draw(draws, 1, stream(1, "h")).h.abs().flatten().double().sort().values
    below = 1 - torch.exp(-envelope.square())
    steps = torch.arange(draws + 1, dtype=torch.float64) / draws
    distance = torch.maximum((below - steps[:-1]).abs().max(), (below - steps[1:]).abs().max())
    assert distance * math.sqrt(draws) < 2.7  # Kolmogorov-Smirnov: chance 2 exp(-2 2.7^2) = 1e-6


@pytest.mark.parametrize("k_db", [-3.0, 0.0, 10.0])
def test_rician_gains_have_the_moments_of_their_k(k_db: float) -> None:
    k = db_to_linear(k_db)
    h = Rician(k_db).draw(100_000, 1, stream(1, "h", k_db)).h.flatten()
    power = h.abs().square()
    assert z_of_mean(h.real, math.sqrt(k / (k + 1))) < 5
    assert z_of_mean(h.imag, 0.0) < 5
    assert z_of_mean(power, 1.0) < 5
    assert z_of_mean((power.double() - 1).square(), (2 * k + 1) / (k + 1) ** 2) < 5


def test_the_line_of_sight_has_rank_one() -> None:
    h = Rician(math.inf, num_tx=3, num_rx=2).draw(1, 1, stream(1, "h")).h[0, ..., 0]
    assert torch.linalg.matrix_rank(h) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_tx": 0}, "num_tx is a whole number of 1 or more, got 0"),
        ({"num_rx": 1.5}, "num_rx is a whole number of 1 or more, got 1.5"),
        ({"num_tx": True}, "num_tx is a whole number of 1 or more, got True"),
        ({"coherence": 0}, "coherence is 'block' .* got 0"),
        ({"coherence": "slot"}, "coherence is 'block' .* got 'slot'"),
        ({"tx_correlation": 1.0}, "tx_correlation stays below 1, got 1.0"),
        ({"rx_correlation": -0.1}, r"rx_correlation lies in \[0, 1\], got -0.1"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rayleigh(**arguments)
    with pytest.raises(ValueError, match=says):
        Rician(3.0, **arguments)


@pytest.mark.parametrize("k_db", [math.nan, 4000, True])
def test_a_k_that_is_no_number_of_decibels_is_refused(k_db: float) -> None:
    with pytest.raises(ValueError, match=r"k_db lies in \[-300, 300\]"):
        Rician(k_db)
