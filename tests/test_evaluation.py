"""Monte Carlo: the same draws for all, honest intervals, the stop rule, and nobody cheats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_parts import Error, Negative, ToyChannel, ToyPayload, ToyReceiver, ToyTransmitter

from semsim.evaluation import Evaluation, Stop, device_of, evaluate
from semsim.intervals import Moments
from semsim.link import Link
from semsim.measuring import Place
from semsim.metrics.base import Metric
from semsim.types import AnyLink, Ledger, Transmission


def link(**transmitter: Any) -> Link:
    return Link(ToyTransmitter(**transmitter), ToyChannel(), ToyReceiver())


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_the_error_of_an_analog_link_is_the_noise_power() -> None:
    (row,) = evaluate(link(), ToyPayload(items=2000), snr_db=[10.0], metrics=[Error()])
    sigma = row["ci_high"] - row["value"]  # 1.96 standard errors
    assert abs(row["value"] - 0.05) < 5 / 1.96 * sigma  # n0 = 0.1, half of it per real value
    assert row["n"] == 2000
    assert row["cbr"] == 0.5
    assert row["power"] == pytest.approx(1, abs=1e-6)


def test_an_snr_alone_gives_the_same_digits_as_among_others() -> None:
    payload = ToyPayload(items=50, mixed=True)
    options: dict[str, Any] = {"metrics": [Error(), Negative()], "batch_size": 8}
    together = evaluate(link(), payload, snr_db=[0.0, 5.0, 10.0], **options)
    alone = evaluate(link(), payload, snr_db=[5.0], **options)
    assert without_seconds(together[2:4]) == without_seconds(alone)


def test_metrics_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 metrics are called error, but .* keep one"):
        evaluate(link(), ToyPayload(), snr_db=[0.0], metrics=[Error(), Negative(), Error()])


def test_all_snrs_and_schemes_meet_the_same_noise() -> None:
    class Noise(Metric):
        name, better = "noise", "lower"

        def __call__(self, outcome: Any) -> Tensor:
            sent = outcome.transmission
            return (sent.received - sent.symbols).abs().square().mean(dim=(1, 2))

    rows = [
        row
        for mode in ("plain", "negative")
        for row in evaluate(link(mode=mode), ToyPayload(), snr_db=[0.0, 20.0], metrics=[Noise()])
    ]
    scaled = [row["value"] * 10 ** (row["snr_db"] / 10) for row in rows]
    assert scaled == pytest.approx([scaled[0]] * 4, rel=1e-4)  # float32 rounding


def test_beyond_its_size_the_payload_comes_again_with_new_noise() -> None:
    payload = ToyPayload(items=10)
    once = evaluate(link(), payload, snr_db=[3.0], metrics=[Error()])
    twice = evaluate(
        link(), payload, snr_db=[3.0], metrics=[Error()], stop=Stop(max_items=20), batch_size=10
    )
    assert twice[0]["n"] == 20
    assert twice[0]["value"] != once[0]["value"]


def test_a_metric_may_be_named() -> None:
    options: dict[str, Any] = {"snr_db": [3.0]}
    named = evaluate(link(), ToyPayload(), metrics=["toy_parts:Error"], **options)
    assert without_seconds(named) == without_seconds(
        evaluate(link(), ToyPayload(), metrics=[Error()], **options)
    )


def test_a_transmitter_that_does_not_see_the_snr_encodes_once_per_batch() -> None:
    sender = link()
    evaluate(sender, ToyPayload(items=40), snr_db=[0.0, 1.0, 2.0], metrics=[Error()], batch_size=10)
    assert sender.transmitter.calls == 4


def test_an_snr_that_reached_its_goal_drops_out() -> None:
    rows = evaluate(
        link(),
        ToyPayload(items=5000),
        snr_db=[0.0, 20.0],
        metrics=[Error()],
        stop=Stop(min_items=20, ci95=0.02),
        batch_size=20,
    )
    noisy, clean = rows
    assert clean["n"] == 20
    assert 20 < noisy["n"] < 5000
    assert (noisy["ci_high"] - noisy["ci_low"]) / 2 <= 0.02


def test_counting_errors_stops_a_point() -> None:
    options: dict[str, Any] = {"snr_db": [0.0], "metrics": [Negative()], "batch_size": 4}
    stop = Stop(min_items=1, errors=10)
    (row,) = evaluate(link(), ToyPayload(items=1000), stop=stop, **options)
    assert 10 <= row["value"] * row["n"] < 14


def test_a_row_says_that_it_rests_on_few_items() -> None:
    options: dict[str, Any] = {"snr_db": [0.0], "metrics": [Error()]}
    few = [evaluate(link(), ToyPayload(items=n), **options)[0]["few_items"] for n in (9, 10)]
    assert few == [True, False]


def test_a_metric_that_names_its_worst_value_allows_for_failures_not_seen() -> None:
    class Bounded(Error):
        worst = 1.0

    rows = [
        evaluate(link(), ToyPayload(items=8), snr_db=[10.0], metrics=[metric])[0]
        for metric in (Error(), Bounded())
    ]
    assert rows[0]["ci_low"] == rows[1]["ci_low"]
    assert rows[1]["ci_high"] == pytest.approx(0.75 * rows[1]["value"] + 0.25)


def test_items_of_several_shapes_share_a_batch_without_mixing() -> None:
    (row,) = evaluate(
        link(), ToyPayload(items=30, mixed=True), snr_db=[5.0], metrics=[Error()], batch_size=7
    )
    assert row["n"] == 30
    assert row["uses_payload"] == pytest.approx((10 * 8 + 20 * 4) / 30)


def test_a_link_that_sends_too_much_power_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ToyTransmitter sends a mean power of 1\.02 at snr_db"):
        evaluate(link(power=1.02), ToyPayload(), snr_db=[0.0], metrics=[Error()])


def test_a_single_item_with_too_much_power_is_refused_at_its_batch() -> None:
    class Loud(ToyTransmitter):
        def forward(self, source: Tensor, csi: Any, *rest: Any) -> Tensor:
            share = torch.full((len(source), 1, 1), 0.9)
            share[5] = 1.9
            return super().forward(source, csi) * share.sqrt()

    loud = Link(Loud(), ToyChannel(), ToyReceiver())
    seen: list[int] = []
    options: Any = {"snr_db": [0.0], "metrics": [Error()], "batch_size": 10}
    with pytest.raises(ValueError, match=r"Loud sends a mean power of 1\.9 .* in item 5"):
        Evaluation(loud, ToyPayload(), **options).run(lambda evaluation: seen.append(1))
    assert not seen


def test_a_link_without_parameters_is_where_it_was_moved() -> None:
    assert device_of(AnyLink()) == torch.device("cpu")
    assert device_of(AnyLink().to("meta")) == torch.device("meta")
    assert not AnyLink().state_dict()


def test_points_of_a_constellation_may_stray_by_chance_but_not_on_average() -> None:
    class Points(ToyTransmitter):
        constellation = True

        def forward(self, source: Tensor, csi: Any, *rest: Any) -> Tensor:
            levels = torch.tensor([1.0, 3.0])[(source > 0.5).long()] / 10**0.5  # 16-QAM's levels
            return (self.power**0.5 * torch.complex(*levels.unflatten(1, (-1, 2)).unbind(-1)))[
                :, None
            ]

    def row(power: float) -> Any:
        sender = Link(Points(power), ToyChannel(), ToyReceiver())
        return evaluate(sender, ToyPayload(2000), snr_db=[0.0], metrics=[Error()])[0]

    assert row(1.0)["power"] == pytest.approx(1, abs=5 * (0.32 / 4 / 2000) ** 0.5)
    with pytest.raises(ValueError, match="over 2000 items"):
        row(1.05)


def test_one_percent_too_much_is_within_the_tolerance() -> None:
    assert evaluate(link(power=1.009), ToyPayload(), snr_db=[0.0], metrics=[Error()])


def test_an_estimate_with_nan_is_refused() -> None:
    broken = Link(ToyTransmitter(), ToyChannel(), ToyReceiver(bad="nan"))
    with pytest.raises(ValueError, match="holds NaN or infinity at snr_db = 4"):
        evaluate(broken, ToyPayload(), snr_db=[4.0], metrics=[Error()])


@pytest.mark.parametrize("snr_db", [[], [float("nan")]])
def test_an_snr_must_be_a_number(snr_db: list[float]) -> None:
    with pytest.raises(ValueError, match="snr_db takes one or more numbers in dB"):
        evaluate(link(), ToyPayload(), snr_db=snr_db, metrics=[Error()])


@pytest.mark.parametrize("snr_db", [5.0, "5", [None], [[0.0, 1.0]]])
def test_what_is_no_list_of_snrs_is_refused_with_what_came(snr_db: Any) -> None:
    with pytest.raises(ValueError, match=r"snr_db takes .* got .*; for one write \[10.0\]"):
        evaluate(link(), ToyPayload(), snr_db=snr_db, metrics=[Error()])


@pytest.mark.parametrize("snr_db", [[4.0, 4.0], [0.0, -0.0]])
def test_an_snr_counts_its_items_once(snr_db: list[float]) -> None:
    with pytest.raises(ValueError, match=r"snr_db names an SNR twice, got .*; write each once"):
        evaluate(link(), ToyPayload(), snr_db=snr_db, metrics=[Error()])


@pytest.mark.parametrize("snr_db", [np.arange(0, 11, 5), torch.tensor([0, 5, 10]), range(0, 11, 5)])
def test_snrs_may_come_in_an_array(snr_db: Any) -> None:
    options: dict[str, Any] = {"metrics": [Error()]}
    rows = evaluate(link(), ToyPayload(), snr_db=snr_db, **options)
    listed = evaluate(link(), ToyPayload(), snr_db=[0.0, 5.0, 10.0], **options)
    assert without_seconds(rows) == without_seconds(listed)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_seed_that_no_table_holds_is_refused_before_the_run(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed is a whole number from 0 to 2\\^63 - 1, got"):
        evaluate(link(), ToyPayload(), snr_db=[0.0], metrics=[Error()], seed=seed)


def test_a_metric_must_give_one_value_per_item() -> None:
    class Whole(Error):
        def __call__(self, outcome: Any) -> Tensor:
            return super().__call__(outcome).mean()

    with pytest.raises(ValueError, match=r"error must be one value per item, shape \[32\]"):
        evaluate(link(), ToyPayload(), snr_db=[0.0], metrics=[Whole()], batch_size=32)


def test_an_interrupted_evaluation_goes_on_with_the_same_digits() -> None:
    class Interrupt(Exception):
        pass

    def stop_after_two(evaluation: Evaluation) -> None:
        if evaluation.points[Place(0.0)].batches == 2:
            raise Interrupt

    options: dict[str, Any] = {"snr_db": [0.0, 9.0], "metrics": [Error()], "batch_size": 8}
    whole = evaluate(link(), ToyPayload(items=40), **options)
    first = Evaluation(link(), ToyPayload(items=40), **options)
    with pytest.raises(Interrupt):
        first.run(stop_after_two)
    second = Evaluation(link(), ToyPayload(items=40), **options)
    second.points = {s: type(p).from_dict(p.as_dict()) for s, p in first.points.items()}
    second.run()
    assert without_seconds(second.rows()) == without_seconds(whole)
    assert second.link.transmitter.calls == 3


def test_any_module_with_transmit_is_a_link() -> None:
    class Mine(AnyLink):
        def transmit(
            self, source: Tensor, snr_db: Any, generator: torch.Generator, begun: Any = None
        ) -> Transmission:
            x = torch.ones(len(source), 1, 3, dtype=torch.complex64)
            notes = {"decoded": torch.ones(len(source))}
            return Transmission(source, x, Ledger(3, pilots=1), notes=notes)

    (row,) = evaluate(Mine(), ToyPayload(size=8), snr_db=[0.0], metrics=[Negative()])
    assert row["cbr"] == 0.5
    assert (row["uses_payload"], row["uses_pilots"], row["decoded"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"ci95": 0.0}, "ci95 must be > 0"), ({"max_items": 0}, "max_items must be at least 1")],
)
def test_a_stop_rule_without_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stop(**changes)


def test_moments_of_batches_are_those_of_the_whole() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=1000)
    moments = Moments()
    for batch in np.split(values, [1, 10, 500]):
        moments.add(batch)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(1000), rel=1e-12)


def test_the_interval_of_a_mean_covers_it_19_times_out_of_20() -> None:
    values = np.random.default_rng(2).normal(size=(4000, 5))
    hits = 0
    for row in values:
        moments = Moments()
        moments.add(row)
        low, high = moments.interval()
        hits += low < 0 < high
    assert abs(hits - 3800) < 5 * math.sqrt(4000 * 0.95 * 0.05)


def test_the_interval_of_a_share_is_that_of_clopper_and_pearson() -> None:
    from scipy import stats

    for ones in (0, 3, 20):
        moments = Moments()
        moments.add([1.0] * ones + [0.0] * (20 - ones))
        exact = stats.binomtest(ones, 20).proportion_ci(method="exact")
        assert moments.interval() == pytest.approx((exact.low, exact.high))


def test_no_error_in_n_items_is_no_proof_of_none() -> None:
    moments = Moments()
    moments.add(np.zeros(100))
    low, high = moments.interval()
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))
