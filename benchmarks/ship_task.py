"""Write what semsim train left of a vision task as weights and card of the zoo.

    semsim train scenarios/train/dbdh-pimog.yaml
    python benchmarks/ship_task.py dbdh-pimog --weights RUN/task.safetensors --out OUT

RUN is the training's folder. benchmarks/dbdh.py and benchmarks/marformer.py --card measure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import multiply_adds
from torch import nn

from semsim import zoo
from semsim.vision import dbdh
from semsim.vision.marformer import SIZES, MARformer

PHOTO, REGION = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 64, 64)


def localiser(weights: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return DBDH as it is used, without its mask head; half precision moves corners by 0.05 px."""
    network = dbdh.DBDH("tiny", segmentation=False)
    network.add_mask_head()  # as the task does that trains it
    zoo.load_parts(weights, {"network": network}, among_others=True)
    final = network.deployed()
    cost = multiply_adds(final, PHOTO)
    return {"network": final.half()}, {"multiply_adds": cost}


def embedder(weights: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return encoder and decoder of pimog."""
    kind = dbdh.Pimog(None)
    zoo.load_parts(weights, {"network": kind}, among_others=True)
    cost = multiply_adds(kind.encoder, REGION, torch.zeros(1, dbdh.BITS))
    cost += multiply_adds(kind.decoder, REGION)
    return {"encoder": kind.encoder, "decoder": kind.decoder}, {"multiply_adds": cost}


def cleaner(weights: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return the MARformer."""
    network = MARformer(**SIZES["T"])
    zoo.load_parts(weights, {"network": network}, among_others=True)
    return {"network": network}, {"multiply_adds": multiply_adds(network, PHOTO[:, :1])}


COVERS = "photos883_128 and bsds500 (train, test)"
NAMES: dict[str, tuple[Callable[..., Any], str]] = {
    "dbdh-pimog": (localiser, f"photos of hidden codes made from {COVERS}, 128 x 128"),
    "dbdh-spread": (localiser, f"photos of hidden codes made from {COVERS}, 128 x 128"),
    "pimog-64": (embedder, f"regions of {COVERS}, 64 x 64"),
    "marformer-t": (
        cleaner,
        "simulated: procedural jaws, and TCIA TCGA-LUAD/LUSC CT slices of the training patients "
        "with metal, at 128 and at 256 pixels",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--weights", type=Path, required=True, help="of the training")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    make, data = NAMES[args.name]
    parts, cost = make(args.weights)
    past = json.loads(args.weights.with_suffix(".json").read_text())
    made = {key: past[key] for key in ("steps", "minutes", "training", "before") if key in past}
    command = f"semsim train scenarios/train/{args.name}.yaml"
    card = {"data": data, **made, "command": command, **cost}
    args.out.mkdir(parents=True, exist_ok=True)
    print(zoo.export_parts(args.out / f"{args.name}.safetensors", parts, card))


if __name__ == "__main__":
    main()
