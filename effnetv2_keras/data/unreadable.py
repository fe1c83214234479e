"""How the input pipeline handles an image that cannot be decoded, and a label outside the range of the classes.

Images are loaded by graph ops only, possibly in another process. ``guard`` and ``guard_label`` describe what is wrong
with a record by a string, ``problem``. ``UnreadableImages`` reads the problems in the process where the batches arrive.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from effnetv2_keras.data import formats
from effnetv2_keras.data.left_out import LeftOut
from effnetv2_keras.data.sources.base import DataError, Record, Source
from effnetv2_keras.data.sources.integrity import plain_message

_plain_graph = tf.autograph.experimental.do_not_convert

# First word of a problem: "image LABELS NAME", "image LABELS NAME\0REASON" or "label NUMBER NAME".
_IMAGE, _LABEL = "image", "label"
_OF_INPUT = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)
"""The errors that TensorFlow raises for damaged or missing files."""


def guard(
    load: Callable[[Record], tf.Tensor],
    record: Record,
    shape: Sequence[int | tf.Tensor],
    reading: formats.Reading | None = None,
    *,
    verified: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loads one image; if that fails, a black image takes its place.

    Args:
        load: maps the record to the image.
        record: the record of the image.
        shape: shape of the image that ``load`` returns.
        reading: how ``load`` reads files; the problem then contains the reason for which the image is refused.
        verified: whether all images were decoded before. Then ``load`` is trusted with a file that has both ends of a
            JPEG or PNG file, which takes less than half of the time.

    Returns:
        ``(image, problem)``. The problem is a string scalar, empty if the image was loaded.
    """
    if record["image"].dtype != tf.string:  # an image that is already decoded cannot fail
        return load(record), tf.constant("")
    if not verified:
        return _try(load, record, shape, reading)
    trace_once = tf.function(load, autograph=False, experimental_attributes={"_noinline": True})
    return tf.cond(
        formats.has_both_ends(record["image"]),
        lambda: (trace_once(record), tf.constant("")),
        formats.one_op(lambda: _try(trace_once, record, shape, reading)),
    )


