"""Refuse model files that would run code of their own when they are read.

This stops what a file can do by its format. It is no sandbox: a graph is a program, and a model
from a stranger deserves the care of any program from a stranger.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
CODE = {
    "Lambda": "a Lambda layer, whose Python code would run when it is read",
    "__lambda__": "a Python lambda, which would run when it is read",
    "TorchModuleWrapper": "a pickled torch module, whose code would run when it is read",
    "TFSMLayer": "a SavedModel from another place",
}  #: by the name of a class in a Keras file: what it holds
FILE_OPS = {"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"}
#: TensorFlow operations that touch files or Python while a model runs
REWRITE = (
    "write model: my_lab.models:make, a function of yours that builds the model and loads its "
    "weights"
)


def check_keras_file(path: Path, keras: Any) -> None:
    """Raise ValueError where a .keras or .h5 file holds code, or classes that Keras lacks."""
    config = _config(path)
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


def _config(path: Path) -> Any:
    """Return the architecture in a Keras file, as plain data."""
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"model {path} is no whole Keras file ({error})") from error
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except OSError as error:
        raise ValueError(f"model {path} is no whole HDF5 file ({error})") from error
    if text is None:
        raise ValueError(f"model {path} holds weights without an architecture; {REWRITE}")
    return json.loads(text)


def _nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a configuration that names a class."""
    if isinstance(config, Mapping):
        if isinstance(config.get("class_name"), str):
            yield config
        for value in config.values():
            yield from _nodes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _nodes(value)


def check_saved_model(path: Path) -> None:
    """Raise ValueError where the graph of a SavedModel touches files or calls Python."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ValueError(f"model {path} is no whole SavedModel ({error})") from error
    for graph in proto.meta_graphs:
        used = {node.op for node in graph.graph_def.node}
        used |= {node.op for function in graph.graph_def.library.function
                 for node in function.node_def}  # fmt: skip
        if found := sorted(used & FILE_OPS):
            raise ValueError(
                f"model {path} is not loaded: its graph reads or writes files or calls Python "
                f"({', '.join(found)}); export it without"
            )
