"""The learned masking ratio: its divergence, its phases, what it depends on."""

from __future__ import annotations

import math

import pytest
import torch

from semsim import stream
from semsim.codecs.lcfsc.ratio import (
    OPEN_RATIOS,
    RELEASE_RATIOS,
    SECOND_PHASE,
    RatioGenerator,
    gaussian_kl,
)


def normal(*shape: int, label: str = "normal") -> torch.Tensor:
    return torch.randn(shape, generator=stream(1, label, shape))


def generator() -> RatioGenerator:
    torch.manual_seed(2)
    return RatioGenerator(6, 9, hidden=(32, 16))


def test_the_closed_form_of_the_divergence_equals_monte_carlo() -> None:
    mean_q, log_var_q, mean_p, log_var_p = 0.5 * normal(4, 1, 8)
    closed = gaussian_kl(mean_q, log_var_q, mean_p, log_var_p)
    draws = 200_000
    u = mean_q + (log_var_q / 2).exp() * torch.randn(draws, 8, generator=stream(3, "draws"))
    log_q = -0.5 * (log_var_q + (u - mean_q).square() / log_var_q.exp())
    log_p = -0.5 * (log_var_p + (u - mean_p).square() / log_var_p.exp())
    samples = (log_q - log_p).mean(dim=1)
    z = (samples.mean() - closed) / (samples.std() / math.sqrt(draws))
    assert z.abs() < 5


def test_the_divergence_is_zero_for_equals_and_never_negative() -> None:
    parts = normal(4, 1000, 8)
    assert gaussian_kl(*parts[:2], *parts[:2]) == 0
    each = [gaussian_kl(*(p[i] for p in parts)) for i in range(1000)]
    assert min(each) >= 0


def test_ratios_lie_between_the_candidates_and_vary_with_source_and_channel() -> None:
    ratios = generator().eval()
    latent, facts, first = normal(2, 6, 16, 16), normal(2, 9), ratios.first_choice(2)
    choice = ratios(latent, facts, first)
    torch.testing.assert_close(choice.sum(dim=1), torch.ones(2))
    ratio = ratios.ratio(choice)
    assert min(RELEASE_RATIOS) < ratio.min() and ratio.max() < max(RELEASE_RATIOS)
    assert (ratio != ratios.ratio(ratios(latent, facts.flip(0), first))).all()
    assert (ratio != ratios.ratio(ratios(latent.flip(0), facts, first))).all()
    assert torch.equal(choice, ratios(latent, facts, first))


def test_the_first_choice_is_the_fifth_candidate() -> None:
    ratios = generator()
    torch.testing.assert_close(ratios.ratio(ratios.first_choice(3)), torch.full((3,), 0.009))


@pytest.mark.parametrize("seed", range(3))
def test_an_open_start_masks_less_than_a_pair_and_still_has_a_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    ratios = RatioGenerator(6, 9, candidates=OPEN_RATIOS, hidden=(32, 16), start_open=True).train()
    first = ratios.first_choice(4)
    assert torch.equal(ratios.ratio(first), torch.zeros(4))
    ratio = ratios.ratio(ratios(normal(4, 6, 16, 16), normal(4, 9), first))
    assert ratio.min() > 0 and ratio.max() < 0.5 / 64**2
    ratio.sum().backward()
    # as if the others were weighed among themselves: the mean of theirs, 0.5, per item
    assert ratios.recognise[-1].bias.grad[0] == pytest.approx(-4 * 0.5, rel=0.2)


def test_the_two_losses_count_in_the_second_phase_only() -> None:
    ratios = generator().train()
    assert ratios.auxiliary_loss(1.0) == 0
    for progress in (SECOND_PHASE - 0.01, SECOND_PHASE):
        ratios(normal(2, 6, 16, 16), normal(2, 9), ratios.first_choice(2))
        assert (ratios.auxiliary_loss(progress) > 0) == (progress == SECOND_PHASE)
        assert ratios.auxiliary_loss(1.0) == 0  # handed out once


def test_with_masks_that_start_open_both_losses_count_from_the_start() -> None:
    ratios = RatioGenerator(6, 9, hidden=(32, 16), start_open=True).train()
    ratios(normal(2, 6, 16, 16), normal(2, 9), ratios.first_choice(2))
    assert ratios.auxiliary_loss(0.0) > 0


def test_gradients_reach_every_part_of_the_autoencoder() -> None:
    ratios = generator().train()
    choice = ratios(normal(2, 6, 16, 16), normal(2, 9), ratios.first_choice(2))
    (ratios.ratio(choice).sum() + ratios.auxiliary_loss(1.0)).backward()
    silent = [n for n, p in ratios.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_losses_fall_when_they_are_trained_and_items_stay_apart() -> None:
    ratios = generator().train()
    optimiser = torch.optim.Adam(ratios.parameters(), lr=3e-3)
    latent = normal(16, 6, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    facts, losses = normal(16, 9), []
    for _ in range(150):
        ratios(latent, facts, ratios.first_choice(16))
        loss = ratios.auxiliary_loss(1.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    choice = ratios.eval()(latent, facts, ratios.first_choice(16))
    assert ratios.ratio(choice).std() > 1e-4  # 1 % of the ratios; collapsed it is 1e-9


def test_training_draws_from_the_generator() -> None:
    ratios, latent, facts = generator().train(), normal(2, 6, 16, 16), normal(2, 9)
    one, again, other = (
        ratios(latent, facts, ratios.first_choice(2), stream(n, "ratio")) for n in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("candidates", [[], [0.1, 1.5], [-0.1]])
def test_candidates_are_shares(candidates: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        RatioGenerator(6, 9, candidates=candidates)
