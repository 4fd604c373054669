"""Channel attention against its closed forms and the behaviour that its papers state."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from semsim import stream
from semsim.codecs.deepjscc import DeepJSCCTransmitter
from semsim.nn.attention import ATTENTION, ECA, PFCA, SE, SimAM, attention
from semsim.nn.conv import ResidualBlock
from semsim.nn.resnet import BasicBlock, ResNet

LEAST = 1 / (1 + math.exp(-0.5))  # sigmoid(1/2) = 0.6225


def features(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=stream(1, "features", shape), dtype=torch.float64).to(dtype)


def closed_form(x: Tensor, regulariser: float = 1e-4) -> Tensor:
    """PFCA written out channel by channel in fp64, apart from the module's code."""
    out = torch.empty_like(x, dtype=torch.float64)
    for item, image in enumerate(x.double()):
        u = [channel.mean().item() for channel in image]
        mu = sum(u) / len(u)
        variance = sum((v - mu) ** 2 for v in u) / (len(u) - 1)
        for c, v in enumerate(u):
            energy = (v - mu) ** 2 + 2 * (variance + regulariser)
            weight = 1 / (1 + math.exp(-energy / (4 * (variance + regulariser))))
            out[item, c] = weight * image[c]
    return out


@pytest.mark.parametrize("shape", [(1, 8, 4, 4), (3, 64, 5, 7), (2, 2, 1, 1)])
def test_pfca_is_its_closed_form(shape: tuple[int, ...]) -> None:
    x = features(*shape)
    torch.testing.assert_close(PFCA()(x).double(), closed_form(x), rtol=0, atol=1e-6)


def test_pfca_in_bf16_is_its_closed_form_within_the_format() -> None:
    x = features(2, 16, 6, 6).bfloat16()
    expected = closed_form(x)
    error = (PFCA()(x).double() - expected).abs()
    eps = torch.finfo(torch.bfloat16).eps  # the weight and the product are each rounded once
    assert (error <= 2 * eps * expected.abs() + 1e-9).all()


def test_pfca_weights_lie_between_sigmoid_of_a_half_and_one_and_have_the_stated_mean() -> None:
    x = features(4, 64, 8, 8)
    weights = PFCA().weights(x)
    assert weights.min() >= LEAST - 1e-6
    assert weights.max() < 1
    u = x.double().mean(dim=(2, 3))
    variance = u.var(dim=1)
    expected = 0.5 + 63 / (4 * 64) * variance / (variance + 1e-4)
    torch.testing.assert_close(
        torch.logit(weights.double()).mean(dim=1), expected, rtol=0, atol=1e-5
    )


def test_pfca_scales_a_channel_by_one_number() -> None:
    x = features(2, 8, 5, 6).abs() + 0.1
    ratio = (PFCA()(x) / x).flatten(2)
    torch.testing.assert_close(ratio, ratio[:, :, :1].expand_as(ratio))


def test_pfca_ignores_a_common_shift_and_the_place_of_pixels() -> None:
    x = features(2, 16, 4, 6, dtype=torch.float64)
    weights = PFCA().weights(x)
    torch.testing.assert_close(PFCA().weights(x + 3.5), weights)
    moved = x.flatten(2)[:, :, torch.randperm(24, generator=stream(2, "pixels"))].view_as(x)
    torch.testing.assert_close(PFCA().weights(moved), weights)


def test_pfca_hardly_sees_the_scale_where_lambda_is_small_beside_the_variance() -> None:
    x = features(2, 64, 4, 4, dtype=torch.float64)
    variance = x.mean(dim=(2, 3)).var(dim=1).min().item()
    largest = 63 / 4  # of v, for 64 channels of which one stands out; sigmoid's slope is below 1/4
    bound = largest * 1e-4 / variance / 4
    torch.testing.assert_close(PFCA().weights(7 * x), PFCA().weights(x), rtol=0, atol=bound)


def test_pfca_follows_a_permutation_of_channels() -> None:
    x = features(2, 16, 4, 4, dtype=torch.float64)
    order = torch.randperm(16, generator=stream(3, "channels"))
    torch.testing.assert_close(PFCA().weights(x[:, order]), PFCA().weights(x)[:, order])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pfca_weighs_the_dominant_channel_most_whatever_its_sign(sign: float) -> None:
    x = 0.01 * features(1, 64, 4, 4)
    x[:, 11] += 5 * sign
    weights = PFCA().weights(x)[0]
    assert weights.argmax() == 11
    assert weights[11] > 0.99
    assert weights[torch.arange(64) != 11].max() < 0.63


def test_pfca_reads_channels_of_one_item_only() -> None:
    x = features(2, 8, 4, 4)
    other = x.clone()
    other[1] += features(1, 8, 4, 4)[0]
    assert torch.equal(PFCA()(x)[0], PFCA()(other)[0])
    changed = x.clone()
    changed[0, 3] += 2.0
    assert (PFCA().weights(x)[0] != PFCA().weights(changed)[0]).all()


