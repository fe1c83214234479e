"""How many unreadable images a run with ``data.unreadable=skip`` accepts while it reads them."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.pipeline import InputPlan, eval_input, train_input
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import open_splits
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.evaluation import Evaluator
from tests.images import picture
from tests.records import example, write_shards

STAGE = Stage(0, 0, 9, 16, 0, 0, 0, 0)
"""Three epochs of 12 images in batches of 4."""


def jpeg(seed):
    file = io.BytesIO()
    PIL.Image.fromarray(picture((200, 100, 50), seed)).save(file, "JPEG")
    return file.getvalue()


def records(root, unreadable):
    """Writes 12 records of each split, with 4 of each class in turn; those at the positions ``unreadable`` are cut."""
    written = [
        example(image__encoded=image[: 100 if place in unreadable else None], image__class__label=1 + place % 3)
        for place, image in enumerate(map(jpeg, range(12)))
    ]
    for split in ("train", "validation"):
        write_shards(root, split, written, 1)
    return open_splits(DataConfig(source="tfrecord", data_dir=str(root), num_classes=3))


def reading(splits, max_share, workers=1):
    """Returns the messages of the errors that end training and evaluation; an empty one if nothing does."""
    messages = []
    for evaluate in (False, True):
        plan = InputPlan(DataConfig(augment="none"), 4 * workers, None, UnreadableImages("skip", max_share))
        make = (
            eval_input(splits.evaluation, plan, image_size=16)
            if evaluate
            else train_input(splits.train, plan, stage=STAGE, seed=0, first_step=0)
        )
        message = ""
        try:
            with plan.unreadable.explained():
                list(make(tf.distribute.InputContext(workers, 0, workers)))
        except DataError as error:
            message = str(error)
        messages.append(message)
    return messages


def test_more_than_the_accepted_share_ends_training_and_evaluation(tmp_path):
    splits = records(tmp_path, (0, 3, 4, 5))
    assert reading(splits, 0.4) == ["", ""]
    messages = reading(splits, 0.25)
    for message in messages:
        assert "of 12 images cannot be decoded" in message
        assert "data.max_unreadable=0.25 accepts at most 3" in message
    assert "('0': 2, '1': 1, '2': 1)" in messages[1]


def test_a_class_without_readable_images_ends_training_and_evaluation(tmp_path):
    for message in reading(records(tmp_path, (1, 4, 7, 10)), 0.9):
        assert "No image of the class '1' can be decoded" in message


def test_a_worker_that_reads_a_part_counts_that_part(tmp_path):
    splits = records(tmp_path, (0, 4, 8))  # of worker 0 of 4
    for message in reading(splits, 0.3, workers=4):
        assert "of 3 images cannot be decoded" in message


@pytest.mark.parametrize(("readable", "message"), [(0, "None of the 8"), (3, "Only 3 of the 8")])
def test_an_evaluation_of_too_few_images_is_an_error(readable, message):
    batch = {
        "image": tf.zeros([8, 4, 4, 3]),
        "label": tf.zeros([8], tf.int64),
        "weight": tf.constant(np.arange(8) < readable, tf.float32),
    }

    def evaluator(max_unreadable):
        return Evaluator(
            {"": lambda images, training: tf.zeros([8, 2])},
            tf.distribute.OneDeviceStrategy("/cpu:0"),
            input_fn=lambda _: tf.data.Dataset.from_tensors(batch),
            num_examples=8,
            batch_size=8,
            max_unreadable=max_unreadable,
        )

    with pytest.raises(DataError, match=message):
        evaluator(0.25).run()
    with contextlib.nullcontext() if readable else pytest.raises(DataError):
        assert evaluator(0.9).run()["num_images"] == readable
