import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.data import decode


def smooth(height=75, width=111):
    """Slow gradients in three directions, uint8 [height, width, 3]: little for JPEG to lose."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([40 + 160 * x, 220 - 150 * y, 90 + 60 * (x + y)], axis=-1).astype(np.uint8)


def encode(image, kind, mode="RGB", **options):
    """The bytes of an image file, and the RGB image that PIL reads from it."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue(), np.asarray(PIL.Image.open(buffer).convert("RGB"))


def difference(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


@pytest.mark.parametrize(
    ("kind", "mode", "tolerance"),
    [
        ("JPEG", "RGB", 3),
        ("JPEG", "L", 1),
        ("JPEG", "CMYK", 3),
        ("PNG", "RGB", 0),
        ("PNG", "L", 0),
        ("PNG", "LA", 0),
        ("PNG", "RGBA", 0),
        ("PNG", "P", 0),
        ("GIF", "RGB", 0),
        ("BMP", "RGB", 0),
        ("BMP", "L", 0),
        ("BMP", "RGBA", 0),
    ],
)
def test_every_format_becomes_rgb(kind, mode, tolerance):
    encoded, expected = encode(smooth(), kind, mode)
    assert difference(decode.decode(encoded), expected).max() <= tolerance
    assert decode.random_crop(encoded, image_size=20, seed=[1, 2]).shape == (20, 20, 3)
    assert decode.central_crop(encoded, image_size=20).shape == (20, 20, 3)


def test_only_the_first_frame_of_an_animation_counts():
    frames = [PIL.Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode.decode(buffer.getvalue()), np.full((8, 9, 3), 10))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_decoded_image_gets_three_channels(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
    expected = image[..., :3] if channels >= 3 else image[..., :1].repeat(3, axis=-1)
    np.testing.assert_array_equal(decode.decode(image), expected)
    unknown = tf.TensorSpec([None, None, None], tf.uint8)
    np.testing.assert_array_equal(tf.function(decode.decode, input_signature=[unknown])(image), expected)


@pytest.mark.parametrize("value", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), [b"a", b"b"]])
def test_anything_else_is_refused(value):
    for function in (
        decode.decode,
        lambda image: decode.central_crop(image, image_size=4),
        lambda image: decode.random_crop(image, image_size=4, seed=[0, 0]),
    ):
        with pytest.raises(ValueError, match=r"Pass the bytes of one image file .* or a uint8 image"):
            function(value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "junk", "empty"])
