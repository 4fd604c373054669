"""The capacity bound: budgets against closed forms, and images within them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from channels.awgn import AWGN
from channels.csi import PerfectCSI
from channels.fading import Rayleigh
from semsim.codecs.bound import BoundLink, BoundTransmitter
from semsim.phy import theory
from semsim.phy.frontend import SVD
from semsim.seeds import stream


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests."""
    monkeypatch.setenv("SEMSIM_CACHE", str(tmp_path))


def images(count: int, side: int = 32) -> Tensor:
    """Make smooth random images [B, 3, side, side]."""
    coarse = torch.rand(count, 3, 6, 6, generator=stream(0, "images"))
    return torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def psnr_db(source: Tensor, estimate: Tensor) -> Tensor:
    """Return the PSNR per image, dB."""
    return -10 * torch.log10((source - estimate).square().mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0, 20.0])
def test_on_awgn_the_budget_is_shannons(snr_db: float) -> None:
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg"), AWGN())
    sent = link.transmit(images(2), snr_db, stream(0, "x"))
    expected = 512 * theory.awgn_capacity(snr_db)
    torch.testing.assert_close(sent.notes["capacity_bits"], torch.full((2,), expected))
    assert sent.ledger.total == 512


def test_the_charged_bytes_fit_into_the_capacity() -> None:
    transmitter = BoundTransmitter("1/6", codec="webp")
    source = images(2)
    sent = BoundLink(transmitter, AWGN()).transmit(source, 10.0, stream(0, "x"))
    budget = math.floor(float(sent.notes["capacity_bits"][0]) / 8)
    image = (source[0].permute(1, 2, 0) * 255).round().byte().numpy()
    coded = transmitter.stills.fit(image, 8 * budget)
    assert len(coded.stream) + 5 + 3 <= budget
    assert torch.equal(
        sent.estimate[0],
        torch.from_numpy(transmitter.stills.decode(coded, image).copy()).permute(2, 0, 1) / 255,
    )


def test_more_snr_gives_a_better_image_until_nothing_fits() -> None:
    source = images(3)
    link = BoundLink(BoundTransmitter("1/3", codec="jpeg2000"), AWGN())
    curve = [link.transmit(source, snr, stream(0, "x")) for snr in (-25.0, 0.0, 10.0, 20.0)]
    values = [float(psnr_db(source, sent.estimate).mean()) for sent in curve]
    assert values == sorted(values)
    assert values[-1] > values[0] + 6
    assert curve[0].notes["decoded"].tolist() == [0, 0, 0]
    mean_colour = source.mean(dim=(2, 3), keepdim=True).expand_as(source)
    torch.testing.assert_close(curve[0].estimate, mean_colour, atol=1 / 255, rtol=0)


def test_in_block_fading_each_image_has_the_capacity_of_its_own_gain() -> None:
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg"), Rayleigh())
    sent = link.transmit(images(8), 10.0, stream(1, "fade"))
    gain = sent.state.h.abs().square().flatten()
    torch.testing.assert_close(sent.notes["capacity_bits"], 512 * torch.log2(1 + 10 * gain))
    assert len(set(sent.notes["capacity_bits"].tolist())) == 8


@pytest.mark.parametrize(("num_tx", "num_rx"), [(1, 1), (1, 2), (2, 2)])
def test_the_ergodic_budget_is_telatars(num_tx: int, num_rx: int) -> None:
    channel = Rayleigh(num_tx=num_tx, num_rx=num_rx)
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg", ergodic=True), channel)
    sent = link.transmit(images(1), 10.0, stream(2, "ergodic"))
    uses = 512 // num_tx
    per_use = float(sent.notes["capacity_bits"][0]) / uses
    # 16384 draws of a capacity with standard deviation below 1.3 bits: 0.01 bits
    assert abs(per_use - theory.ergodic_capacity(10.0, num_tx, num_rx)) < 0.05
    assert sent.ledger.total == uses


def test_water_filling_carries_more_than_equal_power() -> None:
    def bits(frontend: SVD | None) -> Tensor:
        link = BoundLink(
            BoundTransmitter("1/6", codec="jpeg"),
            Rayleigh(num_tx=2, num_rx=2),
            csi_tx=PerfectCSI() if frontend else None,
            frontend=frontend,
        )
        return link.transmit(images(16), 0.0, stream(3, "mimo")).notes["capacity_bits"]

    equal, svd, filled = bits(None), bits(SVD()), bits(SVD(water_filling=True))
    torch.testing.assert_close(equal, svd)  # the same power on all eigenmodes is the same capacity
    assert bool((filled >= equal - 1e-2).all())
    assert float(filled.sum()) > 1.05 * float(equal.sum())


def test_symbols_have_unit_power_and_do_not_move_the_generator() -> None:
    source = images(2)
    sent = BoundLink(BoundTransmitter("1/6", codec="jpeg"), AWGN()).transmit(
        source, 5.0, stream(4, "power")
    )
    power = sent.x.abs().square().mean(dim=(1, 2))
    torch.testing.assert_close(power, torch.ones(2))
