"""Assigns weights with canonical names to a model: either all weights fit, or the model is unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.flat_layers import flat_variable_names, is_flat
from effnetv2_keras.models.naming import variable_names
from effnetv2_keras.weights import facts, layout, pixel_statistics, sizes
from effnetv2_keras.weights.layout import Array, WeightsFile
from effnetv2_keras.weights.report import Mismatch, WeightReport, WeightsError, shortened

ENOUGH = 0.5
"""Fraction of the body's weights that must fit for the error message to treat a file as one of this variant."""


def weight_names(model: tf.keras.Model) -> list[str]:
    """Returns the canonical names of ``model.weights``, in that order.

    Raises:
        WeightsError: if the model is neither from ``build_model`` nor an EfficientNet of Keras' layers.
    """
    try:
        names = flat_variable_names(model) if is_flat(model) else variable_names(layers_by_role(model))
        return [names[id(variable)] for variable in model.weights]
    except (ValueError, LookupError) as error:
        raise WeightsError(
            "Weights can be loaded only into models of build_model and of functions such as EfficientNetV2S: "
            f"{error}"
        ) from error


def assign(model: tf.keras.Model, file: WeightsFile, source: str) -> WeightReport:
    """Assigns the weights of a file to a model; if they do not fit, raises an error and leaves the model unchanged.

    The classifier is loaded completely, or not at all if the file has none or one of another width.

    Args:
        model: a model of ``build_model`` or an EfficientNet of Keras' layers.
        file: the contents of the file.
        source: name of the file, for messages.

    Returns:
        Which weights were loaded, skipped, missing, of another shape, or adapted.

    Raises:
        WeightsError: if a weight of the body is missing or of another shape, or the file has body weights that the
            model does not have.
    """
    names, values = weight_names(model), model.get_weights()
    statistics, others = pixel_statistics.split(file.weights)
    weights, adapted = _fit_channels(others, dict(zip(names, values)))
    own = pixel_statistics.for_model(model, statistics)
    weights.update(own)
    missing = tuple(name for name in names if name not in weights)
    mismatched = tuple(
        Mismatch(name, file.weights[name].shape, value.shape)
        for name, value in zip(names, values)
        if name in weights and weights[name].shape != value.shape
    )
    unfit = {*missing, *(mismatch.name for mismatch in mismatched)}
    keeps_classifier = any(name.startswith(layout.CLASSIFIER) for name in unfit)
    loaded = tuple(
        name for name in names if name not in unfit and not (keeps_classifier and name.startswith(layout.CLASSIFIER))
    )
    unused = tuple(name for name in {**others, **statistics} if name not in loaded and name not in unfit)
    found = facts.with_statistics(file.facts, statistics, model_has_them=bool(own))
    warnings = file.warnings + facts.differences(model, found) + _not_finite(weights, loaded)
    from_file = tuple(name for name in loaded if name not in own or name in statistics)
    report = WeightReport(
        f"{source} ({file.format})", from_file, unused + file.skipped, missing, mismatched, adapted, warnings
    )
    _check(report, foreign=tuple(name for name in unused if _in_body(name)), file=file)
    chosen = set(loaded)
    model.set_weights([weights[name] if name in chosen else value for name, value in zip(names, values)])
    pixel_statistics.finalize(model)
    return report


def _not_finite(weights: Mapping[str, Array], loaded: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a warning if some of the loaded weights are not finite as float32."""
    with np.errstate(over="ignore"):
        names = tuple(name for name in loaded if not np.isfinite(np.float32(weights[name])).all())
    return (f"NaN or infinite values are in {shortened(names)}, so outputs will be NaN.",) if names else ()


def _in_body(name: str) -> bool:
    return not name.startswith((layout.CLASSIFIER, layout.PREPROCESSING))


def _fit_channels(
    weights: Mapping[str, Array], values: Mapping[str, Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Adapts a stem kernel for RGB to images with another number of channels, by the rule in ``load_weights``.

    Returns:
        All weights, and the names of the adapted ones.
    """
    name = layout.STEM_KERNEL
    if name not in weights or name not in values or weights[name].ndim != 4:
        return dict(weights), ()
    rgb, channels = weights[name], values[name].shape[2]
    if channels == rgb.shape[2] or not sizes.is_needed(name, rgb.shape, {name: values[name].shape}):
        return dict(weights), ()
    one, several = rgb.sum(axis=2, keepdims=True), rgb[:, :, np.arange(channels) % 3] * (3 / channels)
    return {**weights, name: one if channels == 1 else several}, (name,)


def _check(report: WeightReport, *, foreign: tuple[str, ...], file: WeightsFile) -> None:
    """Raises ``WeightsError`` unless all body weights of the model, and no others, are in the file."""
    missing = tuple(filter(_in_body, report.missing))
    mismatched = tuple(str(mismatch) for mismatch in report.mismatched if _in_body(mismatch.name))
    if not (missing or mismatched or foreign):
        return
    fitting = sum(map(_in_body, report.loaded))
    total = fitting + len(missing) + len(mismatched)
    fewest = 0 if fitting >= ENOUGH * total else 3  # a list of hundreds of weights would not help
    listed = "; ".join(
        f"{what}: {shortened(names, fewest or len(names))}"
        for what, names in (
            ("not in the file", missing),
            ("of another shape", mismatched),
            ("in the file but not in the model", foreign),
        )
        if names
    )
    variant = layout.variant_of({name: value.shape for name, value in file.weights.items()})
    raise WeightsError(
        f"{report.source} does not fit the model: "
        + (f"{fitting} of {total} weights fit, so it is not a file of this variant. " if fewest else "")
        + (f"It contains the weights of {variant!r}; build that model. " if variant else "")
        + f"The model is unchanged. Weights {listed}.",
        report,
    )
