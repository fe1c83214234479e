"""AutoAugment with its policy for ImageNet (Cubuk et al. 2019), called "v0" in the reference code.

For each image, one of 25 sub-policies is drawn. A sub-policy has two operations; each is applied with its own
probability, at its own level from 0 to 10.

The clean operations are those of ``randaugment``, with these strengths:

========================  ================================  ===============
operation                 strength at level l               drawn at random
========================  ================================  ===============
Rotate                    3 l degrees                       direction
ShearX, ShearY            slope 0.03 l, about the center    direction
TranslateY                0.045 l of the height             direction
Posterize                 floor(0.4 l + 1/2) bits cleared   nothing
Solarize                  levels from 256 - 25.6 l inverted nothing
SolarizeAdd               11 l added to levels below 128    nothing
Color                     factor 1 +- 0.09 l                sign
AutoContrast, Equalize,   always the same                   nothing
Invert
========================  ================================  ===============

Every operation grows stronger with the level, as in the paper's ranges (its translation of 150 of 331 pixels is 0.45
of the side). In the reference code (``reference.AUTOAUGMENT_OPS``), Posterize and Solarize become weaker as the level
grows, Color has the factor 0.1 + 0.18 l, and a translation is 25 l pixels regardless of the image size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Callable

import tensorflow as tf

from effnetv2_keras.data.augment import randaugment
from effnetv2_keras.data.augment.randaugment import Op

Step = tuple[str, float, float]
"""An operation's name, its probability in [0, 1], and its level in [0, 10]."""

POLICY: tuple[tuple[Step, Step], ...] = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)
"""The sub-policies (reference code, ``policy_v0``)."""


def _at_level(name: str, strength: Callable[[float], float]) -> Op:
    return dataclasses.replace(randaugment.OPS[name], strength=strength)


OPS: dict[str, Op] = {
    **{name: randaugment.OPS[name] for name in ("AutoContrast", "Equalize", "Invert")},
    "Rotate": _at_level("Rotate", lambda level: 3.0 * level),
    "ShearX": _at_level("ShearX", lambda level: 0.03 * level),
    "ShearY": _at_level("ShearY", lambda level: 0.03 * level),
    "TranslateY": _at_level("TranslateY", lambda level: 0.045 * level),
    "Posterize": _at_level("Posterize", lambda level: math.floor(0.4 * level + 0.5)),
    "Solarize": _at_level("Solarize", lambda level: math.floor(25.6 * level)),
    "SolarizeAdd": _at_level("SolarizeAdd", lambda level: round(11.0 * level)),
    "Color": _at_level("Color", lambda level: 0.09 * level),
}
"""The operations of ``POLICY`` by name. Their strength is a function of a level in [0, 10]."""


def autoaugment(image: tf.Tensor, *, seed: tf.Tensor, ops: Mapping[str, Op] = OPS) -> tf.Tensor:
    """Applies one of the 25 sub-policies of ``POLICY``, drawn uniformly.

    Args:
        image: uint8 ``[H, W, 3]``.
        seed: int32 ``[2]``; the result depends only on the seed and the image.
        ops: the operation for each name in the policy.

    Returns:
        The augmented image, uint8 ``[H, W, 3]``.
    """
    # The last operation, of the steps that are not drawn, changes nothing.
    names = sorted({name for pair in POLICY for name, _, _ in pair})
    numbers = tf.constant([[names.index(name) for name, _, _ in pair] for pair in POLICY])
    strengths = tf.constant([[ops[name].at(level) for name, _, level in pair] for pair in POLICY], tf.float32)
    probabilities = tf.constant([[probability for _, probability, _ in pair] for pair in POLICY])
    drawn = tf.random.stateless_uniform([9], seed)
    draws = tf.reshape(drawn[1:], [2, 4])
    pair = tf.cast(drawn[0] * len(POLICY), tf.int32)
    chosen = tf.where(draws[:, 0] < probabilities[pair], numbers[pair], len(names))
    choices = [*(ops[name] for name in names), Op(tf.identity)]
    return randaugment.apply_in_turn(image, choices, chosen, strengths[pair], draws[:, 1:])
