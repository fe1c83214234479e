"""The features that a network's classifier sees."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.naming import is_nested


def with_features(model: tf.keras.Model) -> tf.keras.Model:
    """Returns a network with the same weights that also returns the features before its classifier.

    The classifier is the last layer with weights. If it is a convolution, the features are the mean over its positions.

    Args:
        model: result of ``build_for``.

    Returns:
        A model that maps images to the features, float32 ``[N, d]``, and the logits, float32 ``[N, classes]``.

    Raises:
        UsageError: if the classifier does not have one input of that kind.
    """
    classifier = [layer for layer in model.layers if layer.weights][-1]
    if is_nested(classifier) and classifier is model.layers[-1]:  # a network of Keras behind its preprocessing
        features, logits = with_features(classifier)(model.layers[-2].output)
        return tf.keras.Model(model.input, [features, logits])
    features = classifier.input
    if is_nested(classifier) or isinstance(features, (list, tuple)) or len(features.shape) not in (2, 4):
        raise UsageError(
            f"{model.name} has no features to write: its classifier {classifier.name!r} does not have one input "
            "[N, d] or [N, H, W, d]. Leave out --embeddings."
        )
    if len(features.shape) == 4:
        features = tf.keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(features)
    return tf.keras.Model(model.input, [features, model.output])
