"""The converter: it changes no output, refuses what it cannot know, and comes back."""

from __future__ import annotations

import copy

import pytest
import torch
from lowmem_blocks import Block, trained_like, units
from torch import Tensor, nn

from channels import CSI
from semsim import stream
from semsim.codecs.deepjscc import DeepJSCCTransmitter
from semsim.codecs.swin_jscc import SwinReceiver, SwinTransmitter
from semsim.nn.lowmem import low_memory, restore
from semsim.nn.lowmem_layers import MSLayerNorm, MSRMSNorm, ReGELU2, ReSiLU2


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=stream(1, "tokens", shape))


def kinds(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_conversion_changes_no_output_of_a_trained_block(norm: type[nn.Module]) -> None:
    block, x = trained_like(Block(norm=norm)), tokens(2, 10, 192)
    before = block(x)
    report = low_memory(block)
    assert not kinds(block) & {norm, nn.GELU}
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-5)
    assert report.converted.keys() == {"norm1", "norm2", "mlp.1"}
    assert "merged into q, k, v" in report.converted["norm1"]


def test_every_convnext_block_is_converted() -> None:
    codec = trained_like(DeepJSCCTransmitter("1/6", width=16, depth=2, block="convnext"))
    image, csi = torch.rand(2, 3, 16, 16, generator=stream(1, "image")), CSI(None, torch.ones(2))
    before = codec(image, csi)
    report = low_memory(codec)
    blocks = [f"encoder.stages.0.blocks.{i}" for i in range(2)]
    assert {*report.converted} == {f"{b}.{part}" for b in blocks for part in ("norm", "bend")}
    torch.testing.assert_close(codec(image, csi), before, rtol=0, atol=1e-5)


def test_scale_and_offset_are_merged_in_fp64() -> None:
    model = trained_like(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4)))
    norm, dense = copy.deepcopy(model)
    low_memory(model)
    weight = dense.weight.double() * norm.weight.double()
    offset = dense.bias.double() + dense.weight.double() @ norm.bias.double()
    assert torch.equal(model[1].weight, weight.float())
    assert torch.equal(model[1].bias, offset.float())


def test_a_second_conversion_finds_nothing_to_do() -> None:
    block = trained_like(Block())
    low_memory(block)
    state = copy.deepcopy(block.state_dict())
    again = low_memory(block)
    assert again.converted == again.kept == {}
    assert "nothing to gain" in str(again)
    assert all(torch.equal(value, state[key]) for key, value in block.state_dict().items())


def test_converted_networks_go_through_a_state_dict() -> None:
    first, second = trained_like(Block(), seed=1), trained_like(Block(), seed=2)
    low_memory(first), low_memory(second)
    second.load_state_dict(first.state_dict())
    x = tokens(2, 5, 192)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_restored_networks_have_their_old_layout_and_the_same_outputs(
    norm: type[nn.Module],
) -> None:
    block, x = trained_like(Block(norm=norm)).eval(), tokens(2, 10, 192)
    old, modules = copy.deepcopy(block.state_dict()), kinds(block)
    low_memory(block)
    middle = block(x)
    restore(block)
    assert kinds(block) == modules
    torch.testing.assert_close(block(x), middle, rtol=0, atol=1e-5)
    state = block.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in old.items()}
    assert torch.equal(state["norm1.weight"], torch.ones(192))
    assert block.norm1.eps == 1e-6
    assert not block.norm1.training
    assert all(p.requires_grad for p in block.parameters())


def test_a_dense_layer_without_bias_leaves_the_offset_before_it() -> None:
    model = trained_like(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4, bias=False)))
    x = tokens(3, 8)
    before, keys = model(x), model.state_dict().keys()
    low_memory(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert isinstance(model[0].shift, nn.Parameter)
    model(x).sum().backward()
    assert model[0].shift.grad.abs().sum() > 0
    restore(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    assert model.state_dict().keys() == keys


def test_an_offset_without_scale_cannot_go_before_a_layer_without_bias() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4, bias=False))
    nn.init.ones_(model[0].bias)
    with torch.no_grad():
        model[0].weight[3] = 0.0
    assert "too large beside its scale" in low_memory(model).kept["0"]
    with torch.no_grad():
        model[0].bias[3] = 0.0  # neither scale nor offset: that channel is silent
    before = model(x := tokens(2, 8))
    assert "0" in low_memory(model).converted
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)


