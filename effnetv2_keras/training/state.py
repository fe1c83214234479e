"""The state of a run that training changes: model, moving average, optimizer and step counter."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from absl import logging

from effnetv2_keras.basics.exact import Number
from effnetv2_keras.config import Config
from effnetv2_keras.models.from_config import build_for
from effnetv2_keras.models.keras_compat import tf_variables
from effnetv2_keras.optim.base import Optimizer
from effnetv2_keras.optim.optimizers import make_optimizer
from effnetv2_keras.optim.schedules import ScaledSchedule, WarmupSchedule, WeightDecay, make_schedule
from effnetv2_keras.training.selection import layer_rates, moved_variables, split_by_decay
from effnetv2_keras.weights import WeightReport
from effnetv2_keras.weights.loading import load_configured


@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a checkpoint contains. Randomness and the order of the data depend only on ``step`` and the seed.

    Attributes:
        model: the network in training.
        ema_model: a network of the same architecture with the exponential moving average of all weights and BatchNorm
            statistics; None if the moving average is off.
        variables: variables of the model that the optimizer updates.
        decayed: variables of the model with weight decay.
        optimizer: an optimizer that is built for ``variables``; with float16, it has a ``loss_scale``.
        schedule: learning rate as a function of the step.
        lr_scale: float32 scalar, factor of the learning rate; 1 unless the run was rolled back.
        weight_decay: weight decay as a function of the step.
        step: int64 scalar, number of finished steps.
        rollbacks: int64 scalar, number of rollbacks of the run.
    """

    model: tf.keras.Model
    ema_model: tf.keras.Model | None
    variables: list[tf.Variable]
    decayed: list[tf.Variable]
    optimizer: Optimizer
    schedule: ScaledSchedule
    lr_scale: tf.Variable
    weight_decay: WeightDecay
    step: tf.Variable
    rollbacks: tf.Variable

    @property
    def finished_steps(self) -> int:
        """Number of finished steps."""
        return int(self.step.numpy())

    def note_rollbacks(self, count: int, lr_scale: float) -> None:
        """Sets the number of rollbacks and the factor of the learning rate, if the state has fewer rollbacks."""
        if count > int(self.rollbacks.numpy()):
            self.rollbacks.assign(count)
            self.lr_scale.assign(lr_scale)

    def is_finite(self) -> bool:
        """Returns whether all weights of the model are finite."""
        return all(bool(tf.reduce_all(tf.math.is_finite(weight))) for weight in tf_variables(self.model.weights))

    @property
    def models(self) -> dict[str, tf.keras.Model]:
        """The models to evaluate by the suffix of their metrics."""
        return {"": self.model, **({"_ema": self.ema_model} if self.ema_model else {})}


_ENOUGH_FOR_STATISTICS = 16
"""Images at a time on a replica from which BatchNorm's statistics of a batch are better than those that were loaded."""


def with_batch_norm_decided(config: Config, replicas: int) -> Config:
    """Returns the configuration with ``train.freeze_bn`` as it is, or decided by the images at a time if it is None."""
    train = config.train
    if train.freeze_bn is not None:
        return config
    images = train.batch_size // replicas // max(train.accumulation_steps)
    frozen = train.ft_init_ckpt is not None and images < _ENOUGH_FOR_STATISTICS
    if frozen:
        logging.info(
            "BatchNorm keeps the statistics that are loaded: a replica has %d images at a time, fewer than %d "
            "(train.freeze_bn=None).", images, _ENOUGH_FOR_STATISTICS,
        )  # fmt: skip
    return config.model_copy(update={"train": train.model_copy(update={"freeze_bn": frozen})})


def schedule_for(config: Config, *, steps_per_epoch: Number, total_steps: int) -> WarmupSchedule:
    """Returns the learning-rate schedule of a configuration.

    Args:
        config: the configuration.
        steps_per_epoch: training images divided by the batch size, not rounded.
        total_steps: number of steps of the run.
    """
    train = config.train
    return make_schedule(
        train.lr_sched,
        peak=train.lr_base * train.batch_size / 256,
        floor=train.lr_min * train.batch_size / 256,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=train.lr_warmup_epoch,
        decay_epochs=train.lr_decay_epoch,
        decay_factor=train.lr_decay_factor,
        head_steps=config.head_steps(total_steps),
        head_rate=(train.head_lr_base or train.lr_base) * train.batch_size / 256,
    )


def create_state(
    config: Config,
    strategy: tf.distribute.Strategy,
    *,
    num_classes: int,
    steps_per_epoch: Number,
    total_steps: int,
) -> TrainState:
    """Builds the state of a new run. Its initial weights depend only on ``config.train.seed``.

    Args:
        config: configuration of the run.
        strategy: distribution strategy that creates the variables.
        num_classes: number of classes of the data.
        steps_per_epoch: training images divided by the batch size, not rounded.
        total_steps: number of steps of the run.

    Raises:
        UsageError: if ``train.varsexp`` matches no variable, or ``train.trainable_from`` or ``train.trainable_layers``
            matches no layer.
    """
    config = with_batch_norm_decided(config, strategy.num_replicas_in_sync)
    train = config.train
    tf.keras.utils.set_random_seed(train.seed)
    with strategy.scope():
        model = build_for(config, num_classes)
        ema_model = build_for(config, num_classes) if train.ema_decay else None
        if ema_model:
            ema_model.set_weights(model.get_weights())
        lr_scale = _scalar(1.0, tf.float32)
        schedule = ScaledSchedule(
            schedule_for(config, steps_per_epoch=steps_per_epoch, total_steps=total_steps), lr_scale
        )
        weight_decay = WeightDecay(train.weight_decay, train.weight_decay_inc, total_steps)
        variables = moved_variables(model, train.varsexp)
        decayed, not_decayed = split_by_decay(model, train.weight_decay_exclude)
        optimizer = make_optimizer(
            train.optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            not_decayed=not_decayed,
            loss_scaling=config.precision.policy == "mixed_float16",
        )
        if train.head_share or train.first_layer_lr < 1:
            optimizer.set_layer_rates(
                layer_rates(model, first_layer=train.first_layer_lr, head_steps=config.head_steps(total_steps))
            )
        optimizer.build(variables)
        step, rollbacks = _scalar(0, tf.int64), _scalar(0, tf.int64)
    return TrainState(
        model, ema_model, variables, decayed, optimizer, schedule, lr_scale, weight_decay, step, rollbacks
    )


def _scalar(value: float, dtype: tf.DType) -> tf.Variable:
    """Returns a scalar variable that has the same value on every replica."""
    return tf.Variable(value, dtype=dtype, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def initialize(state: TrainState, config: Config) -> WeightReport | None:
    """Loads the weights of ``train.ft_init_ckpt`` into the model of a new run and its moving average.

    Returns:
        A report of the loaded weights; None if ``train.ft_init_ckpt`` is None.

    Raises:
        WeightsError: if the weights cannot be found, downloaded or read, or do not fit the model.
    """
    if config.train.ft_init_ckpt is None:
        return None
    report = load_configured(state.model, config)
    if state.ema_model:
        state.ema_model.set_weights(state.model.get_weights())
    return report
