"""WirelessGPT: sizes, patches, what hidden patches can and cannot tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from semsim.csi import WirelessGPT
from semsim.csi.blocks import Block, in_steps
from semsim.csi.model import PRESETS
from semsim.csi.patches import grid_of, hide, patchify, unpatchify
from semsim.nn.lowmem import low_memory
from semsim.seeds import stream

SHAPES = [(8, 4, 8), (5, 3, 7), (1, 1, 1), (9, 2, 4)]
KINDS = {
    "bert": {},
    "mae": {"mode": "mae"},
    "factorised": {"attention": "factorised"},
    "causal": {"time_causal": True},
    "causal mae": {"time_causal": True, "mode": "mae"},
    "causal factorised": {"time_causal": True, "attention": "factorised"},
    "whole": {"whole": True},
    "causal whole": {"whole": True, "time_causal": True},
}


def drawn(shape: tuple[int, ...], batch: int = 2, label: str = "h") -> Tensor:
    return torch.randn(batch, *shape, dtype=torch.complex64, generator=stream(1, label))


def model(**options: object) -> WirelessGPT:
    torch.manual_seed(0)
    return WirelessGPT(12, 2, 2, **{"patch": (2, 2, 2), **options}).eval()


def parameters(net: WirelessGPT) -> int:
    return sum(p.numel() for p in net.parameters())


def test_base80_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = WirelessGPT.preset("base80")
    assert abs(parameters(net) / 79.6e6 - 1) < 0.05


@pytest.mark.parametrize("name", PRESETS)
def test_a_size_grows_as_its_blocks_do(name: str) -> None:
    with torch.device("meta"):
        net = WirelessGPT.preset(name)
    width, layers = PRESETS[name]["width"], PRESETS[name]["layers"]
    outside = 2 * 128 * width + 128 + 4 * width  # in, out, the last norm and the hidden token
    assert parameters(net) == layers * (12 * width**2 + 13 * width) + outside


@pytest.mark.parametrize("shape", SHAPES)
def test_patches_hold_all_of_a_channel(shape: tuple[int, int, int]) -> None:
    h, patch = drawn(shape), (4, 2, 4)
    patches = patchify(h, patch)
    assert patches.shape == (2, grid_of(shape, patch).total, 64)
    assert torch.equal(unpatchify(patches, shape, patch), h)


def test_tokens_count_time_first_then_space_then_frequency() -> None:
    h = torch.zeros(1, 4, 4, 6, dtype=torch.complex64)
    h[0, 2, 1, 5] = 1 + 2j
    patches = patchify(h, (2, 2, 2))
    assert patches[0].any(dim=1).nonzero().flatten().tolist() == [1 * 6 + 0 * 3 + 2]


@pytest.mark.parametrize("kind", ["random", "time", "frequency", "space", None])
def test_as_many_patches_are_hidden_in_each_item(kind: str | None) -> None:
    for label in range(5):
        hidden = hide(grid_of((8, 8, 8), (2, 2, 2)), 7, stream(label, "mask"), kind=kind)
        assert len(set(hidden.sum(dim=1).tolist())) == 1
        assert 0 < hidden.float().mean() < 1
    if kind == "time":
        slots = hidden.view(7, 4, 16)
        assert (slots.all(dim=2) == slots.any(dim=2)).all()
        assert not slots[:, 0].any() and slots[:, -1].all()


def test_a_single_patch_along_an_axis_is_not_hidden_whole() -> None:
    hidden = hide(grid_of((2, 8, 8), (2, 2, 2)), 3, stream(1, "mask"), kind="time")
    assert 0 < hidden.float().mean() < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 3, 7), (4, 2, 2)])
def test_any_channel_goes_through_any_kind(kind: str, shape: tuple[int, int, int]) -> None:
    net, h = model(**KINDS[kind]), drawn(shape)
    hidden = hide(net.grid(h), 2, stream(1, "mask"), kind="random")
    told = net(h, hidden)
    assert told.shape == h.shape
    assert told.dtype == torch.complex64
    z = net.encode(h)
    assert z.z.shape == (2, net.grid(h).total, 12)
    assert z.whole.shape == (2, 12)
    torch.testing.assert_close(net(h[:1], hidden[:1]), told[:1], rtol=1e-4, atol=1e-5)
    for name, parameter in net.named_parameters():
        assert parameter.grad is None, name
    (told - h).abs().square().sum().backward()
    unused = {"whole_token"} if "causal" in kind else set()  # nobody may see it
    dead = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert dead <= unused


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_leaks_out_of_a_hidden_patch(kind: str) -> None:
    net, h = model(**KINDS[kind]), drawn((6, 4, 6))
    hidden = hide(net.grid(h), 2, stream(1, "mask"), kind="random", share=0.4)
    other = patchify(drawn((6, 4, 6), label="other"), net.patch)
    changed = torch.where(hidden[..., None], 9 * other, patchify(h, net.patch))
    with torch.no_grad():
        torch.testing.assert_close(
            net(unpatchify(changed, (6, 4, 6), net.patch), hidden), net(h, hidden)
        )


@pytest.mark.parametrize("kind", ["causal", "causal mae", "causal factorised", "causal whole"])
def test_a_causal_model_does_not_see_ahead(kind: str) -> None:
    net, h = model(**KINDS[kind]), drawn((6, 4, 6))
    later = h.clone()
    later[:, 4:] += drawn((2, 4, 6), label="other")
    with torch.no_grad():
        told, again = net(h), net(later)
    torch.testing.assert_close(told[:, :4], again[:, :4])
    assert not torch.allclose(told[:, 4:], again[:, 4:])


def test_an_ordinary_model_sees_ahead() -> None:
    net, h = model(), drawn((6, 4, 6))
    later = h.clone()
    later[:, 4:] += drawn((2, 4, 6), label="other")
    assert not torch.allclose(net(h)[:, :4], net(later)[:, :4])


@pytest.mark.parametrize("kind", ["bert", "factorised", "causal", "whole", "causal whole"])
def test_what_is_not_known_changes_nothing(kind: str) -> None:
    net, h = model(**KINDS[kind]), drawn((4, 4, 4))
    valid = torch.ones(h.shape, dtype=torch.bool)
    valid[:, :, :, 2:] = False
    other = torch.where(valid, h, drawn((4, 4, 4), label="other"))
    with torch.no_grad():
        torch.testing.assert_close(net(h, valid=valid), net(other, valid=valid))
        narrow = net(h[..., :2])
        torch.testing.assert_close(net(h, valid=valid)[..., :2], narrow, rtol=1e-4, atol=1e-5)
        if net.whole_token is not None:
            whole, alone = net.encode(h, valid=valid).whole, net.encode(h[..., :2]).whole
            torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


def holed() -> tuple[Tensor, Tensor]:
    """Return a channel with NaN and infinity in it, and where it is known."""
    valid = torch.ones(2, 4, 4, 4, dtype=torch.bool)
    valid[:, :, :, 2:], valid[0, 1, 2, 0] = False, False
    h = drawn((4, 4, 4)).masked_fill(~valid, torch.nan)
    return h.index_fill(3, torch.tensor(3), torch.inf), valid


def test_nan_where_nothing_is_known_reaches_nothing() -> None:
    net, (h, valid) = model(), holed()
    told = net(h, valid=valid)
    assert torch.equal(told, net(torch.where(valid, h, 0), valid=valid))
    told.abs().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_a_channel_s_scale_is_kept_apart() -> None:
    net, h = model(), drawn((4, 4, 4))
    one, loud = net.encode(h), net.encode(1e-5 * h)
    torch.testing.assert_close(one.z, loud.z, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(loud.log_gain, one.log_gain - 5, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(1e-5 * h), 1e-5 * net(h), rtol=1e-3, atol=1e-9)


def test_time_can_go_without_a_code() -> None:
    h = drawn((2, 2, 2)).repeat(1, 3, 1, 1)
    z = model(temporal_pe=False).encode(h).z
    torch.testing.assert_close(z[:, 0], z[:, 2], rtol=1e-4, atol=1e-5)
    coded = model().encode(h).z
    assert not torch.allclose(coded[:, 0], coded[:, 2], atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_steps_is_attention(masked: bool) -> None:
    q, k, v = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64, generator=stream(1, "qkv"))
    mask = torch.ones(5, 5, dtype=torch.bool).tril() if masked else None
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(in_steps(q, k, v, attn_mask=mask), expected)


def test_slots_to_come_are_hidden_in_whole_patches() -> None:
    net, h = model(), drawn((6, 2, 4))
    assert net.hidden_slots(h, 2).view(2, 3, 2).sum(dim=2).tolist() == [[0, 0, 2]] * 2
    assert net.hidden_slots(h, 3).view(2, 3, 2).sum(dim=2).tolist() == [[0, 2, 2]] * 2
    with pytest.raises(ValueError, match="got 6; write 1 to 4"):
        net.hidden_slots(h, 6)


def test_training_with_little_memory_gives_the_same_channel() -> None:
    net, h = model(), drawn((4, 4, 4))
    expected = net(h)
    report = low_memory(net)
    assert len(report.converted) == 2 * 3  # two norms and a GELU in each block
    assert list(report.kept) == ["norm"]
    torch.testing.assert_close(net(h), expected, rtol=1e-4, atol=1e-5)


def test_a_hash_tells_weights_apart() -> None:
    net = model()
    assert net.hash() == model().hash()
    with torch.no_grad():
        net.enter.bias[0] += 1
    assert net.hash() != model().hash()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: WirelessGPT.preset("smal"), "no size of WirelessGPT is called 'smal'"),
        (lambda: model(patch=(0, 1, 1)), "patch is three numbers"),
        (lambda: WirelessGPT(10, 1, 3), "heads divides width, got 3 and 10"),
        (lambda: model(mode="mae", attention="factorised"), "factorised needs every token"),
        (lambda: model()(torch.zeros(1, 2, 3)), r"complex h \[B, T, S, F\]"),
        (lambda: model()(drawn((2, 2))), "add the axis with h.unsqueeze"),
        (lambda: model()(drawn((2, 2, 2)) * torch.nan), "NaN or infinity"),
        (lambda: model()(drawn((2, 2, 2)) * 0), "zero throughout"),
        (lambda: model()(*holed()[:1], valid=~holed()[1]), "NaN or infinity"),
        (lambda: model()(drawn((2, 2, 2)), torch.ones(2, 3, dtype=torch.bool)), r"bool \[2, 1\]"),
    ],
)
def test_what_fits_is_said(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_attention_across_is_attention_of_what_is_turned() -> None:
    torch.manual_seed(0)
    block = Block(8, 2).double()
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    turned = block(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(block(x, across=True), turned)
    allowed = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
    late = x.clone()
    late[:, 2] = 0
    told = (block(part, allowed, across=True)[:, :2] for part in (x, late))
    torch.testing.assert_close(*told)
