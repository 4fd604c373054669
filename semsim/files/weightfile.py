"""A safetensors file of weights: its header first, then its bytes.

What a file says of itself is compared with what is wanted before any tensor is read, so a file of
another network costs a header, whatever its size. Nothing here reads a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsim.files.incoming import check_memory, check_regular, reason

FLOATS = ("F64", "F32", "F16", "BF16")
_NAMES = {
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL", torch.complex64: "C64",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Args:
        specs: arguments of each part, by its prefix.
        tensors: (type, shape) of each tensor by name, types as safetensors calls them.
    """

    specs: dict[str, dict[str, Any]]
    tensors: dict[str, tuple[str, list[int]]]


def read_header(path: Path) -> Header:
    """Return the header of a file, whose sizes must fit the file's."""
    from safetensors import safe_open

    check_regular(path, "a .safetensors file")
    check_memory(path.stat().st_size, path.name)
    with _reading(path), safe_open(path, framework="pt") as file:
        specs = json.loads((file.metadata() or {}).get("spec", "{}"))
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        tensors = {key: (str(s.get_dtype()), list(s.get_shape())) for key, s in slices.items()}
        if not isinstance(specs, dict) or not all(isinstance(s, dict) for s in specs.values()):
            raise ValueError("the spec in its header is no mapping of parts to their arguments")
    return Header(specs, tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors; ValueError where they are NaN, infinite, or all of them zero."""
    from safetensors import safe_open

    with _reading(path), safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(
                f"weights {path.name} hold NaN or infinity in {key}: a training that diverged, or "
                "a damaged file; train again, with a smaller lr"
            )
    floating = [value for value in tensors.values() if value.is_floating_point()]
    if floating and not any(value.any() for value in floating):
        raise ValueError(
            f"weights {path.name} are zero in all {len(floating)} tensors, as an export leaves "
            "them that wrote no values; write them again"
        )
    return tensors


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size, in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_fit(name: str, header: Header, wanted: Mapping[str, Tensor], cure: str) -> None:
    """Demand the same names, shapes and kinds of numbers in the file as in the modules.

    Args:
        name: of the weights, for the sentence.
        header: of the file.
        wanted: the modules' tensors.
        cure: what to do where they do not fit.
    """
    found = header.tensors
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise ValueError(
            f"weights {name!r} do not fit: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(extra)} left over {extra[:2]}; {cure}"
        )
    for key, value in wanted.items():
        kind, shape = found[key]
        if shape != list(value.shape):
            raise ValueError(
                f"weights {name!r} do not fit: {key} is {shape} in the file and "
                f"{list(value.shape)} here; {cure}"
            )
        takes = FLOATS if value.is_floating_point() else (_NAMES.get(value.dtype, ""),)
        if kind not in takes:
            raise ValueError(
                f"weights {name!r} do not fit: {key} is of type {kind} in the file, and one of "
                f"{', '.join(takes)} is wanted; {cure}"
            )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors raises half a dozen types
        raise ValueError(
            f"{path.name} is not a whole safetensors file ({reason(error)}); fetch it again"
        ) from error
