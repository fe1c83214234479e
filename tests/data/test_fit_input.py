import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras import ArraySource, DatasetSource, Ramp, Ramps, evaluation_dataset, plan_stages, progressive_dataset
from effnetv2_keras.config import Config, DataConfig
from effnetv2_keras.data.sources.base import DataError, FileSource
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.errors import UsageError
from effnetv2_keras.training.input import RunInput
from tests.images import picture, write_classes

STEPS = 3  # of an epoch
PLAIN = DataConfig(augment="none")  # RandAugment takes seconds to trace


def make_plan(stages=2, epochs=4, mixup=0.2, size=(8, 14), **settings):
    ramps = Ramps(
        image_size=Ramp(*size),
        randaug_magnitude=Ramp(5, 15),
        mixup_alpha=Ramp(0, mixup),
        cutmix_alpha=Ramp(0, 0),
        dropout_rate=Ramp(0.1, 0.5),
    )
    return plan_stages(ramps, num_stages=stages, total_steps=epochs * STEPS, **settings)


def images_and_labels(count=10):
    images = np.stack([picture((200, 100, 50), index, size=(20, 24)) for index in range(count)])
    return images, np.arange(count) % 3


def array_source(count=10):
    return ArraySource(*images_and_labels(count), ("a", "b", "c"))


def values(dataset):
    return [tuple(part.numpy() for part in element) for element in dataset]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, two in zip(left, right):
        assert len(one) == len(two)
        for value, other in zip(one, two):
            np.testing.assert_array_equal(value, other)


def test_images_grow_at_the_stages_and_are_mixed_there():
    found = values(progressive_dataset(array_source(), make_plan(), batch_size=4, data=PLAIN))
    assert [element[0].shape for element in found] == [(4, 8, 8, 3)] * 6 + [(4, 14, 14, 3)] * 6
    assert all(element[0].dtype == np.float32 and element[1].shape == (4, 3) for element in found)
    assert all(element[0].min() >= 0 and 50 < element[0].max() <= 255 for element in found)
    is_mixed = [bool(((element[1] > 0) & (element[1] < 1)).any()) for element in found]
    assert not any(is_mixed[:6])
    assert any(is_mixed[6:])


@pytest.mark.parametrize("data", [DataConfig(), DataConfig(augment="none", crop_area=(0.5, 1), pipeline="original_v2")])
def test_batches_equal_those_of_the_training_loop(data):
    """The batches of a run are those of ``RunInput``."""
    config = Config(data=data).override(
        {
            "train.batch_size": 4,
            "train.seed": 5,
            "progressive.stages": 2,
            "progressive.image_size.start": 8,
            "progressive.image_size.end": 14,
            "progressive.mixup_alpha.end": 0.2,
            "runtime.stall_seconds": 1000,
        }
    )
    plan = config.plan(4 * STEPS)
    source = array_source()
    found = values(progressive_dataset(source, plan, batch_size=4, seed=5, data=data))
    strategy = tf.distribute.OneDeviceStrategy("/CPU:0")
    loop = RunInput(config, Splits(source, source), strategy)
    batches = [batch for stage in plan for batch in loop.batches(stage, stage.first_step)]
    assert {float(value) for batch in batches for value in batch["weight"]} == {1.0}
    assert_same(found, [(tf.cast(batch["image"], tf.float32).numpy(), batch["label"].numpy()) for batch in batches])


@pytest.mark.parametrize("kind", ["arrays", pytest.param("dataset", marks=pytest.mark.slow)])
def test_it_resumes_at_an_epoch_with_equal_batches(kind):
    source = array_source()
    if kind == "dataset":
        source = DatasetSource(tf.data.Dataset.from_tensor_slices(images_and_labels()), num_classes=3)
    make = {"batch_size": 4, "seed": 3, "steps_per_epoch": STEPS, "data": PLAIN}
    whole = values(progressive_dataset(source, make_plan(), **make))
    assert_same(whole, values(progressive_dataset(source, make_plan(), **make)))
    for epoch in (1, 2):
        assert_same(whole[epoch * STEPS :], values(progressive_dataset(source, make_plan(), **make, first_epoch=epoch)))
    other = values(progressive_dataset(source, make_plan(), **{**make, "seed": 4}))
    assert not np.array_equal(other[0][0], whole[0][0])


def test_a_dataset_of_ones_own_shows_each_image_once_in_a_pass():
    images, labels = images_and_labels(12)
    source = DatasetSource(tf.data.Dataset.from_tensor_slices((images, np.eye(3)[labels])), num_classes=3)
    data = DataConfig(augment="none", hflip=False, pipeline="original_finetune")
    plan = make_plan(stages=1, epochs=2, mixup=0, size=(20, 20))
    found = values(progressive_dataset(source, plan, batch_size=4, data=data))
    expected = tf.image.resize(images, [20, 20]).numpy()
    for epoch in (found[:STEPS], found[STEPS:]):
        shown = np.concatenate([element[0] for element in epoch])
        numbers = [int(np.argmin(np.abs(expected - one).sum((1, 2, 3)))) for one in shown]
        assert sorted(numbers) == [*range(12)]
        np.testing.assert_array_equal(np.concatenate([element[1] for element in epoch]).argmax(1), labels[numbers])


