import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data import formats, loading
from effnetv2_keras.data.cropping import CROPPINGS
from effnetv2_keras.data.pipeline import (
    InputPlan,
    eval_input,
    num_eval_steps,
    single_replica,
    train_input,
)
from effnetv2_keras.data.samples import sample_images
from effnetv2_keras.data.sources.base import ArraySource, DataError, FileSource
from effnetv2_keras.data.unreadable import UnreadableImages, guard
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage
from tests.images import picture, write_classes

SIZE = 16


def make_stage(**changes):
    stage = Stage(0, 0, 6, SIZE, 10.0, 0.0, 0.0, 0.1)
    return dataclasses.replace(stage, **changes)


def array_source(count=10):
    images = np.stack([picture((200, 100, 50), index, size=(20, 24)) for index in range(count)])
    return ArraySource(images, np.arange(count) % 3, ("a", "b", "c"))


def make_plan(batch_size=4, normalization=None, unreadable="error", augment="none", **data):
    """Without RandAugment by default, because tracing it takes longer than all else."""
    return InputPlan(DataConfig(augment=augment, **data), batch_size, normalization, UnreadableImages(unreadable))


def batches(source, *, stage=None, plan=None, seed=0, first_step=0):
    input_fn = train_input(source, plan or make_plan(), stage=stage or make_stage(), seed=seed, first_step=first_step)
    return [{name: value.numpy() for name, value in batch.items()} for batch in single_replica(input_fn)]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, two in zip(left, right):
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])


def test_train_batches_are_static_pixels_and_one_hot_labels():
    source, plan = array_source(), make_plan()
    dataset = single_replica(train_input(source, plan, stage=make_stage(), seed=0, first_step=0))
    assert dataset.element_spec["image"] == tf.TensorSpec([4, SIZE, SIZE, 3], tf.uint8)
    assert dataset.element_spec["label"] == tf.TensorSpec([4, 3], tf.float32)
    found = batches(source)
    assert len(found) == 6
    assert all(set(np.unique(batch["label"])) == {0.0, 1.0} for batch in found)
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]).sum(1), 1)


MIXED = make_stage(mixup_alpha=0.4, cutmix_alpha=0.4)


@pytest.mark.parametrize(
    ("stage", "augment"), [(make_stage(), "none"), (MIXED, "randaug")], ids=["plain", "augmented and mixed"]
)
def test_the_same_seed_gives_the_same_batches_from_any_step(stage, augment):
    source, plan = array_source(), make_plan(augment=augment)
    whole = batches(source, stage=stage, plan=plan)
    assert_same(whole, batches(source, stage=stage, plan=plan))
    for first_step in (1, 4):
        assert_same(whole[first_step:], batches(source, stage=stage, plan=plan, first_step=first_step))
    other = batches(source, stage=stage, plan=plan, seed=1)
    assert not np.array_equal(other[0]["image"], whole[0]["image"])


def test_all_stages_share_one_trace(monkeypatch):
    traces = []

    def counted(load, record, *more, **named):
        traces.append(record)
        return guard(load, record, *more, **named)

    monkeypatch.setattr(loading, "guard", counted)
    source, plan = array_source(), make_plan(augment="randaug", crop_area=(0.33, 1.0))  # of no other test
    for size, magnitude, seed in ((16, 10.0, 0), (24, 15.0, 0), (24, 15.0, 1)):
        stage = make_stage(image_size=size, randaug_magnitude=magnitude)
        assert batches(source, stage=stage, plan=plan, seed=seed)[0]["image"].shape == (4, size, size, 3)
    assert len(traces) == 1


def test_the_next_epoch_augments_differently():
    """One image alone: whatever differs between its epochs is augmentation."""
    source = ArraySource(array_source(1)._images.numpy(), np.array([0]), ("a", "b"))
    images = [batch["image"][0] for batch in batches(source, plan=make_plan(batch_size=1))]
    assert len({image.tobytes() for image in images}) == len(images)


def test_settings_reach_the_images():
    source = array_source()
    plain = {"crop_area": (1.0, 1.0), "crop_aspect": (20 / 24, 20 / 24), "hflip": False, "augment": "none"}
    calm = batches(source, plan=make_plan(**plain))
    flipped = batches(source, plan=make_plan(**{**plain, "hflip": True}))
    same = mirrored = 0
    for left, right in zip(calm, flipped):
        for one, two in zip(left["image"], right["image"]):
            same += np.array_equal(one, two)
            mirrored += np.array_equal(one[:, ::-1], two)
    assert same + mirrored == 24
    assert min(same, mirrored) > 3
    randaug = {"augment": "randaug"}
    usual = batches(source, plan=make_plan(**randaug))[0]["image"]
    for change in ({**randaug, "crop_area": (0.2, 0.5)}, {**randaug, "ra_num_layers": 4}, {"augment": "autoaug"}, {}):
        assert not np.array_equal(batches(source, plan=make_plan(**change))[0]["image"], usual)
    strong = batches(source, stage=make_stage(randaug_magnitude=25.0), plan=make_plan(**randaug))
    assert not np.array_equal(strong[0]["image"], usual)


