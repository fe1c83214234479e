"""The augmentations of single images by name, in clean arithmetic or in that of the reference code."""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable

import tensorflow as tf

from effnetv2_keras.data.augment import autoaugment, geometry, randaugment, reference
from effnetv2_keras.data.augment.randaugment import Op

RANDAUGMENT_OPS: dict[str, dict[str, Op]] = {"clean": randaugment.OPS, "original": reference.RANDAUGMENT_OPS}
AUTOAUGMENT_OPS: dict[str, dict[str, Op]] = {"clean": autoaugment.OPS, "original": reference.AUTOAUGMENT_OPS}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A random change of one image.

    Args:
        name: one of ``AUGMENTATIONS``: ``"randaug"`` (RandAugment), ``"autoaug"`` (AutoAugment), ``"ra_aa"`` (one of
            the two, each for half of the images), or ``"none"``.
        arithmetic: ``"clean"``, or ``"original"`` for the reference code's.
        magnitude: of RandAugment, 0 to 30; 0 turns it off.
        num_layers: operations of RandAugment per image.

    Raises:
        ValueError: for an unknown name or arithmetic; when called, for a magnitude or number of layers out of range.
    """

    name: str
    arithmetic: str = "clean"
    magnitude: float = 0.0
    num_layers: int = 2

    def __post_init__(self) -> None:
        for what, value, known in (
            ("augmentation", self.name, AUGMENTATIONS),
            ("arithmetic", self.arithmetic, RANDAUGMENT_OPS),
        ):
            if value not in known:
                raise ValueError(f"Unknown {what} {value!r}; use one of: {', '.join(known)}.")

    def __call__(self, image: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        """Changes an image.

        Args:
            image: ``[H, W, 3]``, levels 0..255, uint8, or float32, which is then clipped and its fractions dropped.
            seed: int32 ``[2]``; the result is a function of it and the image.

        Returns:
            The image, ``[H, W, 3]``, of the type given.
        """
        return AUGMENTATIONS[self.name](self, image, seed)

    def randaugment(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies RandAugment: see ``randaugment.randaugment``."""
        augmented = randaugment.randaugment(
            tf.saturate_cast(image, tf.uint8),
            magnitude=self.magnitude,
            num_layers=self.num_layers,
            seed=seed,
            ops=RANDAUGMENT_OPS[self.arithmetic],
        )
        return tf.cast(augmented, image.dtype)

    def autoaugment(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies AutoAugment: see ``autoaugment.autoaugment``."""
        augmented = autoaugment.autoaugment(
            tf.saturate_cast(image, tf.uint8), seed=seed, ops=AUTOAUGMENT_OPS[self.arithmetic]
        )
        return tf.cast(augmented, image.dtype)

    def either(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Applies one of the two, each with a probability of one half."""
        coin_seed, own_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        return tf.cond(
            tf.random.stateless_uniform([], coin_seed) < 0.5,
            functools.partial(self.randaugment, image, own_seed),
            functools.partial(self.autoaugment, image, own_seed),
        )


AUGMENTATIONS: dict[str, Callable[[Augmentation, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "randaug": Augmentation.randaugment,
    "autoaug": Augmentation.autoaugment,
    "ra_aa": Augmentation.either,
    "none": lambda augmentation, image, seed: image,
}
"""What each ``data.augment`` does to an image, given its seed."""

_DARKEST_NOISE = {"clean": 0.0, "original": 127.5}


def noise_cutout(image: tf.Tensor, *, arithmetic: str, seed: tf.Tensor) -> tf.Tensor:
    """Covers a square of half the side of the image, clipped at the border, with noise (reference code, fine-tuning).

    The square is ``2 * (min(H, W) // 4)`` pixels wide, around a centre drawn over all pixels. The noise is uniform.

    Args:
        image: ``[H, W, 3]``, levels 0..255, uint8 or float32.
        arithmetic: ``"clean"`` for noise over all levels, ``"original"`` for noise from 127.5 up: the reference code
            drew from 0 to 1 for images from -1 to 1.
        seed: int32 ``[2]``; the result is a function of it and the image.

    Returns:
        The image, ``[H, W, 3]``, of the type given.
    """
    place_seed, noise_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

    def noise(shape: tf.Tensor) -> tf.Tensor:
        drawn = tf.random.stateless_uniform(shape, noise_seed, _DARKEST_NOISE[arithmetic], 255.0)
        return tf.cast(drawn, image.dtype)

    side = 2 * (tf.reduce_min(tf.shape(image)[:2]) // 4)
    covered = geometry.cover(image, side, tf.random.stateless_uniform([2], place_seed), noise)
    return tf.ensure_shape(covered, image.shape)