def test_class_weights_and_unreadable_images_are_weights(tmp_path):
    found = values(progressive_dataset(array_source(), make_plan(), batch_size=4, class_weights=[1, 2, 3], data=PLAIN))
    for _, label, weight in found:
        np.testing.assert_allclose(weight, label @ [1, 2, 3], rtol=1e-6)
    write_classes(tmp_path, {"a": 3})
    paths = sorted(map(str, (tmp_path / "a").iterdir()))
    (tmp_path / "a" / "bad.jpg").write_bytes(b"no image")
    source = FileSource([*paths, str(tmp_path / "a" / "bad.jpg")], [0, 1, 1, 0], ["a", "b"])
    skip = DataConfig(unreadable="skip", max_unreadable=0.5, augment="none")
    plan = make_plan(stages=1)
    found = values(progressive_dataset(source, plan, batch_size=4, data=skip))
    assert all(sorted(weight) == [0, 1, 1, 1] for _, _, weight in found)
    (batch,) = values(evaluation_dataset(source, image_size=8, batch_size=4, data=skip))
    assert batch[1].argmax(1).tolist() == [0, 1, 1]
    for dataset in (
        progressive_dataset(source, plan, batch_size=4, data=PLAIN),
        evaluation_dataset(source, image_size=8, batch_size=4),
    ):
        with pytest.raises(tf.errors.OpError, match="Cannot decode .*bad.jpg"):
            values(dataset)


def test_evaluation_has_every_image_once_without_padding():
    source = array_source(10)
    dataset = evaluation_dataset(source, image_size=12, batch_size=4)
    assert int(dataset.cardinality()) == 3
    found = values(dataset)
    assert [element[0].shape for element in found] == [(4, 12, 12, 3), (4, 12, 12, 3), (2, 12, 12, 3)]
    assert np.concatenate([element[1] for element in found]).argmax(1).tolist() == [index % 3 for index in range(10)]
    normalized = values(evaluation_dataset(source, image_size=12, batch_size=4, normalization="symmetric"))
    np.testing.assert_allclose(normalized[0][0], found[0][0] / 127.5 - 1, atol=1e-5)


def test_labels_of_several_classes_stay_multi_hot():
    images, _ = images_and_labels(4)
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]], bool)
    source = ArraySource(images, labels, ("a", "b", "c"))
    (batch,) = values(evaluation_dataset(source, image_size=8, batch_size=4))
    np.testing.assert_array_equal(batch[1], labels)
    plan = make_plan(mixup=0)
    rows = {
        tuple(row)
        for element in values(progressive_dataset(source, plan, batch_size=4, data=PLAIN))
        for row in element[1]
    }
    assert rows == {(1, 1, 0), (0, 0, 0), (0, 1, 1), (1, 0, 0)}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 2, 5]), "Image 3 of the dataset .*has the label 5, but the labels of 3 classes are 0 to 2"),
        (np.array([[1, 0, 0], [0.5, 0.5, 0]] * 2), "Image [13] of the dataset .* not one-hot"),
    ],
)
def test_wrong_labels_of_a_dataset_name_the_image(labels, message):
    source = DatasetSource(tf.data.Dataset.from_tensor_slices((images_and_labels(4)[0], labels)), num_classes=3)
    with pytest.raises(tf.errors.OpError, match=message):
        values(progressive_dataset(source, make_plan(), batch_size=4, data=PLAIN))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"steps_per_epoch": 4},
            "Stage 1 ends at step 6, in the middle of an epoch of 4 .*multiple of num_stages",
        ),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0, but must be at least 1"),
        ({"first_epoch": 1}, "first_epoch is 1, which needs steps_per_epoch"),
        ({"first_epoch": 4, "steps_per_epoch": STEPS}, "first_epoch is 4, but the plan has 4 epochs .* from 0 to 3"),
        ({"first_epoch": -1, "steps_per_epoch": STEPS}, "first_epoch is -1"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"class_weights": [1, 2]}, "class_weights has 2 numbers, but there are 3 classes"),
        ({"plan": ()}, "The plan has no stages"),
        ({"plan": make_plan(head_steps=3)}, "Stage 1 trains only the classifier"),
        ({"source": tf.data.Dataset.range(3)}, "but must be a Source. Wrap a tf.data.Dataset .* in DatasetSource"),
        ({"data": DataConfig(service=("localhost:1",))}, "data.service is localhost:1, but"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    given = {"source": array_source(), "plan": make_plan(), "batch_size": 4, **arguments}
    with pytest.raises(UsageError, match=message):
        progressive_dataset(given.pop("source"), given.pop("plan"), **given)


def test_bad_arguments_of_evaluation_are_refused():
    with pytest.raises(UsageError, match="image_size is 0"):
        evaluation_dataset(array_source(), image_size=0, batch_size=4)
    with pytest.raises(UsageError, match="must be a Source"):
        evaluation_dataset(images_and_labels(), image_size=8, batch_size=4)


def test_settings_that_this_source_cannot_have_are_refused():
    source = DatasetSource(tf.data.Dataset.from_tensor_slices(images_and_labels()), num_classes=3)
    with pytest.raises(DataError, match="balanced_sampling=1 needs images that can be read in any order"):
        progressive_dataset(source, make_plan(), batch_size=4, data=DataConfig(balanced_sampling=1))
