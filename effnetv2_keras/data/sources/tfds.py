"""The source ``tfds``: data sets of TensorFlow Datasets, read as encoded images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras import config as config_lib
from effnetv2_keras.basics.packages import need
from effnetv2_keras.data.sources.base import DataAbsentError, DataError, Extent, Record, StreamSource
from effnetv2_keras.data.sources.integrity import find_bad_record
from effnetv2_keras.data.sources.split_names import announce, find_evaluation, find_train

_BY_HAND = {
    "imagenet2012": (
        "Register at https://image-net.org/download-images and put ILSVRC2012_img_train.tar (138 GB) and "
        "ILSVRC2012_img_val.tar (6 GB), without unpacking them, into {manual_dir}."
    ),
}
"""Instructions for data sets that cannot be downloaded without an account."""

CARS_LAYOUT = (
    "Arrange the images as DIR/train/CLASS/*.jpg (8,144 images) and DIR/test/CLASS/*.jpg (8,041), with a folder for "
    "each of the 196 classes, and give --data_dir=DIR --hparam_str=data.source=folder"
)
_GONE = {
    "cars196": (
        "cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat are no longer available at "
        f"ai.stanford.edu, where TensorFlow Datasets looks for them. {CARS_LAYOUT}"
    ),
}
"""Instructions for data sets whose download no longer exists."""


class TfdsSource(StreamSource):
    """A split of a TensorFlow Datasets builder.

    Args:
        builder: a ``tfds.core.DatasetBuilder`` whose metadata includes the splits: either it is prepared, or
            TensorFlow Datasets knows its sizes.
        split: a split name or slice, such as ``"train[:90%]"`` or ``"train+validation"``.
        shuffle_buffer: number of records in the shuffle buffer.
        image_key: name of the feature with the image.
        label_key: name of the feature with the label, or with a sequence of labels.

    Raises:
        DataError: if the split or a feature is unknown, the split is empty, or a feature is of another kind.
    """

    def __init__(
        self, builder: Any, split: str, shuffle_buffer: int, *, image_key: str = "image", label_key: str = "label"
    ) -> None:
        import tensorflow_datasets as tfds

        if not isinstance(builder.info.features, tfds.features.FeaturesDict):
            raise DataError(f"{builder.name} has no features with names. Choose another data.tfds_name.")
        features: dict[str, Any] = dict(builder.info.features)
        self.multi_label = isinstance(features.get(label_key), tfds.features.Sequence)
        images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
        labels = [name for name, feature in features.items() if _class_label(feature) is not None]
        for key, setting, wanted, usable in (
            (image_key, "data.image_key", "an Image", images),
            (label_key, "data.label_key", "a ClassLabel", labels),
        ):
            if key in usable:
                continue
            raise DataError(
                (
                    f"The feature {key!r} of {builder.name} is {features[key]}, but must be {wanted}. "
                    if key in features
                    else f"{builder.name} has no feature {key!r}. Its features are {', '.join(features)}. "
                )
                + (
                    f"Choose one that is {wanted}: --hparam_str={setting}={' or '.join(sorted(usable))}"
                    if usable
                    else f"None of them is {wanted}, so it cannot be used. Choose another data set."
                )
            )
        if np.issubdtype(features[image_key].np_dtype, np.floating):
            raise DataError(
                f"The images {image_key!r} of {builder.name} are floats, whose range is not known. Write them as "
                "uint8 with values 0..255, or as uint16 with data.max_value set to the value of white."
            )
        try:
            self._info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{builder.name} has no split {split!r}. Use one of {', '.join(builder.info.splits)}, or a share of "
                "one such as train[:90%]."
            ) from error
        if not self._info.num_examples:
            raise DataError(f"The split {split!r} of {builder.name} has no images. Choose a larger share.")
        self.class_names = tuple(_class_label(features[label_key]).names)
        self.num_examples = self._info.num_examples
        self.shuffle_buffer = shuffle_buffer
        self._builder, self._split, self._keys = builder, split, (image_key, label_key)

    def extents(self) -> Sequence[Extent]:
        """See ``Source.extents``."""
        return [(str(part.filename), range(part.skip, part.skip + part.take)) for part in self._info.file_instructions]

    def check_integrity(self) -> str | None:
        """See ``Source.check_integrity``; checks TFRecord files only."""
        return find_bad_record({path: None for path, _ in self.extents() if ".tfrecord" in path})

    def read(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """See ``StreamSource.read``; files are always read in the same order."""
        import tensorflow_datasets as tfds

        records = self._builder.as_dataset(
            split=self._split,
            shuffle_files=False,
            decoders={self._keys[0]: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, skip_prefetch=True),
        )
        return records.map(lambda record: tuple(record[key] for key in self._keys)).enumerate()

    def parse(self, number: tf.Tensor, raw: tuple[tf.Tensor, tf.Tensor]) -> Record:
        """See ``StreamSource.parse``."""
        image, label = raw
        name = f"{self._builder.name} {self._split}, record " + tf.strings.as_string(number)
        return {"image": image, "label": label, "name": name}


def _class_label(feature: Any) -> Any:
    """Returns a feature that is a ``ClassLabel``, or what a sequence of them contains; None for other features."""
    import tensorflow_datasets as tfds

    inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
    return inner if isinstance(inner, tfds.features.ClassLabel) else None


def prepare_tfds(data: config_lib.DataConfig) -> None:
    """Downloads the data set that the settings name and writes its records, unless it is already prepared.

    Raises:
        DataError: if that fails; the message names the archives and the folder.
    """
    builder = _builder(data)
    import tensorflow_datasets as tfds

    where = f"{builder.name!r} in {builder.data_dir}"
    if builder.name in _GONE and not builder.data_path.exists():
        raise DataError(f"Cannot find a prepared {where}, and it cannot be downloaded: {_GONE[builder.name]}")
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise DataError(f"Cannot prepare {where}: {_reason(error)}") from error
    except (OSError, AssertionError, tf.errors.OpError, tfds.download.DownloadError) as error:
        archives = ", ".join(url.rpartition("/")[2] for url in builder.url_infos or ())
        advice = _BY_HAND.get(builder.name, "").format(manual_dir=builder.data_path.parents[1] / "downloads" / "manual")
        raise DataError(
            f"Cannot prepare {where}: {error}\n"
            + (advice or f"It is made from {archives or 'its own files'}. Prepare it on a machine with a network, ")
            + ("" if advice else f"with tfds.load({builder.name!r}), and copy the result to {builder.data_dir}.")
        ) from error


def _builder(data: config_lib.DataConfig) -> Any:
    tfds = need("tensorflow_datasets", "data.source=tfds")

    if not data.tfds_name:
        raise DataError("The tfds source needs the name of a data set: --hparam_str=data.tfds_name=cifar10")
    try:
        return tfds.builder(data.tfds_name, data_dir=data.data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise DataError(
            f"TensorFlow Datasets has no data set {data.tfds_name!r} (data.data_dir is {data.data_dir}). Set "
            "data.tfds_name to a name from its catalog."
        ) from error
    except Exception as error:  # ImportError, AssertionError for a version, ValueError for the form of a name
        raise DataError(f"data.tfds_name={data.tfds_name} cannot be opened: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Returns what is wrong with the name of a data set, and what to do."""
    lacking = re.match(r"No module named '([^'.]+)", str(error)) if isinstance(error, ImportError) else None
    if lacking:
        return (
            f"it needs the package {lacking[1]!r}, which is not installed. Install it (pip install {lacking[1]}), or "
            "choose another data set."
        )
    reason = " ".join(str(error).split("\n\n")[0].split())
    return (
        f"{type(error).__name__}: {reason}. Write NAME, NAME/CONFIG or NAME:VERSION from the catalog of TensorFlow "
        "Datasets."
    )


