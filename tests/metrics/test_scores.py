"""Metrics of scores of two classes, and metrics that are of all items together."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from channels import AWGN
from semsim.codecs.no_link import NoLink, NoLinkTransmitter
from semsim.evaluation import Evaluation, Stop
from semsim.intervals import Moments, Tally
from semsim.metrics.base import Outcome
from semsim.metrics.scores import (
    UNSET,
    AveragePrecision,
    BalancedAccuracy,
    RecallAtRate,
    ScoreMetric,
    Sensitivity,
    Specificity,
    average_precision,
    threshold_at,
)
from semsim.tasks.base import Task


def pooled(metric: ScoreMetric, scores: Tensor, target: Tensor) -> float:
    return metric.pool(metric(Outcome(scores[:, None], scores, target)).numpy())


# 4 sites of which 3 are found, 6 others of which 1 is taken for one
SCORES = torch.tensor([2.0, 1, 0.5, -1, -2, -3, -0.5, -0.2, 3, -4])
TARGET = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def test_balanced_accuracy_is_the_mean_of_the_two_recalls_of_a_confusion_matrix() -> None:
    assert pooled(Sensitivity(), SCORES, TARGET) == 3 / 4
    assert pooled(Specificity(), SCORES, TARGET) == 5 / 6
    assert pooled(BalancedAccuracy(), SCORES, TARGET) == (3 / 4 + 5 / 6) / 2


@pytest.mark.parametrize("constant", [-1.0, 1.0])
def test_a_constant_classifier_has_half(constant: float) -> None:
    assert pooled(BalancedAccuracy(), torch.full((10,), constant), TARGET) == 0.5
    # all come in together, so the precision is the share of sites
    assert pooled(AveragePrecision(), torch.full((10,), constant), TARGET) == 0.4


def test_scores_of_a_confident_classifier_stay_apart() -> None:
    scores, target = torch.tensor([100.0, 50, 200, -60, -50]), torch.tensor([1, 0, 1, 0, 1])
    assert pooled(AveragePrecision(), scores, target) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_average_precision_counts_by_hand_also_with_ties() -> None:
    ranks = np.array([5.0, 4, 3, 3, 2, 1])
    yes = np.array([True, False, True, False, False, True])
    # at 5: 1/1; at 3, both together: 2/4; at 1: 3/6
    assert average_precision(ranks, yes) == pytest.approx((1 + 0.5 + 0.5) / 3, abs=1e-15)
    both = average_precision(np.stack([ranks, -ranks]), yes)
    assert both[0] == average_precision(ranks, yes) and both[1] == average_precision(-ranks, yes)


def test_a_threshold_lets_at_most_its_share_pass() -> None:
    scores = np.arange(200.0)
    assert (scores > threshold_at(scores, 0.01)).sum() == 2
    assert (scores > threshold_at(scores, 0.0)).sum() == 0
    assert (scores > threshold_at(scores, 1.0)).all()
    tied = np.ones(100)
    assert not (tied > threshold_at(tied, 0.1)).any()


def test_recalls_have_the_exact_interval_and_others_a_repeatable_one() -> None:
    values = Sensitivity()(Outcome(SCORES[:, None], SCORES, TARGET)).numpy()
    moments = Moments()
    moments.add([1, 1, 1, 0])
    assert Sensitivity().pool_interval(values) == moments.interval()
    assert np.isnan(Sensitivity().pool_interval(-np.abs(values))).all()
    low, high = BalancedAccuracy().pool_interval(values)
    assert low <= BalancedAccuracy().pool(values) <= high
    assert (low, high) == BalancedAccuracy().pool_interval(values)
    assert np.isnan(BalancedAccuracy().pool_interval(values[:4])).all()


@pytest.mark.parametrize(("yes", "no", "shares"), [(50, 100, (0.7, 0.8)), (20, 400, (0.95, 0.9))])
def test_the_interval_covers_the_true_balanced_accuracy(
    yes: int, no: int, shares: tuple[float, float]
) -> None:
    rng, held, rounds = np.random.default_rng(1), 0, 200
    for _ in range(rounds):
        values = np.where(rng.random(yes + no) < np.repeat(shares, [yes, no]), 0.9, 0.1)
        values[yes:] = -(1 - values[yes:])
        low, high = BalancedAccuracy().pool_interval(values)
        held += low <= sum(shares) / 2 <= high
    # 95 % of 200 less five standard deviations
    assert held >= 190 - 5 * (200 * 0.95 * 0.05) ** 0.5


class RecallAtTenth(RecallAtRate):
    share = 0.1


def test_few_items_without_an_error_leave_room_for_some() -> None:
    values = np.concatenate([np.full(5, 0.9), np.full(1000, -0.1)])  # 5 of 5 and 1,000 of 1,000
    reach = 1 - 0.025 ** (1 / 5)  # exact, of the recall of class 1
    low, high = BalancedAccuracy().pool_interval(values)
    assert low == pytest.approx(1 - math.hypot(reach, 1 - 0.025 ** (1 / 1000)) / 2)
    assert high == 1
    assert RecallAtTenth().pool_interval(values) == pytest.approx((1 - reach, 1))
    assert np.isnan(AveragePrecision().pool_interval(values)).all()  # all draws agree
    assert np.isnan(RecallAtTenth().pool_interval(values[:6])).all()  # one item of class 0


class Brightness(Task):
    """Scores tiles by their mean."""

    def forward(self, estimate: Tensor) -> Tensor:
        return estimate.flatten(1).mean(dim=1, keepdim=True) - 0.5


class Greys:
    """Grey tiles, of which the bright ones are of class 1."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), self.values[index]), index % 2


