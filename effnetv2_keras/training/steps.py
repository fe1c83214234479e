"""The train step: the only gradient tape and, with the evaluation step, the only ``strategy.run``."""

from __future__ import annotations

import functools

import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.models.stochastic import stochastic_scope
from effnetv2_keras.models.training_pass import training_scope
from effnetv2_keras.optim import losses
from effnetv2_keras.optim.clipping import clip_gradients
from effnetv2_keras.optim.ema import ema_decay_at, update_ema
from effnetv2_keras.optim.optimizers import uses_decoupled_weight_decay
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.state import TrainState

Metrics = dict[str, tf.Tensor]

_DROPOUT_STREAM = 3  # 1 and 2 are the input pipeline's


def _sum_over_replicas(strategy: tf.distribute.Strategy, *gradients: tf.Tensor) -> list[tf.Tensor]:
    """What ``ReplicaContext.all_reduce`` does, without registering a gradient that keeps the step's graph for good."""
    return strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, [(gradient, gradient) for gradient in gradients]
    )


class TrainStep:
    """One compiled step of one stage; make a new one for each stage.

    Args:
        state: what the step changes.
        strategy: where it runs.
        config: of the run.
        stage: image size (by its batches) and dropout rate.

    Attributes:
        traces: how often the step was traced, replicas counted singly.
    """

    def __init__(self, state: TrainState, strategy: tf.distribute.Strategy, *, config: Config, stage: Stage) -> None:
        self._state, self._strategy, self._train, self._stage = state, strategy, config.train, stage
        self._l2 = [] if uses_decoupled_weight_decay(config.train.optimizer) else state.decayed
        self._rematerialize = config.runtime.rematerialize
        self._loss_scaling = config.precision.policy == "mixed_float16"
        self._gradients = (
            tf.function(functools.partial(self._compute), autograph=False, jit_compile=True)
            if config.precision.jit_compile
            else self._compute
        )
        # A partial, so that TensorFlow counts the traces of this object and not, with a warning, those of the method.
        self._function = tf.function(functools.partial(self._step), autograph=False)
        self.traces = 0

    def __call__(self, batch: dict[str, tf.Tensor]) -> Metrics:
        """Takes one step.

        Args:
            batch: per replica ``image`` ``[b, S, S, 3]``, ``label`` float32 ``[b, classes]`` and ``weight`` float32
                ``[b]``, 0 for an image that is to count nothing.

        Returns:
            Float32 scalars over the global batch: ``loss`` (what is minimised), ``top1`` (share of images whose most
            likely class is the label's largest), ``gradient_norm`` (of all variables that move, before clipping).
        """
        return self._function(batch)

    def _step(self, batch: dict[str, tf.Tensor]) -> Metrics:
        state = self._state
        per_replica = self._strategy.run(self._replica_step, args=(batch,))
        if state.ema_model:
            decay = ema_decay_at(state.step + 1, self._train.ema_decay)
            update_ema(self._strategy, source=state.model.weights, average=state.ema_model.weights, decay=decay)
        metrics = {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in per_replica.items()
        }
        state.step.assign_add(1)
        return metrics

    def _replica_step(self, batch: dict[str, tf.Tensor]) -> Metrics:
        self.traces += 1
        state, context = self._state, tf.distribute.get_replica_context()
        seed = tf.constant([self._train.seed, _DROPOUT_STREAM], tf.int32)
        seed = tf.random.experimental.stateless_fold_in(seed, state.step)
        seed = tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)
        gradients, metrics = self._gradients(batch, seed, state.weight_decay(state.step))
        gradients = context.merge_call(_sum_over_replicas, args=gradients)
        if self._loss_scaling:
            gradients = state.optimizer.get_unscaled_gradients(gradients)
        norm = tf.linalg.global_norm(gradients)
        if self._train.gclip:
            gradients = clip_gradients(gradients, self._train.gclip)
        # The one name of this argument that all optimizers know, legacy ones and those with loss scaling too.
        state.optimizer.apply_gradients(zip(gradients, state.variables), experimental_aggregate_gradients=False)
        # Metrics are summed over the replicas; the norm is already the same on each.
        return {**metrics, "gradient_norm": norm / self._strategy.num_replicas_in_sync}

    def _compute(
        self, batch: dict[str, tf.Tensor], seed: tf.Tensor, weight_decay: tf.Tensor
    ) -> tuple[list[tf.Tensor], Metrics]:
        """One replica's share of the gradients and metrics: sums over its images, divided by the global batch."""
        train, model = self._train, self._state.model
        with tf.GradientTape() as tape:
            scope = training_scope(sync_bn=train.sync_bn, rematerialize=self._rematerialize)
            with stochastic_scope(seed, dropout_rate=self._stage.dropout_rate), scope:
                logits = model(batch["image"], training=True)
            per_image = losses.loss_of_each(
                train.loss_type, batch["label"], logits, label_smoothing=train.label_smoothing
            )
            loss = tf.reduce_sum(per_image * batch["weight"]) / train.batch_size
            if train.weight_decay and self._l2:
                loss += weight_decay * losses.l2_penalty(self._l2) / self._strategy.num_replicas_in_sync
            objective = self._state.optimizer.get_scaled_loss(loss) if self._loss_scaling else loss
        gradients = tape.gradient(objective, self._state.variables)
        likeliest = tf.gather(batch["label"], tf.argmax(logits, axis=-1), batch_dims=1)
        hits = tf.cast(likeliest >= tf.reduce_max(batch["label"], axis=-1), tf.float32) * tf.cast(
            likeliest > 0, tf.float32
        )
        return gradients, {"loss": loss, "top1": tf.reduce_sum(hits * batch["weight"]) / train.batch_size}
