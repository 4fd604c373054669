"""Trained weights by name: safetensors, their SHA-256, and a model card with the measured curve.

    semsim/weights/NAME.safetensors     tensors; the header's metadata holds the spec
    semsim/weights/NAME.json            the card

Nothing here reads a pickle. Tensors of a codec are named ``transmitter.…`` and ``receiver.…``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from semsim.files.disk import write_atomic
from semsim.files.weightfile import check_fit, read_header, read_tensors, sha256_of
from semsim.mistakes import known

T = TypeVar("T", bound=nn.Module)
R = TypeVar("R", bound=nn.Module)
WEIGHTS = Path(__file__).parent / "weights"
HASHES = "sha256"  #: key of a spec: SHA-256 of the files that arguments name, by argument
OF_LINK = "weights.safetensors"  #: what a training leaves of its link
OF_TASK = "task.safetensors"  #: what a training leaves of its task, beside the link's weights
FETCH = "install semsim again"
RETRAIN = "train it again with semsim train, or name other weights"


def names() -> list[str]:
    """Return the names of the weights that semsim carries."""
    return sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))


def card(name: str) -> dict[str, Any]:
    """Return the model card: spec, data, training, machine, measured curve, sha256."""
    path = _shipped(name).with_suffix(".json")
    if not path.is_file():
        raise ValueError(f"weights {name!r} have no model card: {path.name} is missing")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the model card of {name!r} is damaged: {error}") from error
    kinds = {"sha256": str, "classes": dict, "spec": dict}
    found = facts if isinstance(facts, dict) else {}
    if not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
        raise ValueError(
            f"the model card of {name!r} is damaged: it holds no {', '.join(kinds)}; install "
            "semsim again"
        )
    return found


def build(name: str) -> dict[str, nn.Module]:
    """Return every part of shipped weights, such as transmitter and receiver, ready and in eval.

    The classes are those that the model card names.
    """
    facts, parts = card(name), {}
    for prefix, path in facts["classes"].items():
        parts[prefix] = _made(path, facts["spec"][prefix]).eval()
    load_parts(name, parts)
    return parts


def _made(path: str, spec: Mapping[str, Any]) -> Any:
    """Construct a class, ``module:Class``, by a spec; parts nested in it say their own class."""
    module, _, attribute = path.partition(":")
    own = {k: v for k, v in arguments(spec).items() if k not in ("kind", "class")}
    for key, value in own.items():
        if isinstance(value, Mapping) and "class" in value:
            own[key] = _made(value["class"], value)
    return getattr(importlib.import_module(module), attribute)(**own)


def arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a spec a constructor takes: all but the hashes of files."""
    return {k: v for k, v in spec.items() if k != HASHES}


def digest(name: str | Path) -> str:
    """Return the SHA-256 of shipped weights, or of a .safetensors file."""
    return sha256_of(_path(name))


def load(name: str | Path, transmitter: nn.Module, receiver: nn.Module | None) -> None:
    """Load weights by name or from a .safetensors file into both ends.

    Refuses a damaged file, weights trained for other arguments, and tensors missing or left over.
    """
    parts = {"transmitter": transmitter}
    if receiver is not None:
        parts["receiver"] = receiver
    load_parts(name, parts)


def pair(
    name: str | Path, transmitter: Callable[..., T], receiver: Callable[..., R]
) -> tuple[T, R]:
    """Return both ends as they were trained: constructed by the spec in the file, loaded, in eval.

    Args:
        name: shipped weights, or a .safetensors file.
        transmitter, receiver: the classes, such as ``DeepJSCCTransmitter``.
    """
    specs = read_header(_path(name)).specs
    missing = sorted({"transmitter", "receiver"} - specs.keys())
    if missing:
        raise ValueError(f"weights {name!r} hold no {' and no '.join(missing)}; {RETRAIN}")
    try:
        first, second = (arguments(specs[end]) for end in ("transmitter", "receiver"))
        ends = transmitter(**first), receiver(**second)
    except TypeError as error:
        raise ValueError(f"weights {name!r} are of another codec: {error}; {RETRAIN}") from error
    load(name, *ends)
    for end in ends:
        end.eval()
    return ends


def specs(name: str | Path) -> dict[str, dict[str, Any]]:
    """Return the arguments that weights belong to, by the prefix of the part."""
    return read_header(_path(name)).specs


