"""Take the weights of a convolutional Keras codec over into ``deepjscc``, checked layer by layer.

    python -m semsim.codecs.keras encoder.keras decoder.keras codec.safetensors

The two models are those of :mod:`semsim.codecs.keras.models` in their layers, whoever wrote and
trained them: the first DeepJSCC, or ADJSCC of any width with or without AF modules. A GDN may be
anybody's layer with weights named beta and gamma. Each layer, and then each whole end, must give
the same output for random input in both frameworks, or nothing is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from semsim.codecs.deepjscc import DeepJSCCReceiver, DeepJSCCTransmitter
from semsim.codecs.keras.loading import End
from semsim.nn.adjscc import GDNBlock
from semsim.nn.gdn import GDN
from semsim.nn.snr import SNR_SCALE_DB, AttentionFeature, snr_number
from semsim.phy.power import unit_power
from semsim.seeds import stream

TOLERANCE = 1e-4  # of the largest output; float32 leaves about 1e-6 per layer
SIDE = 16  # of the random images, in pixels, where the models take any size
PRESETS = "bourtsoulatze2019 and adjscc (semsim.codecs.keras.models has both)"
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Check:
    """How far one output is from that of Keras, relative to the largest value in it."""

    end: End
    layer: str
    kind: str
    error: float


@dataclass(frozen=True)
class Step:
    """A layer of semsim's with weights: its kind in Keras, and ways to take weights over.

    Each way takes the Keras weights by name, stores them, and returns what computes the layer's
    output from its input as Keras has them; the way that agrees best is kept.
    """

    kind: str
    ways: list[Callable[[dict[str, Tensor]], Function]]


def convert(
    encoder: Any, decoder: Any
) -> tuple[DeepJSCCTransmitter, DeepJSCCReceiver, list[Check]]:
    """Return both ends of ``deepjscc`` with the weights of two Keras models, and how well they fit.

    Args:
        encoder: image [B, H, W, 3] in [0, 1], and the SNR in dB [B, 1] for an AF module, to latent.
        decoder: latent, and the SNR, to image.

    Raises:
        ValueError: the models have other layers, or give another output than semsim's.
    """
    spec = spec_of(encoder, decoder)
    transmitter = DeepJSCCTransmitter(**spec).eval()
    receiver = DeepJSCCReceiver(**spec).eval()
    checks = _take_over("encoder", encoder, transmitter.encoder, unit_power)
    checks += _take_over("decoder", decoder, receiver.decoder, lambda image: image)
    return transmitter, receiver, checks


def spec_of(encoder: Any, decoder: Any) -> dict[str, Any]:
    """Return the arguments of ``deepjscc`` that two Keras models amount to."""
    for end, model in (("encoder", encoder), ("decoder", decoder)):
        if not getattr(model, "inputs", None):
            raise ValueError(
                f"{end} is a class of its own, and only its call knows the order of the layers; "
                "build it from keras.Input"
            )
    convolutions = [layer for layer in _layers(encoder) if kind_of(layer) == "Conv2D"]
    paddings = ", ".join(layer.padding for layer in convolutions)
    if paddings != ", ".join(["same"] * 5):
        raise ValueError(
            f"encoder has {len(convolutions)} layers Conv2D, padded {paddings or 'in no way'}; the "
            f"presets {PRESETS} have five, padded same"
        )
    adaptive = {(2, 2): "both", (1, 2): "receiver", (1, 1): "none"}
    inputs = len(encoder.inputs), len(decoder.inputs)
    if inputs not in adaptive:
        raise ValueError(
            f"encoder and decoder have {inputs[0]} and {inputs[1]} inputs; a second one is the SNR "
            "in dB, which the receiver or both may see"
        )
    spec: dict[str, Any] = {
        "cbr": str(Fraction(convolutions[-1].filters, 96)),
        "preset": "bourtsoulatze2019",
        "adaptive": adaptive[inputs],
        "padding": "keras",
    }
    if any(kind_of(layer) == "GDN" for layer in _layers(encoder)):
        spec |= {"preset": "adjscc", "width": convolutions[0].filters}
    return spec


def kind_of(layer: Any) -> str:
    """Return the class of a Keras layer; GDN for any with a vector beta and a matrix gamma."""
    shapes = {w.name: len(w.shape) for w in layer.weights}
    return "GDN" if shapes == {"beta": 1, "gamma": 2} else type(layer).__name__


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model in order of computation, those of models within it too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _take_over(
    end: End, model: Any, network: nn.Module, seen: Callable[[Tensor], Tensor]
) -> list[Check]:
    """Copy one end's weights and compare each layer, then the whole by what of it is ``seen``."""
    theirs = [layer for layer in _layers(model) if layer.weights]
    ours = list(_steps(network))
    kinds = [kind_of(layer) for layer in theirs], [step.kind for step in ours]
    if kinds[0] != kinds[1]:
        at = next((i for i, (a, b) in enumerate(zip(*kinds, strict=False)) if a != b), None)
        where = f"{end} layer {theirs[at].name!r}" if at is not None else end
        raise ValueError(
            f"{where} is not as in the presets {PRESETS}: it has {', '.join(kinds[0])}, the preset "
            f"{', '.join(kinds[1])}"
        )
    checks = [_copy(end, layer, step) for layer, step in zip(theirs, ours, strict=True)]
    error = _whole(end, model, network, seen)
    if not error < TOLERANCE:
        raise ValueError(
            f"{end}: each layer with weights agrees, but its output is off by {error:.2g} of the "
            "largest: something lies between them that deepjscc has not, such as a rescaling or "
            "an activation; give the model from an image in [0, 1] to the latent, and back"
        )
    return [*checks, Check(end, model.name, "all of it", error)]


