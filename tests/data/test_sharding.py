"""Each image is in exactly one worker's part, for any number of workers."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.pipeline import InputPlan, eval_input, num_eval_steps
from effnetv2_keras.data.sources.base import ArraySource, FileSource, Shard, StreamSource
from effnetv2_keras.data.sources.tfds import TfdsSource
from effnetv2_keras.data.sources.tfrecord_layout import TfRecordLayout
from effnetv2_keras.data.sources.tfrecords import TfRecordSource, open_shards
from effnetv2_keras.data.unreadable import UnreadableImages
from tests.records import digits, example, pictures, write_shards, write_tfds

MOST = 23
NAMES = ("0", "1", "2")


class Numbers(StreamSource):
    """Records that are their own numbers."""

    class_names = NAMES
    shuffle_buffer = 3

    def __init__(self, count):
        self.num_examples = count

    def read(self, seed):
        return tf.data.Dataset.range(self.num_examples).enumerate()

    def parse(self, number, raw):
        image = tf.fill([4, 4, 3], tf.cast(raw, tf.uint8))
        return {"image": image, "label": raw % 3, "name": tf.strings.as_string(raw)}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Returns a source of each kind with this number of images."""
    root = tmp_path_factory.mktemp("sharding")
    found = pictures(MOST)
    paths = [root / f"{number}.jpg" for number in range(MOST)]
    for path, (image, _) in zip(paths, found):
        path.write_bytes(image)
    images, labels = digits()
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
    examples = [{"image": images[number][..., None], "label": number % 3} for number in range(MOST)]
    write_tfds(root / "tfds", "shared", features, {"train": examples})
    builder = tfds.builder("shared", data_dir=root / "tfds")

    @functools.cache
    def tfrecord(count):
        records = [example(image__encoded=image, image__class__label=label + 1) for image, label in found[:count]]
        write_shards(root / f"records{count}", "train", records, min(count, 4))
        return TfRecordSource(open_shards(root / f"records{count}", "train"), TfRecordLayout(NAMES), 3)

    kinds = {
        "array": lambda count: ArraySource(images[:count, ..., None], np.arange(count) % 3, NAMES),
        "files": lambda count: FileSource([str(path) for path in paths[:count]], [0] * count, NAMES),
        "tfrecord": tfrecord,
        "tfds": lambda count: TfdsSource(builder, f"train[:{count}]", 3),
        "stream": Numbers,
    }
    return lambda kind, count: kinds[kind](count)


EVERY_KIND = pytest.mark.parametrize(
    "kind", ["files", "tfrecord", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("array", "tfds", "stream"))]
)
few_examples = settings(max_examples=4, deadline=None)


@st.composite
def shares(draw):
    """(images, workers), no more workers than images."""
    count = draw(st.integers(1, MOST))
    return count, draw(st.integers(1, min(count, 4)))


@EVERY_KIND
@given(share=shares(), local_batch=st.integers(1, 3), epoch=st.integers(0, 2))
@few_examples
def test_an_epoch_is_dealt_out_to_the_workers(make, kind, share, local_batch, epoch):
    (count, workers), source = share, make(kind, share[0])
    steps = range(-(-(epoch + 1) * -(-count // workers) // local_batch))
    parts = []
    for worker in range(workers):
        stream = source.stream(seed=5, batch_size=local_batch * workers, steps=steps, shard=Shard(workers, worker))
        drawn = [(int(record["epoch"]), int(record["index"])) for record in stream]
        assert len(drawn) == len(steps) * local_batch
        parts += [index for number, index in drawn if number == epoch]
    assert sorted(parts) == list(range(count))


@EVERY_KIND
@given(share=shares(), first=st.integers(0, 4), stride=st.integers(1, 4), local_batch=st.integers(1, 3))
@few_examples
def test_every_other_step_has_the_records_that_it_always_has(make, kind, share, first, stride, local_batch):
    workers, source = share[1], make(kind, share[0])

    def drawn(steps):
        shard = Shard(workers, workers - 1)
        stream = source.stream(seed=5, batch_size=local_batch * workers, steps=steps, shard=shard)
        return [(int(record["epoch"]), int(record["index"])) for record in stream]

    whole, steps = drawn(range(8)), range(first, 8, stride)
    wanted = [whole[step * local_batch : (step + 1) * local_batch] for step in steps]
    assert drawn(steps) == [record for records in wanted for record in records]


@EVERY_KIND
@given(share=shares())
@few_examples
def test_all_parts_in_order_make_up_the_data(make, kind, share):
    (count, workers), source = share, make(kind, share[0])
    names = [[record["name"].numpy() for record in source.ordered(Shard(workers, w))] for w in range(workers)]
    whole = [record["name"].numpy() for record in source.ordered(Shard())]
    assert len(set(whole)) == len(whole) == count
    assert names == [whole[worker::workers] for worker in range(workers)]


@given(share=shares())
@few_examples
def test_streams_are_shared_before_they_are_shuffled(share):
    """So that each worker holds, and shuffles, its own records only."""
    count, workers = share
    for worker in range(workers):
        own = range(worker, count, workers)
        stream = Numbers(count).stream(seed=0, batch_size=workers, steps=range(len(own)), shard=Shard(workers, worker))
        assert sorted(int(record["index"]) for record in stream) == list(own)


@EVERY_KIND
@given(share=shares(), local_replicas=st.integers(1, 2), per_replica=st.integers(1, 4))
@settings(max_examples=2, deadline=None)  # each traces an input pipeline for every worker
def test_evaluation_counts_each_image_once_on_any_number_of_replicas(make, kind, share, local_replicas, per_replica):
    (count, workers), source = share, make(kind, share[0])
    replicas = workers * local_replicas
    plan = InputPlan(DataConfig(), per_replica * replicas, None, UnreadableImages("error"))
    input_fn, total = eval_input(source, plan, image_size=8), 0.0
    for worker in range(workers):
        found = [batch["weight"].numpy() for batch in input_fn(tf.distribute.InputContext(workers, worker, replicas))]
        assert len(found) == num_eval_steps(count, plan.batch_size) * local_replicas
        assert all(weight.shape == (per_replica,) for weight in found)
        total += sum(weight.sum() for weight in found)
    assert total == count
