"""The numbers of images and classes of the recipes' data sets, so that a run can be planned without the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.packages import need
from effnetv2_keras.data.sources.base import DataError, Source
from effnetv2_keras.data.sources.slices import parse_slice
from effnetv2_keras.data.sources.split_names import find_evaluation


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a run's data.

    Attributes:
        num_train: number of training images.
        num_eval: number of evaluation images.
        num_classes: number of classes.
        train: the training images; None if the data is absent.
    """

    num_train: int
    num_eval: int
    num_classes: int
    train: Source | None = None


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The sizes of a published data set.

    Attributes:
        num_classes: number of classes.
        images: number of images by split.
        shards: number of TFRecord files by split, in the layout of the reference code.
    """

    num_classes: int
    images: Mapping[str, int]
    shards: Mapping[str, int] = dataclasses.field(default_factory=dict)


DATA_SETS = {
    "imagenet2012": DataSet(
        1000, {"train": 1_281_167, "validation": 50_000}, {"train": 1024, "validation": 128}
    ),
    "imagenet21k": DataSet(21_843, {"imagenet21k": 12_845_721}, {"imagenet21k": 2048}),
    "cifar10": DataSet(10, {"train": 50_000, "test": 10_000}),
    "cifar100": DataSet(100, {"train": 50_000, "test": 10_000}),
    "oxford_flowers102": DataSet(102, {"train": 1_020, "validation": 1_020, "test": 6_149}),
    "tf_flowers": DataSet(5, {"train": 3_670}),
    "cars196": DataSet(196, {"train": 8_144, "test": 8_041}),
}  # fmt: skip
"""Data sets by their name in TensorFlow Datasets, or by the name of their split if they are not in it.

Sources: the catalog of TensorFlow Datasets; for ImageNet-21k ``datasets.py`` of the reference code, whose shards have
6,272 images each (100,357 in 16 of them, 12,720,275 in all but 20)."""


DIGITS = Sizes(4_000, 1_000, 10)
"""The sizes of ``data.source=digits``."""


def known_sizes(data: config_lib.DataConfig) -> Sizes | None:
    """Returns the sizes of the splits that the data settings name, or None if they are not known without the data.

    A share of a split is computed as the source does it: ``tfds`` counts records, ``tfrecord`` counts whole shards
    (assumed here to have equal sizes), and the other sources count files. The sizes of folds are not known.

    Raises:
        DataError: if the data set has no such split.
    """
    if data.source == "digits":
        return DIGITS
    known = DATA_SETS.get(data.tfds_name or parse_slice(data.train_split).name)
    if known is None or data.folds:
        return None
    evaluation = data.eval_split or find_evaluation(known.images, str(data.tfds_name))
    if evaluation is None:
        return None
    num_classes = data.num_classes or known.num_classes
    return Sizes(_count(known, data.train_split, data), _count(known, evaluation, data), num_classes)


def _count(known: DataSet, split: str, data: config_lib.DataConfig) -> int:
    if data.source == "tfds":
        return _count_records(known, split)
    part = parse_slice(split)
    if part.name not in known.images:
        raise DataError(
            f"There is no split {part.name!r}. Use one of {', '.join(known.images)}, or a share of one such as "
            "train[2%:]."
        )
    images, shards = known.images[part.name], known.shards.get(part.name)
    if data.source == "tfrecord" and shards:
        return round(images * len(part.of(range(shards))) / shards)
    return len(part.of(range(images)))


def _count_records(known: DataSet, split: str) -> int:
    tfds = need("tensorflow_datasets", "data.source=tfds")
    infos = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[images],
            num_bytes=0,
            filename_template=tfds.core.ShardedFileTemplate(dataset_name="x", data_dir=".", filetype_suffix="tfrecord"),
        )
        for name, images in known.images.items()
    ]
    try:
        return int(tfds.core.splits.SplitDict(infos)[split].num_examples)
    except (KeyError, ValueError) as error:
        raise DataError(
            f"There is no split {split!r}. Use one of {', '.join(known.images)}, or a share of one such as train[:90%]."
        ) from error
