"""Users share a channel, and each meets the SINR of the closed forms."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from channels import AWGN, CSI, Rayleigh
from channels.base import ChannelState
from channels.cascade import Cascade
from channels.csi import PerfectCSI, PilotCSI
from channels.impairments import Clipping
from semsim import Scenario, evaluate, run, stream
from semsim.codecs.analog import AnalogReceiver, AnalogTransmitter
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.latent_denoiser import LatentDenoiser
from semsim.codecs.separate import SeparateTransmitter
from semsim.codecs.uncoded import UncodedReceiver, UncodedTransmitter
from semsim.links.multiple_access import MultipleAccessLink
from semsim.links.user_csi import UserCSI
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


class Remembers(UncodedReceiver):
    """Remember the noise of each item that it decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def forward(self, y: torch.Tensor, csi: CSI, *rest: Any) -> Any:
        self.told += csi.n0.mean(dim=(1, 2)).tolist()
        return super().forward(y, csi, *rest)


def best_of_those_left(h: torch.Tensor, n0: float) -> dict[int, float]:
    """Return the noise with which each user arrives, as it is its turn, for h [R, U]."""
    left, found = list(range(h.shape[1])), dict[int, float]()
    while left:
        seen = h[:, left].to(torch.complex128)
        inverse = torch.linalg.inv(torch.eye(len(left)) + seen.mH @ seen / n0).diagonal().real
        noise = 1 / (1 / inverse - 1)
        found[left.pop(int(noise.argmin()))] = float(noise.min())
    return found


