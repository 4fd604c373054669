"""Clients of a toy federation: a small codec, random images, no scenario."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from channels import AWGN
from semsim import Link, stream
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.flsc.codec import FLSCReceiver, FLSCTransmitter
from semsim.federated.client import Member
from semsim.federated.partition import Shard, split
from semsim.federated.settings import FederatedSpec
from semsim.payloads.images import StackedImages
from semsim.tasks.meaning import Recognise
from semsim.tasks.reconstruct import Reconstruct
from semsim.training.spec import TrainSpec

CPU = torch.device("cpu")


def toy_images(count: int, side: int = 16) -> StackedImages:
    labels = [i % 3 for i in range(count)]
    noise = torch.randint(80, (count, 3, side, side), generator=stream(1, "toy"))
    return StackedImages(
        "toy", (noise + 80 * torch.tensor(labels)[:, None, None, None]).byte(), labels
    )


class ToyClients:
    """Clients of a DeepJSCC link, or of FLSC links with two tasks."""

    def __init__(self, *, same: bool = False, codec: str = "deepjscc", **settings: Any) -> None:
        self.settings = FederatedSpec(**{"clients": 3, "rounds": 3, "local_steps": 2, **settings})
        self.seed, self.same, self.codec = 7, same, codec
        self.payload = toy_images(12, 16 if codec == "deepjscc" else 32)
        every = list(range(len(self.payload)))
        clients = self.settings.clients
        self.parts = [every] * clients if same else split(self.payload, self.settings, self.seed)
        self.made = 0

    def member(self, client: int) -> Member:
        self.made += 1
        task = self.settings.task_of(client)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            link, judge = self._link(task)
        rounds, steps = self.settings.rounds, self.settings.local_steps
        spec = TrainSpec(steps=rounds * steps, batch_size=2, ema=0.0, lr=1e-2)
        seed = 11 if self.same else 100 + client
        return Member(link, judge, Shard(self.payload, self.parts[client]), spec, seed, CPU)

    def _link(self, task: str) -> tuple[Link, Any]:
        if self.codec == "deepjscc":
            small = {"width": 4, "depth": 1}
            sent, read = DeepJSCCTransmitter("1/6", **small), DeepJSCCReceiver("1/6", **small)
            return Link(sent, AWGN(), read), Reconstruct()
        sizes: dict[str, Any] = {"cbr": "1/192", "task": task}
        ends = FLSCTransmitter(**sizes), FLSCReceiver(**sizes, classes=3, norm="batch")
        return Link(
            ends[0], AWGN(), ends[1]
        ), Reconstruct() if task == "reconstruct" else Recognise()


@pytest.fixture
def toy() -> type[ToyClients]:
    return ToyClients
