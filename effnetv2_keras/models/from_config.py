"""Builds the network that a configuration describes."""

from __future__ import annotations

import tensorflow as tf

from effnetv2_keras.architecture import specs
from effnetv2_keras.config import Config
from effnetv2_keras.errors import UsageError
from effnetv2_keras.models.factory import build_model
from effnetv2_keras.models.finetuning import set_trainable
from effnetv2_keras.models.keras_models import build_keras_model
from effnetv2_keras.models.naming import layers_by_name


def build_for(config: Config, num_classes: int) -> tf.keras.Model:
    """Returns the network that a configuration describes, with the trainable layers that it names.

    Args:
        config: the configuration.
        num_classes: width of the classifier.

    Raises:
        UsageError: if the configuration names a layer that the network does not have, the network cannot be built, or a
            setting does not apply to it.
    """
    spec = config.spec
    if isinstance(spec, specs.KerasSpec):
        _check_settings(config, spec)
        sizes = [
            stage.image_size for stage in config.progressive.plan(config.progressive.stages, seed=config.train.seed)
        ]
        model = build_keras_model(
            spec,
            num_classes=num_classes,
            bn_momentum=config.model.bn_momentum,
            include_preprocessing=config.model.include_preprocessing,
            asks_normalization=config.model.normalization is not None,
            imagenet_statistics=config.train.ft_init_ckpt is not None,
            dtype=config.precision.policy,
            smallest_size=min(config.eval_size, *sizes),
        )
    else:
        model = _build_from_blocks(config, spec, num_classes)
    set_trainable(
        model,
        trainable_from=config.train.trainable_from,
        trainable_layers=config.train.trainable_layers,
        freeze_bn=bool(config.train.freeze_bn),
        layers=layers_by_name(model),
    )
    return model


def _check_settings(config: Config, spec: specs.KerasSpec) -> None:
    """Raises ``UsageError`` for settings that apply only to networks of this package's own blocks."""
    for given, key, instead in (
        (config.model.act_fn != "silu", "model.act_fn", "a Keras network has its own activations"),
        (config.model.bn_epsilon != 1e-3, "model.bn_epsilon", "a Keras network has its own epsilon"),
        (config.runtime.rematerialize, "runtime.rematerialize", "set train.accumulation_steps to save memory"),
        (
            config.train.ft_init_ckpt is not None and spec.name.count(":") > 1,
            "train.ft_init_ckpt",
            "a run starts with the weights of the model that keras:package.module:function returns, so load them there",
        ),
    ):
        if given:
            raise UsageError(
                f"{key} applies only to networks of a ModelSpec, not to {spec.name}: {instead}. Remove the setting."
            )
    if config.train.ft_init_ckpt not in (None, "imagenet"):
        raise UsageError(
            f"train.ft_init_ckpt is {config.train.ft_init_ckpt!r}, but {spec.name} has only the weights imagenet, "
            "those of Keras. Use train.ft_init_ckpt=imagenet, or train.ft_init_ckpt= for random weights."
        )


def _build_from_blocks(config: Config, spec: specs.ModelSpec, num_classes: int) -> tf.keras.Model:
    return build_model(
        spec,
        num_classes=num_classes,
        survival_prob=config.model.survival_prob,
        bn_momentum=config.model.bn_momentum,
        bn_epsilon=config.model.bn_epsilon,
        activation=config.model.act_fn,
        classifier_init=config.model.classifier_init,
        include_preprocessing=config.model.include_preprocessing,
        dtype=config.precision.policy,
    )