def rows_of(values: list[float], batch_size: int) -> list[dict[str, object]]:
    evaluation = Evaluation(
        NoLink(NoLinkTransmitter(), AWGN()), Greys(values), snr_db=[0.0], task=Brightness(),
        metrics=["balanced_accuracy", "average_precision"], batch_size=batch_size,
    )  # fmt: skip
    evaluation.run()
    return evaluation.rows()


def test_batches_do_not_change_what_all_items_give() -> None:
    values = [0.2, 0.8, 0.6, 0.9, 0.1, 0.4, 0.3]
    for one, other in zip(rows_of(values, 2), rows_of(values, 7), strict=True):
        assert one["value"] == other["value"] and one["ci_low"] == other["ci_low"]


def test_items_of_one_class_say_nothing_and_no_number_is_made_up() -> None:
    for row in rows_of([0.4], 1):
        assert np.isnan([row["value"], row["ci_low"], row["ci_high"]]).all()


def test_what_a_pooled_metric_keeps_survives_the_journal() -> None:
    metric = BalancedAccuracy()
    moments = Moments(kept=[])
    moments.add(metric(Outcome(SCORES[:, None], SCORES, TARGET)).numpy())
    tally = Tally.from_dict(json.loads(json.dumps(Tally([moments]).as_dict())))
    assert tally.values[0].kept == moments.kept
    assert metric.pool(np.array(tally.values[0].kept)) == pooled(metric, SCORES, TARGET)


def test_other_outputs_and_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="reads scores of two classes"):
        Sensitivity()(Outcome(torch.rand(2, 3, 8, 8), torch.rand(2), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="payload of two classes"):
        Sensitivity()(Outcome(torch.rand(2, 1), torch.rand(2), torch.tensor([0, 5])))


def test_a_stop_rule_may_ask_for_the_interval_of_a_pooled_metric() -> None:
    evaluation = Evaluation(
        NoLink(NoLinkTransmitter(), AWGN()), Greys([0.2, 0.8] * 50), snr_db=[0.0],
        task=Brightness(), metrics=["balanced_accuracy"], stop=Stop(10, 100, ci95=0.1),
        batch_size=20,
    )  # fmt: skip
    evaluation.run()
    # no error: half of (1 - 0.025^(2 / n)) / sqrt(2) falls to 0.1 between 20 and 40 items
    assert evaluation.rows()[0]["n"] == 40


def test_recall_at_a_rate_needs_both_classes() -> None:
    class Few(RecallAtRate):
        name, share = "few", 0.4

    # of six others two may pass, so the threshold is that of the third, -0.5
    assert pooled(Few(), SCORES, TARGET) == 3 / 4
    assert np.isnan(pooled(Few(), SCORES[:4], TARGET[:4]))
    assert np.isnan(pooled(Few(), SCORES[4:], TARGET[4:]))


def test_a_threshold_that_nobody_set_is_refused() -> None:
    with pytest.raises(ValueError, match="sensitivity needs a threshold of the task"):
        pooled(Sensitivity(), SCORES - UNSET, TARGET)


def test_errors_of_all_items_together_are_not_counted() -> None:
    with pytest.raises(ValueError, match="sensitivity is of all items together; write ci95"):
        Stop(errors=15).check_metrics([Sensitivity()])
