"""What ``own_photos.py`` compares with: ``fit`` of plain Keras, and its guide to transfer learning."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

_HEAD_SHARE = 0.4
"""Share of the time in which the guide trains the classifier alone."""


def keras_fit(job: dict[str, Any]) -> dict[str, Any]:
    """Trains Keras' EfficientNetV2-B0 at half width from random weights with ``fit``, and returns its figures."""
    import tensorflow as tf

    layers, size = tf.keras.layers, 64 if job["minutes"] < 10 else 96
    data = {split: _images(job["photos"], split, size) for split in ("train", "validation", "test")}
    tf.keras.utils.set_random_seed(job["seed"])
    classes = len(data["train"].class_names)
    augment = [layers.RandomFlip("horizontal"), layers.RandomTranslation(0.15, 0.15)]
    own = {"weights": None, "classes": classes, "classifier_activation": None, "input_shape": [size, size, 3]}
    network = _keras_network(width=0.5, depth=1.0, **own)
    model = tf.keras.Sequential([layers.Input([size, size, 3]), *augment, network])
    epochs = _epochs_in(60 * job["minutes"], model, data, _compiled(model, tf.keras.optimizers.AdamW(1e-6)))
    rate = tf.keras.optimizers.schedules.CosineDecay(0.003, epochs * len(data["train"]))
    tf.keras.utils.set_random_seed(job["seed"])
    model.set_weights(tf.keras.models.clone_model(model).get_weights())
    _compiled(model, tf.keras.optimizers.AdamW(rate))
    start = time.process_time()
    best = _fit(model, data, epochs)
    return {**best, "seconds": time.process_time() - start, "epochs": epochs, "network": "B0, half width"}


def keras_guide(job: dict[str, Any]) -> dict[str, Any]:
    """Fine-tunes in the two phases of Keras' guide from the weights in ``job["h5"]``, and returns the figures."""
    import tensorflow as tf

    layers, size = tf.keras.layers, 96
    data = {split: _images(job["photos"], split, size) for split in ("train", "validation", "test")}
    tf.keras.utils.set_random_seed(job["seed"])
    base = _keras_network(width=0.5, depth=0.5, weights=None, include_top=False, pooling="avg")
    base.load_weights(job["h5"], by_name=True)
    inputs = tf.keras.Input([size, size, 3])
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = layers.Dropout(0.2)(base(x, training=False))
    model = tf.keras.Model(inputs, layers.Dense(len(data["train"].class_names))(x))
    seconds, initial, best, epochs = 0.0, model.get_weights(), {}, []
    for trainable, rate, share in ((False, 1e-3, _HEAD_SHARE), (True, 1e-5, 1 - _HEAD_SHARE)):
        base.trainable = trainable
        before = model.get_weights()
        compiled = _compiled(model, tf.keras.optimizers.Adam(rate))
        count = _epochs_in(60 * job["minutes"] * share, model, data, compiled)
        model.set_weights(before if epochs else initial)
        _compiled(model, tf.keras.optimizers.Adam(rate))
        start = time.process_time()
        best = _fit(model, data, count)
        seconds += time.process_time() - start
        epochs.append(count)
    return {**best, "seconds": seconds, "epochs": sum(epochs), "network": job["network"]}


def _keras_network(*, width: float, depth: float, **settings: Any) -> Any:
    import tensorflow as tf

    keras = sys.modules[tf.keras.applications.EfficientNetV2B0.__module__]
    shape = {"width_coefficient": width, "depth_coefficient": depth, "default_size": 224}
    return keras.EfficientNetV2(**shape, model_name="efficientnetv2-b0", **settings)


def _images(photos: str, split: str, size: int) -> Any:
    import tensorflow as tf

    return tf.keras.utils.image_dataset_from_directory(
        f"{photos}/{split}", image_size=(size, size), batch_size=32, shuffle=split == "train", seed=0
    )


def _compiled(model: Any, optimizer: Any) -> Any:
    import tensorflow as tf

    model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def _epochs_in(seconds: float, model: Any, data: dict[str, Any], compiled: Any) -> int:
    """Returns the number of epochs, each with its evaluation, that fit into a processor time."""
    del compiled
    train = data["train"]
    start = time.process_time()
    model.fit(train.take(2), verbose=0)
    model.evaluate(data["validation"], verbose=0)
    first = time.process_time() - start
    start = time.process_time()
    model.fit(train.take(12), verbose=0)
    step = (time.process_time() - start) / 12
    start = time.process_time()
    model.evaluate(data["validation"], verbose=0)
    evaluation = time.process_time() - start
    return max(1, int((seconds - first) / (step * len(train) + evaluation)))


def _fit(model: Any, data: dict[str, Any], epochs: int) -> dict[str, float]:
    import tensorflow as tf

    keep_best = tf.keras.callbacks.EarlyStopping(
        "val_accuracy", patience=epochs, mode="max", restore_best_weights=True, start_from_epoch=0
    )
    model.fit(data["train"], validation_data=data["validation"], epochs=epochs, callbacks=[keep_best], verbose=0)
    return {split: model.evaluate(data[split], verbose=0)[1] for split in ("validation", "test")}


def write_h5(run: str, path: pathlib.Path) -> str:
    """Writes the averaged weights of a run of a network without top in Keras' layout; returns the network's name.

    Which variable of Keras becomes which of ours is found by loading a file whose variables hold their own numbers.
    """
    import effnetv2_keras.environment  # noqa: F401  must precede the import of TensorFlow

    # isort: split
    import numpy as np

    from effnetv2_keras import build_model
    from effnetv2_keras.runs.trained import load_trained
    from effnetv2_keras.weights import load_weights

    trained = load_trained(run)
    theirs = _keras_network(width=0.5, depth=0.5, weights=None, include_top=False, pooling="avg")
    theirs.set_weights([np.full(weight.shape, number) for number, weight in enumerate(theirs.weights)])
    theirs.save_weights(path)
    ours = build_model(trained.spec, include_top=False, pooling="avg")
    load_weights(ours, str(path))
    values = theirs.get_weights()
    learned = trained.model.get_weights()
    for weight, value in zip(ours.get_weights(), learned):
        values[int(weight.flat[0])] = value.reshape(values[int(weight.flat[0])].shape)
    theirs.set_weights(values)
    theirs.save_weights(path)
    return trained.spec.name
