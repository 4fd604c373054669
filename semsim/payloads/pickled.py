"""Read dicts of numbers and arrays from a pickle without letting the pickle run anything.

The only names that a file may use are those with which NumPy stores an array, and these stand for
the small classes below instead of NumPy's: nothing outside this module is ever called.
"""

from __future__ import annotations

import codecs
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from semsim.files.incoming import check_regular

LARGEST = 1 << 29  #: bytes
DTYPES = ("u1", "i1", "<i2", "<i4", "<i8", "<f4", "<f8")  #: plain numbers; never objects


def read_pickle(path: Path) -> Any:
    """Return what a pickle file holds: dict, list, tuple, str, bytes, numbers and plain arrays.

    Strings of Python 2 come as bytes.

    Raises:
        ValueError: the file is damaged, or asks for anything else; it is then not loaded.
    """
    check_regular(path, "a pickle of arrays")
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes; at most {LARGEST:,} are read, and "
            "a batch of CIFAR-10 has 31 million. Get the file from its official source"
        )
    try:
        with path.open("rb") as file:
            return _finish(_Restricted(file, encoding="bytes").load(), {})
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error})") from None


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        part = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (part, name) in _ALLOWED:
            return _ALLOWED[part, name]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, and only plain NumPy arrays are allowed; "
            "get the file from its official source"
        )


class _Dtype:
    """Stands for ``numpy.dtype``; of its state only the byte order counts."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.code = self.code if order == "|" else order + self.code.lstrip("<>=|")

    def numpy(self) -> np.dtype[Any]:
        if self.code.replace("=", "<") not in DTYPES:
            raise pickle.UnpicklingError(f"an array of type {self.code!r} is not plain numbers")
        return np.dtype(self.code)


class _Array:
    """Stands for ``numpy.ndarray`` until the whole file is read."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def numpy(self) -> np.ndarray[Any, Any]:
        _, shape, dtype, fortran, raw = self.state
        numbers = np.frombuffer(bytes(raw), dtype.numpy())
        if math.prod(shape) != numbers.size:
            raise ValueError(f"an array of shape {shape} holds {numbers.size} numbers")
        return numbers.reshape(shape, order="F" if fortran else "C").copy()


def _encode(text: str, encoding: str | bytes) -> bytes:
    """Stand for ``_codecs.encode``, with which Python 3 writes bytes into old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(
            f"it asks for the encoding {encoding!r}, only latin1 is allowed"
        )
    return codecs.latin_1_encode(text)[0]


def _finish(value: Any, done: dict[int, Any]) -> Any:
    """Replace the stand-ins in containers by arrays.

    Each object is turned once, however often the file names it (``done``, by identity): a list of
    ten lists of ten lists ... would else never end. One that holds itself is refused.
    """
    if id(value) in done:
        if done[id(value)] is _ENDLESS:
            raise pickle.UnpicklingError("it holds a container within itself")
        return done[id(value)]
    if isinstance(value, _Array):
        done[id(value)] = value.numpy()
    elif isinstance(value, dict):
        done[id(value)] = _ENDLESS
        done[id(value)] = {key: _finish(item, done) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        done[id(value)] = _ENDLESS
        done[id(value)] = type(value)(_finish(item, done) for item in value)
    else:
        return value
    return done[id(value)]


_ENDLESS = object()
_ALLOWED = {
    ("multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
