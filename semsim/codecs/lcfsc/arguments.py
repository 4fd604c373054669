"""Which arguments of the LCFSC transmitter go together."""

from __future__ import annotations

from typing import Any, Literal, get_args

from semsim.codecs.lcfsc.facts import Told
from semsim.codecs.lcfsc.fusion import Sources
from semsim.codecs.lcfsc.ratio import RELEASE_RATIOS

Fusion = Literal["masked", "none", "random", "concat"]
MASKS = ("masked", "random")  #: the fusions that mask a share of pairs


def check(spec: dict[str, Any]) -> None:
    """Refuse arguments that cannot be met or would have no effect; ``spec`` names them all."""
    for name, kind in (("fusion", Fusion), ("sources", Sources), ("facts", Told)):
        if spec[name] not in get_args(kind):
            raise ValueError(f"{name} is {', '.join(get_args(kind))}, got {spec[name]!r}")
    _check_ratio(spec, "ratio")
    if spec["passes"] < 1:
        raise ValueError(f"passes must be at least 1, got {spec['passes']}")
    for name, (default, reason) in _idle(spec).items():
        if spec[name] != default:
            raise ValueError(
                f"{name} has no effect with {reason}, got {spec[name]!r}; leave {name} out"
            )


def check_decoder(spec: dict[str, Any]) -> None:
    """Refuse what the receiver cannot do; ``per_head`` and ``open`` may come from the other end."""
    _check_ratio(spec, "share")
    if spec["share"] != "learned" and not spec["masked"]:
        raise ValueError(
            f"share has no effect with masked: false, got {spec['share']!r}; leave share out"
        )


def _check_ratio(spec: dict[str, Any], name: str) -> None:
    ratio = spec[name]
    if ratio != "learned" and (isinstance(ratio, str) or not 0 <= ratio <= 1):
        raise ValueError(f"{name} is learned or a share between 0 and 1, got {ratio!r}")


def _idle(spec: dict[str, Any]) -> dict[str, tuple[object, str]]:
    """Return the default of each argument that has no effect here, and what makes it so."""
    fusion = f"fusion: {spec['fusion']}"
    idle: dict[str, tuple[object, str]] = {}
    if spec["ratio"] != "learned":
        fixed = f"ratio: {spec['ratio']}"
        idle |= {"passes": (1, fixed), "candidates": (list(RELEASE_RATIOS), fixed)}
        idle["open"] = (False, fixed)
    if spec["facts"] == "streams":
        streams = "facts: streams"
        idle |= {"npn": (False, streams), "num_tx": (8, streams), "num_rx": (8, streams)}
    if spec["fusion"] != "masked":
        idle |= {"sources": ("both", fusion), "per_head": (False, fusion)}
    if spec["fusion"] not in MASKS:
        idle |= {"ratio": ("learned", fusion), "passes": (1, fusion), "open": (False, fusion)}
        idle["candidates"] = (list(RELEASE_RATIOS), fusion)
    if spec["fusion"] == "none":
        idle |= {"npn": (False, fusion), "facts": ("channel", fusion)}
    return idle
