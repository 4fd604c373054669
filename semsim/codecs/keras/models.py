"""The published networks in Keras, on either backend: to train here, or to load weights into.

Convolutions pad and start as Keras does, so they are the networks of ``deepjscc`` with
``padding: keras``.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def gdn_layer() -> Any:
    """Return the Keras layer GDN, known to Keras as ``semsim>GDN``; see :mod:`semsim.nn.gdn`.

    Its weights are ``beta`` [C] and ``gamma`` [C, C] (from, to); what is negative counts as 0.
    """
    import keras

    @keras.saving.register_keras_serializable("semsim")
    class GDN(keras.layers.Layer):
        """Divide each channel by the root of a weighted energy of all channels."""

        def __init__(self, inverse: bool = False, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inverse = inverse

        def build(self, input_shape: tuple[int | None, ...]) -> None:
            channels = input_shape[-1]

            def start(shape: Any, dtype: Any = None) -> Any:
                return 0.1 * keras.ops.eye(channels, dtype=dtype) + 1e-4

            self.beta = self.add_weight((channels,), "ones", name="beta")
            self.gamma = self.add_weight((channels, channels), start, name="gamma")

        def call(self, x: Any) -> Any:
            relu, matmul = keras.ops.relu, keras.ops.matmul
            energy = matmul(keras.ops.square(x), relu(self.gamma)) + relu(self.beta) + 1e-6
            root = keras.ops.sqrt(energy)
            return x * root if self.inverse else x / root

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "inverse": self.inverse}

    return GDN


def bourtsoulatze2019(channels: int = 8, size: int | None = None) -> tuple[Any, Any]:
    """Return encoder and decoder of the first DeepJSCC; :class:`semsim.nn.codec.Encoder2019`.

    Args:
        channels: reals per latent position of 4 x 4 pixels: CBR = channels / 96.
        size: side of the images; any by default.
    """
    import keras

    x = image = keras.Input((size, size, 3))
    for filters, strides in ((16, 2), (32, 2), (32, 1), (32, 1), (channels, 1)):
        x = _slopes(0.25)(_conv(filters, 5, strides)(x))
    grid = size and size // 4
    y = latent = keras.Input((grid, grid, channels))
    for filters, strides in ((32, 1), (32, 1), (32, 1), (16, 2), (3, 2)):
        y = _conv(filters, 5, strides, up=True)(y)
        y = keras.layers.Activation("sigmoid")(y) if filters == 3 else _slopes(0.25)(y)
    return keras.Model(image, x), keras.Model(latent, y)


def adjscc(
    channels: int = 16, width: int = 256, adaptive: bool = True, size: int | None = None
) -> tuple[Any, Any]:
    """Return encoder and decoder of ADJSCC; see :mod:`semsim.nn.adjscc`.

    Args:
        channels: reals per latent position of 4 x 4 pixels: CBR = channels / 96.
        width: channels within.
        adaptive: whether both take the SNR in dB, [B, 1], as their second input.
        size: side of the images; any by default.
    """
    import keras

    gdn = gdn_layer()
    snr_tx, snr_rx = keras.Input((1,)), keras.Input((1,))
    x = image = keras.Input((size, size, 3))
    shapes = ((width, 9, 2), (width, 5, 2), (width, 5, 1), (width, 5, 1), (channels, 5, 1))
    for index, (filters, kernel, strides) in enumerate(shapes):
        x = gdn()(_conv(filters, kernel, strides)(x))
        if index < 4:
            x = _attention(_slopes(0.0)(x), snr_tx if adaptive else None)
    grid = size and size // 4
    y = latent = keras.Input((grid, grid, channels))
    shapes = ((width, 5, 1), (width, 5, 1), (width, 5, 1), (width, 5, 2), (3, 9, 2))
    for index, (filters, kernel, strides) in enumerate(shapes):
        y = gdn(inverse=True)(_conv(filters, kernel, strides, up=True)(y))
        if index < 4:
            y = _attention(_slopes(0.0)(y), snr_rx if adaptive else None)
    y = keras.layers.Activation("sigmoid")(y)
    if adaptive:
        return keras.Model([image, snr_tx], x), keras.Model([latent, snr_rx], y)
    return keras.Model(image, x), keras.Model(latent, y)


def _conv(filters: int, size: int, strides: int, *, up: bool = False) -> Any:
    import keras

    layer = keras.layers.Conv2DTranspose if up else keras.layers.Conv2D
    return layer(filters, size, strides=strides, padding="same")


def _slopes(start: float) -> Any:
    import keras

    first = keras.initializers.Constant(start)
    return keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer=first)


def _attention(x: Any, snr: Any) -> Any:
    """Apply an AF module, or nothing where there is no SNR."""
    import keras

    if snr is None:
        return x
    layers, width = keras.layers, int(x.shape[-1])
    context = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), snr])
    scale = layers.Dense(max(width // 16, 4), activation="relu")(context)
    scale = layers.Dense(width, activation="sigmoid")(scale)
    return layers.Multiply()([x, layers.Reshape((1, 1, width))(scale)])
