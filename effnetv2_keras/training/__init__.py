"""The training loop and its parts."""

import effnetv2_keras.environment  # noqa: F401  before any of them imports TensorFlow
