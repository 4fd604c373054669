"""Users share a channel, and each meets the SINR of the closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from channels import AWGN, Rayleigh
from channels.base import ChannelState
from semsim import Scenario, run, stream
from semsim.codecs.separate import SeparateTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.links.multiple_access import MultipleAccessLink
from semsim.mistakes import SpecError
from semsim.phy.frontend import SVD

BITS = 4000


class Fixed(AWGN):
    """A constant H, [R, U], the same for all items."""

    def __init__(self, h: list[list[complex]]) -> None:
        super().__init__()
        self.h = torch.tensor(h, dtype=torch.complex64)
        self.num_rx, self.num_tx = self.h.shape

    def draw(self, batch: int, uses: int, generator: torch.Generator) -> ChannelState:
        return ChannelState(h=self.h[None, ..., None].expand(batch, -1, -1, 1), coherence=uses)

    def forward(
        self, x: torch.Tensor, state: ChannelState, n0: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        y = self.h @ x
        noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        return y + n0.sqrt()[:, None, None] * noise


def qpsk(channel: nn.Module, **arguments: object) -> MultipleAccessLink:
    return MultipleAccessLink(UncodedTransmitter(), channel, UncodedReceiver(), **arguments)


def bits(users: int, batch: int = 8) -> list[torch.Tensor]:
    return [
        torch.randint(2, (batch, BITS), generator=stream(5, "bits", u)).float()
        for u in range(users)
    ]


def noise_of(link: MultipleAccessLink, snr_db: float) -> list[float]:
    """Return the noise power that each user's symbols arrive with."""
    found = link.transmit(bits(link.users), snr_db, stream(1, "link"))
    return [float((t.received - t.symbols).abs().square().mean()) for t in found]


H = [[1.0, 0.5 + 0.3j], [0.2j, -0.9], [0.4, 0.6j]]


@pytest.mark.parametrize("snr_db", [5.0, 15.0])
def test_linear_detection_has_the_sinr_of_lmmse(snr_db: float) -> None:
    noise = noise_of(qpsk(Fixed(H), power_db=[0.0, -3.0]), snr_db)
    n0 = 10 ** (-snr_db / 10)
    h = torch.tensor(H, dtype=torch.complex128) * torch.tensor([1.0, 10**-0.15])
    inverse = torch.linalg.inv(torch.eye(2) + h.mH @ h / n0).diagonal().real
    for got, closed in zip(noise, 1 / (1 / inverse - 1), strict=True):
        assert got / closed == pytest.approx(1, abs=5 / math.sqrt(8 * BITS / 2))


def test_after_cancelling_the_strong_user_the_weak_one_is_alone() -> None:
    snr_db, weak_db = 25.0, -12.0
    link = qpsk(Fixed([[1.0, 1.0]]), power_db=[0.0, weak_db], detect="sic")
    strong, weak = noise_of(link, snr_db)
    n0, power = 10 ** (-snr_db / 10), 10 ** (weak_db / 10)
    # QPSK beside QPSK of a sixteenth of its power: no symbol is wrong, so nothing is left over
    five_sigma = 5 / math.sqrt(8 * BITS / 2)
    assert strong == pytest.approx(power + n0, rel=five_sigma)
    assert weak == pytest.approx(n0 / power, rel=five_sigma)


def test_with_antennas_the_last_user_has_the_snr_of_maximum_ratio_combining() -> None:
    link = qpsk(Fixed(H), detect="sic")
    noise = noise_of(link, 20.0)
    h = torch.tensor(H)
    alone = 0.01 / h.abs().square().sum(dim=0)
    inverse = torch.linalg.inv(torch.eye(2) + h.mH @ h / 0.01).diagonal().real
    first = int((1 / inverse - 1).argmax())
    five_sigma = 5 / math.sqrt(8 * BITS / 2)
    assert noise[first] / float(1 / (1 / inverse - 1)[first]) == pytest.approx(1, abs=five_sigma)
    assert noise[1 - first] / float(alone[1 - first]) == pytest.approx(1, abs=five_sigma)


def test_cancelling_beats_linear_detection_over_fading() -> None:
    source = bits(4, batch=64)
    wrong = {}
    for detect in ("linear", "sic"):
        link = qpsk(Rayleigh(num_tx=4, num_rx=4), users=4, detect=detect)
        found = link.transmit(source, 15.0, stream(2, "link"))
        wrong[detect] = sum(
            float((t.estimate != s).float().mean()) for t, s in zip(found, source, strict=True)
        )
    assert wrong["sic"] < 0.7 * wrong["linear"]


