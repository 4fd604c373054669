"""The constructor is the schema: a part's typed constructor becomes its closed pydantic model.

    {kind: rayleigh, num_rx: 2} ──parse──► frozen model ──build──► Rayleigh(num_rx=2)
                                               └──dump──► the same mapping, defaults filled in

Kinds come from ``semsim.tables``; ``kind: module:Class`` names a part from outside, found on the
Python path or in the folder from which semsim runs. A class is imported when its
kind is first used.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import pydantic
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from torch import nn

from channels.base import Channel
from channels.csi import CSISource
from semsim.files import outside
from semsim.metrics.base import Metric
from semsim.mistakes import (
    SpecError,
    blame_argument,
    cause_of,
    explain,
    known,
    sentence,
    unforeseen,
)
from semsim.phy.frontend import FrontEnd
from semsim.tables import FAMILIES
from semsim.tasks.base import Task
from semsim.types import Payload, Receiver, Transmitter

Model = TypeVar("Model", bound=BaseModel)
#: of every mapping in a scenario; .inf stays what it is
CLOSED = ConfigDict(
    extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="constants"
)
#: what a link gets from the other keys of a scenario, and not from its own
LINK_ENDS = ("transmitter", "channel", "receiver", "csi_rx", "csi_tx", "frontend", "receivers")
_FRACTION = re.compile(r"\s*([+-]?\d{1,15}(?:\.\d{1,15})?)\s*/\s*(\d{1,15}(?:\.\d{1,15})?)\s*")
#: what stands in a constructor for a part of a family
_NESTED: dict[Any, str] = {
    Channel: "channel",
    Transmitter: "transmitter",
    Receiver: "receiver",
    FrontEnd: "frontend",
    CSISource: "csi",
    Payload: "payload",
    Task: "task",
    Metric: "metric",
}


class Part(BaseModel):
    """One part as it is written.

    An option that the class lists in its ``later_options`` is dumped only where it is not the
    default, so that scenarios without it keep the hash, and with it the results, that they had.
    """

    model_config = CLOSED
    later_options: typing.ClassVar[tuple[str, ...]] = ()

    @pydantic.model_serializer(mode="wrap")
    def _as_before(self, rest: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = rest(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dumped.items()
            if name not in self.later_options or value != fields[name].default
        }


def resolve(family: str, kind: str) -> Callable[..., object]:
    """Return the class that ``kind`` names in a family, importing it now.

    Args:
        family: a key of ``semsim.tables.FAMILIES``.
        kind: a row of that table, or "module:Class".
    """
    table = FAMILIES[family]
    if kind not in table and ":" not in kind:
        raise SpecError("kind", f"no {family} is called {kind!r}; {known(table, kind)}{_own(kind)}")
    try:
        if kind not in table:
            return outside.part(kind, family)
        module, _, name = table[kind].partition(":")
        return getattr(outside.imported(module, kind), name)
    except ValueError as error:
        raise SpecError("kind", sentence(error)) from error


def _own(kind: str) -> str:
    """Say how a class of the user's own is named, where the name looks like one."""
    module, _, name = kind.rpartition(".")
    return f" A class of yours is written {module}:{name}." if module and name else ""


def parse(family: str, value: object) -> BaseModel:
    """Return the validated, frozen model of one part; ``value`` is a mapping or just the kind."""
    if isinstance(value, BaseModel):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise SpecError(
            "",
            f"a {family} is written {{kind: NAME, ...}}, got {value!r}{_no_space(value)}. "
            f"Known kinds: {', '.join(FAMILIES[family])}.",
        )
    return validate(model_of(family, value["kind"]), value)


def _no_space(value: object) -> str:
    """Say that YAML took "kind:awgn" for one word, where it did."""
    words = map(str, value) if isinstance(value, Mapping) else ()
    glued = any(word.startswith("kind:") for word in words)
    return "; a space is missing after the colon" if glued else ""


def validate(model: type[Model], value: object) -> Model:
    """Return ``model`` made from ``value``; the first mistake becomes a :class:`SpecError`."""
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        mistakes = error.errors()
        mistakes.sort(key=lambda e: e["type"] != "extra_forbidden")  # a typo before what it hides
        mistakes.sort(key=lambda e: not isinstance(cause_of(e), SpecError))
        raise explain(model, mistakes[0], value) from None