class Bare(nn.Module):
    """A norm whose output the residual needs too; nobody declares anything."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dense = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return y + self.dense(y)


def test_a_norm_with_unknown_consumers_is_kept() -> None:
    model, x = trained_like(Bare()), tokens(2, 8)
    before = model(x)
    report = low_memory(model)
    assert report.kept == {"norm": "nothing says that only dense layers take it"}
    assert torch.equal(model(x), before)
    assert "kept norm: nothing says" in str(report)


def test_a_forward_of_its_own_voids_what_the_parent_declared() -> None:
    class Other(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.norm1(x)

    report = low_memory(Other())
    assert "older than its class's own forward" in report.kept["norm1"]
    assert isinstance(Other().norm1, nn.LayerNorm)


def test_a_declaration_of_a_module_that_is_not_there_is_refused() -> None:
    class Wrong(Bare):
        low_memory_norms = {"norm": ("mlp.0",)}  # noqa: RUF012
        forward = Bare.forward

    with pytest.raises(ValueError, match=r"Wrong\.low_memory_norms names 'mlp\.0'"):
        low_memory(Wrong())


def tied(model: nn.Sequential) -> nn.Module:
    model.append(nn.Linear(8, 8))
    model[2].weight = model[1].weight
    return model


def used_twice(model: nn.Sequential) -> nn.Module:
    return model.append(model[1])


def norm_used_twice(model: nn.Sequential) -> nn.Module:
    return model.append(model[0])


def normed_weight(model: nn.Sequential) -> nn.Module:
    torch.nn.utils.parametrizations.weight_norm(model[1])
    return model


def frozen(model: nn.Sequential) -> nn.Module:
    model[1].requires_grad_(False)
    return model


def hooked(model: nn.Sequential) -> nn.Module:
    model[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (tied, "its weights are used elsewhere"),
        (used_twice, "used elsewhere"),
        (norm_used_twice, "used in several places"),
        (normed_weight, "nothing says"),
        (frozen, "nothing to gain: 1 is frozen"),
        (hooked, "it has hooks"),
    ],
)
def test_a_norm_is_kept_where_merging_is_wrong_or_useless(change: object, why: str) -> None:
    model = change(trained_like(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))))
    before = model(x := tokens(2, 8))
    report = low_memory(model)
    assert why in report.kept["0"]
    assert torch.equal(model(x), before)


def test_convolutions_and_dropout_end_what_is_known() -> None:
    model = nn.Sequential(
        nn.LayerNorm(8), nn.Dropout(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Conv1d(4, 4, 1)
    )
    assert low_memory(model).kept.keys() == {"0", "3"}


def test_a_frozen_block_gains_by_its_activation_alone() -> None:
    block = Block().requires_grad_(False)
    report = low_memory(block)
    assert report.converted == {"mlp.1": "ReGELU2"}
    assert all("nothing to gain" in why for why in report.kept.values())
    assert units(block) == pytest.approx(6.29, rel=0.005)


def test_a_frozen_norm_and_a_watched_layer_stay_as_they_are() -> None:
    frozen, watched = (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(2))
    frozen[0].requires_grad_(False)
    watched[1].register_forward_pre_hook(lambda *_: None)
    assert "frozen" in low_memory(frozen).kept["0"]
    assert "another input" in low_memory(watched).kept["0"]


def test_activations_that_stand_in_two_places_stay_one() -> None:
    act = nn.SiLU()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.SiLU(inplace=True))
    report = low_memory(model)
    assert type(model[1]) is ReSiLU2
    assert model[1] is model[3]
    assert report.kept == {"4": "it overwrites its input"}
    restore(model)
    assert type(model[3]) is nn.SiLU
    assert "whole network" in low_memory(nn.GELU()).kept[""]


def test_convolutional_codecs_have_nothing_to_gain_and_hear_so() -> None:
    for preset in ("residual", "bourtsoulatze2019"):
        report = low_memory(DeepJSCCTransmitter("1/6", preset=preset))
        assert "nothing to gain" in str(report)


@pytest.mark.parametrize(
    "sizes",
    [
        {"preset": "tiny", "widths": (32,), "depths": (2,), "decoder_depths": (2,), "window": 4},
        {"preset": "cifar", "widths": (32, 64), "depths": (1, 2), "decoder_depths": (1, 2)},
        {"preset": "cifar", "widths": (32, 64), "depths": (2, 2), "decoder_depths": (2, 2),
         "window": 3},
    ],
)  # fmt: skip
@pytest.mark.parametrize("image", [(32, 32), (20, 28)])  # windows do not divide the second
def test_the_swin_codec_converts_and_comes_back(sizes: dict, image: tuple[int, int]) -> None:
    torch.manual_seed(2)
    codec = nn.ModuleList([SwinTransmitter("1/12", **sizes), SwinReceiver("1/12", **sizes)])
    trained_like(codec)
    pictures = torch.rand(2, 3, *image, generator=stream(3, "pictures"))
    csi = CSI(None, torch.full((2,), 0.1))

    def both() -> tuple[Tensor, Tensor]:
        x = codec[0](pictures, csi)
        return x, codec[1](x, csi, (3, *image))

    before, keys = both(), codec.state_dict().keys()
    report = low_memory(codec)
    # all norms but the encoder's last, whose tokens the ModNet multiplies
    assert report.kept.keys() == {"0.encoder.norm"}
    assert {MSLayerNorm, ReGELU2} <= kinds(codec)
    for one, other in zip(both(), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    restore(codec)
    assert codec.state_dict().keys() == keys
    for one, other in zip(both(), before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_rms_norms_become_ms_rms_norms() -> None:
    model = nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 8))
    low_memory(model)
    assert type(model[0]) is MSRMSNorm
    assert model[0].eps == torch.finfo(torch.float32).eps  # as torch takes it by default
    restore(model)
    assert model[0].eps is None
