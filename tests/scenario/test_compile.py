"""``compile: true``: the same link, faster, under a hash of its own."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from semsim.evaluation import evaluate
from semsim.mistakes import SpecError
from semsim.scenario.scenario import Scenario


def scenario(**changes: Any) -> Scenario:
    values = {
        "payload": {"kind": "synthetic", "count": 4, "size": 16}, "channel": "awgn",
        "transmitter": {"kind": "deepjscc", "cbr": "1/6", "width": 4, "depth": 1},
        "metrics": ["psnr"], "snr_db": [10],
    }  # fmt: skip
    return Scenario.parse({**values, **changes})


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs the compiler g++")
def test_a_compiled_link_gives_the_same_psnr() -> None:
    values = []
    for compiled in (False, True):
        built = scenario(compile=compiled).build("cpu")
        rows = evaluate(built.link, built.payload, snr_db=[10], metrics=["psnr"], batch_size=2)
        values.append(rows[0]["value"])
    # float32 rounds at 6e-8; through four layers the MSE moves by some 1e-6 of itself
    assert values[0] == pytest.approx(values[1], abs=1e-3)


def test_compiled_results_are_kept_apart_and_others_where_they_were() -> None:
    assert scenario(compile=True).uid(10) != scenario().uid(10)
    assert scenario(compile=False).uid(10) == scenario().uid(10)


def test_a_compiler_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SpecError, match="compile: needs a C\\+\\+ compiler"):
        scenario(compile=True).build("cpu")