def tfds_splits(data: config_lib.DataConfig) -> tuple[TfdsSource, TfdsSource]:
    """Returns the splits of a TensorFlow Datasets data set with an image and one or several labels.

    ``data.data_dir`` is the folder of TensorFlow Datasets. Nothing is downloaded; ``prepare_tfds`` does that.

    Raises:
        DataAbsentError: if the data is not prepared and TensorFlow Datasets does not know its sizes.
        DataError: if no name is given, or the name, a split or a feature is unknown.
    """
    builder = _builder(data)
    if not builder.info.splits:
        raise DataAbsentError(
            f"{builder.name!r} is not prepared in {builder.data_dir}, so its number of images is not known. Prepare it "
            f"with tfds.load({builder.name!r}), or start training, which does the same."
        )
    names, part = list(builder.info.splits), re.fullmatch(r"train(\[.*\])?", data.train_split)
    train = find_train(names, config_lib.DataConfig(), builder.name, prefer_plain=True) if part else None
    train_split = f"{train}{part[1] or ''}" if part and train else data.train_split
    eval_split = data.eval_split or find_evaluation(names, builder.name, exclude=[train or ""], prefer_plain=True)
    if eval_split is None:
        raise DataError(
            f"{data.tfds_name} has the splits {names}, but no validation or test to evaluate on. Choose two splits "
            "that do not overlap: data.train_split=train[:90%],data.eval_split=train[90%:]"
        )
    announce(builder.name, names, train_split, eval_split, chosen=bool(data.eval_split))
    keys = {"image_key": data.image_key or "image", "label_key": data.label_key or "label"}
    return (
        TfdsSource(builder, train_split, data.shuffle_buffer, **keys),
        TfdsSource(builder, eval_split, data.shuffle_buffer, **keys),
    )
