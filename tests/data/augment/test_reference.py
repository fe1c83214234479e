import math

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.data.augment import geometry, randaugment, reference
from tests.data.augment.test_randaugment import NAMES, pictures, wavy

TABLES = {"RandAugment": reference.RANDAUGMENT_OPS, "AutoAugment": reference.AUTOAUGMENT_OPS}
CENTRE = (0.5, 0.5)


def apply(name, image, level, sign=1.0, place=CENTRE, table="RandAugment"):
    op = TABLES[table][name]
    return op.apply(tf.constant(image), op.at(level), sign=tf.constant(sign), place=tf.constant(place)).numpy()


@pytest.mark.parametrize(
    ("function", "argument", "total", "weighted", "at_10_20", "at_40_5"),
    [
        (reference.rotate, 30.0, 1193659, 58446526, (159, 209, 3), (175, 225, 19)),
        (reference.posterize, 4, 1114304, 54752416, None, None),
        (reference.solarize, 128, 588973, 28744135, (85, 35, 14), None),
        (reference.solarize_add, 110, 1683331, 82493124, (170, 220, 124), None),
        (reference.color, 1.9, 1206520, 59197994, (160, 255, 0), None),
        (reference.contrast, 1.9, 1689019, 82836240, (255, 255, 15), None),
        (reference.brightness, 1.9, 1740554, 85341314, (255, 255, 26), None),
        (reference.sharpness, 1.9, 1184463, 58191315, (170, 220, 0), None),
        (reference.shear_x, 0.3, 1183033, 58021076, (185, 235, 29), None),
        (reference.translate_x, 10.0, 1187779, 58191856, (220, 14, 64), None),
    ],
)
def test_outputs_of_the_reference_code(function, argument, total, weighted, at_10_20, at_40_5):
    output = function(tf.constant(wavy()), argument).numpy().astype(np.int64)
    assert output.sum() == total
    assert (output.ravel() * (np.arange(output.size) % 97 + 1)).sum() == weighted
    for pixel, expected in (((10, 20), at_10_20), ((40, 5), at_40_5)):
        assert expected is None or tuple(output[pixel]) == expected


def test_equalize_and_invert_are_shared():
    for table in TABLES.values():
        assert list(table) == NAMES
        assert table["Equalize"].function is randaugment.equalize
        assert table["Invert"].function is randaugment.invert


@pytest.mark.parametrize(
    ("magnitude", "bits", "threshold", "added", "factor", "slope", "degrees", "pixels", "pad"),
    [
        (5, 2, 128, 55, 1.0, 0.15, 15, 50, 20),
        (20 / 3, 2, 170, 73, 1.3, 0.2, 20, 200 / 3, 26),
        (25 / 3, 3, 213, 91, 1.6, 0.25, 25, 250 / 3, 33),
        (10, 4, 256, 110, 1.9, 0.3, 30, 100, 40),
        (35 / 3, 4, 298, 128, 2.2, 0.35, 35, 350 / 3, 46),
        (15, 6, 384, 165, 2.8, 0.45, 45, 150, 60),
        (20, 8, 512, 220, 3.7, 0.6, 60, 200, 80),
    ],
)
def test_strengths_at_the_magnitudes_of_its_stages(
    magnitude, bits, threshold, added, factor, slope, degrees, pixels, pad
):
    expected = {
        "Posterize": bits,
        "Solarize": threshold,
        "SolarizeAdd": added,
        "Rotate": degrees,
        "Cutout": pad,
        **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), factor),
        **dict.fromkeys(("ShearX", "ShearY"), slope),
        **dict.fromkeys(("TranslateX", "TranslateY"), pixels),
    }
    assert {
        name: op.strength(magnitude) for name, op in reference.RANDAUGMENT_OPS.items() if op.strength
    } == pytest.approx(expected)
    assert reference.AUTOAUGMENT_OPS["TranslateY"].strength(magnitude) == pytest.approx(2.5 * pixels)
    assert reference.AUTOAUGMENT_OPS["Cutout"].strength(10) == 100


def test_posterize_keeps_one_bit_where_the_shift_is_clamped():
    image = wavy()
    for bits in (0, -3, 9, 12):
        np.testing.assert_array_equal(reference.posterize(tf.constant(image), bits), image & 0x80)
    for bits in range(1, 9):
        np.testing.assert_array_equal(reference.posterize(tf.constant(image), bits), image >> (8 - bits) << (8 - bits))
    np.testing.assert_array_equal(apply("Posterize", image, 20.0), image)  # the strongest magnitude does nothing


@pytest.mark.parametrize(("threshold", "effective"), [(0, 0), (128, 128), (256, 0), (298, 42), (384, 128), (512, 0)])
def test_the_threshold_of_solarize_wraps(threshold, effective):
    image = wavy()
    expected = np.where(image < effective, image, 255 - image)
    np.testing.assert_array_equal(reference.solarize(tf.constant(image), threshold), expected)


@pytest.mark.parametrize("added", [0, 110, 128, 220, 330])
def test_solarize_add_is_clipped(added):
    image = wavy()
    expected = np.where(image < 128, np.minimum(image.astype(int) + added, 255), image)
    np.testing.assert_array_equal(reference.solarize_add(tf.constant(image), added), expected)


