"""Files that would run code are refused, and every other mistake is one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semsim.codecs.keras import frameworks
from semsim.codecs.keras.codec import KerasReceiver, KerasTransmitter
from semsim.mistakes import SpecError
from semsim.scenario.scenario import Scenario

HERE = Path(__file__).parent
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra tensorflow"
)
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.chdir(tmp_path)


def edited(source: str, target: str, old: str, new: str) -> None:
    """Copy a .keras file with one word of its configuration changed."""
    with zipfile.ZipFile(source) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["config.json"] = parts["config.json"].replace(old.encode(), new.encode())
    with zipfile.ZipFile(target, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)


def saved_model(name: str, work: Callable[[Any], None]) -> None:
    """Write a SavedModel that also does ``work`` when it is called."""
    import tensorflow as tf

    module = tf.Module()

    def serve(x: Any) -> Any:
        work(tf)
        return x

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    tf.saved_model.save(module, name)


def _save(tf: Any) -> None:
    tf.raw_ops.SaveV2(
        prefix="stolen.txt", tensor_names=["x"], shape_and_slices=[""], tensors=[tf.ones(1)]
    )


GRAPHS: dict[str, Callable[[Any], Any]] = {
    "writes": lambda tf: tf.io.write_file("stolen.txt", "secret"),
    "prints": lambda tf: tf.print("secret", output_stream="file://stolen.txt"),
    "saves": _save,
}


def edit_graph(name: str, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model(name, lambda tf: None)
    file, proto = Path(name, "saved_model.pb"), saved_model_pb2.SavedModel()
    proto.ParseFromString(file.read_bytes())
    change(proto.meta_graphs[0].graph_def)
    file.write_bytes(proto.SerializeToString())


def call_the_saver(name: str) -> None:
    """Let the graph itself call the function that saves variables."""

    def change(graph: Any) -> None:
        functions = {f.signature.name: f for f in graph.library.function}
        saver = next(n for n in functions if "traced_save" in n)
        user = next(f for n, f in functions.items() if "traced" not in n)
        node = user.node_def.add(name="hidden", op="PartitionedCall")
        node.attr["f"].func.name = saver

    edit_graph(name, change)


def swell(name: str) -> None:
    """Let one number of a constant stand for a thousand million of them."""

    def change(graph: Any) -> None:
        node = graph.node.add(name="large", op="Const")
        node.attr["value"].tensor.tensor_shape.dim.add(size=10**9)

    edit_graph(name, change)


def blow_up(name: str) -> None:
    """Add an array of zeros, packed to next to nothing, to a Keras file's weights."""
    import h5py

    path = Path(name)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file:
            parts = {entry: file.read(entry) for entry in file.namelist()}
        path = Path("inner.h5")
        path.write_bytes(parts["model.weights.h5"])
    with h5py.File(path, "a") as file:
        file.create_dataset("zeros", (10**8,), "f4", chunks=(10**6,), compression="gzip")
    if name.endswith(".keras"):
        with zipfile.ZipFile(name, "w") as file:
            for entry, content in {**parts, "model.weights.h5": path.read_bytes()}.items():
                file.writestr(entry, content)


