"""The mask of LCFSC: what it depends on, how much it masks, and that it can be learned."""

from __future__ import annotations

import pytest
import torch

from channels import CSI
from semsim import stream
from semsim.codecs.lcfsc.codec import LCFSCTransmitter
from semsim.codecs.lcfsc.fusion import CSIFusion, mask_logits, random_scores
from semsim.nn.swin import SwinBlock, WindowAttention

FACTS, WIDTH, PAIRS = 9, 32, 64 * 64


def normal(*shape: int, label: str = "normal") -> torch.Tensor:
    return torch.randn(shape, generator=stream(1, label, shape))


def fusion(**arguments: object) -> CSIFusion:
    torch.manual_seed(2)
    return CSIFusion(WIDTH, FACTS, hidden=16, **arguments)


def test_scores_follow_the_image_and_the_channel() -> None:
    score, x, facts = fusion(), normal(2, 16, 16, WIDTH), normal(2, FACTS)
    base = mask_logits(score(x, facts), torch.full((2,), 0.3))
    for changed in (score(x, facts.flip(0)), score(x.flip(0), facts)):
        assert not torch.equal(base, mask_logits(changed, torch.full((2,), 0.3)))


@pytest.mark.parametrize(("sources", "follows"), [("source", "image"), ("csi", "channel")])
def test_a_score_of_one_source_ignores_the_other(sources: str, follows: str) -> None:
    score, x, facts = fusion(sources=sources), normal(2, 16, 16, WIDTH), normal(2, FACTS)
    base = score(x, facts)
    assert torch.equal(base, score(x, facts.flip(0))) == (follows == "image")
    assert torch.equal(base, score(x.flip(0), facts)) == (follows == "channel")


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (9, 21)])
def test_scores_of_any_image_size_sum_to_one(size: tuple[int, int]) -> None:
    scores = fusion()(normal(2, *size, WIDTH), normal(2, FACTS))
    assert scores.shape == (2, 64, 64)
    torch.testing.assert_close(scores.sum(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.0073, 0.015, 0.2, 0.9])
def test_the_share_that_is_masked_is_the_ratio(ratio: float) -> None:
    scores = normal(3, PAIRS).softmax(dim=1).view(3, 64, 64)
    masked = mask_logits(scores, torch.full((3,), ratio)) < -20
    share = masked.float().mean(dim=(1, 2))
    assert (share - ratio).abs().max() <= 1 / PAIRS
    assert not masked.diagonal(dim1=1, dim2=2).any()


def test_a_ratio_of_one_leaves_every_position_itself() -> None:
    added = mask_logits(normal(1, 64, 64).softmax(dim=2), torch.ones(1))
    assert torch.equal(added == 0, torch.eye(64, dtype=torch.bool)[None])


def test_the_lowest_scores_are_the_masked_ones_and_each_item_has_its_own() -> None:
    scores = normal(2, 64, 64)
    masked = mask_logits(scores, torch.tensor([0.1, 0.4])) < -20
    apart = ~torch.eye(64, dtype=torch.bool)
    for item in range(2):
        assert scores[item][masked[item]].max() < scores[item][~masked[item] & apart].min()
    assert masked[1].sum() == pytest.approx(4 * masked[0].sum(), abs=3)


def test_masked_rows_sum_to_one_and_masked_pairs_get_no_weight() -> None:
    added = mask_logits(normal(2, 64, 64), torch.full((2,), 0.5))
    weights = (normal(2, 64, 64, label="logits") + added).softmax(dim=-1)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 64))
    # a kept logit stands at least 20.7 above; the spread of logits is below 9 with 8,192 of them
    assert weights[added < -20].max() < torch.tensor(-20.7 + 9).exp()