@pytest.mark.parametrize(("size", "level"), [(171, 114), (192, 144), (224, 196), (256, 255), (300, 255)])
def test_contrast_turns_about_a_level_that_the_size_decides(size, level):
    dark = np.full((size, size, 3), 20, np.uint8)
    np.testing.assert_array_equal(reference.contrast(tf.constant(dark), 0.0), np.full_like(dark, level))
    blended = int(level + np.float32(0.46) * np.float32(20 - level))
    np.testing.assert_array_equal(reference.contrast(tf.constant(dark), 0.46), np.full_like(dark, blended))


@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_the_factor_is_one_at_level_five(name):
    np.testing.assert_array_equal(apply(name, wavy(), 5.0), wavy())


def test_autocontrast_by_numpy():
    for image in (*pictures(), (wavy() // 3 + 20).astype(np.uint8), np.full((5, 4, 3), 9, np.uint8)):
        values = image.astype(np.float32)
        low, high = values.min((0, 1)), values.max((0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.float32(255) / (high - low)
            stretched = np.clip(values * scale + -low * scale, 0, 255)
        expected = np.where(high > low, stretched, values).astype(np.uint8)
        np.testing.assert_array_equal(reference.autocontrast(tf.constant(image)), expected)


@pytest.mark.parametrize("factor", [0.1, 0.55, 1.45, 2.8])
def test_color_and_sharpness_by_the_steps_of_the_reference_code(factor):
    for image in (wavy(), *pictures()):
        tensor = tf.constant(image)
        gray = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(tensor))
        kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32, shape=[3, 3, 1, 1]) / 13.0
        smooth = tf.nn.depthwise_conv2d(
            tf.cast(tensor, tf.float32)[tf.newaxis], tf.tile(kernel, [1, 1, 3, 1]), [1, 1, 1, 1], "VALID"
        )
        smooth = tf.squeeze(tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8), [0])
        border = [[1, 1], [1, 1], [0, 0]]
        smooth = tf.where(tf.pad(tf.ones_like(smooth), border) == 1, tf.pad(smooth, border), tensor)
        for function, degenerate in ((reference.color, gray), (reference.sharpness, smooth)):
            start = tf.cast(degenerate, tf.float32)
            blended = start + factor * (tf.cast(tensor, tf.float32) - start)
            expected = tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)
            np.testing.assert_array_equal(function(tensor, factor), expected)


def four_channels(image, transform):
    """The reference code's way: a channel of ones goes along, and grey is put where it comes out as 0."""
    wrapped = tf.concat([image, tf.ones_like(image[..., :1])], axis=-1)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=wrapped[tf.newaxis],
        transforms=tf.constant([[*transform, 0.0, 0.0]], tf.float32),
        output_shape=tf.shape(image)[:2],
        fill_value=tf.constant(0.0),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]
    return np.where(moved[..., 3:] == 0, 128, moved[..., :3])


@pytest.mark.parametrize("amount", [-1.0, 1.0])
def test_moves_by_the_steps_of_the_reference_code(amount):
    image = tf.constant(wavy())
    slope, pixels = 0.37 * amount, 12.5 * amount
    for moved, transform in (
        (reference.shear_x(image, slope), (1, slope, 0, 0, 1, 0)),
        (reference.shear_y(image, slope), (1, 0, 0, slope, 1, 0)),
        (reference.translate_x(image, pixels), (1, 0, pixels, 0, 1, 0)),
        (reference.translate_y(image, pixels), (1, 0, 0, 0, 1, pixels)),
    ):
        np.testing.assert_array_equal(moved, four_channels(image, transform))
        assert (moved.numpy() != image.numpy()).any()


def test_rotation_is_that_of_tensorflow_addons():
    tfa_image = pytest.importorskip("tensorflow_addons.image")
    for image in (wavy(), wavy(31, 50)):
        for degrees in (-77.0, -30.0, 4.5, 60.0):
            wrapped = tf.concat([image, np.ones_like(image[..., :1])], axis=-1)
            turned = tfa_image.rotate(wrapped, tf.constant(degrees) * (math.pi / 180.0)).numpy()
            expected = np.where(turned[..., 3:] == 0, 128, turned[..., :3])
            np.testing.assert_array_equal(reference.rotate(tf.constant(image), degrees), expected)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("table", TABLES)
def test_distances_are_pixels_whatever_the_size(table, size):
    image = np.zeros((size, size, 3), np.uint8)
    scale = {"RandAugment": 1.0, "AutoAugment": 2.5}[table]
    moved = apply("TranslateX", image, 2.0, table=table)
    assert (moved[0, :, 0] == geometry.FILL).sum() == 20 * scale
    covered = apply("Cutout", image, 1.0, table=table)
    assert (covered[..., 0] == geometry.FILL).sum() == (8 * scale) ** 2


def test_operations_give_the_same_eagerly_and_inside_a_dataset():
    image = wavy()

    def every_op(image):
        sign, place = tf.constant(-1.0), tf.constant([0.7, 0.3])
        return {
            name: op.apply(image, op.at(12.0), sign=sign, place=place) for name, op in TABLES["RandAugment"].items()
        }

    mapped = next(iter(tf.data.Dataset.from_tensors(image).map(every_op)))
    for name in NAMES:
        assert mapped[name].dtype == tf.uint8
        assert mapped[name].shape == image.shape
        np.testing.assert_array_equal(mapped[name], apply(name, image, 12.0, -1.0, [0.7, 0.3]), err_msg=name)


def test_every_operation_runs_at_both_ends_of_the_scale():
    for name in NAMES:
        for level in (1e-3, 30.0):
            for sign, place in ((-1.0, [0.0, 0.0]), (1.0, [0.999, 0.999])):
                assert apply(name, wavy(31, 20), level, sign, place).shape == (31, 20, 3)
