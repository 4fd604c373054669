"""Which arguments of the LCFSC transmitter go together."""

from __future__ import annotations

from typing import Any, Literal, get_args

from semsim.codecs.lcfsc.facts import FactsOf
from semsim.codecs.lcfsc.fusion import Sources
from semsim.codecs.lcfsc.ratio import OPEN_RATIOS, RELEASE_RATIOS

Fusion = Literal["masked", "none", "random", "concat"]
MASKS = ("masked", "random")  #: the fusions that mask a share of pairs


def check(spec: dict[str, Any]) -> None:
    """Refuse arguments that cannot be met or would have no effect; ``spec`` names them all."""
    for name, kind in (("fusion", Fusion), ("sources", Sources), ("facts", FactsOf)):
        if spec[name] not in get_args(kind):
            raise ValueError(f"{name} is {', '.join(get_args(kind))}, got {spec[name]!r}")
    _check_ratio(spec, "ratio")
    if spec["passes"] < 1:
        raise ValueError(f"passes must be at least 1, got {spec['passes']}")
    _refuse_idle(spec, _idle(spec))
    if spec["start_open"] and spec["sink"]:
        raise ValueError(
            "sink takes weight from the first step on, so that masks cannot start_open; leave one "
            "of the two out"
        )
    if spec["start_open"] and 0 not in spec["candidates"]:
        raise ValueError(
            f"start_open needs 0 among the candidates, got {spec['candidates']}; write "
            f"candidates: {list(OPEN_RATIOS)} or leave start_open out"
        )


def check_decoder(spec: dict[str, Any]) -> None:
    """Refuse what the receiver cannot do and what would have no effect."""
    _check_ratio(spec, "masked_ratio")
    _refuse_idle(spec, idle_at_decoder(**spec))


def idle_at_decoder(
    *, masked: bool = False, masked_ratio: float | str = "learned", **_: object
) -> dict[str, tuple[object, str]]:
    """Return what :func:`_idle` does, for the receiver."""
    if not masked:
        reason = "masked: false"
        idle: dict[str, tuple[object, str]] = {"masked_ratio": ("learned", reason)}
        return idle | {"per_head": (False, reason), "start_open": (False, reason)}
    if masked_ratio != "learned":
        return {"start_open": (False, f"masked_ratio: {masked_ratio}")}
    return {}


def _refuse_idle(spec: dict[str, Any], idle: dict[str, tuple[object, str]]) -> None:
    for name, (default, reason) in idle.items():
        if spec[name] != default:
            raise ValueError(
                f"{name} has no effect with {reason}, got {spec[name]!r}; leave {name} out"
            )


def _check_ratio(spec: dict[str, Any], name: str) -> None:
    ratio = spec[name]
    if ratio != "learned" and (isinstance(ratio, str | bool) or not 0 <= ratio <= 1):
        raise ValueError(f"{name} is learned or a share between 0 and 1, got {ratio!r}")


def _idle(spec: dict[str, Any]) -> dict[str, tuple[object, str]]:
    """Return the default of each argument that has no effect here, and what makes it so."""
    fusion = f"fusion: {spec['fusion']}"
    idle: dict[str, tuple[object, str]] = {}
    if spec["ratio"] != "learned":
        fixed = f"ratio: {spec['ratio']}"
        idle |= {"passes": (1, fixed), "candidates": (list(RELEASE_RATIOS), fixed)}
        idle["start_open"] = (False, fixed)
    if spec["facts"] == "streams":
        streams = "facts: streams"
        idle |= {"npn": (False, streams), "num_tx": (8, streams), "num_rx": (8, streams)}
    if spec["fusion"] != "masked":
        idle |= {"sources": ("both", fusion), "per_head": (False, fusion)}
    if spec["fusion"] not in MASKS:
        idle |= {"ratio": ("learned", fusion), "passes": (1, fusion), "start_open": (False, fusion)}
        idle["sink"] = (False, fusion)
        idle["candidates"] = (list(RELEASE_RATIOS), fusion)
    if spec["fusion"] == "none":
        idle |= {"npn": (False, fusion), "facts": ("channel", fusion)}
    return idle
