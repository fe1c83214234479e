"""``load_weights`` loads a file of weights, or published weights by name, into a model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection

import tensorflow as tf
from absl import logging

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.models.flat_layers import is_flat
from effnetv2_keras.weights import facts, formats, layout, pixel_statistics, registry
from effnetv2_keras.weights.assign import assign, weight_names
from effnetv2_keras.weights.keras_networks import load_keras_weights
from effnetv2_keras.weights.report import WeightReport


def load_weights(
    model: tf.keras.Model,
    weights: str | os.PathLike[str] | tf.keras.Model,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    prefer_ema: bool = True,
) -> WeightReport:
    """Loads weights into a network; if they do not fit, raises an error and changes nothing.

    If the file has no classifier, or one of another width, the model's classifier keeps its values, and the report says
    so. All other weights must fit.

    Weights for RGB images also fit a model for images with another number of channels C. For C = 1, the stem kernel is
    the sum over R, G and B, so that a gray image gives the same output as its RGB version. Otherwise the channels of
    the kernel are repeated in turn (R, G, B, R, ...) and scaled by 3 / C, which keeps the scale of the output. The
    report lists adapted weights.

    V1's networks of Keras' layers normalize pixels with statistics that are weights. They are loaded too. If the file
    has none, they become those of the file's network, which are ImageNet's.

    Args:
        model: a model of ``build_model``, or one of ``EfficientNetV2S`` and the other functions or of
            ``tf.keras.applications``; its weights are float32.
        weights: another such model, whose weights are copied, also between the two kinds; a file, a folder, or the
            prefix of a checkpoint; or the name of published weights. Files are recognized by their content: HDF5 of
            ``tf.keras.applications`` (V2 and V1, with or without top); TensorFlow checkpoints of the reference code,
            also as the published ``.tgz``; timm's ``.safetensors`` and ``.pth``; and this package's runs, checkpoints,
            ``.keras``, ``.weights.h5`` and ``.h5``. Names are ``"imagenet"``, ``"imagenet21k"`` (21843 classes),
            ``"imagenet21k-ft1k"``, ``"noisy-student"``, ``"timm:NAME"`` for weights of timm and
            ``"hf:OWNER/REPOSITORY"`` or ``"hf:OWNER/REPOSITORY/FILE"`` for others on the Hugging Face hub; their files
            are downloaded unless they are in the cache folder.
        cache_dir: folder of downloaded files; None for the environment variable ``EFFNETV2_KERAS_CACHE``, or
            ``~/.cache/effnetv2_keras`` if it is not set. For the hub, None is the hub's own cache folder.
        prefer_ema: whether to load the moving averages of the weights if the file has them.

    Returns:
        Which weights were loaded, skipped, missing, of another shape, or adapted, and warnings.

    Raises:
        WeightsError: if the file cannot be downloaded or read, does not fit, unpacks to much more than the model's own
            weights, refers to other files, or is of a network of timm with another padding. The model is then
            unchanged.
    """
    names = weight_names(model)
    shapes = dict(zip(names, (tuple(weight.shape) for weight in model.weights)))
    if isinstance(weights, tf.keras.Model):
        return _told(assign(model, _of_model(weights, names), weights.name), weights.name)
    path = pathlib.Path(weights).expanduser()
    if registry.is_name(weights):
        with_top = shapes.get("classifier/bias") == (1000,)
        path = registry.fetch(str(weights), layout.variant_of(shapes), with_top=with_top, cache_dir=cache_dir)
    return _told(assign(model, formats.read(path, shapes=shapes, prefer_ema=prefer_ema), str(path)), str(path))


def _of_model(model: tf.keras.Model, wanted: Collection[str]) -> layout.WeightsFile:
    """Returns the weights of a model as the contents of a file for a model with the ``wanted`` weights."""
    weights = dict(zip(weight_names(model), model.get_weights()))
    constants = pixel_statistics.MEAN in wanted and not is_flat(model)
    statistics = pixel_statistics.of_network(model) if constants else {}
    return layout.WeightsFile("model", {**weights, **statistics}, (), facts=facts.of_model(model))


def _told(report: WeightReport, source: str) -> WeightReport:
    for warning in report.warnings:
        logging.warning("%s: %s", source, warning)
    return report


def load_configured(model: tf.keras.Model, config: Config) -> WeightReport:
    """Loads the weights of ``train.ft_init_ckpt`` into the network of a configuration.

    Args:
        model: result of ``build_for`` with this configuration.
        config: a configuration whose ``train.ft_init_ckpt`` is not None. For ``keras:NAME`` it is ``"imagenet"``,
            which stands for Keras' own weights of that network.

    Raises:
        WeightsError: as ``load_weights``.
    """
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        return load_keras_weights(model, spec.name.partition(":")[2], spec.normalization)
    return load_weights(model, str(config.train.ft_init_ckpt), prefer_ema=config.train.ft_init_ema)
