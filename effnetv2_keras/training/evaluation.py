"""Evaluation of one or more models in one pass, in which every image counts exactly once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.data.pipeline import InputFn, num_eval_steps
from effnetv2_keras.data.sources.base import DataError
from effnetv2_keras.data.splits import Splits
from effnetv2_keras.optim import losses
from effnetv2_keras.reporting.class_figures import Answers, means
from effnetv2_keras.training.average_precision import AveragePrecision
from effnetv2_keras.training.input import RunInput, free_in_background
from effnetv2_keras.training.mistakes import Mistakes

_TOP = (1, 5)
_HEAD, _ANSWER = 2, 3
"""Columns of a row of answers: label and weight, then for each model class, probability and whether it is right."""
Outputs = tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]


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
        max_unreadable: largest share of the images that may be unreadable, in [0, 1].
        keep_mistakes: number of wrong answers to keep with their images, the most confident ones.

    Attributes:
        mistakes: the wrong answers of the last ``run``, of the last model. A worker has those to its own images.
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
        max_unreadable: float = 1.0,
        keep_mistakes: int = 0,
    ) -> None:
        self._models, self._strategy, self._loss_type = models, strategy, loss_type
        self._keep_mistakes, self.mistakes = keep_mistakes, Mistakes(keep_mistakes)
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
            sums, *_ = self._function(batch)
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
            - ``eval_loss``: mean of the training loss without label smoothing and class weights, nats; for a focal
              loss, its cross-entropy;
            - ``macro_precision``, ``macro_f1``, ``balanced_accuracy`` and ``ece``: see ``class_figures.Answers``;
              for multi-label images ``macro_recall`` instead of the last two, where every class with a probability
              above 0.5 is predicted;
            - multi-label only: ``precision_at_1`` and ``precision_at_5``, the mean share of correct classes among the k
              most likely classes (all classes if there are fewer than k). An image without labels has precision 0;
            - multi-label only: ``recall_at_1`` and ``recall_at_5``, the mean share of the labels of an image that are
              among the k most likely classes. Images without labels do not count. The reference code instead
              divides the hits of all images by the labels of all images;
            - multi-label only: ``map``, ``global_ap`` and, for large splits, ``map_error`` and ``global_ap_error``:
              results of ``AveragePrecision`` for ``losses.score``;
            - arrays of one number per class: ``num_positive`` (images of the class), ``num_predicted`` (images for
              which it is predicted) and ``num_hits`` (those that are both), int64, and for multi-label images
              ``average_precision``;
            - ``confusion``, int64 ``[classes, classes]``, number of images by true class (rows) and predicted class
              (columns); not for multi-label images, nor for more than 1000 classes.

        Raises:
            DataError: if no image could be read, or more than ``max_unreadable`` of them could not.
        """
        totals: dict[str, Any] = {}
        answers: dict[str, Answers] = {}
        rankings: dict[str, Ranking] = {}
        self.mistakes = Mistakes(self._keep_mistakes)
        batches = [iter(self._dataset)]
        for number in range(self._steps):
            batch = next(batches[0])
            sums, gathered, rows = self._function(batch)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + value.numpy().astype(np.float64)
            for position, suffix in enumerate(self._models):
                if "rows" in gathered:
                    collected = answers.setdefault(suffix, Answers(self._num_classes))
                    _collect(collected, gathered["rows"].numpy(), position)
                else:
                    ranking = rankings.setdefault(suffix, Ranking(self._num_classes))
                    ranking.update(gathered[suffix], gathered["label"], gathered["weight"])
            if self._keep_mistakes:
                self._note_mistakes(batch, rows)
            if on_step:
                on_step(number + 1, self._steps)
        free_in_background(batches)
        figures = _means(totals)
        self._check_count(figures["num_images"])
        collectors: dict[str, Answers | Ranking] = {**answers, **rankings}
        for suffix, collector in collectors.items():
            figures.update({f"{name}{suffix}": value for name, value in collector.result().items()})
        return figures

    def _note_mistakes(self, batch: dict[str, Any], rows: Any) -> None:
        """Keeps the wrong answers of the last model to the images of this worker."""
        parts = (self._strategy.experimental_local_results(part) for part in (rows, batch["label"], batch["image"]))
        for answers, labels, images in zip(*parts):
            own = answers.numpy()
            self.mistakes.update(own[:, 1] > 0, own[:, -_ANSWER:], labels.numpy(), images)

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
        sums, scores, rows = self._strategy.run(self._replica_step, args=(batch,))
        totals = {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for name, value in sums.items()
        }
        # Ranking needs the scores of all workers; figures of classes need their answers.
        wanted = {**scores, "label": batch["label"], "weight": batch["weight"]} if scores else {"rows": rows}
        return totals, {name: self._strategy.gather(value, axis=0) for name, value in wanted.items()}, rows

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> Outputs:
        """Returns the sums of one replica, for multi-label images the scores of each model, and rows of answers."""
        label, weight = batch["label"], batch["weight"]
        several = label.shape.rank == 2
        sums, scores = {"num_images": tf.reduce_sum(weight)}, {}
        columns = [tf.zeros_like(weight) if several else tf.cast(label, tf.float32), weight]
        if several:
            sums["num_labelled"] = tf.reduce_sum(weight * tf.reduce_max(label, axis=-1))
        for suffix, model in self._models.items():
            logits = tf.cast(model(batch["image"], training=False), tf.float32)
            self._num_classes = logits.shape[-1]
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
            probability = tf.reduce_max(losses.probabilities(self._loss_type, logits), axis=-1)
            columns += [tf.cast(tf.argmax(logits, axis=-1), tf.float32), probability, figures["top1"]]
        return sums, scores, tf.stack(columns, axis=1)


