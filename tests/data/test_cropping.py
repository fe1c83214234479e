import typing

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data import decode
from effnetv2_keras.data.cropping import CROPPINGS
from tests.data.test_decode import difference, encode, smooth

ORIGINAL = [name for name in CROPPINGS if name != "clean"]


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def evaluate(pipeline, image, image_size, crop=None):
    return CROPPINGS[pipeline].evaluate(image, image_size=image_size, crop=crop).numpy()


def train(pipeline, image, image_size, seed, **settings):
    cropping = CROPPINGS[pipeline]
    settings = {"area": cropping.area, "aspect": cropping.aspect, **settings}
    return cropping.train(image, image_size=image_size, seed=tf.constant(seed), **settings).numpy()


def bilinear(image, size):
    return tf.image.resize(image, [size, size]).numpy()


def bicubic(image, size):
    return tf.compat.v1.image.resize_bicubic(image[tf.newaxis], [size, size])[0].numpy()


def central(image, side, round_up=0):
    top, left = ((length - side + round_up) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def test_every_pipeline_of_the_configuration_is_there():
    assert typing.get_args(DataConfig.model_fields["pipeline"].annotation) == tuple(CROPPINGS)


def test_evaluation_of_the_reference_code():
    image = (np.arange(400 * 500 * 3) % 251).reshape(400, 500, 3).astype(np.uint8)
    mean, deviation = specs.PIXEL_STATISTICS["centered"]
    normalized = (evaluate("original_v2", image, 224) - np.float32(mean)) / np.float32(deviation)
    assert normalized.mean() == pytest.approx(-0.024420, abs=1e-6)
    assert normalized.std() == pytest.approx(0.548176, abs=1e-6)
    np.testing.assert_allclose(normalized[100, 57], (0.22534, 0.23315, 0.24097), atol=6e-6)


@pytest.mark.parametrize("shape", [(83, 120), (121, 82), (61, 61)])
@pytest.mark.parametrize("size", [40, 224, 319])
def test_evaluation_takes_the_central_square(shape, size):
    image = noise(*shape)
    side = int(min(shape) * size / (size + 32))
    np.testing.assert_array_equal(evaluate("original_v2", image, size), bilinear(central(image, side), size))
    cubic = evaluate("original_v1", image, size)
    np.testing.assert_array_equal(cubic, bicubic(central(image, side, round_up=1), size))
    assert cubic.max() > 255  # bicubic overshoots
    assert cubic.min() < 0


def test_from_320_pixels_v2_squeezes_and_v1_does_not():
    image = noise(300, 400)
    for size in (320, 352):
        np.testing.assert_array_equal(evaluate("original_v2", image, size), bilinear(image, size))
        side = int(300 * size / (size + 32))
        np.testing.assert_array_equal(
            evaluate("original_v1", image, size), bicubic(central(image, side, round_up=1), size)
        )
    assert not np.array_equal(evaluate("clean", image, 320), np.round(bilinear(image, 320)))


def test_the_bicubic_kernel_is_not_that_of_tensorflow_2():
    image = noise(60, 60)
    wrong = tf.image.resize(central(image, 30), [32, 32], method="bicubic")
    assert np.abs(evaluate("original_v1", image, 32) - wrong).mean() > 5


def test_finetuning_squeezes_whole_images():
    image = noise(50, 80)
    for size in (24, 64, 330):
        expected = bilinear(image, size)
        np.testing.assert_array_equal(evaluate("original_finetune", image, size), expected)
        np.testing.assert_array_equal(train("original_finetune", image, size, [0, 1]), expected)


@pytest.mark.parametrize("pipeline", CROPPINGS)
def test_every_pipeline_uses_the_crop_setting(pipeline):
    image = noise(90, 100)
    for size in (30, 330):
        cropped = central(image, 45, round_up=pipeline == "original_v1")
        expected = (bicubic if pipeline == "original_v1" else bilinear)(cropped, size)
        expected = np.round(expected) if pipeline == "clean" else expected
        np.testing.assert_array_equal(evaluate(pipeline, image, size, crop=0.5), expected)


def test_v2_draws_the_rectangles_of_clean_and_keeps_fractions():
    image, settings = noise(70, 90), {"area": (0.1, 0.6), "aspect": (0.8, 1.2)}
    for seed in range(8):
        exact = train("original_v2", image, 33, [seed, 1], **settings)
        np.testing.assert_array_equal(train("clean", image, 33, [seed, 1], **settings), np.round(exact))
        assert (exact != np.round(exact)).any()


def coordinates(height=240, width=200):
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def test_v1_rectangles_cover_a_tenth_of_the_image_or_more():
    image, areas = coordinates(), []
    for seed in range(150):
        crop = train("original_v1", image, 64, [seed, 0])
        spans = (crop[32, -2, 0] - crop[32, 1, 0]) * (crop[-2, 32, 1] - crop[1, 32, 1]) * (64 / 61) ** 2
        areas.append(spans / (240 * 200))
    assert 0.09 < min(areas) < 0.2  # min_object_covered, above the smallest area of 0.08
    assert max(areas) > 0.8


def test_v1_falls_back_to_the_central_square():
    image = noise(60, 90)
    impossible = {"area": (0.99, 1.0), "aspect": (3.0, 4.0)}
    np.testing.assert_array_equal(
        train("original_v1", image, 40, [1, 2], **impossible), evaluate("original_v1", image, 40)
    )
    np.testing.assert_array_equal(  # the others take the whole image
        train("original_v2", image, 40, [1, 2], **impossible), bilinear(image, 40)
    )


@pytest.mark.parametrize("pipeline", CROPPINGS)
@pytest.mark.parametrize("image", [encode(smooth(), "JPEG")[0], encode(smooth(), "PNG")[0], smooth()[..., :1]])
def test_the_same_eagerly_and_inside_a_dataset_with_a_known_shape(pipeline, image):
    files = tf.data.Dataset.from_tensors(image)
    for function in (
        lambda image: CROPPINGS[pipeline].evaluate(image, image_size=24, crop=None),
        lambda image: CROPPINGS[pipeline].train(
            image, image_size=24, area=(0.1, 1.0), aspect=(0.5, 2.0), seed=tf.constant([3, 1])
        ),
    ):
        mapped = files.map(function)
        assert mapped.element_spec == tf.TensorSpec([24, 24, 3], CROPPINGS[pipeline].dtype)
        np.testing.assert_array_equal(next(iter(mapped)), function(image))


@pytest.mark.parametrize("pipeline", ORIGINAL)
def test_a_jpeg_is_framed_like_its_decoded_image(pipeline):
    encoded, _ = encode(smooth(), "JPEG", quality=95)
    whole = decode.decode(encoded)
    tolerance = 4 if pipeline == "original_v1" else 0  # v1 decodes the rectangle alone
    assert difference(evaluate(pipeline, encoded, 40), evaluate(pipeline, whole, 40)).max() <= tolerance
    for seed in range(5):
        one, other = (train(pipeline, image, 40, [seed, 0]) for image in (encoded, whole))
        assert difference(one, other).max() <= tolerance


@pytest.mark.parametrize("pipeline", ORIGINAL)
def test_tiny_images(pipeline):
    for shape in ((1, 1), (1, 9), (301, 3)):
        image = np.full((*shape, 3), 93, np.uint8)
        for square in (evaluate(pipeline, image, 5), train(pipeline, image, 5, [0, 0])):
            np.testing.assert_allclose(square, np.full((5, 5, 3), 93), atol=1e-3)