PIPELINES = [
    {"pipeline": pipeline, "augment": augment, "augment_arithmetic": arithmetic, "cutout": cutout}
    for pipeline, augment, arithmetic, cutout in (
        ("original_v2", "autoaug", "clean", False),
        ("clean", "ra_aa", "clean", True),
        ("original_v2", "randaug", "original", False),
        ("original_v1", "autoaug", "original", False),
        ("original_finetune", "none", "original", True),
    )
]


@pytest.mark.parametrize(
    "data",
    [*(pytest.param(data, marks=pytest.mark.slow) for data in PIPELINES[:2]), *PIPELINES[2:]],
    ids=lambda data: "-".join(map(str, data.values())),
)
def test_every_pipeline_is_a_function_of_seed_epoch_and_image(data):
    source, plan = array_source(), make_plan(**data)
    whole = batches(source, plan=plan)
    assert whole[0]["image"].shape == (4, SIZE, SIZE, 3)
    assert whole[0]["image"].dtype == CROPPINGS[plan.data.pipeline].dtype
    assert_same(whole[2:], batches(source, plan=plan, first_step=2))
    alone = ArraySource(array_source(1)._images.numpy(), np.array([0]), ("a", "b"))
    images = [batch["image"][0] for batch in batches(alone, plan=make_plan(1, **data))]
    assert len({image.tobytes() for image in images}) >= len(images) - 2  # an operation may leave it as it is


@pytest.mark.parametrize("pipeline", CROPPINGS)
def test_evaluation_and_calibration_follow_the_pipeline(pipeline):
    source, plan = array_source(4), make_plan(pipeline=pipeline)
    cropping = CROPPINGS[pipeline]
    (batch,) = single_replica(eval_input(source, plan, image_size=SIZE))
    expected = np.stack([cropping.evaluate(image, image_size=SIZE, crop=None) for image in source._images])
    np.testing.assert_array_equal(batch["image"], expected)
    assert batch["image"].dtype == cropping.dtype
    sampled = sample_images(source, plan.data, image_size=SIZE, count=4)
    assert sampled.element_spec == tf.TensorSpec([SIZE, SIZE, 3], tf.uint8)
    levels = np.clip(np.round(expected), 0, 255).astype(np.uint8)
    assert {image.tobytes() for image in sampled.as_numpy_iterator()} == {image.tobytes() for image in levels}


