"""SoftCast: the distortion that its closed form says, power, side information, gradient."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from channels import AWGN
from channels.base import CSI
from semsim import Link, stream
from semsim.codecs.softcast import (
    LOWEST,
    STEP,
    VARIANCE_BITS,
    SoftCastReceiver,
    SoftCastTransmitter,
    expected_mse,
    layout,
    receive,
    send,
    to_chunks,
)
from semsim.nn.dct import dct, inverse_dct
from semsim.payloads.photos import Photos

SHAPE = (3, 90, 130)  # no multiple of a chunk


def photos() -> Tensor:
    crops = Photos(resize=130, crop=130)
    return torch.stack([crops[i][0][:, :90] for i in range(5)])


def softcast(cbr: str, chunk: int = 16) -> Link:
    return Link(
        SoftCastTransmitter(cbr, chunk=chunk), AWGN(), SoftCastReceiver(cbr, chunk=chunk)
    ).train()  # unclamped


def spectrum(source: Tensor, cbr: str) -> tuple[Tensor, Tensor, int]:
    """Return the variance of all chunks, [B, n], which are sent, and a chunk's size."""
    cut = SoftCastTransmitter(cbr).layout(SHAPE)
    rows = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    planes = torch.einsum("ij,bjhw->bihw", rows / rows.norm(dim=1, keepdim=True), source.double())
    means = planes.mean(dim=(2, 3), keepdim=True)
    rounded = ((means / 3**0.5 + 1) / 2 * 4095).round() / 4095 * 2 - 1
    variance = to_chunks(dct(planes - rounded * 3**0.5), cut).square().mean(dim=2)
    least = variance.sort(dim=1, descending=True).values[:, cut.sent - 1, None]
    return variance, variance >= least, cut.side**2


@pytest.mark.parametrize("cbr", ["1/16", "1/4"])
@pytest.mark.parametrize("snr_db", [0.0, 10.0, 25.0])
def test_the_error_is_that_of_the_closed_form(snr_db: float, cbr: str) -> None:
    source, n0 = photos(), 10 ** (-snr_db / 10)
    error = (softcast(cbr)(source, snr_db, stream(1, "noise", snr_db)) - source).double()
    measured = error.square().sum(dim=(1, 2, 3))
    variance, sent, size = spectrum(source, cbr)
    ladder = torch.exp2(LOWEST + STEP * ((variance.log2() - LOWEST) / STEP).round())
    gain = ladder**-0.25
    expected = size * variance.shape[1] * expected_mse(variance, sent, n0, gain)
    dropped = size * torch.where(sent, 0, variance).sum(dim=1)
    of_sent = size * variance.shape[1] * expected_mse(variance, sent, n0) - dropped
    # sum of squares of nearly normal errors of mean square d: variance at most 2 d^2 each
    power = torch.where(sent, gain.square() * variance, 0)
    power = power * sent.sum(dim=1, keepdim=True) / power.sum(dim=1, keepdim=True)
    d = torch.where(sent, variance * n0 / (power + n0), 0)
    spread = (2 * size * d.square().sum(dim=1)).sqrt()
    # the receiver takes v for at most 2^(1/3) times what it is: L^2 / 4 more, L = ln(2) / 3
    mismatch = 0.015 * of_sent
    assert (measured > expected - 5 * spread).all()
    assert (measured < expected + 5 * spread + mismatch).all()


def test_without_noise_the_error_is_the_energy_of_the_dropped_chunks() -> None:
    source = photos()
    error = softcast("1/8")(source, 120.0, stream(2, "noise")) - source
    variance, sent, size = spectrum(source, "1/8")
    dropped = size * torch.where(sent, 0, variance).sum(dim=1)
    torch.testing.assert_close(
        error.double().square().sum(dim=(1, 2, 3)), dropped, rtol=1e-3, atol=0
    )
    by_hand = variance.sort(dim=1).values[:, : (~sent[0]).sum()]
    torch.testing.assert_close(size * by_hand.sum(dim=1), dropped)  # the least of all


def test_no_other_gains_have_less_error_at_little_noise() -> None:
    variance, sent, _ = spectrum(photos(), "1/16")
    log_gain = (variance.log() * -0.25).requires_grad_()
    n0 = 1e-6
    best = expected_mse(variance, sent, n0, log_gain.exp())
    dropped = torch.where(sent, 0, variance).mean(dim=1)
    (slope,) = torch.autograd.grad((best - dropped).sum(), log_gain)
    # at a minimum all slopes vanish; n0 / p of the weakest chunk is what theory neglects
    assert (slope.abs().sum(dim=1) < 1e-3 * (best - dropped)).all()
    for number in range(20):
        moves = torch.randn(variance.shape, generator=stream(3, "moves", number)).double()
        other = expected_mse(variance, sent, n0, (log_gain + 0.1 * moves).exp())
        assert (other > best).all()


