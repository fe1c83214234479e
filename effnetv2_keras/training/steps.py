"""The train step: forward and backward pass, update of the weights, and moving average.

It has the only gradient tape of the package. Only the train step and the evaluation step call ``strategy.run``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from effnetv2_keras.config import Config
from effnetv2_keras.distribution.replicas import mean_over_replicas, sum_over_replicas
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.keras_compat import replica_local, tf_variables
from effnetv2_keras.models.scopes import stochastic_scope, training_scope
from effnetv2_keras.optim import losses
from effnetv2_keras.optim.clipping import clip_gradients, norms_of
from effnetv2_keras.optim.ema import ema_decay_at, update_ema
from effnetv2_keras.optim.optimizers import uses_decoupled_weight_decay
from effnetv2_keras.progressive import Stage
from effnetv2_keras.training.selection import classifier_variables
from effnetv2_keras.training.state import TrainState

Metrics = dict[str, tf.Tensor]
Batch = dict[str, tf.Tensor]
_Sums = tuple[list[tf.Tensor], Metrics]

_METRICS = ("loss", "top1", "gradient_norm", "stops")
_DROPOUT_STREAM = 3  # the input pipeline uses 1 and 2


class TrainStep:
    """The compiled train step. It is traced once for all stages that ``serves`` says it serves.

    Args:
        state: the state that the step changes.
        strategy: distribution strategy of the state.
        config: configuration of the run.
        stage: the stage of the first steps, which sets the dropout rate and, through the batches, the image size.

    Attributes:
        stage: the stage of the next steps; assign another one that ``serves`` allows.
        traces: number of times that the step was traced, where each replica counts.

    Raises:
        UsageError: if the images of a replica cannot be divided into the micro-batches of the stage, or
            ``train.sync_bn`` is combined with micro-batches on several replicas.
    """

    def __init__(self, state: TrainState, strategy: tf.distribute.Strategy, *, config: Config, stage: Stage) -> None:
        self._state, self._strategy, self._train, self.stage = state, strategy, config.train, stage
        self._micro_batches_of = config.micro_batches
        self._micro_batches = config.micro_batches(stage)
        per_replica = config.train.batch_size // strategy.num_replicas_in_sync
        if per_replica % self._micro_batches:
            raise UsageError(
                f"train.accumulation_steps={self._micro_batches} does not divide the {per_replica} images that each of "
                f"{strategy.num_replicas_in_sync} replicas has in a batch of {config.train.batch_size}; choose a "
                f"divisor of {per_replica}."
            )
        if config.train.sync_bn and self._micro_batches > 1 and strategy.num_replicas_in_sync > 1:
            raise UsageError(
                f"train.sync_bn=true cannot be combined with train.accumulation_steps={self._micro_batches} on "
                f"{strategy.num_replicas_in_sync} replicas, because replicas cannot exchange BatchNorm's statistics in "
                "a micro-batch. Leave one of them out, or save memory with runtime.rematerialize=true."
            )
        self._l2 = [] if uses_decoupled_weight_decay(config.train.optimizer) else state.decayed
        self._rematerialize = config.runtime.rematerialize
        self._loss_scale = state.optimizer.loss_scale
        self._statistics = replica_local(state.model)
        self._gradients = (
            tf.function(functools.partial(self._accumulate), autograph=False, jit_compile=True)
            if config.precision.jit_compile
            else self._accumulate
        )
        # XLA compiles for one size of images, and a loop for one iterator. Otherwise a graph for all sizes is as fast.
        self._any_size = not (
            config.precision.jit_compile
            or config.runtime.steps_per_loop > 1
            or isinstance(strategy, tf.distribute.TPUStrategy)
        )
        self._head_only = stage.trains == "classifier"
        self._variables = state.variables
        if self._head_only:
            head = {id(variable) for variable in classifier_variables(state.model)}
            self._variables = [variable for variable in state.variables if id(variable) in head]
            if not self._variables:
                raise UsageError(
                    "train.head_share trains only the classifier, but train.varsexp or train.trainable_layers keeps "
                    "it fixed. Let that setting include the classifier, or set train.head_share=0."
                )
        self._function: Any = None
        # With a partial, TensorFlow counts the traces of this object; with the method, it counts those of all objects
        # and warns about retracing.
        self._loop = tf.function(functools.partial(self._steps), autograph=False)
        self.traces = 0

    def __call__(self, batch: Batch, stop: bool = False) -> Metrics:
        """Takes one step.

        Args:
            batch: on each replica, ``image`` ``[b, S, S, 3]``, ``label`` float32 ``[b, classes]``, and ``weight``
                float32 ``[b]``: weight of the image in the loss, 0 for an image that does not count.
            stop: whether a signal asked this worker to end the run; the step tells the other workers.

        Returns:
            Float32 scalars over the global batch: ``loss`` (the value that is minimized), ``top1`` (share of images
            whose most likely class has the largest value of the label), ``gradient_norm`` (norm of the gradient of all
            variables that are updated, before clipping) and ``stops`` (number of replicas whose worker was asked to
            end the run).
        """
        rate, stopping = tf.constant(self.stage.dropout_rate, tf.float64), tf.constant(stop, tf.float32)
        if not self._function:
            given = (
                {name: _spec_of_any_size(value) for name, value in batch.items()},
                tf.TensorSpec([], tf.float64),
                tf.TensorSpec([], tf.float32),
            )
            self._function = tf.function(
                functools.partial(self._step), autograph=False, input_signature=given if self._any_size else None
            )
        return self._function(batch, rate, stopping)

    def serves(self, stage: Stage) -> bool:
        """Returns whether the step is also that of another stage of the run, without being traced again."""
        own = self.stage
        return (
            (stage.trains == "classifier") == self._head_only
            and self._micro_batches_of(stage) == self._micro_batches
            and (self._any_size or stage.image_size == own.image_size)
        )

    def several(self, batches: Any, count: int, stop: bool = False) -> Metrics:
        """Takes ``count`` steps on the device without a round trip to the host.

        Args:
            batches: distributed iterator over batches as for ``__call__``.
            count: number of steps, at least 1.
            stop: as for ``__call__``.

        Returns:
            The metrics of ``__call__``, each of shape ``[count]``.
        """
        rate, stopping = tf.constant(self.stage.dropout_rate, tf.float64), tf.constant(stop, tf.float32)
        return self._loop(batches, tf.constant(count), rate, stopping)

    def _steps(self, batches: Any, count: tf.Tensor, dropout_rate: tf.Tensor, stop: tf.Tensor) -> Metrics:
        def step(number: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            metrics = self._step(next(batches), dropout_rate, stop)
            return number + 1, rows.write(number, tf.stack([metrics[name] for name in _METRICS]))

        rows = tf.TensorArray(tf.float32, size=count, element_shape=[len(_METRICS)])
        _, rows = tf.while_loop(lambda number, _: number < count, step, (tf.constant(0), rows), parallel_iterations=1)
        return dict(zip(_METRICS, tf.unstack(rows.stack(), axis=1)))

    def _step(self, batch: Batch, dropout_rate: tf.Tensor, stop: tf.Tensor) -> Metrics:
        state = self._state
        per_replica = self._strategy.run(self._replica_step, args=(batch, dropout_rate, stop))
        if state.ema_model:
            decay = ema_decay_at(state.step + 1, self._train.ema_decay)
            source, average = (tf_variables(model.weights) for model in (state.model, state.ema_model))
            update_ema(self._strategy, source=source, average=average, decay=decay)
        metrics = {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica[name], axis=None) for name in _METRICS
        }
        state.step.assign_add(1)
        return metrics

    def _replica_step(self, batch: Batch, dropout_rate: tf.Tensor, stop: tf.Tensor) -> Metrics:
        self.traces += 1
        state, context = self._state, tf.distribute.get_replica_context()
        seed = tf.constant([self._train.seed, _DROPOUT_STREAM], tf.int32)
        seed = tf.random.experimental.stateless_fold_in(seed, state.step)
        seed = tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)
        gradients, metrics = self._gradients(batch, seed, dropout_rate, state.weight_decay(state.step))
        gradients = sum_over_replicas(gradients)
        # Replicas continue with the values that a checkpoint contains, so a resumed run is bit-identical.
        mean_over_replicas(self._statistics)
        if self._loss_scale:
            gradients = self._loss_scale.unscaled(gradients)
        norms = norms_of(gradients)
        if self._train.gclip:
            gradients = clip_gradients(gradients, norms, self._train.gclip)
        state.optimizer.apply_gradients(zip(gradients, self._variables))
        # Metrics are summed over the replicas, but the norm is already the same on each replica.
        return {
            **metrics,
            "gradient_norm": tf.norm(norms) / self._strategy.num_replicas_in_sync,
            "stops": tf.identity(stop),
        }

    def _accumulate(self, batch: Batch, seed: tf.Tensor, dropout_rate: tf.Tensor, weight_decay: tf.Tensor) -> _Sums:
        """Returns gradients and metrics of one replica: sums over micro-batches, which run one after the other."""
        if self._micro_batches == 1:
            return self._compute(batch, seed, dropout_rate, weight_decay)
        micro_batches = {name: _divided(value, self._micro_batches) for name, value in batch.items()}

        def add(number: tf.Tensor, sums: _Sums) -> tuple[tf.Tensor, _Sums]:
            one = {name: tf.gather(value, number) for name, value in micro_batches.items()}
            own_seed = tf.random.experimental.stateless_fold_in(seed, number)
            return number + 1, tf.nest.map_structure(
                tf.add, sums, self._compute(one, own_seed, dropout_rate, weight_decay)
            )

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in self._variables]
        nothing = (zeros, {"loss": tf.zeros([]), "top1": tf.zeros([])})
        _, sums = tf.while_loop(
            lambda number, _: number < self._micro_batches,
            add,
            (tf.constant(0), nothing),
            parallel_iterations=1,
            maximum_iterations=self._micro_batches,
        )
        return sums

    def _compute(self, batch: Batch, seed: tf.Tensor, dropout_rate: tf.Tensor, weight_decay: tf.Tensor) -> _Sums:
        """Returns gradients and metrics of a micro-batch: sums over its images, divided by the global batch size.

        The mean of the weights over the training images is 1, so this is their weighted mean; see ``class_weights``.
        """
        train, model = self._train, self._state.model
        with tf.GradientTape() as tape:
            scope = training_scope(
                sync_bn=train.sync_bn, micro_batches=self._micro_batches, rematerialize=self._rematerialize
            )
            with stochastic_scope(seed, dropout_rate=dropout_rate), scope:
                logits = model(batch["image"], training=not self._head_only)
            per_image = losses.loss_of_each(
                train.loss_type,
                batch["label"],
                logits,
                label_smoothing=train.label_smoothing,
                focal_gamma=train.focal_gamma,
            )
            loss = tf.reduce_sum(per_image * batch["weight"]) / train.batch_size
            if train.weight_decay and self._l2:
                shares = self._strategy.num_replicas_in_sync * self._micro_batches
                loss += weight_decay * losses.l2_penalty(self._l2) / shares
            objective = self._loss_scale.scaled(loss) if self._loss_scale else loss
        gradients = tape.gradient(objective, self._variables)
        likeliest = tf.gather(batch["label"], tf.argmax(logits, axis=-1), batch_dims=1)
        hits = tf.cast(likeliest >= tf.reduce_max(batch["label"], axis=-1), tf.float32) * tf.cast(
            likeliest > 0, tf.float32
        )
        counts = tf.cast(batch["weight"] > 0, tf.float32)  # accuracy has no weights of classes
        return gradients, {"loss": loss, "top1": tf.reduce_sum(hits * counts) / train.batch_size}


def reuse(steps: Iterable[TrainStep | None], stage: Stage) -> TrainStep | None:
    """Returns the first of some steps that serves a stage, set to that stage; None if there is none."""
    for step in steps:
        if step and step.serves(stage):
            step.stage = stage
            return step
    return None


def awaited(metrics: Metrics, needed: bool = True) -> Metrics:
    """Returns the metrics of a step, after its end if its time is needed, as for the first step of a stage."""
    if needed:
        tf.reduce_sum(metrics["loss"]).numpy()
    return metrics


def _spec_of_any_size(value: Any) -> tf.TypeSpec:
    """Returns the specification of a tensor like this one, if of images ``[b, S, S, 3]``, then of any side ``S``."""

    def relaxed(part: tf.TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec([part.shape[0], None, None, part.shape[3]], part.dtype) if part.shape.rank == 4 else part

    spec = tf.type_spec_from_value(value)  # on several replicas it holds the one of each
    parts = [relaxed(part) for part in tf.nest.flatten(spec, expand_composites=True)]
    return parts[0] if isinstance(spec, tf.TensorSpec) else type(spec)(*parts)


def _divided(value: tf.Tensor, parts: int) -> tf.Tensor:
    """Reshapes ``[b, ...]`` to ``[parts, b / parts, ...]``, where only ``b`` must be static."""
    sizes = [tf.shape(value)[axis] if size is None else size for axis, size in enumerate(value.shape)]
    divided = tf.reshape(value, [parts, sizes[0] // parts, *sizes[1:]])
    return tf.ensure_shape(divided, [parts, value.shape[0] // parts, *value.shape[1:]])
