"""DeepJSCC: rate, power, any size, what each end sees, and that all of it can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from channels import AWGN, Rayleigh
from channels.base import CSI
from semsim import Link, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.symbols import to_latent, to_symbols

SMALL = {"width": 16, "depth": 1}
PRESETS = [
    {**SMALL},
    {**SMALL, "stride": 8},
    {**SMALL, "stride": 8, "patch": 8, "reach": 2},
    {**SMALL, "adaptive": "receiver", "attention": "pfca"},
    {**SMALL, "width": 24, "block": "convnext", "attention": "pfca"},
    {"preset": "bourtsoulatze2019"},
    {"preset": "bourtsoulatze2019", "padding": "keras"},
    {"preset": "bourtsoulatze2019", "attention": "eca"},
    {"preset": "adjscc", "width": 24},
    {"preset": "adjscc", "width": 16, "adaptive": "none", "padding": "keras"},
]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream(1, "images", shape))


def pair(cbr: str = "1/6", **arguments: object) -> tuple[DeepJSCCTransmitter, DeepJSCCReceiver]:
    torch.manual_seed(2)
    return DeepJSCCTransmitter(cbr, **arguments), DeepJSCCReceiver(cbr, **arguments)


def shake(*modules: torch.nn.Module) -> None:
    """Fill weights that start at zero, so that every path carries something."""
    generator = stream(3, "shake")
    for module in modules:
        for p in module.parameters():
            if not p.any():
                p.data.copy_(0.05 * torch.randn(p.shape, generator=generator))


def csi(batch: int, snr_db: float = 10.0) -> CSI:
    return CSI(None, torch.full((batch,), 10 ** (-snr_db / 10)))


@pytest.mark.parametrize("arguments", PRESETS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 9)])
def test_any_size_goes_through_at_unit_power(arguments: dict, size: tuple[int, int]) -> None:
    transmitter, receiver = pair(**arguments)
    source = images(2, 3, *size)
    x = transmitter(source, csi(2))
    assert x.shape == (2, 1, transmitter.num_symbols((3, *size)))
    assert x.dtype == torch.complex64
    torch.testing.assert_close(x.abs().square().mean(dim=(1, 2)), torch.ones(2))
    assert receiver(x, csi(2), (3, *size)).shape == source.shape


@pytest.mark.parametrize("arguments", PRESETS)
def test_sizes_that_fit_the_stride_cost_exactly_the_cbr(arguments: dict) -> None:
    transmitter = pair("1/12", **arguments)[0]
    assert transmitter.num_symbols((3, 64, 96)) == 3 * 64 * 96 // 12


@pytest.mark.parametrize("arguments", PRESETS)
def test_gradients_reach_every_parameter_through_a_fading_channel(arguments: dict) -> None:
    transmitter, receiver = pair(**arguments)
    shake(transmitter, receiver)
    link = Link(transmitter, Rayleigh(num_tx=2, num_rx=2), receiver).train()
    source = images(4, 3, 32, 32)
    (link(source, 10.0, stream(4, "noise")) - source).square().mean().backward()
    silent = [n for n, p in link.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("arguments", PRESETS)
def test_items_of_a_batch_do_not_see_each_other(arguments: dict) -> None:
    transmitter, receiver = pair(**arguments)
    shake(transmitter, receiver)
    source = images(3, 3, 16, 16)
    n0 = torch.tensor([0.01, 0.1, 1.0])
    together = receiver(transmitter(source, CSI(None, n0)), CSI(None, n0), (3, 16, 16))
    one = CSI(None, n0[1:2])
    alone = receiver(transmitter(source[1:2], one), one, (3, 16, 16))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("adaptive", "ends"), [("both", 2), ("receiver", 1), ("none", 0)])
def test_the_ends_that_adapt_are_the_ones_that_were_named(adaptive: str, ends: int) -> None:
    transmitter, receiver = pair(**SMALL, adaptive=adaptive)
    shake(transmitter, receiver)
    assert transmitter.uses_csi == (adaptive == "both")
    source = images(1, 3, 16, 16)
    low, high = transmitter(source, csi(1, 0.0)), transmitter(source, csi(1, 20.0))
    assert torch.equal(low, high) == (ends < 2)
    modules = [
        any("snr" in n for n, _ in end.named_parameters()) for end in (transmitter, receiver)
    ]
    assert sum(modules) == ends


def test_the_receiver_trusts_clean_symbols_more() -> None:
    _, receiver = pair(**SMALL, adaptive="none")
    y = torch.complex(images(1, 1, 128), images(1, 1, 128))
    n0 = torch.full((1, 1, 128), 0.1)
    uneven = n0.clone()
    uneven[:, :, ::2] = 2.0
    even = receiver(y, CSI(None, n0), (3, 16, 16))
    assert not torch.equal(even, receiver(y, CSI(None, uneven), (3, 16, 16)))
    assert torch.equal(even, receiver(y, CSI(None, n0[:, 0, 0]), (3, 16, 16)))


def test_an_untrained_codec_is_already_a_linear_one() -> None:
    coarse = images(4, 3, 6, 6)
    source = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1)
    transmitter, receiver = pair("1/6")
    link = Link(transmitter, AWGN(), receiver).eval()
    mse = (link(source, 20.0, stream(5, "noise")) - source).square().mean()
    assert mse < 0.3 * source.var()


def test_pairing_is_first_half_real_second_half_imaginary() -> None:
    latent = images(2, 6, 3, 4)
    symbols = to_symbols(latent)
    torch.testing.assert_close(symbols[:, 0, :12].real, latent[:, 0].flatten(1))
    torch.testing.assert_close(symbols[:, 0, :12].imag, latent[:, 3].flatten(1))
    assert torch.equal(to_latent(symbols, 6, 3, 4), latent)


def test_the_network_of_2019_has_the_layers_of_the_paper() -> None:
    transmitter, receiver = pair("1/6", preset="bourtsoulatze2019")
    encoder = [(3, 16), (16, 32), (32, 32), (32, 32), (32, 16)]
    decoder = [(16, 32), (32, 32), (32, 32), (32, 16), (16, 3)]
    for end, layers, slopes in ((transmitter, encoder, 5), (receiver, decoder, 4)):
        expected = sum(25 * a * b + b for a, b in layers) + slopes
        assert sum(p.numel() for p in end.parameters()) == expected


def test_attention_stands_between_the_layers_of_the_network_of_2019() -> None:
    plain, attended = (pair("1/6", preset="bourtsoulatze2019", attention=a) for a in ("none", "se"))
    for end, other, network in zip(plain, attended, ("encoder", "decoder"), strict=True):
        kinds = [type(m).__name__ for m in getattr(other, network)]
        assert kinds.count("SE") == 4
        assert not kinds[0].startswith("SE")
        assert [k for k in kinds if k != "SE"] == [type(m).__name__ for m in getattr(end, network)]
        layers = [m for m in getattr(other, network) if type(m).__name__ != "SE"]
        assert kinds.index("SE") == 2  # after a convolution and its slopes
        assert [p.shape for m in layers for p in m.parameters()] == [
            p.shape for p in end.parameters()
        ]


def test_convnext_blocks_have_the_layers_of_the_paper_and_an_af_module() -> None:
    width, hidden = 16, 4  # of the AF module, which sees the SNR beside the channels
    plain, blocks = (pair(width=width, depth=d, adaptive="both", block="convnext") for d in (1, 2))
    depthwise, norm = 49 * width + width, 2 * width
    dense = 2 * 4 * width * width + 4 * width + width
    gate = (width + 1) * hidden + hidden + hidden * width + width
    for one, two, more in zip(plain, blocks, (1, 2), strict=True):  # a decoder has twice as many
        sizes = [sum(p.numel() for p in end.parameters()) for end in (one, two)]
        assert sizes[1] - sizes[0] == more * (depthwise + norm + dense + gate)


def test_weights_from_before_there_were_blocks_are_of_residual_ones(tmp_path: Path) -> None:
    old = pair("1/6", width=8, depth=1)
    for end in old:
        end.spec = {key: value for key, value in end.spec.items() if key != "block"}
    file = str(zoo.export(tmp_path / "old.safetensors", *old))
    ends = zoo.pair(file, DeepJSCCTransmitter, DeepJSCCReceiver)
    assert [end.spec["block"] for end in ends] == ["residual"] * 2
    other = DeepJSCCTransmitter(**{**ends[0].spec, "block": "convnext"})
    with pytest.raises(ValueError, match="were trained for block residual"):
        zoo.load(file, other, None)


def test_adjscc_has_the_layers_of_the_authors_code() -> None:
    transmitter, receiver = pair("1/6", preset="adjscc")
    sizes = {"encoder": [(3, 256, 9), *[(256, 256, 5)] * 3, (256, 16, 5)],
             "decoder": [(16, 256, 5), *[(256, 256, 5)] * 3, (256, 3, 9)]}  # fmt: skip
    attention = 257 * 16 + 16 + 16 * 256 + 256
    for end, layers in zip((transmitter, receiver), sizes.values(), strict=True):
        convolutions = sum(k * k * a * b + b for a, b, k in layers)
        normalisations = sum(b * b + b for _, b, _ in layers)
        expected = convolutions + normalisations + 4 * (256 + attention)
        assert sum(p.numel() for p in end.parameters()) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cbr": "1/7"}, r"nearest are 1/8 and 7/48"),
        ({"cbr": 0}, "a positive number"),
        ({"cbr": "0.9"}, "nearest are 1/2"),
        ({"cbr": "a sixth"}, "a positive number or a fraction"),
        ({"cbr": "1/6", "attention": "cbam"}, "none, se, eca"),
        ({"cbr": "1/6", "adaptive": "transmitter"}, "adaptive is one of both, receiver, none"),
        ({"cbr": "1/6", "preset": "resnet"}, "is one of residual, bourtsoulatze2019, adjscc"),
        ({"cbr": "1/6", "stride": 6}, "power of two"),
        ({"cbr": "1/6", "depth": 0}, "depth must be at least 1"),
        ({"cbr": "1/6", "block": "resnext"}, "block is one of residual, convnext"),
        (
            {"cbr": "1/6", "preset": "adjscc", "block": "convnext"},
            "has block: residual; write",
        ),
        ({"cbr": "1/6", "reach": -1}, "reach must be at least 0"),
        ({"cbr": "1/6", "reach": 13}, "reach must be at least 0 and at most 12, got 13"),
        (
            {"cbr": "1/6", "preset": "bourtsoulatze2019", "adaptive": "both"},
            "adaptive: none; write",
        ),
        ({"cbr": "1/6", "padding": "valid"}, "padding is one of symmetric, keras"),
        ({"cbr": "1/6", "padding": "keras"}, "has padding: symmetric; write that, or another"),
        ({"cbr": "1/6", "preset": "adjscc", "attention": "se"}, "attention: none; write"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(arguments: dict, message: str) -> None:
    for end in (DeepJSCCTransmitter, DeepJSCCReceiver):
        with pytest.raises(ValueError, match=message):
            end(**arguments)


def test_wrong_shapes_are_refused() -> None:
    transmitter, receiver = pair(**SMALL)
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        transmitter(images(2, 1, 16, 16), csi(2))
    with pytest.raises(ValueError, match="equalised symbols"):
        receiver(torch.zeros(1, 2, 128, dtype=torch.complex64), csi(1), (3, 16, 16))


def test_outputs_are_pictures_unless_training() -> None:
    transmitter, receiver = pair(**SMALL)
    x = 5 * transmitter(images(1, 3, 16, 16), csi(1))
    wild = receiver.train()(x, csi(1), (3, 16, 16))
    assert wild.min() < 0 or wild.max() > 1
    torch.testing.assert_close(receiver.eval()(x, csi(1), (3, 16, 16)), wild.clamp(0, 1))
