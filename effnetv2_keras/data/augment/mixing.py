"""MixUp and CutMix: every image of a batch is blended with, or patched from, another image of the batch.

The partner of an image is the image at the mirrored position in the batch. Labels are mixed with the weights of their
images. Label rows that sum to 1 therefore give rows that sum to 1. A label row of zeros (an image that could not be
read) lowers the sum by that image's weight.

For softmax, an image's labels share its weight: ``train_input`` divides them by their number before they are mixed, so
an image of weight 0.7 with one label and one of weight 0.3 with three labels give 0.7 and three times 0.1. (The
reference code divides after mixing, which would give 0.4375 and 0.1875; its recipe with several labels does not mix.)

The rules are those of the reference code, with one fault corrected: the reference code weights all labels of a CutMix
batch by the mean area over the batch; here each label has the weight of its own image.
"""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.data.augment import geometry


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    even_boxes: bool = False,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies MixUp, CutMix, or MixUp to the first half of the batch and CutMix to the second half.

    Args:
        images: ``[B, H, W, 3]``, uint8 or float32, levels 0..255.
        labels: float32 ``[B, classes]``.
        mixup_alpha: parameter of MixUp's Beta distribution; 0 turns MixUp off.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 turns CutMix off.
        even_boxes: whether to round the height and width of CutMix's rectangles down to even numbers. The reference
            code does so: its rectangle extends half the side, rounded down, to both sides of the center.
        seed: int32 ``[2]``; the result depends only on the seed and the batch.

    Returns:
        Mixed images and labels, float32. If both parameters are 0, ``images`` and ``labels`` themselves.

    Raises:
        ValueError: if a parameter is negative.
    """
    if not (mixup_alpha and cutmix_alpha):
        images, labels = mixup(images, labels, alpha=mixup_alpha, seed=seed)
        return cutmix(images, labels, alpha=cutmix_alpha, even_boxes=even_boxes, seed=seed)
    mixup_seed, cutmix_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    half = tf.shape(images)[0] // 2
    first = mixup(images[:half], labels[:half], alpha=mixup_alpha, seed=mixup_seed)
    second = cutmix(images[half:], labels[half:], alpha=cutmix_alpha, even_boxes=even_boxes, seed=cutmix_seed)
    mixed_images, mixed_labels = (tf.concat(halves, axis=0) for halves in zip(first, second))
    return tf.ensure_shape(mixed_images, images.shape), tf.ensure_shape(mixed_labels, labels.shape)


def mixup(images: tf.Tensor, labels: tf.Tensor, *, alpha: float, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each image with its partner.

    The weight of the image is ``max(w, 1 - w)``, where ``w`` is drawn from Beta(alpha, alpha) for each image.
    Arguments, results and errors are those of ``mix``.
    """
    if not _is_on(alpha, "mixup"):
        return images, labels
    drawn = sample_beta(alpha, tf.shape(images)[:1], seed)
    weight = tf.maximum(drawn, 1.0 - drawn)
    images = tf.cast(images, tf.float32)
    return _blend(images, weight[:, tf.newaxis, tf.newaxis, tf.newaxis]), _blend(labels, weight[:, tf.newaxis])


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, *, alpha: float, even_boxes: bool = False, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces a rectangle of each image by the same rectangle of its partner.

    The rectangle has the aspect ratio of the image and the fraction ``1 - w`` of its area, where ``w`` is drawn from
    Beta(alpha, alpha) for each image. Its center is drawn uniformly over all pixels, and it is clipped at the border.
    The weight of a label is the fraction of its image that remains. Arguments, results and errors are those of
    ``mix``.
    """
    if not _is_on(alpha, "cutmix"):
        return images, labels
    area_seed, centre_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    batch, size = tf.shape(images)[:1], tf.shape(images)[1:3]
    extent = tf.cast(size, tf.float32)
    side = tf.sqrt(1.0 - sample_beta(alpha, batch, area_seed))[:, tf.newaxis]
    centre = tf.random.stateless_uniform(tf.concat([batch, [2]], axis=0), centre_seed)
    box = tf.cast(side * extent, tf.int32)
    box = box // 2 * 2 if even_boxes else box
    start, end = geometry.centred_span(tf.cast(centre * extent, tf.int32), box, size)
    remaining = 1.0 - tf.reduce_prod(tf.cast(end - start, tf.float32), axis=1, keepdims=True) / tf.reduce_prod(extent)
    rows, columns = (_inside(start[:, axis], end[:, axis], size[axis]) for axis in (0, 1))
    # The mask is applied to [B, H, 3 W], because broadcasting [B, H, W, 1] over three channels takes 1.5 times as long.
    keep = 1.0 - rows[:, :, tf.newaxis] * tf.repeat(columns, 3, axis=1)[:, tf.newaxis, :]
    flat = tf.reshape(tf.cast(images, tf.float32), tf.shape(keep))
    return tf.reshape(_blend(flat, keep), tf.shape(images)), _blend(labels, remaining)


def sample_beta(alpha: float, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha): float32 of shape ``shape``, in [0, 1]; ``seed`` is int32 ``[2]``.

    The result is the ratio ``x / (x + y)`` of two Gamma(alpha) draws, computed from their logarithms. For a small
    alpha both draws underflow, and the plain ratio would be 0 / 0. A Gamma(alpha) draw is a Gamma(alpha + 1) draw times
    ``u ** (1 / alpha)`` with uniform ``u`` (Marsaglia and Tsang 2000, section 6).
    """
    gamma_seed, uniform_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    pair = tf.concat([[2], shape], axis=0)
    gamma = tf.random.stateless_gamma(pair, gamma_seed, alpha=alpha + 1.0)
    uniform = tf.random.stateless_uniform(pair, uniform_seed, minval=1e-30)
    log_gamma = tf.math.log(gamma) + tf.math.log(uniform) / alpha
    return tf.sigmoid(log_gamma[0] - log_gamma[1])


def _is_on(alpha: float, name: str) -> bool:
    if alpha < 0:
        raise ValueError(f"{name}_alpha is {alpha!r}, but must be positive, or 0 to turn {name} off.")
    return alpha > 0


def _blend(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Returns ``weight * row + (1 - weight) * partner``; the partner is the row at the mirrored position."""
    partner = tf.reverse(values, axis=[0])
    return partner + weight * (values - partner)


def _inside(start: tf.Tensor, end: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """Returns a mask, float32 ``[B, limit]``: 1 for positions in ``[start, end)``, 0 elsewhere."""
    place = tf.range(limit)[tf.newaxis]
    return tf.cast((place >= start[:, tf.newaxis]) & (place < end[:, tf.newaxis]), tf.float32)