def make(name: str) -> str:
    """Write a file of this name, harmful or broken in the way that the name says."""
    keras = frameworks.import_keras("tensorflow")
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    if name.startswith("lambda"):
        turned = keras.layers.Lambda(lambda x: 2 * x)
        keras.Sequential([keras.Input((4,)), turned]).save(name)
    elif name == "weights.h5":
        plain.save_weights("plain.weights.h5")
        Path("plain.weights.h5").rename(name)
    elif name == "foreign.keras":
        plain.save("plain.keras")
        edited("plain.keras", name, '"module": "keras.layers", "class_name": "Dense"',
               '"module": "os.path", "class_name": "Dense"')  # fmt: skip
    elif name == "wrapped.keras":
        plain.save("plain.keras")
        edited("plain.keras", name, '"class_name": "Dense"', '"class_name": "TorchModuleWrapper"')
    elif name in GRAPHS:
        saved_model(name, GRAPHS[name])
    elif name == "calls its saver":
        call_the_saver(name)
    elif name == "no variables":
        plain.export(name, verbose=False)
        for file in Path(name, "variables").iterdir():
            file.unlink()
    elif name == "no rank":
        import tensorflow as tf

        module = tf.Module()
        module.serve = tf.function(lambda x: x, input_signature=[tf.TensorSpec(None, tf.float32)])
        tf.saved_model.save(module, name)
    elif name == "swells":
        swell(name)
    elif name in ("bomb.keras", "bomb.h5"):
        plain.save(name)
        blow_up(name)
    elif name == "packed.keras":
        plain.save(name)
        with zipfile.ZipFile(name, "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros.bin", bytes(300_000_000))
    elif name == "linked.h5":
        import h5py

        plain.save(name)
        with h5py.File(name, "a") as file:
            file["weights"] = h5py.ExternalLink("/etc/hosts", "x")
    elif name == "pipe.keras":
        os.mkfifo(name)
    elif name == "damaged":
        Path(name).mkdir()
        Path(name, "saved_model.pb").write_bytes(b"\xff\xff\xff")
    else:
        Path(name).write_bytes(b"no model")
    return name


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lambda.keras", "model lambda.keras holds a Lambda layer, whose Python code would run"),
        ("lambda.h5", "model lambda.h5 holds a Lambda layer, whose Python code would run"),
        ("wrapped.keras", "holds a pickled torch module"),
        ("foreign.keras", "holds the class 'Dense' of os.path, and Keras would import"),
        ("weights.h5", "holds weights without an architecture; write model: my_lab.models:make"),
        ("writes", "its graph uses .*WriteFile, and a graph from a file may compute, but not"),
        ("prints", "its graph uses .*PrintV2"),
        ("saves", "its graph uses .*SaveV2"),
        ("calls its saver", "its graph uses .*SaveV2"),
        ("swells", "constants of 8,000,000,"),
        ("no variables", "model no variables cannot be read as a SavedModel"),
        ("no rank", "model no rank has an input of unknown rank"),
        ("damaged", "model damaged cannot be read as a SavedModel"),
        ("broken.keras", "model broken.keras cannot be read as a Keras file"),
        ("broken.h5", "model broken.h5 cannot be read as a Keras file"),
        ("bomb.keras", "model bomb.keras has .* bytes and would unfold to 400,0"),
        ("bomb.h5", "model bomb.h5 has .* bytes and would unfold to 400,0"),
        ("packed.keras", "model packed.keras has .* bytes and would unfold to 300,0"),
        ("linked.h5", "weights is a link to another place"),
        ("pipe.keras", "model pipe.keras is no plain file"),
        ("model.pkl", "model model.pkl is a pickle, which may run any code when it is read"),
        ("model.pt", "model model.pt is a pickle"),
        ("model.onnx", "model model.onnx is none of .keras, .h5, .hdf5 or a SavedModel folder"),
    ],
)
def test_a_file_that_is_no_plain_model_is_refused(name: str, said: str) -> None:
    for end in (KerasTransmitter, KerasReceiver):
        with pytest.raises(ValueError, match=said) as caught:
            end(name if Path(name).exists() else make(name))
        assert "\n" not in str(caught.value)
    assert not Path("stolen.txt").exists()


