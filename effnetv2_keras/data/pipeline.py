"""The input pipelines of training and evaluation: how sources, examples and mixing are chained.

Every random choice depends only on (seed, epoch, image) or on (seed, step), so a resumed run draws the same batches
as an uninterrupted one. Nothing after a random choice is cached. Up to the finished batch the graph for a tf.data
service contains no Python function; in this process one reads the formats that TensorFlow cannot read. A record that
cannot be used is described by a string, ``problem``, in its batch; the problem is reported when the batch arrives in
the training process.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import DataConfig
from effnetv2_keras.data.augment import mixing
from effnetv2_keras.data.cropping import CROPPINGS
from effnetv2_keras.data.loading import PER_BATCH, Batch, evaluation_image, plain_graph, training_example
from effnetv2_keras.data.service import from_services
from effnetv2_keras.data.sources.balanced import balanced
from effnetv2_keras.data.sources.base import Record, Shard, Source, StreamSource
from effnetv2_keras.data.sources.labels import label_vector
from effnetv2_keras.data.unreadable import UnreadableImages, guard_label, is_sound
from effnetv2_keras.errors import UsageError
from effnetv2_keras.optim import losses
from effnetv2_keras.progressive import Stage

InputFn = Callable[[tf.distribute.InputContext], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """Settings shared by the training and the evaluation input.

    Attributes:
        data: the data settings.
        batch_size: global batch size: images per step over all replicas.
        normalization: how pixels become network input; None if the model normalizes levels 0..255 itself.
        unreadable: records images that cannot be decoded.
        share_labels: whether the labels of a training image divide the image's weight evenly among them, as softmax
            needs, before images are mixed.
        class_weights: weight in the loss of each class, in label order; empty for weights of 1.
        as_float: whether training images are float32 in each stage, as mixed ones are, so that one trace takes all.
    """

    data: DataConfig
    batch_size: int
    normalization: specs.Normalization | None
    unreadable: UnreadableImages
    share_labels: bool = False
    class_weights: tuple[float, ...] = ()
    as_float: bool = False

    def per_replica(self, context: tf.distribute.InputContext) -> int:
        """Returns the number of images per replica and step.

        Raises:
            UsageError: if the batch size is not a multiple of the number of replicas.
        """
        if self.batch_size % context.num_replicas_in_sync:
            raise UsageError(
                f"The batch of {self.batch_size} images cannot be split evenly over {context.num_replicas_in_sync} "
                f"replicas. Choose a batch size that is a multiple of {context.num_replicas_in_sync}."
            )
        return self.batch_size // context.num_replicas_in_sync

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Normalizes images, unless ``normalization`` is None."""
        if self.normalization is None:
            return images
        mean, deviation = specs.PIXEL_STATISTICS[self.normalization]
        return (tf.cast(images, tf.float32) - tf.constant(mean)) / tf.constant(deviation)

    def pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the levels 0..255 of images that ``normalize`` returned."""
        if self.normalization is None:
            return images
        mean, deviation = specs.PIXEL_STATISTICS[self.normalization]
        return images * tf.constant(deviation) + tf.constant(mean)


def train_input(source: Source, plan: InputPlan, *, stage: Stage, seed: int, first_step: int) -> InputFn:
    """Builds the training input of one stage.

    If ``data.service`` is set, the tf.data services named there make the batches. The batches are the same.

    Args:
        source: the images and labels.
        plan: batch size and data settings.
        stage: image size and strength of augmentation.
        seed: seed of the run.
        first_step: global step of the first batch; the last batch is that of the stage's last step.

    Returns:
        A function for ``strategy.distribute_datasets_from_function``. It raises ``UsageError`` if a service cannot be
        reached. The elements of its dataset are one replica's part of a step:

        - ``image``: ``[b, S, S, 3]``, of the dtype of ``data.pipeline``, or float32 if mixed, normalized or as_float.
        - ``label``: float32 ``[b, classes]``; rows sum to 1. For a multi-label source, rows are multi-hot before
          mixing, or with ``plan.share_labels`` multi-hot divided by the number of labels.
        - ``weight``: float32 ``[b]``, in the loss; 1 or the mean of ``plan.class_weights`` over the labels of the
          image, or 0 for an unreadable image. The label row of an unreadable image is zero before mixing.

    Raises:
        DataError: if ``data.balanced_sampling`` is set and cannot be used with this source.
    """
    drawn = balanced(source, plan.data.balanced_sampling)
    load = training_example(source, plan.data, stage=stage, seed=seed)
    batch_seed = tf.constant([seed, PER_BATCH], tf.int32)

    @plain_graph
    def finish(step: tf.Tensor, batch: Batch) -> Batch:
        labels = batch["label"]
        images, labels = mixing.mix(
            batch["image"],
            losses.sharing(labels) if plan.share_labels and source.multi_label else labels,
            mixup_alpha=stage.mixup_alpha,
            cutmix_alpha=stage.cutmix_alpha,
            even_boxes=plan.data.augment_arithmetic == "original",
            seed=tf.random.experimental.stateless_fold_in(batch_seed, step),
        )
        weight = batch["weight"]
        if plan.class_weights:
            weight *= losses.mean_weight(labels, plan.class_weights)
        images = tf.cast(images, tf.float32) if plan.as_float else images
        return {**batch, "image": plan.normalize(images), "label": labels, "weight": weight}

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = Shard(context.num_input_pipelines, context.input_pipeline_id)
        per_replica = plan.per_replica(context)
        local_replicas = context.num_replicas_in_sync // context.num_input_pipelines

        def make(steps: range) -> tf.data.Dataset:
            records = drawn.stream(seed=seed, batch_size=plan.batch_size, steps=steps, shard=shard)
            batches = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            batches = batches.batch(per_replica * local_replicas, drop_remainder=True)
            numbered = tf.data.Dataset.zip((tf.data.Dataset.range(steps.start, steps.stop, steps.step), batches))
            return numbered.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

        steps = range(first_step, stage.end_step)
        batches = from_services(make, steps, plan.data.service) if plan.data.service else make(steps)
        # Of several workers, each reads a part, and a class may be in the parts of others.
        # So many images contain whole epochs in which each image is drawn.
        whole = (1 + drawn.epochs_for_all) * source.num_examples if shard.count == 1 else None
        batches = plan.unreadable.report_problems(batches, source, images=_images_read(source, shard), whole=whole)
        # Images are mixed over the whole local batch before it is split, so they do not depend on the local replicas.
        if local_replicas > 1:
            batches = batches.map(plain_graph(lambda batch: _deal(batch, local_replicas))).unbatch()
        return ready_soon(batches.prefetch(tf.data.AUTOTUNE))

    return dataset


def _images_read(source: Source, shard: Shard) -> int:
    """Returns the number of different images that a worker reads in training: of a stream always the same part."""
    return -(-source.num_examples // (shard.count if isinstance(source, StreamSource) else 1))


def _deal(batch: Batch, hands: int) -> Batch:
    """Splits every tensor ``[hands * b, ...]`` into ``[hands, b, ...]``."""
    return {
        name: tf.reshape(value, [hands, value.shape[0] // hands, *value.shape[1:]]) for name, value in batch.items()
    }


def eval_input(source: Source, plan: InputPlan, *, image_size: int) -> InputFn:
    """Builds the evaluation input: every image exactly once, on any number of workers and replicas.

    The batches are made in this process, even if ``data.service`` is set.

    Args:
        source: the images and labels.
        plan: batch size and data settings.
        image_size: side of the square images, pixels.

    Returns:
        A function for ``strategy.distribute_datasets_from_function``. Every worker gets the same number of batches.
        The elements of its dataset are one replica's part of a step:

        - ``image``: ``[b, S, S, 3]``, of the dtype of ``data.pipeline``, or float32 if images are normalized.
        - ``label``: int64 ``[b]``; for a multi-label source float32 ``[b, classes]``, multi-hot.
        - ``weight``: float32 ``[b]``; 1, or 0 for an unreadable image and for padding that fills the last batches.
    """
    load_image = evaluation_image(source, plan.data, image_size)
    num_classes = len(source.class_names)
    padding = {
        "image": tf.zeros([image_size, image_size, 3], CROPPINGS[plan.data.pipeline].dtype),
        "label": tf.zeros([num_classes]) if source.multi_label else tf.zeros([], tf.int64),
        "weight": tf.zeros([], tf.float32),
        "problem": tf.constant(""),
    }

    @plain_graph
    def load(record: Record) -> Batch:
        image, problem = load_image(record)
        label, problem = guard_label(record, num_classes, problem)
        label = label_vector(label, num_classes) if source.multi_label else label
        return {"image": image, "label": label, "weight": tf.cast(is_sound(problem), tf.float32), "problem": problem}

    @plain_graph
    def finish(batch: Batch) -> Batch:
        return {**batch, "image": plan.normalize(batch["image"])}

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        per_replica = plan.per_replica(context)
        steps = num_eval_steps(source.num_examples, plan.batch_size)
        local_examples = steps * plan.batch_size // context.num_input_pipelines
        shard = Shard(context.num_input_pipelines, context.input_pipeline_id)
        images = source.ordered(shard)
        images = images.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        images = images.concatenate(tf.data.Dataset.from_tensors(padding).repeat()).take(local_examples)
        part = -(-source.num_examples // shard.count)
        batches = plan.unreadable.report_problems(
            images.batch(per_replica, drop_remainder=True),
            source,
            images=part,
            whole=part if shard.count == 1 else None,
        )
        return ready_soon(batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE))

    return dataset


def ready_soon(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset without rewrites of its graph, which gain nothing here and take a third of its start."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def num_eval_steps(num_examples: int, batch_size: int) -> int:
    """Returns the number of steps that show every image once; padding fills the last batch."""
    return -(-num_examples // batch_size)


def single_replica(input_fn: InputFn) -> Any:
    """Returns the dataset of one worker with one replica, to inspect the input without a strategy."""
    return input_fn(tf.distribute.InputContext(1, 0, 1))
