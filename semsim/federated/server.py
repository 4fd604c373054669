"""The server: the weights of all, what becomes of them in a round, and its file."""

from __future__ import annotations

import dataclasses
import os
import secrets
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semsim.federated import rules
from semsim.federated.client import Clients, Job, Layout, Update, layout, nets_of, received
from semsim.federated.compression import bits_of
from semsim.federated.privacy import ADJACENCY, clipped, epsilon, noise_like
from semsim.federated.settings import MEANS
from semsim.files.disk import Damaged, check_seal, sealed_file, set_aside

STATE, OLDER = "federation.pt", "federation.old.pt"
VARIANCE = ".running_var"  #: end of the names of a batch norm's variances
#: settings that change no weight, but for how engines round
OF_NO_WEIGHT = ("client", "validate_every", "engine", "timeout_s")
SUSPECT = 5.0  #: times the median change, from which on an update is named in the record


class Server:
    """What all clients share, and what those of a task do.

    The noise of privacy hangs on the seed, so that a simulation, which keeps nobody out, can be
    done again. Real nodes know the seed: their server calls :meth:`keep_secret` first.

    Args:
        clients: who train.

    Attributes:
        round: the next one.
        shared: weights of all, by name.
        of_task: weights of each task's clients.
        kept: round in which each client last kept weights of its own.
        records: one of each round.
        validations: rows of all validations.
        secret: what the noise of privacy hangs on; None for the seed.
    """

    def __init__(self, clients: Clients) -> None:
        self.clients, self.settings = clients, clients.settings
        self.round = 0
        self.shared: dict[str, Tensor] = {}
        self.of_task: dict[str, dict[str, Tensor]] = {}
        self.first: dict[str, dict[str, Tensor]] = {}  # what clients keep, as it begins
        self.kept: dict[int, int] = {}
        self.records: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.secret: str | None = None
        self.layouts: dict[str, Layout] = {}
        for client, task in enumerate(self.settings.tasks):
            if task not in self.layouts:
                self._begin(client, task)
        if self.settings.noise_multiplier and any(x.counted for x in self.layouts.values()):
            raise ValueError(
                "noise_multiplier: noise would make variances of batch norms negative; write "
                "aggregation: fedbn, which sends none, or for flsc receiver: {kind: flsc, "
                "norm: group}"
            )
        if self.settings.aggregation == "fedbn" and not any(x.own for x in self.layouts.values()):
            raise ValueError(
                "aggregation: fedbn keeps batch norms with the clients, but the networks have "
                "none; write fedavg, or for flsc receiver: {kind: flsc, norm: batch}"
            )

    def keep_secret(self) -> None:
        """Let the noise of privacy hang on a secret, which lies in the server's file alone.

        Raises:
            ValueError: rounds that are done took their noise from the seed.
        """
        if not self.settings.noise_multiplier or self.secret is not None:
            return
        if self.round:
            raise ValueError(
                f"noise_multiplier: the noise of {self.round} finished round(s) is of the seed, by "
                "which any node can take it off again; train anew in another folder"
            )
        self.secret = secrets.token_hex(32)

    def _begin(self, client: int, task: str) -> None:
        """Take the start weights of a task from its first client; shared ones from the first."""
        member = self.clients.member(client)
        held = layout(member, self.settings.aggregation)
        state = {n: v.detach().cpu().clone() for n, v in nets_of(member).state_dict().items()}
        self.layouts[task] = held
        for name in held.sent:
            if name not in held.of_task:
                self.shared.setdefault(name, state[name])
        self.of_task[task] = {n: state[n] for n in held.sent if n in held.of_task}
        begun = next(iter(self.first.values()), {})
        usual = {n: v for n, v in begun.items() if n in state and v.shape == state[n].shape}
        ours = {n for n in held.own if n.startswith("link.") and n in usual}
        same = {n: usual[n] for n in ours if not self._is_of_task(member, n)}
        self.first[task] = {n: state[n] for n in held.own} | same

    @staticmethod
    def _is_of_task(member: Any, name: str) -> bool:
        ends = member.link.ends().items()
        return name.startswith(tuple(f"link.{e}.{s}." for e, part in ends for s in part.of_task))

    @property
    def keeps(self) -> bool:
        """Whether clients keep something from one round to the next."""
        return any(map(self._keeps, self.layouts))

    def _keeps(self, task: str) -> bool:
        return bool(self.layouts[task].own) or self.settings.compression == "top_k"

    def weights_for(self, client: int, *, first: bool = False) -> dict[str, Tensor]:
        """Return the server's weights for a client; the first time also those that it will keep."""
        task = self.settings.task_of(client)
        names = self.layouts[task].sent
        whole = self.shared | self.of_task[task]
        return {n: whole[n] for n in names} | (self.first[task] if first else {})

    def jobs(self, fates: Mapping[int, Any]) -> list[Job]:
        """Return what is asked of the clients of this round, by number."""
        found = []
        for client, fate in sorted(fates.items()):
            kept = self.kept.get(client)
            # top_k keeps something back although no weights are the client's own
            weights = self.weights_for(client, first=kept is None)
            found.append(Job(client, self.round, fate.steps, weights, kept, fate.fault))
        return found

    def take(self, updates: Iterable[Update], record: dict[str, Any]) -> None:
        """Put the updates of a round together, and complete its record."""
        sums: dict[str, Any] = {}
        stacks: dict[str, list[tuple[int, dict[str, Tensor]]]] = {}
        norms: dict[int, float] = {}
        for update in updates:
            record["bits_up"] += update.bits
            record["loss"][update.client] = update.loss
            record["client_seconds"] += update.seconds
            record["steps"][update.client] = update.steps
            task = self.settings.task_of(update.client)
            why, weights = self._read(update, norms)
            if why:
                record["refused"][update.client] = why
                continue
            record["arrived"].append(update.client)
            if self._keeps(task):
                self.kept[update.client] = self.round
            for group, part in self._parts(task, weights).items():
                if self.settings.aggregation in MEANS:
                    count = 1.0 if self.settings.clip_norm is not None else float(update.items)
                    sums.setdefault(group, rules.Mean()).add(part, count)
                else:
                    stacks.setdefault(group, []).append((update.client, part))
        for group, mean in sums.items():
            self._set(group, self._with_noise(group, mean))
        record["too_few"] = [
            group or "all" for group, stack in stacks.items() if len(stack) < self.settings.needed
        ]
        for group, stack in stacks.items():
            self._set(group, self._robust(group, stack, record))
        record["suspects"] = _suspects(norms)
        if self.settings.clip_norm is not None:
            record["epsilon"] = epsilon(
                self.settings.noise_multiplier, self.round + 1, self.settings.delta
            )
            record["adjacency"] = ADJACENCY

    def _read(self, update: Update, norms: dict[int, float]) -> tuple[str, dict[str, Tensor]]:
        """Return why an update cannot be used, or nothing, and its weights."""
        if update.loss != update.loss:
            return "its training diverged", {}
        before = self.weights_for(update.client)
        weights = received(self.clients, update, before)
        real = [n for n, v in weights.items() if v.is_floating_point()]
        if not all(bool(weights[n].isfinite().all()) for n in real):
            return "it sent NaN or infinity", {}
        moved = sum(float((weights[n] - before[n]).double().square().sum()) for n in real)
        norms[update.client] = moved**0.5
        if self.settings.clip_norm is not None:  # here, where no client can leave it out
            weights = clipped(weights, before, self.settings.clip_norm)
        return "", weights

    def _parts(self, task: str, weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Return weights apart: those of all, under "", and those of the task."""
        mine = self.layouts[task].of_task
        parts = {
            "": {n: v for n, v in weights.items() if n not in mine},
            task: {n: v for n, v in weights.items() if n in mine},
        }
        return {group: part for group, part in parts.items() if part}

    def _held(self, group: str) -> dict[str, Tensor]:
        return self.of_task[group] if group else self.shared

    def _set(self, group: str, weights: dict[str, Tensor]) -> None:
        held = self._held(group)
        for name, value in weights.items():
            whole = not held[name].is_floating_point()
            held[name] = (value.round() if whole else value).to(held[name].dtype)
            if name.endswith(VARIANCE):  # what int8 rounds, or a false update says, may be less
                held[name] = held[name].clamp_min(0)

    def _with_noise(self, group: str, mean: rules.Mean) -> dict[str, Tensor]:
        """Return a mean, with the noise that privacy asks for."""
        weights, settings = mean.result(), self.settings
        if not settings.noise_multiplier or settings.clip_norm is None:
            return weights
        std = settings.noise_multiplier * settings.clip_norm / mean.count
        held, source = self._held(group), self.secret or self.clients.seed
        for name in sorted(weights):
            if held[name].is_floating_point():
                key = repr((source, "privacy", self.round, group, name))
                weights[name] = weights[name] + noise_like(weights[name], std, key)
        return weights

    def _robust(
        self, group: str, stack: list[tuple[int, dict[str, Tensor]]], record: dict[str, Any]
    ) -> dict[str, Tensor]:
        rule, parts = self.settings.aggregation, [part for _, part in stack]
        if rule == "median":
            return rules.median(parts)
        if rule == "trimmed_mean":
            return rules.trimmed_mean(parts, self.settings.trim)
        best = rules.krum(parts, self.settings.byzantine)
        record["chosen"][group or "all"] = stack[best][0]
        return parts[best]

    def bits_down(self, jobs: Iterable[Job]) -> int:
        """Return the bits that the server sends for these jobs."""
        return sum(bits_of(job.weights) for job in jobs)

    def save(self, folder: Path) -> None:
        """Write all in one go; what was there before stays beside it."""
        content = {
            "settings": self._deciding(), "round": self.round, "shared": self.shared,
            "of_task": self.of_task, "first": self.first, "kept": self.kept,
            "records": self.records, "validations": self.validations, "secret": self.secret,
        }  # fmt: skip
        new, path = folder / "federation.new.pt", folder / STATE
        with sealed_file(new) as file:
            torch.save(content, file)
        if path.is_file():
            os.replace(path, folder / OLDER)
        os.replace(new, path)

    def _deciding(self) -> dict[str, Any]:
        """Return the seed and the settings that the weights and the records depend on."""
        settings = dataclasses.asdict(self.settings) | {"seed": self.clients.seed}
        return {k: v for k, v in settings.items() if k not in OF_NO_WEIGHT}

    def resume(self, folder: Path) -> None:
        """Go on from a folder's latest sound file, where it has one."""
        for name, then in {STATE: "the one before it is looked for", OLDER: ""}.items():
            path = folder / name
            if not path.is_file():
                continue
            try:
                check_seal(path)
                content = torch.load(path, weights_only=True, map_location="cpu")
            except Damaged as error:
                last = name == OLDER or not (folder / OLDER).is_file()
                set_aside(path, error, "the federation starts anew" if last else then)
                continue
            if content.pop("settings", self._deciding()) != self._deciding():
                raise ValueError(
                    f"{path} belongs to a federation with other settings; choose another folder, "
                    "or delete it to start anew"
                )
            for key, value in content.items():
                setattr(self, key, value)
            return


def _suspects(norms: Mapping[int, float]) -> list[int]:
    """Return the clients whose change is several times the median of all."""
    if len(norms) < 3:
        return []
    usual = statistics.median(norms.values())
    return [client for client, norm in sorted(norms.items()) if norm > SUSPECT * usual]
