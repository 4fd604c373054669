"""The hybrid: its split, the closed form of its analog layer, a floor and no ceiling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from channels import AWGN, Rayleigh
from semsim import Link, stream
from semsim.codecs.hybrid import HybridLink, HybridTransmitter
from semsim.codecs.separate import SeparateLink, SeparateTransmitter
from semsim.codecs.softcast import (
    LOWEST,
    STEP,
    SoftCastReceiver,
    SoftCastTransmitter,
    expected_mse,
    send,
)
from semsim.codecs.stills import pixels_of, sources_of
from semsim.payloads.photos import Photos
from semsim.phy.frontend import NoFrontEnd

SHAPE = (3, 96, 96)


def photos(count: int = 4) -> Tensor:
    crops = Photos(resize=96, crop=96)
    return torch.stack([crops[i][0] for i in range(count)])


def hybrid(**arguments: Any) -> HybridLink:
    settings = {"cbr": "1/2", "power": None, "mcs": 4, "codec": "jpeg", "chunk": 8}
    return HybridLink(HybridTransmitter(**settings | arguments), AWGN()).train()  # unclamped


def residual(link: HybridLink, source: Tensor, bits: int) -> Tensor:
    """Return what the base leaves over if it has so many bits, by the image codec alone."""
    stills, images = link.transmitter.stills, pixels_of(source)
    coded = [stills.fit(image, bits) for image in images]
    decoded = [stills.decode(one, image) for one, image in zip(coded, images, strict=True)]
    return source - sources_of(decoded, source)


def mse(link: Link, source: Tensor, snr_db: float) -> Tensor:
    with torch.inference_mode():
        estimate = link(source, snr_db, stream(1, "hybrid"))
    return (estimate - source).square().mean(dim=(1, 2, 3))


@pytest.mark.parametrize(("share", "power"), [(0.5, None), (0.3, 0.6), (0.8, 0.5)])
def test_the_layers_share_power_and_channel_uses_as_stated(
    share: float, power: float | None
) -> None:
    link = hybrid(share=share, power=power)
    x = link.transmit(photos(), 10.0, stream(2, "hybrid")).x[:, 0]
    total, analog = x.shape[1], link.transmitter.layout(SHAPE).symbols
    assert total == link.transmitter.num_symbols(SHAPE) == 96 * 96 * 3 // 2
    assert 0 <= (1 - share) * total - analog < 8 * 8 / 2 + 1  # whole chunks
    energy = x.abs().square()
    torch.testing.assert_close(energy.mean(dim=1), torch.ones(4))
    of_base = energy[:, : total - analog].sum(dim=1) / total
    torch.testing.assert_close(of_base, torch.full((4,), power or share))


@pytest.mark.parametrize("snr_db", [12.0, 25.0])
def test_above_an_intact_base_the_error_is_that_of_the_analog_layer(snr_db: float) -> None:
    link, source = hybrid(power=0.4), photos()
    sent = link.transmit(source, snr_db, stream(3, "hybrid"))
    assert sent.notes["decoded"].all()
    measured = (sent.estimate - source).double().square().mean(dim=(1, 2, 3))
    rest = residual(link, source, int(sent.notes["bits"][0]))
    cut = link.transmitter.layout(SHAPE)
    every = send(rest, cut._replace(sent=cut.chunks)).side_info[:, : cut.chunks]
    variance = torch.exp2(LOWEST + STEP * (every - 1.0)).double()  # to half a step
    of_analog = send(rest, cut).side_info[:, : cut.chunks] > 0
    n0 = 10 ** (-snr_db / 10) / link.transmitter.amplitudes(SHAPE)[1] ** 2
    expected = expected_mse(variance, of_analog, n0)
    # half a step of the ladder is a factor of 2^(1/3) in each chunk's variance at most; with a
    # sum over 400 chunks the noise and the rounding leave far less than that
    assert ((measured / expected).log2().abs() < 1 / 3).all()


def test_the_estimate_is_base_plus_softcast_of_the_residual() -> None:
    link, source = hybrid(), photos()
    sent = link.transmit(source, 120.0, stream(4, "hybrid"))
    rest = residual(link, source, int(sent.notes["bits"][0]))
    cbr = f"{link.transmitter.layout(SHAPE).symbols}/{3 * 96 * 96}"
    ends = SoftCastTransmitter(cbr, chunk=8), SoftCastReceiver(cbr, chunk=8).train()
    analog = Link(ends[0], AWGN(), ends[1])(rest, 120.0, stream(4, "analog"))
    torch.testing.assert_close(sent.estimate - source, analog - rest, rtol=0, atol=1e-4)
    assert sent.ledger.side_info > 0
    cuts = [end.layout(SHAPE) for end in (link.transmitter, ends[0])]
    assert cuts[0].side_info_bits == cuts[1].side_info_bits


def test_both_engines_bring_the_same_picture() -> None:
    found = [
        hybrid(engine=engine).transmit(photos(2), 12.0, stream(5, "hybrid"))
        for engine in ("bler", "ldpc")
    ]
    assert all(one.notes["decoded"].all() for one in found)
    # bits differ from random symbols in nothing that the analog layer sees
    torch.testing.assert_close(found[0].estimate, found[1].estimate, rtol=0, atol=1e-5)


def test_it_has_the_floor_of_its_base_and_no_ceiling() -> None:
    source = photos()
    link = hybrid(power=0.8, headers="file")  # a poor base, so that much is left to the other layer
    sent = link.transmit(source, 4.0, stream(1, "hybrid"))
    assert sent.notes["decoded"].all()
    base = residual(link, source, int(sent.notes["bits"][0])).square().mean(dim=(1, 2, 3))
    assert (mse(link, source, 4.0) < base).all()
    fixed = SeparateLink(SeparateTransmitter("1/2", codec="jpeg", mcs=4), AWGN()).train()
    assert (mse(fixed, source, 35.0) == mse(fixed, source, 20.0)).all()
    assert (mse(link, source, 35.0) < 0.8 * mse(link, source, 20.0)).all()
    # beyond what the layer leaves out the error falls with the noise: 10^-1.5, by LMMSE a bit less
    left_out = mse(link, source, 120.0)
    fallen = (mse(link, source, 35.0) - left_out) / (mse(link, source, 20.0) - left_out)
    assert ((fallen > 10**-1.5) & (fallen < 1.04 * 10**-1.5)).all()


def test_without_its_base_the_residual_goes_on_top_of_the_mean_colour() -> None:
    source = photos()
    sent = hybrid(power=0.1).transmit(source, 3.0, stream(6, "hybrid"))
    assert not sent.notes["decoded"].any()
    colour = source.mean(dim=(2, 3), keepdim=True)
    lost = (colour - source).square().mean(dim=(1, 2, 3))
    assert ((sent.estimate - source).square().mean(dim=(1, 2, 3)) < lost).all()


def test_it_meets_the_fading_and_noise_of_other_schemes_over_antennas() -> None:
    channel, source = Rayleigh(2, 2), photos()
    link = HybridLink(HybridTransmitter("1/6", codec="webp", chunk=8), channel)
    other = Link(SoftCastTransmitter("1/6"), channel, SoftCastReceiver("1/6"))
    ours, theirs = (one.transmit(source, 9.0, stream(7, "same")) for one in (link, other))
    assert ours.state is not None and theirs.state is not None
    assert torch.equal(ours.state.h, theirs.state.h)
    torch.testing.assert_close(ours.x.abs().square().sum(dim=1).mean(dim=1), torch.ones(4))
    again = link.transmit(source, 9.0, stream(7, "same"))
    assert torch.equal(ours.estimate, again.estimate)


@pytest.mark.parametrize("part", ["share", "power"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.5])
def test_a_split_without_two_layers_is_refused(part: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{part} is the base's part, between 0 and 1"):
        HybridTransmitter(**{part: value})


def test_it_needs_a_front_end_that_separates_streams() -> None:
    link = HybridLink(HybridTransmitter("1/6"), Rayleigh(2, 2), frontend=NoFrontEnd())
    with pytest.raises(ValueError, match="front end that separates"):
        link(photos(1), 9.0, stream(8, "none"))
