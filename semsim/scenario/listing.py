"""What a scenario can say: the parts with a line on each, and the JSON schema for editors."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from semsim import spec
from semsim.mistakes import FRACTION, SpecError, closest, describe
from semsim.spec import FAMILIES, NUMBER_SCHEMA


def families() -> list[str]:
    """Return the names that :func:`lines` knows."""
    return [*FAMILIES, "weights"]


def lines(family: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, first line of its docstring, as plain text) of a family, or for ``weights``."""
    if family == "weights":
        from semsim import zoo

        for name in zoo.names():
            card = zoo.card(name)
            kinds = dict.fromkeys(_kind(path) for path in card["classes"].values())
            yield name, f"{' + '.join(kinds)}: {card.get('about') or card.get('data', '')}"
        return
    for kind in FAMILIES[family]:
        try:
            about = inspect.getdoc(spec.resolve(family, kind)) or ""
        except SpecError as error:
            about = error.message
        yield kind, about.split("\n")[0].replace("``", "")


def described(kind: str) -> Iterator[tuple[str, str]]:
    """Yield (heading, text) for each family that has this kind: what it is, and its keys."""
    for family, table in FAMILIES.items():
        if kind in table:
            about = inspect.getdoc(spec.resolve(family, kind)) or ""
            fields = spec.model_of(family, kind).model_fields
            keys = [_key(name, field) for name, field in fields.items() if name != "kind"]
            head = (
                "Keys, each with its default and with what it takes:" if keys else "It has no keys."
            )
            yield f"{family} {kind}", "\n".join([about.replace("``", ""), "", head, *keys])


def _key(name: str, field: FieldInfo) -> str:
    """Return a line on one key: the value that it has where it is left out, what it takes."""
    takes = describe(field.annotation, field.metadata).replace(FRACTION, "")
    if field.is_required():
        return f"  {name}:  # must be given: {takes}"
    given = field.default
    text = given if isinstance(given, str) else json.dumps(given, default=str)
    text = text.replace("Infinity", ".inf")  # as YAML writes it
    return f"  {name}: {text}  # {takes}"


def unknown(name: str) -> SpecError:
    """Return what to say where neither a family nor a part is called so."""
    close = closest([*families(), *itertools.chain(*FAMILIES.values())], name)
    shown = f"{f'did you mean {close!r}? Known' if close else 'known'}: {', '.join(families())}"
    return SpecError(
        "",
        f"no family is called {name!r}; {shown}; or write a kind, such as cdl, for its keys",
    )


def _kind(path: str) -> str:
    """Return the kind of a class "module:Class", or the class where no table has it."""
    for table in FAMILIES.values():
        for kind, row in table.items():
            if row == path:
                return kind
    return path.partition(":")[2]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a scenario file: closed, one alternative per kind of part."""
    from semsim.scenario.scenario import Scenario

    schema = Scenario.model_json_schema(ref_template="#/$defs/{model}")
    definitions = schema.setdefault("$defs", {})
    for name in ("stop", "train", "federated", "plots"):
        _settings_schema(name, schema, definitions)
    for family, table in FAMILIES.items():
        adapter = TypeAdapter(spec.union(family))
        union = adapter.json_schema(ref_template="#/$defs/{model}")
        definitions.update(union.pop("$defs", {}))
        outside = {
            "type": "object",
            "properties": {"kind": {"type": "string", "pattern": "^[\\w.]+:\\w+$"}},
            "required": ["kind"],
        }
        definitions[family] = {"anyOf": [union, {"enum": list(table)}, outside]}
    _fill_in(schema["properties"])
    linked = _link_parts(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **linked}


def _settings_schema(name: str, schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Put the closed schema of a value object in the place of "anything"."""
    from semsim.scenario.fields import SETTINGS

    model = SETTINGS[name]()
    own = model.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(own.pop("$defs", {}))
    definitions[name] = own
    reference = {"$ref": f"#/$defs/{name}"}
    many = {"type": "array", "items": reference}
    schema["properties"][name] = many if name == "plots" else reference


def _fill_in(properties: dict[str, Any]) -> None:
    """Describe the keys that are checked by code and not by a type."""
    snrs = {"type": "array", "items": NUMBER_SCHEMA, "minItems": 1}
    ends = {end: {"x-part": "csi"} for end in ("rx", "tx")}
    choices = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}]}
    properties["snr_db"] = {"anyOf": [NUMBER_SCHEMA, snrs]}
    properties["metrics"] = {"type": "array", "items": {"x-part": "metric"}, "minItems": 1}
    properties["csi"] = {"type": "object", "properties": ends, "additionalProperties": False}
    properties["sweep"] = {"type": "object", "additionalProperties": choices}


def _link_parts(node: Any) -> Any:
    """Replace the mark of a part by a reference to its family."""
    if isinstance(node, dict):
        if "x-part" in node:
            return {"$ref": f"#/$defs/{node['x-part']}"}
        return {key: _link_parts(value) for key, value in node.items()}
    return [_link_parts(item) for item in node] if isinstance(node, list) else node
