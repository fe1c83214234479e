import collections
import typing

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.augment import augmentation, autoaugment, randaugment, reference
from effnetv2_keras.data.augment.augmentation import Augmentation
from tests.data.augment.test_randaugment import pictures, wavy

SEED = (5, 6)


def augmented(name, arithmetic, magnitude, image, seed):
    augment = Augmentation(name, arithmetic)
    return augment(image, seed=tf.convert_to_tensor(seed), strengths=augment.strengths_at(magnitude))


def options(field):
    return typing.get_args(DataConfig.model_fields[field].annotation)


def test_every_choice_of_the_configuration_is_there():
    assert options("augment") == tuple(augmentation.AUGMENTATIONS)
    for tables in (augmentation.RANDAUGMENT_OPS, augmentation.AUTOAUGMENT_OPS):
        assert options("augment_arithmetic") == tuple(tables)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "randaugment"}, "Unknown augmentation 'randaugment'; use one of: randaug, autoaug, ra_aa, none"),
        ({"name": "randaug", "arithmetic": "exact"}, "Unknown arithmetic 'exact'; use one of: clean, original"),
    ],
)
def test_unknown_names(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


@pytest.mark.parametrize("arithmetic", ["clean", "original"])
@pytest.mark.parametrize("magnitude", [-1.0, 31.0])
def test_magnitude_out_of_range(arithmetic, magnitude):
    for name in ("randaug", "ra_aa"):
        with pytest.raises(ValueError, match=rf"magnitude is {magnitude}, but must be in \[0, 30\]; 0 turns it off"):
            Augmentation(name, arithmetic).strengths_at(magnitude)


@pytest.mark.parametrize("arithmetic", ["clean", "original"])
def test_names_mean_their_operations(arithmetic):
    image = tf.constant(pictures(32)[1])
    ra_ops = {"clean": randaugment.OPS, "original": reference.RANDAUGMENT_OPS}[arithmetic]
    aa_ops = {"clean": autoaugment.OPS, "original": reference.AUTOAUGMENT_OPS}[arithmetic]
    strengths = randaugment.strengths_at(12.0, ra_ops)
    for number in range(6):
        seed = tf.constant([number, 1])
        expected = {
            "randaug": randaugment.randaugment(image, magnitude=12.0, num_layers=3, seed=seed, ops=ra_ops),
            "autoaug": autoaugment.autoaugment(image, seed=seed, ops=aa_ops),
            "none": image,
        }
        for name, output in expected.items():
            found = Augmentation(name, arithmetic, num_layers=3)(image, seed=seed, strengths=strengths)
            np.testing.assert_array_equal(found, output)


def test_arithmetics_differ():
    image = tf.constant(pictures(32)[1])
    for name in ("randaug", "autoaug", "ra_aa"):
        outputs = [
            [augmented(name, arithmetic, 12.0, image, [seed, 0]).numpy() for seed in range(6)]
            for arithmetic in ("clean", "original")
        ]
        assert not np.array_equal(*outputs)


def test_ra_aa_is_each_of_the_two_for_half_of_the_images():
    image = tf.constant(pictures(32)[1])

    taken = collections.Counter()
    for index in range(60):
        seed = tf.constant([index, 2])
        own_seed = tf.random.experimental.stateless_split(seed, 2)[1]
        either = augmented("ra_aa", "clean", 12.0, image, seed)
        one = np.array_equal(either, augmented("randaug", "clean", 12.0, image, own_seed))
        other = np.array_equal(either, Augmentation("autoaug")(image, seed=own_seed))
        assert one or other
        taken.update(one=one, other=other)
    assert min(taken["one"], taken["other"]) > 16  # 30 each; the standard deviation is 4


@pytest.mark.parametrize("name", augmentation.AUGMENTATIONS)
@pytest.mark.parametrize("arithmetic", ["clean", "original"])
def test_the_same_eagerly_and_inside_a_dataset(name, arithmetic):
    image = pictures(32)[0]
    dataset = tf.data.Dataset.range(6).map(
        lambda index: augmented(name, arithmetic, 15.0, tf.constant(image), tf.stack([tf.cast(index, tf.int32), 4]))
    )
    assert dataset.element_spec == tf.TensorSpec([32, 32, 3], tf.uint8)
    for index, mapped in enumerate(dataset.as_numpy_iterator()):
        np.testing.assert_array_equal(mapped, augmented(name, arithmetic, 15.0, tf.constant(image), [index, 4]))


def test_fractions_and_levels_out_of_range_are_cut_off_first():
    image = tf.constant(wavy())
    beyond = tf.cast(image, tf.float32) + 0.9
    beyond = tf.where(image == 0, -20.0, tf.where(image == 255, 290.0, beyond))
    for name in ("randaug", "autoaug", "ra_aa"):
        for number in range(4):
            seed = tf.constant([number, 0])
            output = augmented(name, "original", 10.0, beyond, seed)
            assert output.dtype == tf.float32
            np.testing.assert_array_equal(output, augmented(name, "original", 10.0, image, seed))
    assert Augmentation("none")(beyond, seed=tf.constant(SEED)) is beyond


@pytest.mark.parametrize(("arithmetic", "darkest"), [("clean", 0), ("original", 127.5)])
@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
@pytest.mark.parametrize("shape", [(40, 40), (41, 55)])
def test_noise_cutout_covers_half_the_side(arithmetic, darkest, dtype, shape):
    image = tf.cast(tf.fill([*shape, 3], 7), dtype)  # dark: next to no noise is like it
    half, covered, noise = 2 * (min(shape) // 4), [], []
    for number in range(40):
        output = augmentation.noise_cutout(image, arithmetic=arithmetic, seed=tf.constant([number, 3])).numpy()
        assert output.dtype == dtype.as_numpy_dtype
        changed = (output != 7).any(axis=-1)
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        np.testing.assert_array_equal(changed, rows[:, None] & columns[None])
        covered.append((rows.sum(), columns.sum()))
        noise.append(output[changed])
    assert np.max(covered, axis=0).tolist() == [half, half]
    assert np.min(covered) >= half // 2
    assert len(set(covered)) > 5  # clipped at the border, here and there
    noise = np.concatenate(noise)
    assert darkest - 1 <= noise.min() <= darkest + 1
    assert 254 <= noise.max() <= 255
    assert noise.mean() == pytest.approx((darkest + 255) / 2, abs=2)


def test_noise_cutout_is_the_same_eagerly_and_inside_a_dataset():
    image = tf.constant(wavy())

    def cover(index):
        return augmentation.noise_cutout(image, arithmetic="clean", seed=tf.stack([tf.cast(index, tf.int32), 8]))

    dataset = tf.data.Dataset.range(4).map(cover)
    assert dataset.element_spec == tf.TensorSpec([48, 64, 3], tf.uint8)
    outputs = list(dataset.as_numpy_iterator())
    for index, mapped in enumerate(outputs):
        np.testing.assert_array_equal(mapped, cover(tf.constant(index)))
    assert len({output.tobytes() for output in outputs}) == 4