def test_symbols_count_by_the_noise_that_each_met() -> None:
    source = photos()[:1]
    cut = SoftCastTransmitter("1/8").layout(SHAPE)
    symbols, side_info, _ = send(source, cut)
    n0 = torch.full((1, cut.symbols), 1e-12)
    n0[:, ::2] = 1e12  # as where a stream is dead
    garbled = torch.where(n0 > 1, 100.0 + 0j, symbols[:, 0])
    silent = torch.where(n0 > 1, 0j, symbols[:, 0])
    found = receive(garbled, n0, side_info, cut, SHAPE)
    expected = receive(silent, torch.full_like(n0, 1e-12), side_info, cut, SHAPE)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("shape", "cbr"), [((3, 64, 64), "1/6"), ((3, 33, 50), "1/4")])
def test_every_item_has_unit_power_and_its_side_information_its_bits(
    shape: tuple[int, int, int], cbr: str
) -> None:
    transmitter = SoftCastTransmitter(cbr, chunk=8)
    source = torch.rand(3, *shape, generator=stream(4, "images"))
    x, side_info, bits = transmitter(source, CSI(None, torch.ones(3)))
    assert x.shape == (3, 1, transmitter.num_symbols(shape))
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), torch.ones(3))
    assert x.shape[2] <= math.prod(shape) * Fraction(cbr)
    cut = transmitter.layout(shape)
    levels, means, scale = side_info.split([cut.chunks, 3, 1], dim=1)
    assert ((levels > 0).sum(dim=1) == cut.sent).all()
    assert levels.min() == 0 and levels.max() <= 2**VARIANCE_BITS
    assert means.min() >= 0 and means.max() < 2**12 and scale.min() >= 0 and scale.max() < 2**16
    messages = math.comb(cut.chunks, cut.sent) * 2 ** (VARIANCE_BITS * cut.sent + 36 + 16)
    assert bits == pytest.approx(math.log2(messages))


def test_side_information_is_charged() -> None:
    sent = softcast("1/6").transmit(photos(), 4.0, stream(5, "noise"))
    capacity = math.log2(1 + 10**0.4)
    bits = SoftCastTransmitter("1/6").layout(SHAPE).side_info_bits
    assert sent.ledger.side_info == pytest.approx(bits / capacity, rel=1e-5)


def test_all_chunks_without_noise_are_the_image() -> None:
    source = photos()[..., :80, :128]
    estimate = softcast("1/2").eval()(source, 120.0, stream(6, "noise"))
    torch.testing.assert_close(estimate, source, rtol=0, atol=1e-4)


def test_flat_images_arrive_through_the_side_information() -> None:
    levels = torch.tensor([0.0, 0.3, 1.0])[:, None, None, None]
    source = levels.expand(3, 3, 32, 32)
    estimate = softcast("1/6")(source, 0.0, stream(7, "noise"))
    assert (estimate - source).abs().max() < 1 / 255


def test_the_dct_is_orthonormal_and_that_of_scipy() -> None:
    from scipy import fft

    planes = torch.randn(2, 3, 20, 33, generator=stream(10, "planes")).double()
    expected = torch.from_numpy(fft.dctn(planes.numpy(), axes=(2, 3), norm="ortho"))
    torch.testing.assert_close(dct(planes), expected)
    torch.testing.assert_close(inverse_dct(dct(planes)), planes)


def test_the_gradient_is_that_of_the_chunks_that_travel() -> None:
    source = photos()[:2].double().requires_grad_()
    cut = layout(SHAPE, 16, 2000)
    symbols, side_info, _ = send(source, cut)
    n0 = torch.full(symbols[:, 0].shape, 1e-12, dtype=torch.float64)
    weights = torch.randn(source.shape, generator=stream(8, "weights")).double()
    (receive(symbols[:, 0], n0, side_info, cut, SHAPE) * weights).sum().backward()
    # a projection, so what it makes of the weights is what it makes of them as an image
    kept = side_info[:, : cut.chunks] > 0
    rows = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    rows /= rows.norm(dim=1, keepdim=True)
    chunks = to_chunks(dct(torch.einsum("ij,bjhw->bihw", rows, weights)), cut)
    grid = (chunks * kept[..., None]).view(2, 3, cut.down, cut.across, 16, 16).transpose(3, 4)
    plane = grid.reshape(2, 3, 16 * cut.down, 16 * cut.across)[..., :90, :130]
    # back from a plane that was cut at the edges, where chunks hold zeros alone
    expected = torch.einsum("ji,bjhw->bihw", rows, inverse_dct(plane))
    torch.testing.assert_close(source.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("chunk", "cbr", "message"),
    [(3, "1/6", "even side"), (0, "1/6", "even side"), (64, "1/100", "hold no chunk of 64 x 64")],
)
def test_what_does_not_fit_is_refused(chunk: int, cbr: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftCastTransmitter(cbr, chunk=chunk).num_symbols((3, 90, 130))


def test_ends_that_differ_are_refused() -> None:
    link = Link(SoftCastTransmitter("1/6", chunk=8), AWGN(), SoftCastReceiver("1/6", chunk=16))
    with pytest.raises(ValueError, match="same cbr and chunk"):
        link(photos(), 10.0, stream(9, "noise"))


def test_a_grey_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[3, H, W\], got \[1, 64, 64\]"):
        SoftCastTransmitter("1/6").num_symbols((1, 64, 64))