def test_the_reference_codes_finetuning_covers_the_squeezed_image_with_bright_noise():
    source = array_source()
    data = {"pipeline": "original_finetune", "augment": "none", "hflip": False, "augment_arithmetic": "original"}
    bare = batches(source, plan=make_plan(**data))
    covered = batches(source, plan=make_plan(**data, cutout=True))
    for left, right in zip(bare, covered):
        np.testing.assert_array_equal(left["label"], right["label"])
        changed = (left["image"] != right["image"]).any(axis=-1)
        assert (right["image"][changed] >= 127.5).all()
        assert (changed.sum(axis=(1, 2)) > 0).all()
        assert (changed.sum(axis=(1, 2)) <= (SIZE // 2) ** 2).all()


def test_original_arithmetic_reaches_cutmix():
    source, stage = array_source(), make_stage(randaug_magnitude=0.0, cutmix_alpha=1.0)
    labels = [
        np.concatenate([batch["label"] for batch in batches(source, stage=stage, plan=make_plan(**data))])
        for data in ({}, {"augment_arithmetic": "original"})
    ]
    assert not np.array_equal(*labels)


def test_mixing_begins_with_its_alpha():
    labels = np.concatenate([batch["label"] for batch in batches(array_source(), stage=MIXED)])
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-5)
    assert ((labels > 0.01) & (labels < 0.99)).any()


def test_normalization_outside_the_model():
    source = array_source()
    raw = batches(source)[0]["image"]
    for name, (mean, deviation) in specs.PIXEL_STATISTICS.items():
        normal = batches(source, plan=make_plan(normalization=name))[0]["image"]
        np.testing.assert_allclose(make_plan(normalization=name).pixels(normal), raw, atol=1e-3)
        assert normal.dtype == np.float32
        np.testing.assert_allclose(normal, (raw - np.array(mean)) / np.array(deviation), rtol=1e-5, atol=1e-5)


def test_replicas_get_the_parts_of_one_batch():
    """However many replicas share a step, it has the same images, mixed with the same partners."""
    source, plan = array_source(), make_plan()
    input_fn = train_input(source, plan, stage=MIXED, seed=0, first_step=0)
    parts = list(input_fn(tf.distribute.InputContext(1, 0, 2)))
    assert all(part["image"].shape == (2, SIZE, SIZE, 3) for part in parts)
    joined = [np.concatenate([one["image"], two["image"]]) for one, two in zip(parts[::2], parts[1::2])]
    np.testing.assert_array_equal(joined, [batch["image"] for batch in batches(source, stage=MIXED)])


def test_batch_must_divide_over_the_replicas():
    input_fn = train_input(array_source(), make_plan(5), stage=make_stage(), seed=0, first_step=0)
    with pytest.raises(UsageError, match="batch of 5 images cannot be split evenly over 2 replicas"):
        input_fn(tf.distribute.InputContext(1, 0, 2))


@pytest.mark.parametrize(("workers", "replicas"), [(1, 1), (1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("count", [1, 12, 13])
def test_evaluation_counts_every_image_once(workers, replicas, count):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    source = ArraySource(images, np.zeros(count, int), ("a", "b"))
    batch_size = 6 * replicas
    input_fn = eval_input(source, make_plan(batch_size), image_size=8)
    seen, steps = [], set()
    for worker in range(workers):
        found = list(input_fn(tf.distribute.InputContext(workers, worker, workers * replicas)))
        steps.add(len(found))
        for batch in found:
            seen += [int(image[0, 0, 0]) for image, weight in zip(batch["image"], batch["weight"]) if weight == 1]
    assert sorted(seen) == list(range(count))
    assert steps == {num_eval_steps(count, batch_size) * replicas}


@pytest.fixture
def with_broken(tmp_path):
    paths = write_classes(tmp_path, {"red": 4, "blue": 4})
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[5].write_bytes(b"no image at all")
    return FileSource([str(path) for path in paths], [0] * 4 + [1] * 4, ("red", "blue")), paths


@pytest.mark.parametrize("pipeline", ["clean", "original_v1"])
def test_unreadable_images_are_left_out_named_and_counted(with_broken, pipeline):
    source, paths = with_broken
    plan = make_plan(unreadable="skip", pipeline=pipeline)
    found = batches(source, plan=plan)
    labels = np.concatenate([batch["label"] for batch in found])
    images = np.concatenate([batch["image"] for batch in found])
    assert (labels.sum(1) == 0).sum() == 6  # two of eight, three times
    np.testing.assert_array_equal(np.concatenate([batch["weight"] for batch in found]), labels.sum(1))
    assert sorted(plan.unreadable.names) == sorted(map(str, (paths[2], paths[5])))
    assert images[labels.sum(1) == 1].std() > 0
    evaluated = list(single_replica(eval_input(source, plan, image_size=SIZE)))
    np.testing.assert_array_equal(np.concatenate([batch["weight"] for batch in evaluated]), [1, 1, 0, 1, 1, 0, 1, 1])


def test_unreadable_images_stop_the_run_by_default(with_broken):
    source, _ = with_broken
    plan = make_plan()
    with pytest.raises(tf.errors.OpError):
        batches(source, plan=plan)
    assert isinstance(plan.unreadable.error, DataError)
    assert formats.NOT_AN_IMAGE in str(plan.unreadable.error)


def test_labels_of_an_image_share_its_weight_before_images_are_mixed():
    images = np.stack([picture((200, 100, 50), index, size=(20, 24)) for index in range(2)])
    source = ArraySource(images, np.array([[1, 0, 0, 0], [0, 1, 1, 1]], bool), ("a", "b", "c", "d"))
    stage, plan = make_stage(mixup_alpha=1.0, randaug_magnitude=0.0), make_plan(2)
    shared = batches(source, stage=stage, plan=dataclasses.replace(plan, share_labels=True))
    whole = batches(source, stage=stage, plan=plan)
    for few, all_of_it in zip(shared, whole):
        alone, three = all_of_it["label"][:, :1], all_of_it["label"][:, 1:]  # the weights of the two images
        assert 0 < alone.min() < 1
        np.testing.assert_allclose(few["label"], np.concatenate([alone, three / 3], axis=1), rtol=1e-6)
