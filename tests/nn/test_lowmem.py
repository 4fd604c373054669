"""Low-memory activations and norms: the same outputs, the stated gradients, the stated bytes."""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import pytest
import torch
from lowmem_blocks import Block, units
from torch import Tensor, nn

from semsim import stream
from semsim.nn.lowmem import low_memory
from semsim.nn.lowmem_layers import (
    CHUNK,
    REGELU2,
    RESILU2,
    Fit,
    MSLayerNorm,
    MSRMSNorm,
    ReGELU2,
    ReSiLU2,
    pack,
)
from semsim.nn.saved import saved_bytes

PAIRS = [(ReGELU2(), nn.GELU(), REGELU2), (ReSiLU2(), nn.SiLU(), RESILU2)]
NAMES = ["gelu", "silu"]


def values(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 4.0) -> Tensor:
    noise = torch.randn(shape, generator=stream(1, "values", shape), dtype=torch.float64)
    return (scale * noise).to(dtype)


def saved_by(work: object) -> list[Tensor]:
    """The tensors that a pass keeps, in order."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        work()
    return kept


def stand_in(x: Tensor, fit: Fit) -> Tensor:
    """The piecewise linear function itself."""
    return sum(a * torch.relu(x - c) for a, c in zip(fit.a, fit.c, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("module", "plain", "fit"), PAIRS, ids=NAMES)
def test_the_forward_pass_is_that_of_torch_bit_for_bit(
    module: nn.Module, plain: nn.Module, fit: Fit, dtype: torch.dtype
) -> None:
    x = values(3, 337, dtype=dtype).requires_grad_()
    assert torch.equal(module(x), plain(x))
    assert torch.equal(module(x.detach()), plain(x))


def test_gelu_by_tanh_stays_gelu_by_tanh() -> None:
    x = values(100).requires_grad_()
    assert torch.equal(ReGELU2(tanh=True)(x), nn.GELU(approximate="tanh")(x))


@pytest.mark.parametrize(("module", "plain", "fit"), PAIRS, ids=NAMES)
def test_the_gradient_is_that_of_the_stand_in(
    module: nn.Module, plain: nn.Module, fit: Fit
) -> None:
    x = values(2, 5, 101, dtype=torch.float64, scale=6.0).requires_grad_()
    upstream = values(2, 5, 101, dtype=torch.float64)
    (ours,) = torch.autograd.grad(module(x), x, upstream)
    (theirs,) = torch.autograd.grad(stand_in(x, fit), x, upstream)
    # the last slope is 1 here and the sum of all a there, which is 1 to 1e-12
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=0)
    code = sum((x > c).long() for c in fit.c)
    assert torch.equal(ours, upstream * torch.tensor(fit.slopes, dtype=torch.float64)[code])


@pytest.mark.parametrize(("module", "plain", "fit"), PAIRS, ids=NAMES)
def test_the_gradient_is_not_that_of_the_activation(
    module: nn.Module, plain: nn.Module, fit: Fit
) -> None:
    x = values(20, dtype=torch.float64, scale=1.0).requires_grad_()
    assert not torch.autograd.gradcheck(module, (x,), raise_exception=False)
    assert torch.autograd.gradcheck(lambda x: stand_in(x, fit), (x,))


@pytest.mark.parametrize(
    ("module", "slopes"),
    [(ReGELU2(), [0, -0.0492, 1.0487, 1]), (ReSiLU2(), [-0.0406, -0.0406, 1.0403, 1.0403])],
    ids=NAMES,
)
def test_slopes_are_the_published_ones(module: nn.Module, slopes: list[float]) -> None:
    x = torch.tensor([-4.0, -1.0, 1.0, 4.0], requires_grad=True)
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor(slopes), rtol=0, atol=5e-5)


def test_low_precision_gradients_are_rounded_once() -> None:
    x, upstream = values(1000, dtype=torch.bfloat16).requires_grad_(), values(1000, scale=1.0)
    (ours,) = torch.autograd.grad(ReGELU2()(x), x, upstream.bfloat16())
    (wide,) = torch.autograd.grad(ReGELU2()(w := x.float()), w, upstream.bfloat16().float())
    assert torch.equal(ours, wide.bfloat16())


@pytest.mark.parametrize(
    ("plain", "fit", "distance"),
    [(nn.GELU(), REGELU2, 0.009509), (nn.SiLU(), RESILU2, 0.039944)],
    ids=NAMES,
)
def test_the_stand_in_is_as_close_as_published(plain: nn.Module, fit: Fit, distance: float) -> None:
    assert sum(fit.a) == pytest.approx(1, abs=1e-12)
    assert sum(a * c for a, c in zip(fit.a, fit.c, strict=True)) == pytest.approx(0, abs=1e-12)
    x = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    square = (plain(x) - stand_in(x, fit)).square()
    assert torch.trapezoid(square, x).item() == pytest.approx(distance, abs=1e-6)


def test_ties_and_nan_fall_to_the_lower_code() -> None:
    c = [torch.tensor(v, dtype=torch.float64) for v in REGELU2.c]
    x = torch.stack([c[0], c[1], c[2], torch.tensor(math.nan, dtype=torch.float64)])
    assert pack(x, REGELU2).tolist() == [0 | 1 << 2 | 2 << 4 | 0 << 6]


@pytest.mark.parametrize("count", [0, 1, 4, 1001, CHUNK + 3])
def test_element_i_lies_in_byte_i_over_4(count: int) -> None:
    x = values(count)
    codes = sum((x > c).int() for c in REGELU2.c)
    packed = pack(x, REGELU2)
    assert packed.dtype == torch.uint8
    assert len(packed) == math.ceil(count / 4)
    unpacked = packed[:, None].int() >> torch.tensor([0, 2, 4, 6]) & 3
    assert torch.equal(unpacked.flatten()[:count], codes.int())
    assert not unpacked.flatten()[count:].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_layout_in_memory_gets_the_same_gradient(memory_format: torch.memory_format) -> None:
    x = values(2, 3, 5, 7).contiguous(memory_format=memory_format).requires_grad_()
    (got,) = torch.autograd.grad(ReGELU2()(x).sum(), x)
    code = sum((x > c).long() for c in REGELU2.c)
    assert torch.equal(got, torch.tensor(REGELU2.slopes)[code])


@pytest.mark.parametrize(("module", "plain", "fit"), PAIRS, ids=NAMES)
def test_one_byte_is_kept_for_four_elements(module: nn.Module, plain: nn.Module, fit: Fit) -> None:
    x = values(1001).requires_grad_()
    (kept,) = saved_by(lambda: module(x))
    assert (kept.dtype, kept.numel()) == (torch.uint8, 251)
    assert sum(t.nbytes for t in saved_by(lambda: plain(x))) == 4004
    for dtype, factor in ((torch.float32, 16), (torch.bfloat16, 8), (torch.float16, 8)):
        x = values(1024, dtype=dtype).requires_grad_()
        assert factor * saved_bytes(lambda x=x: module(x), module) == x.nbytes


def test_the_gradient_cannot_be_taken_twice() -> None:
    x = values(8).requires_grad_()
    (once,) = torch.autograd.grad(ReGELU2()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


def layer_norm(x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)


def rms_norm(x: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, x.shape[-1:], eps=1e-5)


@pytest.mark.parametrize(
    ("kind", "plain"), [(MSLayerNorm, layer_norm), (MSRMSNorm, rms_norm)], ids=["layer", "rms"]
)
def test_norms_have_outputs_and_gradients_of_torch(kind: type[MSLayerNorm], plain: object) -> None:
    x = values(3, 5, 48, dtype=torch.float64, scale=0.1).requires_grad_()  # so that eps matters
    upstream = values(3, 5, 48, dtype=torch.float64)
    module = kind(48)
    assert list(module.parameters()) == []
    assert list(module.state_dict()) == []
    torch.testing.assert_close(module(x), plain(x), rtol=0, atol=1e-10)
    (ours,) = torch.autograd.grad(module(x), x, upstream)
    (theirs,) = torch.autograd.grad(plain(x), x, upstream)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(module, (x,))


def test_a_shift_is_trained_and_taken_off_again_in_the_backward_pass() -> None:
    module = MSLayerNorm(16, shift=True).double()
    nn.init.normal_(module.shift, generator=stream(3, "shift"))
    x = values(6, 16, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, _: module(x), (x, module.shift))


def test_a_norm_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"this norm takes \[\.\.\., 8\], got \[2, 9\]"):
        MSLayerNorm(8)(torch.zeros(2, 9))


@pytest.mark.parametrize("kind", [MSLayerNorm, MSRMSNorm])
@pytest.mark.parametrize("autocast", [False, True])
def test_norm_and_dense_layer_keep_one_tensor_between_them(
    kind: type[MSLayerNorm], autocast: bool
) -> None:
    norm, dense = kind(32), nn.Linear(32, 8)
    x = values(7, 32).requires_grad_()

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            dense(norm(x))

    of_input = [t for t in saved_by(work) if t.shape == x.shape]
    assert len(of_input) == 2
    assert len({t.untyped_storage().data_ptr() for t in of_input}) == 1
    assert of_input[0].dtype == (torch.bfloat16 if autocast else torch.float32)


class NaiveNorm(nn.Module):
    """Keeps its output, but hands out fp32 under autocast: the trap."""

    def __init__(self, norm: MSLayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.norm(x)


@pytest.mark.parametrize(
    ("dtype", "autocast", "frozen", "stated"),
    [
        (torch.float32, False, False, (16.04, 12.29, 14.03, 10.28)),
        (torch.bfloat16, False, False, (16.05, 12.55, 14.05, 10.55)),
        (torch.float32, False, True, (10.04, 6.29, 10.03, 6.28)),
        (torch.float32, True, False, (20.07, 16.57, None, 10.55)),
    ],
    ids=["fp32", "bf16", "frozen", "autocast"],
)
def test_a_block_keeps_what_the_acceptance_table_states(
    dtype: torch.dtype, autocast: bool, frozen: bool, stated: tuple[float | None, ...]
) -> None:
    choices = [(False, False), (True, False), (False, True), (True, True)]
    for (act, norm), expected in zip(choices, stated, strict=True):
        block = Block().to(dtype)
        low_memory(block, act=act, norm=norm)
        block.requires_grad_(not frozen)
        if expected is not None:
            assert units(block, dtype, autocast) == pytest.approx(expected, rel=0.005)


def test_under_autocast_a_norm_that_hands_out_fp32_saves_nothing() -> None:
    block = Block()
    low_memory(block, act=False)
    block.norm1, block.norm2 = NaiveNorm(block.norm1), NaiveNorm(block.norm2)
    assert units(block, autocast=True) == pytest.approx(20.05, rel=0.005)


def test_fine_tuning_is_known_by_steps_and_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import lowmem

    made = []

    def tune(weights: str, memory: str, seed: int, steps: int, *_: object) -> list[dict]:
        made.append((memory, seed))
        row = {"memory": memory, "seed": seed, "steps": steps, "weights": lowmem.named(weights)}
        return [{**row, "snr_db": snr, "psnr_db": 1.0 + seed} for snr in lowmem.SNRS]

    monkeypatch.setattr(lowmem, "tune", tune)
    monkeypatch.setattr(lowmem, "cifar", lambda data: (None, None))
    monkeypatch.setattr(lowmem, "named", lambda weights: "swin-cifar-1-6 f0b9fc11")
    shutil.copy(lowmem.RESULTS / "lowmem_psnr.csv", tmp_path)
    monkeypatch.setattr(lowmem, "RESULTS", tmp_path)
    asked = argparse.Namespace(data=None, weights="swin-cifar-1-6", steps=60)
    published = lowmem.psnr_rows(asked, None)
    assert not made and published[1]["before"] == pytest.approx(28.35, abs=0.01)
    asked.steps = 300
    assert lowmem.psnr_rows(asked, None)[0]["normal"] == 2.0  # the mean of 1, 2 and 3
    assert len(made) == 7
    asked.steps = 60
    assert lowmem.psnr_rows(asked, None) == published
    monkeypatch.setattr(lowmem, "named", lambda weights: "swin-cifar-1-6 00000000")
    lowmem.psnr_rows(asked, None)
    assert len(made) == 14