def evaluator_of_training(
    models: Mapping[str, tf.keras.Model],
    strategy: tf.distribute.Strategy,
    config: Config,
    splits: Splits,
    data: RunInput,
) -> Evaluator:
    """Returns the evaluator of a run: of its models, on its evaluation split, with its settings."""
    return Evaluator(
        models,
        strategy,
        input_fn=data.evaluation(),
        num_examples=splits.evaluation.num_examples,
        batch_size=data.eval_batch_size,
        loss_type=config.train.loss_type,
        max_unreadable=config.data.max_unreadable,
    )


class Ranking(AveragePrecision):
    """Average precision, and precision and recall where every class with a probability above 0.5 is predicted."""

    def __init__(self, num_classes: int, **options: int) -> None:
        super().__init__(num_classes, **options)
        self._predicted, self._hits = np.zeros([2, num_classes], np.int64)

    def update(self, scores: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """Adds a batch, as in ``AveragePrecision``; a score above 0 is a probability above 0.5."""
        super().update(scores, labels, weights)
        predicted = (np.asarray(scores) > 0) & (np.asarray(weights) > 0)[:, np.newaxis]
        self._predicted += predicted.sum(axis=0)
        self._hits += (predicted & (np.asarray(labels) > 0)).sum(axis=0)

    def result(self) -> dict[str, Any]:
        """Returns the result of ``AveragePrecision`` and the means and counts of ``class_figures``."""
        figures = {**super().result(), "num_predicted": self._predicted, "num_hits": self._hits}
        return {**figures, **means(figures, several=True)}


def _collect(answers: Answers, rows: npt.NDArray[np.float32], model: int) -> None:
    """Adds the rows of images that count to the answers of the model at a position."""
    counted = rows[rows[:, 1] > 0]
    first = _HEAD + _ANSWER * model
    answers.update(counted[:, 0], counted[:, first], counted[:, first + 1])


def _means(totals: Mapping[str, Any]) -> dict[str, Any]:
    """Returns means: sums divided by the number of images, or for recall by the number of images with a label."""
    num_images = totals["num_images"]
    figures: dict[str, Any] = {"num_images": int(num_images)}
    for name, value in totals.items():
        if not name.startswith("num_"):
            count = totals["num_labelled"] if name.startswith("recall") else num_images
            figures[name] = float(value) / max(float(count), 1.0)
    return figures
