"""Convert any network to low-memory training and back; its outputs do not change.

    GELU, SiLU                          ─► ReGELU2, ReSiLU2
    LayerNorm, RMSNorm ─► dense layers  ─► MS-norm ─► dense layers that hold its scale and offset

A norm is converted only where every consumer of its output is known to be a dense layer. Nobody
can see that from outside, so it must be established: the norm stands right before a dense layer in
an ``nn.Sequential``, or the class whose ``forward`` connects them declares

    low_memory_norms = {"norm1": ("attention.qkv",), "norm2": ("mlp.0",)}

with the paths of norms and of their only consumers, dense layers that take nothing else. Between
the two may lie what only moves tokens; padding with zeros after the norm is no such thing.
Activations called as functions are out of reach.

Source: see :mod:`semsim.nn.lowmem_layers`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from semsim.nn.lowmem_layers import MSLayerNorm, MSRMSNorm, ReGELU2, ReSiLU2

NORMS = (nn.LayerNorm, nn.RMSNorm)
LARGEST_SHIFT = 10.0  # of a unit-variance output; beyond it, bf16 would lose the output itself


@dataclass(frozen=True)
class Conversion:
    """What :func:`low_memory` did to a network.

    Args:
        converted: what each converted module became, by its path.
        kept: why each activation or norm that could have been converted was not, by its path.
    """

    converted: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line per module, below a summary."""
        if not self.converted and not self.kept:
            return "nothing to gain: no GELU, SiLU, LayerNorm or RMSNorm module left to convert"
        lines = [f"{len(self.converted)} modules converted, {len(self.kept)} kept"]
        lines += [f"converted {path}: {what}" for path, what in self.converted.items()]
        lines += [f"kept {path}: {why}" for path, why in self.kept.items()]
        return "\n".join(lines)


def low_memory(model: nn.Module, act: bool = True, norm: bool = True) -> Conversion:
    """Convert a network in place; a second call finds nothing more to do.

    Call it before the optimiser is made: the parameters of converted norms are gone, merged into
    the dense layers. :func:`restore` brings back the original layout with the weights as they are.

    Args:
        model: any network, such as a link.
        act: convert activations.
        norm: convert norms.
    """
    report = Conversion()
    if norm:
        _convert_norms(model, report)
    if act:
        _convert_activations(model, report)
    return report


def restore(model: nn.Module) -> None:
    """Undo :func:`low_memory` in place: the same modules and state-dict keys as before.

    Norms come back with scale 1, for the dense layers keep theirs; the outputs stay the same.
    """
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, MSLayerNorm):
            _replace(model, name, _plain_norm(module))
        elif isinstance(module, ReGELU2):
            _replace(model, name, nn.GELU(approximate="tanh" if module.tanh else "none"))
        elif isinstance(module, ReSiLU2):
            _replace(model, name, nn.SiLU())


def _convert_activations(model: nn.Module, report: Conversion) -> None:
    made: dict[int, nn.Module] = {}  # one for each old module, which may stand in several places
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) is nn.GELU:
            new: nn.Module = ReGELU2(tanh=module.approximate == "tanh")
        elif type(module) is nn.SiLU:
            new = ReSiLU2()
        else:
            continue
        if why := _untouchable(name, module):
            report.kept[name] = why
        elif getattr(module, "inplace", False):
            report.kept[name] = "it overwrites its input"
        else:
            _replace(model, name, made.setdefault(id(module), new))
            report.converted[name] = type(new).__name__


def _convert_norms(model: nn.Module, report: Conversion) -> None:
    consumers, refused = _consumers(model)
    uses = _uses(model)
    uses.update(path for paths in consumers.values() for path in paths)
    for name, module in list(model.named_modules()):
        if type(module) not in NORMS:
            continue
        layers = {path: model.get_submodule(path) for path in consumers.get(name, ())}
        why: str | None
        if name not in consumers:
            why = refused.get(name, "nothing says that only dense layers take it")
        else:
            why = _untouchable(name, module) or _illegal(module, layers, uses)
        if why:
            report.kept[name] = why
        else:
            made = _merge(module, list(layers.values()))
            _replace(model, name, made)
            report.converted[name] = f"{type(made).__name__}, merged into {', '.join(layers)}"


