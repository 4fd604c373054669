"""What a training carries on disk and back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from semsim.training.spec import TrainSpec
from semsim.training.state import State
from semsim.types import AnyLink


def step(state: State, grads: list[torch.Tensor]) -> None:
    for parameter, grad in zip(state.nets.parameters(), grads, strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(grad)
    state.optimiser.step()


def test_moments_are_taken_over_into_another_order_of_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 8, 3)
    turned = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    spec = TrainSpec(steps=9, lr=0.01)
    one, other = (State(AnyLink(), net, spec, 0) for net in (plain, turned))
    grads = [[torch.randn_like(p) for p in plain.parameters()] for _ in range(3)]
    for some in grads[:2]:
        step(one, some)
    one.save(tmp_path / "a.pt")
    other._take(torch.load(tmp_path / "a.pt", weights_only=True))
    step(one, grads[2])
    step(other, grads[2])
    for a, b in zip(plain.parameters(), turned.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_optimiser_is_no_start(tmp_path: Path) -> None:
    """Of networks without matrices, of which both optimisers make one group."""
    net = nn.Module()
    net.gain = nn.Parameter(torch.ones(2))
    State(AnyLink(), net, TrainSpec(steps=2), 0).save(tmp_path / "a.pt")
    spec = TrainSpec(steps=2, optimiser="muon", start=str(tmp_path / "a.pt"))
    with pytest.raises(ValueError, match="is of other networks or another optimiser"):
        State(AnyLink(), net, spec, 0)


def test_complex_parameters_can_be_trained() -> None:
    net = nn.Module()
    net.gain = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    state = State(AnyLink(), net, TrainSpec(steps=2), 0)
    net.gain.grad = torch.ones(2, dtype=torch.complex64)
    state.optimiser.step()
    assert not torch.equal(net.gain, torch.ones(2, dtype=torch.complex64))
