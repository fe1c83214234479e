"""Evaluation: every image counted exactly once, for several models in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from effnetv2_keras.data.pipeline import InputFn, num_eval_steps
from effnetv2_keras.optim import losses


class Evaluator:
    """Evaluates models that see the same images.

    Args:
        models: by the suffix of their metrics, such as ``{"": model, "_ema": ema_model}``; float32 logits.
        strategy: where they run.
        input_fn: from ``data.pipeline.eval_input``.
        num_examples: images of the split.
        batch_size: images per step over all replicas.
        confusion: also count, for each class, what its images were taken for.
    """

    def __init__(
        self,
        models: Mapping[str, tf.keras.Model],
        strategy: tf.distribute.Strategy,
        *,
        input_fn: InputFn,
        num_examples: int,
        batch_size: int,
        confusion: bool = False,
    ) -> None:
        self._models, self._strategy, self._confusion = models, strategy, confusion
        self._steps = num_eval_steps(num_examples, batch_size)
        self._dataset = strategy.distribute_datasets_from_function(input_fn)
        self._function = tf.function(self._step, autograph=False)

    def run(self, on_step: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Evaluates on the whole split.

        Args:
            on_step: called with (finished steps, all steps) after each.

        Returns:
            ``num_images`` (those evaluated: the split's, less the unreadable ones) and, with each model's suffix,
            ``top1`` and ``top5`` (shares in [0, 1]), ``eval_loss`` (mean cross-entropy, nats, unsmoothed) and, where
            asked for, ``confusion``: images by class (rows) and by what they were taken for, int64 ``[classes,
            classes]``. With several labels an image, each of them is a hit, and the cross-entropy is to all in equal
            shares.
        """
        totals: dict[str, Any] = {}
        for number, batch in zip(range(self._steps), self._dataset):
            for name, value in self._function(batch).items():
                totals[name] = totals.get(name, 0) + value.numpy().astype(np.float64)
            if on_step:
                on_step(number + 1, self._steps)
        count = totals.pop("num_images")
        means = {name: float(value) / max(count, 1.0) for name, value in totals.items() if value.ndim == 0}
        tables = {name: value.astype(np.int64) for name, value in totals.items() if value.ndim}
        return {"num_images": int(count), **means, **tables}

    def _step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        sums = self._strategy.run(self._replica_step, args=(batch,))
        return {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for name, value in sums.items()
        }

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        label, weight = batch["label"], batch["weight"]
        sums = {"num_images": tf.reduce_sum(weight)}
        for suffix, model in self._models.items():
            logits = tf.cast(model(batch["image"], training=False), tf.float32)
            target = label if label.shape.rank == 2 else tf.one_hot(label, logits.shape[-1])
            loss = tf.nn.softmax_cross_entropy_with_logits(losses.sharing(target), logits)
            for k in (1, 5):
                likely = tf.math.top_k(logits, k=min(k, logits.shape[-1])).indices
                hits = tf.reduce_max(tf.gather(target, likely, batch_dims=1), axis=-1)
                sums[f"top{k}{suffix}"] = tf.reduce_sum(hits * weight)
            sums[f"eval_loss{suffix}"] = tf.reduce_sum(loss * weight)
            if self._confusion:
                taken_for = tf.argmax(logits, axis=-1)
                sums[f"confusion{suffix}"] = tf.math.confusion_matrix(
                    label, taken_for, num_classes=logits.shape[-1], weights=weight, dtype=tf.float32
                )
        return sums
