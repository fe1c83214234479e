"""Names of variables that are the same with Keras 2 and Keras 3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from effnetv2_keras.models.keras_compat import path_of, tf_variables
from effnetv2_keras.models.naming import layers_by_name, variable_names


def names_of(model: tf.keras.Model, variables: Iterable[Any]) -> list[str]:
    """Returns the names of variables of a model, which may be TensorFlow's or Keras' own."""
    known = variable_names(layers_by_name(model))
    names = {id(variable): known[id(weight)] for variable, weight in zip(tf_variables(model.weights), model.weights)}
    return [names[id(variable)] for variable in tf_variables(variables)]


def values_of(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """Returns the values of all weights of a model by name."""
    return {path_of(weight): weight.numpy() for weight in model.weights}
