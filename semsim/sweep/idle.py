"""What a scenario says in vain: options that nothing has a use for, items that are remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semsim import spec
from semsim.scenario.points import covering
from semsim.scenario.scenario import Scenario

CUT = ("count", "crop", "resize", "shrink", "patches")  #: what makes no other images of a payload


def idle(scenario: Scenario) -> list[str]:
    """Return a sentence on each thing written that no link of a sweep has a use for.

    Of an option it is no mistake: a sweep over a rule may write the options of all its rules.
    """
    scenarios = [point.scenario for point in covering(scenario.points())]
    lines = [*idle_training(scenario), *_other_orders(scenario, scenarios)]
    for (place, name), (words, has_use) in USES.items():
        parts = ((_part(own, place), own) for own in scenarios)
        written = [own for part, own in parts if part and name in part.model_fields_set]
        if written and not any(map(has_use, written)):
            lines.append(f"{place}.{name} does nothing here: it is for {words}")
    return lines


def _part(scenario: Scenario, place: str) -> Any:
    """Return what stands at a place such as ``csi.tx``; None for nothing."""
    part: Any = scenario
    for name in place.split("."):
        part = getattr(part, name, None)
    return part


def _rule(key: str, value: str) -> tuple[str, Callable[[Any], bool]]:
    return f"{key}: {value}", lambda own: getattr(own.federated, key) == value


def _told(words: str, *without: str) -> tuple[str, Callable[[Any], bool]]:
    """Return a rule of late reports; a class of a user's own has its own use for an option."""
    return words, lambda own: getattr(own.csi.tx, "by", None) not in without


def _several(antennas: str) -> tuple[str, Callable[[Any], bool]]:
    return f"a {antennas} above 1", lambda own: getattr(own.channel, antennas, 2) > 1


_VALIDATED = "a training with a validation", lambda own: own.train.validation is not None
_SENT = (
    "a training through the link",
    lambda own: bool(own.train.stages) or own.train.through == "link",
)
_ALONE = "a training without federated", lambda own: own.federated is None
_STOPPED = (
    "a min_items, 100 where left out, below max_items",
    lambda own: own.stop.max_items is None or own.stop.min_items < own.stop.max_items,
)
_DRAWN = "drawn items, without path", lambda own: getattr(own.payload, "path", None) is None
_AGAIN = "a harq: chase or ir", lambda own: getattr(own.transmitter, "harq", None) != "none"
#: of an option at its place, what it is for, and whether a link has a use for it
USES: dict[tuple[str, str], tuple[str, Callable[[Any], bool]]] = {
    ("federated", "alpha"): _rule("partition", "dirichlet"),
    ("federated", "mu"): _rule("aggregation", "fedprox"),
    ("federated", "trim"): _rule("aggregation", "trimmed_mean"),
    ("federated", "byzantine"): _rule("aggregation", "krum"),
    ("federated", "top_k"): _rule("compression", "top_k"),
    ("federated", "timeout_s"): _rule("engine", "flower"),
    ("federated", "delta"): ("clip_norm", lambda own: own.federated.clip_norm is not None),
    ("federated", "noise_scale"): ("noise_clients", lambda own: bool(own.federated.noise_clients)),
    ("train", "val_every"): (
        "a training with a validation and without federated",
        lambda own: own.train.validation is not None and own.federated is None,
    ),
    ("train", "val_snr_db"): _VALIDATED,
    ("train", "val_items"): _VALIDATED,
    **{("train", name): _ALONE for name in ("steps", "ema", "save_every", "log")},
    ("train", "snr_db"): _SENT,
    ("train", "snr_peak"): _SENT,
    ("train", "channel"): _SENT,
    **{
        ("payload", name): _DRAWN
        for name in ("contrast", "regions", "told_regions", "people", "shots")
    },
    ("transmitter", "rounds"): _AGAIN,
    ("transmitter", "round_fading"): _AGAIN,
    ("csi.tx", "order"): _told("by: ar or combined", "hold", "kalman", "wirelessgpt"),
    ("csi.tx", "reports"): _told("another by than hold", "hold"),
    ("channel", "tx_correlation"): _several("num_tx"),
    ("channel", "rx_correlation"): _several("num_rx"),
    ("stop", "ci95"): _STOPPED,
    ("stop", "errors"): _STOPPED,
}


def idle_training(scenario: Scenario) -> list[str]:
    """Return a sentence on a training that no link of a sweep takes part in: all bring weights."""
    points = scenario.points()
    first = points[0].scenario
    if first.train is None or any(point.scenario.trains() for point in points):
        return []
    weights = first.transmitter.weights
    return [f"train has no part in this: transmitter.weights is {weights}; {go_on_from(weights)}"]


def go_on_from(weights: str) -> str:
    """Say how a training begins with these weights."""
    return (
        f"to go on from them write train: {{start: {weights}, ...}} and leave transmitter.weights "
        "out"
    )


def _other_orders(scenario: Scenario, scenarios: Sequence[Scenario]) -> list[str]:
    """Return a sentence on each closed form of an order that no uncoded link of a sweep has."""
    ends = [own.transmitter for own in scenarios]
    orders = sorted({2**end.bits_per_symbol for end in ends if end.kind == "uncoded"})
    forms = [
        (f"plots[{number}].theory.{label}", {"form": form} if isinstance(form, str) else form)
        for number, plot in enumerate(scenario.plots)
        for label, form in (plot.theory or {}).items()
    ]
    return [
        f"{path}: {form['form']} is of order {form.get('order', 4)}, but the links send order "
        f"{' and '.join(map(str, orders))}; write {{{_flow({**form, 'order': orders[0]})}}}"
        for path, form in forms
        if "_ber_" in str(form["form"]) and orders and form.get("order", 4) not in orders
    ]


def _flow(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def remembered(scenario: Scenario) -> list[str]:
    """Return a sentence where the items that are measured are those that are trained on."""
    for point in covering(scenario.points()):
        own = point.scenario
        if own.train is None or not own.trains():
            continue
        measured, seen = (
            {key: value for key, value in spec.dump(part).items() if key not in CUT}
            for part in (own.payload, own.train.payload)  # type: ignore[attr-defined]
        )
        if measured == seen:
            return [
                "train.payload has the items of payload, so rows tell how well they are "
                "remembered; write another kind, split, seed or path in one of them"
            ]
    return []