def load_parts(
    name: str | Path, parts: Mapping[str, nn.Module], *, among_others: bool = False
) -> None:
    """Load weights into modules, each under its own prefix, such as ``{"network": resnet}``.

    Args:
        name: shipped weights, or a .safetensors file.
        parts: modules by prefix.
        among_others: whether the file may hold more parts, as one of a training does that had
            networks for itself alone.
    """
    path = _path(name)
    header = read_header(path)
    held = {name.partition(".")[0] for name in header.tensors}
    if held and not held & parts.keys():
        raise ValueError(
            f"{path} holds the weights of {' and '.join(sorted(held))}, not of "
            f"{' and '.join(sorted(parts))}; a training writes its codec to {OF_LINK} and its task "
            f"to {OF_TASK}: name the other file"
        )
    if among_others:
        own_tensors = {k: v for k, v in header.tensors.items() if k.partition(".")[0] in parts}
        header = dataclasses.replace(header, tensors=own_tensors)
    _check_hash(path, _sha256_beside(path))
    for prefix, part in parts.items():
        _check_spec(str(name), prefix, part, header.specs.get(prefix))
    own = {p: part.state_dict() for p, part in parts.items()}
    wanted = {f"{p}.{key}": value for p, state in own.items() for key, value in state.items()}
    check_fit(str(name), header, wanted, RETRAIN)
    tensors = read_tensors(path)
    for prefix, part in parts.items():
        part.load_state_dict({k: tensors[f"{prefix}.{k}"] for k in own[prefix]})


def tensors(name: str | Path) -> dict[str, Tensor]:
    """Return all tensors of shipped weights or of a file, by name; a damaged file is refused."""
    path = _path(name)
    _check_hash(path, _sha256_beside(path))
    return read_tensors(path)


def _sha256_beside(path: Path) -> str | None:
    """Return the SHA-256 on the card of weights; None where a file from elsewhere has no card."""
    if path.parent == WEIGHTS:
        return str(card(path.stem)["sha256"])
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
    except (FileNotFoundError, ValueError):  # a damaged card says nothing about the weights
        return None
    found = facts.get("sha256") if isinstance(facts, dict) else None
    return found if isinstance(found, str) else None


def export(
    path: str | Path,
    transmitter: nn.Module,
    receiver: nn.Module,
    card: Mapping[str, Any] | None = None,
) -> Path:
    """Write both ends as ``path`` (.safetensors), and the card with its SHA-256 beside it."""
    return export_parts(path, {"transmitter": transmitter, "receiver": receiver}, card)


