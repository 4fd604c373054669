"""Refuse model files that would run code of their own when they are read.

This stops what a file can do by its format. It is no sandbox: a graph is a program, and a model
from a stranger deserves the care of any program from a stranger.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semsim.codecs.keras.graph_ops import COMPUTE, SAVE
from semsim.files.incoming import (
    ALWAYS_FITS,
    FOLD,
    check_memory,
    check_regular,
    check_unfolds,
    reading,
)

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
CODE = {
    "Lambda": "a Lambda layer, whose Python code would run when it is read",
    "__lambda__": "a Python lambda, which would run when it is read",
    "TorchModuleWrapper": "a pickled torch module, whose code would run when it is read",
    "TFSMLayer": "a SavedModel from another place",
}  #: by the name of a class in a Keras file: what it holds
REWRITE = (
    "write model: my_lab.models:make, a function of yours that builds the model and loads its "
    "weights"
)


def check_keras_file(path: Path, keras: Any) -> None:
    """Raise ValueError where a .keras or .h5 file holds code, or classes that Keras lacks."""
    check_regular(path, "a .keras or .h5 file", "model")
    with reading(path, *_KERAS):
        packed = _packed(path)
    check_unfolds(path, packed, "model")
    with reading(path, *_KERAS):
        stored, config = _content(path)
    check_unfolds(path, stored, "model")
    if config is None:
        raise ValueError(f"model {path} holds weights without an architecture; {REWRITE}")
    for node in _nodes(config):
        name, module = node["class_name"], node.get("module")
        if name in CODE:
            raise ValueError(f"model {path} holds {CODE[name]}; it is not loaded. {_instead(name)}")
        registered = node.get("registered_name")
        known = keras.saving.get_registered_object(registered) if registered else None
        foreign = module is not None and module.split(".")[0] not in ("keras", "builtins")
        if foreign and known is None:
            raise ValueError(
                f"model {path} holds the class {name!r} of {module}, and Keras would import that "
                f"module to read it; {REWRITE}"
            )


def _instead(name: str) -> str:
    if "ambda" in name.lower():
        return f"Put a layer of a class of its own in its place, or {REWRITE}"
    return REWRITE[0].upper() + REWRITE[1:]


_KERAS = ("a Keras file", "get it from its source again", "model")


def _packed(path: Path) -> int:
    """Return the bytes of all that is packed into a .keras file."""
    if path.suffix != ".keras":
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _content(path: Path) -> tuple[int, Any]:
    """Return the bytes of a file's arrays, and its architecture, None where there is none."""
    import h5py

    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            return _stored(file, set()), None if text is None else json.loads(text)
    stored = 0
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        for name in archive.namelist():
            if name.endswith(".h5"):
                with archive.open(name) as inner, h5py.File(inner, "r") as file:
                    stored += _stored(file, set())
    return stored, config


def _stored(group: Any, seen: set[int]) -> int:
    """Return the bytes of all arrays in an HDF5 file; ValueError where one lies elsewhere."""
    import h5py

    total = 0
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name}/{name} is a link to another place")
        item = group[name]
        place = h5py.h5o.get_info(item.id).addr
        if place in seen:
            continue
        seen.add(place)
        if isinstance(item, h5py.Group):
            total += _stored(item, seen)
        elif isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"{item.name} lies in another file")
            total += item.nbytes
    return total


def _nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a configuration that names a class."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if isinstance(value.get("class_name"), str):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def check_saved_model(path: Path) -> None:
    """Raise ValueError where the graph of a SavedModel does anything but compute."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    file = path / "saved_model.pb"
    with reading(path, "a SavedModel", "write it with model.export(folder)", "model"):
        check_memory(file.stat().st_size, file.name)
        proto.ParseFromString(file.read_bytes())
    for graph in proto.meta_graphs:
        if not graph.HasField("object_graph_def"):
            raise ValueError(f"model {path} is of TensorFlow 1; write it with model.export(folder)")
        _check_graph(path, graph)


def _check_graph(path: Path, graph: Any) -> None:
    """Compare each function's operations with those allowed; only the saver's own may save."""
    ends = {
        name.split(":")[0]
        for name in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    }
    top = list(graph.graph_def.node)
    savers = {name for node in top if node.name in ends for name in _called(node)}
    functions = {f.signature.name: list(f.node_def) for f in graph.graph_def.library.function}
    used = {"": [node for node in top if node.name not in ends], **functions}
    called = {name for nodes in used.values() for node in nodes for name in _called(node)}
    called |= graph.object_graph_def.concrete_functions.keys()
    room = 0
    for name, nodes in used.items():
        allowed = COMPUTE | SAVE if name in savers - called else COMPUTE
        if found := sorted({node.op for node in nodes} - allowed):
            raise ValueError(
                f"model {path} is not loaded: its graph uses {', '.join(found[:5])}, and a graph "
                "from a file may compute, but not touch files, screen or Python; export it without"
            )
        room += sum(map(_constant_bytes, nodes))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if room > max(FOLD * size, ALWAYS_FITS):
        raise ValueError(
            f"model {path} has {size:,} bytes and constants of {room:,}, which is refused; give "
            "large constants as variables"
        )


def _called(node: Any) -> set[str]:
    """Return the names of the functions that a node of a graph calls."""
    found = {value.func.name for value in node.attr.values()}
    found |= {func.name for value in node.attr.values() for func in value.list.func}
    return (found | {node.op}) - {""}


def _constant_bytes(node: Any) -> int:
    """Return what a constant takes; one number may stand for as many as its shape says."""
    if node.op != "Const":
        return 0
    shape = node.attr["value"].tensor.tensor_shape.dim
    return 8 * math.prod(max(axis.size, 0) for axis in shape)
