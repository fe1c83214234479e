import collections
import math

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import tensorflow as tf

from effnetv2_keras.data.augment import geometry, randaugment
from effnetv2_keras.data.augment.randaugment import OPS

NAMES = (
    "AutoContrast Equalize Invert Rotate Posterize Solarize Color Contrast Brightness Sharpness ShearX ShearY "
    "TranslateX TranslateY Cutout SolarizeAdd"
).split()
UNGRADED = ("AutoContrast", "Equalize", "Invert")
MOVING = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout")
CENTRE = (0.5, 0.5)


def pictures(size=64):
    """Three images like photographs: a sky with a sun, a noisy gradient, and boxes in low contrast."""
    y, x = np.mgrid[:size, :size] / size
    rng = np.random.default_rng(size)
    sky = np.stack([120 + 60 * y, 150 + 40 * y, 235 - 60 * y], axis=-1)
    sky[(x - 0.7) ** 2 + (y - 0.3) ** 2 < 0.02] = (250, 230, 90)
    gradient = np.stack([20 + 200 * x, 30 + 180 * y, 110 + 60 * np.sin(9 * x * y)], axis=-1)
    gradient += rng.normal(0, 8, gradient.shape)
    boxes = np.full((size, size, 3), (90.0, 110.0, 70.0))
    boxes[size // 5 : size // 2, size // 4 : size // 2] = (170, 90, 60)
    boxes[size // 2 : -size // 8, size // 2 : -size // 6] = (60, 70, 150)
    return [np.clip(image, 0, 255).astype(np.uint8) for image in (sky, gradient, boxes)]


def wavy(height=48, width=64):
    """The image for which the outputs of the reference code are known."""
    y, x, channel = np.mgrid[:height, :width, :3]
    return ((7 * y + 3 * x + 50 * channel + y * x // 5) % 256).astype(np.uint8)


def apply(name, image, magnitude, sign=1.0, place=CENTRE):
    op = OPS[name]
    return op.apply(tf.constant(image), op.at(magnitude), sign=tf.constant(sign), place=tf.constant(place)).numpy()


def test_table_has_the_sixteen_operations_in_order():
    assert list(OPS) == NAMES


@pytest.mark.parametrize(
    ("names", "at_10", "at_30"),
    [
        (["Rotate"], 30, 90),
        (["ShearX", "ShearY"], 0.3, 0.9),
        (["TranslateX", "TranslateY", "Cutout"], 0.2, 0.6),
        (["Posterize"], 2, 5),
        (["Solarize"], 85, 256),
        (["SolarizeAdd"], 43, 128),
        (["Color", "Contrast", "Brightness", "Sharpness"], 0.3, 0.9),
    ],
)
def test_strengths(names, at_10, at_30):
    for name in names:
        assert OPS[name].unit
        assert [OPS[name].strength(m) for m in (0, 10, 30)] == pytest.approx([0, at_10, at_30])


def test_operations_give_the_same_eagerly_and_inside_a_dataset():
    image = wavy()

    def every_op(image):
        sign, place = tf.constant(-1.0), tf.constant([0.7, 0.3])
        return {name: op.apply(image, op.at(12.0), sign=sign, place=place) for name, op in OPS.items()}

    mapped = next(iter(tf.data.Dataset.from_tensors(image).map(every_op)))
    for name in NAMES:
        assert mapped[name].dtype == tf.uint8
        assert mapped[name].shape == image.shape
        np.testing.assert_array_equal(mapped[name], apply(name, image, 12.0, -1.0, [0.7, 0.3]), err_msg=name)


@pytest.mark.parametrize(
    ("function", "total", "weighted", "at_10_20", "at_40_5"),
    [
        (randaugment.equalize, 1239509, 60909807, (188, 220, 16), (85, 126, 192)),
        (randaugment.invert, 1165709, 56950526, (85, 35, 241), (176, 126, 76)),
        (lambda image: geometry.rotate(image, 30.0), 1193659, 58446526, (159, 209, 3), (175, 225, 19)),
        (lambda image: randaugment.posterize(image, 4), 1114304, 54752416, None, None),
        (lambda image: randaugment.solarize(image, 128.0), 588973, 28744135, (85, 35, 14), None),
        (lambda image: randaugment.solarize_add(image, 110.0), 1683331, 82493124, (170, 220, 124), None),
        (lambda image: randaugment.brightness(image, 0.9), 1740554, 85341314, (255, 255, 26), None),
        (lambda image: randaugment.sharpness(image, 0.9), 1184463, 58191315, (170, 220, 0), None),
        (lambda image: geometry.translate_x(image, 10 / 64), 1187779, 58191856, (220, 14, 64), None),
    ],
)
def test_outputs_of_the_reference_code(function, total, weighted, at_10_20, at_40_5):
    output = function(tf.constant(wavy())).numpy().astype(np.int64)
    assert output.sum() == total
    assert (output.ravel() * (np.arange(output.size) % 97 + 1)).sum() == weighted
    for pixel, expected in (((10, 20), at_10_20), ((40, 5), at_40_5)):
        assert expected is None or tuple(output[pixel]) == expected


def affine(matrix):
    return lambda image: image.transform(
        image.size, PIL.Image.Transform.AFFINE, matrix, PIL.Image.Resampling.NEAREST, fillcolor=(128, 128, 128)
    )


def enhance(kind, factor):
    return lambda image: kind(image).enhance(factor)


def turned(degrees):
    return lambda image: image.rotate(degrees, PIL.Image.Resampling.NEAREST, fillcolor=(128, 128, 128))


@pytest.mark.parametrize(
    ("function", "reference", "tolerance"),  # tolerance in levels of 255
    [
        (randaugment.invert, PIL.ImageOps.invert, 0),
        (randaugment.equalize, PIL.ImageOps.equalize, 0),
        (randaugment.autocontrast, PIL.ImageOps.autocontrast, 1),
        (lambda image: randaugment.posterize(image, 3), lambda image: PIL.ImageOps.posterize(image, 5), 0),
        (lambda image: randaugment.solarize(image, 100.0), lambda image: PIL.ImageOps.solarize(image, 156), 0),
        *(
            (
                lambda image, ours=ours, factor=factor: ours(image, factor - 1.0),
                enhance(theirs, factor),
                2
                if ours is randaugment.sharpness
                else 1,  # PIL rounds the smoothed image, the reference code truncates
            )
            for factor in (0.1, 0.55, 1.45, 1.9)
            for ours, theirs in (
                (randaugment.color, PIL.ImageEnhance.Color),
                (randaugment.contrast, PIL.ImageEnhance.Contrast),
                (randaugment.brightness, PIL.ImageEnhance.Brightness),
                (randaugment.sharpness, PIL.ImageEnhance.Sharpness),
            )
        ),
        # PIL maps pixel centres (x + 1/2) about the corner; the offsets move that to the centre (32, 24).
        (lambda image: geometry.shear_x(image, 0.37), affine((1, 0.37, -0.37 * 24, 0, 1, 0)), 0),
        (lambda image: geometry.shear_y(image, -0.37), affine((1, 0, 0, -0.37, 1, 0.37 * 32)), 0),
        (lambda image: geometry.translate_x(image, 0.25), affine((1, 0, 16, 0, 1, 0)), 0),
        (lambda image: geometry.translate_x(image, -0.25), affine((1, 0, -16, 0, 1, 0)), 0),
        (lambda image: geometry.translate_y(image, 0.25), affine((1, 0, 0, 0, 1, 12)), 0),
        (lambda image: geometry.translate_y(image, -0.25), affine((1, 0, 0, 0, 1, -12)), 0),
        (lambda image: geometry.rotate(image, 20.0), turned(20), 0),
        (lambda image: geometry.rotate(image, -77.0), turned(-77), 0),
    ],
)
def test_pillow_agrees(function, reference, tolerance):
    darkened = (wavy() * np.array([0.5, 0.8, 1.0]) + np.array([40, 10, 0])).astype(np.uint8)
    assert not np.array_equal(reference(PIL.Image.fromarray(darkened)), darkened)
    for image in (wavy(), darkened):
        ours = function(tf.constant(image)).numpy().astype(int)
        theirs = np.asarray(reference(PIL.Image.fromarray(image))).astype(int)
        # A pixel whose source lies on the edge of two may go either way.
        assert (np.abs(ours - theirs) > tolerance).any(axis=-1).mean() <= 0.001


def test_solarize_add_brightens_the_dark_half():
    image = np.arange(255, -1, -1, np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = np.where(image < 128, image.astype(int) + 64, image)
    np.testing.assert_array_equal(apply("SolarizeAdd", image, 15.0), expected)


def test_autocontrast_is_exact_for_every_range_of_levels():
    for low, high in [
        (0, 255),
        (0, 1),
        (0, 7),
        (0, 14),
        (0, 63),
        (0, 91),
        (254, 255),
        (3, 10),
        (100, 217),
        (37, 250),
        (200, 207),
        (1, 254),
    ]:
        levels = np.linspace(low, high, 64).astype(np.uint8)
        levels[0], levels[-1] = low, high
        expected = (levels.astype(int) - low) * 255 // (high - low)
        image = levels.reshape(8, 8, 1).repeat(3, axis=2)
        np.testing.assert_array_equal(apply("AutoContrast", image, 5.0)[..., 1].ravel(), expected)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Color", "Contrast", "Sharpness"])
def test_a_flat_grey_image_has_nothing_to_enhance(name):
    for level in (0, 1, 77, 254, 255):
        image = np.full((9, 7, 3), level, np.uint8)
        for sign in (-1.0, 1.0):
            np.testing.assert_array_equal(apply(name, image, 13.7, sign), image)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 0.99), (0.99, 0.0)])
def test_cutout_covers_a_square_and_is_clipped_at_the_border(place):
    image = np.zeros((40, 50, 3), np.uint8)
    covered = apply("Cutout", image, 15.0, place=place) == geometry.FILL
    y, x = math.floor(place[0] * 40), math.floor(place[1] * 50)
    expected = np.zeros((40, 50, 3), bool)
    expected[max(y - 6, 0) : y + 6, max(x - 6, 0) : x + 6] = True  # 0.02 * 15 * 40 = 12 pixels
    np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNGRADED])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_larger_magnitude_changes_the_image_more(name, sign):
    changes = [
        np.mean([np.abs(apply(name, image, m, sign).astype(int) - image).mean() for image in pictures()])
        for m in (5.0, 10.0, 15.0, 20.0, 25.0)
    ]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert changes[-1] > 1.5 * changes[0]


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("magnitude", [5.0, 15.0, 25.0])
def test_a_magnitude_moves_the_same_share_of_small_and_large_images(name, magnitude):
    uncovered = [
        (apply(name, np.zeros((size, size, 3), np.uint8), magnitude) == geometry.FILL).mean() for size in (64, 256)
    ]
    assert uncovered[0] > 0.005
    assert uncovered[0] == pytest.approx(uncovered[1], abs=0.015)


