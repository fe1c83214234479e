"""What the input pipeline does with an image that cannot be decoded, or a label that stands for no class.

Where images are loaded there are graph ops only, which may run in another process: ``guard`` and ``guard_label`` say
what is wrong with a record as its ``problem``, a string. ``UnreadableImages`` reads it where the batches arrive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.data.sources.base import DataError, Record, Source
from effnetv2_keras.data.sources.integrity import plain_message

_plain_graph = tf.autograph.experimental.do_not_convert

_IMAGE, _LABEL = "image", "label"  # how problems begin: "image NAME", "label NUMBER NAME"
_OF_INPUT = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)
"""What TensorFlow raises for files that are damaged or gone."""


def guard(load: Callable[[Record], tf.Tensor], record: Record) -> tuple[tf.Tensor, tf.Tensor]:
    """Loads one image, or black in its place: ``(image, problem)``, a string scalar that is empty if there is none."""
    if record["image"].dtype != tf.string:  # already decoded: nothing can fail
        return load(record), tf.constant("")

    def black(spec: tf.TensorSpec) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        return _plain_graph(lambda name: (tf.zeros(spec.shape, spec.dtype), tf.strings.join([_IMAGE, " ", name])))

    readable = _plain_graph(lambda item: (load(item), tf.constant("")))
    loaded = tf.data.Dataset.from_tensors(record).map(readable).ignore_errors()
    instead = tf.data.Dataset.from_tensors(record["name"]).map(black(loaded.element_spec[0]))
    return loaded.concatenate(instead).take(1).get_single_element()


def guard_label(record: Record, num_classes: int, problem: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The label of a record, or its labels, less what stands for no class: ``(label, problem)``.

    Args:
        record: that has the label.
        num_classes: labels are in [0, num_classes).
        problem: of the image, which gives way to a problem with the label.
    """
    label = record["label"]
    wrong = (label < 0) | (label >= num_classes)
    first_wrong = tf.boolean_mask(tf.reshape(label, [-1]), tf.reshape(wrong, [-1]))[:1]
    described = tf.strings.join(
        [_LABEL, tf.strings.reduce_join(tf.strings.as_string(first_wrong)), record["name"]], " "
    )
    return tf.where(wrong, tf.zeros_like(label), label), tf.where(tf.reduce_any(wrong), described, problem)


def is_sound(problem: tf.Tensor) -> tf.Tensor:
    """Whether there is no problem."""
    return tf.equal(problem, "")


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

    def report(self, name: bytes) -> None:
        """Notes one unreadable image.

        Raises:
            DataError: if the policy is to stop.
        """
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

    def report_problems(self, batches: tf.data.Dataset, source: Source) -> tf.data.Dataset:
        """Reports the problems of each batch when it arrives, and takes ``problem`` ``[b]`` out of it.

        Args:
            batches: dicts with ``problem``.
            source: where they come from.
        """

        def report_all(problems: npt.NDArray[np.object_]) -> np.bool_:
            for problem in problems[problems != b""]:
                kind, _, text = problem.partition(b" ")
                if kind == _IMAGE.encode():
                    self.report(text)
                else:
                    self._refuse_label(text, source)
            return np.bool_(True)

        @_plain_graph
        def reported(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            problems = batch["problem"]
            done = tf.cond(
                tf.reduce_all(is_sound(problems)),
                lambda: tf.constant(True),
                lambda: tf.ensure_shape(tf.numpy_function(report_all, [problems], tf.bool), []),
            )
            with tf.control_dependencies([done]):
                return {name: tf.identity(value) for name, value in batch.items() if name != "problem"}

        return batches.map(reported)

    def _refuse_label(self, text: bytes, source: Source) -> None:
        """Raises ``DataError``: a label that stands for no class stops the run, whatever the policy."""
        label, _, name = text.decode(errors="replace").partition(" ")
        self.error = DataError(f"{name[0].upper()}{name[1:]} {source.describe_wrong_label(int(label))}")
        raise self.error

    @contextlib.contextmanager
    def explained(self, source: Source | None = None, services: Sequence[str] = ()) -> Iterator[None]:
        """Raises ``DataError`` in place of what TensorFlow says; for code that takes batches from the pipeline.

        Args:
            source: where the batches come from; its files are read again to find the one at fault.
            services: those that make the batches.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.error:
                raise self.error from None
            if source is not None and isinstance(error, _OF_INPUT):
                damage = source.check_integrity()
                if damage:
                    raise DataError(damage) from error
            if services and not isinstance(error, tf.errors.ResourceExhaustedError):  # that is of the devices
                raise DataError(
                    f"The tf.data service at {', '.join(services)} failed: {plain_message(error)}. If it was started "
                    "again meanwhile, the same command goes on from the last checkpoint."
                ) from error
            raise