@pytest.mark.parametrize(("users", "antennas"), [(3, 3), (4, 2)])
def test_each_user_that_is_cancelled_is_the_best_of_those_left(users: int, antennas: int) -> None:
    ears = [Remembers() for _ in range(users)]
    link = MultipleAccessLink(
        UncodedTransmitter(),
        Rayleigh(num_tx=users, num_rx=antennas),
        ears[0],
        users=users,
        detect="sic",
        transmitters=[UncodedTransmitter() for _ in ears[1:]],
        receivers=ears[1:],
    )
    sent = link.transmit([b[:, :8] for b in bits(users, 200)], 10.0, stream(1, "link"))
    wanted = [best_of_those_left(h[..., 0], 0.1) for h in sent[0].state.h]
    for user, ear in enumerate(ears):
        noise = torch.tensor([item[user] for item in wanted])
        torch.testing.assert_close(
            torch.tensor(ear.told).sort()[0], noise.sort()[0], rtol=1e-3, atol=0
        )


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
        ({"users": 2.0}, "users is a whole number"),
        ({"detect": "mmse"}, "detect is one of linear, sic"),
        ({"receivers": [UncodedReceiver()]}, "give both"),
        ({"power_db": [0.0]}, "power_db has 1 values"),
        ({"power_db": [0.0, 4000.0]}, r"power_db lies in \[-200, 200\], got 4000.0; equal users"),
        ({"frontend": SVD()}, "not SVD"),
        ({"csi_tx": PilotCSI()}, "csi.tx: none"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        qpsk(Rayleigh(num_tx=2, num_rx=2), **arguments)


def test_an_amplifier_of_a_single_device_is_refused() -> None:
    with pytest.raises(ValueError, match="clipping saturates at the mean power of one"):
        qpsk(Cascade([Clipping(3.0, antennas=2), Rayleigh(num_tx=2, num_rx=2)]))


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


class TellsNoise(UncodedTransmitter):
    """Sends QPSK turned by the noise that it was told, so that another noise cancels nothing."""

    uses_csi = True

    def forward(self, source: torch.Tensor, csi: CSI, *rest: object, **begun: object) -> Any:
        return super().forward(source, csi) * torch.exp(1j * csi.n0[:, None, None])


class Turned(UncodedReceiver):
    """Turns symbols back that a user told of this noise turned."""

    def __init__(self, n0: float) -> None:
        super().__init__()
        self.n0 = n0

    def forward(self, y: torch.Tensor, csi: CSI, *rest: Any) -> Any:
        return super().forward(y * cmath.exp(-1j * self.n0), csi, *rest)


def test_what_is_cancelled_was_encoded_as_the_user_encoded_it() -> None:
    n0, strong_db = 0.1, 12.0
    link = MultipleAccessLink(
        TellsNoise(),
        Fixed([[1.0, 1.0]]),
        Turned(n0 / 10 ** (strong_db / 10)),
        power_db=[strong_db, 0.0],
        transmitters=[TellsNoise()],
        receivers=[Turned(n0)],
        detect="sic",
    )
    _, weak = noise_of(link, 10.0)
    # 2.8 per real part, at most 1.0 of the other and noise of 0.22: no symbol is wrong
    assert weak == pytest.approx(n0, rel=5 / math.sqrt(8 * BITS / 2))


def test_pilots_of_a_user_are_as_strong_as_its_symbols() -> None:
    power_db, per_block = [0.0, -10.0], 4
    n0 = torch.full((20_000,), 0.1)
    link = qpsk(Rayleigh(num_tx=2, num_rx=1), csi_rx=PilotCSI(per_block), power_db=power_db)
    air = link.hop.draw(2 * 4, n0, stream(4, "pilots"))
    error = (air.csi_rx.h - air.state.h).abs().square().mean(dim=(0, 1, 3))
    for got, gain_db in zip(error, power_db, strict=True):
        wanted = 0.1 / per_block / 10 ** (gain_db / 10)  # each sends in all pilots of the block
        assert got / wanted == pytest.approx(1, abs=5 / math.sqrt(20_000))
    left = 0.1 + 0.1 / per_block * link.users  # each user's error meets a symbol of its power
    torch.testing.assert_close(air.csi_rx.n0, torch.full_like(n0, left))


def test_perfect_knowledge_is_the_same_through_the_view_of_users() -> None:
    state = Rayleigh(num_tx=2, num_rx=2).draw(4, 8, stream(0, "h"))
    state = replace(state, interference=0.3)
    n0 = torch.full((4,), 0.2)
    plain = PerfectCSI()(state, n0, stream(0, "csi"))
    seen = UserCSI(PerfectCSI(), [0.0, -7.0])(state, n0, stream(0, "csi"))
    torch.testing.assert_close(seen.h, plain.h)
    torch.testing.assert_close(seen.n0, plain.n0)


def test_a_codec_that_reads_gains_is_refused() -> None:
    transmitter = UncodedTransmitter()
    transmitter.sees_channel = True
    with pytest.raises(ValueError, match="average SNR alone"):
        MultipleAccessLink(transmitter, Rayleigh(num_tx=2, num_rx=2), UncodedReceiver())


def test_weights_of_other_users_decide_the_results(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    other = {"kind": "deepjscc", "cbr": "1/6", "weights": str(file)}
    link = {"kind": "multiple_access", "transmitters": [other]}
    uids = set()
    for value in (1.0, 2.0):
        save_file({"a": torch.tensor(value)}, file)
        uids.add(Scenario.parse({**SCENARIO, "link": link, "sweep": {}, "plots": []}).uid(0.0))
    assert len(uids) == 2


def test_missing_weights_of_a_user_name_its_key() -> None:
    link = {"kind": "multiple_access", "transmitters": [{"kind": "deepjscc", "weights": "none"}]}
    scenario = Scenario.parse({**SCENARIO, "link": link, "sweep": {}, "plots": []})
    with pytest.raises(SpecError) as caught:
        scenario.uid(0.0)
    assert caught.value.path == "link.transmitters[0].weights"
    with pytest.raises(SpecError) as caught:
        scenario.build()
    assert caught.value.path == "link.transmitters[0].weights"


def test_items_of_other_users_have_one_shape() -> None:
    with pytest.raises(ValueError, match="items of user 2 have"):
        evaluate(
            MultipleAccessLink(
                AnalogTransmitter("1/6"), Rayleigh(num_tx=2, num_rx=2), AnalogReceiver("1/6")
            ),
            [(torch.zeros(3, s, 16), 0) for s in (16, 16, 32)],
            snr_db=[10.0],
            metrics=["psnr"],
        )


def test_cancelling_trains_no_receiver_that_asks_something_of_itself() -> None:
    ends = DeepJSCCTransmitter("1/6", width=8, depth=1), DeepJSCCReceiver("1/6", width=8, depth=1)
    receiver = LatentDenoiser(ends[1], width=8, depth=3)
    channel = Rayleigh(num_tx=2, num_rx=2)
    link = MultipleAccessLink(ends[0], channel, receiver, detect="sic").train()
    sent = link.transmit(torch.rand(4, 3, 8, 8), 10.0, stream(0, "link"))
    with pytest.raises(ValueError, match=r"LatentDenoiser.*train it with detect: linear"):
        link.auxiliary_loss(0.0, sent)
    for plain in (ends[1], LatentDenoiser(ends[1], width=8, depth=3, stage=1)):
        link = MultipleAccessLink(ends[0], channel, plain, detect="sic")
        assert link.auxiliary_loss(0.0, sent) == 0
    nested = LatentDenoiser(receiver, width=8, depth=3, layout="line", stage=1)
    with pytest.raises(ValueError, match=r"LatentDenoiser.*train it with detect: linear"):
        MultipleAccessLink(ends[0], channel, nested, detect="sic").auxiliary_loss(0.0, sent)


def test_double_precision_at_networks_is_refused() -> None:
    ends = DeepJSCCTransmitter("1/6", width=16, depth=1), DeepJSCCReceiver("1/6", width=16, depth=1)
    link = MultipleAccessLink(ends[0], Rayleigh(num_tx=2, num_rx=2), ends[1])
    with pytest.raises(ValueError, match=r"source\.float"):
        link.transmit(torch.zeros(2, 3, 32, 32).double(), 10.0, stream(0, "link"))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([4], r"2 users sends as many batches of one size, got batches of \[4\] items; write one"),
        ([4, 4, 4], r"got batches of \[4, 4, 4\] items"),
        ([4, 3], r"got batches of \[4, 3\] items"),
    ],
)
def test_batches_that_users_cannot_send_together_are_refused(
    sizes: list[int], message: str
) -> None:
    link = qpsk(Rayleigh(num_tx=2, num_rx=2))
    with pytest.raises(ValueError, match=message):
        link.transmit([torch.zeros(n, 8) for n in sizes], 10.0, stream(0, "link"))
