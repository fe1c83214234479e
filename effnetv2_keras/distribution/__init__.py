"""Devices, replicas and workers."""

import effnetv2_keras.environment  # noqa: F401  before any of them imports TensorFlow
