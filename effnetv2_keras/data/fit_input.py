"""Datasets for Keras' ``fit``: one dataset whose images grow from stage to stage, and one to validate on.

The batches are those of the training loop, made by the same code: for the same seed, settings and step they are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.loading import Batch, plain_graph
from effnetv2_keras.data.pipeline import InputPlan, eval_input, single_replica, train_input
from effnetv2_keras.data.sources.base import Source
from effnetv2_keras.data.unreadable import UnreadableImages
from effnetv2_keras.errors import UsageError
from effnetv2_keras.progressive import Stage, remaining


def progressive_dataset(
    source: Source,
    plan: Sequence[Stage],
    *,
    batch_size: int,
    seed: int = 0,
    steps_per_epoch: int | None = None,
    first_epoch: int = 0,
    normalization: specs.Normalization | None = None,
    class_weights: Sequence[float] = (),
    data: DataConfig | None = None,
) -> tf.data.Dataset:
    """Returns the batches of all stages as one dataset for ``fit``.

    Image size and augmentation follow the stages. The batches depend only on the arguments, so a second call returns
    the same. Give ``fit`` the same ``steps_per_epoch`` as here, so that it continues the dataset from epoch to epoch
    instead of beginning anew. An epoch of ``fit`` may have any number of steps; it need not be a pass over the images.

    Args:
        source: the images and labels, such as ``DatasetSource``, ``ArraySource``, ``FileSource`` or ``Splits.train``.
        plan: the stages, from ``plan_stages``.
        batch_size: global batch: images per step over all replicas.
        seed: determines the order of the images, their augmentation and mixing.
        steps_per_epoch: the ``steps_per_epoch`` of ``fit``. If set, every stage must consist of whole epochs. Needed
            with ``first_epoch``.
        first_epoch: epoch with which the dataset begins, from 0; to resume, pass the ``initial_epoch`` of ``fit``.
        normalization: how pixels become network input, a key of ``architecture.specs.PIXEL_STATISTICS``; None for
            pixels 0..255, for models that normalize their input.
        class_weights: weight in the loss of each class, in label order; empty for weights of 1. Use it instead of the
            ``class_weight`` of ``fit``, which does not know mixed labels.
        data: settings of reading, cropping, augmentation and unreadable images; None for the defaults. Where the data
            is, its splits and ``cache`` are not read.

    Returns:
        Elements ``(image, label)``, or ``(image, label, weight)`` with class weights or ``data.unreadable="skip"``:

        - ``image``: float32 ``[batch_size, S, S, 3]``, S being the stage's size.
        - ``label``: float32 ``[batch_size, classes]``, one-hot before mixing; multi-hot for a multi-label source.
        - ``weight``: float32 ``[batch_size]``; 0 for an unreadable image.

    Raises:
        UsageError: if a stage does not consist of whole epochs, a stage trains only the classifier, or an argument is
            out of range.
        DataError: if ``data.balanced_sampling`` is set and cannot be used with this source.
    """
    data = _checked(source, data, batch_size)
    first_step = _first_step(plan, steps_per_epoch, first_epoch)
    if class_weights and len(class_weights) != len(source.class_names):
        raise UsageError(
            f"class_weights has {len(class_weights)} numbers, but there are {len(source.class_names)} classes. Give "
            "one number per class, or none."
        )
    inputs = InputPlan(
        data,
        batch_size,
        normalization,
        UnreadableImages(data.unreadable, data.max_unreadable),
        class_weights=tuple(class_weights),
    )
    parts = [
        single_replica(train_input(source, inputs, stage=stage, seed=seed, first_step=steps.start))
        for stage, steps in remaining(plan, step=first_step)
    ]
    weighted = bool(class_weights) or data.unreadable == "skip"

    @plain_graph
    def for_fit(batch: Batch) -> tuple[tf.Tensor, ...]:
        values = tf.cast(batch["image"], tf.float32), batch["label"]
        return (*values, batch["weight"]) if weighted else values

    parts = [part.map(for_fit, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True) for part in parts]
    whole = functools.reduce(lambda one, other: one.concatenate(other), parts)
    return _for_strategies(whole.prefetch(tf.data.AUTOTUNE))


def evaluation_dataset(
    source: Source,
    *,
    image_size: int,
    batch_size: int,
    normalization: specs.Normalization | None = None,
    data: DataConfig | None = None,
) -> tf.data.Dataset:
    """Returns every image once, cropped as in evaluation, for ``validation_data`` of ``fit`` and for ``evaluate``.

    Args:
        source: the images and labels.
        image_size: side of the square images, pixels.
        batch_size: images per batch; the last batch may have fewer.
        normalization: see ``progressive_dataset``.
        data: see ``progressive_dataset``. With ``data.unreadable="skip"``, images that cannot be decoded are left out.

    Returns:
        Elements ``(image, label)``: float32 ``[b, image_size, image_size, 3]``, and float32 ``[b, classes]``, one-hot,
        or multi-hot for a multi-label source.

    Raises:
        UsageError: if an argument is out of range.
    """
    data = _checked(source, data, batch_size)
    if image_size < 1:
        raise UsageError(f"image_size is {image_size}, but must be at least 1 pixel.")
    unreadable = UnreadableImages(data.unreadable, data.max_unreadable)
    inputs = InputPlan(data, batch_size, normalization, unreadable)
    num_classes = len(source.class_names)

    @plain_graph
    def for_fit(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        kept = batch["weight"] > 0  # neither padding nor unreadable
        label = batch["label"] if source.multi_label else tf.one_hot(batch["label"], num_classes)
        return tf.cast(tf.boolean_mask(batch["image"], kept), tf.float32), tf.boolean_mask(label, kept)

    batches = single_replica(eval_input(source, inputs, image_size=image_size))
    return _for_strategies(batches.map(for_fit, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))


def check_stages(plan: Sequence[Stage], steps_per_epoch: int | None) -> None:
    """Raises ``UsageError`` unless ``fit`` can train the stages, each in whole epochs.

    Args:
        plan: the stages.
        steps_per_epoch: steps of an epoch of ``fit``; None if it is not known, so that epochs are not checked.
    """
    if not plan:
        raise UsageError("The plan has no stages. Make it with plan_stages.")
    head = next((stage for stage in plan if stage.trains != "all"), None)
    if head is not None:
        raise UsageError(
            f"Stage {head.index + 1} trains only the classifier, which fit does not do by itself. Make the plan with "
            "head_steps=0, and freeze layers with effnetv2_keras.set_trainable in a call of fit before."
        )
    if steps_per_epoch is None:
        return
    if steps_per_epoch < 1:
        raise UsageError(f"steps_per_epoch is {steps_per_epoch}, but must be at least 1.")
    for stage in plan:
        if stage.end_step % steps_per_epoch:
            raise UsageError(
                f"Stage {stage.index + 1} ends at step {stage.end_step}, in the middle of an epoch of "
                f"{steps_per_epoch} steps, but each stage must consist of whole epochs. Call plan_stages with "
                f"total_steps=steps_per_epoch * epochs, where epochs is a multiple of num_stages."
            )


def _first_step(plan: Sequence[Stage], steps_per_epoch: int | None, first_epoch: int) -> int:
    """Returns the step with which an epoch begins, after checks."""
    check_stages(plan, steps_per_epoch)
    if first_epoch and steps_per_epoch is None:
        raise UsageError(f"first_epoch is {first_epoch}, which needs steps_per_epoch: pass that of fit.")
    step = first_epoch * (steps_per_epoch or 1)
    if not 0 <= step < plan[-1].end_step:
        epochs = plan[-1].end_step // (steps_per_epoch or 1)
        raise UsageError(
            f"first_epoch is {first_epoch}, but the plan has {epochs} epochs of {steps_per_epoch} steps. Pass the "
            f"initial_epoch of fit, from 0 to {epochs - 1}."
        )
    return step


def _checked(source: Any, data: DataConfig | None, batch_size: int) -> DataConfig:
    """Returns the data settings, after checks of source and batch size."""
    if not isinstance(source, Source):
        raise UsageError(
            f"The source is {type(source).__name__}, but must be a Source. Wrap a tf.data.Dataset of decoded images in "
            "DatasetSource, and arrays in ArraySource."
        )
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}, but must be at least 1.")
    data = data or DataConfig()
    if data.service:
        raise UsageError(
            f"data.service is {'|'.join(data.service)}, but the datasets for fit are made in this process. Leave it "
            "out."
        )
    return data


def _for_strategies(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with options by which several workers divide its batches rather than its files."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
