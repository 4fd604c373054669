"""Means, robust rules, compression and privacy, each against a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from semsim import stream
from semsim.federated import rules
from semsim.federated.compression import bits_of, decode, encode
from semsim.federated.privacy import clipped, epsilon, noise_like
from semsim.federated.settings import FederatedSpec


def weights(number: int, scale: float = 1.0) -> dict[str, Tensor]:
    made = stream(number, "weights")
    return {
        "a": scale * torch.randn(4, 5, generator=made),
        "b": scale * torch.randn(7, generator=made),
        "count": torch.tensor(3 + number),
    }


def mean(parts: list[tuple[dict[str, Tensor], float]]) -> dict[str, Tensor]:
    found = rules.Mean()
    for part, weight in parts:
        found.add(part, weight)
    return found.result()


def test_the_mean_of_equal_weights_is_those_weights() -> None:
    same = weights(1)
    found = mean([(same, 3.0), (same, 11.0), (same, 7.0)])
    assert all(torch.equal(found[n].to(same[n].dtype), same[n]) for n in same)


def test_the_mean_counts_items() -> None:
    one, other = weights(1), weights(2)
    found = mean([(one, 30.0), (other, 10.0)])["a"]
    torch.testing.assert_close(found, (0.75 * one["a"] + 0.25 * other["a"]).double())


def test_robust_rules_bear_with_one_false_update() -> None:
    true = [weights(1) for _ in range(4)]
    for number, part in enumerate(true):
        part["a"] = part["a"] + 0.01 * number
    stack = [*true[:2], weights(9, 1e6), *true[2:]]
    for found in (rules.median(stack), rules.trimmed_mean(stack, 0.2)):
        assert (found["a"] >= true[0]["a"] - 1e-6).all()
        assert (found["a"] <= true[3]["a"] + 1e-6).all()
    assert rules.krum(stack, 1) != 2
    broken = mean([(part, 1.0) for part in stack])
    assert (broken["a"] - true[0]["a"]).abs().max() > 1e4  # and what the mean makes of it


def test_a_trimmed_mean_leaves_out_both_ends() -> None:
    stack = [{"a": torch.tensor([float(v)])} for v in (1, 2, 3, 4, 100)]
    assert rules.trimmed_mean(stack, 0.2)["a"].item() == 3
    assert [rules.trimmed(n, 0.2) for n in (1, 2, 3, 10)] == [0, 0, 1, 2]
    assert rules.trimmed(10, 0.0) == 0
    assert rules.median(stack[:4])["a"].item() == 2.5


@pytest.mark.parametrize(("kind", "bits"), [("none", 32), ("bf16", 16), ("int8", 8)])
def test_what_travels_is_counted_and_read_within_its_steps(kind: str, bits: int) -> None:
    before, after = weights(1), weights(1)
    moved = {n: 0.1 * weights(5)[n] for n in ("a", "b")}
    after |= {n: after[n] + moved[n] for n in moved}
    sent, _ = encode(kind, after, before)
    extra = 64 + (2 * 32 if kind == "int8" else 0)  # the count; a scale per tensor
    assert bits_of(sent) == 27 * bits + extra
    found = decode(kind, sent, before)
    for name in ("a", "b"):
        rounding = {"none": 0, "bf16": 2.0**-8, "int8": 0.5 / 127}[kind]
        bound = rounding * moved[name].abs().max() + 1e-6
        assert (found[name] - after[name]).abs().max() <= bound
    assert found["count"] == after["count"]


def test_top_k_sends_the_largest_and_keeps_the_rest_for_later() -> None:
    before, after = weights(1), weights(2)
    sent, kept = encode("top_k", after, before, share=0.2)
    assert len(sent["places"]) == 5 and bits_of(sent) == 5 * 64 + 64
    moved = torch.cat([(after[n] - before[n]).flatten() for n in ("a", "b")])
    assert sent["values"].abs().min() >= kept.abs().max()
    found = decode("top_k", sent, before)
    got = torch.cat([(found[n] - before[n]).flatten() for n in ("a", "b")])
    torch.testing.assert_close(got + kept, moved)
    still = {n: v.clone() for n, v in before.items()}
    again, rest = encode("top_k", still, before, share=1.0, residual=kept)
    assert not rest.any() and len(again["values"]) == 27
    torch.testing.assert_close(again["values"], kept)  # nothing is lost in the end


def test_a_change_is_cut_to_the_norm() -> None:
    before, after = weights(1), weights(2)
    length = math.sqrt(sum((after[n] - before[n]).square().sum().item() for n in ("a", "b")))
    cut = clipped(after, before, length / 2)
    for name in ("a", "b"):
        torch.testing.assert_close(cut[name] - before[name], (after[name] - before[name]) / 2)
    assert clipped(after, before, 2 * length) is after


def test_epsilon_is_that_of_the_gaussian_mechanism() -> None:
    # T a / (2 z^2) + log(1 / delta) / (a - 1) is least at a = 1 + z sqrt(2 log(1 / delta) / T)
    z, rounds, delta = 4.0, 20, 1e-5
    best = rounds / (2 * z**2) + math.sqrt(2 * rounds * math.log(1 / delta)) / z
    assert best <= epsilon(z, rounds, delta) < 1.001 * best
    assert epsilon(0.0, 5, delta) == math.inf and epsilon(1.0, 0, delta) == 0
    assert epsilon(z, 2 * rounds, delta) > epsilon(z, rounds, delta)


def test_noise_has_its_standard_deviation() -> None:
    noise = noise_like(torch.zeros(20_000), 3.0, "noise")
    assert abs(noise.std().item() / 3 - 1) < 5 / math.sqrt(2 * 20_000)
    assert abs(noise.mean().item() / 3) < 5 / math.sqrt(20_000)
    assert abs((noise.abs() < 3).double().mean() - math.erf(math.sqrt(0.5))) < 5 * math.sqrt(
        0.22 / 20_000
    )
    assert torch.equal(noise, noise_like(torch.zeros(20_000), 3.0, "noise"))
    other = noise_like(torch.zeros(20_000), 3.0, "other")
    assert abs((noise * other).mean().item() / 9) < 5 / math.sqrt(20_000)
    assert noise_like(torch.zeros(()), 1.0, "a").shape == ()
    assert noise_like(torch.zeros(0, 2), 1.0, "a").shape == (0, 2)


def test_replacing_a_change_is_twice_as_far_as_leaving_it_out() -> None:
    # of one round of cohorts alike but for one client, whose change turns round
    clip, before = 0.5, {"a": torch.zeros(8)}
    others = [
        clipped({"a": torch.randn(8, generator=stream(k, "c"))}, before, clip) for k in (1, 2)
    ]
    mine = clipped({"a": torch.ones(8)}, before, clip)

    def total(change: Tensor) -> Tensor:
        return 3 * mean([(part, 1.0) for part in (*others, {"a": change})])["a"]

    left_out = (total(mine["a"]) - total(torch.zeros(8))).norm().item()
    replaced = (total(mine["a"]) - total(-mine["a"])).norm().item()
    assert left_out == pytest.approx(clip, rel=1e-5) and replaced == pytest.approx(
        2 * clip, rel=1e-5
    )
    assert epsilon(1.0, 10, 1e-5) == pytest.approx(20.2, abs=0.1)
    assert epsilon(0.5, 10, 1e-5) == pytest.approx(50.4, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mu": -1.0}, "mu is at least 0, got -1.0"),
        ({"delta": 1.0}, "delta is a probability below 1, got 1.0"),
        ({"aggregation": "fedAvg"}, "aggregation 'fedAvg' is not one of fedavg, fedprox"),
        ({"tasks": ("reconstruct", "see")}, "tasks 'see' is not one of reconstruct, classify"),
        ({"clients": 2, "byzantine": 5}, "byzantine is a number of clients, 0 to 2, got 5"),
    ],
)
def test_a_setting_beyond_its_range_is_named_alone(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FederatedSpec(**settings)
