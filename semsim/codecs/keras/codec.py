"""Keras and TensorFlow models as transmitter and receiver of a torch link."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from channels.base import CSI
from channels.checks import check_choice
from semsim.codecs.keras import models
from semsim.codecs.keras.frameworks import Backend
from semsim.codecs.keras.loading import End as Which
from semsim.codecs.keras.loading import network
from semsim.codecs.symbols import to_latent, to_symbols
from semsim.nn.modes import in_evaluation
from semsim.phy.power import unit_power
from semsim.types import End, Receiver, Transmitter

Pairing = Literal["halves", "interleaved", "channels"]
LARGEST_STRIDE = 64


def pair(reals: Tensor, pairing: Pairing) -> Tensor:
    """Make complex symbols [B, 1, K] of a model's output [B, ...], 2K reals per item.

    ``halves``: the first half of the flattened output is the real parts, the second the imaginary
    ones, as in the code of ADJSCC. ``interleaved``: reals 2k and 2k + 1 are symbol k.
    ``channels``: the first half of the last axis is the real parts, symbols in the order of
    ``deepjscc``, [B, h, w, C] to [B, 1, C/2 · h · w].
    """
    count = math.prod(reals.shape[1:])
    if count % 2:
        raise ValueError(
            f"model gives {count} reals per item, {list(reals.shape[1:])}, an odd number; two "
            "reals make one complex symbol"
        )
    if pairing == "channels":
        if reals.dim() != 4 or reals.shape[-1] % 2:
            raise ValueError(
                "pairing channels wants an output [B, h, w, C] with an even C, got "
                f"{list(reals.shape)}; write pairing: halves"
            )
        return to_symbols(reals.permute(0, 3, 1, 2))
    flat = reals.float().flatten(1)
    if pairing == "interleaved":
        return torch.view_as_complex(flat.view(len(flat), -1, 2).contiguous())[:, None]
    return torch.complex(*flat.chunk(2, dim=1))[:, None]


def unpair(symbols: Tensor, pairing: Pairing, shape: tuple[int, ...]) -> Tensor:
    """Invert :func:`pair`: symbols [B, 1, K] to reals [B, *shape]."""
    symbols = symbols[:, 0]
    if pairing == "channels":
        height, width, channels = shape
        return to_latent(symbols, channels, height, width).permute(0, 2, 3, 1)
    if pairing == "interleaved":
        return torch.view_as_real(symbols.resolve_conj()).reshape(len(symbols), *shape)
    return torch.cat([symbols.real, symbols.imag], dim=1).view(len(symbols), *shape)


class _End(End):
    """What both ends agree on."""

    def __init__(self, end: Which, spec: dict[str, Any], backend: Backend, trainable: bool) -> None:
        super().__init__()
        check_choice("pairing", spec["pairing"], get_args(Pairing))
        if backend not in get_args(Backend):
            raise ValueError(f"backend is tensorflow or torch, got {backend!r}")
        #: the arguments, as kept with weights, which fit either backend
        self.spec = spec
        self.pairing: Pairing = spec["pairing"]
        #: False for semsim's own networks; a file, and a function of yours, may hold trained ones
        self.brings_weights = not spec["model"].startswith(f"{models.__name__}:")
        self.network = network(spec["model"], end, backend, spec["arguments"], trainable)

    def run(self, values: Tensor, csi: CSI) -> Tensor:
        """Return what the model makes of ``values``, and of the SNR where it takes that."""
        inputs = [values]
        if self.network.num_inputs == 2:
            inputs.append(csi.effective_snr_db().to(values.dtype)[:, None])
        return self.network(*inputs)


class KerasTransmitter(_End, Transmitter):
    """A Keras or TensorFlow model that turns the source into complex symbols of unit power.

        source [B, C, H, W] ─► channels last ─► model ─► flatten ─► pair ─► unit power ─► x

    Args:
        model: a .keras file (or an older .h5 with its architecture), a SavedModel folder, a folder
            that holds both ends as encoder.keras and decoder.keras, or a function ``module:name``
            that returns a ``keras.Model`` or both ends as two. A model with a second input gets the
            SNR in dB there, [B, 1]. It may give any shape; the number of reals decides the CBR.
        arguments: of the function.
        backend: what computes: "tensorflow", or "torch", which is Keras 3 alone. Keras has one
            backend per process.
        trainable: whether a training changes the model; frozen, it runs as in inference.
        pairing: how two reals make a symbol, see :func:`pair`; a complex output is taken as it is.
    """

    def __init__(
        self,
        model: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        backend: Backend = "tensorflow",
        trainable: bool = True,
        pairing: Pairing = "halves",
    ) -> None:
        spec = {"model": model, "arguments": dict(arguments or {}), "pairing": pairing}
        super().__init__("encoder", spec, backend, trainable)
        self.uses_csi = self.network.num_inputs == 2
        self._counts: dict[tuple[int, ...], int] = {}

    def num_symbols(self, shape: tuple[int, ...]) -> int:
        """Return the symbols for an item of this shape, from one pass of an empty one."""
        if shape not in self._counts:
            device = next(iter(self.parameters()), torch.empty(0)).device
            csi = CSI(None, torch.ones(1, device=device))
            with torch.no_grad(), in_evaluation(self):
                reals = self._encode(torch.zeros(1, *shape, device=device), csi)
            self._counts[shape] = self._pair(reals).shape[-1]
        return self._counts[shape]

    def forward(self, source: Tensor, csi: CSI, generator: torch.Generator | None = None) -> Tensor:
        """Return symbols [B, 1, K] for the source [B, ...]."""
        return unit_power(self._pair(self._encode(source, csi)))

    def _pair(self, output: Tensor) -> Tensor:
        return pair(output, "interleaved" if self.network.gives_complex else self.pairing)

    def _encode(self, source: Tensor, csi: CSI) -> Tensor:
        if source.dim() == 4:
            source = source.permute(0, 2, 3, 1)
        expected = self.network.shape
        if expected is not None and not fits(tuple(source.shape[1:]), expected):
            raise ValueError(
                f"model takes items of shape {show(expected)} (channels last), and the payload's "
                f"are {list(source.shape[1:])}; crop them, or build the model for any size"
            )
        return self.run(source, csi)


class KerasReceiver(_End, Receiver):
    """A Keras or TensorFlow model that turns received symbols into an estimate.

        y [B, 1, K] ─► reals ─► the model's input shape ─► model ─► channels first ─► estimate

    Symbols come as the front end leaves them. Where the model takes latents of any size, they have
    the image's aspect: height and width over the one stride that gives their number. Arguments as
    in :class:`KerasTransmitter`.
    """

    def __init__(
        self,
        model: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        backend: Backend = "tensorflow",
        trainable: bool = True,
        pairing: Pairing = "halves",
    ) -> None:
        spec = {"model": model, "arguments": dict(arguments or {}), "pairing": pairing}
        super().__init__("decoder", spec, backend, trainable)

    def forward(
        self,
        y: Tensor,
        csi: CSI,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the estimate [B, *shape], as the model gives it: images in [0, 1].

        Another output than an image, such as scores of classes, is handed on as it is.
        """
        if csi.h is not None or y.shape[1] != 1:
            raise ValueError(
                f"the keras receiver takes equalised symbols [B, 1, K], got {list(y.shape)}; use a "
                "front end such as lmmse"
            )
        latent = latent_shape(2 * y.shape[-1], self.network.shape, shape)
        estimate = self.run(unpair(y, self.pairing, latent), csi)
        if estimate.dim() != 4:
            return estimate
        estimate = estimate.permute(0, 3, 1, 2)
        if tuple(estimate.shape[1:]) != shape:
            raise ValueError(
                f"model gives an image {list(estimate.shape[1:])} for a source {list(shape)}; the "
                "sides of the source may have to be multiples of the model's stride"
            )
        return estimate


