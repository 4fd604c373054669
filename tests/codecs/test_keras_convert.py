"""Weights of Keras codecs in ``deepjscc``: layer by layer, as a whole, and refused where unlike."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from channels import AWGN
from semsim import Link, stream, zoo
from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.keras.__main__ import main
from semsim.codecs.keras.convert import convert

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra tensorflow"
)
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
SIZES: dict[str, dict[str, Any]] = {
    "bourtsoulatze2019": {"channels": 8},
    "adjscc": {"channels": 4, "width": 32},
    "adjscc wide": {"channels": 4, "width": 80},
    "adjscc basic": {"channels": 4, "width": 16, "adaptive": False},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def models(kind: str, **arguments: Any) -> tuple[Any, Any]:
    """Return a Keras codec whose weights are all random, none at its start."""
    from semsim.codecs.keras.frameworks import import_keras

    import_keras("tensorflow")
    from semsim.codecs.keras import models as builders

    ends = getattr(builders, kind.split()[0])(**{**SIZES[kind], **arguments})
    for index, model in enumerate(ends):
        for position, variable in enumerate(model.variables):
            generator = stream(1, kind, index, position)
            shape = tuple(variable.shape)
            value = torch.randn(shape, generator=generator)
            if len(shape) > 1:
                value /= math.prod(shape[:-1]) ** 0.5
            if variable.name in ("beta", "gamma"):
                value = 0.1 * value.abs() + 0.01
            variable.assign(value.numpy())
    return ends


@pytest.mark.parametrize("kind", SIZES)
def test_each_layer_and_the_whole_give_what_keras_gives(kind: str) -> None:
    transmitter, receiver, checks = convert(*models(kind))
    assert max(check.error for check in checks) < 1e-5
    kinds = {"bourtsoulatze2019": 10 + 9, "adjscc": 2 * (5 + 5 + 4 + 8), "adjscc basic": 2 * 14}
    assert len(checks) == kinds.get(kind, kinds["adjscc"]) + 2
    assert receiver.spec.items() <= transmitter.spec.items()
    assert transmitter.spec["padding"] == "keras"
    for end in (transmitter, receiver):  # no weight kept its start
        assert all(p.any() for p in end.parameters() if p.dim() == 4)


@pytest.mark.parametrize("kind", ["bourtsoulatze2019", "adjscc"])
def test_the_keras_link_and_its_twin_in_torch_are_one(kind: str) -> None:
    from semsim.codecs.keras.codec import KerasReceiver, KerasTransmitter

    ends = models(kind)
    for name, model in zip(("encoder", "decoder"), ends, strict=True):
        model.save(f"{name}.keras")
    pairing = {"pairing": "channels"}
    keras = Link(KerasTransmitter(".", **pairing), AWGN(), KerasReceiver(".", **pairing)).eval()
    transmitter, receiver, _ = convert(*ends)
    twin = Link(transmitter, AWGN(), receiver).eval()
    source = torch.rand(2, 3, 32, 48, generator=stream(2, "source"))
    one, other = (link(source, 7.0, stream(3, "noise")) for link in (keras, twin))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_command_writes_a_file_that_deepjscc_loads(capsys: pytest.CaptureFixture) -> None:
    for name, model in zip(("encoder", "decoder"), models("adjscc"), strict=True):
        model.save(f"{name}.keras")
    main(["encoder.keras", "decoder.keras", "out.safetensors"])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "transmitter: {kind: deepjscc, cbr: 1/24, preset: adjscc, adaptive: both, width: 32, "
        "padding: keras, weights: out.safetensors}"
    )
    assert len([line for line in said if "off by" in line]) == 46
    transmitter, receiver = zoo.pair("out.safetensors", DeepJSCCTransmitter, DeepJSCCReceiver)
    expected = convert(*models("adjscc"))[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in transmitter.state_dict().items())
    assert receiver.spec["width"] == 32


def test_weights_files_go_into_a_model_of_a_function(capsys: pytest.CaptureFixture) -> None:
    for name, model in zip(("encoder", "decoder"), models("bourtsoulatze2019"), strict=True):
        model.save_weights(f"{name}.weights.h5")
    builder = "semsim.codecs.keras.models:bourtsoulatze2019"
    weights = [f"--{end}-weights={end}.weights.h5" for end in ("encoder", "decoder")]
    main([builder, builder, "out.safetensors", *weights, "--arguments", '{"channels": 8}'])
    found = zoo.pair("out.safetensors", DeepJSCCTransmitter, DeepJSCCReceiver)[0].state_dict()
    expected = convert(*models("bourtsoulatze2019"))[0].state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def changed(change: str) -> tuple[Any, Any]:
    """Return a codec that differs from the preset in one respect."""
    import keras

    layers = keras.layers
    encoder, decoder = models("bourtsoulatze2019")
    image = keras.Input((None, None, 3))
    if change == "rescaled":
        return keras.Model(image, encoder(layers.Rescaling(2.0)(image))), decoder
    if change == "halved output":  # power is normalised behind it
        return keras.Model(image, 0.5 * encoder(image)), decoder
    if change == "activation":
        encoder.layers[1].activation = keras.activations.tanh
        return encoder, decoder
    if change == "slope per pixel":
        return models_with_slopes_per_pixel(), decoder
    if change == "norm":
        small = [(16, 2), (32, 2), (32, 1), (32, 1), (8, 1)]
        stack: list[Any] = [image]
        for filters, strides in small:
            stack.append(layers.Conv2D(filters, 5, strides=strides, padding="same")(stack[-1]))
            stack.append(layers.BatchNormalization()(stack[-1]))
        return keras.Model(image, stack[-1]), decoder
    if change == "kernel":
        x: Any = image
        for filters, strides in [(16, 2), (32, 2), (32, 1), (32, 1), (8, 1)]:
            conv = layers.Conv2D(filters, 3, strides=strides, padding="same")
            x = layers.PReLU(shared_axes=[1, 2])(conv(x))
        return keras.Model(image, x), decoder
    flat = layers.Conv2D(8, 5, padding="valid")
    return keras.Model(image, flat(image)), decoder


def models_with_slopes_per_pixel() -> Any:
    import keras

    x = image = keras.Input((16, 16, 3))
    for filters, strides in [(16, 2), (32, 2), (32, 1), (32, 1), (8, 1)]:
        conv = keras.layers.Conv2D(filters, 5, strides=strides, padding="same")
        x = keras.layers.PReLU()(conv(x))
    return keras.Model(image, x)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rescaled", "encoder: each layer with weights agrees, but its output is off by"),
        ("activation", "encoder layer 'conv2d.*' gives another output than semsim's Conv2D"),
        ("slope per pixel", "a slope per pixel, .8, 8, 16., so the model works at one size only"),
        ("norm", "'batch_norm.*' is not as in the presets .* it has Conv2D, BatchNormalization"),
        ("kernel", "encoder layer 'conv2d.*' does not fit: its weights are .16, 3, 3, 3."),
        ("unpadded", "encoder has 1 layers Conv2D, padded valid; the presets"),
    ],
)
def test_a_codec_of_other_layers_is_refused_with_the_layer(change: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        convert(*changed(change))


def test_a_class_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    encoder, decoder = models("bourtsoulatze2019")
    from keras_models import subclassed

    for ends, end in (((subclassed(), decoder), "encoder"), ((encoder, subclassed()), "decoder")):
        with pytest.raises(ValueError, match=f"{end} is a class of its own"):
            convert(*ends)


def test_a_scale_before_the_power_normalisation_does_not_matter() -> None:
    assert convert(*changed("halved output"))[2][-1].error < 1e-5


def test_one_slope_per_layer_becomes_equal_slopes() -> None:
    import keras

    x = image = keras.Input((None, None, 3))
    for filters, strides in [(16, 2), (32, 2), (32, 1), (32, 1), (8, 1)]:
        conv = keras.layers.Conv2D(filters, 5, strides=strides, padding="same")
        x = keras.layers.PReLU(shared_axes=[1, 2, 3], alpha_initializer="ones")(conv(x))
    _, decoder = models("bourtsoulatze2019")
    transmitter = convert(keras.Model(image, x), decoder)[0]
    assert torch.equal(transmitter.encoder[1].weight, torch.ones(16))


def test_gdn_of_either_orientation_and_without_a_least_beta_is_recognised() -> None:
    import keras

    class Mine(keras.layers.Layer):
        def __init__(self, inverse: bool) -> None:
            super().__init__()
            self.inverse = inverse

        def build(self, shape: Any) -> None:
            self.beta = self.add_weight((shape[-1],), "random_uniform", name="beta")
            self.gamma = self.add_weight((shape[-1],) * 2, "random_uniform", name="gamma")

        def call(self, x: Any) -> Any:
            gamma = keras.ops.transpose(keras.ops.abs(self.gamma))
            energy = keras.ops.matmul(x * x, gamma) + keras.ops.abs(self.beta)
            return x * energy**0.5 if self.inverse else x / energy**0.5

    def end(channels: int, layer: Any, sizes: list[tuple[int, int, int]], inverse: bool) -> Any:
        x = start = keras.Input((None, None, channels))
        for index, (filters, kernel, strides) in enumerate(sizes):
            x = layer(filters, kernel, strides=strides, padding="same")(x)
            x = Mine(inverse)(x)
            if index < 4:
                x = keras.layers.PReLU(shared_axes=[1, 2])(x)
        return keras.Model(start, keras.ops.sigmoid(x) if inverse else x)

    layers, down = keras.layers, [(16, 9, 2), (16, 5, 2), (16, 5, 1), (16, 5, 1), (4, 5, 1)]
    up = [(16, 5, 1), (16, 5, 1), (16, 5, 1), (16, 5, 2), (3, 9, 2)]
    encoder = end(3, layers.Conv2D, down, inverse=False)
    decoder = end(4, layers.Conv2DTranspose, up, inverse=True)
    for variable in encoder.variables + decoder.variables:
        if variable.name in ("beta", "gamma"):
            variable.assign(abs(variable.numpy()) + 0.01)
    assert max(check.error for check in convert(encoder, decoder)[2]) < 1e-5


def test_the_command_tells_a_mistake_in_one_sentence(capsys: pytest.CaptureFixture) -> None:
    for arguments, said in (
        (["no.keras", "no.keras", "out.safetensors"], "model no.keras does not exist"),
        (["no.keras", "no.keras", "out.h5"], "out ends in .safetensors, got out.h5"),
        (["no.keras", "no.keras", "no/out.safetensors"], "out: there is no folder no"),
        (
            ["no.keras", "no.keras", "out.safetensors", "--arguments", "[8]"],
            '--arguments is {"name": value, ...}, got [8]',
        ),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert said in capsys.readouterr().err
