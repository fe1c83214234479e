"""What the input pipeline does with an image that cannot be decoded, or a label that stands for no class."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources import DataError, Record, Source

_plain_graph = tf.autograph.experimental.do_not_convert


class UnreadableImages:
    """Keeps account of images that cannot be decoded, and stops the run or warns; stops it at a label of no class.

    Args:
        policy: ``"error"`` to stop at the first, ``"skip"`` to warn once per image and leave it out.

    Attributes:
        names: the images met so far, in order.
        error: what the run must stop with, if anything.
    """

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.names: list[str] = []
        self.error: DataError | None = None

    def report(self, name: bytes) -> bytes:
        """Notes one unreadable image; called by the input pipeline."""
        text = name.decode(errors="replace")
        if self._policy == "error":
            self.error = DataError(
                f"Cannot decode {text}: it is not a complete JPEG, PNG, GIF or BMP image. Repair or remove it, or "
                "leave such images out with --hparam_str=data.unreadable=skip"
            )
            raise self.error
        if text not in self.names:
            self.names.append(text)
            logging.warning("Leaving out an image that cannot be decoded (%d so far): %s", len(self.names), text)
        return name

    def guard(self, load: Callable[[Record], tf.Tensor], record: Record) -> tuple[tf.Tensor, tf.Tensor]:
        """Loads one image, or black in its place: ``(image, readable)`` with a boolean scalar."""
        if record["image"].dtype != tf.string:  # already decoded: nothing can fail
            return load(record), tf.constant(True)

        def black(spec: tf.TensorSpec) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
            @_plain_graph
            def reported(name: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                noted = tf.numpy_function(self.report, [name], tf.string)
                with tf.control_dependencies([noted]):
                    return tf.zeros(spec.shape, spec.dtype), tf.constant(False)

            return reported

        readable = _plain_graph(lambda item: (load(item), tf.constant(True)))
        loaded = tf.data.Dataset.from_tensors(record).map(readable).ignore_errors()
        instead = tf.data.Dataset.from_tensors(record["name"]).map(black(loaded.element_spec[0]))
        return loaded.concatenate(instead).take(1).get_single_element()

    def label(self, record: Record, source: Source) -> tf.Tensor:
        """The label of a record, or its labels; one that stands for no class stops the run, whatever the policy."""
        label, num_classes = record["label"], len(source.class_names)

        def refuse(name: bytes, found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            wrong = next(int(number) for number in np.atleast_1d(found) if not 0 <= number < num_classes)
            where = name.decode(errors="replace")
            self.error = DataError(f"{where[0].upper()}{where[1:]} {source.describe_wrong_label(wrong)}")
            raise self.error

        def refused() -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(refuse, [record["name"], label], label.dtype), label.shape)

        known = tf.reduce_all((label >= 0) & (label < num_classes))
        return tf.cond(known, lambda: label, refused)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Raises ``error`` in place of what TensorFlow makes of it; for code that takes batches from the pipeline."""
        try:
            yield
        except tf.errors.OpError:
            if self.error:
                raise self.error from None
            raise
