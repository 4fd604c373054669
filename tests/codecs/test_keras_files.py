"""Files that would run code are refused, and every other mistake is one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from semsim.codecs.keras import frameworks
from semsim.codecs.keras.codec import KerasReceiver, KerasTransmitter
from semsim.mistakes import SpecError
from semsim.scenario import Scenario

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
    elif name == "writes":
        import tensorflow as tf

        module = tf.Module()

        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def serve(x: Any) -> Any:
            tf.io.write_file("stolen.txt", "secret")
            return x

        module.serve = serve
        tf.saved_model.save(module, name)
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
        ("writes", "its graph reads or writes files or calls Python .WriteFile.; export it"),
        ("damaged", "model damaged is no whole SavedModel"),
        ("broken.keras", "model broken.keras is no whole Keras file"),
        ("broken.h5", "model broken.h5 is no whole HDF5 file"),
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