def dump(part: BaseModel) -> dict[str, Any]:
    """Return the plain mapping that :func:`parse` turns into an equal model, defaults filled in."""
    return part.model_dump(mode="json")


def build(part: BaseModel, **given: Any) -> Any:
    """Construct a part and those nested in it; its own complaint gets the path of the key.

    Args:
        part: as :func:`parse` returned it.
        given: live arguments that stand in no key of the part, such as the ends of a link.
    """
    made = {}
    for name in constructor_fields(part):
        try:
            made[name] = _build_value(getattr(part, name))
        except SpecError as error:
            raise error.under(name) from error
    try:
        return resolve(type(part).family, part.kind)(**given, **made)  # type: ignore[attr-defined]
    except SpecError:
        raise
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise blame_argument(made, sentence(error)) from error
    except Exception as error:  # a part from outside may raise anything
        raise SpecError("", f"cannot be made: {unforeseen(error)}") from error


def constructor_fields(part: BaseModel) -> list[str]:
    """Return the names that are arguments of the part's constructor.

    The weights of a transmitter are none: they belong to both ends of its link.
    """
    other = ("kind", "weights") if type(part).family == "transmitter" else ("kind",)  # type: ignore[attr-defined]
    return [name for name in type(part).model_fields if name not in other]


def union(family: str) -> Any:
    """Return the closed discriminated union of all kinds of a family, imports included."""
    models = tuple(model_of(family, kind) for kind in FAMILIES[family])
    return Annotated[Union[models], Field(discriminator="kind")]  # noqa: UP007 - a tuple of models


def settings(part: type) -> Any:
    """Return the field type of a plain value object without kinds, such as the stop rule."""
    return Annotated[Any, PlainValidator(functools.partial(parse_settings, part))]


@functools.cache
def settings_model(part: type) -> type[BaseModel]:
    """Return the closed model of a value object; a pydantic model is its own."""
    if issubclass(part, BaseModel):
        return part
    return pydantic.create_model(part.__name__, __config__=CLOSED, **fields_of(part, "payload"))


def parse_settings(part: type, value: object) -> BaseModel:
    """Return the validated model of a value object's mapping."""
    model = settings_model(part)
    if isinstance(value, model):
        return value
    if not isinstance(value, Mapping):
        raise SpecError("", f"must be a mapping of {', '.join(model.model_fields)}, got {value!r}")
    parsed = validate(model, value)
    build_settings(part, parsed)  # its constructor may know further rules
    return parsed


def build_settings(part: type, parsed: BaseModel) -> Any:
    """Construct the value object that :func:`settings` validated."""
    if isinstance(parsed, part):
        return parsed
    names = settings_model(part).model_fields
    values = {name: getattr(parsed, name) for name in names}
    try:
        return part(**{k: build(v) if isinstance(v, BaseModel) else v for k, v in values.items()})
    except ValueError as error:
        raise blame_argument(values, sentence(error)) from error


def nested(family: str) -> Any:
    """Return the field type of a part inside something else."""
    return Annotated[
        Any,
        PlainValidator(functools.partial(parse, family)),
        WithJsonSchema({"x-part": family}),
    ]


def model_of(family: str, kind: str) -> type[BaseModel]:
    """Return the closed model of one kind, derived from the constructor's signature."""
    return _model(family, kind, resolve(family, kind))


@functools.cache
def _model(family: str, kind: str, part: Callable[..., object]) -> type[BaseModel]:
    fields: dict[str, Any] = {"kind": (Literal[kind], kind), **fields_of(part, family)}
    if family == "transmitter":
        about = "name of shipped weights (see semsim list weights) or a .safetensors file"
        fields["weights"] = (str | None, Field(default=None, description=about))
    model = pydantic.create_model(
        re.sub(r"\W", "_", f"{family}_{kind}"),
        __base__=Part,
        __doc__=(inspect.getdoc(part) or "").split("\n\n")[0],
        **fields,
    )
    model.family = family  # type: ignore[attr-defined]
    model.later_options = getattr(part, "later_options", ())
    return model


