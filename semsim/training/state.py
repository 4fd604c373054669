"""What a training carries from step to step, on disk and back: weights, average, optimiser."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semsim import zoo
from semsim.files.disk import Damaged, check_seal, sealed_file, set_aside
from semsim.mistakes import known
from semsim.nn import muon
from semsim.training.spec import TrainSpec, deciding

CHECKPOINT, OLDER, UNDECAYED = "checkpoint.pt", "checkpoint.old.pt", "undecayed.pt"


class State:
    """Everything that a training carries from step to step, on disk and back.

    Args:
        link, task: what is trained.
        spec: how.
        seed: decides all that is random.
        share: which of how many processes this is; each takes its part of every batch.
    """

    def __init__(
        self,
        link: nn.Module,
        task: nn.Module,
        spec: TrainSpec,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.nets = nn.ModuleDict({"link": link, "task": task})
        self.spec, self.seed, self.share = spec, seed, share
        self.steps, self.seconds = 0, 0.0
        self.before = 0  #: steps that the average has behind it from the checkpoint in ``start``
        self.curve: list[dict[str, Any]] = []  #: validation rows so far
        self.holds_curve = True  #: False behind a checkpoint of a version that did not keep them
        starts = spec.starts()
        named = [s for s in starts if not s.endswith(".pt")]
        self.remarks = take_over(self.nets, named, cut=spec.cut)  #: on how the start fits
        # of tied weights each name has its own, or they would move twice
        self.average = {name: value.clone() for name, value in self.nets.state_dict().items()}
        self.optimiser = _optimiser(self.nets, spec)
        for name in starts:
            if name.endswith(".pt"):
                self._begin_with(Path(name))

    def progress(self) -> float:
        """Return the share of the training that is done."""
        if self.spec.minutes is not None:
            return self.seconds / (60 * self.spec.minutes)
        return self.steps / self.spec.steps

    def set_rate(self) -> None:
        """Give the optimiser the learning rate of this moment."""
        share = self.spec.rate(self.progress(), self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.lr * share * group.get("factor", 1.0)

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average follow the weights; faster at first, so that it forgets the start.

        One of a checkpoint was taken of trained weights, and goes on as slowly as it was.
        """
        steps = self.before + self.steps
        decay = min(self.spec.ema, (1 + steps) / (10 + steps)) if self.spec.ema else 0.0
        for name, value in self.nets.state_dict().items():
            mean = self.average[name]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the networks for a while."""
        live = copy.deepcopy(self.nets.state_dict())
        self.nets.load_state_dict(self.average)
        try:
            yield
        finally:
            self.nets.load_state_dict(live)

    def save(self, path: Path) -> None:
        """Write the checkpoint in one go; the one before it stays as ``checkpoint.old.pt``."""
        content = {
            "nets": self.nets.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "before": self.before,
            "seconds": self.seconds,
            "curve": self.curve,
            "seed": self.seed,
            "spec": asdict(self.spec),
            "start": self._starts_from(path.parent),
        }
        new = path.with_name(f"{path.stem}.new.pt")
        with sealed_file(new) as file:
            torch.save(content, file)
        if path.is_file() and path.name == CHECKPOINT:
            os.replace(path, path.with_name(OLDER))
        os.replace(new, path)

    def resume(self, folder: Path) -> None:
        """Go on from a folder's latest sound checkpoint, where it has one."""
        for name, then in {CHECKPOINT: "the one before it is looked for", OLDER: ""}.items():
            path = folder / name
            if path.is_file():
                try:
                    return self.load(path)
                except Damaged as error:
                    last = name == OLDER or not (folder / OLDER).is_file()
                    set_aside(path, error, "the training starts anew" if last else then)
        return None

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same training; anything else is refused."""
        check_seal(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
        spec = content["spec"]
        if content.get("start") == self._starts_from(path.parent):  # wherever the folder lies now
            spec = {**spec, "start": self.spec.start}
        if (content["seed"], deciding(spec)) != (self.seed, deciding(asdict(self.spec))):
            raise ValueError(
                f"{path} belongs to a training with other settings; choose another folder, or "
                "delete it to start anew"
            )
        try:
            self._take(content)
        except (RuntimeError, ValueError) as error:  # another number of groups
            raise ValueError(
                f"{path} belongs to a training of other networks; choose another folder, or delete "
                "it to start anew"
            ) from error
        self.steps, self.seconds = content["steps"], content["seconds"]
        self.before = content.get("before", 0)  # versions before counted none of the start
        self.holds_curve = "curve" in content
        self.curve = content.get("curve", [])

    def _starts_from(self, folder: Path) -> list[str]:
        """Return what the training begins with, files as they lie from a folder."""
        names = self.spec.starts()
        return [os.path.relpath(n, folder) if Path(n).is_file() else n for n in names]

    def _begin_with(self, path: Path) -> None:
        """Take weights, average and optimiser of another training of the same networks."""
        if not path.is_file():
            raise ValueError(f"start {path} is no file; name weights or a checkpoint, such as .pt")
        try:
            check_seal(path)
            content = torch.load(path, weights_only=True, map_location="cpu")
            if content["spec"]["optimiser"] != self.spec.optimiser:
                raise ValueError(content["spec"]["optimiser"])
            self._take(content)
            self.before = content["steps"] + content.get("before", 0)
        except Damaged as error:
            raise ValueError(
                f"start {path} is damaged, or no checkpoint of semsim: {error}; name another"
            ) from error
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"start {path} is of other networks or another optimiser, or its rates split them "
                "otherwise; start from the weights.safetensors beside it"
            ) from error

    def _take(self, content: dict[str, Any]) -> None:
        self.nets.load_state_dict(content["nets"])
        for name, value in content["average"].items():
            self.average[name].copy_(value)
        factors = [group.get("factor", 1.0) for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(content["optimiser"])
        for group, factor in zip(self.optimiser.param_groups, factors, strict=True):
            group["factor"] = factor  # as rates says now
        for parameter, held in self.optimiser.state.items():
            for key, value in held.items():  # the fused step takes memory as it lies
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    held[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def take_over(nets: nn.ModuleDict, names: list[str], *, cut: bool) -> list[str]:
    """Take over every tensor of these weights whose name and shape agree; say what does not.

    A receiver that wraps another, its ``codec``, takes that one's tensors for it.

    Args:
        nets: link and task.
        names: of shipped weights, or files.
        cut: of a larger tensor take the leading part.
    """
    link: Any = nets["link"]
    ends = link.parts()
    parts = {**dict(nets["task"].named_children()), **ends}
    own = {f"{p}.{k}": v for p, part in parts.items() for k, v in part.state_dict().items()}
    remarks = []
    for name in names:
        theirs = zoo.tensors(name)
        fitting = {
            key: found
            for key, mine in own.items()
            if (found := theirs.get(key, theirs.get(key.replace("receiver.codec.", "receiver."))))
            is not None and _fits(found, mine, cut)
        }  # fmt: skip
        if not fitting:
            raise ValueError(
                f"start {name!r} has no tensor whose name and shape are those of this link and "
                "task; name weights of the same kind, or leave start out"
            )
        with torch.no_grad():
            for key, found in fitting.items():
                own[key].copy_(found[tuple(slice(n) for n in own[key].shape)])
        if left := len(theirs) - len(fitting):
            whole = left + len(fitting)
            cure = "" if cut else _written_otherwise(name, parts)
            remarks.append(f"start: {len(fitting)} of {whole} tensors of {name} fit{cure}")
    return remarks


def _written_otherwise(name: str, parts: dict[str, Any]) -> str:
    """Say which arguments of the same kinds of parts would take all tensors of these weights."""
    held = {prefix: trained for prefix, trained in zoo.specs(name).items() if prefix in parts}
    found: dict[str, str] = {}
    for prefix, trained in held.items():
        try:
            strange, differing = zoo.compared(name, prefix, parts[prefix], trained)
        except ValueError:  # files that arguments name are others
            return ""
        if strange:
            return ""
        found |= {key: "null" if theirs is None else str(theirs) for key, theirs, _ in differing}
    listed = ", ".join(f"{key}: {value}" for key, value in found.items())
    return f"; write {listed} to take all" if listed else ""


def _fits(old: Tensor, new: Tensor, cut: bool) -> bool:
    if not cut or old.dim() != new.dim():
        return old.shape == new.shape
    return all(a >= b for a, b in zip(old.shape, new.shape, strict=True))


def _optimiser(nets: nn.ModuleDict, spec: TrainSpec) -> torch.optim.Optimizer:
    if not any(p.requires_grad for p in nets.parameters()):
        if any(factor == 0 for factor in (spec.rates or {}).values()):
            raise ValueError(
                f"rates of 0 leave nothing to train, got {spec.rates}; leave one of them out"
            )
        raise ValueError("nothing to train: neither the link nor the task has parameters")
    if spec.through == "task" and not any(p.requires_grad for p in nets["task"].parameters()):
        raise ValueError(
            "through: task trains a task alone, but this one has nothing to train; write through: "
            "link, or a task that learns, such as one with trainable: true"
        )
    if spec.optimiser == "muon":
        return muon.Muon(_at_rates(nets, muon.groups(nets), spec.rates or {}), lr=spec.lr)
    plain = [{"params": [p for p in nets.parameters() if p.requires_grad]}]
    groups = _at_rates(nets, plain, spec.rates or {})
    fused = all(p.is_floating_point() for p in nets.parameters() if p.requires_grad)
    return torch.optim.AdamW(groups, lr=spec.lr, weight_decay=1e-4, fused=fused)


def _at_rates(
    nets: nn.ModuleDict, groups: list[dict[str, Any]], rates: dict[str, float]
) -> list[dict[str, Any]]:
    """Split groups of parameters by their factor on the learning rate."""
    factors = {id(p): factor_of(name, rates) for name, p in nets.named_parameters()}
    split = []
    for group in groups:
        parts: dict[float, list[Any]] = {}
        for parameter in group["params"]:
            parts.setdefault(factors[id(parameter)], []).append(parameter)
        for factor, members in parts.items():
            named = {} if factor == 1 else {"factor": factor}
            split.append({**group, "params": members, **named})
    return split


def factor_of(name: str, rates: dict[str, float]) -> float:
    """Return the factor of a parameter, ``link.transmitter.…``: that of its longest prefix."""
    short = f"{name.partition('.')[2]}."
    fitting = [key for key in rates if short.startswith(f"{key}.")]
    return rates[max(fitting, key=len)] if fitting else 1.0


@contextlib.contextmanager
def frozen(link: nn.Module, task: nn.Module, rates: dict[str, float]) -> Iterator[None]:
    """Freeze for a while the modules whose factor is 0; refuse names that nothing has."""
    nets = nn.ModuleDict({"link": link, "task": task})
    named = dict(nets.named_parameters())
    heads = {".".join(n.split(".")[1 : 2 + d]) for n in named for d in range(n.count("."))}
    for key in rates:
        if key not in heads:
            short = [head for head in sorted(heads) if head.count(".") < 2]
            raise ValueError(f"rates: no parameter's name starts with {key!r}; {known(short, key)}")
    still = [p for n, p in named.items() if p.requires_grad and not factor_of(n, rates)]
    asleep = [m for n, m in nets.named_modules() if m.training and not factor_of(n, rates)]
    for parameter in still:
        parameter.requires_grad_(False)
    for module in asleep:
        module.training = False  # alone: a part of it may have a rate of its own
    try:
        yield
    finally:
        for parameter in still:
            parameter.requires_grad_(True)
