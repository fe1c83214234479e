import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import DatasetSource
from effnetv2_keras.data.sources.base import DataError, Shard
from effnetv2_keras.data.sources.counts import counts_of

IMAGES = np.random.default_rng(0).integers(0, 256, [7, 6, 5, 3], np.uint8)
LABELS = np.arange(7) % 3


def pairs(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels))


def test_every_pass_has_every_image_once_in_an_order_of_its_own():
    source = DatasetSource(pairs(), num_classes=3)
    assert (source.num_examples, source.class_names) == (7, ("0", "1", "2"))
    records = [*source.stream(seed=1, batch_size=7, steps=range(3), shard=Shard()).as_numpy_iterator()]
    orders = [[int(record["index"]) for record in records[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(order) == [*range(7)] for order in orders)
    assert orders[0] != orders[1] != orders[2]
    for record in records:
        np.testing.assert_array_equal(record["image"], IMAGES[record["index"]])
        assert record["label"] == LABELS[record["index"]]
    later = [*source.stream(seed=1, batch_size=7, steps=range(1, 3), shard=Shard()).as_numpy_iterator()]
    assert [int(record["index"]) for record in later] == [*orders[1], *orders[2]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_])
def test_labels_may_be_one_hot(dtype):
    source = DatasetSource(pairs(labels=np.eye(3, dtype=dtype)[LABELS]), num_classes=3, class_names=["a", "b", "c"])
    assert counts_of(source).tolist() == [3, 2, 2]


def test_images_may_differ_in_size_and_number_be_given():
    def made():
        for size in (4, 9, 6):
            yield np.zeros([size, 8, 1], np.uint8), size % 2

    types = tf.TensorSpec([None, None, 1], tf.uint8), tf.TensorSpec([], tf.int32)
    dataset = tf.data.Dataset.from_generator(made, output_signature=types)
    with pytest.raises(DataError, match="does not know how many images it has. Pass num_images=N"):
        DatasetSource(dataset, num_classes=2)
    records = [*DatasetSource(dataset, num_classes=2, num_images=3).ordered(Shard()).as_numpy_iterator()]
    assert [record["image"].shape for record in records] == [(4, 8, 1), (9, 8, 1), (6, 8, 1)]
    wrong = DatasetSource(dataset, num_classes=2, num_images=4).ordered(Shard())
    with pytest.raises(tf.errors.FailedPreconditionError, match="expected to contain 4 elements"):
        list(wrong)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (IMAGES, "got ndarray, but needs a tf.data.Dataset of pairs .* For arrays use ArraySource"),
        (tf.data.Dataset.from_tensor_slices(IMAGES), r"must be pairs \(image, label\)"),
        (tf.data.Dataset.from_tensor_slices((["a.jpg"], [0])), "are string .* Decode them first: tf.io.decode_image"),
        (pairs().batch(2), r"uint8 \[None, 6, 5, 3\], but must be .* batched; call unbatch"),
        (pairs(IMAGES / np.float32(255)), r"are float32 \[6, 5, 3\], but must be decoded images, uint8 .*255 \* image"),
        (pairs(IMAGES[..., :2]), r"uint8 \[6, 5, 2\], but must be .* 1, 3 or 4 channels .*ensure_shape"),
        (pairs(labels=LABELS.astype(np.float32)), r"labels of the dataset are float32 \[\], but must be integer"),
        (
            pairs(labels=np.eye(4)[LABELS]),
            r"float64 \[4\], but must be integer scalars from 0 to 2, or one-hot .*\[3\]",
        ),
        (pairs().repeat(), r"infinite. Leave out repeat\(\)"),
        (pairs().take(0), "has no images"),
    ],
)
def test_other_datasets_are_refused(dataset, message):
    with pytest.raises(DataError, match=message):
        DatasetSource(dataset, num_classes=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_images": 8}, "num_images is 8, but the dataset has 7 images"),
        ({"num_images": 0}, "num_images is 0"),
        ({"shuffle_buffer": 0}, "shuffle_buffer is 0, but must be at least 1"),
        ({"class_names": ["a", "b"]}, "class_names has 2 names, but num_classes is 3"),
    ],
)
def test_other_arguments_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        DatasetSource(pairs(), **{"num_classes": 3, **arguments})
