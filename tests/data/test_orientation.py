import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data import decode, orientation
from effnetv2_keras.data.formats import Reading

UPRIGHT = Reading(exif_orientation=True)
orientation_of = tf.function(orientation.orientation_of, input_signature=[tf.TensorSpec([], tf.string)])
decode_upright = tf.function(
    lambda encoded: decode.decode(encoded, UPRIGHT), input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
crop_upright = tf.function(
    lambda encoded: decode.cut(encoded, lambda shape: [shape[0] // 3, shape[1] // 4, 17, 21], reading=UPRIGHT),
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)


def exif(value, order=">", *, kind=3, count=1, before=0, tag=0x0112):
    """EXIF data with an orientation after some other entries."""
    entries = [struct.pack(f"{order}HHII", 0x0100 + i, 4, 1, 6) for i in range(before)]
    number = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    entries.append(struct.pack(f"{order}HHI", tag, kind, count) + number)
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0\0\0\0"


def photo(kind="JPEG", height=64, width=96, **options):
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([40 + 160 * x, 220 - 150 * y, 90 + 60 * (x + y)], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def with_segments(jpeg, *segments):
    """A JPEG file with segments (marker, content) after its start."""
    parts = [bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments]
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


@pytest.mark.parametrize("order", ["<", ">"])
def test_photographs_are_turned_upright_like_pillow_does(order):
    for value in range(1, 9):
        encoded = photo(exif=exif(value, order, before=3), quality=95)
        opened = PIL.Image.open(io.BytesIO(encoded))
        expected = np.asarray(PIL.ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
        found = decode_upright(encoded).numpy()
        assert found.shape == expected.shape, value
        assert np.abs(found - expected).max() <= 3, value
        top, left = expected.shape[0] // 3, expected.shape[1] // 4
        crop = crop_upright(encoded).numpy()
        assert np.abs(crop - expected[top : top + 17, left : left + 21]).max() <= 6, value
        assert decode.decode(encoded).shape == (64, 96, 3)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF"])
def test_the_orientation_of_other_formats_counts_too(kind):
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    encoded = photo(kind, exif=tags)
    assert decode_upright(encoded).shape == (96, 64, 3)
    expected = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(encoded))).convert("RGB")
    np.testing.assert_array_equal(decode_upright(encoded), expected)
    assert decode.decode(encoded).shape == ((96, 64, 3) if kind == "TIFF" else (64, 96, 3))


def test_an_image_without_orientation_stays_bit_identical():
    for encoded in (photo(), photo(exif=exif(1)), photo("PNG"), photo("GIF"), photo("BMP")):
        np.testing.assert_array_equal(decode_upright(encoded), decode.decode(encoded))
        for seed in range(3):
            crops = [
                decode.random_crop(encoded, image_size=24, seed=[seed, 1], reading=r) for r in (UPRIGHT, Reading())
            ]
            np.testing.assert_array_equal(*crops)


def test_the_orientation_is_found_behind_other_segments():
    jpeg, data = photo(), exif(6)
    assert orientation_of(with_segments(jpeg, (0xE1, data))) == 6
    assert orientation_of(with_segments(jpeg, (0xE0, b"JFIF\0" + bytes(9)), (0xFE, b"a comment"), (0xE1, data))) == 6
    xmp = b"http://ns.adobe.com/xap/1.0/\0Exif\0\0" + bytes(40000)
    assert orientation_of(with_segments(jpeg, (0xE1, xmp), (0xE2, bytes(65000)), (0xE1, data))) == 6
    assert orientation_of(with_segments(jpeg, (0xE1, exif(8, "<", kind=4)))) == 8


def test_damaged_exif_data_turns_nothing():
    jpeg, sound = photo(), exif(6, before=2)
    broken = [exif(0), exif(9), exif(65535), exif(6, kind=2), exif(6, count=2), exif(6, tag=0x0113), b"Exif\0\0"]
    broken += [sound[:length] for length in range(6, 50)]
    broken += [
        sound[:6] + b"XX" + sound[8:],
        sound[:10] + b"\xff\xff\xff\xff" + sound[14:],
        b"Exif\0\0" + b"\xff" * 300,
    ]
    for data in broken:
        encoded = with_segments(jpeg, (0xE1, data))
        assert orientation_of(encoded) == 1, data
        assert decode_upright(encoded).shape == (64, 96, 3)
    random = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(sound)
        for place in random.integers(6, len(data), 4):
            data[place] = random.integers(256)
        assert 1 <= orientation_of(with_segments(jpeg, (0xE1, bytes(data)))) <= 8
    encoded = with_segments(jpeg, (0xE1, sound))
    for length in (0, 1, 2, 3, 5, 11, 12, 13, 19, 20, 30, 40, 60):
        assert orientation_of(encoded[:length]) in (1, 6)


@pytest.mark.parametrize(
    ("settings", "training", "photos"),
    [
        ({"source": "folder"}, True, True),
        ({"source": "csv"}, True, True),
        ({"source": "tfds"}, False, True),
        ({"source": "tfrecord"}, False, True),
        ({"source": "folder", "pipeline": "original_v2"}, False, False),
        ({"source": "tfds", "exif_orientation": True, "pipeline": "original_v1"}, True, True),
        ({"source": "folder", "exif_orientation": False}, False, False),
    ],
)
def test_photographs_are_turned_by_default_and_data_of_the_reference_code_is_not(settings, training, photos):
    data = DataConfig(**settings)
    assert Reading.of(data).exif_orientation == training
    assert Reading.of_photos(data, export=True).exif_orientation == photos
