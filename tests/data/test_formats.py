import functools
import io
import pathlib
import struct
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.data import decode, formats
from effnetv2_keras.data.formats import Reading
from effnetv2_keras.data.unreadable import guard

RED, BLUE = (220, 30, 30), (30, 40, 210)
SERVICE, EXPORT = Reading(place="service"), Reading(place="export")


def two_colors(mode="RGB"):
    image = PIL.Image.new("RGB", (16, 12), RED)
    image.paste(BLUE, (8, 0, 16, 12))
    return image.quantize(2) if mode == "P" else image.convert(mode)


def file_of(image, kind, **options):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray16(largest=65535, kind="PNG", shape=(12, 16)):
    values = np.linspace(0, largest, shape[0] * shape[1]).reshape(shape).astype(np.uint16)
    return file_of(PIL.Image.fromarray(values), kind), values


def bmp(bits, compression, rows, palette=()):
    """A BMP file of 8 x 2 pixels with the stored rows, bottom first."""
    colors = b"".join(bytes([*color[::-1], 0]) for color in palette)
    start = 54 + len(colors)
    head = struct.pack("<IiiHHIIiiII", 40, 8, 2, 1, bits, compression, len(rows), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + colors + rows


def refusal(encoded, reading=Reading()):  # noqa: B008
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decode.decode(encoded, reading)
    assert formats.reason_in(caught.value) == formats.why(encoded, reading).numpy().decode()
    return formats.reason_in(caught.value)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF", "HEIF"])
def test_other_formats_are_read_whatever_the_name(kind):
    lossless = {"lossless": True} if kind == "WEBP" else {} if kind == "TIFF" else {"quality": 95}
    encoded = file_of(two_colors(), kind, **lossless)
    found = decode.decode(encoded).numpy().astype(int)
    assert found.shape == (12, 16, 3)
    assert np.abs(found[5, 2] - RED).max() <= 12
    assert np.abs(found[5, 13] - BLUE).max() <= 12
    assert decode.random_crop(encoded, image_size=8, seed=[0, 1]).shape == (8, 8, 3)
    assert decode.central_crop(encoded, image_size=8).shape == (8, 8, 3)
    name = kind.replace("WEBP", "WebP")
    assert name in refusal(encoded, SERVICE)
    assert "set data.service=none" in refusal(encoded, SERVICE)
    assert "Convert it to PNG or JPEG, or predict with the folder of the run" in refusal(encoded, EXPORT)


def test_the_missing_package_for_heif_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install pillow-heif" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_of_several_images_the_first_is_read(kind):
    encoded = file_of(two_colors(), kind, save_all=True, append_images=[PIL.Image.new("RGB", (16, 12))])
    assert decode.decode(encoded).numpy().max() > 150


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr"])
def test_the_modes_of_tiff_become_rgb(mode):
    encoded = file_of(two_colors(mode), "TIFF")
    expected = np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(decode.decode(encoded), expected)


def test_the_colors_of_a_bmp_palette_are_used():
    palette = [RED, BLUE]
    pixels = bytes([0, 0, 0, 0, 1, 1, 1, 1]) * 2
    everywhere = (Reading(), SERVICE, EXPORT)
    run_length = bytes([4, 0, 4, 1, 0, 0, 4, 0, 4, 1, 0, 1])
    files = {
        "8 bits": (bmp(8, 0, pixels, palette), everywhere),
        "8 bits, long palette": (bmp(8, 0, pixels, palette + [(9, 9, 9)] * 254), everywhere),
        "4 bits": (bmp(4, 0, b"\0\0\x11\x11" * 2, palette), (Reading(),)),
        "1 bit": (bmp(1, 0, b"\x0f\0\0\0" * 2, palette), (Reading(),)),
        "RLE8": (bmp(8, 1, run_length, palette), (Reading(),)),
        "pillow": (file_of(two_colors("P"), "BMP"), everywhere),
    }
    for name, (encoded, readings) in files.items():
        for reading in readings:
            found = decode.decode(encoded, reading).numpy()
            assert (found[1, 1].tolist(), found[1, -1].tolist()) == (list(RED), list(BLUE)), (name, reading)
        for reading in {SERVICE, EXPORT} - set(readings):
            assert "a BMP image with a compressed or small palette" in refusal(encoded, reading)
    grays = np.arange(256, dtype=np.uint8).reshape(16, 16)
    encoded = file_of(PIL.Image.fromarray(grays), "BMP")
    np.testing.assert_array_equal(decode.decode(encoded)[..., 1], grays)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("largest", [255, 1023, 4095, 16383])
def test_sixteen_bits_that_are_hardly_used_are_refused_unless_white_is_set(kind, largest):
    encoded, values = gray16(largest, kind)
    reason = refusal(encoded)
    assert f"largest value is {largest}, so it would be nearly black" in reason
    assert f"data.max_value={largest}" in reason
    found = decode.decode(encoded, Reading(max_value=largest))
    np.testing.assert_array_equal(found[..., 0], values.astype(int) * 255 // largest)
    assert f"above data.max_value={largest - 1}" in refusal(encoded, Reading(max_value=largest - 1))
    np.testing.assert_array_equal(decode.decode(encoded, Reading(max_value=65535))[..., 2], values >> 8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_that_are_used_are_read_as_before(kind):
    encoded, values = gray16(65535, kind)
    np.testing.assert_array_equal(decode.decode(encoded)[..., 1], values >> 8)
    black = file_of(PIL.Image.fromarray(np.zeros((4, 4), np.uint16)), kind)
    assert not decode.decode(black).numpy().any()
    if kind == "PNG":
        np.testing.assert_array_equal(decode.decode(encoded), tf.io.decode_image(encoded, channels=3))
        colors = tf.io.encode_png(np.random.default_rng(0).integers(0, 65536, (9, 8, 4), np.uint16)).numpy()
        np.testing.assert_array_equal(decode.decode(colors), tf.io.decode_image(colors, channels=3))


def test_white_that_is_stored_as_zero_is_white():
    _, values = gray16(65535)
    encoded = file_of(PIL.Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(decode.decode(encoded)[..., 0], (65535 - values.astype(int)) >> 8)


def color_tiff16(largest):
    """A TIFF file of 2 x 2 pixels with three channels of 16 bits."""
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24), (284, 3, 1, 1)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    return (head + bytes(4)).ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + struct.pack("<12H", *[largest] * 12)


def test_what_cannot_be_converted_without_guessing_is_refused():
    floats = file_of(PIL.Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")
    assert "it holds floats" in refusal(floats)
    assert "more than 16 bits" in refusal(file_of(PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"))
    assert decode.decode(color_tiff16(65535)).numpy().min() == 255
    assert "nearly black" in refusal(color_tiff16(4095))
    assert decode.decode(color_tiff16(4095), Reading(max_value=65535)).numpy().max() == 15
    assert "cannot be applied" in refusal(color_tiff16(4095), Reading(max_value=4095))


def test_damaged_files_of_other_formats_are_refused():
    for kind in ("WEBP", "TIFF", "AVIF"):
        noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
        encoded = file_of(PIL.Image.fromarray(noise), kind)
        for part in (encoded[: len(encoded) // 2], encoded[:20]):
            assert "damaged, incomplete" in refusal(part)


@pytest.mark.parametrize("reading", [Reading(), SERVICE])
def test_the_input_says_why_an_image_is_refused(reading):
    files = [gray16(4095)[0], b"", file_of(two_colors(), "PNG"), gray16(65535)[0][:80]]
    records = tf.data.Dataset.from_tensor_slices(
        {"image": files, "name": ["dark", "empty", "sound", "cut"], "label": [0] * 4}
    )
    load = lambda item: decode.central_crop(item["image"], image_size=4)  # noqa: E731
    loaded = records.map(lambda r: guard(load, r, [4, 4, 3], reading))
    problems = [problem.decode().partition("\0") for _, problem in loaded.as_numpy_iterator()]
    assert [name for name, _, _ in problems] == ["image 0 dark", "image 0 empty", "", "image 0 cut"]
    assert ["4095" in reason for _, _, reason in problems] == [True, False, False, False]


def test_verified_files_are_trusted_if_they_have_both_ends():
    sound = [file_of(two_colors(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP")]
    cut = [encoded[:-4] for encoded in sound[:2]]

    def load(files, verified):
        records = tf.data.Dataset.from_tensor_slices({"image": files, "name": ["name"] * len(files)})
        records = records.map(lambda record: {**record, "label": tf.constant(0)})
        square = functools.partial(decode.central_crop, image_size=4)
        loaded = records.map(lambda r: guard(lambda item: square(item["image"]), r, [4, 4, 3], verified=verified))
        return [*loaded.as_numpy_iterator()]

    for (image, problem), (expected, same) in zip(load([*sound, *cut, b""], True), load([*sound, *cut, b""], False)):
        np.testing.assert_array_equal(image, expected)
        assert problem == same
    with pytest.raises(tf.errors.InvalidArgumentError):  # which only trying finds out
        load([sound[0][:20] + b"\xff\xd9"], True)


def test_an_image_of_too_many_pixels_is_not_called_damaged(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)
    assert "has more than 0 million pixels" in refusal(file_of(two_colors(), "WEBP"))


ROWS = {
    "JPEG": lambda: file_of(two_colors(), "JPEG"),
    "JPEG, CMYK": lambda: file_of(two_colors("CMYK"), "JPEG"),
    "PNG, 1 to 8 bits": lambda: file_of(two_colors("P"), "PNG"),
    "PNG, 16 bits": lambda: gray16(65535)[0],
    "PNG, 16 bits, no value from 16384 on": lambda: gray16(4095)[0],
    "GIF": lambda: file_of(two_colors("P"), "GIF"),
    "BMP, 8 bits with a palette, 24 or 32 bits": lambda: file_of(two_colors("P"), "BMP"),
    "BMP, 1, 4 or 16 bits, or compressed": lambda: file_of(two_colors("1"), "BMP"),
    "WebP": lambda: file_of(two_colors(), "WEBP"),
    "TIFF, 1 to 8 bits": lambda: file_of(two_colors(), "TIFF"),
    "TIFF, gray, 9 to 16 bits": lambda: gray16(65535, "TIFF")[0],
    "TIFF, color, 16 bits": lambda: color_tiff16(65535),
    "TIFF, floats or 32 bits": lambda: file_of(PIL.Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    "AVIF": lambda: file_of(two_colors(), "AVIF"),
    "HEIF": lambda: file_of(two_colors(), "HEIF"),
    "anything else": lambda: b"%PDF-1.7" + bytes(100),
}


def documented():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    lines = page.partition("| format |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_documented_table_of_formats_lists_them_all():
    assert [row[0] for row in documented()] == list(ROWS)
    suffixes = " ".join(row[1] for row in documented()).replace("`", "").replace(",", "").split()
    assert set(suffixes) == set(formats.IMAGE_SUFFIXES)


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_read_or_refused_as_documented(name):
    read_by = {row[0]: row[2:4] for row in documented()}[name]
    encoded = ROWS[name]()
    for reading, documentation in ((Reading(), read_by[0]), (SERVICE, read_by[1]), (EXPORT, read_by[1])):
        try:
            found = decode.decode(encoded, reading)
        except tf.errors.InvalidArgumentError:
            assert documentation.startswith("refused"), reading
        else:
            assert found.shape[-1] == 3
            assert documentation.startswith("read"), reading
