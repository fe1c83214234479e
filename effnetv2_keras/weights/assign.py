"""From canonical names to a model: all weights, or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from effnetv2_keras.models.factory import layers_by_role
from effnetv2_keras.models.naming import variable_names
from effnetv2_keras.weights import layout
from effnetv2_keras.weights.layout import Array, WeightsFile
from effnetv2_keras.weights.report import Mismatch, WeightReport, WeightsError, shortened

ENOUGH = 0.5
"""Share of the body's weights that must fit for a file to count as one of this variant."""


def weight_names(model: tf.keras.Model) -> list[str]:
    """Gives the canonical names of ``model.weights``, in that order.

    Raises:
        WeightsError: if ``build_model`` did not make the model.
    """
    try:
        names = variable_names(layers_by_role(model))
        return [names[id(variable)] for variable in model.weights]
    except (ValueError, LookupError) as error:
        raise WeightsError(f"Weights are loaded into models that build_model made: {error}") from error


def assign(model: tf.keras.Model, file: WeightsFile, source: str) -> WeightReport:
    """Gives a model the weights of a file, or leaves it as it is and raises.

    The classifier is loaded whole or, where the file has none or one of another width, not at all.

    Args:
        model: one of ``build_model``'s.
        file: what a reader found.
        source: the file's name, for messages.

    Raises:
        WeightsError: if a weight of the body is missing, of another shape, or foreign to the model.
    """
    names, values = weight_names(model), model.get_weights()
    weights, adapted = _fit_channels(file.weights, dict(zip(names, values)))
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
    unused = tuple(name for name in weights if name not in loaded and name not in unfit)
    report = WeightReport(f"{source} ({file.format})", loaded, unused + file.skipped, missing, mismatched, adapted)
    _check(report, foreign=tuple(name for name in unused if _in_body(name)), file=file)
    chosen = set(loaded)
    model.set_weights([weights[name] if name in chosen else value for name, value in zip(names, values)])
    return report


def _in_body(name: str) -> bool:
    return not name.startswith(layout.CLASSIFIER)


def _fit_channels(
    weights: Mapping[str, Array], values: Mapping[str, Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Makes a stem for RGB fit images of another number of channels; ``load_weights`` states the rule.

    Returns:
        All weights, and the names of those that were changed.
    """
    name = layout.STEM_KERNEL
    if name not in weights or name not in values or weights[name].ndim != 4:
        return dict(weights), ()
    rgb, channels = weights[name], values[name].shape[2]
    if rgb.shape[2] != 3 or channels == 3:
        return dict(weights), ()
    one, several = rgb.sum(axis=2, keepdims=True), rgb[:, :, np.arange(channels) % 3] * (3 / channels)
    return {**weights, name: one if channels == 1 else several}, (name,)


def _check(report: WeightReport, *, foreign: tuple[str, ...], file: WeightsFile) -> None:
    """Raises if the body of the network would not come from the file whole."""
    missing = tuple(filter(_in_body, report.missing))
    mismatched = tuple(str(mismatch) for mismatch in report.mismatched if _in_body(mismatch.name))
    if not (missing or mismatched or foreign):
        return
    fitting = sum(map(_in_body, report.loaded))
    total = fitting + len(missing) + len(mismatched)
    fewest = 0 if fitting >= ENOUGH * total else 3  # naming hundreds of weights would help nobody
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
        + (f"{fitting} of {total} weights fit, it is not a file of this variant. " if fewest else "")
        + (f"It holds the weights of {variant!r}; build that model. " if variant else "")
        + f"The model is unchanged. Weights {listed}.",
        report,
    )
