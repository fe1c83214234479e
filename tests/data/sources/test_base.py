import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.sources.base import ArraySource, DataError, FileSource, Shard
from effnetv2_keras.data.sources.tfds import TfdsSource
from effnetv2_keras.data.splits import open_splits
from tests.images import write_classes

NAMES = ("a", "b", "c")
WHOLE = Shard()


def array_source(count):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return ArraySource(images, np.arange(count) % 3, NAMES)


def indices(source, *, seed=0, batch_size=4, first_step=0, end_step=5, shard=WHOLE):
    stream = source.stream(seed=seed, batch_size=batch_size, steps=range(first_step, end_step), shard=shard)
    return [int(record["index"]) for record in stream]


def test_every_epoch_shows_every_image_once_in_a_new_order():
    order = indices(array_source(10), batch_size=4, end_step=5)  # 20 images: two epochs
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]
    assert order[:10] != list(range(10))


def test_order_depends_on_the_seed_only():
    source = array_source(50)
    assert indices(source, seed=1) == indices(source, seed=1)
    assert indices(source, seed=1) != indices(source, seed=2)


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 30), batch_size=st.integers(1, 9), split=st.integers(0, 8))
def test_a_resumed_stream_equals_an_uninterrupted_one(count, batch_size, split):
    source = array_source(count)
    whole = indices(source, batch_size=batch_size, end_step=8)
    first = indices(source, batch_size=batch_size, end_step=split)
    rest = indices(source, batch_size=batch_size, first_step=split, end_step=8)
    assert first + rest == whole
    assert len(whole) == 8 * batch_size


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 30), workers=st.integers(1, 4), local_batch=st.integers(1, 3))
def test_workers_share_each_step_and_each_evaluation(count, workers, local_batch):
    source, batch_size = array_source(count), workers * local_batch
    alone = indices(source, batch_size=batch_size, end_step=4)
    shares = [
        indices(source, batch_size=batch_size, end_step=4, shard=Shard(workers, worker)) for worker in range(workers)
    ]
    for step in range(4):
        mine = slice(step * local_batch, (step + 1) * local_batch)
        joined = [index for share in shares for index in share[mine]]
        assert joined == alone[step * batch_size : (step + 1) * batch_size]
    seen = [record["name"].numpy() for w in range(workers) for record in source.ordered(Shard(workers, w))]
    assert len(seen) == len(set(seen)) == count


def test_file_source_reads_files(tmp_path):
    paths = write_classes(tmp_path, {"red": 2, "blue": 1})
    source = FileSource([str(path) for path in paths], [0, 0, 1], ["red", "blue"])
    record = source.lookup(tf.constant(2, tf.int64))
    assert record["image"].numpy() == paths[2].read_bytes()
    assert (int(record["label"]), record["name"].numpy().decode()) == (1, str(paths[2]))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], r"images are float32 \(2, 4, 4, 3\), but must be uint8"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1], r"images are uint8 \(2, 4, 4\), but must be"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], r"must be 2 integers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], r"labels are float64 .*, but must be 2 integers"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 3], "Labels go from 0 to 3, but the labels of 3 classes must be 0 to 2"),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, int), "There are no images with a label"),
    ],
)
def test_bad_arrays_say_what_is_wrong(images, labels, message):
    with pytest.raises(DataError, match=message):
        ArraySource(images, np.asarray(labels), NAMES)


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """A data set that TFDS itself prepared on disk as TFRecord shards of encoded images."""
    root = tmp_path_factory.mktemp("tfds")
    splits = {}
    for split, counts in {"train": {"red": 7, "blue": 6}, "test": {"red": 3, "blue": 2}}.items():
        paths = write_classes(root / "images" / split, counts)
        examples = [{"image": np.asarray(PIL.Image.open(path)), "label": path.parent.name} for path in paths]
        splits[split] = tf.data.Dataset.from_generator(
            lambda examples=examples: iter(examples),
            output_signature={
                "image": tf.TensorSpec([None, None, 3], tf.uint8),
                "label": tf.TensorSpec([], tf.string),
            },
        )
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=["blue", "red"])}
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        "colors", version="1.0.0", features=features, split_datasets=splits, data_dir=root
    )
    return open_splits(DataConfig(source="tfds", tfds_name="colors", data_dir=str(root)))


@pytest.mark.parametrize("global_seed", [0, 7])
def test_tfds_order_ignores_the_global_seed(colors, global_seed):
    """Training sets the global seed, often to 0."""
    order = indices(colors.train, batch_size=5, end_step=6)
    tf.random.set_seed(global_seed)
    assert indices(colors.train, batch_size=5, end_step=6) == order


@pytest.mark.parametrize("buffer", [4, 100])
def test_tfds_streams_whole_epochs_and_resumes(colors, buffer):
    source = TfdsSource(colors.train._builder, "train", buffer)
    assert source.num_examples == 13
    assert source.class_names == ("blue", "red")
    order = indices(source, batch_size=5, end_step=6)  # 30 of 13
    assert len(order) == 30
    assert sorted(order[:13]) == sorted(order[13:26]) == list(range(13))
    assert order[:13] != order[13:26]
    for step in (1, 3, 5):
        assert indices(source, batch_size=5, first_step=step, end_step=6) == order[5 * step :]
    assert indices(source, batch_size=5, end_step=6, seed=9) != order


def test_tfds_gives_encoded_records_of_disjoint_parts(colors):
    assert colors.evaluation.num_examples == 5
    parts = [list(colors.evaluation.ordered(Shard(2, worker))) for worker in (0, 1)]
    records = parts[0] + parts[1]
    assert len({record["name"].numpy() for record in records}) == 5
    assert sorted(int(record["label"]) for record in records) == [0, 0, 1, 1, 1]
    assert records[0]["image"].dtype == tf.string
    assert tf.io.decode_image(records[0]["image"]).shape == (30, 40, 3)
