"""AF modules, GDN, Muon, the starting transform and the classifier."""

from __future__ import annotations

import pytest
import torch

from semsim import stream
from semsim.nn.codec import scale_widths
from semsim.nn.conv import (
    analysis_layer,
    half_whitening,
    position_filter,
    synthesis_layer,
    transform_basis,
)
from semsim.nn.muon import Muon, groups, orthogonalise
from semsim.nn.resnet import ResNet
from semsim.nn.snr import AttentionFeature, snr_number


def test_af_scales_channels_by_a_factor_that_depends_on_the_snr() -> None:
    torch.manual_seed(1)
    module = AttentionFeature(16)
    x = torch.rand(2, 16, 3, 4) + 0.1
    scale = module(x, snr_number(torch.tensor([0.0, 20.0]))) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    assert (scale > 0).all()
    assert (scale < 1).all()
    same = x[:1].expand_as(x)
    low, high = module(same, snr_number(torch.tensor([0.0, 20.0])))
    assert not torch.allclose(low, high)


def test_af_stays_finite_at_any_snr() -> None:
    module = AttentionFeature(16)
    snr_db = torch.tensor([float("-inf"), -300.0, 300.0])
    assert torch.isfinite(module(torch.ones(3, 16, 2, 2), snr_number(snr_db))).all()


def test_af_takes_what_it_is_told_as_it_is() -> None:
    module, x = AttentionFeature(16, num_told=3), torch.ones(2, 16, 2, 2)
    far = torch.tensor([[0.0, 1, 2], [0, 1, 3]])  # no SNR is told as more than 2
    one, other = module(x, far)
    assert not torch.allclose(one, other)
    torch.testing.assert_close(
        snr_number(torch.tensor([-90.0, 10, 90])), torch.tensor([[-1], [0.5], [2]])
    )


def test_the_transform_is_orthonormal_and_ordered() -> None:
    basis, variance = transform_basis(4, 48)
    torch.testing.assert_close(basis @ basis.T, torch.eye(48), atol=1e-5, rtol=0)
    assert (variance.diff() <= 1e-6).all()
    assert variance.sum().item() == pytest.approx(48, rel=1e-4)  # a pixel has variance 1
    assert basis[0].std() < 0.1 * basis[0].mean()  # the first component is nearly flat and grey


def test_analysis_then_synthesis_gives_the_image_back_up_to_scale() -> None:
    image = torch.randn(1, 48, 5, 5, generator=stream(3, "image"))
    back = synthesis_layer(4, 48)(analysis_layer(4, 48)(image))
    ratio = (back / image).detach()
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_orthogonalise_brings_all_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=stream(4, shape))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.4
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (orthogonalise(matrix) * (u @ v)).sum() / (
        orthogonalise(matrix).norm() * (u @ v).norm()
    )
    assert cosine > 0.95


def test_muon_steps_by_the_learning_rate_and_leaves_vectors_to_adam() -> None:
    torch.manual_seed(5)
    layer = torch.nn.Linear(32, 64)
    before = [p.detach().clone() for p in (layer.weight, layer.bias)]
    optimiser = Muon(groups(layer), lr=0.01)
    assert [g["adam"] for g in optimiser.param_groups] == [False, True]
    layer(torch.randn(256, 32)).square().sum().backward()
    optimiser.step()
    weight, bias = (p.detach() - b for p, b in zip((layer.weight, layer.bias), before, strict=True))
    # 0.2 sqrt(64) times an orthogonal 64 x 32 matrix has root mean square 0.2
    assert weight.square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.2)
    torch.testing.assert_close(bias.abs(), torch.full_like(bias, 0.01), rtol=1e-3, atol=0)


def test_linear_paths_and_depthwise_kernels_do_not_go_to_muon() -> None:
    net = torch.nn.ModuleDict(
        {"linear": torch.nn.Conv2d(32, 32, 3), "depthwise": torch.nn.Conv2d(32, 32, 3, groups=32)}
    )
    assert [g.get("adam", False) for g in groups(net)] == [True]


def test_resnet_scores_images_of_any_size() -> None:
    net = ResNet(classes=7, widths=(16, 32)).eval()
    for size in (32, 45):
        assert net(torch.rand(2, 3, size, size)).shape == (2, 7)
    assert "mean" not in net.state_dict()


def test_scales_that_do_not_halve_are_refused() -> None:
    assert scale_widths(16, 4, 8) == [8, 16, 32]
    with pytest.raises(ValueError, match="power of two"):
        scale_widths(12, 4, 8)


def test_half_whitening_is_undone_by_its_inverse_and_leaves_the_root_of_the_spectrum() -> None:
    whiten, restore = (position_filter(k) for k in half_whitening(8, 6, 12))
    noise = torch.randn(1, 6, 64, 64, generator=stream(6, "noise"))
    with torch.no_grad():
        back = restore(whiten(noise))
    inner = slice(26, 38)  # beyond the reach of the border
    torch.testing.assert_close(back[..., inner, inner], noise[..., inner, inner], rtol=0, atol=0.02)
    mean = whiten.weight.detach().sum(dim=(1, 2, 3))
    assert mean[0] < 0.5  # the mean of a patch follows its neighbours: low frequencies shrink
    centre = whiten.weight.detach()[:, 0, 12, 12]
    assert (centre > 1).all()


def test_half_whitening_lowers_the_correlation_of_neighbours() -> None:
    steps = torch.randn(1, 1, 96, 96, generator=stream(7, "field"), dtype=torch.float64)
    field = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
    for lag in range(12):  # a field whose correlation falls as 0.8^distance along both axes
        for other in range(12):
            field += 0.8 ** (lag + other) * steps.roll((lag, other), dims=(2, 3))
    whiten = position_filter(half_whitening(8, 1, 4)[0]).double()
    with torch.no_grad():
        after = whiten(field)

    def correlation(x: torch.Tensor) -> float:
        return float((x[..., 1:] * x[..., :-1]).mean() / x.square().mean())

    assert correlation(field) > 0.7
    assert correlation(after) < 0.6 * correlation(field)
