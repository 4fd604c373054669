"""The scanner behind MARformer: geometry, physics, artefacts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from semsim.ct.phantoms import FIELD_CM, body_metal, dental_metal, dental_phantom
from semsim.ct.scanner import (
    DENSITY,
    Scan,
    Scanner,
    attenuation,
    decompose,
    poisson,
    spectrum,
    water_correction,
)
from semsim.metrics.ssim import ssim
from semsim.nn.tomography import projector
from semsim.payloads.ct import to_mu
from semsim.seeds import stream
from semsim.vision.marformer import MetalSlices

SIZE, PIXEL_CM = 64, FIELD_CM / 64
SMALL = Scanner(size=SIZE, pixel_cm=PIXEL_CM, views=90)


def jaws(count: int, pieces: int, size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    made = []
    for n in range(count):
        generator = stream(1, "jaw", n)
        mu, teeth = dental_phantom(size, FIELD_CM / size, generator)
        made.append((mu, dental_metal(size, FIELD_CM / size, teeth, pieces, generator)))
    return torch.stack([m for m, _ in made]), torch.stack([m for _, m in made])


def psnr_db(image: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return -10 * (image - clean).square().mean(dim=(1, 2)).log10()


def test_attenuation_meets_the_table_and_jumps_at_the_k_edge() -> None:
    at = torch.tensor([20.0, 70.0, 120.0])
    assert attenuation("Fe", at).tolist() == pytest.approx([25.68, 0.8164, 0.2693])
    middle = attenuation("Fe", torch.tensor([math.sqrt(20 * 30)]))  # log-log: the geometric mean
    assert middle.item() == pytest.approx(math.sqrt(25.68 * 8.178))
    # NIST's values on both sides of the edges: 9.527, 55.39 and 2.137, 8.904 cm²/g
    silver = attenuation("Ag", torch.tensor([25.513, 25.515])).tolist()
    gold = attenuation("Au", torch.tensor([80.724, 80.726])).tolist()
    assert silver == pytest.approx([9.527, 55.39], rel=0.03)
    assert gold == pytest.approx([2.137, 8.904], rel=0.03)
    with pytest.raises(ValueError, match="20 to 120 keV"):
        attenuation("Fe", torch.tensor([10.0]))
    with pytest.raises(ValueError, match="got 'Pb'"):
        attenuation("Pb", at)


def test_the_spectrum_is_one_in_sum_and_ends_at_the_tube_voltage() -> None:
    energy, share = spectrum()
    assert share.sum().item() == pytest.approx(1) and share[-1] == 0 and (share >= 0).all()
    assert 45 < (energy * share).sum().item() < 60  # a 120 kVp tube's mean energy


def test_the_water_correction_straightens_water() -> None:
    c1, c2, c3 = water_correction()
    energy, share = spectrum()
    factors = attenuation("water", energy) / attenuation("water", torch.tensor([70.0]))
    mono = torch.linspace(1, 9, 9, dtype=torch.float64)
    p = -((-mono[:, None] * factors).exp() @ share).log()
    corrected = p * (c1 + p * (c2 + p * c3))
    assert (p - mono).abs().max() > 0.5  # without it, rays through much water seem too short
    assert (corrected - mono).abs().max() < 0.05


def test_soft_decomposition_adds_up() -> None:
    hounsfield = torch.tensor([-1000.0, 0.0, 100.0, 800.0, 1500.0, 3000.0])
    mu = to_mu(hounsfield)
    water, bone = decompose(mu)
    assert torch.allclose(water + bone, mu)
    assert bone[:3].abs().max() < 1e-6 and water[4:].abs().max() < 1e-6
    assert bone[3] / mu[3] == pytest.approx(0.5, abs=1e-5)  # halfway between 100 and 1500


@pytest.mark.parametrize("mean", [20.0, 25.0, 100.0, 1e4])
def test_counts_are_those_of_a_poisson_source(mean: float) -> None:
    from scipy import stats

    normal = torch.linspace(-3.5, 3.5, 701, dtype=torch.float64)
    ours = poisson(torch.tensor(mean, dtype=torch.float64), normal)
    exact = stats.poisson.ppf(stats.norm.cdf(normal.numpy()), mean)
    assert np.abs(ours.numpy() - exact).max() <= 1  # rounding may fall to either side
    draws = poisson(torch.full((200_000,), mean), torch.randn(200_000, generator=stream(1, "n")))
    # five standard errors of mean and of variance; 1/12 is the rounding's own
    assert draws.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(mean / 2e5))
    spread = 5 * mean * math.sqrt(2 / 2e5) + 0.2
    assert draws.var().item() == pytest.approx(mean, abs=spread)


def scan(material: str, pieces: int, count: int = 4) -> Scan:
    mu, metal = jaws(count, pieces)
    return SMALL.scan(mu, metal, [material] * count, stream(1, "noise"))


def test_no_metal_leaves_the_clean_slice_exactly() -> None:
    mu, metal = jaws(2, 1)
    one = SMALL.scan(mu, torch.zeros_like(metal), ["Fe", "Ag"], stream(1, "noise"))
    assert torch.equal(one.corrupted, one.clean) and torch.equal(one.interpolated, one.clean)
    other = SMALL.scan(mu, metal, ["Fe", "Ag"], stream(1, "noise"))
    assert torch.equal(other.clean, one.clean)  # the same noise, whatever the metal


def test_the_metals_trace_is_where_the_sinograms_differ() -> None:
    got = scan("Fe", 2)
    differ = got.sinogram != got.sinogram_clean
    assert not (differ & ~got.trace).any()
    # rays that meet next to no metal may count as many photons as before
    assert (got.trace & ~differ).sum() < 0.02 * got.trace.sum()
    assert 0.02 < got.trace.float().mean() < 0.5


def test_heavier_metals_do_more_harm() -> None:
    scans = [scan(material, 2) for material in ("Ti", "Fe", "Zr", "Ag")]
    before = [psnr_db(got.corrupted, got.clean) for got in scans]
    for light, heavy in itertools.pairwise(before):
        assert (light > heavy).all()


IDEAL = {"photons": None, "polychromatic": False, "partial_volume": False}


@pytest.mark.parametrize("material", ["Ti", "Fe"])
def test_one_energy_without_noise_leaves_less_than_half_of_the_streaks(material: str) -> None:
    mu, metal = jaws(3, 2, size=128)
    outside = torch.nn.functional.max_pool2d(metal, 7, stride=1, padding=3) == 0
    energy = []
    for scanner in (Scanner(), Scanner(**IDEAL)):
        got = scanner.scan(mu, metal, [material] * 3, stream(1, "noise"))
        energy.append((got.corrupted - got.clean)[outside].square().mean())
    # what stays is how a band-limited reconstruction rings around something so dense
    assert energy[1] < 0.5 * energy[0]


def test_one_energy_without_noise_adds_the_metals_own_projection_and_nothing_else() -> None:
    mu, metal = jaws(2, 2)
    ideal = Scanner(SIZE, PIXEL_CM, 90, **IDEAL)
    got = ideal.scan(mu, metal, ["Fe"] * 2)
    per_cm = DENSITY["Fe"] * attenuation("Fe", torch.tensor([70.0])).item()
    own = projector(SIZE, 90).project(metal) * PIXEL_CM * per_cm
    # float32 keeps exp(-p) to 1e-7 of itself, and so p to about 1e-6
    assert torch.allclose(got.sinogram - got.sinogram_clean, own, atol=1e-5)


def test_noise_falls_with_the_photons() -> None:
    mu, metal = jaws(2, 1)
    quiet = Scanner(SIZE, PIXEL_CM, 90, photons=None).scan(mu, metal, ["Ti"] * 2)
    few, many = (
        Scanner(SIZE, PIXEL_CM, 90, photons=p).scan(mu, metal, ["Ti"] * 2, stream(1, "noise"))
        for p in (2e5, 2e7)
    )
    assert (psnr_db(many.clean, quiet.clean) > psnr_db(few.clean, quiet.clean) + 10).all()


#: corrupted and LI, PSNR in dB and SSIM, of another simulator and phantom of the same description
ANCHORS = [
    ("Ti", 1, 35.5, 0.910, 34.2, 0.917),
    ("Fe", 1, 31.9, 0.842, 33.7, 0.916),
    ("Fe", 3, 25.3, 0.717, 29.0, 0.880),
    ("Zr", 2, 21.7, 0.601, 30.9, 0.898),
    ("Ag", 2, 18.4, 0.462, 30.7, 0.896),
]


@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda a: f"{a[0]} x {a[1]}")
def test_artefacts_are_as_strong_as_elsewhere(anchor: tuple) -> None:
    material, pieces, *wanted = anchor
    mu, metal = jaws(8, pieces, size=128)
    got = Scanner().scan(mu, metal, [material] * 8, stream(1, "noise"))
    found = []
    for image in (got.corrupted, got.interpolated):
        found += [psnr_db(image, got.clean).mean(), ssim(image[:, None], got.clean[:, None], 1.0)]
    # three slices there, eight here, whose PSNRs spread by about 3 dB: 2 standard errors are 4 dB
    for value, anchor_value, tolerance in zip(found, wanted, (4, 0.2, 4, 0.1), strict=True):
        assert float(value.mean()) == pytest.approx(anchor_value, abs=tolerance)


def test_metal_of_a_body_lies_in_the_body() -> None:
    hounsfield = torch.full((64, 64), -1000.0)
    hounsfield[16:48, 16:48] = 40.0
    for n in range(8):
        metal = body_metal(hounsfield, 0.3, 2, stream(1, n))
        rows, columns = metal.nonzero().float().mean(dim=0)
        assert 16 < rows < 48 and 16 < columns < 48 and 0 < metal.sum() < 2 * 3.5 * (2.1 / 0.3) ** 2


def test_void_scanners_are_refused() -> None:
    with pytest.raises(ValueError, match="photons must be > 0"):
        Scanner(photons=0)
    mu, metal = jaws(1, 1)
    with pytest.raises(ValueError, match="for size 128"):
        Scanner().scan(mu, metal, ["Fe"])


def test_densities_cover_the_metals_of_the_table() -> None:
    assert all(attenuation(name, torch.tensor([70.0])) > 0.5 for name in DENSITY)


def test_the_default_mix_is_about_as_corrupted_as_the_papers_data() -> None:
    slices_ = MetalSlices(48)
    before = torch.cat([psnr_db(s.corrupted, s.clean) for s in map(slices_.scan, range(48))])
    # the paper starts at 25.72 dB; PSNRs spread by 7 dB, so three standard errors are 3 dB
    assert before.mean().item() == pytest.approx(25.72, abs=3)
