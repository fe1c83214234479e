"""A ``tf.data.Dataset`` of decoded images and labels as a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.data.sources.base import DataError, Record, StreamSource

_CHANNELS = (1, 3, 4)


class DatasetSource(StreamSource):
    """Your own ``tf.data.Dataset`` of decoded images, one image per element.

    Every pass over the dataset must give the same images in the same order, because a resumed run reads it again. So
    leave out ``shuffle``, ``repeat`` and ``batch``: the source shuffles with a buffer, anew in each pass, in an order
    that depends only on the seed.

    Args:
        dataset: elements ``(image, label)``. ``image``: uint8 ``[H, W, C]`` with C = 1, 3 or 4, values 0..255; images
            may differ in size. ``label``: an integer scalar in [0, num_classes), or a one-hot vector
            ``[num_classes]`` of integers, floats or booleans.
        num_classes: number of classes, at least 1.
        num_images: number of images; None if the dataset knows it (``dataset.cardinality()``).
        class_names: names of the classes, in label order; None for "0", "1", and so on.
        shuffle_buffer: number of images in the shuffle buffer, at least 1. They are decoded, so 1,000 images of 300 x
            300 pixels take 270 MB. A dataset that is ordered by class needs ``num_images``.

    Raises:
        DataError: if an element is not as above, or the number of images is not known or wrong.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        *,
        num_classes: int,
        num_images: int | None = None,
        class_names: Sequence[str] | None = None,
        shuffle_buffer: int = 1024,
    ) -> None:
        for name, value in (("num_classes", num_classes), ("num_images", num_images), ("buffer", shuffle_buffer)):
            if value is not None and value < 1:
                raise DataError(f"{'shuffle_buffer' if name == 'buffer' else name} is {value}, but must be at least 1.")
        image, label = _parts(dataset)
        _check_image(image)
        self._is_one_hot = _is_one_hot(label, num_classes)
        self.class_names = tuple(class_names or map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise DataError(
                f"class_names has {len(self.class_names)} names, but num_classes is {num_classes}. Give one name per "
                "class."
            )
        self.num_examples = _count(dataset, num_images)
        self.shuffle_buffer = min(shuffle_buffer, self.num_examples)
        self._dataset = dataset

    def read(self, seed: tf.Tensor | None) -> tf.data.Dataset:
        """See ``StreamSource.read``; the order is always that of the dataset."""
        del seed
        return self._dataset.enumerate()

    def parse(self, number: tf.Tensor, raw: Any) -> Record:
        """See ``StreamSource.parse``. A vector that is not one-hot gets the label -1, which the pipeline rejects."""
        image, label = raw
        if self._is_one_hot:
            label = tf.cast(label, tf.float32)
            is_valid = tf.equal(tf.reduce_sum(tf.abs(label)), 1) & tf.equal(tf.reduce_max(label), 1)
            label = tf.where(is_valid, tf.argmax(label), tf.constant(-1, tf.int64))
        return {
            "image": image,
            "label": tf.cast(label, tf.int64),
            "name": tf.strings.join(["image ", tf.strings.as_string(number)]),
        }

    def describe_wrong_label(self, label: int) -> str:
        """See ``Source.describe_wrong_label``."""
        if self._is_one_hot:
            return (
                "of the dataset (counted from 0) has a label that is not one-hot: one entry must be 1 and the others "
                "0. Repair or remove the image. The stages mix labels themselves, so leave mixing and smoothing out of "
                "the dataset."
            )
        return f"of the dataset (counted from 0) {super().describe_wrong_label(label)}"


def _parts(dataset: tf.data.Dataset) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Returns the types of image and label.

    Raises:
        DataError: if this is not a dataset of pairs.
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise DataError(
            f"DatasetSource got {type(dataset).__name__}, but needs a tf.data.Dataset of pairs (image, label). For "
            "arrays use ArraySource."
        )
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2 and all(isinstance(part, tf.TensorSpec) for part in spec)):
        raise DataError(
            f"The elements of the dataset are {spec}, but must be pairs (image, label) of tensors. Map them to such "
            'pairs, as in dataset.map(lambda item: (item["image"], item["label"])).'
        )
    return spec


def _check_image(image: tf.TensorSpec) -> None:
    """Raises ``DataError`` unless this is the type of a decoded image."""
    allowed = "must be decoded images, uint8 [H, W, C] with 1, 3 or 4 channels and values 0..255"
    rank = image.shape.rank
    if image.dtype == tf.string:
        advice = "Decode them first: tf.io.decode_image(content, channels=3, expand_animations=False)."
    elif rank == 4:
        advice = "They are batched; call unbatch() on the dataset."
    elif image.dtype != tf.uint8:
        advice = "Convert floats in [0, 1] with tf.cast(tf.round(255 * image), tf.uint8), and levels with tf.cast."
    elif rank != 3 or image.shape[-1] not in _CHANNELS:
        advice = "If they have such a shape, state it with tf.ensure_shape(image, [None, None, 3])."
    else:
        return
    raise DataError(f"The images of the dataset are {image.dtype.name} {_text(image)}, but {allowed}. {advice}")


def _is_one_hot(label: tf.TensorSpec, num_classes: int) -> bool:
    """Returns whether labels are one-hot vectors; False for integers.

    Raises:
        DataError: if they are neither.
    """
    if label.shape.rank == 0 and label.dtype.is_integer:
        return False
    if label.shape.rank == 1 and label.shape[0] == num_classes and label.dtype != tf.string:
        return True
    raise DataError(
        f"The labels of the dataset are {label.dtype.name} {_text(label)}, but must be integer scalars from 0 to "
        f"{num_classes - 1}, or one-hot vectors [{num_classes}]. Map them to one of the two."
    )


def _text(spec: tf.TensorSpec) -> str:
    return "of unknown shape" if spec.shape.rank is None else str(spec.shape.as_list())


def _count(dataset: tf.data.Dataset, num_images: int | None) -> int:
    """Returns the number of images.

    Raises:
        DataError: if it is not known, infinite, or another one than ``num_images``.
    """
    found = int(dataset.cardinality())
    if found == tf.data.INFINITE_CARDINALITY:
        raise DataError("The dataset is infinite. Leave out repeat(); the source reads the dataset again as needed.")
    if found == tf.data.UNKNOWN_CARDINALITY:
        if num_images is None:
            raise DataError("The dataset does not know how many images it has. Pass num_images=N.")
        return num_images
    if num_images not in (None, found):
        raise DataError(f"num_images is {num_images}, but the dataset has {found} images. Leave num_images out.")
    if not found:
        raise DataError("The dataset has no images.")
    return found
