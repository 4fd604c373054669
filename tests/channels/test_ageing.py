"""The past of a channel: closed forms for flat fading, one realisation over the grid."""

from __future__ import annotations

import math

import pytest
import torch

from channels.base import Channel
from channels.cascade import Cascade
from channels.doppler import clarke, doppler_hz
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import Clipping
from channels.interference import Interference
from channels.ofdm import CDL, TDL, GridChannel, UMa, UMi
from channels.units import db_to_linear
from semsim.seeds import stream

MOVING = {"speed_mps": 30.0, "carrier_hz": 3.5e9}
DOPPLER = doppler_hz(**MOVING)
DELAYS = [2e-4, 1.2e-3, 7e-3, 0.5]  # J0 is near 1, near 0, negative, and long forgotten


def rho(delay_s: float) -> float:
    return float(clarke(torch.tensor(delay_s, dtype=torch.float64), DOPPLER))


def z_of_mean(values: torch.Tensor, expected: float | torch.Tensor) -> torch.Tensor:
    """Return how many standard errors the mean over the first axis is off."""
    values = values.double()
    error = values.std(dim=0) / math.sqrt(len(values))
    return ((values.mean(dim=0) - expected) / error).abs().max()


@pytest.mark.parametrize("delay_s", DELAYS)
@pytest.mark.parametrize("coherence", ["block", 2])
def test_rayleigh_forgets_as_clarke_says(delay_s: float, coherence: str | int) -> None:
    state = Rayleigh(coherence=coherence, **MOVING).draw(20_000, 4, stream(1, "h"))
    now, then = state.h[:, 0, 0], state.earlier(delay_s).h[:, 0, 0]
    assert then.shape == now.shape
    assert z_of_mean((then * now.conj()).real, rho(delay_s)) < 5
    assert z_of_mean((then * now.conj()).imag, 0.0) < 5
    assert z_of_mean((then - now).abs().square(), 2 * (1 - rho(delay_s))) < 5
    assert z_of_mean((rho(delay_s) * then - now).abs().square(), 1 - rho(delay_s) ** 2) < 5
    assert z_of_mean(then.abs().square(), 1.0) < 5
    assert z_of_mean(then.abs() ** 4, 2.0) < 5  # as of a Gaussian


def test_all_delays_tell_of_one_past() -> None:
    state = Rayleigh(**MOVING).draw(20_000, 1, stream(1, "h"))
    one, two = state.earlier(3e-4).h.flatten(), state.earlier(8e-4).h.flatten()
    assert z_of_mean((one * two.conj()).real, rho(5e-4)) < 5
    torch.testing.assert_close(state.earlier(3e-4).earlier(5e-4).h.flatten(), two)


@pytest.mark.parametrize("delay_s", DELAYS)
def test_antennas_stay_as_correlated_as_they_are(delay_s: float) -> None:
    channel = Rayleigh(3, 2, tx_correlation=0.9, rx_correlation=0.4, **MOVING)
    state = channel.draw(20_000, 1, stream(1, "h"))
    now, then = state.h[..., 0], state.earlier(delay_s).h[..., 0]
    assert z_of_mean((then[:, 0, 0] * then[:, 0, 2].conj()).real, 0.9**2) < 5
    assert z_of_mean((then[:, 0, 1] * then[:, 1, 1].conj()).real, 0.4) < 5
    assert z_of_mean((then[:, 0, 0] * now[:, 0, 1].conj()).real, 0.9 * rho(delay_s)) < 5


@pytest.mark.parametrize("delay_s", DELAYS)
def test_the_line_of_sight_does_not_fade(delay_s: float) -> None:
    state = Rician(10.0, **MOVING).draw(20_000, 1, stream(1, "h"))
    error = (state.earlier(delay_s).h - state.h).abs().square().flatten()
    assert z_of_mean(error, 2 * (1 - rho(delay_s)) / (1 + db_to_linear(10.0))) < 5


def test_the_line_of_sight_has_a_doppler_shift_of_its_own() -> None:
    for angle in (0.0, 60.0, 90.0, 180.0):
        channel = Rician(math.inf, los_angle_deg=angle, **MOVING)
        then = channel.draw(1, 1, stream(1, "h")).earlier(1.7e-3).h.flatten()
        turn = -2 * math.pi * DOPPLER * math.cos(math.radians(angle)) * 1.7e-3
        torch.testing.assert_close(then, torch.polar(torch.ones(1), torch.tensor([turn])))


