import collections

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.data.augment import autoaugment, randaugment, reference
from effnetv2_keras.data.augment.randaugment import Op
from tests.data.augment.test_randaugment import pictures, wavy

# The reference code's policy v0: operation, probability, level.
POLICY_V0 = """
Equalize .8 1, ShearY .8 4 | Color .4 9, Equalize .6 3 | Color .4 1, Rotate .6 8 | Solarize .8 3, Equalize .4 7 |
Solarize .4 2, Solarize .6 2 | Color .2 0, Equalize .8 8 | Equalize .4 8, SolarizeAdd .8 3 | ShearX .2 9, Rotate .6 8 |
Color .6 1, Equalize 1 2 | Invert .4 9, Rotate .6 0 | Equalize 1 9, ShearY .6 3 | Color .4 7, Equalize .6 0 |
Posterize .4 6, AutoContrast .4 7 | Solarize .6 8, Color .6 9 | Solarize .2 4, Rotate .8 9 |
Rotate 1 7, TranslateY .8 9 | ShearX 0 0, Solarize .8 4 | ShearY .8 0, Color .6 4 | Color 1 0, Rotate .6 2 |
Equalize .8 4, Equalize 0 8 | Equalize 1 4, AutoContrast .6 2 | ShearY .4 7, SolarizeAdd .6 7 |
Posterize .8 2, Solarize .6 10 | Solarize .6 8, Equalize .6 1 | Color .8 6, Rotate .4 5
"""
NAMES = sorted(autoaugment.OPS)
TABLES = {"clean": autoaugment.OPS, "original": reference.AUTOAUGMENT_OPS}


def policy():
    for pair in POLICY_V0.split("|"):
        steps = (step.split() for step in pair.split(","))
        yield tuple((name, float(probability), float(level)) for name, probability, level in steps)


def code(name, level):
    return 1 + NAMES.index(name) * 11 + int(level)


def recorder(name):
    """An operation that writes down its name and level: the image is the list of what was done to it."""

    def record(image, level):
        done = tf.fill([1, 1, 3], tf.cast(code(name, 0) + tf.cast(level, tf.int32), tf.uint8))
        return tf.concat([image[:, 1:], done], axis=1)

    return Op(record, lambda level: level)


def test_the_sub_policies_are_drawn_as_in_the_reference_code():
    assert len(list(policy())) == len(autoaugment.POLICY) == 25
    expected = collections.Counter()
    for (first, p, first_level), (second, q, second_level) in policy():
        one, two = code(first, first_level), code(second, second_level)
        for done, probability in (
            ((one, two), p * q), ((0, one), p * (1 - q)), ((0, two), (1 - p) * q), ((0, 0), (1 - p) * (1 - q))
        ):  # fmt: skip
            expected[done] += probability / 25
    count, ops = 8000, {name: recorder(name) for name in NAMES}
    outputs = tf.data.Dataset.range(count).map(
        lambda index: autoaugment.autoaugment(
            tf.zeros([1, 2, 3], tf.uint8), seed=tf.stack([3, tf.cast(index, tf.int32)]), ops=ops
        )
    )
    drawn = collections.Counter(tuple(output[0, :, 0]) for output in outputs.as_numpy_iterator())
    assert set(drawn) <= {done for done, probability in expected.items() if probability}
    for done, probability in expected.items():
        deviation = np.sqrt(count * probability * (1 - probability))
        assert abs(drawn[done] - count * probability) <= 4 * deviation + 1e-9, done


@pytest.mark.parametrize(
    ("names", "at_5", "at_10"),
    [
        (["Rotate"], 15, 30),
        (["ShearX", "ShearY"], 0.15, 0.3),
        (["TranslateY"], 0.225, 0.45),
        (["Posterize"], 2, 4),
        (["Solarize"], 128, 256),
        (["SolarizeAdd"], 55, 110),
        (["Color"], 0.45, 0.9),
    ],
)
def test_clean_strengths(names, at_5, at_10):
    for name in names:
        assert [autoaugment.OPS[name].strength(level) for level in (0, 5, 10)] == pytest.approx([0, at_5, at_10])


@pytest.mark.parametrize("name", [name for name in NAMES if autoaugment.OPS[name].strength])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_higher_level_changes_the_image_more(name, sign):
    def change(image, level):
        place = tf.constant([0.5, 0.5])
        op = autoaugment.OPS[name]
        changed = op.apply(tf.constant(image), op.at(level), sign=tf.constant(sign), place=place)
        return np.abs(changed.numpy().astype(int) - image).mean()

    changes = [np.mean([change(image, level) for image in pictures()]) for level in (0.0, 2.5, 5.0, 7.5, 10.0)]
    assert changes == sorted(changes)
    assert changes[0] == 0
    assert changes[-1] > changes[1] > 0


@pytest.mark.parametrize("table", TABLES)
def test_the_same_eagerly_and_inside_a_dataset(table):
    image = pictures(32)[1]

    def augment(index):
        seed = tf.stack([tf.cast(index, tf.int32), 9])
        return autoaugment.autoaugment(tf.constant(image), seed=seed, ops=TABLES[table])

    dataset = tf.data.Dataset.range(12).map(augment)
    assert dataset.element_spec == tf.TensorSpec([32, 32, 3], tf.uint8)
    mapped = list(dataset.as_numpy_iterator())
    for index, output in enumerate(mapped):
        np.testing.assert_array_equal(output, augment(tf.constant(index)))
    assert len({output.tobytes() for output in mapped}) > 6


@pytest.mark.parametrize("table", TABLES)
def test_every_step_of_the_policy_runs(table):
    steps = {step for pair in autoaugment.POLICY for step in pair}
    choices = [(TABLES[table][name], level) for name, _, level in sorted(steps)]
    image = tf.constant(wavy())
    outputs = [
        randaugment.apply_in_turn(
            image,
            [op for op, _ in choices],
            tf.constant([number]),
            tf.constant([op.at(level)], tf.float32),
            tf.constant([[0.7, 0.5, 0.5]]),
        )
        for number, (op, level) in enumerate(choices)
    ]
    for (op, level), output in zip(choices, outputs):
        expected = op.apply(image, op.at(level), sign=tf.constant(1.0), place=tf.constant([0.5, 0.5]))
        np.testing.assert_array_equal(output, expected)
