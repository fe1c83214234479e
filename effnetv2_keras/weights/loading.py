"""``load_weights``: from a file or a name to a model."""

from __future__ import annotations

import os
import pathlib

import tensorflow as tf

from effnetv2_keras.weights import formats, layout, registry
from effnetv2_keras.weights.assign import assign, weight_names
from effnetv2_keras.weights.report import WeightReport


def load_weights(
    model: tf.keras.Model,
    weights: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    prefer_ema: bool = True,
) -> WeightReport:
    """Loads weights into a model of ``build_model``, all of them or, with an error, none.

    A classifier of another width than the model's, or none at all, is no error: the model's keeps its values, and the
    report says so. Anything else must fit.

    Files made for RGB also fit a model of images with another number of channels C: for C = 1 the stem's kernel is
    the sum over R, G and B, which answers a grey image as it would the same image in RGB; otherwise its channels are
    repeated in turn (R, G, B, R, ...) and scaled by 3 / C, which keeps the size of its answers. The report says so.

    Args:
        model: the model; its weights are float32.
        weights: a file, a folder, or the prefix of a checkpoint, recognised by its content: HDF5 of
            ``tf.keras.applications`` (V2 and V1, with or without top), TensorFlow checkpoints of the reference code,
            also as the published ``.tgz``, timm's ``.safetensors`` and ``.pth``, and this package's runs, checkpoints,
            ``.keras``, ``.weights.h5`` and ``.h5``. Or a name: ``"imagenet"``, ``"imagenet21k"`` (21843 classes) or
            ``"imagenet21k-ft1k"``, which is downloaded unless it is in the cache folder.
        cache_dir: folder of files that go by a name; None takes the environment variable ``EFFNETV2_KERAS_CACHE``, or
            else ``~/.cache/effnetv2_keras``.
        prefer_ema: take the moving averages of the weights where the file has them beside the weights.

    Returns:
        What became of every weight.

    Raises:
        WeightsError: if the file cannot be had, read, or fitted; the model is then as it was.
    """
    names = weight_names(model)
    shapes = dict(zip(names, (tuple(weight.shape) for weight in model.weights)))
    path = pathlib.Path(weights).expanduser()
    if weights in registry.NAMES:
        with_top = shapes.get("classifier/bias") == (1000,)
        path = registry.fetch(str(weights), layout.variant_of(shapes), with_top=with_top, cache_dir=cache_dir)
    return assign(model, formats.read(path, names=names, prefer_ema=prefer_ema), str(path))
