"""Shipped encoders of channels: that they predict what their cards say."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from channels.sionna_bridge import sionna_version
from semsim import zoo
from semsim.csi.adapt import encoder_of
from semsim.csi.predicted import predict
from semsim.csi.pretrain import noisy
from semsim.csi.rivals import hold
from semsim.metrics.base import Outcome
from semsim.metrics.error import ChannelNMSE
from semsim.payloads.channels import Channels, parts
from semsim.seeds import stream

NAMES = [name for name in zoo.names() if "channels" in zoo.card(name)]
TOLERANCE_DB = 0.05  # as for codecs: what CPUs round otherwise


@pytest.mark.parametrize("name", NAMES)
def test_shipped_encoders_predict_what_their_card_says(name: str) -> None:
    claim = zoo.card(name)["channels"]
    if sionna_version() != claim["sionna"]:
        pytest.skip(f"the card is of drops of Sionna {claim['sionna']}")
    payload = Channels(
        "umi", claim["drops"], subcarriers=16, speed_mps=(11.2, 27.7), seed=claim["seed"]
    )
    h = payload.records(0, claim["drops"]).h
    snr = torch.full((len(h),), claim["snr_db"])
    seen = noisy(h[:, :16], snr, stream(claim["seed"], "noise", claim["snr_db"]))
    truth = parts(h[:, 16:])

    def error_db(told: torch.Tensor) -> float:
        values = ChannelNMSE()(Outcome(parts(told), truth, truth))
        return 10 * math.log10(float(values.double().mean()))

    with torch.inference_mode():
        own = error_db(predict(encoder_of(name, "small").eval(), seen, 4))
    assert own == pytest.approx(claim["nmse_db"], abs=TOLERANCE_DB)
    assert own < error_db(hold(seen, 4)) - 3


def test_the_benchmark_measures_no_random_network_by_the_name_of_a_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    benchmark, asked = importlib.import_module("wirelessgpt"), []
    monkeypatch.setattr(benchmark, "rows_of", lambda name, given: asked.append(given.model) or [])
    for more in ([], ["--model", "own.safetensors"]):
        monkeypatch.setattr("sys.argv", ["wirelessgpt.py", "sense", "--out", str(tmp_path), *more])
        benchmark.main()
    assert asked == ["wirelessgpt-small", "own.safetensors"]
