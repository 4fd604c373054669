"""One client in one round: take the server's weights, train on its own data, send what changed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from semsim.federated.compression import bits_of, decode, encode
from semsim.federated.settings import FederatedSpec
from semsim.files.disk import Damaged, check_seal, sealed_file
from semsim.seeds import stream
from semsim.training.loop import Diverged, Training
from semsim.training.spec import TrainSpec
from semsim.training.state import factor_of
from semsim.types import AnyLink

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # the common class of all of them


@dataclass(frozen=True)
class Member:
    """The live parts of one client, made when its turn comes and forgotten after it.

    Args:
        link, task: what it trains.
        payload: its own items.
        spec: how it trains; ``steps`` are those of all rounds.
        seed: of all that it draws.
        device: where it trains.
    """

    link: AnyLink
    task: nn.Module
    payload: Any
    spec: TrainSpec
    seed: int
    device: torch.device


class Clients(Protocol):
    """All clients, of which one is alive at a time; it pickles, so that engines can carry it."""

    settings: FederatedSpec
    seed: int

    def member(self, client: int) -> Member:
        """Return the parts of a client, with start weights that the scenario's seed decides."""
        ...


@dataclass(frozen=True)
class Layout:
    """Which weights of a client go where.

    Args:
        sent: names that clients send, in order.
        of_task: those of ``sent`` that belong to the task.
        own: names that stay with the client.
        counted: those of ``sent`` that batch norms count of their batches, and do not learn.
    """

    sent: tuple[str, ...]
    of_task: frozenset[str]
    own: tuple[str, ...]
    counted: frozenset[str] = frozenset()


def layout(member: Member, aggregation: str) -> Layout:
    """Return which weights of a client's networks are shared, of its task, or its own.

    Raises:
        ValueError: "fedbn" is asked of networks without batch norms.
    """
    nets = nets_of(member)
    rates = member.spec.rates or {}
    named = nets.named_parameters()
    still = {n for n, p in named if not (p.requires_grad and factor_of(n, rates))}
    names = [n for n in nets.state_dict() if n not in still]
    if aggregation == "none":
        return Layout((), frozenset(), tuple(names))
    own: list[str] = []
    norms = {n: m for n, m in nets.named_modules() if isinstance(m, BATCH_NORMS)}
    if aggregation == "fedbn":
        own = [n for n in names if n.startswith(tuple(f"{norm}." for norm in norms))]
    sent = [n for n in names if n not in set(own)]
    ends = member.link.ends().items()
    heads = tuple(f"link.{end}.{sub}." for end, part in ends for sub in part.of_task)
    of_task = [n for n in sent if n.startswith(("task.", *heads))]
    counted = {f"{norm}.{n}" for norm, m in norms.items() for n, _ in m.named_buffers()}
    return Layout(tuple(sent), frozenset(of_task), tuple(own), frozenset(counted & set(sent)))


def nets_of(member: Member) -> nn.ModuleDict:
    """Return link and task as a training names their weights."""
    return nn.ModuleDict({"link": member.link, "task": member.task})


@dataclass(frozen=True)
class Job:
    """What the server asks of a client in a round.

    Args:
        client, round: which.
        steps: optimiser steps.
        weights: the server's, by name.
        kept: round in which the client last kept weights of its own; None where it has none.
        fault: "nan" or "noise" for a client that is to send such.
    """

    client: int
    round: int
    steps: int
    weights: Mapping[str, Tensor]
    kept: int | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Update:
    """What a client sends back.

    Args:
        client: which.
        items: in its shard.
        steps: that it took.
        loss: mean over them; nan where its training diverged.
        tensors: its weights as ``compression`` writes them; none where its training diverged.
        seconds: of its training alone.
    """

    client: int
    items: int
    steps: int
    loss: float
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def bits(self) -> int:
        """Bits that it takes to send."""
        return bits_of(self.tensors)


