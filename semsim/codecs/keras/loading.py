"""From what a scenario calls a model to a network: a file, a folder or a function of yours."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from semsim.codecs.keras.frameworks import Backend, import_keras, import_tensorflow
from semsim.codecs.keras.networks import (
    Network,
    TensorFlowNetwork,
    TorchNetwork,
    call,
    inputs_of,
    variables_of,
)
from semsim.codecs.keras.safety import PICKLES, check_keras_file, check_saved_model
from semsim.files import outside
from semsim.files.incoming import reading

End = Literal["encoder", "decoder"]
_NO_ARGUMENTS = "arguments are those of a function module:name, and {} is a file"
KERAS_FILES = (".keras", ".h5", ".hdf5")


def network(
    model: str, end: End, backend: Backend, arguments: Mapping[str, Any] | None, trainable: bool
) -> Network:
    """Return one end of a codec as a torch module.

    Args:
        model: see :class:`semsim.codecs.keras.codec.KerasTransmitter`.
        end: which one, where ``model`` stands for both.
        backend: what computes.
        arguments: of the function.
        trainable: whether a training changes it.
    """
    if not is_function(model) and (path := _end_of(Path(model), end)).is_dir():
        if arguments:
            raise ValueError(_NO_ARGUMENTS.format(path))
        if backend != "tensorflow":
            raise ValueError(
                f"backend is tensorflow for a SavedModel such as {path}: it is a TensorFlow graph"
            )
        return _of_graph(path, trainable)
    return _of_keras(keras_model(model, end, backend, arguments), backend, trainable)


def keras_model(
    model: str, end: End, backend: Backend, arguments: Mapping[str, Any] | None = None
) -> Any:
    """Return the Keras model itself; arguments as in :func:`network`."""
    if is_function(model):
        found = _made(model, end, backend, arguments or {})
    else:
        path = _end_of(Path(model), end)
        if arguments:
            raise ValueError(_NO_ARGUMENTS.format(path))
        if path.is_dir():
            raise ValueError(f"model {path} is a SavedModel, a graph without layers")
        found = _read(path, backend)
    if not found.built:
        raise ValueError(
            f"model {model} has no weights yet: call it once on an example before you save or "
            "return it, or build it from keras.Input"
        )
    return found


def is_function(model: str) -> bool:
    """Tell a function, ``module:name``, from a path."""
    module, _, name = model.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _end_of(path: Path, end: End) -> Path:
    """Return the file or SavedModel of one end; a folder may hold both, under their names."""
    if not path.exists():
        raise ValueError(
            f"model {path} does not exist; give a .keras file, a SavedModel folder, a folder that "
            "holds encoder.keras and decoder.keras, or a function module:name"
        )
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return path
        for inner in (path / f"{end}.keras", path / end):
            if inner.is_file() or (inner / "saved_model.pb").is_file():
                return inner
        raise ValueError(
            f"model {path} is a folder without saved_model.pb, {end}.keras or {end}/saved_model.pb"
        )
    if path.suffix in PICKLES:
        raise ValueError(
            f"model {path} is a pickle, which may run any code when it is read; it is not loaded. "
            "Save the model with model.save('model.keras')"
        )
    if path.suffix not in KERAS_FILES:
        raise ValueError(f"model {path} is none of {', '.join(KERAS_FILES)} or a SavedModel folder")
    return path


def _read(path: Path, backend: Backend) -> Any:
    """Return the Keras model in a file, read without running code that came with it."""
    from semsim.codecs.keras.models import gdn_layer

    keras = import_keras(backend)
    gdn_layer()  # so that files may hold it
    check_keras_file(path, keras)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises half a dozen types for a file it cannot read
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"model {path} cannot be read by Keras: {reason}") from error


def _made(model: str, end: End, backend: Backend, arguments: Mapping[str, Any]) -> Any:
    """Call the user's function; of two models that it returns the first is the encoder.

    Fresh weights follow ``torch.manual_seed``, as those of all other parts do.
    """
    keras = import_keras(backend)
    try:
        function = outside.function(model, keras.Model)
    except ValueError as error:
        raise ValueError(f"model {error}") from error
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"arguments do not fit {model}: {error}") from error
    with _seeded_by_torch():
        made = function(**arguments)
    if isinstance(made, tuple) and len(made) == 2:
        made = made[0 if end == "encoder" else 1]
    if not isinstance(made, keras.Model):
        raise ValueError(
            f"model {model} returned a {type(made).__name__}; a function returns a keras.Model, or "
            "two of them, encoder and decoder"
        )
    return made


@contextlib.contextmanager
def _seeded_by_torch() -> Iterator[None]:
    seed, state = int(torch.randint(2**31, ())), random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initialisers from here
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(state)


def _of_keras(model: Any, backend: Backend, trainable: bool) -> Network:
    if backend == "torch":
        return TorchNetwork(model, import_keras(backend), trainable=trainable)
    trained, kept = variables_of(model)
    shape, num_inputs = inputs_of(model)

    def run(inputs: Any, training: bool) -> Any:
        return call(model, inputs, training=training)

    return TensorFlowNetwork(
        run, ([v.value for v in trained], [v.value for v in kept]),
        trainable=trainable, shape=shape, num_inputs=num_inputs,
    )  # fmt: skip


def _of_graph(path: Path, trainable: bool) -> Network:
    """Return the graph of a SavedModel: its ``serve``, else its default signature."""
    tf = import_tensorflow()
    check_saved_model(path)
    with reading(path, "a SavedModel", "write it with model.export(folder)", "model"):
        loaded = tf.saved_model.load(str(path))
    serve = getattr(loaded, "serve", None)
    graphs = list(getattr(serve, "concrete_functions", []))
    graphs += [g for n, g in loaded.signatures.items() if n == "serving_default"]
    if not graphs:
        raise ValueError(
            f"model {path} has neither serve nor the signature serving_default; write it with "
            "model.export(folder)"
        )
    expected = graphs[0].structured_input_signature
    inputs = tf.nest.flatten(expected)
    if any(x.shape.rank is None for x in inputs):
        raise ValueError(f"model {path} has an input of unknown rank; give it a shape [None, ...]")
    # named inputs come by name; of two the SNR, one number per item, is the second
    order = sorted(range(len(inputs)), key=lambda i: inputs[i].shape.as_list()[1:] == [1])

    def run(values: Any, training: bool, graph: Any = graphs[0], alive: Any = loaded) -> Any:
        placed = [values[order.index(i)] for i in range(len(order))]
        args, kwargs = tf.nest.pack_sequence_as(expected, placed)
        output = tf.nest.flatten(graph(*args, **kwargs))
        if len(output) != 1:
            raise ValueError(f"model {path} gives {len(output)} tensors; one is wanted")
        return output[0]

    variables = list(graphs[0].variables)
    trained, kept = ([v for v in variables if v.trainable is t] for t in (True, False))
    shape = tuple(inputs[order[0]].shape.as_list()[1:])
    return TensorFlowNetwork(
        run, (trained, kept), trainable=trainable, shape=shape, num_inputs=len(inputs)
    )
