"""A constructor is a schema: closed, strict, round trip, with errors that say what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semsim import spec
from semsim.mistakes import SpecError
from semsim.scenario.listing import json_schema

CHANNEL, CASCADE = "toy_parts:ToyChannel", "toy_parts:ToyCascade"
TRANSMITTER, PAYLOAD = "toy_parts:ToyTransmitter", "toy_parts:ToyPayload"
IMPORTABLE = [(family, kind) for family, table in spec.FAMILIES.items() for kind in table]


def message(family: str, value: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec.build(spec.parse(family, value))
    return str(caught.value)


@pytest.mark.parametrize(("family", "kind"), IMPORTABLE)
def test_every_row_of_the_tables_is_a_closed_schema(family: str, kind: str) -> None:
    model = spec.model_of(family, kind)
    assert model.model_config["extra"] == "forbid"
    assert model.model_fields["kind"].default == kind


def test_a_part_is_built_from_its_mapping() -> None:
    channel = spec.build(spec.parse("channel", {"kind": CHANNEL, "gain": 0.5}))
    assert type(channel).__name__ == "ToyChannel"
    assert channel.gain == 0.5


def test_a_part_without_arguments_may_be_just_its_kind() -> None:
    assert spec.parse("channel", "awgn") == spec.parse("channel", {"kind": "awgn"})


@given(st.floats(-1e6, 1e6), st.one_of(st.none(), st.floats(-3, 3)))
@settings(max_examples=50, deadline=None)
def test_a_spec_survives_json_and_back(gain: float, inner: float | None) -> None:
    value: dict[str, Any] = {"kind": CHANNEL, "gain": gain}
    if inner is not None:
        value["inner"] = {"kind": CHANNEL, "gain": inner}
    part = spec.parse("channel", value)
    assert spec.parse("channel", json.loads(json.dumps(spec.dump(part)))) == part


def test_a_fraction_is_a_number() -> None:
    part = spec.parse("channel", {"kind": CHANNEL, "gain": "1/12"})
    assert part.gain == 1 / 12  # type: ignore[attr-defined]


def test_a_part_holds_other_parts() -> None:
    inner = {"kind": CHANNEL, "inner": CHANNEL}
    cascade = spec.build(spec.parse("channel", {"kind": CASCADE, "stages": [inner]}))
    assert type(cascade.stages[0].inner).__name__ == "ToyChannel"


@pytest.mark.parametrize(
    ("family", "value", "expected"),
    [
        (
            "channel",
            {"kind": CHANNEL, "gian": 1},
            f"gian: no such key for kind {CHANNEL!r}; did you mean 'gain'? Known: gain, inner.",
        ),
        (
            "channel",
            {"kind": CHANNEL, "gain": "much"},
            "gain: must be a number (a fraction such as 1/12 will do), got 'much'",
        ),
        ("channel", {"kind": CHANNEL, "gain": True}, "gain: must be a number"),
        ("channel", {"kind": CHANNEL, "gain": float("nan")}, "gain: must be a number"),
        ("channel", {"kind": CHANNEL, "gain": "1/0"}, "gain: must be a number"),
        (
            "channel",
            {"kind": "rayliegh"},
            "kind: no channel is called 'rayliegh'; did you mean 'rayleigh'? Known: awgn, ",
        ),
        (
            "channel",
            {"kind": "toy_parts:Nothing"},
            "kind: the module 'toy_parts' has no 'Nothing'",
        ),
        (
            "channel",
            {"kind": "no_such_lab:X"},
            "kind: 'no_such_lab:X' needs the module 'no_such_lab', which cannot be",
        ),
        (
            "payload",
            {"kind": "channels", "speed_mps": [1]},
            "speed_mps: must be a list: a number (a fraction such as 1/12 will do), a number (a "
            "fraction such as 1/12 will do), got [1]",
        ),
        (
            "payload",
            {"kind": "photos", "names": ["astronaut", 1]},
            "names[1]: must be a list, each a word, got ['astronaut', 1]",
        ),
        ("channel", 3, "a channel is written {kind: NAME, ...}, got 3"),
        ("channel", {"gain": 1}, "a channel is written {kind: NAME, ...}"),
        ("channel", {"kind": CASCADE}, "stages: missing; it must be a list"),
        (
            "channel",
            {"kind": CASCADE, "stages": [{"kind": CHANNEL, "gian": 1}]},
            "stages[0].gian: no such key",
        ),
        (
            "channel",
            {"kind": CHANNEL, "inner": {"kind": CHANNEL, "gain": "x"}},
            "inner.gain: must be a number",
        ),
        ("payload", {"kind": PAYLOAD, "items": 1.5}, "items: must be an integer, got 1.5"),
        ("payload", {"kind": PAYLOAD, "mixed": "yes"}, "mixed: must be true or false, got 'yes'"),
        ("payload", {"kind": PAYLOAD, "items": 0}, "items: must be at least 1, got 0"),
        (
            "transmitter",
            {"kind": TRANSMITTER, "mode": "odd"},
            "mode: must be 'plain' or 'negative', got 'odd'",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_key(family: str, value: Any, expected: str) -> None:
    assert message(family, value).startswith(expected)


def test_a_typo_is_told_before_the_key_that_it_leaves_missing() -> None:
    assert message("channel", {"kind": CASCADE, "stage": []}).startswith(
        "stage: no such key for kind 'toy_parts:ToyCascade'; did you mean 'stages'?"
    )


def test_the_json_schema_is_closed_and_its_references_resolve() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert references <= set(schema["$defs"])
    rayleigh = schema["$defs"]["channel_rayleigh"]
    assert rayleigh["additionalProperties"] is False
    assert schema["additionalProperties"] is False
    assert "awgn" in text