def test_pfca_of_a_constant_is_sigmoid_of_a_half_with_finite_gradient() -> None:
    x = torch.full((1, 8, 4, 4), 0.7, requires_grad=True)
    y = PFCA()(x)
    torch.testing.assert_close(y, x * LEAST)
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    single = PFCA()(torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(single, torch.full((1, 1, 2, 2), LEAST))


def test_pfca_relative_ignores_scale() -> None:
    x = features(2, 16, 4, 4, dtype=torch.float64)
    module = PFCA(regulariser=1e-2, relative=True)
    torch.testing.assert_close(module.weights(1e-3 * x), module.weights(x))


@pytest.mark.parametrize("kind", ATTENTION)
def test_gradients_are_right(kind: str) -> None:
    torch.manual_seed(4)
    module = attention(kind, 16).double()
    x = features(2, 16, 2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


def test_pfca_gradient_flows_through_its_statistics() -> None:
    x = features(1, 8, 2, 2, dtype=torch.float64).requires_grad_()
    (whole,) = torch.autograd.grad(PFCA()(x).sum(), x)
    weights = PFCA().weights(x).detach()
    assert not torch.allclose(whole, weights[:, :, None, None].expand_as(x))


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (3, 16, 1, 5), (2, 16, 1, 1)])
def test_shapes_and_modes_are_kept(kind: str, shape: tuple[int, ...]) -> None:
    module = attention(kind, 16)
    x = features(*shape)
    y = module(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert torch.equal(module.train()(x), module.eval()(x))


@pytest.mark.parametrize(
    ("kind", "channels", "parameters"),
    [
        ("none", 64, 0),
        ("se", 64, 2 * 64**2 // 16),
        ("eca", 64, 3),
        ("eca", 256, 5),
        ("simam", 64, 0),
        ("pfca", 64, 0),
    ],
)
def test_modules_have_the_parameters_their_papers_state(
    kind: str, channels: int, parameters: int
) -> None:
    module = attention(kind, channels)
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert list(module.buffers()) == []


def test_simam_is_its_closed_form() -> None:
    x = features(2, 3, 4, 5, dtype=torch.float64)
    mean, variance = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True)
    expected = x * torch.sigmoid((x - mean) ** 2 / (4 * (variance + 1e-4)) + 0.5)
    torch.testing.assert_close(SimAM()(x), expected)


def test_eca_mixes_neighbouring_channels_only() -> None:
    torch.manual_seed(5)
    module, x = ECA(64), features(1, 64, 2, 2)
    changed = x.clone()
    changed[:, 20] += 1
    moved = (module(x) / x != module(changed) / changed).flatten(2).any(dim=2)[0].nonzero()[:, 0]
    assert set(moved.tolist()) <= {19, 20, 21}


def test_se_weighs_with_one_number_per_channel() -> None:
    torch.manual_seed(6)
    x = features(2, 32, 3, 3).abs() + 0.1
    ratio = (SE(32)(x) / x).flatten(2)
    torch.testing.assert_close(ratio, ratio[:, :, :1].expand_as(ratio))


@pytest.mark.parametrize("kind", ["simam", "pfca"])
def test_parameter_free_attention_leaves_the_state_dict_alone(kind: str) -> None:
    plain = DeepJSCCTransmitter("1/6", width=16).state_dict()
    assert DeepJSCCTransmitter("1/6", width=16, attention=kind).state_dict().keys() == plain.keys()
    assert ResNet(attention_kind=kind).state_dict().keys() == ResNet().state_dict().keys()
    counts = {sum(p.numel() for p in ResNet(attention_kind=k).parameters()) for k in ("none", kind)}
    assert len(counts) == 1


def test_every_residual_block_holds_one_module_before_its_addition() -> None:
    transmitter = DeepJSCCTransmitter("1/6", width=16, depth=3, attention="pfca")
    resnet = ResNet(widths=(16, 32), blocks=2, attention_kind="pfca")
    for network, block in ((transmitter, ResidualBlock), (resnet, BasicBlock)):
        blocks = [m for m in network.modules() if isinstance(m, block)]
        assert len(blocks) == sum(isinstance(m, PFCA) for m in network.modules()) > 0
    assert isinstance(blocks[0].branch[-1], PFCA)
    block = ResidualBlock(8, "pfca", adaptive=False)
    nn.init.ones_(block.second.bias)  # a constant branch: all weights sigmoid(1/2)
    x = features(1, 8, 3, 3)
    torch.testing.assert_close(block(x, torch.zeros(1)), x + LEAST)


def test_the_comparison_in_the_classifier_is_fair_and_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import attention_classifier as comparison
    import pandas

    networks = {kind: comparison.network_of(kind, 3) for kind in ATTENTION}
    plain = networks["none"].state_dict()
    for network in networks.values():
        state = network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in plain.items())
    rows = [
        {"attention": kind, "seed": seed, "images": "clean", "accuracy": 0.5 + 0.01 * place,
         "parameters": 10, "multiply_adds": 20, "latency": 1.0, "latency_low": 0.9,
         "latency_high": 1.1}
        for place, kind in enumerate(ATTENTION) for seed in comparison.SEEDS
    ]  # fmt: skip
    table = comparison.summary(pandas.DataFrame(rows))
    assert "| pfca | 10 | 20 | 1.00 (0.90 to 1.10) | 54.0 (+4.0 ± 0.0) |" in table


def test_a_run_of_the_comparison_is_known_by_steps_and_codec_and_reported_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import attention_classifier as comparison
    import pandas
    from attention import is_there

    rows = pandas.read_csv(comparison.RESULTS / "attention_classifier.csv")
    run = {"attention": "se", "seed": 1, "steps": 150, "codec": "deepjscc-cifar-1-6 8f003917"}
    assert is_there(rows, run)
    assert not is_there(rows, {**run, "steps": 5000}) and not is_there(rows[:0], run)
    assert not is_there(rows.drop(columns="codec"), run)  # as the script wrote them before
    assert not is_there(rows, {**run, "codec": comparison.named(comparison.CODEC)})  # trained since
    text = comparison.report(pandas.concat([rows, rows.assign(steps=30), rows[:3].assign(steps=9)]))
    assert [n for n in (9, 30, 150, 5000) if f"{n} steps of 64 images" in text] == [30, 150]
    assert text.count("behind deepjscc-cifar-1-6 8f003917 in AWGN") == 2


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="none, se, eca, simam, pfca"):
        attention("cbam", 8)