def export_parts(
    path: str | Path, parts: Mapping[str, nn.Module], card: Mapping[str, Any] | None = None
) -> Path:
    """Write modules to one file, each under its own prefix; a part's ``spec`` is in the header."""
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are read from a .safetensors file, got {path}; add the ending")
    tensors = {
        f"{prefix}.{key}": value.detach().cpu().contiguous().clone()  # tied weights share memory
        for prefix, part in parts.items()
        for key, value in part.state_dict().items()
    }
    specs = {p: spec for p, part in parts.items() if (spec := getattr(part, "spec", None))}
    content = save(tensors, metadata={"spec": json.dumps(specs, sort_keys=True)})
    write_atomic(path, content)
    digest = hashlib.sha256(content).hexdigest()
    parameters = sum(p.numel() for part in parts.values() for p in part.parameters())
    classes = {p: f"{type(part).__module__}:{type(part).__qualname__}" for p, part in parts.items()}
    facts = {"sha256": digest, "classes": classes, "spec": specs, "parameters": parameters}
    facts |= card or {}
    write_atomic(path.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    return path


def _path(name: str | Path) -> Path:
    path = Path(name) if str(name).endswith(".safetensors") else _shipped(str(name))
    if not path.is_file():
        raise ValueError(f"no weights at {path}; give a .safetensors file or one of {names()}")
    return path


def _shipped(name: str) -> Path:
    path = WEIGHTS / f"{name}.safetensors"
    if name in names():
        return path
    raise ValueError(f"no weights are called {name!r}; {known(names(), name)}")


def _check_hash(path: Path, sha256: str | None) -> None:
    """Compare a file with the hash that its model card says, where there is one."""
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256:
        raise ValueError(
            f"weights {path.name} are damaged: SHA-256 {found[:12]}… where the model card says "
            f"{sha256[:12]}…; {FETCH if path.parent == WEIGHTS else RETRAIN}"
        )


def _check_spec(name: str, prefix: str, part: nn.Module, trained: dict[str, Any] | None) -> None:
    """Compare the arguments in the file with those of the part, where both are known."""
    strange, wrong = compared(name, prefix, part, trained)
    if strange:
        raise ValueError(
            f"weights {name!r} are of another kind of {prefix}: theirs takes {', '.join(strange)}, "
            f"this one does not; name the kind that they were trained with, or {RETRAIN}"
        )
    if wrong:
        theirs = ", ".join(f"{key} {value}" for key, value, _ in wrong)
        ours = ", ".join(f"{key} {value}" for key, _, value in wrong)
        raise ValueError(
            f"weights {name!r} were trained for {theirs}, this {prefix} has {ours}; write what "
            f"they were trained for, or {RETRAIN}"
        )


def compared(
    name: str, prefix: str, part: nn.Module, trained: Mapping[str, Any] | None
) -> tuple[list[str], list[tuple[str, Any, Any]]]:
    """Return what of a spec a part does not take, and what differs, as a scenario writes it.

    Of an argument that names a file the bytes count, not the place, where both know their hash.

    Args:
        name: of the weights.
        prefix: of the part.
        part: with a ``spec`` of its own; nothing is known of another.
        trained: the spec in the weights; None where they have none.

    Returns:
        The arguments that the part does not take; and (argument, theirs, the part's) of others.
    """
    mine = getattr(part, "spec", None)
    if trained is None or mine is None:
        return [], []
    trained = _with_later_options(part, trained, mine)
    same = _check_hashes(name, prefix, trained, mine) | {*getattr(part, "free_options", ())}
    both = arguments(trained).keys() & arguments(mine).keys() - same
    wrong = [found for k in trained if k in both for found in _apart(k, trained[k], mine[k])]
    key = getattr(part, "written_as", {})  # of an argument, in a scenario
    strange = sorted(arguments(trained).keys() - mine.keys() - same)
    return strange, [(key.get(k, k), theirs, ours) for k, theirs, ours in wrong]


def _with_later_options(
    part: object, trained: Mapping[str, Any], mine: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a spec with the options that came after it at their defaults, nested parts too.

    Weights from before an option came are of its default.
    """
    later = [key for key in getattr(part, "later_options", ()) if key in mine]
    whole = {**{key: _default(type(part), key) for key in later}, **trained}
    for key, own in mine.items():
        if isinstance(own, Mapping) and isinstance(whole.get(key), Mapping) and key != HASHES:
            whole[key] = _with_later_options(getattr(part, key, None), whole[key], own)
    return whole


def _default(made: type, option: str) -> Any:
    """Return the default of an option of a class, which a subclass may take as ``**arguments``."""
    signatures = (inspect.signature(base.__init__).parameters for base in made.__mro__)  # type: ignore[misc]
    return next(names[option].default for names in signatures if option in names)


def _check_hashes(
    name: str, prefix: str, trained: Mapping[str, Any], mine: Mapping[str, Any]
) -> set[str]:
    """Return the arguments that name the same bytes in both; refuse other bytes."""
    theirs, ours = _hashes(trained), _hashes(mine)
    for key in sorted(theirs.keys() & ours.keys()):
        if theirs[key] != ours[key]:
            raise ValueError(
                f"weights {name!r} were trained with {key} of SHA-256 {theirs[key][:12]}…, this "
                f"{prefix} has {mine[key]} of {ours[key][:12]}…; name the file that they were "
                f"trained with, or {RETRAIN}"
            )
    return theirs.keys() & ours.keys()


def _hashes(spec: Mapping[str, Any]) -> dict[str, str]:
    found = spec.get(HASHES)
    return {k: str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def _apart(name: str, trained: Any, mine: Any) -> list[tuple[str, Any, Any]]:
    """Return what differs of an argument, by name, with both values.

    Of nested parts only what both know is compared: a new key spoils no weights.
    """
    if isinstance(trained, Mapping) and isinstance(mine, Mapping):
        both = [key for key in trained if key in mine]
        return [one for key in both for one in _apart(f"{name}.{key}", trained[key], mine[key])]
    return [] if trained == mine else [(name, trained, mine)]
