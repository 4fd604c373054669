"""Import TensorFlow and Keras: only when used, quietly, and on one backend per process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

import torch

Backend = Literal["tensorflow", "torch"]
_QUIET = ("TF_CPP_MIN_LOG_LEVEL", "3")  # else it reports a missing GPU as an error
_owner: dict[str, int] = {}  #: which process uses TensorFlow
INSTALL = 'pip install "semsim-wireless[tensorflow]"'


def import_tensorflow() -> Any:
    """Return TensorFlow, on the CPU and with torch's number of threads where it is ours to say."""
    if "tensorflow" in sys.modules:
        if _owner.setdefault("process", os.getpid()) != os.getpid():
            raise RuntimeError(
                "TensorFlow hangs in a process that was forked after it had been used; start "
                "workers with the method spawn"
            )
        return sys.modules["tensorflow"]
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(f"backend tensorflow needs TensorFlow, which is missing: {INSTALL}")
    os.environ.setdefault(*_QUIET)
    tensorflow = importlib.import_module("tensorflow")
    tensorflow.config.set_visible_devices([], "GPU")  # it would take all of the GPU's memory
    _owner["process"] = os.getpid()
    if "TF_NUM_INTRAOP_THREADS" not in os.environ:
        tensorflow.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
    return tensorflow


def import_keras(backend: Backend) -> Any:
    """Return Keras on this backend; which one is decided where a process first imports Keras."""
    if backend == "tensorflow":
        import_tensorflow()
    if "keras" not in sys.modules:
        if importlib.util.find_spec("keras") is None:
            raise ImportError(f"backend {backend} needs Keras, which is missing: {INSTALL}")
        os.environ.setdefault(*_QUIET)  # on torch, Keras looks whether TensorFlow is there
        with _environment("KERAS_BACKEND", backend):
            importlib.import_module("keras")
    keras = sys.modules["keras"]
    loaded = keras.backend.backend()
    if loaded != backend:
        raise ValueError(
            f"backend {backend} is not possible here: this process has imported Keras on its "
            f"{loaded} backend, and Keras has one per process; start a new process, or write "
            f"backend: {loaded}"
        )
    return keras


def imported_backend() -> Backend | None:
    """Return the backend of the Keras that this process has imported, if it has."""
    return sys.modules["keras"].backend.backend() if "keras" in sys.modules else None


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