def test_incomplete_files_raise(kind):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    broken = {"junk": b"not an image at all", "empty": b""}[kind] if kind.islower() else encode(noise, kind)[0][:900]
    for function in (
        decode.decode,
        lambda image: decode.central_crop(image, image_size=4),
        lambda image: decode.random_crop(image, image_size=4, area=(0.99, 1.0), seed=[0, 0]),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            function(broken)
        with pytest.raises(tf.errors.InvalidArgumentError):
            next(iter(tf.data.Dataset.from_tensors(broken).map(function)))


def test_a_jpeg_is_cropped_like_its_decoded_image():
    encoded, _ = encode(smooth(), "JPEG", quality=95)
    whole = decode.decode(encoded)
    for seed in range(25):
        settings = {"image_size": 40, "seed": [seed, 0]}
        # Colour at the edge of a crop is decoded without its neighbours outside.
        assert difference(decode.random_crop(encoded, **settings), decode.random_crop(whole, **settings)).max() <= 4
    assert difference(decode.central_crop(encoded, image_size=40), decode.central_crop(whole, image_size=40)).max() <= 4


def crop_sizes(image, count, **settings):
    """Heights and widths of random crops of an image that holds its own coordinates, pixels."""
    crops = tf.data.Dataset.range(count).map(
        lambda index: decode.random_crop(image, image_size=64, seed=tf.stack([tf.cast(index, tf.int32), 5]), **settings)
    )
    crops = np.stack(list(crops.as_numpy_iterator())).astype(float)
    spans = [crops[:, -1, 0, 1] - crops[:, 0, 0, 1], crops[:, 0, -1, 0] - crops[:, 0, 0, 0]]
    return [span * 64 / 63 for span in spans]  # between the centres of the outermost pixels lie 63 of 64


def test_random_crops_fill_the_ranges_of_area_and_aspect():
    y, x = np.mgrid[:240, :200]
    image = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    heights, widths = crop_sizes(image, 400)
    area, aspect = heights * widths / (240 * 200), widths / heights
    assert 0.04 < area.min() < 0.1
    assert 0.8 < area.max() <= 1.02
    assert area.std() > 0.15
    assert 0.72 < aspect.min() < 0.78
    assert 1.25 < aspect.max() < 1.38
    heights, widths = crop_sizes(image, 50, area=(0.3, 0.35), aspect=(0.5, 0.55))
    assert np.all(np.abs(heights * widths / (240 * 200) - 0.325) < 0.04)
    assert np.all(np.abs(widths / heights - 0.525) < 0.04)


def test_random_crops_depend_on_the_seed_only():
    encoded, _ = encode(smooth(), "JPEG")

    def crop(seed):
        return decode.random_crop(encoded, image_size=16, seed=tf.constant(seed)).numpy()

    np.testing.assert_array_equal(crop([3, 4]), crop([3, 4]))
    assert len({crop([seed, 4]).tobytes() for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("image_size", "crop", "shorter"), [(224, None, 256), (60, 0.8, 75), (37, 0.5, 75), (75, 1.0, 75), (29, 0.29, 100)]
)
@pytest.mark.parametrize("upright", [True, False])
def test_the_central_crop_is_the_central_square(image_size, crop, shorter, upright):
    shape = (shorter + 36, shorter) if upright else (shorter, shorter + 36)
    # The side is that of the result (256 * 224 / (224 + 32) = 224), so nothing is resized.
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    top, left = ((side - image_size) // 2 for side in shape)
    expected = image[top : top + image_size, left : left + image_size]
    for given in (image, encode(image, "PNG")[0]):
        np.testing.assert_array_equal(decode.central_crop(given, image_size=image_size, crop=crop), expected)


@pytest.mark.parametrize("image_size", [16, 64, 96, 224, 300])
def test_small_images_lose_no_more_of_the_side_than_at_224_pixels(image_size):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256, axis=1)  # each row has its number as its level
    found = decode.central_crop(np.repeat(ramp[..., None], 3, axis=2), image_size=image_size)
    share = max(0.875, image_size / (image_size + 32))
    assert float(found[0, 0, 0]) <= 256 * (1 - share) / 2 + 256 / image_size
    assert float(found[-1, 0, 0]) >= 256 * (1 + share) / 2 - 1 - 256 / image_size


def test_the_central_crop_of_the_reference_code():
    image = (np.arange(400 * 500 * 3) % 251).reshape(400, 500, 3).astype(np.uint8)
    normalized = (decode.central_crop(image, image_size=224).numpy() - 128.0) / 128.0
    assert normalized.mean() == pytest.approx(-0.024420, abs=2e-4)
    assert normalized.std() == pytest.approx(0.548176, abs=2e-4)
    np.testing.assert_allclose(
        normalized[100, 57], (0.22534, 0.23315, 0.24097), atol=0.5 / 128
    )  # ours are whole levels


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 300), (301, 3)])
def test_tiny_and_narrow_images(shape):
    image = np.full((*shape, 3), 93, np.uint8)
    for given in (image, encode(image, "JPEG")[0], encode(image, "PNG")[0]):
        for seed in range(10):
            np.testing.assert_array_equal(
                decode.random_crop(given, image_size=5, seed=[seed, 0]), np.full((5, 5, 3), 93)
            )
        np.testing.assert_array_equal(decode.central_crop(given, image_size=5), np.full((5, 5, 3), 93))


@pytest.mark.parametrize("given", [encode(smooth(), "JPEG")[0], smooth(), smooth()[..., :1]])
def test_shapes_are_known_inside_a_dataset(given):
    files = tf.data.Dataset.from_tensors(given)
    expected = tf.TensorSpec([24, 24, 3], tf.uint8)
    random = files.map(lambda image: decode.random_crop(image, image_size=24, seed=[0, 1]))
    central = files.map(lambda image: decode.central_crop(image, image_size=24))
    for dataset, eager in (
        (random, decode.random_crop(given, image_size=24, seed=[0, 1])),
        (central, decode.central_crop(given, image_size=24)),
    ):
        assert dataset.element_spec == expected
        np.testing.assert_array_equal(next(iter(dataset)), eager)
    assert files.map(decode.decode).element_spec.shape[-1] == 3