@needs_tensorflow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "none.keras"}, "model: none.keras does not exist; give a .keras file"),
        ({"model": "."}, "model: . is a folder without saved_model.pb, encoder.keras"),
        ({"model": "no_lab:make"}, "model: 'no_lab:make' needs the module 'no_lab'"),
        ({"model": "keras_models:none"}, "the module 'keras_models' has no 'none'"),
        ({"model": "keras_models:nothing"}, "returned a int; a function returns a keras.Model"),
        ({"model": "keras_models:Unbuilt"}, "has no weights yet: call it once on an example"),
        ({"model": "keras_models:three_inputs"}, "takes 3 inputs; one is the source"),
        (
            {"model": "keras_models:halves", "arguments": {"chanels": 3}},
            "arguments: do not fit keras_models:halves: got an unexpected keyword argument",
        ),
        ({"model": "x.keras", "arguments": {"a": 1}}, "model: x.keras does not exist"),
        ({"model": "keras_models:halves", "backend": "jax"}, "backend: must be 'tensorflow' or"),
        ({"model": "keras_models:halves", "pairing": "both"}, "pairing: must be 'halves' or"),
        (
            {"model": "keras_models:halves", "backend": "torch"},
            "backend: torch is not possible here: this process has imported Keras on its",
        ),
    ],
)
def test_a_mistake_in_a_scenario_is_told_with_its_key(arguments: dict, said: str) -> None:
    frameworks.import_keras("tensorflow")
    values = {
        "payload": {"kind": "synthetic", "count": 1, "size": 16},
        "transmitter": {"kind": "keras", **arguments},
        "channel": "awgn",
        "metrics": ["psnr"],
        "snr_db": [10],
    }
    with pytest.raises(SpecError) as caught:
        Scenario.parse(values).build(torch.device("cpu"))
    assert str(caught.value).startswith("transmitter.")
    assert said in str(caught.value)


@needs_tensorflow
def test_a_saved_model_has_no_torch_road() -> None:
    Path("graph").mkdir()
    Path("graph/saved_model.pb").touch()
    with pytest.raises(ValueError, match="backend is tensorflow for a SavedModel such as graph"):
        KerasTransmitter("graph", backend="torch")


def test_without_tensorflow_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "keras"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for backend, missing in (("tensorflow", "TensorFlow"), ("torch", "Keras")):
        with pytest.raises(ImportError, match=rf"needs {missing}, which is missing: pip install"):
            KerasTransmitter("my_lab:make", backend=backend)


def test_nothing_of_tensorflow_is_imported_before_a_model_is_made() -> None:
    code = (
        "import sys; from semsim import spec; spec.parse('transmitter', {'kind': 'keras', "
        "'model': 'a.keras'}); import semsim.codecs.keras.convert, semsim.codecs.keras.models; "
        "print([m for m in ('tensorflow', 'keras', 'h5py', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@needs_tensorflow
@pytest.mark.slow
def test_tensorflow_says_nothing_and_torch_keeps_its_threads() -> None:
    code = (
        "import torch; torch.set_num_threads(1); from channels import CSI; "
        "from semsim.codecs.keras.codec import KerasTransmitter; "
        "t = KerasTransmitter('semsim.codecs.keras.models:bourtsoulatze2019'); "
        "x = t(torch.rand(2, 3, 8, 8), CSI(None, torch.ones(2))); x.real.sum().backward(); "
        "import tensorflow, json, os; print(json.dumps([torch.get_num_threads(), "
        "tensorflow.config.threading.get_intra_op_parallelism_threads(), "
        "os.environ.get('KERAS_BACKEND')]))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [1, 1, None]


@needs_tensorflow
def test_what_keras_exports_is_within_the_allowed_operations() -> None:
    from tensorflow.python.framework import op_def_registry

    from semsim.codecs.keras.graph_ops import COMPUTE, SAVE
    from semsim.codecs.keras.safety import check_saved_model

    assert [op for op in COMPUTE | SAVE if op_def_registry.get(op) is None] == []
    keras = frameworks.import_keras("tensorflow")
    layers = keras.layers
    x = image = keras.Input((16, 16, 3))
    for layer in (
        layers.Conv2D(4, 3, padding="same", activation="gelu"), layers.BatchNormalization(),
        layers.SeparableConv2D(4, 3), layers.LayerNormalization(), layers.Dropout(0.1),
        layers.UpSampling2D(interpolation="bilinear"), layers.MaxPooling2D(),
        layers.Conv2DTranspose(4, 3, 2, activation="swish"), layers.PReLU(shared_axes=[1, 2]),
        layers.GroupNormalization(2), layers.DepthwiseConv2D(3), layers.ZeroPadding2D(),
        layers.AveragePooling2D(2), layers.GaussianNoise(0.1), layers.Reshape((-1, 4)),
        layers.LSTM(4, return_sequences=True), layers.GRU(4), layers.Dense(4, "softmax"),
    ):  # fmt: skip
        x = layer(x)
    keras.Model(image, x).export("wide", verbose=False)
    check_saved_model(Path("wide"))
