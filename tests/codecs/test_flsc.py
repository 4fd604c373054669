"""FLSC as a codec: what depends on the task, what is sent, the MIMO chain, image-level tasks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from channels import CSI, MismatchedCSI, PerfectCSI, Rayleigh
from channels.units import snr_db_to_n0
from semsim import Link, stream
from semsim.codecs.flsc.codec import FLSCReceiver, FLSCTransmitter
from semsim.codecs.flsc.extractor import PRESETS
from semsim.mistakes import SpecError
from semsim.phy.frontend import SVD
from semsim.scenario.scenario import Scenario
from semsim.sweep.sweep import run
from semsim.tasks.meaning import Recognise, Retrieve

SHAPE = (3, 64, 64)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=stream(1, "images"))


def transmitter(**arguments: object) -> FLSCTransmitter:
    torch.manual_seed(2)
    return FLSCTransmitter(**arguments).eval()


def svd_link(antennas: int = 2, **csi: object) -> Link:
    torch.manual_seed(2)
    ends = FLSCTransmitter(num_streams=antennas), FLSCReceiver(num_streams=antennas)
    channel = Rayleigh(num_tx=antennas, num_rx=antennas, coherence="block")
    return Link(ends[0], channel, ends[1], **{"csi_tx": PerfectCSI(), "frontend": SVD(), **csi})


def test_the_task_changes_the_translator_alone() -> None:
    one, other = transmitter(), transmitter(task="classify")
    source = images(2)
    assert torch.equal(one.extractor(source)[0], other.extractor(source)[0])
    assert torch.equal(
        one.coarse(one.extractor(source)[0]), other.coarse(other.extractor(source)[0])
    )
    shared = {
        n: v.shape for n, v in FLSCReceiver().state_dict().items() if n.split(".")[0] == "decoder"
    }
    again = FLSCReceiver(task="retrieve").state_dict()
    assert shared == {n: v.shape for n, v in again.items() if n.split(".")[0] == "decoder"}
    assert {n.split(".")[0] for n in again} - {"decoder"} == set(FLSCReceiver.of_task)


def test_fine_semantics_are_sent_where_pixels_are_asked_for() -> None:
    both, coarse = transmitter(), transmitter(task="classify")
    assert both.num_symbols(SHAPE) - coarse.num_symbols(SHAPE) == 3 * 64 * 64 / 24
    assert transmitter(task="classify", fine_for="all").num_symbols(SHAPE) == both.num_symbols(
        SHAPE
    )
    assert both.cbr == pytest.approx(1 / 48 + 1 / 24)


def test_channel_uses_come_from_what_is_sent() -> None:
    link = svd_link(4)
    sent = link.transmit(images(2), 10.0, stream(1, "link"))
    assert sent.symbols.shape[-1] == link.transmitter.num_symbols(SHAPE)
    assert sent.x.shape == (2, 4, sent.ledger.payload)
    assert sent.ledger.payload == math.ceil(sent.symbols.shape[-1] / 4)


def test_coarse_semantics_travel_on_the_strongest_stream() -> None:
    link, source = svd_link(), images(3)
    sent = link.transmit(source, 5.0, stream(1, "link"))
    coarse, fine = link.transmitter.counts(SHAPE)
    n0 = snr_db_to_n0(torch.tensor(5.0))
    sigma = torch.linalg.svdvals(sent.state.h[..., 0])
    noise = link.foreseen(link.draw(coarse + fine, n0.expand(3), stream(1, "link"))).n0
    left = noise[:, 0][:, link.transmitter.order(coarse + fine, noise.device)]
    strongest = 2 * n0 / sigma[:, :1].square()  # M n0 / sigma^2: each stream has power 1 / M
    torch.testing.assert_close(left[:, :coarse], strongest.expand(-1, coarse), rtol=1e-4, atol=1e-6)
    weakest = 2 * n0 / sigma[:, 1:].square()
    torch.testing.assert_close(left[:, -1:], weakest, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("antennas", [2, 4])
def test_svd_makes_parallel_channels(antennas: int) -> None:
    h = Rayleigh(num_tx=antennas, num_rx=antennas, coherence="block").draw(5, 8, stream(3, "h")).h
    precoder = SVD().precoder(CSI(h, torch.ones(5)), antennas, antennas)[..., 0]
    seen = h[..., 0] @ precoder
    gram = seen.mH @ seen  # diagonal: what each stream gets, and none of another
    eye = torch.eye(antennas, dtype=gram.dtype)
    torch.testing.assert_close(gram * (1 - eye), torch.zeros_like(gram), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        precoder.mH @ precoder, (eye / antennas).expand(5, -1, -1), atol=1e-6, rtol=0
    )
    sigma = torch.linalg.svdvals(h[..., 0]).square() / antennas
    torch.testing.assert_close(gram.diagonal(dim1=-2, dim2=-1).real, sigma, rtol=1e-4, atol=1e-5)


def test_a_mistaken_channel_at_the_transmitter_leaves_more_noise_on_every_item() -> None:
    left = []
    for csi in (PerfectCSI(), MismatchedCSI()):
        link = svd_link(csi_tx=csi)
        air = link.draw(16, snr_db_to_n0(torch.tensor(3.0)).expand(64), stream(1, "link"))
        left.append(link.carry(torch.ones(64, 1, 16) + 0j, air).csi.n0[:, 0, 0])
    # no precoder gives a stream a larger gain than the first singular vector: sigma_1 bounds it
    assert (left[0] <= left[1] * (1 + 1e-4)).all() and left[1].mean() > 1.2 * left[0].mean()


def test_the_published_size_is_built_from_the_published_numbers() -> None:
    with torch.device("meta"):
        sent = FLSCTransmitter("1/12", preset="published", fine=None)
        read = FLSCReceiver("1/12", preset="published", fine=None)
    assert sent.num_symbols((3, 128, 128)) == 4096 == 3 * 128 * 128 / 12
    assert PRESETS["published"].widths[-1] == 512 and read.spec["norm"] == "batch"
    assert any(isinstance(m, nn.BatchNorm2d) for m in read.modules())


def test_retrieval_takes_the_nearest_entry_of_the_gallery() -> None:
    torch.manual_seed(3)
    task, target = Retrieve(3, embedding=4), torch.tensor([2, 0])
    entries = task.network.entries.detach()
    assert task(5 * entries[target]).argmax(dim=1).tolist() == [2, 0]  # length says nothing
    right, wrong = (task(entries[order]) for order in ([2, 0], [0, 1]))
    assert task.loss(right, right, target) < task.loss(wrong, wrong, target)
    with pytest.raises(ValueError, match="classes: 4 or more"):
        task.loss(right, right, torch.tensor([3, 0]))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"cbr": "1/7"}, "n/3072"),
        ({"fine": "1/7"}, "fine: cbr 1/7"),
        ({"task": "guess"}, "task"),
        ({"num_streams": 0}, "num_streams"),
    ],
)
def test_what_cannot_be_met_is_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FLSCTransmitter(**arguments)


def scenario(folder: Path, **changes: object) -> Scenario:
    """Two classes of images, dark and light, in a file."""
    made = stream(4, "classes")
    level = torch.arange(32) % 2
    pixels = (
        60 + 120 * level[:, None, None, None] + torch.randint(50, (32, 32, 32, 3), generator=made)
    )
    np.savez(folder / "two.npz", x=pixels.numpy().astype(np.uint8), y=level.numpy())
    payload = {"kind": "arrays", "path": str(folder / "two.npz")}
    train = {"payload": payload, "steps": 12, "batch_size": 8, "lr": 1e-3, "ema": 0.0}
    return Scenario.parse(
        {
            "payload": payload,
            "transmitter": {"kind": "flsc", "cbr": "1/192"},
            "receiver": {"kind": "flsc", "task": "classify", "classes": 2},
            "channel": {"kind": "awgn"},
            "task": "recognise",
            "metrics": ["accuracy"],
            "snr_db": [10],
            "stop": {"max_items": 32},
            "train": train,
            **changes,
        }
    )


def test_an_ordinary_scenario_learns_to_classify_from_coarse_semantics(tmp_path: Path) -> None:
    receiver = {"kind": "flsc", "task": "classify", "classes": 2}
    sender = {"kind": "flsc", "cbr": "1/192", "task": "classify"}
    rows = run(scenario(tmp_path, transmitter=sender, receiver=receiver), tmp_path / "out")
    assert rows["value"].item() == 1.0  # dark from light
    assert rows["cbr"].item() == pytest.approx(1 / 192)


def test_ends_of_other_tasks_and_payloads_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="task is reconstruct and classify"):
        scenario(tmp_path).check()  # the transmitter sends fine semantics, none are awaited
    sender = {"kind": "flsc", "cbr": "1/192", "task": "classify"}
    photos = {"kind": "synthetic", "count": 4, "size": 64}
    with pytest.raises(SpecError, match="classes"):
        scenario(tmp_path, transmitter=sender, payload=photos).check()
    with pytest.raises(ValueError, match="task: classify in"):
        Recognise().loss(images(2), images(2), torch.tensor([0, 1]))