def _consumers(model: nn.Module) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the only consumers of each norm that has them declared, and who else may not."""
    found: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for norm, dense in _declared(module).items():
            if _forward_is_newer(module):
                refused[prefix + norm] = "the declaration is older than its class's own forward"
            else:
                found[prefix + norm] = tuple(prefix + path for path in dense)
        if type(module) is nn.Sequential:
            rows = list(module.named_children())
            for (norm, first), (dense_name, second) in pairwise(rows):
                if type(first) in NORMS and type(second) is nn.Linear:
                    found.setdefault(prefix + norm, (prefix + dense_name,))
    return found, refused


def _declared(module: nn.Module) -> dict[str, tuple[str, ...]]:
    declared: Any = getattr(module, "low_memory_norms", {})
    for path in (p for norm, dense in declared.items() for p in (norm, *dense)):
        try:
            module.get_submodule(path)
        except AttributeError as error:
            raise ValueError(
                f"{type(module).__name__}.low_memory_norms names {path!r}, but there is no such "
                "module; give paths as named_modules() does"
            ) from error
    return declared


def _forward_is_newer(module: nn.Module) -> bool:
    """Whether a subclass has a forward of its own, for which nobody declared anything."""
    first = next(
        k for k in type(module).__mro__ if {"forward", "low_memory_norms"} & vars(k).keys()
    )
    return "low_memory_norms" not in vars(first)


def _uses(model: nn.Module) -> Counter[int | str]:
    """Count the places where each module and each parameter stands, by id."""
    places = [module for _, module in model.named_modules(remove_duplicate=False)]
    uses: Counter[int | str] = Counter(id(module) for module in places)
    once = {id(module): module for module in places}.values()
    uses.update(id(p) for module in once for p in module.parameters(recurse=False))
    return uses


def _untouchable(name: str, module: nn.Module) -> str | None:
    """Say why a module cannot be exchanged at all."""
    if not name:
        return "it is the whole network, so there is nothing to exchange it in"
    return "it has hooks" if _hooked(module) else None


def _hooked(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in hooks)


def _illegal(norm: Any, layers: dict[str, Any], uses: Counter[int | str]) -> str | None:
    """Say why a norm cannot be merged into these layers, or why that would gain nothing."""
    if len(norm.normalized_shape) > 1:
        return f"it normalises {len(norm.normalized_shape)} axes, and dense layers see one"
    if uses[id(norm)] > 1:
        return "it is used in several places"
    if not layers:
        return "it has no dense layer behind it"
    for path, layer in layers.items():
        if type(layer) is not nn.Linear or "weight" not in layer._parameters:
            return f"{path} is no plain dense layer"
        if layer.in_features != norm.normalized_shape[0]:
            return f"{path} takes {layer.in_features} values, not {norm.normalized_shape[0]}"
        if max(uses[path], uses[id(layer)], *(uses[id(p)] for p in layer.parameters())) > 1:
            return f"{path} or its weights are used elsewhere too"
        if _hooked(layer):
            return f"{path} has hooks, which would see another input"
        if not layer.weight.requires_grad:
            return f"nothing to gain: {path} is frozen and keeps no input"
    if not all(p.requires_grad for p in norm.parameters()):
        return "its scale or offset is frozen, and those of a dense layer are not"
    shift = _shift(norm, list(layers.values()))
    if shift is not None and not bool((shift.abs() <= LARGEST_SHIFT).all()):
        return "its offset is too large beside its scale for a dense layer without bias"
    return None


def _shift(norm: Any, layers: list[Any]) -> Tensor | None:
    """Return offset / scale in fp64 where a layer has no bias to take the offset, else None."""
    if getattr(norm, "bias", None) is None or all(layer.bias is not None for layer in layers):
        return None
    shift = norm.bias.detach().double() / norm.weight.detach().double()
    return torch.where(norm.bias.detach() == 0, 0.0, shift)  # 0 / 0 is no shift


@torch.no_grad()
def _merge(norm: Any, layers: list[Any]) -> MSLayerNorm:
    """Move scale and offset into the layers in fp64: W diag(scale), b + W offset.

    Layers without bias keep the offset before them, as a shift offset / scale of the output.
    """
    shift, offset = _shift(norm, layers), getattr(norm, "bias", None)
    for layer in layers:
        weight = layer.weight.double()
        if offset is not None and shift is None:
            layer.bias.copy_(layer.bias.double() + weight @ offset.double())
        if norm.weight is not None:
            layer.weight.copy_(weight * norm.weight.double())
    kind = MSLayerNorm if type(norm) is nn.LayerNorm else MSRMSNorm
    eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
    made = kind(norm.normalized_shape[0], eps, shift=shift is not None)
    made.to(layers[0].weight)
    if shift is not None and made.shift is not None:
        made.shift.copy_(shift)
    made.replaces = (norm.eps, norm.weight is not None, offset is not None)
    return made


@torch.no_grad()
def _plain_norm(norm: MSLayerNorm) -> nn.Module:
    """Return the norm that a converted one replaced, with scale 1 and its shift as offset."""
    eps, scaled, offset = norm.replaces
    made: nn.LayerNorm | nn.RMSNorm
    if isinstance(norm, MSRMSNorm):
        made = nn.RMSNorm(norm.width, eps, scaled)
    else:
        made = nn.LayerNorm(norm.width, norm.eps, scaled, offset)
        if norm.shift is not None:
            made.bias.copy_(norm.shift)
    return made.to(norm.like)


def _replace(model: nn.Module, name: str, made: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    made.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), child, made)
