"""Evaluation of one or more models in one pass, in which every image counts exactly once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras.data.pipeline import InputFn, num_eval_steps
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.optim import losses
from effnetv2_keras.training.average_precision import AveragePrecision
from effnetv2_keras.training.input import free_in_background

_TOP = (1, 5)
Outputs = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]


class Evaluator:
    """Evaluates models on the same images.

    Args:
        models: the models by the suffix of their metrics, such as ``{"": model, "_ema": ema_model}``; they return
            float32 logits.
        strategy: distribution strategy of the models.
        input_fn: input function from ``data.pipeline.eval_input``.
        num_examples: number of images in the split.
        batch_size: images per step over all replicas.
        loss_type: loss of the training, a key of ``losses.LOSSES``.
        per_class: whether the result includes the metrics of each class.
        max_unreadable: largest share of the images that may be unreadable, in [0, 1].
    """

    def __init__(
        self,
        models: Mapping[str, tf.keras.Model],
        strategy: tf.distribute.Strategy,
        *,
        input_fn: InputFn,
        num_examples: int,
        batch_size: int,
        loss_type: str = "softmax",
        per_class: bool = False,
        max_unreadable: float = 1.0,
    ) -> None:
        self._models, self._strategy, self._loss_type, self._per_class = models, strategy, loss_type, per_class
        self._num_examples, self._max_unreadable = num_examples, max_unreadable
        self._steps = num_eval_steps(num_examples, batch_size)
        self._dataset = strategy.distribute_datasets_from_function(input_fn)
        self._function = tf.function(self._step, autograph=False)

    def try_batch(self) -> float:
        """Evaluates only the first batch, twice, to check that its images can be read and that it fits in memory.

        Returns:
            The time of a whole evaluation, seconds, estimated from the second time, which compiles nothing.
        """
        batches = [iter(self._dataset)]
        batch = next(batches[0])
        free_in_background(batches)
        for _ in range(2):
            start = time.perf_counter()
            sums, _ = self._function(batch)
            sums["num_images"].numpy()  # waits
        return self._steps * (time.perf_counter() - start)

    def run(self, on_step: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Returns the metrics of the models on the whole split.

        Args:
            on_step: called after each step with the number of finished steps and the number of all steps.

        Returns:
            A dict with ``num_images``, which is the number of evaluated images (without unreadable ones), and these
            metrics with the suffix of each model:

            - ``top1`` and ``top5``: accuracy in [0, 1]; for multi-label images, the share of images with at least one
              label among the k most likely classes;
            - ``eval_loss``: mean of the training loss without label smoothing, nats;
            - multi-label only: ``precision_at_1`` and ``precision_at_5``, the mean share of correct classes among the k
              most likely classes (all classes if there are fewer than k). An image without labels has precision 0;
            - multi-label only: ``recall_at_1`` and ``recall_at_5``, the mean share of the labels of an image that are
              among the k most likely classes. Images without labels do not count. The reference code instead
              divides the hits of all images by the labels of all images;
            - multi-label only: ``map``, ``global_ap`` and, for large splits, ``map_error`` and ``global_ap_error``:
              results of ``AveragePrecision`` for ``losses.score``;
            - with ``per_class``: ``confusion``, int64 ``[classes, classes]``, number of images by true class (rows) and
              predicted class (columns); for multi-label images, ``average_precision`` and ``num_positive`` instead,
              ``[classes]`` each.

        Raises:
            DataError: if no image could be read, or more than ``max_unreadable`` of them could not.
        """
        totals: dict[str, Any] = {}
        rankings: dict[str, AveragePrecision] = {}
        batches = [iter(self._dataset)]
        for number in range(self._steps):
            sums, scores = self._function(next(batches[0]))
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value.numpy().astype(np.float64)
            for suffix in self._models if scores else ():
                ranking = rankings.setdefault(suffix, AveragePrecision(scores[suffix].shape[-1]))
                ranking.update(scores[suffix], scores["label"], scores["weight"])
            if on_step:
                on_step(number + 1, self._steps)
        free_in_background(batches)
        figures = _means(totals)
        self._check_count(figures["num_images"])
        for suffix, ranking in rankings.items():
            for name, value in ranking.result().items():
                if self._per_class or not isinstance(value, np.ndarray):
                    figures[f"{name}{suffix}"] = value
        return figures

    def _check_count(self, evaluated: int) -> None:
        """Raises ``DataError`` unless enough images were evaluated; all workers have the same number."""
        if evaluated == 0:
            raise DataError(
                f"None of the {self._num_examples:,} evaluation images could be read, so there is no result. Repair "
                "them, or choose others with data.eval_split."
            )
        if self._num_examples - evaluated > self._max_unreadable * self._num_examples:
            raise DataError(
                f"Only {evaluated:,} of the {self._num_examples:,} evaluation images could be read, but "
                f"data.max_unreadable={self._max_unreadable:g} is the largest share that may be left out. Repair or "
                "remove the unreadable ones, or raise data.max_unreadable."
            )

    def _step(self, batch: dict[str, tf.Tensor]) -> Outputs:
        sums, scores = self._strategy.run(self._replica_step, args=(batch,))
        totals = {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for name, value in sums.items()
        }
        if scores:  # ranking needs the scores of all workers
            ranked = {**scores, "label": batch["label"], "weight": batch["weight"]}
            scores = {name: self._strategy.gather(value, axis=0) for name, value in ranked.items()}
        return totals, scores

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> Outputs:
        """Returns the sums of one replica and, for multi-label images, the scores of each model."""
        label, weight = batch["label"], batch["weight"]
        several = label.shape.rank == 2
        sums, scores = {"num_images": tf.reduce_sum(weight)}, {}
        if several:
            sums["num_labelled"] = tf.reduce_sum(weight * tf.reduce_max(label, axis=-1))
        for suffix, model in self._models.items():
            logits = tf.cast(model(batch["image"], training=False), tf.float32)
            target = label if several else tf.one_hot(label, logits.shape[-1])
            labels = tf.reduce_sum(target, axis=-1)
            figures = {"eval_loss": losses.loss_of_each(self._loss_type, target, logits)}
            for k in _TOP:
                likely = tf.math.top_k(logits, k=min(k, logits.shape[-1])).indices
                hits = tf.gather(target, likely, batch_dims=1)
                figures[f"top{k}"] = tf.reduce_max(hits, axis=-1)
                if several:
                    figures[f"precision_at_{k}"] = tf.reduce_mean(hits, axis=-1)
                    figures[f"recall_at_{k}"] = tf.math.divide_no_nan(tf.reduce_sum(hits, -1), labels)
            sums.update({f"{name}{suffix}": tf.reduce_sum(value * weight) for name, value in figures.items()})
            if several:
                scores[suffix] = losses.score(self._loss_type, logits)
            elif self._per_class:
                taken_for = tf.argmax(logits, axis=-1)
                sums[f"confusion{suffix}"] = tf.math.confusion_matrix(
                    label, taken_for, num_classes=logits.shape[-1], weights=weight, dtype=tf.float32
                )
        return sums, scores


def _means(totals: Mapping[str, Any]) -> dict[str, Any]:
    """Returns means: sums divided by the number of images, or for recall by the number of images with a label."""
    num_images = totals["num_images"]
    figures: dict[str, Any] = {"num_images": int(num_images)}
    for name, value in totals.items():
        if value.ndim:
            figures[name] = value.astype(np.int64)
        elif not name.startswith("num_"):
            count = totals["num_labelled"] if name.startswith("recall") else num_images
            figures[name] = float(value) / max(float(count), 1.0)
    return figures
