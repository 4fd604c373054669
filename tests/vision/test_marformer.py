"""MARformer: the network of the paper, as far as it is known, and the task around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from semsim import spec, zoo
from semsim.seeds import stream
from semsim.training.loop import train
from semsim.training.spec import TrainSpec
from semsim.vision.marformer import (
    DRSA,
    SIZES,
    MARBlock,
    MARformer,
    MetalSlices,
    ReduceMetal,
)


def slices(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream(1, "slices", shape))


def awake(network: MARformer) -> MARformer:
    """Give the last convolution weights, so that the network does something."""
    with torch.no_grad():
        network.head.weight.normal_(0, 0.1, generator=stream(1, "head"))
    return network


def count(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_a_fresh_network_is_the_identity() -> None:
    image = slices(2, 1, 24, 40)
    assert torch.equal(MARformer()(image), image)


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [(SIZES["T"], 0.81), ({**SIZES["T"], "reduction": 1}, 0.92), (SIZES["L"], 4.31)],
)
def test_sizes_have_as_many_parameters_as_the_layout_says(arguments, millions: float) -> None:
    assert count(MARformer(**arguments)) == pytest.approx(millions, abs=0.005)


def test_attention_matrices_ignore_the_images_size() -> None:
    attention = DRSA(32, heads=2, reduction=2)
    for side in (8, 16, 32):
        q, k, v = attention.split(slices(2, 32, side, side))
        assert q.shape == k.shape == v.shape == (2, 2, side * side, 8)
        matrix = attention.matrix(q, k)
        assert matrix.shape == (2, 2, 8, 8)
        assert torch.allclose(matrix.sum(dim=-1), torch.ones(2, 2, 8))


def test_memory_grows_linearly_with_the_pixels() -> None:
    from semsim.nn.saved import saved_bytes

    network = awake(MARformer(8, depths=(1, 1, 1, 1)))
    small, middle, large = (
        saved_bytes(lambda side=side: network(slices(1, 1, side, side)).sum(), network)
        for side in (32, 64, 128)
    )
    # what does not grow with the image, its attention matrices, is at most a few per cent
    assert middle / small == pytest.approx(4, rel=0.05)
    assert large / middle == pytest.approx(4, rel=0.02)


def test_reduction_divides_the_channels_of_q_k_and_v() -> None:
    x = slices(1, 32, 8, 8)
    assert DRSA(32, heads=2, reduction=2).split(x)[0].shape == (1, 2, 64, 8)
    assert DRSA(32, heads=2, reduction=1).split(x)[0].shape == (1, 2, 64, 16)
    with pytest.raises(ValueError, match="do not go into 4 heads"):
        DRSA(12, heads=4, reduction=2)


def test_unreduced_attention_is_that_of_restormer() -> None:
    attention, x = DRSA(8, heads=2, reduction=1), slices(1, 8, 6, 6)
    q, k, v = attention.local(attention.qkv(x)).view(1, 3, 2, 4, 36).unbind(1)
    unit_q, unit_k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
    weights = (attention.temperature * (unit_q @ unit_k.transpose(-1, -2))).softmax(-1)
    expected = attention.out((weights @ v).reshape(1, 8, 6, 6))
    assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_the_kernel_sets_how_far_one_block_sees(kernel: int) -> None:
    torch.manual_seed(0)
    block = MARBlock(8, heads=1, reduction=2, kernel=kernel)
    block.attention.out.weight.data.zero_()  # attention sees everything; here the rest counts
    x = slices(1, 8, 31, 31)
    bumped = x.clone()
    bumped[:, 0, 15, 15] += 3  # one channel: LN takes out what all share
    moved = (block(bumped) - block(x)).abs().amax(dim=(0, 1)) > 1e-5  # rounding is below 1e-6
    assert moved.any(dim=0).sum() == moved.any(dim=1).sum() == kernel


@pytest.mark.parametrize("shape", [(16, 16), (17, 30), (8, 50), (5, 7)])
def test_any_size_goes_in_and_the_answer_is_the_same_twice(shape: tuple[int, int]) -> None:
    network = awake(MARformer(8, depths=(1, 0, 0, 1)))
    image = slices(2, 1, *shape)
    assert network(image).shape == image.shape
    assert torch.equal(network(image), network(image))


def test_gradients_reach_every_parameter() -> None:
    network = awake(MARformer(8, depths=(1, 1, 1, 1)))
    network(slices(2, 1, 16, 16)).square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_void_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="write 5 or 7"):
        MARformer(kernel=6)
    with pytest.raises(ValueError, match="four numbers"):
        MARformer(depths=(1, 2, 3))


@pytest.fixture
def weights(tmp_path: Path) -> str:
    network = awake(MARformer(**SIZES["T"]))
    return str(zoo.export_parts(tmp_path / "net.safetensors", {"network": network}))


def test_the_task_processes_at_one_end_or_not_at_all(weights: str) -> None:
    image = slices(2, 1, 16, 16).expand(-1, 3, -1, -1)
    for at, before, after in (("sender", 1, 0), ("receiver", 0, 1), ("none", 0, 0)):
        task = ReduceMetal(weights, at=at)
        assert torch.equal(task.prepare(image), image) == (not before)
        assert torch.allclose(task(image), image) == (not after)
        colour = slices(2, 3, 16, 16)  # as a codec of photos returns it
        assert torch.allclose(task(colour), task(colour.mean(1, keepdim=True).expand_as(colour)))
        assert task.process(image).shape == image.shape


def test_weights_written_in_a_scenario_are_those_of_the_task(weights: str) -> None:
    task = spec.build(spec.parse("task", {"kind": "mar", "weights": weights, "at": "sender"}))
    assert isinstance(task, ReduceMetal) and task.at == "sender"
    wanted = zoo_network(weights)
    assert torch.equal(task.network.head.weight, wanted.head.weight)
    fresh = spec.parse("task", {"kind": "mar", "weights": None, "trainable": True, "kernel": 3})
    assert spec.build(fresh).network.spec["kernel"] == 3


def zoo_network(weights: str) -> MARformer:
    network = MARformer(**SIZES["T"])
    zoo.load_parts(weights, {"network": network})
    return network


def test_the_network_is_frozen_unless_trainable(weights: str) -> None:
    assert not any(p.requires_grad for p in ReduceMetal(weights).parameters())
    task, image = ReduceMetal(weights, trainable=True), slices(1, 3, 16, 16)
    task.loss(task(image), image, torch.zeros(1, 3, 16, 16)).backward()
    assert all(p.grad is not None for p in task.parameters())


@pytest.mark.parametrize("loss", ["charbonnier", "log_mse"])
def test_the_loss_is_least_at_the_clean_slice(weights: str, loss: str) -> None:
    task, clean = ReduceMetal(weights, loss=loss), slices(2, 3, 16, 16)
    off = task.loss(clean + 0.1, clean, clean)
    assert task.loss(clean, clean, clean) < off
    if loss == "charbonnier":
        assert float(off) == pytest.approx((0.01 + 1e-6) ** 0.5, rel=1e-4)


def test_void_tasks_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match="trainable: true"):
        ReduceMetal(None)
    with pytest.raises(ValueError, match="width 16, this network"):
        ReduceMetal(weights, size="L")
    with pytest.raises(ValueError, match="T or L"):
        ReduceMetal(weights, size="XL")
    with pytest.raises(ValueError, match="works at: sender or at: receiver, got at: none"):
        ReduceMetal(None, at="none", trainable=True)
    task = ReduceMetal(weights)
    with pytest.raises(ValueError, match="clean slices"):
        task.loss(slices(2, 3, 8, 8), slices(2, 3, 8, 8), torch.tensor([0, 1]))


def test_training_on_jaws_lowers_the_loss_and_leaves_the_codec_out(tmp_path: Path) -> None:
    from channels import AWGN
    from semsim.codecs.no_link import NoLink, NoLinkTransmitter

    payload = MetalSlices(8, size=32, views=40, split="train")
    torch.manual_seed(0)
    task = ReduceMetal(None, trainable=True, loss="log_mse")
    source, target = (torch.stack(part) for part in zip(*payload, strict=True))
    before = task.loss(task(source), source, target)
    link = NoLink(NoLinkTransmitter(), AWGN())
    how = TrainSpec(steps=16, batch_size=4, lr=2e-3, optimiser="muon", ema=0.0, warmup=0.1)
    train(link, payload, task, how, folder=tmp_path)
    with torch.no_grad():
        assert task.loss(task(source), source, target) < before


def test_the_shipped_network_beats_the_baseline_on_jaws_it_never_saw() -> None:
    network = zoo.build("marformer-t")["network"]
    payload = MetalSlices(24, seed=3)
    whole, outside = [], []
    for scan in map(payload.scan, range(24)):
        with torch.no_grad():
            cleaned = network(scan.corrupted[None])[0].clamp(0, 1)
        away = scan.metal == 0
        errors = [
            (image - scan.clean).square() for image in (scan.corrupted, scan.interpolated, cleaned)
        ]
        whole.append([-10 * e.mean().log10() for e in errors])
        outside.append([-10 * e[away].mean().log10() for e in errors])
    for gains in (torch.tensor(whole), torch.tensor(outside)):
        before, baseline, after = gains.mean(dim=0)
        assert after > before + 8 and after > baseline + 3