def train_client(clients: Clients, job: Job, folder: Path) -> Update:
    """Do one job; what the client keeps for itself lies in ``folder``."""
    settings, member = clients.settings, clients.member(job.client)
    held = layout(member, settings.aggregation)
    kept = _kept(folder, job.client, job.kept)
    spec = dataclasses.replace(member.spec, start=None)
    with Training(member.link, member.payload, member.task, spec, seed=member.seed) as training:
        given = {**job.weights, **kept["own"]}
        before = training.weights() | {n: v.to(member.device) for n, v in given.items()}
        training.take(before)
        training.state.steps = job.round * settings.local_steps
        try:
            with near(training.state.nets, settings):
                loss = training.advance(job.steps)
        except Diverged:
            taken = training.state.steps - job.round * settings.local_steps
            return Update(job.client, len(member.payload), taken, float("nan"))
        after, seconds = training.weights(), training.state.seconds
    mine = {n: before[n].cpu() for n in held.sent}
    sent = _faulty({n: after[n].cpu() for n in held.sent}, mine, job, clients)
    tensors, residual = encode(
        settings.compression, sent, mine, share=settings.top_k, residual=kept["residual"]
    )
    own = {n: after[n].cpu() for n in held.own}
    _keep(folder, job, {"own": own, "residual": residual})
    return Update(job.client, len(member.payload), job.steps, loss, tensors, seconds)


def received(clients: Clients, update: Update, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that an update means; ``before`` is what its client had been sent."""
    return decode(clients.settings.compression, update.tensors, before)


@contextlib.contextmanager
def near(nets: nn.ModuleDict, settings: FederatedSpec) -> Iterator[None]:
    """Hold weights near where they are, for "fedprox": mu / 2 |w - w0|^2 joins the loss.

    Source: Li and others, Federated optimization in heterogeneous networks, MLSys 2020.
    """
    if settings.aggregation != "fedprox" or not settings.mu:
        yield
        return
    hooks = []
    for parameter in nets.parameters():
        if parameter.requires_grad:

            def pull(grad: Tensor, at: Tensor = parameter, start: Any = None) -> Tensor:
                return grad + settings.mu * (at.detach() - start)

            start = parameter.detach().clone()
            hooks.append(parameter.register_hook(lambda g, f=pull, s=start: f(g, start=s)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _faulty(
    after: dict[str, Tensor], before: dict[str, Tensor], job: Job, clients: Clients
) -> dict[str, Tensor]:
    """Return what a client sends, made false where it is to be."""
    if job.fault is None:
        return after
    real = [n for n, v in after.items() if v.is_floating_point()]
    if job.fault == "nan":
        return after | {n: torch.full_like(after[n], float("nan")) for n in real}
    generator = stream(clients.seed, "fault", job.client, job.round)
    noise = {n: torch.randn(after[n].shape, generator=generator) for n in real}
    length = sum(float(v.square().sum()) for v in noise.values()) ** 0.5
    moved = sum(float((after[n] - before[n]).square().sum()) for n in real) ** 0.5
    scale = clients.settings.noise_scale * moved / length
    return after | {n: before[n] + scale * noise[n] for n in real}


def own_path(folder: Path, client: int, number: int) -> Path:
    """Return where a client keeps its own weights of a round."""
    return folder / f"{client:05d}-{number}.pt"


def _kept(folder: Path, client: int, number: int | None) -> dict[str, Any]:
    """Return what a client kept in a round: its own weights, and what "top_k" held back."""
    if number is None:
        return {"own": {}, "residual": None}
    path = own_path(folder, client, number)
    try:
        check_seal(path)
    except Damaged as error:
        raise Damaged(
            f"{path}, which client {client} keeps for itself, is damaged: {error}; put a sound "
            "copy there, or train anew with --fresh"
        ) from error
    return torch.load(path, weights_only=True, map_location="cpu")  # type: ignore[no-any-return]


def own_weights_of(folder: Path, client: int, number: int | None) -> dict[str, Tensor]:
    """Return the weights that a client kept for itself in a round."""
    return dict(_kept(folder, client, number)["own"])


def _keep(folder: Path, job: Job, content: dict[str, Any]) -> None:
    """Keep what is the client's own, beside what it had before: the round may not be kept."""
    if not content["own"] and content["residual"] is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = own_path(folder, job.client, job.round)
    with sealed_file(path) as file:
        torch.save(content, file)
    for other in folder.glob(f"{job.client:05d}-*.pt"):
        # one that comes late must leave what a later round kept
        if int(other.stem.partition("-")[2]) < (job.round if job.kept is None else job.kept):
            other.unlink(missing_ok=True)
