"""One of several channels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from channels import AWGN, Clipping, Erasure, Impulsive, OneOf, PhaseNoise, Rayleigh, Waveform
from channels.streams import forks
from semsim import Scenario
from semsim.mistakes import SpecError
from semsim.seeds import stream
from semsim.sweep.sweep import run


def test_each_is_drawn_as_often_as_its_weight_says() -> None:
    channel = OneOf([AWGN(), Impulsive(0.5, 0.0), AWGN()], [1, 3, 0])
    draws = 2000
    chosen = torch.tensor(
        [channel.draw(1, 1, stream(1, "draw", number)).chosen for number in range(draws)]
    )
    counts = chosen.bincount(minlength=3).tolist()
    assert counts[2] == 0
    assert abs(counts[0] - draws / 4) < 5 * math.sqrt(draws * 3 / 16)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_meets_what_the_channel_alone_does(place: int) -> None:
    makers = [Rayleigh(), Impulsive(0.3, -3.0), PhaseNoise(1e3, tracked=False)]
    channel = OneOf(makers, [float(number == place) for number in range(3)])
    x = torch.randn(3, 1, 40, dtype=torch.complex64, generator=stream(1, "x"))
    n0 = torch.full((3,), 0.2)
    state = channel.draw(3, 40, stream(1, "state"))
    assert state.chosen == place
    beneath = stream(1, "state")
    forks(beneath, "one of")
    assert torch.equal(state.h, makers[place].draw(3, 40, beneath).h)
    y = channel(x, state, n0, stream(1, "noise"))
    assert torch.equal(y, makers[place](x, state, n0, stream(1, "noise")))
    part = state.during(10, 30)
    assert part.chosen == place
    assert channel(x[..., :20], part, n0, stream(1, "noise")).shape == (3, 1, 20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"channels": []}, "channels is empty"),
        ({"channels": [AWGN(), OneOf([AWGN()])]}, "channels holds OneOf"),
        ({"channels": [AWGN(), Waveform([Clipping(3.0)])]}, "channels holds Waveform"),
        ({"channels": [AWGN(), Rayleigh(2, 2)]}, "antennas 1 x 1, 2 x 2"),
        ({"channels": [AWGN()], "weights": [1, 2]}, "weights has 2 numbers for 1 channels"),
        ({"channels": [AWGN()], "weights": [-1]}, "weights lies in"),
        ({"channels": [AWGN(), Erasure(0.1)], "weights": [0, 0]}, "weights are all 0"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OneOf(**arguments)


def test_a_waveform_takes_none_of_several() -> None:
    with pytest.raises(ValueError, match="stage 1 of a waveform is OneOf"):
        Waveform([OneOf([PhaseNoise(100.0), Clipping(3.0)])])


def test_no_result_is_measured_over_it(tmp_path: Path) -> None:
    scenario = Scenario.parse(
        {
            "name": "mixed-up",
            "payload": {"kind": "bits", "count": 4, "length": 64},
            "transmitter": {"kind": "uncoded"},
            "channel": {"kind": "one_of", "channels": [{"kind": "awgn"}, {"kind": "rayleigh"}]},
            "metrics": ["ber"],
            "snr_db": [5],
        }
    )
    with pytest.raises(SpecError, match=r"write it at train\.channel"):
        run(scenario, tmp_path, device="cpu")