def test_each_user_has_unit_power_and_all_uses() -> None:
    link = qpsk(Rayleigh(num_tx=2, num_rx=2))
    for sent in link.transmit(bits(2), 10.0, stream(0, "link")):
        assert sent.ledger.payload == BITS / 2
        assert float(sent.x.abs().square().mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"users": 3}, "3 transmit antennas"),
        ({"users": 1}, "users is 2 or more"),
        ({"power_db": [0.0]}, "power_db has 1 values"),
        ({"frontend": SVD()}, "not SVD"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qpsk(Rayleigh(num_tx=2, num_rx=2), **arguments)


def test_codecs_that_keep_their_symbols_are_refused() -> None:
    with pytest.raises(ValueError, match="open symbols"):
        MultipleAccessLink(SeparateTransmitter("1/6"), Rayleigh(num_tx=2, num_rx=2))


SCENARIO = {
    "payload": {"kind": "photos", "resize": 64, "crop": 64},
    "transmitter": {"kind": "analog", "cbr": "1/6"},
    "channel": {"kind": "rayleigh", "num_tx": 2, "num_rx": 2},
    "metrics": ["psnr"],
    "snr_db": [0, 20],
    "stop": {"max_items": 4},
    "batch_size": 2,
    "sweep": {
        "link": {
            "linear": {"kind": "multiple_access", "power_db": [0, -6]},
            "sic": {"kind": "multiple_access", "power_db": [0, -6], "detect": "sic"},
        }
    },
    "plots": [{"y": "psnr", "by": "user", "difference_to": "1"}],
}


def test_a_run_has_rows_of_each_user_and_pairs_them(tmp_path: Path) -> None:
    plots = [{"y": "psnr", "by": "link", "difference_to": "linear"}]
    rows = run(Scenario.parse({**SCENARIO, "plots": plots}), tmp_path / "r")
    assert len(rows) == 2 * 2 * 2 and set(rows["user"]) == {1, 2}
    assert rows["uid"].nunique() == 8 and (rows["power"] - 1).abs().max() < 1e-4
    mean = rows.groupby("user")["value"].mean()
    assert mean[1] > mean[2]  # the stronger one
    paired = rows[rows["link"] == "sic"]
    assert paired["diff"].notna().all()
    again = run(Scenario.parse({**SCENARIO, "plots": plots}), tmp_path / "r")
    assert again["value"].tolist() == rows["value"].tolist()


def test_an_interrupted_run_goes_on_with_the_same_digits(tmp_path: Path) -> None:
    scenario = Scenario.parse({**SCENARIO, "plots": []})
    whole = run(scenario, tmp_path / "whole")
    batches = 0

    def interrupt(_: object) -> None:
        nonlocal batches
        batches += 1
        if batches == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scenario, tmp_path / "cut", listener=interrupt)
    cut = run(scenario, tmp_path / "cut")
    assert cut["value"].tolist() == whole["value"].tolist()


def test_users_may_have_codecs_and_payloads_of_their_own(tmp_path: Path) -> None:
    other = {"kind": "deepjscc", "weights": "deepjscc-cifar-1-6"}
    link = {
        "kind": "multiple_access",
        "transmitters": [other],
        "payloads": [{"kind": "synthetic", "count": 3, "size": 32}],
    }
    scenario = Scenario.parse({**SCENARIO, "link": link, "sweep": {}, "plots": []})
    rows = run(scenario, tmp_path / "r")
    assert set(rows["user"]) == {1, 2}
    at_20 = rows[rows["snr_db"] == 20].set_index("user")["value"]
    assert at_20[2] > 15  # its weights are there


def test_a_mistake_at_a_user_names_its_key() -> None:
    link = {"kind": "multiple_access", "transmitters": [{"kind": "deepjsc"}]}
    with pytest.raises(SpecError) as caught:
        Scenario.parse({**SCENARIO, "link": link, "sweep": {}})
    assert caught.value.path == "link.transmitters[0].kind"


def test_users_are_trained_together(tmp_path: Path) -> None:
    from semsim import train
    from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
    from semsim.payloads.synthetic import Synthetic
    from semsim.training.spec import TrainSpec

    ends = [(DeepJSCCTransmitter("1/6"), DeepJSCCReceiver("1/6")) for _ in range(2)]
    link = MultipleAccessLink(
        ends[0][0],
        Rayleigh(num_tx=2, num_rx=2),
        ends[0][1],
        transmitters=[ends[1][0]],
        receivers=[ends[1][1]],
    )
    before = [next(part.parameters()).clone() for pair in ends for part in pair]
    spec = TrainSpec(steps=2, batch_size=4, ema=0.0)
    train(link, Synthetic(count=8), spec=spec, folder=tmp_path)
    after = [next(part.parameters()) for pair in ends for part in pair]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