@pytest.mark.parametrize("k_db", [-math.inf, 3.0])
def test_an_item_that_lasts_is_one_stretch_of_time(k_db: float) -> None:
    timed = {"coherence": 3, "symbol_rate_hz": 3e3, "los_angle_deg": 0.0} | MOVING
    channel = Rician(k_db, num_tx=2, tx_correlation=0.5, **timed)  # a block lasts 1 ms
    state = channel.draw(8000, 21, stream(1, "h"))
    blocks = state.h[:, 0, 0, ::3]
    k = db_to_linear(k_db)
    lag = 1e-3 * torch.arange(7, dtype=torch.float64)
    turn = torch.polar(torch.ones_like(lag), 2 * math.pi * DOPPLER * lag)
    expected = (clarke(lag, DOPPLER) + k * turn) / (1 + k)
    assert z_of_mean((blocks * blocks[:, :1].conj()).real, expected.real) < 5
    assert z_of_mean((blocks * blocks[:, :1].conj())[:, 1:].imag, expected[1:].imag) < 5
    then = state.earlier(2e-3).h
    torch.testing.assert_close(then[..., 6:], state.h[..., :-6], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "channel",
    [
        TDL("A", num_tx=2, subcarriers=6, **MOVING),
        TDL("D", subcarriers=6, **MOVING),
        CDL("C", num_rx=2, subcarriers=6, **MOVING),
        CDL("D", subcarriers=6, motion="3d", **MOVING),
        UMi(subcarriers=6, **MOVING),
        UMa(num_rx=2, subcarriers=6, **MOVING),
    ],
    ids=lambda channel: type(channel).__name__,
)
def test_the_past_of_a_grid_is_the_same_realisation(channel: GridChannel) -> None:
    state = channel.draw(3, 6 * 20, stream(1, "grid"))
    then = state.earlier(5 / channel.grid.symbol_rate_hz).h
    torch.testing.assert_close(then[..., 30:], state.h[..., :-30], atol=2e-3, rtol=0)
    twice = state.earlier(2 / channel.grid.symbol_rate_hz)
    torch.testing.assert_close(
        twice.earlier(3 / channel.grid.symbol_rate_hz).h, then, atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("make", [TDL, CDL])
def test_a_grid_forgets_as_its_statistics_say(make: type[GridChannel]) -> None:
    channel = make("A", subcarriers=1, **MOVING)
    state = channel.draw(1500, 1, stream(1, "grid"))
    delay = 2.5e-3
    error = (state.earlier(delay).h - state.h).abs().square().flatten()
    lag = torch.tensor([delay * channel.grid.symbol_rate_hz])
    expected = 2 * (1 - float(state.grid.correlation(torch.zeros(1), lag).real))
    assert z_of_mean(error, expected) < 5
    assert expected > 2  # beyond the first zero: what TDL at 30 m/s really does


def test_what_is_built_of_channels_is_as_old_as_they_are() -> None:
    moving, delay = Rayleigh(2, 3, **MOVING), 1e-3
    whole = Cascade([Clipping(3.0, 2), moving, Rayleigh(3, 2)]).draw(4, 5, stream(1, "h"))
    then = whole.earlier(delay)
    middle = whole.stages[1].earlier(delay).h
    expected = whole.stages[2].h[..., 0] @ middle[..., 0] @ whole.stages[0].h[..., 0] / 6**0.5
    torch.testing.assert_close(then.h[..., 0], expected)
    other = Interference(3.0, channel=moving).draw(4, 5, stream(1, "h"))
    assert torch.equal(other.earlier(delay).h, other.stages[0].earlier(delay).h)
    lost = Erasure(0.5, 1, channel=moving).draw(200, 5, stream(1, "h"))
    gone = (lost.earlier(delay).h == 0).float().mean()
    both = ((lost.earlier(delay).h == 0) & (lost.h == 0)).float().mean()
    assert abs(gone - 0.5) < 5 * math.sqrt(0.25 / 1000)
    assert abs(both - 0.25) < 5 * math.sqrt(0.1875 / 1000)


@pytest.mark.parametrize("channel", [Rayleigh(**MOVING), TDL(**MOVING), Erasure(0.3, 1)])
def test_who_does_not_ask_for_the_past_sees_nothing_of_it(channel: Channel) -> None:
    asked, silent = stream(1, "h"), stream(1, "h")
    state, same = channel.draw(2, 8, asked), channel.draw(2, 8, silent)
    before = state.h.clone()
    assert state.moves
    assert not torch.equal(state.earlier(0.1).h, before)
    assert torch.equal(state.earlier(0.1).h, state.earlier(0.1).h)
    assert torch.equal(state.h, before)
    assert torch.equal(asked.get_state(), silent.get_state())
    assert torch.equal(state.h, same.h)


def test_a_speed_changes_no_gain_of_now() -> None:
    still, moving = (Rayleigh(2, 2, speed_mps=v).draw(3, 4, stream(1, "h")) for v in (0.0, 9.0))
    assert torch.equal(still.h, moving.h)
    assert not still.moves
    assert still.earlier(1.0).h is still.h


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"speed_mps": -1.0}, r"speed_mps lies in \[0, 3000\]"),
        ({"carrier_hz": 3.5}, "carrier_hz lies in"),
        ({"symbol_rate_hz": 0.0, "speed_mps": 1.0}, "symbol_rate_hz is finite and above 0"),
        ({"symbol_rate_hz": 1e6}, "set speed_mps above 0 and coherence to 'symbol'"),
        ({"symbol_rate_hz": 1e6, "speed_mps": 1.0}, "set speed_mps above 0 and coherence"),
    ],
)
def test_a_wrong_motion_is_refused(arguments: dict[str, float], says: str) -> None:
    for make in (Rayleigh, lambda **given: Rician(3.0, **given)):
        with pytest.raises(ValueError, match=says):
            make(**arguments)
    with pytest.raises(ValueError, match="tells its past only"):
        Rayleigh().draw(1, 1, stream(1, "h")).earlier(-1.0)
    with pytest.raises(ValueError, match="los_angle_deg lies in"):
        Rician(3.0, los_angle_deg=200.0)
