"""Drops: what is drawn, and that it is what Sionna's own response says."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from channels import drops
from channels.doppler import clarke
from channels.drops import Site, draw_drops
from channels.sionna_bridge import sionna_phy
from semsim.seeds import stream

SMALL = Site(slots=3, subcarriers=5, tx=(1, 2), rx=(2, 1))
MODELS = ["umi", "uma", "rma", "cdl-C", "cdl-D", "tdl-A"]


@pytest.mark.parametrize("model", MODELS)
def test_a_drop_has_unit_power_and_its_facts(model: str) -> None:
    site = dataclasses.replace(SMALL, model=model)
    drawn = draw_drops(site, 6, stream(1, "h"))
    assert drawn.h.shape == (6, 3, site.pairs, 5)
    assert drawn.h.dtype == torch.complex64
    power = drawn.h.abs().square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(power, torch.ones(6), rtol=1e-4, atol=0)
    assert drawn.los.dtype == torch.bool
    assert ((drawn.speed_mps > 11) & (drawn.speed_mps < 28)).all()
    again = draw_drops(site, 6, stream(1, "h"))
    assert torch.equal(again.h, drawn.h)
    assert not torch.equal(draw_drops(site, 6, stream(2, "h")).h, drawn.h)


def test_a_profile_has_a_line_of_sight_or_none() -> None:
    assert draw_drops(dataclasses.replace(SMALL, model="cdl-D"), 2, stream(1, "h")).los.all()
    assert not draw_drops(dataclasses.replace(SMALL, model="cdl-C"), 2, stream(1, "h")).los.any()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_line_of_sight_can_be_asked_for(share: float) -> None:
    drawn = draw_drops(dataclasses.replace(SMALL, los=share), 8, stream(1, "h"))
    assert (drawn.los == bool(share)).all()


def test_the_response_is_that_of_sionna() -> None:
    gains = torch.randn(2, 1, 2, 1, 3, 4, 5, dtype=torch.complex64, generator=stream(1, "a"))
    delays = 1e-6 * torch.rand(2, 1, 1, 4, generator=stream(1, "tau"))
    frequencies = sionna_phy().channel.subcarrier_frequencies(6, 15e3, precision="single")
    expected = sionna_phy().channel.cir_to_ofdm_channel(frequencies, gains, delays)
    site = Site(subcarriers=6, subcarrier_spacing_hz=15e3)
    h = drops._response(site, gains[:, 0, :, 0], delays[:, 0, 0])
    torch.testing.assert_close(h, expected[:, 0, :, 0].flatten(1, 2).movedim(2, 1))


def test_a_user_s_channel_forgets_as_its_speed_says() -> None:
    site = Site("tdl-A", slots=2, subcarriers=1, tx=(1, 1), speed_mps=(20.0, 20.0))
    drawn = draw_drops(site, 4000, stream(1, "h"))
    h = drawn.h[:, :, 0, 0] * 10 ** (drawn.gain_db[:, None] / 20)  # as it was drawn
    products = (h[:, 1] * h[:, 0].conj()).real.double()
    lag = torch.tensor([site.slot_s], dtype=torch.float64)
    expected = clarke(lag, 20.0 * site.carrier_hz / 299_792_458.0)
    assert abs(products.mean() - expected) < 5 * products.std() / math.sqrt(4000)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "umo"}, "umi, uma, rma"),
        ({"speed_mps": (9.0, 3.0)}, "from low to high, got 9.0 to 3.0"),
        ({"speed_mps": (0.0, 200.0)}, "cannot follow; keep speed below 125"),
        ({"model": "cdl-A", "los": 0.5}, "los is for umi, uma and rma"),
        ({"tx": (0, 4)}, r"tx is rows and columns, such as \[4, 4\], got \(0, 4\)"),
        ({"model": "tdl-A", "polarisation": "dual"}, "needs directions"),
        ({"indoor": 1.5}, "indoor"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Site(**wrong)