@pytest.mark.parametrize(("name", "axis"), [("TranslateX", 1), ("TranslateY", 0)])
def test_translation_is_a_share_of_the_side(name, axis):
    for size in (64, 256):
        place = np.broadcast_to(np.arange(size, dtype=np.uint8)[:, None, None], (size, size, 3)).swapaxes(0, axis)
        moved = apply(name, place, 12.5)  # 0.02 * 12.5 = a quarter of the side
        assert moved[1, 1, 0] == 1 + size // 4


def test_signs_are_opposite():
    image = np.zeros((32, 32, 3), np.uint8)
    for name in ("TranslateX", "TranslateY", "ShearX", "ShearY", "Rotate"):
        one, other = apply(name, image, 10.0, -1.0), apply(name, image, 10.0, 1.0)
        assert (one == geometry.FILL).any()
        np.testing.assert_array_equal(one[:, ::-1] if name != "TranslateY" else one[::-1], other)


def test_every_operation_runs_at_both_ends_of_the_scale():
    image = wavy(31, 20)
    for name in NAMES:
        for magnitude in (1e-3, 30.0):
            for sign, place in ((-1.0, [0.0, 0.0]), (1.0, [0.999, 0.999])):
                assert apply(name, image, magnitude, sign, place).shape == image.shape
        if name not in UNGRADED:
            assert np.abs(apply(name, image, 1e-3).astype(int) - image).max() <= 1
    np.testing.assert_array_equal(apply("Solarize", image, 30.0), 255 - image)


