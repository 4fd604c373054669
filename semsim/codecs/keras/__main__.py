"""Take the weights of a convolutional Keras codec over into ``deepjscc``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from semsim import zoo
from semsim.codecs.keras.convert import convert
from semsim.codecs.keras.frameworks import Backend, imported_backend
from semsim.codecs.keras.loading import End, keras_model
from semsim.files.incoming import reading


def main(arguments: list[str] | None = None) -> None:
    """Convert, and print how well each layer fits and what to write in a scenario."""
    parser = argparse.ArgumentParser(
        prog="python -m semsim.codecs.keras", description=(__doc__ or "").splitlines()[0]
    )
    model = "a .keras or .h5 file, a folder with both, or module:function"
    parser.add_argument("encoder", help=model)
    parser.add_argument("decoder", help=model)
    parser.add_argument("out", type=Path, help="a .safetensors file; its card goes beside it")
    for end in ("encoder", "decoder"):
        parser.add_argument(f"--{end}-weights", help="weights to load into it, .weights.h5 or .h5")
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the function, as JSON")
    given = parser.parse_args(arguments)
    if given.out.suffix != ".safetensors":
        parser.error(f"out ends in .safetensors, got {given.out}")
    if not given.out.parent.is_dir():
        parser.error(f"out: there is no folder {given.out.parent}")
    if not isinstance(given.arguments, dict):
        parser.error(f'--arguments is {{"name": value, ...}}, got {json.dumps(given.arguments)}')
    try:
        models = [_model(given, end) for end in ("encoder", "decoder")]
        transmitter, receiver, checks = convert(*models)
    except (ValueError, OSError, ImportError) as error:
        parser.error(" ".join(str(error).split()))
    for check in checks:
        print(f"{check.end}  {check.layer:<24} {check.kind:<16} off by {check.error:.1e}")
    about = {"about": f"taken over from the Keras models {given.encoder} and {given.decoder}"}
    zoo.export(given.out, transmitter, receiver, about)
    keys = ("cbr", "preset", "adaptive", "width", "padding")
    known = {key: transmitter.spec[key] for key in keys}
    said = ", ".join(f"{k}: {v}" for k, v in {**known, "weights": given.out}.items())
    print(f"transmitter: {{kind: deepjscc, {said}}}")


def _model(given: argparse.Namespace, end: End) -> Any:
    backend: Backend = imported_backend() or "torch"
    model = keras_model(getattr(given, end), end, backend, given.arguments)
    if weights := getattr(given, f"{end}_weights"):
        with reading(weights, f"weights of {end}", "write them with model.save_weights"):
            model.load_weights(weights)
    return model


if __name__ == "__main__":
    main()