def _steps(network: nn.Module) -> Iterator[Step]:
    """Yield the layers of one of semsim's networks in the order in which Keras has them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            yield Step("Conv2D", [_convolution(module)])
        elif isinstance(module, nn.ConvTranspose2d):
            yield Step("Conv2DTranspose", [_convolution(module)])
        elif isinstance(module, GDN):
            ways = [_gdn(module, turned, least) for turned in (True, False) for least in (0, 1e-6)]
            yield Step("GDN", ways)
        elif isinstance(module, nn.PReLU):
            yield Step("PReLU", [_slopes(module)])
        elif isinstance(module, AttentionFeature):
            yield Step("Dense", [_squeeze(module)])
            yield Step("Dense", [_excite(module)])


def _convolution(module: Any) -> Callable[[dict[str, Tensor]], Function]:
    """Kernels are [h, w, in, out], of a transposed convolution [h, w, out, in]."""

    def way(weights: dict[str, Tensor]) -> Function:
        _put(module.weight, weights["kernel"].permute(3, 2, 0, 1))
        zero = weights["kernel"].new_zeros(len(module.bias))
        _put(module.bias, weights.get("bias", zero))
        return _channels_first(module)

    return way


def _gdn(module: GDN, turned: bool, least: float) -> Callable[[dict[str, Tensor]], Function]:
    """Energies with gamma [from, to] or [to, from], with or without a least beta of their own."""

    def way(weights: dict[str, Tensor]) -> Function:
        gamma = weights["gamma"].clamp_min(0)
        module.set(weights["beta"].clamp_min(0) + least, gamma.T if turned else gamma)
        return _channels_first(module)

    return way


def _slopes(module: nn.PReLU) -> Callable[[dict[str, Tensor]], Function]:
    def way(weights: dict[str, Tensor]) -> Function:
        alpha = weights["alpha"]
        if math.prod(alpha.shape[:-1]) != 1:
            raise ValueError(
                f"it has a slope per pixel, {list(alpha.shape)}, so the model works at one size "
                "only; build it with PReLU(shared_axes=[1, 2])"
            )
        _put(module.weight, alpha.flatten().expand(len(module.weight)))
        return _channels_first(module)

    return way


def _squeeze(module: AttentionFeature) -> Callable[[dict[str, Tensor]], Function]:
    """Keras sees the SNR in dB, semsim a multiple; units that semsim has more of are zero."""

    def way(weights: dict[str, Tensor]) -> Function:
        scale = torch.ones(module.squeeze.in_features)
        scale[-1] = SNR_SCALE_DB
        units = weights["kernel"].shape[1]
        _put(module.squeeze.weight, _grown(weights["kernel"].T * scale, module.squeeze.weight))
        _put(module.squeeze.bias, _grown(weights["bias"], module.squeeze.bias))
        return lambda x: module.squeeze(x / scale).relu()[:, :units]

    return way


def _excite(module: AttentionFeature) -> Callable[[dict[str, Tensor]], Function]:
    def way(weights: dict[str, Tensor]) -> Function:
        _put(module.excite.weight, _grown(weights["kernel"].T, module.excite.weight))
        _put(module.excite.bias, weights["bias"])
        missing = module.excite.in_features - len(weights["kernel"])
        return lambda x: module.excite(nn.functional.pad(x, (0, missing))).sigmoid()

    return way


def _grown(weights: Tensor, target: Tensor) -> Tensor:
    """Fill up with zeros at the end of each axis."""
    pads = [pad for t, w in zip(target.shape, weights.shape, strict=True) for pad in (t - w, 0)]
    return nn.functional.pad(weights, pads[::-1])


def _put(target: Tensor, value: Tensor) -> None:
    if target.shape != value.shape:
        raise ValueError(
            f"its weights are {list(value.shape)} in the order of torch, the preset's "
            f"{list(target.shape)}"
        )
    with torch.no_grad():
        target.copy_(value)


def _copy(end: End, layer: Any, step: Step) -> Check:
    """Take a layer's weights over in the way that agrees best, and demand that it agrees."""
    weights = {w.name: torch.tensor(_numpy(w)) for w in layer.weights}
    shape = [n or 8 for n in layer.input.shape[1:]]
    x = torch.randn(2, *shape, generator=stream(0, "convert", end, layer.name))
    expected = _run(layer, x)
    try:
        errors = [_error(way(weights)(x), expected) for way in step.ways]
        best = errors.index(min(errors))
        step.ways[best](weights)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{end} layer {layer.name!r} does not fit: {error}") from error
    if not errors[best] < TOLERANCE:
        raise ValueError(
            f"{end} layer {layer.name!r} gives another output than semsim's {step.kind}, off by "
            f"{errors[best]:.2g} of the largest: it computes something else under the same name"
        )
    return Check(end, layer.name, step.kind, errors[best])