def test_operations_are_drawn_uniformly_with_both_signs():
    image, magnitude = pictures(24)[1], 9.0
    outcomes = {
        apply(name, image, magnitude, sign).tobytes(): (name, sign if OPS[name].drawn == "sign" else 1.0)
        for name in NAMES
        for sign in (-1.0, 1.0)
        if name != "Cutout"
    }
    assert len(outcomes) == 15 + 9  # none is like another
    outputs = tf.data.Dataset.range(640).map(
        lambda index: randaugment.randaugment(
            tf.constant(image),
            magnitude=magnitude,
            num_layers=1,
            seed=tf.stack([7, tf.cast(index, tf.int32)]),
        )
    )
    drawn = collections.Counter()
    for output in outputs.as_numpy_iterator():
        if output.tobytes() not in outcomes:
            assert (output[(output != image).any(axis=-1)] == geometry.FILL).all()
        drawn[outcomes.get(output.tobytes(), ("Cutout", 1.0))] += 1
    assert set(drawn) == {*outcomes.values(), ("Cutout", 1.0)}
    for name in NAMES:  # 40 each; the standard deviation is 6
        assert 16 <= drawn[name, 1.0] + drawn[name, -1.0] <= 64


def test_the_seed_decides():
    image = pictures(32)[1]

    def augmented(seed, magnitude=15.0, num_layers=2):
        return randaugment.randaugment(
            tf.constant(image), magnitude=magnitude, num_layers=num_layers, seed=tf.constant(seed)
        ).numpy()

    for seed in range(5):
        np.testing.assert_array_equal(augmented([seed, 3]), augmented([seed, 3]))
    assert len({augmented([seed, 3]).tobytes() for seed in range(20)}) > 15
    assert not np.array_equal(augmented([0, 3], num_layers=1), augmented([0, 3], num_layers=3))
    assert not np.array_equal(augmented([0, 3], magnitude=5.0), augmented([0, 3], magnitude=25.0))


def test_magnitude_zero_is_the_identity():
    image = tf.constant(wavy())
    assert randaugment.randaugment(image, magnitude=0.0, num_layers=2, seed=tf.constant([0, 0])) is image


def test_the_shape_stays_known_inside_a_dataset():
    dataset = tf.data.Dataset.from_tensors(wavy()).map(
        lambda image: randaugment.randaugment(image, magnitude=10.0, num_layers=2, seed=tf.constant([1, 2]))
    )
    assert dataset.element_spec == tf.TensorSpec([48, 64, 3], tf.uint8)


@pytest.mark.parametrize("magnitude", [-0.1, 30.5, math.nan])
def test_magnitude_out_of_range(magnitude):
    with pytest.raises(ValueError, match=rf"magnitude is {magnitude}, but must be in \[0, 30\]"):
        randaugment.randaugment(tf.constant(wavy()), magnitude=magnitude, num_layers=2, seed=tf.constant([0, 0]))


def test_layers_out_of_range():
    with pytest.raises(ValueError, match="layers is 0, but must be at least 1"):
        randaugment.randaugment(tf.constant(wavy()), magnitude=5.0, num_layers=0, seed=tf.constant([0, 0]))