def latent_shape(
    reals: int, expected: tuple[int | None, ...] | None, source: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape in which a receiver's model gets so many reals per item.

    Args:
        reals: 2K for K symbols.
        expected: of the model's input without batch; None for a free axis, or where it is unknown.
        source: [C, H, W] of the image.
    """
    if expected is None or (len(expected) == 1 and expected[0] in (None, reals)):
        return (reals,)
    whole = tuple(n for n in expected if n is not None)
    if len(whole) == len(expected) and math.prod(whole) == reals:
        return whole
    if len(expected) == 3 and len(source) == 3 and expected[2] and reals % expected[2] == 0:
        for stride in range(1, LARGEST_STRIDE + 1):
            grid = -(-source[1] // stride), -(-source[2] // stride)
            if math.prod(grid) * expected[2] == reals and fits((*grid, expected[2]), expected):
                return (*grid, expected[2])
    raise ValueError(
        f"model takes {show(expected)} per item, and {reals // 2} symbols are {reals} reals; name "
        "the decoder that belongs to the transmitter: receiver: {kind: keras, model: ...}"
    )


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Tell whether a shape is one that a model takes; None is any size."""
    return len(shape) == len(expected) and all(
        e in (None, n) for n, e in zip(shape, expected, strict=True)
    )


def show(shape: tuple[int | None, ...]) -> str:
    """Return a shape with a question mark for what is free."""
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"