def fields_of(part: Callable[..., object], family: str) -> dict[str, Any]:
    """Return pydantic fields for the arguments of a constructor."""
    name = getattr(part, "__qualname__", repr(part))
    function: Any = part.__init__ if inspect.isclass(part) else part  # type: ignore[misc]
    if inspect.isclass(part) and not _has_own_constructor(part):
        return {}
    hints = _hints(function, name)
    fields = {}
    for argument in list(inspect.signature(part).parameters.values()):
        if family == "link" and argument.name in LINK_ENDS:
            continue
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise SpecError("kind", f"{name} takes *{argument.name}; a part names its arguments")
        required = argument.default is argument.empty
        try:
            annotation = _field_type(hints.get(argument.name, Any), family)
        except TypeError as error:
            if not required:
                continue  # an argument for Python only
            raise SpecError("kind", f"{name}({argument.name}) {error}") from error
        fields[argument.name] = (annotation, ... if required else argument.default)
    return fields


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError as error:
        raise SpecError(
            "kind",
            f"{name} is annotated with a name that is not there at run time ({error}); import it "
            "outside `if TYPE_CHECKING`",
        ) from error
    except Exception as error:  # an annotation may be any expression
        raise SpecError("kind", f"annotations of {name}: {unforeseen(error)}") from error


def _has_own_constructor(part: type) -> bool:
    """Tell whether a class takes arguments at all; nn.Module's and object's own take none."""
    owner = next(c for c in part.__mro__ if "__init__" in vars(c))
    return owner is not object and owner.__module__ != "torch.nn.modules.module"


def _field_type(annotation: Any, family: str) -> Any:
    """Return the strict pydantic type for an annotation; nested parts for classes of parts."""
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return _literal(annotation, arguments)
    if origin in (Union, types.UnionType):
        members = [_field_type(a, family) for a in arguments]
        if str in arguments:  # "1/12" stays as written
            members = [pydantic.StrictFloat if m is Number else m for m in members]
        return Union[tuple(members)]  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(a if a is ... else _field_type(a, family) for a in arguments)]  # type: ignore[misc]
    if origin is list:
        return list[_field_type(arguments[0], family)]  # type: ignore[misc]
    if origin is collections.abc.Sequence:
        return tuple[_field_type(arguments[0], family), ...]  # type: ignore[misc]
    if origin in (dict, collections.abc.Mapping):
        return dict[tuple(_field_type(a, family) for a in arguments)]  # type: ignore[misc]
    if annotation in _NESTED:
        return nested(_NESTED[annotation])
    if annotation is nn.Module:
        return nested(family)
    raise TypeError(f"has a type that no YAML can express: {annotation}")


def _literal(annotation: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the choices; a word of digits such as "32" may be written without quotes."""
    if not any(isinstance(a, str) and a.isdigit() for a in arguments):
        return annotation

    def as_word(value: object) -> object:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return str(value) if is_number and str(value) in arguments else value

    return Annotated[annotation, BeforeValidator(as_word)]


def to_number(value: object) -> float:
    """Return a number or a fraction such as "1/12" as float; ValueError for anything else."""
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)) and float(match[2]):
        value = float(match[1]) / float(match[2])
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError("not a number")
    return float(value)


NUMBER_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[-+]?[\d.]+ */ *[\d.]+$"}]
}
Number = Annotated[float, BeforeValidator(to_number), WithJsonSchema(NUMBER_SCHEMA)]
_SIMPLE: dict[Any, Any] = {
    int: pydantic.StrictInt,
    bool: pydantic.StrictBool,
    str: pydantic.StrictStr,
    Path: Path,
    float: Number,
    Any: Any,
    None: None,
    type(None): None,
}


def _build_value(value: object) -> object:
    if isinstance(value, BaseModel):
        return build(value)
    if isinstance(value, tuple | list):
        made = []
        for index, item in enumerate(value):
            try:
                made.append(_build_value(item))
            except SpecError as error:
                raise error.under(index) from error
        return type(value)(made)
    return value
