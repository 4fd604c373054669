"""What the shipped latent denoiser has learned, on photos that the dependencies carry."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from channels import AWGN, Impulsive
from channels.base import CSI, complex_normal
from semsim import Link, Stop, evaluate, stream, zoo
from semsim.codecs.latent_denoiser import LatentDenoiser, similarity
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.metrics.image import PSNR
from semsim.payloads.photos import Photos

BLIND, MISLED = "deepjscc2019-cifar-1-6", "swin-cifar-1-6"  #: to the SNR, and by mean noise
SHAPE = (3, 32, 32)  # what they were trained on


@functools.cache
def ends(codec: str) -> tuple[Any, LatentDenoiser]:
    parts: dict[str, Any] = zoo.build(f"latent-denoiser-{codec}")
    return parts["transmitter"], parts["receiver"]


def noise(snr_db: float, batch: int = 5) -> Tensor:
    return torch.full((batch,), 10 ** (-snr_db / 10))


@torch.no_grad()
def trajectory(
    codec: str, snr_db: float, told_db: float | None = None
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Latents of a whole trajectory, the clean one, and the scores that the network was told."""
    transmitter, receiver = ends(codec)
    payload = Photos(crop=32)
    images = torch.stack([payload[i][0] for i in range(5)])
    n0 = noise(snr_db)
    x = transmitter(images, CSI(None, n0))
    y = x + n0.sqrt()[:, None, None] * complex_normal(tuple(x.shape), stream(1, "noise", snr_db))
    latent = receiver.to_grid(y / (1 + n0)[:, None, None], SHAPE)
    trust = (1 / (1 + n0))[:, None, None, None].expand_as(latent)[:, ::2]
    scores, steps = receiver.plan(similarity(noise(snr_db if told_db is None else told_db)))
    most = torch.full_like(steps, receiver.predictor.max_steps)
    walk = [z.latent for z in receiver.refine(latent, trust, scores, most)]
    return walk, receiver.to_grid(x, SHAPE), scores


@pytest.mark.parametrize("codec", [BLIND])
def test_steps_fall_with_the_snr_from_several_to_none(codec: str) -> None:
    steps = ends(codec)[1].plan(similarity(10 ** (torch.linspace(-10, 15, 51) / -10)))[1]
    assert (steps.diff() <= 0).all()
    assert steps[0] >= 2
    assert steps[-1] == 0


@pytest.mark.parametrize("snr_db", [-10.0, -5.0, 0.0])
@pytest.mark.parametrize("codec", [BLIND])
def test_similarity_rises_and_ends_where_it_was_predicted(codec: str, snr_db: float) -> None:
    latents, clean, scores = trajectory(codec, snr_db)
    true = torch.stack(
        [nn.functional.cosine_similarity(z.flatten(1), clean.flatten(1)).mean() for z in latents]
    )
    planned = int(ends(codec)[1].plan(similarity(noise(snr_db)))[1][0])
    assert (true[: planned + 1].diff() > 0).all()
    assert abs(true[planned] - scores[:, planned].mean()) < 0.05  # as the specification asks


@pytest.mark.parametrize("codec", [BLIND])
def test_a_wrong_score_leaves_a_larger_error(codec: str) -> None:
    right, clean, _ = trajectory(codec, -5.0)
    wrong, _, _ = trajectory(codec, -5.0, told_db=10.0)
    errors = [(z[2] - clean).square().mean() for z in (right, wrong)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("codec", [BLIND, MISLED])
def test_symbols_have_unit_power_and_the_snr_is_what_was_asked(codec: str) -> None:
    transmitter, _ = ends(codec)
    x = transmitter(torch.rand(8, 3, 64, 64, generator=stream(2, "images")), CSI(None, noise(0, 8)))
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), torch.ones(8))
    state = AWGN().draw(8, x.shape[2], stream(3, "state"))
    left = AWGN()(x, state, noise(0, 8), stream(4, "noise")) - x
    # 16,384 symbols: the mean power has a standard error of 1 / 128 or 0.034 dB
    assert abs(10 * left.abs().square().mean().log10()) < 0.1


def psnr(
    transmitter: Any, receiver: Any, snr_db: float, *, channel: Any = None, items: int = 5
) -> float:
    link = Link(transmitter, channel or AWGN(), receiver).eval()
    rows = evaluate(
        link, Photos(crop=32), snr_db=[snr_db], metrics=[PSNR()], seed=7, batch_size=5,
        stop=Stop(1, items),
    )  # fmt: skip
    return rows[0]["value"]


@pytest.mark.parametrize("burst_uses", [1, 16])
def test_over_impulses_it_is_ahead_of_the_codec_that_it_leaves_alone(burst_uses: int) -> None:
    plain: dict[str, Any] = zoo.build(MISLED)
    channel = Impulsive(0.03, -12.0, burst_uses)
    cleaned, before = (
        psnr(*both, 10.0, channel=channel, items=100)
        for both in (ends(MISLED), (plain["transmitter"], plain["receiver"]))
    )
    assert cleaned > before + 1  # 2.6 and 2.8 dB were measured on CIFAR-10


def test_delta_may_be_another_than_that_of_the_weights() -> None:
    receiver = LatentDenoiser.around(SwinReceiver)
    name = f"latent-denoiser-{MISLED}"
    spec = {**ends(MISLED)[1].spec, "delta": 0.2}
    transmitter, other = SwinTransmitter("1/6"), receiver(**spec)
    zoo.load(name, transmitter, other)
    assert (ends(MISLED)[1].delta, other.delta) == (0.003, 0.2)
    assert not other.plan(similarity(noise(-5.0)))[1].any()


def test_where_nothing_is_to_be_gained_it_takes_no_step() -> None:
    # below -6 dB it falls again, to 1 at -10 dB: there is less to be gained at all
    steps = ends(MISLED)[1].plan(similarity(10 ** (torch.linspace(-6, 15, 43) / -10)))[1]
    assert (steps.diff() <= 0).all()
    assert (steps[0], steps[-1]) == (2, 0)
    plain: dict[str, Any] = zoo.build(MISLED)
    assert psnr(*ends(MISLED), 15.0) == psnr(plain["transmitter"], plain["receiver"], 15.0)


@pytest.mark.parametrize("snr_db", [-10.0, -5.0, 0.0])
def test_a_decoder_blind_to_the_snr_needs_its_steps(snr_db: float) -> None:
    transmitter, receiver = ends(BLIND)
    cleaned = psnr(transmitter, receiver, snr_db)
    receiver.steps = 0
    try:
        plain = psnr(transmitter, receiver, snr_db)
    finally:
        receiver.steps = None
    assert cleaned > plain + 1
