"""The capacity bound: budgets against closed forms, and images within them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from channels.awgn import AWGN
from channels.base import Channel
from channels.csi import FeedbackCSI, MismatchedCSI, PerfectCSI
from channels.erasure import Erasure
from channels.fading import Rayleigh, Rician
from channels.impairments import PhaseNoise
from channels.interference import Interference
from channels.ofdm import TDL
from semsim.codecs.bound import BoundLink, BoundTransmitter, best_offer
from semsim.codecs.image_codecs import psnr_of_mse
from semsim.codecs.limits import NAMES, Limits
from semsim.codecs.stills import pixels_of
from semsim.phy import theory
from semsim.phy.frontend import LMMSE, SVD, ZF, NoFrontEnd
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
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg"), Rayleigh(), csi_tx=PerfectCSI())
    sent = link.transmit(images(8), 10.0, stream(1, "fade"))
    gain = sent.state.h.abs().square().flatten()
    torch.testing.assert_close(sent.notes["capacity_bits"], 512 * torch.log2(1 + 10 * gain))
    assert len(set(sent.notes["capacity_bits"].tolist())) == 8


@pytest.mark.parametrize(("num_tx", "num_rx"), [(1, 1), (1, 2), (2, 2)])
def test_the_ergodic_budget_is_telatars(num_tx: int, num_rx: int) -> None:
    channel = Rayleigh(num_tx=num_tx, num_rx=num_rx)
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg", rate="ergodic"), channel)
    sent = link.transmit(images(1), 10.0, stream(2, "ergodic"))
    uses = 512 // num_tx
    per_use = float(sent.notes["capacity_bits"][0]) / uses
    # 16384 draws of a capacity with standard deviation below 1.3 bits: 0.01 bits
    assert abs(per_use - theory.ergodic_capacity(10.0, num_tx, num_rx)) < 0.05
    assert sent.ledger.total == uses


def bits(channel: Channel, snr_db: float, count: int = 16, **ends: Any) -> tuple[Tensor, ...]:
    """Return the bits per use of each item, and the state that it met."""
    rate = ends.pop("rate", "matched")
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg", rate=rate), channel, **ends)
    sent = link.transmit(images(count), snr_db, stream(3, "bits"))
    return sent.notes["capacity_bits"].double() / sent.x.shape[-1], sent.state


@pytest.mark.parametrize("frontend", [LMMSE(), SVD(), SVD(water_filling=True), ZF()], ids=repr)
def test_who_knows_the_draw_fills_water_whatever_the_front_end(frontend: nn.Module) -> None:
    channel = Rayleigh(num_tx=2, num_rx=2)
    per_use, state = bits(channel, 0.0, csi_tx=PerfectCSI(), frontend=frontend)
    expected = theory.mimo_capacity(state.h, torch.ones(16), csi_tx=True)[:, 0]
    torch.testing.assert_close(per_use.float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("subcarriers", "gain"), [(48, 1.165), (512, 1.343)])
def test_over_subcarriers_too_it_fills_water(subcarriers: int, gain: float) -> None:
    channel = TDL("C", 3e-7, subcarriers=subcarriers)
    per_use, state = bits(channel, -5.0, 40, csi_tx=PerfectCSI())
    n0 = 10**0.5
    gains = state.h[:, 0, 0].abs().double().square() / n0
    share = theory.water_filling(gains, power=512.0)
    expected = torch.log2(1 + share * gains).mean(dim=1)
    torch.testing.assert_close(per_use, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(share.mean(dim=1), torch.ones(40).double())
    even = torch.log2(1 + gains).mean(dim=1)
    ratio, error = ratio_of_means(expected, even)
    assert abs(ratio - gain) < 4 * error + 0.005  # of 2,000 draws


def test_a_lost_packet_gets_no_power_from_who_knows_of_it() -> None:
    channel = Erasure(0.3, 64)
    per_use, state = bits(channel, 10.0, csi_tx=PerfectCSI())
    kept = state.h[:, 0, 0].real.mean(dim=-1).double()
    torch.testing.assert_close(per_use, kept * torch.log2(1 + 10 / kept), rtol=1e-5, atol=1e-5)


def ratio_of_means(values: Tensor, others: Tensor) -> tuple[float, float]:
    """Return mean(values) / mean(others) of paired draws, and its standard error."""
    ratio = values.mean() / others.mean()
    away = (values - ratio * others).std() / others.mean() / math.sqrt(len(values))
    return float(ratio), float(away)


@pytest.mark.parametrize("csi_tx", [PerfectCSI(), None], ids=["known", "unknown"])
@pytest.mark.parametrize(
    ("sir_db", "snr_db", "carried", "by_mean_power"),
    [(0.0, 20.0, 5.94, 1.45), (5.0, 25.0, 7.56, 2.62)],
)
def test_an_interferer_is_coloured_noise(
    sir_db: float, snr_db: float, carried: float, by_mean_power: float, csi_tx: PerfectCSI | None
) -> None:
    channel = Interference(sir_db, channel=Rayleigh(1, 2))
    per_use, state = bits(channel, snr_db, 100, csi_tx=csi_tx, rate="per_draw")
    h, g = (part.h[..., 0].to(torch.complex128) for part in state.stages)
    n0, power = 10 ** (-snr_db / 10), 10 ** (-sir_db / 10)
    noise = g @ g.mH + n0 * torch.eye(2)
    with_it = torch.linalg.slogdet(noise + h @ h.mH)[1] - torch.linalg.slogdet(noise)[1]
    torch.testing.assert_close(per_use, with_it / math.log(2), rtol=1e-4, atol=1e-4)
    white = torch.log2(1 + h.abs().square().sum(dim=(1, 2)) / (power + n0))
    for found, expected in ((per_use, carried), (white, by_mean_power)):  # of 4,000 draws
        assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 10 + 0.05


def test_the_direction_of_a_line_of_sight_is_known_from_statistics() -> None:
    channel = Rician(20.0, num_tx=4, num_rx=1)
    per_use, _ = bits(channel, 0.0, rate="ergodic", frontend=NoFrontEnd())
    assert 0.97 * math.log2(1 + 4) < float(per_use[0]) < math.log2(1 + 4)  # T-fold gain


MATCHED = [
    (AWGN(), None, "constant"),
    (AWGN(), PerfectCSI(), "per_draw"),
    (PhaseNoise(1e3), None, "constant"),
    (Rayleigh(), None, "one"),
    (Rayleigh(), PerfectCSI(), "per_draw"),
    (Rayleigh(), FeedbackCSI(4), "per_draw"),
    (Rayleigh(), MismatchedCSI(), "one"),
    (Rayleigh(coherence="symbol"), None, "ergodic"),
    (Rayleigh(coherence="symbol"), PerfectCSI(), "per_draw"),
    (Rayleigh(coherence=128), None, "one"),
    (TDL("A", 1e-7), None, "one"),
    (Erasure(0.1), None, "one"),
    (Interference(5.0), None, "one"),
]


@pytest.mark.parametrize(("channel", "csi_tx", "kind"), MATCHED)
def test_the_default_matches_what_the_transmitter_knows(
    channel: Channel, csi_tx: Any, kind: str
) -> None:
    link = BoundLink(BoundTransmitter("1/3", codec="jpeg"), channel, csi_tx=csi_tx)
    assert link.remarks() == {}
    link.transmit(images(2, 64), 5.0, stream(4, "kind"))
    assert link.remarks() == {"bound": NAMES[kind]}


def values(rate: str, code: str = "endless", snr_db: float = 7.0) -> Tensor:
    link = BoundLink(BoundTransmitter("1/3", codec="webp", rate=rate, code=code), Rayleigh())
    source = images(5, 64).repeat(60, 1, 1, 1)
    return psnr_db(source, link.transmit(source, snr_db, stream(5, "rate")).estimate)


def test_knowing_more_is_worth_more() -> None:
    drawn, one, ergodic = values("per_draw"), values("one"), values("ergodic")
    for more, less in ((drawn, one), (ergodic, drawn)):
        gap = more - less
        assert gap.mean() > 4 * gap.std() / math.sqrt(len(gap))


def test_no_fixed_rate_is_better_than_the_one_for_all_draws() -> None:
    stills = BoundTransmitter("1/3", codec="webp").stills
    image = pixels_of(images(1, 64))[0]
    limits = Limits(Rayleigh(), 4096, None, torch.device("cpu"))
    best, coded = best_offer(stills, image, limits.of_statistics(0.2))
    lost = stills.lost_psnr(image)
    value = best.odds * psnr_of_mse(coded.mse) + (1 - best.odds) * lost
    for bits_per_use in torch.linspace(0.1, 4, 40).tolist():
        odds = 1 - theory.outage_probability(bits_per_use, snr_db=-10 * math.log10(0.2))
        fixed = stills.fit(image, 4096 * bits_per_use)
        if fixed is not None:
            assert odds * psnr_of_mse(fixed.mse) + (1 - odds) * lost <= value + 0.15


def test_codes_as_long_as_the_item_carry_less() -> None:
    assert abs(float((values("one", "shell") - values("one")).mean())) < 0.5
    for snr_db in (0.0, 10.0):
        sent = {
            code: BoundLink(BoundTransmitter("1/6", codec="webp", code=code), AWGN()).transmit(
                images(20, 64), snr_db, stream(6, "code")
            )
            for code in ("endless", "shell", "gaussian")
        }
        carried = {code: s.notes["capacity_bits"].mean() for code, s in sent.items()}
        assert carried["gaussian"] < carried["shell"] < carried["endless"]
        # an image is worth an error of some 1e-3 to 1e-2
        likely = [2048 * theory.normal_approximation(snr_db, 2048, e) for e in (1e-7, 0.2)]
        assert likely[0] < carried["shell"] < likely[1]
        assert sent["shell"].notes["decoded"].mean() > 0.8


def test_a_finite_code_has_no_ergodic_capacity() -> None:
    with pytest.raises(ValueError, match="write rate: one"):
        BoundTransmitter(rate="ergodic", code="shell")
    with pytest.raises(ValueError, match="rate is one of matched, per_draw, one, ergodic"):
        BoundTransmitter(rate="outage")


def test_without_noise_the_codec_is_the_limit() -> None:
    link = BoundLink(BoundTransmitter("1/6", codec="jpeg"), Rayleigh(2, 2))
    sent = link.transmit(images(2), math.inf, stream(7, "inf"))
    assert torch.isfinite(sent.notes["capacity_bits"]).all()
    assert (psnr_db(images(2), sent.estimate) > 30).all()


def test_symbols_have_unit_power_and_do_not_move_the_generator() -> None:
    source = images(2)
    sent = BoundLink(BoundTransmitter("1/6", codec="jpeg"), AWGN()).transmit(
        source, 5.0, stream(4, "power")
    )
    power = sent.x.abs().square().mean(dim=(1, 2))
    torch.testing.assert_close(power, torch.ones(2))
