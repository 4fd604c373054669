"""What the shipped latent denoiser has learned, on photos that the dependencies carry."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from channels import AWGN
from channels.base import CSI, complex_normal
from semsim import Link, evaluate, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser, similarity
from semsim.metrics.image import PSNR
from semsim.payloads.photos import Photos

NAME, CODEC = "latent-denoiser-deepjscc-cifar-1-6", "deepjscc-cifar-1-6"
SNRS = [-10.0, -7.0, -5.0, -3.0, 0.0, 3.0, 5.0, 10.0, 15.0]
SHAPE = (3, 32, 32)  # what it was trained on; its GroupNorm does not carry over to more


@functools.cache
def ends() -> tuple[DeepJSCCTransmitter, LatentDenoiser]:
    return zoo.pair(NAME, DeepJSCCTransmitter, LatentDenoiser.around(DeepJSCCReceiver))


def noise(snr_db: float, batch: int = 5) -> Tensor:
    return torch.full((batch,), 10 ** (-snr_db / 10))


@torch.no_grad()
def trajectory(snr_db: float, told_db: float | None = None) -> tuple[list[Tensor], Tensor, Tensor]:
    """Latents of a whole trajectory, the clean one, and the scores that the network was told."""
    transmitter, receiver = ends()
    payload = Photos(crop=32)
    images = torch.stack([payload[i][0] for i in range(5)])
    n0 = noise(snr_db)
    x = transmitter(images, CSI(None, n0))
    y = x + n0.sqrt()[:, None, None] * complex_normal(tuple(x.shape), stream(1, "noise", snr_db))
    latent = receiver.to_grid(y / (1 + n0)[:, None, None], SHAPE)
    trust = (1 / (1 + n0))[:, None, None, None].expand_as(latent)[:, ::2]
    scores, steps = receiver.plan(similarity(noise(snr_db if told_db is None else told_db)))
    most = torch.full_like(steps, receiver.predictor.max_steps)
    return receiver.refine(latent, trust, scores, most), receiver.to_grid(x, SHAPE), scores


def test_steps_fall_with_the_snr_from_several_to_none() -> None:
    steps = ends()[1].plan(similarity(10 ** (torch.linspace(-10, 15, 51) / -10)))[1]
    assert (steps.diff() <= 0).all()
    assert steps[0] >= 2
    assert steps[-1] == 0


@pytest.mark.parametrize("snr_db", [-10.0, -5.0, 0.0])
def test_similarity_rises_and_ends_where_it_was_predicted(snr_db: float) -> None:
    latents, clean, scores = trajectory(snr_db)
    true = torch.stack(
        [nn.functional.cosine_similarity(z.flatten(1), clean.flatten(1)).mean() for z in latents]
    )
    planned = int(ends()[1].plan(similarity(noise(snr_db)))[1][0])
    assert (true[: planned + 1].diff() > 0).all()
    assert abs(true[planned] - scores[:, planned].mean()) < 0.05  # as the specification asks


def test_a_wrong_score_leaves_a_larger_error() -> None:
    right, clean, _ = trajectory(-5.0)
    wrong, _, _ = trajectory(-5.0, told_db=10.0)
    errors = [(z[2] - clean).square().mean() for z in (right, wrong)]
    assert errors[0] < errors[1]


def test_symbols_have_unit_power_and_the_snr_is_what_was_asked() -> None:
    transmitter, _ = ends()
    x = transmitter(torch.rand(8, 3, 64, 64, generator=stream(2, "images")), CSI(None, noise(0, 8)))
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), torch.ones(8))
    state = AWGN().draw(8, x.shape[2], stream(3, "state"))
    left = AWGN()(x, state, noise(0, 8), stream(4, "noise")) - x
    # 16,384 symbols: the mean power has a standard error of 1 / 128 or 0.034 dB
    assert abs(10 * left.abs().square().mean().log10()) < 0.1


@pytest.mark.parametrize(("snr_db", "gain_db"), [(-10.0, 0.0), (-5.0, 0.0)])
def test_it_beats_the_codec_that_it_started_from_at_low_snr(snr_db: float, gain_db: float) -> None:
    plain = zoo.pair(CODEC, DeepJSCCTransmitter, DeepJSCCReceiver)
    psnr = [
        evaluate(
            Link(pair[0], AWGN(), pair[1]).eval(), Photos(crop=32), snr_db=[snr_db],
            metrics=[PSNR()], seed=7, batch_size=5,
        )[0]["value"]
        for pair in (ends(), plain)
    ]  # fmt: skip
    assert psnr[0] - psnr[1] > gain_db
