"""The analog codec: unit power, any size, and the distortion that theory gives."""

from __future__ import annotations

import math

import pytest
import torch

from channels import AWGN
from channels.base import CSI
from semsim import Link, stream
from semsim.codecs.analog import HEADER, AnalogReceiver, AnalogTransmitter, header, read_header


def analog_link(cbr: str) -> Link:
    return Link(AnalogTransmitter(cbr), AWGN(), AnalogReceiver(cbr))


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_plain_pixels_are_distorted_as_theory_says(snr_db: float) -> None:
    source = 0.5 + 0.05 * torch.randn(4, 3, 128, 128, generator=stream(1, "pixels"))
    link = analog_link("1/2").train()  # unclamped
    error = (link(source, snr_db, stream(2, "noise", snr_db)) - source).square()
    n0 = 10 ** (-snr_db / 10)
    expected = (source - 0.5).square().mean(dim=(1, 2, 3)) * n0 / (1 + n0)
    ratio = error.mean(dim=(1, 2, 3)) / expected
    # mean of 49,152 squares of a nearly normal error: relative deviation sqrt(2/49152) = 0.0064;
    # the ladder's step of 3.7 % in scale adds at most 0.018^2 * (1 + n0) / n0 of bias
    bias = 0.018**2 / (1 + n0) * (1 + n0) / n0
    assert ratio.sub(1).abs().max() < 5 * math.sqrt(2 / 49152) + bias


@pytest.mark.parametrize("cbr", ["1/2", "1/6", "1/16"])
def test_every_item_has_unit_power_and_the_promised_length(cbr: str) -> None:
    transmitter = AnalogTransmitter(cbr)
    source = torch.rand(3, 3, 33, 50, generator=stream(3, "images"))
    x = transmitter(source, CSI(None, torch.ones(3)))
    assert x.shape == (3, 1, transmitter.num_symbols((3, 33, 50)))
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), torch.ones(3))


def test_without_noise_plain_pixels_arrive_up_to_the_ladder() -> None:
    source = torch.rand(2, 3, 17, 20, generator=stream(4, "images"))
    estimate = analog_link("1/2").eval()(source, 80.0, stream(4, "noise"))
    assert (estimate - source).abs().max() < 0.02  # half a rung is 1.8 % of at most 0.5


def test_more_symbols_give_a_better_picture() -> None:
    smooth = torch.rand(4, 3, 8, 8, generator=stream(5, "images"))
    source = torch.nn.functional.interpolate(smooth, scale_factor=8, mode="bicubic").clamp(0, 1)
    errors = []
    for cbr in ("1/48", "1/16", "1/6"):
        estimate = analog_link(cbr).eval()(source, 20.0, stream(5, "noise"))
        errors.append(float((estimate - source).square().mean()))
    assert errors == sorted(errors, reverse=True)


def test_the_header_survives_at_0_db() -> None:
    scale = torch.logspace(-2, 0, 50)
    symbols = header(scale)[:, 0]
    assert symbols.shape == (50, HEADER)
    noise = torch.randn(symbols.shape, dtype=torch.complex64, generator=stream(6, "noise"))
    read = read_header(symbols + noise, torch.ones(50, HEADER))
    torch.testing.assert_close(read, scale, rtol=0.02, atol=0)


def test_a_cbr_above_one_half_is_refused() -> None:
    with pytest.raises(ValueError, match="n from 1 to 96"):
        AnalogTransmitter("3/4")
