"""The augmentations that ``data.augment`` names, in clean arithmetic or in that of the reference code."""

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
    """A random augmentation of one image.

    Args:
        name: a key of ``AUGMENTATIONS``: ``"randaug"`` (RandAugment), ``"autoaug"`` (AutoAugment), ``"ra_aa"`` (for
            each image, one of the two with equal probability), or ``"none"``.
        arithmetic: ``"clean"``, or ``"original"`` for the arithmetic of the reference code.
        num_layers: number of RandAugment operations per image, at least 1.

    Raises:
        ValueError: if the name or the arithmetic is unknown. Calling the augmentation raises it if the number of
            layers is out of range.
    """

    name: str
    arithmetic: str = "clean"
    num_layers: int = 2

    def __post_init__(self) -> None:
        for what, value, known in (
            ("augmentation", self.name, AUGMENTATIONS),
            ("arithmetic", self.arithmetic, RANDAUGMENT_OPS),
        ):
            if value not in known:
                raise ValueError(f"Unknown {what} {value!r}; use one of: {', '.join(known)}.")

    def strengths_at(self, magnitude: float) -> tf.Tensor | None:
        """Returns how strong each operation of RandAugment is; see ``randaugment.strengths_at``."""
        return randaugment.strengths_at(magnitude, RANDAUGMENT_OPS[self.arithmetic])

    def __call__(self, image: tf.Tensor, *, seed: tf.Tensor, strengths: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the augmented image.

        Args:
            image: ``[H, W, 3]``, uint8 or float32, levels 0..255. Except with ``"none"``, float levels are clipped to
                0..255 and their fractions dropped.
            seed: int32 ``[2]``; the result depends only on the seed, the strengths and the image.
            strengths: of RandAugment's operations, see ``strengths_at``; None turns RandAugment off.

        Returns:
            The augmented image, ``[H, W, 3]``, of the dtype of ``image``.
        """
        return AUGMENTATIONS[self.name](self, image, seed, strengths)

    def randaugment(self, image: tf.Tensor, seed: tf.Tensor, strengths: tf.Tensor | None) -> tf.Tensor:
        """Applies RandAugment; see ``randaugment.randaugment_at``."""
        augmented = randaugment.randaugment_at(
            tf.saturate_cast(image, tf.uint8),
            strengths,
            num_layers=self.num_layers,
            seed=seed,
            ops=RANDAUGMENT_OPS[self.arithmetic],
        )
        return tf.cast(augmented, image.dtype)

    def autoaugment(self, image: tf.Tensor, seed: tf.Tensor, _: tf.Tensor | None = None) -> tf.Tensor:
        """Applies AutoAugment; see ``autoaugment.autoaugment``."""
        augmented = autoaugment.autoaugment(
            tf.saturate_cast(image, tf.uint8), seed=seed, ops=AUTOAUGMENT_OPS[self.arithmetic]
        )
        return tf.cast(augmented, image.dtype)

    def either(self, image: tf.Tensor, seed: tf.Tensor, strengths: tf.Tensor | None) -> tf.Tensor:
        """Applies RandAugment or AutoAugment, each with probability one half."""
        coin_seed, own_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        return tf.cond(
            tf.random.stateless_uniform([], coin_seed) < 0.5,
            functools.partial(self.randaugment, image, own_seed, strengths),
            functools.partial(self.autoaugment, image, own_seed),
        )


AUGMENTATIONS: dict[str, Callable[[Augmentation, tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor]] = {
    "randaug": Augmentation.randaugment,
    "autoaug": Augmentation.autoaugment,
    "ra_aa": Augmentation.either,
    "none": lambda augmentation, image, seed, strengths: image,
}
"""The method for each value of ``data.augment``: ``(augmentation, image, seed, strengths) -> image``."""

_DARKEST_NOISE = {"clean": 0.0, "original": 127.5}


def noise_cutout(image: tf.Tensor, *, arithmetic: str, seed: tf.Tensor) -> tf.Tensor:
    """Returns the image with a square of half its shorter side covered by noise (reference code, fine-tuning).

    The square has a side of ``2 * (min(H, W) // 4)`` pixels. Its center is drawn uniformly over all pixels, and the
    square is clipped at the border. The noise is uniform.

    Args:
        image: ``[H, W, 3]``, uint8 or float32, levels 0..255.
        arithmetic: ``"clean"`` for noise over all levels; ``"original"`` for noise from 127.5 to 255, because the
            reference code draws noise from 0 to 1 for images whose range is -1 to 1.
        seed: int32 ``[2]``; the result depends only on the seed and the image.

    Returns:
        The image, ``[H, W, 3]``, of the dtype of ``image``.
    """
    place_seed, noise_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))

    def noise(shape: tf.Tensor) -> tf.Tensor:
        drawn = tf.random.stateless_uniform(shape, noise_seed, _DARKEST_NOISE[arithmetic], 255.0)
        return tf.cast(drawn, image.dtype)

    side = 2 * (tf.reduce_min(tf.shape(image)[:2]) // 4)
    covered = geometry.cover(image, side, tf.random.stateless_uniform([2], place_seed), noise)
    return tf.ensure_shape(covered, image.shape)
