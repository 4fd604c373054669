"""Swin parts: windows against a pair-by-pair reference, any grid, ModNet, published sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from semsim import stream
from semsim.nn.snr import ModNet
from semsim.nn.swin import PatchMerging, PatchSplitting, SwinBlock, attend
from semsim.nn.swin_codec import SwinDecoder, SwinEncoder, SwinSizes
from semsim.nn.windows import window_layout

HR = (128, 192, 256, 320)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(1, "tokens", shape))


def fresh_block(window: int, shift: int) -> SwinBlock:
    torch.manual_seed(2)
    block = SwinBlock(8, 2, window, shift)
    nn.init.normal_(block.attention.bias)
    return block


def pair_by_pair(block: SwinBlock, x: Tensor) -> Tensor:
    """A Swin block written from its definition: every token asks every other whether they meet."""
    height, width = x.shape[1:3]
    window, heads = block.window, block.attention.heads
    tall, wide = min(window, height), min(window, width)
    padded = math.ceil(height / tall) * tall, math.ceil(width / wide) * wide
    shift = block.shift if tall < height else 0, block.shift if wide < width else 0

    def place(i: int, j: int) -> tuple[tuple, tuple]:
        row, column = (i - shift[0]) % padded[0], (j - shift[1]) % padded[1]
        where = row // tall, column // wide, i < shift[0], j < shift[1]
        return where, (row % tall, column % wide)

    q, k, v = block.attention.qkv(block.norm1(x)).view(*x.shape[:3], 3, heads, -1).unbind(3)
    mixed = torch.zeros_like(q)
    tokens = [(i, j) for i in range(height) for j in range(width)]
    for i, j in tokens:
        where, inside = place(i, j)
        seen = [t for t in tokens if place(*t)[0] == where]
        for head in range(heads):
            logits = []
            for p, r in seen:
                down, across = (a - b for a, b in zip(inside, place(p, r)[1], strict=True))
                row = (down + window - 1) * (2 * window - 1) + across + window - 1
                score = (q[:, i, j, head] * k[:, p, r, head]).sum(dim=-1)
                logits.append(score / q.shape[-1] ** 0.5 + block.attention.bias[row, head])
            weight = torch.stack(logits, dim=-1).softmax(dim=-1)[..., None]
            values = torch.stack([v[:, p, r, head] for p, r in seen], dim=1)
            mixed[:, i, j, head] = (weight * values).sum(dim=1)
    x = x + block.attention.proj(mixed.flatten(3))
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"),
    [(8, 8, 4, 2), (8, 8, 8, 4), (6, 9, 4, 2), (3, 10, 4, 2), (5, 7, 4, 0), (1, 5, 2, 1)],
)
def test_a_block_equals_its_definition_on_any_grid(
    height: int, width: int, window: int, shift: int
) -> None:
    block, x = fresh_block(window, shift).double(), draw(2, height, width, 8).double()
    expected = pair_by_pair(block, x)
    torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-6, atol=1e-6)


def test_windows_come_back_where_they_were() -> None:
    layout, x = window_layout(7, 10, 4, 2), draw(2, 7, 10, 3)
    assert torch.equal(layout.join(layout.split(x)), x)


def test_the_fused_kernel_and_the_training_path_agree() -> None:
    q, k, v = draw(3, 6, 2, 9, 4).unbind(0)
    logits = draw(1, 2, 9, 9).requires_grad_()
    with torch.no_grad():
        fused = attend(q, k, v, logits)
    torch.testing.assert_close(attend(q, k, v, logits), fused, rtol=1e-5, atol=1e-5)


def test_extra_logits_belong_to_their_item_and_can_mask() -> None:
    block, x = fresh_block(4, 2), draw(2, 8, 8, 8)
    extra = torch.zeros(2, 16, 16)
    with torch.no_grad():
        plain = block(x)
        torch.testing.assert_close(block(x, extra), plain, rtol=0, atol=1e-6)
        extra[1] = torch.full((16, 16), -math.inf).fill_diagonal_(0)  # each token sees itself
        own = block(x, extra)
    torch.testing.assert_close(own[0], plain[0], rtol=0, atol=1e-6)
    assert (own[1] - plain[1]).abs().max() > 1e-3


def test_gradients_reach_the_bias_and_extra_logits() -> None:
    block, x = fresh_block(4, 2), draw(2, 8, 8, 8)
    extra = torch.zeros(2, 16, 16, requires_grad=True)
    block(x, extra).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in block.parameters())
    assert extra.grad is not None and extra.grad.flatten(1).any(dim=1).all()


def test_training_works_after_a_first_look_in_inference_mode() -> None:
    block, x = fresh_block(5, 2), draw(1, 10, 10, 8)  # a grid that no other test has seen
    with torch.inference_mode():
        block(x)
    block(x).sum().backward()


def test_merging_and_splitting_change_the_scale() -> None:
    x = draw(2, 4, 6, 8)
    merged = PatchMerging(8, 12)(x)
    assert merged.shape == (2, 2, 3, 12)
    assert PatchSplitting(12, 8)(merged).shape == x.shape


def test_a_merged_token_depends_on_its_own_four_alone() -> None:
    merge, x = PatchMerging(8, 12), draw(1, 4, 6, 8)
    changed = x.clone()
    changed[0, 2:4, 4:6] += 1.0 * draw(2, 2, 8)
    moved = (merge(changed) - merge(x)).abs().sum(dim=-1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 2]]


def test_a_modnet_gates_by_the_number() -> None:
    torch.manual_seed(3)
    net, x = ModNet(8, 12, 7), draw(2, 4, 4, 8)
    low, high = (net.gate(x, torch.full((2,), snr)) for snr in (0.0, 20.0))
    assert ((low > 0) & (low < 1)).all()
    assert (low - high).abs().max() > 1e-5


def test_a_modnet_passes_gradcheck() -> None:
    torch.manual_seed(3)
    net, number = ModNet(4, 6, 3).double(), torch.tensor([0.0, 20.0])
    x = draw(2, 2, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, number), (x,))


@pytest.mark.parametrize(
    ("sizes", "millions", "modnet"),
    [
        (SwinSizes(2, (128, 256), (2, 4), (2, 4), 2), 7.4, 3.16),
        (SwinSizes(2, HR, (2, 2, 2, 2), (2, 2, 2, 2), 8), 12.0, 4.93),
        (SwinSizes(2, HR, (2, 2, 6, 2), (2, 2, 6, 2), 8), 18.3, 4.93),
        (SwinSizes(2, HR, (2, 2, 18, 2), (2, 2, 18, 2), 8), 37.3, 4.93),
    ],
)
def test_the_published_sizes_have_the_published_parameters(
    sizes: SwinSizes, millions: float, modnet: float
) -> None:
    with torch.device("meta"):
        ends = [end(96, sizes, snr_unit=None) for end in (SwinEncoder, SwinDecoder)]
        gate = sizes.mod_net(1.0)
    both = sum(p.numel() for end in ends for p in end.parameters())
    assert abs(both / 1e6 - millions) < 0.05
    assert abs(sum(p.numel() for p in gate.parameters()) / 1e6 - modnet) < 0.005


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"widths": (48,)}, "multiples of 32"),
        ({"depths": (2, 2)}, "one number per scale"),
        ({"depths": (0,)}, "at least 1 block"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_impossible_sizes_are_told(arguments: dict, said: str) -> None:
    sizes = {"patch": 4, "widths": (32,), "depths": (1,), "decoder_depths": (1,), "window": 4}
    with pytest.raises(ValueError, match=said):
        SwinSizes(**{**sizes, **arguments})