@pytest.mark.parametrize("shift", [0, 4])
def test_a_ratio_of_zero_is_the_plain_block_to_the_digit(shift: int) -> None:
    torch.manual_seed(3)
    block, x = SwinBlock(WIDTH, 1, 8, shift), normal(2, 16, 16, WIDTH)
    added = mask_logits(normal(2, 64, 64), torch.zeros(2))
    assert torch.equal(block(x, added), block(x, torch.zeros(2, 64, 64)))
    torch.testing.assert_close(block(x, added), block(x), rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_ratio_and_every_weight_of_the_score() -> None:
    torch.manual_seed(3)
    block, score = SwinBlock(WIDTH, 1, 8, 4), fusion()
    x, facts = normal(2, 16, 16, WIDTH), normal(2, FACTS)
    ratio = torch.full((2,), 0.01, requires_grad=True)
    block(x, mask_logits(score(x, facts), ratio)).square().mean().backward()
    assert ratio.grad is not None and (ratio.grad != 0).all() and ratio.grad.isfinite().all()
    silent = [n for n, p in score.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_scores_get_the_gradient_of_a_logit_up_to_their_standardisation() -> None:
    scores = normal(1, 64, 64).requires_grad_()
    upstream = normal(1, 64, 64, label="upstream")
    (mask_logits(scores, torch.zeros(1)) * upstream).sum().backward()
    standard = (scores - scores.mean()) / scores.square().mean().sub(scores.mean() ** 2).sqrt()
    expected = torch.autograd.grad((standard * upstream).sum(), scores)[0]
    torch.testing.assert_close(scores.grad, expected, rtol=1e-3, atol=1e-4)


def test_random_scores_belong_to_the_item_and_not_to_its_batch() -> None:
    items = normal(3, 5)
    together = random_scores(items, 64)
    assert torch.equal(together[1:2], random_scores(items[1:2], 64))
    assert not torch.equal(together[0], together[1])


def test_scores_and_token_weights_stay_apart_under_bfloat16() -> None:
    score, x, facts = fusion(), normal(2, 32, 32, WIDTH), normal(2, FACTS)
    with torch.autocast("cpu", torch.bfloat16):
        scores, weights = score(x, facts), score.tokens(x)
    assert scores.dtype == weights.dtype == torch.float32
    assert all(item.unique().numel() > 1000 for item in scores)


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="one of both, source, csi"):
        fusion(sources="channel")


def test_a_sink_takes_what_a_token_masked_from_all_would_attend_to() -> None:
    scores = torch.rand(3, 2, 16, 16, generator=stream(1, "scores"))
    scores[:, :, :8] -= 1  # the first eight rows have the lowest scores
    half = torch.full((3,), 0.5)
    masks = mask_logits(scores, half, sink=True)
    assert masks.shape == (3, 2, 16, 17)
    torch.manual_seed(1)
    attention = WindowAttention(32, 2, 4)
    tokens = torch.randn(3, 16, 32, generator=stream(1, "tokens"))
    mixed = attention(tokens, (4, 4), masks)
    nothing = attention.proj.bias.expand(3, 8, 32)
    torch.testing.assert_close(mixed[:, :8], nothing, rtol=1e-4, atol=1e-4)
    assert (mixed[:, 8:] - attention.proj.bias).abs().mean() > 0.01
    open_masks = mask_logits(scores, torch.zeros(3), sink=True)
    assert not open_masks.any()
    alone = mask_logits(scores, half)
    assert (alone[:, :, range(16), range(16)] == 0).all()  # without one, none is masked from itself
    assert (masks[:, :, range(8), range(8)] < -20).all()


def test_scores_learn_through_a_sink() -> None:
    scores = torch.rand(2, 16, 16, generator=stream(1, "scores")).requires_grad_()
    ratio = torch.full((2,), 0.5, requires_grad=True)
    attention = WindowAttention(32, 2, 4)
    tokens = torch.randn(2, 16, 32, generator=stream(1, "tokens"))
    weights = torch.randn(2, 16, 32, generator=stream(2, "weights"))
    masks = mask_logits(scores, ratio, sink=True)[:, None]
    (attention(tokens, (4, 4), masks) * weights).sum().backward()
    assert scores.grad.abs().min() > 0 and ratio.grad.abs().min() > 0


def test_a_transmitter_with_a_sink_sends_by_the_streams_alone() -> None:
    torch.manual_seed(3)
    made = {"preset": "photo", "facts": "streams", "ratio": 0.5, "per_head": True}
    codec = LCFSCTransmitter("1/16", sources="csi", sink=True, **made).eval()
    for part in codec.parameters():  # layers that start at zero would hide what masks do
        part.data += 0.05 * torch.randn(part.shape, generator=stream(2, "shake"))
    assert codec.spec["sink"]
    image = torch.rand(2, 3, 80, 72, generator=stream(1, "image"))  # grids that no window divides
    h = torch.ones(2, 2, 2, 1, dtype=torch.complex64)
    noise = torch.full((2, 1, codec.num_symbols((3, 80, 72))), 0.1)
    noise[1, :, ::2] = 10.0
    csi = CSI(h, torch.full((2,), 0.1), foreseen=lambda: CSI(None, noise))
    sent = codec(image, csi)
    torch.testing.assert_close(sent.abs().square().mean(dim=(1, 2)), torch.ones(2))
    other = codec(image, CSI(h, csi.n0, foreseen=lambda: CSI(None, noise.flip(0))))
    assert not torch.equal(sent, other)
    with pytest.raises(ValueError, match="masks cannot start_open"):
        LCFSCTransmitter("1/16", preset="photo", sink=True, start_open=True, candidates=[0, 0.5])
