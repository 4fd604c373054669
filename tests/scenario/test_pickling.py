"""A scenario and its live parts travel to another process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from semsim import Scenario, stream

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["quickstart", "harq", "latent_denoiser", "multiple_access"])
def test_a_scenario_and_what_it_builds_pickle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scenario = Scenario.load(ROOT / "scenarios" / f"{name}.yaml")
    again = pickle.loads(pickle.dumps(scenario))
    assert again == scenario and again.to_dict() == scenario.to_dict()
    point = scenario.points()[0]
    there = pickle.loads(pickle.dumps(point))
    assert there.scenario.uid(10.0) == point.scenario.uid(10.0) and there.swept == point.swept
    built = point.scenario.build("cpu")
    copy = pickle.loads(pickle.dumps(built))
    source = built.payload[0][0][None]
    one, other = (b.link.eval()(source, 10.0, stream(0, "pickle")) for b in (built, copy))
    assert torch.equal(one, other)