def _try(
    load: Callable[[Record], tf.Tensor],
    record: Record,
    shape: Sequence[int | tf.Tensor],
    reading: formats.Reading | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    readable = _plain_graph(lambda item: (load(item), tf.constant("")))
    loaded = tf.data.Dataset.from_tensors(record).map(readable).ignore_errors()
    dtype = loaded.element_spec[0].dtype

    def black(item: Record, *reason: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.strings.reduce_join(tf.strings.as_string(tf.reshape(item["label"], [-1])), separator=",")
        problem = tf.strings.join([_IMAGE, " ", labels, " ", item["name"], *reason])
        return tf.zeros(shape, dtype), problem

    failed = tf.data.Dataset.from_tensors(record)
    if reading is not None:
        explained = failed.map(_plain_graph(lambda item: black(item, "\0", formats.why(item["image"], reading))))
        loaded = loaded.concatenate(explained.ignore_errors())
    loaded = loaded.concatenate(failed.map(_plain_graph(lambda item: black(item))))
    return loaded.take(1).get_single_element()


def guard_label(record: Record, num_classes: int, problem: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks the label or labels of a record.

    Args:
        record: the record.
        num_classes: labels must be in [0, num_classes).
        problem: the problem of the image. A problem with the label replaces it.

    Returns:
        ``(label, problem)``. Labels out of range are replaced by 0.
    """
    label = record["label"]
    wrong = (label < 0) | (label >= num_classes)
    first_wrong = tf.boolean_mask(tf.reshape(label, [-1]), tf.reshape(wrong, [-1]))[:1]
    described = tf.strings.join(
        [_LABEL, tf.strings.reduce_join(tf.strings.as_string(first_wrong)), record["name"]], " "
    )
    return tf.where(wrong, tf.zeros_like(label), label), tf.where(tf.reduce_any(wrong), described, problem)


def is_sound(problem: tf.Tensor) -> tf.Tensor:
    """Returns whether there is no problem."""
    return tf.equal(problem, "")


class UnreadableImages:
    """Records images that cannot be decoded and stops the run or warns; always stops at a label out of range.

    Args:
        policy: ``"error"`` to stop at the first unreadable image; ``"skip"`` to warn once per image and leave it out.
        max_share: with ``"skip"``, the largest share of unreadable images in a split, in [0, 1]; more stop the run.

    Attributes:
        names: the unreadable images found so far, in order.
        error: the error that the run must stop with, or None.
    """

    def __init__(self, policy: str, max_share: float = 1.0) -> None:
        self._policy, self._max_share = policy, max_share
        self._left_out: dict[int, LeftOut] = {}
        self.names: list[str] = []
        self.error: DataError | None = None

    def report(self, name: bytes) -> None:
        """Records one unreadable image.

        Args:
            name: its name, and after a zero byte the reason, if known.

        Raises:
            DataError: if the policy is ``"error"``.
        """
        text, _, reason = name.decode(errors="replace").partition("\0")
        reason = reason or f"it is {formats.NOT_AN_IMAGE}"
        if self._policy == "error":
            self.error = DataError(
                f"Cannot decode {text}: {reason}. Repair or remove it, or set "
                "--hparam_str=data.unreadable=skip to leave out unreadable images."
            )
            raise self.error
        if text not in self.names:
            self.names.append(text)
            count = len(self.names)
            logging.warning("Leaving out an image that cannot be decoded (%d so far): %s: %s", count, text, reason)

    def report_problems(
        self, batches: tf.data.Dataset, source: Source, *, images: int | None = None, whole: int | None = None
    ) -> tf.data.Dataset:
        """Returns the batches without ``problem``; reports the problems of each batch when it arrives.

        Args:
            batches: dicts with ``problem``, string ``[b]``, and ``label`` and ``weight`` as the input functions of
                ``pipeline`` return them.
            source: the source of the batches.
            images: number of different images that the batches are drawn from; None for all of the source.
            whole: number of images after which each of them has been in a batch; None if that is not known. From then
                on, a class without readable images is an error.
        """
        left_out = self._left_out.setdefault(id(source), LeftOut(source, self._max_share))
        images = source.num_examples if images is None else images

        def report_all(problems: npt.NDArray[np.object_], readable: npt.NDArray[np.bool_], seen: np.int64) -> np.bool_:
            left_out.readable |= readable
            for problem in problems[problems != b""]:
                kind, _, text = problem.partition(b" ")
                if kind != _IMAGE.encode():
                    self._refuse_label(text, source)
                labels, _, name = text.partition(b" ")
                self.report(name)
                image, _, reason = name.decode(errors="replace").partition("\0")
                left_out.add(image, tuple(map(int, filter(None, labels.split(b",")))), reason)
            try:
                left_out.check_share(images)
                if whole is not None and seen >= whole:
                    left_out.check_classes()
            except DataError as error:
                self.error = error
                raise
            return np.bool_(True)

        @_plain_graph
        def reported(number: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            problems = batch["problem"]
            seen = (number + 1) * tf.size(problems, tf.int64)
            readable = _readable_classes(batch, len(source.class_names))
            done = tf.cond(
                tf.reduce_all(is_sound(problems)) & (self._policy == "error"),
                lambda: tf.constant(True),
                lambda: tf.ensure_shape(tf.numpy_function(report_all, [problems, readable, seen], tf.bool), []),
            )
            with tf.control_dependencies([done]):
                return {name: tf.identity(value) for name, value in batch.items() if name != "problem"}

        return batches.enumerate().map(reported)

    def _refuse_label(self, text: bytes, source: Source) -> None:
        """Raises ``DataError``: a label out of range stops the run with either policy."""
        label, _, name = text.decode(errors="replace").partition(" ")
        self.error = DataError(f"{name[0].upper()}{name[1:]} {source.describe_wrong_label(int(label))}")
        raise self.error

    @contextlib.contextmanager
    def explained(self, source: Source | None = None, services: Sequence[str] = ()) -> Iterator[None]:
        """Replaces TensorFlow's input errors by ``DataError``; wrap it around code that takes batches.

        Args:
            source: the source of the batches. After an error its files are read again to find the damaged one.
            services: the services that make the batches.
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
            # The devices raise ResourceExhaustedError, not the services.
            if services and not isinstance(error, tf.errors.ResourceExhaustedError):
                raise DataError(
                    f"The tf.data service at {', '.join(services)} failed: {plain_message(error)}. Make sure that it "
                    "is running, then run the same command again to resume from the last checkpoint."
                ) from error
            raise


def _readable_classes(batch: dict[str, tf.Tensor], num_classes: int) -> tf.Tensor:
    """Returns for each class whether the batch has a readable image of it, bool ``[num_classes]``."""
    label, weight = batch["label"], batch["weight"]
    rows = tf.one_hot(label, num_classes) if label.dtype.is_integer else label
    return tf.reduce_max(rows * weight[:, tf.newaxis], axis=0) > 0
