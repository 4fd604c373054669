"""Keras models that the tests of the bridge name in scenarios, as a user's own module would."""

from __future__ import annotations

from typing import Any

import keras


def halves(channels: int = 4) -> tuple[Any, Any]:
    """A small codec of stride 2 with batch normalisation, for images of any size."""
    image, latent = keras.Input((None, None, 3)), keras.Input((None, None, channels))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="tanh")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(channels, 3, padding="same")(x)
    to_image = keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="sigmoid")
    y = to_image(latent)
    return keras.Model(image, x), keras.Model(latent, y)


def sees_snr() -> Any:
    """Scales its latents by the SNR in dB."""
    image, snr = keras.Input((None, None, 3)), keras.Input((1,))
    x = keras.layers.Conv2D(4, 2, strides=2)(image)
    scale = keras.layers.Reshape((1, 1, 4))(keras.layers.Dense(4)(snr))
    return keras.Model([image, snr], x + scale)


def odd() -> Any:
    """Three reals per position."""
    return keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 4, strides=4)])


def dense(count: int = 8) -> Any:
    """Works at 8 x 8 only."""
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(count)]
    return keras.Sequential(layers)


def two_offsets() -> Any:
    """Two offsets with one and the same gradient."""

    class Offset(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.one = self.add_weight((shape[-1],), "zeros", name="one")
            self.other = self.add_weight((shape[-1],), "zeros", name="other")

        def call(self, x: Any) -> Any:
            return x + self.one + self.other

    image = keras.Input((2, 2, 3))
    return keras.Model(image, Offset()(image))


def complex_symbols() -> Any:
    """Gives complex64."""
    image = keras.Input((2, 2, 3))

    class Turn(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.complex(x, 2 * x)

    return keras.Model(image, Turn(dtype="complex64", autocast=False)(image))


def noisy() -> Any:
    """Draws random numbers in training."""
    layers = [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 4, strides=4),
              keras.layers.Dropout(0.5)]  # fmt: skip
    return keras.Sequential(layers)


class Unbuilt(keras.Model):
    """Has no weights before its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = keras.layers.Conv2D(4, 4, strides=4)

    def call(self, x: Any) -> Any:
        return self.layer(x)


def subclassed() -> Any:
    """A class of its own that has seen an example."""
    model = Unbuilt()
    model(keras.ops.zeros((1, 8, 8, 3)))
    return model


def three_inputs() -> Any:
    """One too many."""
    inputs = [keras.Input((4,)) for _ in range(3)]
    return keras.Model(inputs, keras.layers.Add()(inputs))


def nothing() -> int:
    """No model at all."""
    return 3


def in_bytes() -> tuple[Any, Any]:
    """Sends the pixels as they are, and gives an image in 0 to 255, as many a decoder does."""
    image, latent = keras.Input((8, 8, 3)), keras.Input((192,))
    x = keras.layers.Reshape((192,))(image)
    y = keras.layers.Rescaling(255.0)(keras.layers.Reshape((8, 8, 3))(latent))
    return keras.Model(image, x), keras.Model(latent, y)
