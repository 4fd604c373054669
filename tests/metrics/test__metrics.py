"""The contract of all metrics: one finite value per item, items apart, a monotone combination."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
from typing import Any

import pytest
import torch

from channels import AWGN
from semsim import Link, evaluate
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.metrics.base import Metric, Outcome
from semsim.metrics.image import PSNR, PSNR_CAP_DB
from semsim.payloads.photos import Photos
from semsim.seeds import stream
from semsim.tables import METRICS
from semsim.types import Ledger, Transmission

BATCH = 3
CORE = [name for name, row in METRICS.items() if ".vision." not in row]


def make(name: str) -> Any:
    module, _, cls = METRICS[name].partition(":")
    return getattr(importlib.import_module(module), cls)()


def image_outcome(batch: int = BATCH, side: int = 180) -> Outcome:
    generator = stream(1, "images", side)
    source = torch.rand(batch, 3, side, side, generator=generator)
    output = source + 0.1 * torch.randn(source.shape, generator=generator)
    return Outcome(output, source, source, transmission(output))


def bit_outcome(batch: int = BATCH) -> Outcome:
    generator = stream(2, "bits")
    source = torch.randint(2, (batch, 50), generator=generator).float()
    output = (source + 0.3 * torch.randn(source.shape, generator=generator)).clamp(0, 1)
    return Outcome(output, source, source, transmission(output))


def logit_outcome(batch: int = BATCH) -> Outcome:
    output = torch.randn(batch, 10, generator=stream(3, "logits"))
    return Outcome(output, torch.rand(batch, 3, 8, 8), torch.arange(batch), transmission(output))


def score_outcome(batch: int = BATCH) -> Outcome:
    target = torch.arange(batch) % 2
    return dataclasses.replace(logit_outcome(batch), target=target)


def transmission(estimate: torch.Tensor) -> Transmission:
    batch, generator = len(estimate), stream(4, "symbols")
    symbols = torch.randn(batch, 1, 40, dtype=torch.complex64, generator=generator)
    noise = torch.randn(symbols.shape, dtype=torch.complex64, generator=generator)
    received = symbols + 0.1 * noise
    return Transmission(estimate, symbols.expand(-1, 2, -1), Ledger(40), symbols, received)


def channel_outcome() -> Outcome:
    truth = torch.randn(BATCH, 6, 2, 3, 4, generator=stream(5, "channels"))
    told = truth[:, -2:] + 0.1
    return Outcome(told, truth, truth, transmission(truth))


def noted_outcome() -> Outcome:
    outcome = image_outcome(side=8)
    notes = {"decoded": torch.tensor([1.0, 0.0, 1.0]), "bits": torch.tensor([80, 80, 40])}
    sent = dataclasses.replace(outcome.transmission, notes=notes)
    return dataclasses.replace(outcome, transmission=sent)


OUTCOMES = {
    "ber": bit_outcome,
    "bler": bit_outcome,
    "accuracy": logit_outcome,
    "channel_nmse": channel_outcome,
    "angle_delay_nmse": channel_outcome,
    "rate_loss": channel_outcome,
    "top3": logit_outcome,
    "niqe": lambda: image_outcome(side=192),
    "outage": noted_outcome,
    "throughput": noted_outcome,
    **dict.fromkeys(
        ("sensitivity", "specificity", "balanced_accuracy", "average_precision"), score_outcome
    ),
}


@pytest.mark.parametrize("name", CORE)
def test_every_item_has_one_finite_value_of_its_own(name: str) -> None:
    metric, outcome = make(name), OUTCOMES.get(name, image_outcome)()
    values = metric(outcome)
    assert values.shape == (BATCH,) and values.isfinite().all() and not values.requires_grad
    sent = outcome.transmission
    alone = Outcome(
        outcome.output[1:2],
        outcome.source[1:2],
        outcome.target[1:2],
        Transmission(
            sent.estimate[1:2],
            sent.x[1:2],
            sent.ledger,
            sent.symbols[1:2],
            sent.received[1:2],
            notes={name: note[1:2] for name, note in sent.notes.items()},
        ),
    )
    assert torch.allclose(metric(alone), values[1:2], rtol=1e-5)


@pytest.mark.parametrize("name", CORE)
def test_a_metric_says_its_name_unit_and_direction(name: str) -> None:
    metric = make(name)
    assert metric.name == name and metric.better in ("higher", "lower")
    assert metric.unit in ("", "dB", "%", "bit/use")


@pytest.mark.parametrize("name", CORE)
def test_the_combination_is_monotone_and_finite(name: str) -> None:
    metric = make(name)
    reported = [metric.combine(mean / 20) for mean in range(21)]
    rising = all(a <= b for a, b in itertools.pairwise(reported))
    falling = all(a >= b for a, b in itertools.pairwise(reported))
    assert (rising or falling) and all(map(math.isfinite, reported))


@pytest.mark.parametrize("name", CORE)
def test_ends_of_an_interval_may_lie_outside_the_range_or_be_unknown(name: str) -> None:
    metric = make(name)
    assert math.isfinite(metric.combine(-0.1)) and math.isfinite(metric.combine(1.1))
    assert math.isnan(metric.combine(math.nan))  # one item has no interval


@pytest.mark.parametrize(
    ("name", "outcome", "words"),
    [
        ("ber", image_outcome(1), "For images use psnr"),
        ("bler", image_outcome(1), "For images use psnr"),
        ("psnr", bit_outcome(1), "for bits use ber"),
        ("ssim", logit_outcome(1), "use a receiver of images"),
        ("ssim", image_outcome(1, side=8), "at least 11x11 pixels, got 8x8; use psnr"),
        ("niqe", image_outcome(1, side=180), "at least 192x192 pixels, got 180x180; use psnr"),
        ("niqe", logit_outcome(1), "use a task that makes images"),
        ("ms_ssim", image_outcome(1, side=32), "at least 176x176 pixels, got 32x32; use ssim"),
        ("task_psnr", logit_outcome(1), "use a payload with reference images"),
        ("accuracy", image_outcome(1), "use task: {kind: classify}"),
        ("accuracy", Outcome(torch.rand(2, 5), *[torch.rand(2, 3, 4, 4)] * 2), "classes: true"),
        ("accuracy", Outcome(*[torch.rand(2, 5)] * 2, torch.tensor([4, 5])), "class 5 of"),
        ("evm", Outcome(*[torch.rand(2, 3, 4, 4)] * 3), "measured on the link"),
    ],
)
def test_a_void_question_is_refused(name: str, outcome: Outcome, words: str) -> None:
    with pytest.raises(ValueError) as error:
        make(name)(outcome)
    assert words in str(error.value)


def test_niqe_refuses_the_scales_that_psnr_refuses() -> None:
    image = torch.rand(1, 3, 192, 192, generator=stream(1, "scale"))
    wide = 300 * image.repeat_interleave(2, dim=3)
    for outcome in (Outcome(300 * image, image, image), Outcome(*[300 * image] * 3)):
        for name in ("psnr", "niqe"):
            with pytest.raises(ValueError, match=r"images lie in \[0, 1\]; divide them by 1023"):
                make(name)(outcome)
    with pytest.raises(ValueError, match="the task's images are about"):
        make("niqe")(Outcome(wide, image, image))
    assert make("niqe")(Outcome(wide / 300, image, torch.zeros(1))).isfinite().all()


def test_psnr_beside_a_classifier_is_that_of_the_estimate_it_saw() -> None:
    source = torch.rand(3, 3, 8, 8, generator=stream(9, "source"))
    sent = Transmission(estimate=source, x=torch.ones(3, 1, 1), ledger=Ledger(payload=1))
    outcome = Outcome(torch.zeros(3, 10), source, torch.zeros(3), sent)
    assert torch.allclose(PSNR()(outcome), torch.tensor(PSNR_CAP_DB))


def test_metrics_of_the_task_judge_its_output_and_those_of_the_link_the_estimate() -> None:
    generator = stream(10, "images")
    sent, estimate, output, target = (torch.rand(2, 3, 16, 16, generator=generator) for _ in "abcd")
    link = Transmission(estimate, torch.ones(2, 1, 1), Ledger(1))
    outcome = Outcome(output, sent, target, link)
    for kind in ("psnr", "ssim"):
        assert torch.equal(make(kind)(outcome), make(kind)(Outcome(estimate, sent, sent)))
        assert torch.equal(
            make(f"task_{kind}")(outcome), make(kind)(Outcome(output, target, target))
        )


def test_throughput_is_what_arrived_over_what_was_spent() -> None:
    outcome = noted_outcome()
    assert make("throughput")(outcome).tolist() == [80.0, 0.0, 40.0]
    assert make("outage")(outcome).tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="throughput needs a link that notes 'bits'"):
        make("throughput")(image_outcome(side=8))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_how_it_is_drawn_and_what_it_judges(name: str) -> None:
    module, _, cls = METRICS[name].partition(":")
    metric = getattr(importlib.import_module(module), cls)
    assert issubclass(metric, Metric) and metric.name == name
    assert metric.better in ("higher", "lower") and metric.judges in ("link", "task")
    assert metric.scale in ("linear", "log")


def test_a_metric_of_ones_own_needs_a_name_and_values_alone() -> None:
    class Brightness(Metric):
        name = "mean_brightness"

        def __call__(self, outcome: Outcome) -> torch.Tensor:
            return outcome.output.flatten(1).mean(dim=1)

    link = Link(AnalogTransmitter(), AWGN(), AnalogReceiver())
    (row,) = evaluate(link, Photos(["coffee"], crop=32), snr_db=[10.0], metrics=[Brightness()])
    said = {key: row[key] for key in ("label", "unit", "better", "scale", "judges")}
    assert said == {
        "label": "mean brightness", "unit": "", "better": "higher", "scale": "linear",
        "judges": "task",
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"write class Brightness\(Metric\)"):
        evaluate(link, Photos(["coffee"], crop=32), snr_db=[10.0], metrics=[plain("Brightness")])


def plain(name: str) -> Any:
    """Return an object of a class that is no metric."""
    return type(name, (), {"name": "mean_brightness"})()