def _whole(end: End, model: Any, network: nn.Module, seen: Callable[[Tensor], Tensor]) -> float:
    """Return how far a whole end is off for a random image or latent, at two SNRs."""
    shape = [n or SIDE // (1 if end == "encoder" else 4) for n in model.inputs[0].shape[1:3]]
    channels = next(
        m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    )
    count = channels.shape[1 if end == "encoder" else 0]
    x = torch.rand(2, count, *shape, generator=stream(0, "convert", end))
    snr_db = torch.tensor([1.0, 17.0])
    inputs = [x.permute(0, 2, 3, 1), snr_db[:, None]][: len(model.inputs)]
    sees_snr = any(isinstance(m, GDNBlock) for m in network.modules())
    with torch.no_grad():
        ours = network(x, snr_number(snr_db)) if sees_snr else network(x)
    ours, expected = ours.permute(0, 2, 3, 1), _run(model, *inputs)
    if expected.numel() != ours.numel():
        raise ValueError(f"{end} gives {list(expected.shape)}, semsim's {list(ours.shape)}")
    return _error(seen(ours), seen(expected.reshape(ours.shape)))


def _channels_first(module: nn.Module) -> Function:
    return lambda x: module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _run(model: Any, *inputs: Tensor) -> Tensor:
    import keras

    arrays = [keras.ops.convert_to_tensor(x.contiguous().numpy()) for x in inputs]
    return torch.tensor(_numpy(model(arrays if len(arrays) > 1 else arrays[0], training=False)))


def _numpy(tensor: Any) -> Any:
    import keras

    return keras.ops.convert_to_numpy(tensor)


def _error(ours: Tensor, expected: Tensor) -> float:
    return float((ours.detach() - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
