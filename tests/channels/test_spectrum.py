"""Doppler spectra: the process remembers as the closed form of its spectrum says."""

from __future__ import annotations

import math

import pytest
import torch

from channels.doppler import doppler_hz
from channels.fading import Rayleigh, Rician
from channels.spectrum import Spectrum, Tabulated, Written, spectrum_of
from channels.units import db_to_linear
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0, "carrier_hz": 3.5e9}
DOPPLER = doppler_hz(**MOVING)
ONE_SIDED = [(-1.0, 0.0), (0.2, 3.0), (0.7, 1.0), (0.9, 0.0)]
SPECTRA: dict[str, Written] = {
    "clarke": "clarke",
    "flat": "flat",
    "gaussian": "gaussian",
    "one-sided": ONE_SIDED,
}
CLOSED = {
    "clarke": lambda x: torch.special.bessel_j0(2 * math.pi * x),
    "flat": lambda x: torch.sinc(2 * x),
    "gaussian": lambda x: torch.exp(-((math.pi * x) ** 2)),
    "one-sided": lambda x: by_hand(x),
}
TURNS = [0.1, 0.38, 0.9, 3.3]  # f_D t


def by_hand(turns: torch.Tensor) -> torch.Tensor:
    """Return the mean of e^(j 2 pi nu f_D t) over ONE_SIDED, by the middle rule of 2e5 cells."""
    nodes = torch.tensor(ONE_SIDED, dtype=torch.float64)
    nu = torch.linspace(-1, 0.9, 200_001, dtype=torch.float64)
    nu = (nu[1:] + nu[:-1]) / 2
    place = torch.searchsorted(nodes[:, 0].contiguous(), nu).clamp(1, 3)
    share = (nu - nodes[place - 1, 0]) / (nodes[place, 0] - nodes[place - 1, 0])
    density = nodes[place - 1, 1] + share * (nodes[place, 1] - nodes[place - 1, 1])
    phases = torch.exp(2j * math.pi * nu * turns.reshape(-1, 1))
    return ((phases * density).sum(-1) / density.sum()).reshape(turns.shape)


@pytest.fixture(params=SPECTRA)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def z_of_mean(values: torch.Tensor, expected: complex) -> float:
    values, off = torch.view_as_real(values.to(torch.complex128)), []
    for part, wanted in zip(values.T, (expected.real, expected.imag), strict=True):
        off.append(
            abs(float(part.mean()) - wanted) * math.sqrt(len(part)) / max(float(part.std()), 1e-9)
        )
    return max(off)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("timed", [False, True])
def test_a_process_remembers_as_its_spectrum_says(name: str, turns: float, timed: bool) -> None:
    lag = turns / DOPPLER
    if timed:
        channel = Rayleigh(coherence=1, symbol_rate_hz=1 / lag, spectrum=SPECTRA[name], **MOVING)
        h = channel.draw(20_000, 2, stream(1, "h", name)).h[:, 0, 0]
        now, then = h[:, 0], h[:, 1]
    else:
        state = Rayleigh(spectrum=SPECTRA[name], **MOVING).draw(20_000, 1, stream(1, "h", name))
        now, then = state.h.flatten(), state.during(0, 1, later_s=lag).h.flatten()
    expected = complex(CLOSED[name](torch.tensor(turns, dtype=torch.float64)))
    assert z_of_mean(then * now.conj(), expected) < 5
    assert z_of_mean(then.abs().square(), 1.0) < 5
    assert z_of_mean(then.abs() ** 4, 2.0) < 5  # as of a Gaussian


def test_the_line_of_sight_keeps_out_of_the_spectrum(name: str) -> None:
    channel = Rician(6.0, spectrum=SPECTRA[name], **MOVING)
    state = channel.draw(20_000, 1, stream(1, "h", name))
    lag, k = 0.38 / DOPPLER, db_to_linear(6.0)
    rho = complex(CLOSED[name](torch.tensor(0.38, dtype=torch.float64)))
    product = (state.during(0, 1, later_s=lag).h * state.h.conj()).flatten()
    assert z_of_mean(product, (rho + k) / (1 + k)) < 5


def test_closed_forms_and_shifts_of_a_spectrum_agree(name: str) -> None:
    spectrum: Spectrum = spectrum_of(SPECTRA[name])
    cells = 1_000_000
    shifts = spectrum.shifts((torch.arange(cells, dtype=torch.float64) + 0.5) / cells)
    lag = torch.tensor([0.0, *TURNS, 20.0], dtype=torch.float64)
    expected = torch.stack([torch.exp(2j * math.pi * shifts * t).mean() for t in lag])
    rho = spectrum.correlation(lag, 1.0).to(torch.complex128)
    torch.testing.assert_close(rho, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(rho, CLOSED[name](lag).to(rho), atol=1e-6, rtol=0)
    assert spectrum.mean_square == pytest.approx(float(shifts.square().mean()), rel=1e-3)


def test_a_flat_table_is_the_flat_spectrum() -> None:
    table, flat = Tabulated([(-1, 5), (0.3, 5), (1, 5)]), spectrum_of("flat")
    share = torch.rand(1000, dtype=torch.float64, generator=stream(1, "share"))
    torch.testing.assert_close(table.shifts(share), flat.shifts(share))
    rho = table.correlation(share, 7.0)
    torch.testing.assert_close(rho, flat.correlation(share, 7.0).to(rho))


@pytest.mark.parametrize(
    ("spectrum", "says"),
    [
        ("jake", "spectrum is one of clarke, flat, gaussian, or pairs .* got 'jake'"),
        ([(0.0, 1.0)], r"two or more pairs .* a flat one is \[\[-1, 1\], \[1, 1\]\]"),
        ([(0.0, 1.0), (0.0, 2.0)], "ascending shifts"),
        ([(0.0, 1.0), (1.0, math.nan)], "finite numbers"),
        ([(0.0, -30.0), (1.0, -3.0)], "linear, not in dB"),
        ([(0.0, 0.0), (1.0, 0.0)], "some above 0"),
    ],
)
def test_a_wrong_spectrum_is_refused(spectrum: Written, says: str) -> None:
    for make in (Rayleigh, lambda **given: Rician(3.0, **given)):
        with pytest.raises(ValueError, match=says):
            make(spectrum=spectrum)
